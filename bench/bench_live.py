"""What the profiler adds to a step of real vLLM, against nothing and against a plain Python profiler, in one process.

    PYTHONPATH=build/release/site python bench/bench_live.py [--requests 32] [--rounds 60]

One LLM of a tiny model runs engine, scheduler and worker in this process. Every round steps it in blocks: hooks out, our
hooks in, a plain Python wrapper on schedule, execute_model and sample_tokens in; the order changes from round to
round. Reported: the differences of a block's median step, as the mean over rounds with a 95 % interval.
"""

import argparse
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
sys.path.insert(0, str(ROOT / "bench"))


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
                kind = type(attribute)
                if kind.__module__ == "profilemate" and hasattr(attribute, "__wrapped__"):
                    found.append((value, name, attribute, attribute.__wrapped__))
    return found


def plain_wrapper(original, rows, facts):
    def wrapper(self, *args, **kwargs):
        start = time.perf_counter_ns()
        result = original(self, *args, **kwargs)
        rows.append((start, time.perf_counter_ns() - start, facts(self, args, result)))
        return result

    return wrapper


def plain_profiler():
    """Three hooks of the same purpose in Python: (class, name, hooked, original)."""
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.worker.gpu_worker import Worker

    rows = []

    def composition(scheduler, args, output):
        prefill = decode = 0
        for name, n in output.num_scheduled_tokens.items():
            request = scheduler.requests[name]
            if request.num_computed_tokens - n < request.num_prompt_tokens:
                prefill += n
            else:
                decode += n
        return len(output.num_scheduled_tokens), prefill, decode, len(scheduler.running), len(scheduler.waiting)

    def nothing(worker, args, result):
        return None

    table = []
    for owner, name, facts in (
        (Scheduler, "schedule", composition),
        (Worker, "execute_model", nothing),
        (Worker, "sample_tokens", nothing),
    ):
        attribute = vars(owner)[name]
        original = getattr(attribute, "__wrapped__", attribute) if type(attribute).__module__ == "profilemate" else attribute
        table.append((owner, name, plain_wrapper(original, rows, facts), original))
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--block", type=int, default=20, help="steps of a block")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench_live_")
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE="1",
        HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1",
        VLLM_LOGGING_LEVEL="ERROR",
    )
    if os.environ.get("VLLM_ENABLE_PROFILING") != "1":
        os.environ.update(VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=folder)
        os.execv(sys.executable, [sys.executable, *sys.argv])

    import tiny
    from vllm import LLM, SamplingParams

    model = tiny.make("llama", pathlib.Path(folder) / "model") if hasattr(tiny, "make") else tiny.llama(folder)
    llm = LLM(
        model=str(model), load_format="dummy", dtype="float32", max_model_len=2048, gpu_memory_utilization=0.2,
        max_num_seqs=256, enforce_eager=True, enable_prefix_caching=False,
    )  # fmt: skip
    engine = llm.llm_engine
    ours, plain = hooked_attributes(), plain_profiler()
    if not any(name == "schedule" for _, name, _, _ in ours):
        sys.exit("bench_live: the extension is not loaded: put build/release/site on PYTHONPATH")

    def out():
        for owner, name, _, original in ours:
            setattr(owner, name, original)

    def enter(kind):
        out()
        for owner, name, hooked, _ in {"off": [], "ours": ours, "plain": plain}[kind]:
            setattr(owner, name, hooked)

    def feed():
        for i in range(arguments.requests):
            prompt = {"prompt_token_ids": [(7 * i + k) % 100 + 5 for k in range(16)]}
            engine.add_request(f"r{time.perf_counter_ns()}-{i}", prompt, SamplingParams(max_tokens=1900, ignore_eos=True))
        for _ in range(10):
            engine.step()

    def block():
        steps = []
        for _ in range(arguments.block):
            start = time.perf_counter_ns()
            engine.step()
            steps.append(time.perf_counter_ns() - start)
        return statistics.median(steps) / 1000

    enter("ours")
    feed()
    left = 1900 - 20
    kinds = ["off", "ours", "plain"]
    taken = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        random.shuffle(kinds)
        for kind in kinds:
            if left < arguments.block + 20:
                while engine.has_unfinished_requests():
                    engine.step()
                feed()
                left = 1900 - 20
            enter(kind)
            engine.step()
            taken[kind].append(block())
            left -= arguments.block + 1
    print(f"{arguments.requests} requests, {arguments.rounds} rounds of {arguments.block} steps; hooks of ours: {len(ours)}")
    print(f"a step without hooks: {statistics.mean(taken['off']):.1f} us")
    for kind in ("ours", "plain"):
        differences = [a - b for a, b in zip(taken[kind], taken["off"], strict=True)]
        mean = statistics.mean(differences)
        margin = 1.96 * statistics.stdev(differences) / len(differences) ** 0.5
        name = {"ours": "ProfileMate", "plain": "plain Python, three hooks"}[kind]
        share = 100 * mean / statistics.mean(taken["off"])
        print(f"{name:26} {mean:+8.2f} us a step, 95 % interval ± {margin:.2f} ({share:+.2f} %)")


if __name__ == "__main__":
    main()
