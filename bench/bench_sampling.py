"""What the probe `sampling` costs per step, on and off: batches that stay, that change without a change of the mix, and whose mix changes.

    PM_BUILD=build/release python bench/bench_sampling.py [--rounds N] [--times N]

Runs without vLLM, on the made-up scheduler of bench_step.py with requests that have sampling parameters. Each figure is the
hooked schedule() less the bare one, the median over rounds; with the probe and without take turns in processes of their own,
and what is printed is the median of those.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_step import make_vllm

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("stays", "changes", "mix changes", "new requests")
PARAMS = dict(
    temperature=0.7, top_p=0.9, top_k=20, min_p=0.0, seed=None, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0,
    logprobs=None, logprob_token_ids=None, prompt_logprobs=None, structured_outputs=None, logit_bias=None, bad_words=None,
    allowed_token_ids=None, min_tokens=0,
)  # fmt: skip


class Params:
    def __init__(self, **has):
        self.__dict__.update(has)


def child(rounds):
    sys.path.insert(0, os.environ["BENCH_FOLDER"])
    module = importlib.import_module("vllm.v1.core.sched.scheduler")
    Scheduler = module.Scheduler
    if not hasattr(Scheduler.schedule, "__wrapped__"):
        sys.exit("bench_sampling: the extension is not loaded")
    bare = Scheduler.schedule.__wrapped__

    def request(scheduler, name, **params):
        made = module.Request(name, 100)
        made.num_computed_tokens = made.num_tokens = 150
        made.sampling_params = Params(**(PARAMS | params))
        scheduler.requests[name] = made

    def output(names):
        made = module.Output()
        made.num_scheduled_tokens = dict.fromkeys(names, 1)
        made.total_num_scheduled_tokens, made.scheduled_new_reqs = len(names), []
        made.scheduled_spec_decode_tokens, made.finished_req_ids = {}, set()
        return made

    def taken(call, argument):
        start = time.perf_counter_ns()
        call(argument)
        return time.perf_counter_ns() - start

    found = {}
    for n in (1, 32, 256):
        for kind in KINDS:
            scheduler = Scheduler()
            names = [f"request-{i}" for i in range(n + 1)]
            for i, name in enumerate(names):
                request(scheduler, name, **({"temperature": 0.0} if kind == "mix changes" and i == n else {}))
            keys = list(scheduler.requests)
            # One request makes room for another in each step.
            batches = [output(keys[:n]), output(keys[:n] if kind == "stays" else [*keys[: n - 1], keys[n]])]
            hooked, plain = [], []
            for i in range(rounds):
                scheduler.output = batches[i % 2]
                if kind == "new requests":
                    name = f"new-{n}-{i}"
                    request(scheduler, name)
                    scheduler.output = output([*keys[: n - 1], name])
                hooked.append(taken(Scheduler.schedule, scheduler))
                plain.append(taken(bare, scheduler))
            found[f"{n} {kind}"] = statistics.median(hooked[rounds // 10 :]) - statistics.median(plain[rounds // 10 :])
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child:
        return child(words.rounds)
    build = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
    runs = {"1": [], "0": []}
    with tempfile.TemporaryDirectory(prefix="bench_sampling_") as folder:
        make_vllm(folder)
        for i in range(words.times):
            for on in ("1", "0") if i % 2 == 0 else ("0", "1"):
                environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "PROFILEMATE_", "PYTHON"))}
                environment.update(
                    PYTHONPATH=str(build / "site"), PYTHONDONTWRITEBYTECODE="1", VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1",
                    VLLM_PROFILING_DIR=f"{folder}/sessions-{i}-{on}", BENCH_FOLDER=folder, VLLM_PROFILING_ENABLE_SAMPLING_TIMING=on,
                )  # fmt: skip
                done = subprocess.run(
                    [sys.executable, __file__, "--child", "--rounds", str(words.rounds)], env=environment, capture_output=True, text=True
                )
                if done.returncode != 0:
                    sys.exit(done.stderr)
                runs[on].append(json.loads(done.stdout))
    print(f"{'requests':>8} {'batch':>13} {'off':>8} {'on':>8} {'more':>8}   ns per schedule()")
    for key in runs["1"][0]:
        n, kind = key.split(" ", 1)
        off, on = (statistics.median(run[key] for run in runs[which]) for which in ("0", "1"))
        print(f"{n:>8} {kind:>13} {off:8.0f} {on:8.0f} {on - off:+8.0f}")


if __name__ == "__main__":
    main()
