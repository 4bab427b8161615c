"""How many machine instructions the profiler takes per engine step: the figure that does not depend on how fast or how busy a
machine is, and which tests/static/test_instructions.py guards.

    PM_BUILD=build/release python bench/bench_instructions.py [--steps N] [--requests N] [--json|--write]

--write brings the table of docs/OVERHEAD.md up to date.

Needs valgrind, no vLLM: the made-up scheduler and worker of bench_step.py take N steps of decodes, hooked and bare, under
callgrind. Of the serving thread only, per step:
    ours      instructions in the extension itself
    total     hooked less bare: with what it asks of the interpreter and the C library
The helper thread is not counted: it works beside the steps.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_step import make_vllm

ROOT = Path(__file__).resolve().parents[1]
MARK = "getpriority"  # a function of the C library that nobody else calls: callgrind begins a new part at it


def drive(steps, n, sweep=0):
    """The child, under valgrind: parts between marks are hooked, bare, and the rest. sweep: bytes read before each step, to empty caches of
    half that size (footprint.py)."""
    folder = os.environ["BENCH_FOLDER"]
    sys.path.insert(0, folder)
    scheduler_module = importlib.import_module("vllm.v1.core.sched.scheduler")
    worker_module = importlib.import_module("vllm.v1.worker.gpu_worker")
    runner_module = importlib.import_module("vllm.v1.worker.gpu_model_runner")
    Scheduler, Worker = scheduler_module.Scheduler, worker_module.Worker
    if not hasattr(Scheduler.schedule, "__wrapped__"):
        sys.exit("bench_instructions: the extension is not loaded")
    worker_module.RUNNER, worker_module.RESULT = runner_module.GPUModelRunner(), object()
    scheduler, worker = Scheduler(), Worker()
    worker.compile_or_warm_up_model()
    for i in range(n):
        request = scheduler_module.Request(f"request-{i}", 100)
        scheduler.requests[request.request_id] = request
        scheduler.running.append(request)
        request.num_computed_tokens = request.num_tokens = 150
    outputs = []
    for _ in range(64):
        output = scheduler_module.Output()
        output.num_scheduled_tokens = dict.fromkeys(scheduler.requests, 1)
        output.total_num_scheduled_tokens = n
        output.scheduled_spec_decode_tokens, output.finished_req_ids = {}, set()
        output.scheduled_new_reqs = []
        outputs.append(output)
    sampled = scheduler_module.Holder(sampled_token_ids=[[7] for _ in range(n)])

    def mark():
        os.getpriority(os.PRIO_PROCESS, 0)

    def bare(function):
        return getattr(function, "__wrapped__", function)

    junk = bytes(sweep)

    def run(schedule, update, execute, sample, count):
        for i in range(count):
            scheduler.output = output = outputs[i % 64]
            junk.find(b"x")
            schedule(scheduler)
            execute(worker, output)
            sample(worker, None)
            update(scheduler, output, sampled)

    hooked = (Scheduler.schedule, Scheduler.update_from_output, Worker.execute_model, Worker.sample_tokens)
    plain = tuple(map(bare, hooked))
    forward = runner_module.GPUModelRunner._model_forward
    for functions in (hooked, plain):
        run(*functions, 200)  # warm
    mark()
    run(*hooked, steps)
    mark()
    runner_module.GPUModelRunner._model_forward = bare(forward)
    run(*plain, steps)
    mark()


def self_cost(path):
    """Events by object, of a callgrind part: {object: {event: count}} of what functions themselves take, calls left out."""
    costs, skip, current, events = {}, False, "", []
    for line in Path(path).read_text().splitlines():
        if line.startswith("events:"):
            events = line.split()[1:]
        elif line.startswith("ob="):
            current = line[3:]
        elif line.startswith("calls="):
            skip = True  # the next line is what the callee took
        elif line[:1].isdigit():
            if not skip:
                cost = costs.setdefault(current, dict.fromkeys(events, 0))
                for event, count in zip(events, line.split()[1:]):  # zeros at the end are left out
                    cost[event] += int(count)
            skip = False
    return costs


def counted(build, steps, requests, python=sys.executable, options=(), sweep=0):
    """What callgrind counts in the serving thread: (of the hooked steps, of the bare ones), each as self_cost has it. RuntimeError with what
    valgrind said."""
    with tempfile.TemporaryDirectory(prefix="bench_instructions_") as folder:
        make_vllm(folder)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "PROFILEMATE_", "PYTHON"))}
        environment.update(
            PYTHONPATH=str(build / "site"), PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1", VLLM_ENABLE_PROFILING="1",
            VLLM_PROFILING_DIR=f"{folder}/sessions", PROFILEMATE_RUN="1", BENCH_FOLDER=folder,
        )  # fmt: skip
        command = [
            "valgrind", "--tool=callgrind", "--separate-threads=yes", f"--dump-before={MARK}", "--compress-strings=no",
            "--compress-pos=no", f"--callgrind-out-file={folder}/out", *options, python, "-X", "no_debug_ranges", __file__, "--child",
            "--steps", str(steps), "--requests", str(requests), "--sweep", str(sweep),
        ]  # fmt: skip
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=540)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-2000:])
        parts = {}
        for path in Path(folder).glob("out.*-01"):  # .PART-THREAD
            parts[int(re.search(r"\.(\d+)-01$", path.name)[1])] = self_cost(path)
        if set(parts) < {1, 2, 3}:
            raise RuntimeError(f"callgrind wrote {sorted(p.name for p in Path(folder).glob('out*'))}")
        return parts[2], parts[3]  # 1 ends at the first mark


def measure(build, steps, requests, python=sys.executable):
    """{"ours": per step, "total": per step}."""
    hooked, plain = counted(build, steps, requests, python)
    ours = sum(cost["Ir"] for name, cost in hooked.items() if "sitecustomize" in name)
    return {"ours": ours / steps, "total": (sum(cost["Ir"] for cost in hooked.values()) - sum(cost["Ir"] for cost in plain.values())) / steps}


def write(found):
    """The table between the marks of docs/OVERHEAD.md."""
    path = ROOT / "docs" / "OVERHEAD.md"
    lines = ["| running requests | in the extension | with interpreter and C library |", "| ---: | ---: | ---: |"]
    lines += [f"| {n} | {cost['ours']:,.0f} | {cost['total']:,.0f} |" for n, cost in found.items()]
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip()
    machine = f"gcc {compiler}, -O2, {os.uname().machine}, CPython {sys.version.split()[0]}"
    text = "\n".join([*lines, "", f"({machine}.)", ""])
    page = path.read_text()
    path.write_text(re.sub(r"(<!-- instructions -->\n).*?(<!-- end -->)", lambda m: m[1] + text + m[2], page, flags=re.S))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=0, help="running requests (default: 1, 32 and 256)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sweep", type=int, default=0, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child:
        return drive(words.steps, words.requests, words.sweep)
    if shutil.which("valgrind") is None:
        sys.exit("bench_instructions: valgrind is not installed")
    build = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
    found = {n: measure(build, words.steps, n) for n in ([words.requests] if words.requests else [1, 32, 256])}
    if words.json:
        print(json.dumps(found))
        return None
    if words.write:
        write(found)
    print(f"{'requests':>8} {'ours':>9} {'total':>9}   instructions per step")
    for n, cost in found.items():
        print(f"{n:8} {cost['ours']:9.0f} {cost['total']:9.0f}")


if __name__ == "__main__":
    main()
