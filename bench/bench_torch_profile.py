"""What vLLM's torch profiler costs in the modes of `run --torch-profile`, on real servers, in pairs.

    python bench/bench_torch_profile.py [--modes light,detailed,deep] [--pairs 40] [--seconds 200] [--save FILE] [--write]
    python bench/bench_torch_profile.py --from FILE… [--write]

For each mode two servers of the same tiny model on the CPU: one without ProfileMate, one set up as the mode does. Only one is busy
at a time. Every round sends the same batch, some times, to: the bare server, the other outside of a window (`outside`: ProfileMate
records, torch's profiler is set up and off), and the other between /start_profile and /stop_profile (`inside`; fewer times where
traces are large); the order changes. The time of a batch leaves both calls out. Before them the same batch is sent once without
being timed: a server that waited for the other's turn has lost its place in the caches, or its memory to the machine. A round's
figure is the median of its batches. Reported: the median, over rounds, of that against the bare server's of the same round, with the interval
that has the true median in 95 of 100 runs (by order statistics: nothing is assumed about how times are distributed), the same of
the processor time of the server's processes, and what a step's trace takes to be written and on disk. --write puts the table into
docs/PROFILING_GUIDE.md.

A tiny model on a CPU has short operators: shares are larger than those of a real model on a GPU, where the same work
of the host hides behind longer kernels, or does not, if the host is what limits it.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import signal
import statistics
import sys
import tempfile
import time

import paired

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import serving  # noqa: E402

GUIDE = ROOT / "docs" / "PROFILING_GUIDE.md"
MODES = {
    "light": {"RECORD_SHAPES": 0, "WITH_FLOPS": 0, "WITH_PROFILE_MEMORY": 0, "WITH_STACK": 0, "DISABLE_ASYNC_LLM": 1},
    "detailed": {"RECORD_SHAPES": 1, "WITH_FLOPS": 1, "WITH_PROFILE_MEMORY": 1, "WITH_STACK": 1, "DISABLE_ASYNC_LLM": 0},
}
MODES["deep"] = MODES["detailed"]
PLACES = ("bare", "outside", "inside")
BATCHES, IN_A_WINDOW = 7, {"light": 5, "detailed": 1, "deep": 1}  # timed ones of a round
WARMING = 2  # tokens of the batch that is not timed in a window: torch's own start


def environment(mode: str | None, folder: pathlib.Path) -> dict[str, str]:
    """What `run --torch-profile MODE` gives to the server."""
    if mode is None:
        return serving.clean_environment()
    switches = {f"VLLM_TORCH_PROFILER_{name}": str(value) for name, value in MODES[mode].items()}
    traced = {"VLLM_PROFILING_TRACE_FUNCTION": "all"} if mode == "deep" else {}
    return serving.clean_environment(
        **serving.profiled(folder / "sessions", preset="full"), **switches, **traced,
        VLLM_TORCH_PROFILER_DIR=str(folder / "traces"),
    )  # fmt: skip


def processor_s(pids: list[int]) -> float:
    """Processor time that these processes have had so far: their clocks, as clock_getcpuclockid(3) names them."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def batch(server: serving.Server, requests: int, tokens: int) -> tuple[float, float]:
    """Wall and processor time of a batch: one call with all prompts, so that they are decoded together, a step per token, however
    late a thread of ours comes."""
    asked = {"model": serving.MODEL_NAME, "prompt": [[5 + i] * 16 for i in range(requests)], "max_tokens": tokens, "temperature": 0,
             "ignore_eos": True}  # fmt: skip
    pids = [process.pid for process in server.processes()]
    began, had = time.perf_counter(), processor_s(pids)
    server.post("/v1/completions", asked)
    return time.perf_counter() - began, processor_s(pids) - had


def measure(mode: str, args: argparse.Namespace) -> dict:
    """Times by place, seconds to write each trace, and the size of all traces, of one mode."""
    import tiny  # needs numpy, which only vLLM's environment has

    base = pathlib.Path(tempfile.mkdtemp(prefix="bench-torch-profile-"))
    model, servers = tiny.make("llama"), []
    traces = base / "profiled" / "traces"
    times, flush, size = {place: [] for place in PLACES}, [], []

    def batches(server: serving.Server, count: int) -> list[float]:
        """The median of some: wall and processor time."""
        taken = [batch(server, args.requests, args.tokens) for _ in range(count)]
        return [statistics.median(kind) for kind in zip(*taken, strict=True)]

    def window() -> list[float]:
        profiled.post("/start_profile", {})
        batch(profiled, args.requests, WARMING)
        took = batches(profiled, IN_A_WINDOW[mode])
        began = time.perf_counter()
        profiled.post("/stop_profile", {}, timeout=600)
        flush.append(time.perf_counter() - began)
        files = list(traces.glob("*.trace.json*"))
        size.append(sum(path.stat().st_size for path in files))
        for path in files:
            path.unlink()
        return took

    try:
        for name, kind in (("bare", None), ("profiled", mode)):
            (base / name).mkdir()
            servers.append(serving.Server(model, base / name / "server", environment(kind, base / name)))
            servers[-1].wait_ready()
        bare, profiled = servers
        for server in servers:
            batch(server, args.requests, args.tokens)
        window()  # the first one pays for torch's own start
        flush.clear()
        size.clear()
        rng, until = random.Random(1), time.monotonic() + args.seconds
        while len(times["bare"]) < args.pairs and time.monotonic() < until:
            for place in rng.sample(PLACES, len(PLACES)):
                server = bare if place == "bare" else profiled
                batch(server, args.requests, args.tokens)
                times[place].append(window() if place == "inside" else batches(server, BATCHES))
            print(f"{mode}: {len(times['bare'])} pairs, {flush[-1]:.1f} s, {size[-1]} bytes", file=sys.stderr, flush=True)
    finally:
        for server in servers:
            server.close()
    return {"tokens": args.tokens, "times": times, "flush": flush, "size": size}


def against(times: dict, place: str, kind: int) -> paired.Estimate:
    """Time (0) or processor time (1) of a place against the bare server's of the same round, less one."""
    return paired.estimate([mine[kind] / bare[kind] - 1 for mine, bare in zip(times[place], times["bare"], strict=True)])


def joined(parts: list[dict]) -> dict:
    """Files of --save as one: of a mode that several have, with batches of one length, all pairs."""
    found = {**parts[0], "modes": {}}
    for part in parts:
        for mode, one in part["modes"].items():
            had = found["modes"].get(mode)
            if had is None or had["tokens"] != one["tokens"]:
                found["modes"][mode] = one
                continue
            times = {place: had["times"][place] + one["times"][place] for place in PLACES}
            found["modes"][mode] = {**one, "times": times, "flush": had["flush"] + one["flush"], "size": had["size"] + one["size"]}
    return found


def rendered(found: dict) -> str:
    """The table, as Markdown."""
    rows = []
    for mode, one in found["modes"].items():
        steps = WARMING + one["tokens"] * IN_A_WINDOW[mode]
        for place in ("outside", "inside"):
            row = [f"`{mode}`, {place} of a window" if place == "outside" else f"`{mode}`, in a window"]
            row += [paired.share(against(one["times"], place, kind)) for kind in (0, 1)]
            if place == "inside":
                kb = statistics.median(one["size"]) / steps / 1e3
                row += [f"{1e3 * statistics.median(one['flush']) / steps:.1f} ms", f"{kb:.0f} kB" if kb < 1000 else f"{kb / 1e3:.1f} MB"]
            else:
                row += ["", ""]
            rows.append([*row, str(one["tokens"]), str(len(one["times"]["bare"]))])
    head = ["mode", "time of a batch", "processor time", "writing, a step", "trace, a step", "steps of a batch", "pairs"]
    bare = [wall / one["tokens"] for one in found["modes"].values() for wall, _ in one["times"]["bare"]]
    text = (f"(Against a server without ProfileMate: medians of pairs, in brackets their 95 % intervals. {found['requests']} requests "
            f"at a time, {1e3 * statistics.median(bare):.1f} ms a step without a profiler, {found['machine']}.)")  # fmt: skip
    return paired.table(head, rows) + "\n" + text + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", default="light,detailed,deep")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=200, help="of each mode: begin no further pair after so long")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--save", type=pathlib.Path, help="keep what was measured, as JSON")
    parser.add_argument("--from", dest="load", type=pathlib.Path, nargs="+", help="measure nothing, show files of --save together")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PROFILING_GUIDE.md")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # the servers are closed on the way out
    if args.load:
        found = joined([json.loads(path.read_text()) for path in args.load])
    else:
        import importlib.metadata

        versions = f"vLLM {importlib.metadata.version('vllm')}, torch {importlib.metadata.version('torch')}, CPython {platform.python_version()}"
        found = {"requests": args.requests, "machine": f"{os.cpu_count()} cores, {versions}", "modes": {}}
        for mode in args.modes.split(","):
            found["modes"][mode] = measure(mode, args)
            if args.save:
                args.save.write_text(json.dumps(found))
    text = rendered(found)
    print(text, end="")
    if args.write:
        paired.write(GUIDE, "torch modes", text)


if __name__ == "__main__":
    main()
