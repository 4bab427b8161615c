"""What the profiler adds to a step of real vLLM: hooks in and out of one engine, in interleaved blocks, beside other ways to know the same.

    python bench/overhead.py [--seconds 90,160] [--requests 32,256] [--setups …] [--rivals …] [--save FILE] [--write]
    python bench/overhead.py --from FILE… [--write]

One child for each set-up (all probes, one profiler alone, lightweight, `simple`) runs engine, scheduler and worker of a tiny model in its
one process, and steps it in blocks: hooks out, hooks in, and in the first child the rivals as well. The order changes from
round to round; the engine, its requests and its memory are the same ones throughout. Reported is the median, over rounds, of a block's median step less
that of the same round's block without hooks, with the interval that has the true median in 95 of 100 runs (by order statistics).

Beside it stands what the extension itself says that its hooks took (it times every 64th call of each). The two are apart
on purpose: the first has in it what the caches lose to our code, and what vLLM gains or loses by being called through our wrappers;
the second has only the hooks.

Rivals, hooks out:
    plain Python   wrappers of schedule, execute_model and sample_tokens that make the step's composition and write two CSV rows
    log stats      vLLM's own statistics, which a server has on (the reference has them off)
    cProfile, viztracer   from Python's library, and from $VENV/viztracer or PM_VIZTRACER: all functions

Also measured: bytes of records a step, growth of the process's memory a step with hooks in and out, and the start of a process that
is not profiled (bench_startup.py). PM_BUILD names another build folder. --write puts the tables into docs/OVERHEAD.md.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import bench_startup
import paired

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
PAGE = ROOT / "docs" / "OVERHEAD.md"
SETTLE = 2  # steps after a change that are not timed: the interpreter forgets what it knew of a class that was changed

PROFILERS = ["FORWARD_PASS_TIMING", "CPU_TIMING", "BATCH_UTILIZATION_TRACKING", "PREEMPTION_TRACKING", "ENCODER_DECODER_TIMING", "KV_CACHE_TRACKING",
             "SAMPLING_TIMING", "LAYER_TIMING"]  # fmt: skip
OTHERS = ["CUDA_GRAPH_TRACKING", "MOE_EXPERT_TRACKING", "MEMORY_TRACKING", "COLLECTIVE_TIMING", "SPEC_DECODE_TRACKING"]


def alone(name: str) -> dict[str, str]:
    return {f"VLLM_PROFILING_ENABLE_{other}": "1" if other == name else "0" for other in PROFILERS + OTHERS}


# Set-ups: what is in their environment. The first is compared with the rivals as well.
SETUPS = {
    "all": {},
    "simple": {"VLLM_PROFILING_PRESET": "simple"},
    "lightweight": {"VLLM_PROFILING_USE_CUDA_EVENTS": "0"},
    **{name: alone(name) for name in PROFILERS},
}
RIVALS = ["plain", "log stats", "cProfile", "viztracer"]
NAMES = {
    "all": "all profilers (preset `full`)",
    "lightweight": "lightweight (`USE_CUDA_EVENTS=0`)",
    "simple": "preset `simple`",
    "plain": "plain Python, three wrappers and CSV",
    "log stats": "vLLM's own log stats",
    "cProfile": "cProfile",
    "viztracer": "viztracer",
}


# ---- the child: one engine, several ways to watch it ----


def hooked_attributes():
    """(class, name, hooked, original) of every attribute that the extension replaced."""
    found = []
    for module in list(sys.modules.values()):
        if not getattr(module, "__name__", "").startswith(("vllm.", "torch.cuda")):
            continue
        for value in list(vars(module).values()):
            if not isinstance(value, type) or value.__module__ != module.__name__:
                continue
            for name, attribute in list(vars(value).items()):
                if type(attribute).__module__ == "profilemate" and hasattr(attribute, "__wrapped__"):
                    found.append((value, name, attribute, attribute.__wrapped__))
    return found


def layer_timers():
    """(module, timer) of every module of the model that has a timer in the place of its `forward` (LAYER_TIMING)."""
    import gc

    import torch

    modules = [found for found in gc.get_objects() if issubclass(type(found), torch.nn.Module)]
    timers = [(module, vars(module).get("forward")) for module in modules]
    return [(module, timer) for module, timer in timers if type(timer).__module__ == "profilemate"]


def plain_profiler(folder):
    """What a short Python profiler does for the same rows: (class, name, hooked, original) of three methods."""
    import csv

    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.worker.gpu_worker import Worker

    batches = csv.writer(open(folder / "batches.csv", "w", newline=""))
    forwards = csv.writer(open(folder / "forwards.csv", "w", newline=""))
    clock = time.perf_counter_ns

    def original(owner, name):
        attribute = vars(owner)[name]
        return attribute.__wrapped__ if type(attribute).__module__ == "profilemate" else attribute

    was = {name: original(owner, name) for owner, name in ((Scheduler, "schedule"), (Worker, "execute_model"), (Worker, "sample_tokens"))}

    def schedule(self, *args, **kwargs):
        start = clock()
        output = was["schedule"](self, *args, **kwargs)
        end = clock()
        prefill = decode = 0
        for name, n in output.num_scheduled_tokens.items():
            request = self.requests[name]
            if request.num_computed_tokens - n < request.num_prompt_tokens:
                prefill += n
            else:
                decode += n
        free = self.kv_cache_manager.block_pool.get_num_free_blocks()
        batches.writerow((start, end - start, len(output.num_scheduled_tokens), prefill, decode, len(self.running), len(self.waiting), free))
        return output

    def timed(name):
        def wrapper(self, *args, **kwargs):
            start = clock()
            result = was[name](self, *args, **kwargs)
            forwards.writerow((name, start, clock() - start))
            return result

        return wrapper

    return [
        (Scheduler, "schedule", schedule, was["schedule"]),
        (Worker, "execute_model", timed("execute_model"), was["execute_model"]),
        (Worker, "sample_tokens", timed("sample_tokens"), was["sample_tokens"]),
    ]


def record_file(folder):
    """The record file of this process."""
    for path in pathlib.Path(folder).glob("*/records/*"):
        with path.open("rb") as file:
            head = file.read(36)
        if len(head) == 36 and head[:8] == b"PFMEREC1" and struct.unpack_from("<I", head, 28)[0] == os.getpid():
            return path
    sys.exit("overhead: the extension records nothing: is it built?")


def hook_counts(path):
    """(calls, ns) of the hooks so far: hook_calls and hook_ns of struct pm_file_head (src/session/layout.h, version 1)."""
    with path.open("rb") as file:
        head = file.read(256)
    if struct.unpack_from("<I", head, 8)[0] != 1:
        sys.exit("overhead: another version of the record file")
    return struct.unpack_from("<QQ", head, 216)


def record_bytes(path):
    """Bytes of all records so far, heads included: segments, each walked to its end (layout.h)."""
    data = path.read_bytes()
    header, size = struct.unpack_from("<II", data, 12)
    total = 0
    for slot in range(header, len(data) - 128, size):
        if data[slot : slot + 8] != b"PFMESEG1":
            continue
        at, end = slot + 128, min(slot + size, len(data))
        while at + 8 <= end:
            words = struct.unpack_from("<Q", data, at)[0] >> 16 & 0xFFFF
            if not words:
                break
            total += 8 * words
            at += 8 * words
    return total


def resident():
    """Bytes of this process's memory that no file stands behind."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])


class Engine:
    """The one engine of a child, and the ways to watch it."""

    def __init__(self, folder, rivals, max_tokens):
        import tiny
        from vllm import LLM

        llm = LLM(
            model=str(tiny.make("llama")), dtype="float32", max_model_len=2048, gpu_memory_utilization=0.2, max_num_seqs=256,
            enforce_eager=True, enable_prefix_caching=False, disable_log_stats=False,
        )  # fmt: skip
        self.llm, self.engine = llm, llm.llm_engine
        self.core = self.engine.engine_core.engine_core
        self.ours, self.timers = hooked_attributes(), []
        self.plain = plain_profiler(folder) if "plain" in rivals else []
        self.profile = self.tracer = None
        if "cProfile" in rivals:
            import cProfile

            self.profile = cProfile.Profile()
        if "viztracer" in rivals:
            from viztracer import VizTracer

            self.tracer = VizTracer(verbose=0, tracer_entries=2_000_000)
        self.left, self.max_tokens = 0, max_tokens
        self.steps, self.grown = {}, {}  # by way: steps taken, and bytes that the process grew by in them
        self.stats(False)

    def stats(self, on):
        self.engine.log_stats = self.core.log_stats = self.core.scheduler.log_stats = on

    def enter(self, way):
        for owner, name, _, original in self.ours:
            setattr(owner, name, original)
        for owner, name, hooked, _ in {"ours": self.ours, "plain": self.plain}.get(way, ()):
            setattr(owner, name, hooked)
        for module, timer in self.timers:
            vars(module).pop("forward", None)
            if way == "ours":
                vars(module)["forward"] = timer
        self.stats(way == "log stats")

    def step(self, way, count):
        """(time, processor time) in us of each of `count` steps, after a few that are not timed."""
        self.enter(way)
        step, clock, used, taken, had = self.engine.step, time.perf_counter_ns, time.thread_time_ns, [], resident()
        for _ in range(SETTLE):
            step()
        if way == "cProfile":
            self.profile.enable()
        elif way == "viztracer":
            self.tracer.start()
        for _ in range(count):
            start, began = clock(), used()
            step()
            ended = used()
            taken.append(((clock() - start) / 1000, (ended - began) / 1000))
        if way == "cProfile":
            self.profile.disable()
        elif way == "viztracer":
            self.tracer.stop()
            self.tracer.clear()
        self.left -= count + SETTLE
        self.steps[way] = self.steps.get(way, 0) + count + SETTLE
        self.grown[way] = self.grown.get(way, 0) + resident() - had
        return taken

    def block(self, way, count):
        """The median of a block: [time, processor time] in us."""
        return [statistics.median(kind) for kind in zip(*self.step(way, count), strict=True)]

    def round(self, ways, count):
        """By way: the mean of two blocks, one on the way there and one on the way back. Requests grow from step to step, and so do steps:
        in a palindrome each way has the same middle."""
        blocks = [(way, self.block(way, count)) for way in (*ways, *reversed(ways))]
        return {way: [statistics.mean(kind) for kind in zip(*(block for of, block in blocks if of == way), strict=True)] for way in ways}

    def feed(self, requests, need):
        """Sees to it that this many requests are running, with at least `need` steps before them."""
        from vllm import SamplingParams

        if self.left >= need and len(self.core.scheduler.running) == requests:
            return
        self.enter("ours")
        self.stats(True)  # so that requests have what vLLM's statistics ask of them
        running = list(self.core.scheduler.requests)
        if running:
            self.engine.abort_request(running, internal=True)
            self.engine.step()
        for i in range(requests):
            prompt = {"prompt_token_ids": [(7 * i + k) % 100 + 5 for k in range(16)]}
            self.engine.add_request(f"r{time.perf_counter_ns()}-{i}", prompt, SamplingParams(max_tokens=self.max_tokens, ignore_eos=True))
        for _ in range(20):
            self.engine.step()
        if len(self.core.scheduler.running) != requests:
            sys.exit(f"overhead: {len(self.core.scheduler.running)} requests run instead of {requests}")
        self.left = self.max_tokens - 40


def child(spec):
    """Measures one set-up; prints `RESULT {json}`."""
    folder = pathlib.Path(spec["folder"])
    engine = Engine(folder, spec["rivals"], spec["max_tokens"])
    records = record_file(os.environ["VLLM_PROFILING_DIR"])
    found, rivals = {}, spec["rivals"]
    for requests, seconds in spec["phases"]:
        count, rng = spec["block"], random.Random(requests)
        engine.feed(requests, 8 * (count + SETTLE))
        engine.timers = engine.timers or layer_timers()  # put there in the first step
        for way in ("off", "ours", *rivals):
            engine.step(way, count)
        engine.steps.clear()
        engine.grown.clear()
        rounds, until, before = [], time.monotonic() + seconds, hook_counts(records)
        while time.monotonic() < until and len(rounds) < spec["rounds"]:
            ways = ["off", "ours", *rivals[len(rounds) % len(rivals) :][:1]] if rivals else ["off", "ours"]
            engine.feed(requests, 2 * len(ways) * (count + SETTLE))
            rounds.append(engine.round(rng.sample(ways, len(ways)), count))
        after, steps = hook_counts(records), engine.steps["ours"]
        one = {
            "rounds": rounds, "hook_us": (after[1] - before[1]) / 1000 / steps, "hook_calls": (after[0] - before[0]) / steps,
            "grown": {way: engine.grown[way] / engine.steps[way] for way in ("off", "ours")},
        }  # fmt: skip
        engine.feed(requests, 200)
        had = record_bytes(records)
        engine.step("ours", 160 - SETTLE)  # ten blocks of the KV cache for each request
        one["record_bytes"] = (record_bytes(records) - had) / 160
        found[str(requests)] = one
    found["hooks"], found["timers"], found["calls"] = len(engine.ours), len(engine.timers), hook_counts(records)[0]
    print("RESULT " + json.dumps(found), flush=True)
    os._exit(0)


# ---- the parent ----


def measure(name, args):
    """The figures of one set-up, from a child."""
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as folder:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("VLLM_", "PROFILEMATE_", "PYTHON"))}
        path = [str(BUILD / "site"), str(ROOT / "tests" / "e2e")]
        rivals = [rival for rival in args.rivals.split(",") if rival] if name == "all" else []
        if "viztracer" in rivals:
            path.append(os.environ.get("PM_VIZTRACER", str(pathlib.Path(sys.prefix) / "viztracer")))
        environment.update(
            PYTHONPATH=os.pathsep.join(path), VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=f"{folder}/sessions", VLLM_ENABLE_V1_MULTIPROCESSING="0",
            VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR",
            VLLM_CACHE_ROOT=str(ROOT / "build" / "cache" / "vllm"), **SETUPS[name],
        )  # fmt: skip
        share = 1 if name == "all" else args.share
        phases = [(int(n), float(s) * share) for n, s in zip(args.requests.split(","), args.seconds.split(","), strict=True)]
        if name in PROFILERS:
            phases = phases[:1]
        spec = {"folder": folder, "rivals": rivals, "phases": phases, "block": args.block, "rounds": args.rounds, "max_tokens": args.max_tokens}
        done = subprocess.run([sys.executable, __file__, "--child", json.dumps(spec)], env=environment, capture_output=True, text=True)
        found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not found:
            raise RuntimeError(f"{name}: the child ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        told = subprocess.run([BUILD / "bin" / "profilemate", "doctor", *pathlib.Path(folder, "sessions").glob("*/")], capture_output=True, text=True)
        result = {**json.loads(found[-1].removeprefix("RESULT ")), "doctor": told.stdout}
        if f" in {result['calls']} hooked calls" not in told.stdout:
            raise RuntimeError(f"{name}: the child read {result['calls']} hooked calls, the program:\n{told.stdout}")
        return result


def end_to_end(one, way, kind):
    """What a way adds to a step, in us: of its time (0) or of its processor time (1)."""
    return paired.estimate([found[way][kind] - found["off"][kind] for found in one["rounds"] if way in found])


def bare(one):
    """A step without hooks, in us."""
    return statistics.median(found["off"][0] for found in one["rounds"])


def span(found, digits=1):
    if math.isnan(found.low):
        return f"{found.median:+,.{digits}f} (too few rounds)"
    return f"{found.median:+,.{digits}f} ({found.low:+,.{digits}f} to {found.high:+,.{digits}f})"


def step_table(found, requests):
    """What each way adds to a step of so many requests."""
    rows = []
    for name, setup in found["setups"].items():
        one = setup.get(str(requests))
        for way in sorted({way for each in one["rounds"] for way in each} - {"off"}, key=["ours", *RIVALS].index) if one else ():
            wall, used, step = end_to_end(one, way, 0), end_to_end(one, way, 1), bare(one)
            ours = way == "ours"
            label = NAMES.get(name if ours else way) or f"only `ENABLE_{name}`"
            rows.append((not ours, name in PROFILERS, [
                label, span(wall), span(used), f"{one['hook_us']:.1f}" if ours else "", f"{one['hook_calls']:.1f}" if ours else "",
                f"{100 * wall.median / step:+.2f} %", f"{wall.median / 100:+.2f} %", str(wall.count),
            ]))  # fmt: skip
    rows.sort(key=lambda row: row[:2])  # ours, ours one by one, rivals
    head = ["what watches", "end to end, µs a step", "processor time, µs a step", "hooks' own account, µs", "hooked calls",
            "of this step", "of a step of 10 ms", "rounds"]  # fmt: skip
    steps = [bare(setup[str(requests)]) for setup in found["setups"].values() if str(requests) in setup]
    return (f"**{requests} running requests**, {statistics.median(steps) / 1000:.2f} ms a step without hooks:\n\n"
            + paired.table(head, [row[2] for row in rows]))  # fmt: skip


def lost(microseconds, step_us):
    """Tokens per second lost, in percent, where a step of step_us gets so much longer."""
    return 100 * microseconds / (step_us + microseconds)


CLAIMS = [
    ("all profilers, device events", "1.9 %", None, "device events need a device: not measured"),
    ("all profilers, lightweight", "0.8 %", "lightweight", ""),
    ("CUDA graph and KV cache profiler", "under 1 %", "simple", ""),
]


def claim_table(found):
    """The claims of the Python profilers of old, and the same by our measure."""
    rows = []
    for what, claimed, name, why in CLAIMS:
        cells = []
        for requests in sorted({int(n) for setup in found["setups"].values() for n in setup if n.isdigit()}):
            one = found["setups"].get(name, {}).get(str(requests)) if name else None
            if one is None:
                cells += [why or "not measured", ""]
                continue
            wall, step = end_to_end(one, "ours", 0), bare(one)
            cells.append(f"{lost(wall.median, step):.2f} % ({lost(wall.low, step):.2f} to {lost(wall.high, step):.2f})")
            cells.append(f"{lost(wall.median, 10000):.2f} % (at most {lost(wall.high, 10000):.2f})")
        rows.append([what, claimed, *cells])
    counts = sorted({int(n) for setup in found["setups"].values() for n in setup if n.isdigit()})
    head = ["tokens per second lost by", "claimed for Python", *[f"{n} requests, {where}" for n in counts for where in ("tiny model", "a step of 10 ms")]]
    return paired.table(head, rows, numbers=2)


def memory_table(found):
    rows = []
    for name in ("all", "simple"):
        for requests in sorted((key for key in found["setups"].get(name, {}) if key.isdigit()), key=int):
            one = found["setups"][name][requests]
            grown = one["grown"]
            rows.append([NAMES[name], requests, f"{one['record_bytes']:.0f}", f"{grown['ours']:.0f}", f"{grown['off']:.0f}"])
    return paired.table(["", "running requests", "records, bytes a step", "process grows by, bytes a step", "the same, hooks out"], rows)


def joined(parts):
    """Files of --save as one: of a set-up that several have, all rounds; otherwise the last one's word counts."""
    found = {"setups": {}}
    for part in parts:
        found.update({key: value for key, value in part.items() if key != "setups"})
        for name, setup in part["setups"].items():
            into = found["setups"].setdefault(name, {})
            for key, one in setup.items():
                had = into.get(key, {}).get("rounds", []) if key.isdigit() else []
                into[key] = {**one, "rounds": had + one["rounds"]} if key.isdigit() else one
    return found


def rendered(found):
    """All tables, as Markdown."""
    counts = sorted({int(n) for setup in found["setups"].values() for n in setup if n.isdigit()})
    parts = [step_table(found, n) for n in counts] + [claim_table(found), memory_table(found)]
    if "start" in found:
        one = found["start"]
        rows = [[name, span(bench_startup.more(one, name), 2), str(len(one["bare"]))] for name in bench_startup.WAYS[1:]]
        parts.append(f"A Python process that is not profiled starts in {statistics.median(one['bare']):.1f} ms, and later by:\n\n"
                     + paired.table(["", "ms", "rounds"], rows))  # fmt: skip
    return "\n".join([*parts, f"({found['machine']}. In brackets: 95 % intervals of the median.)\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setups", default=",".join(SETUPS))
    parser.add_argument("--rivals", default=",".join(RIVALS))
    parser.add_argument("--requests", default="32,256", help="how many run at a time")
    parser.add_argument("--seconds", default="90,160", help="for each number of requests")
    parser.add_argument("--share", type=float, default=0.3, help="the part of --seconds that the other set-ups get; a profiler alone: of the first")
    parser.add_argument("--rounds", type=int, default=100000)
    parser.add_argument("--block", type=int, default=6, help="timed steps of a block")
    parser.add_argument("--save", type=pathlib.Path, help="keep what was measured, as JSON")
    parser.add_argument("--from", dest="load", type=pathlib.Path, nargs="+", help="measure nothing, show files of --save, set-ups together")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/OVERHEAD.md")
    parser.add_argument("--max-tokens", type=int, default=400, help="of a request; the longer, the longer and the less even the steps")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(json.loads(args.child))
    if args.load:
        found = joined([json.loads(path.read_text()) for path in args.load])
    else:
        import importlib.metadata

        versions = f"vLLM {importlib.metadata.version('vllm')}, CPython {platform.python_version()}"
        found = {"machine": f"{os.cpu_count()} cores of {platform.machine()}, {versions}", "setups": {}}
        for name in args.setups.split(","):
            found["setups"][name] = measure(name, args)
            print(f"{name}: measured", file=sys.stderr, flush=True)
            if args.save:
                args.save.write_text(json.dumps(found))
        found["start"] = bench_startup.measure(str(BUILD / "site"), 200, sys.executable)
        if args.save:
            args.save.write_text(json.dumps(found))
    text = rendered(found)
    print(text, end="")
    if args.write:
        paired.write(PAGE, "overhead", text)
    return None


if __name__ == "__main__":
    main()
