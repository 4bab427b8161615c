"""What function tracing costs a call, over the bare one: ours, cProfile's and viztracer's, in one run.

    cmake --preset release && cmake --build --preset release --target pm_extension
    python bench/bench_functions.py [--python EXE …] [--calls N] [--rounds N] [--json]

viztracer is looked for in each interpreter, or in the folder $PM_VIZTRACER (pip install --target …, one for each
version: PM_VIZTRACER=/folder/{version}); without it its rows are left out. It is given room for all calls, records no
arguments, and, in a second row, leaves out C functions as ours does.

Each round runs every case in a process of its own, one after another in an order that changes; a case's figure is the
median over rounds of (its time - the bare time of the same round), the loop included, per call; times are the thread's own
processor time, so that a busy machine matters less. "not traced" is ours
with another module named: what functions cost that the setting leaves out. PM_BUILD names another build folder.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
AIM_NS = 50
CASES = ["bare", "ours", "ours, not traced", "cProfile", "viztracer", "viztracer, no C"]
# What a process needs to be taken for a front end: the name of vLLM's own configuration method.
ENGINE = """
class EngineArgs:
    def create_engine_config(self):
        return self
"""
CHILD = """
import sys, time
case, calls = sys.argv[1], int(sys.argv[2])

def leaf(x):
    return x

def inner(x):
    return leaf(x)

def outer(x):
    inner(x)
    return inner(x)

def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def numbers(n):
    for i in range(n):
        yield i

class Thing:
    def __init__(self):
        self.n = 0

    def step(self, by):
        self.n += by

def flat(n):
    for _ in range(n):
        leaf(1)
    return n

def nested(n):
    for _ in range(n // 5):
        outer(1)
    return n // 5 * 5

def methods(n):
    thing = Thing()
    for _ in range(n):
        thing.step(1)
    return n

def recursive(n):
    done = 0
    while done < n:
        fib(17)
        done += 5167
    return done

def generators(n):
    for _ in numbers(n):
        pass
    return n

if case.startswith("ours"):
    from vllm.engine.arg_utils import EngineArgs
    EngineArgs().create_engine_config()
elif case == "cProfile":
    import cProfile
    profiler = cProfile.Profile()
    profiler.enable()
elif case.startswith("viztracer"):
    from viztracer import VizTracer
    tracer = VizTracer(tracer_entries=2_000_000, verbose=0, ignore_c_function=case.endswith("no C"))
    tracer.start()
for _ in range(13):
    flat(100)
    time.sleep(0.1)  # ours reads the faster clock once its rate is known, after a second
for shape in (flat, nested, methods, recursive, generators):
    shape(1000)
    best = None
    for _ in range(5):
        start = time.thread_time_ns()
        done = shape(calls)
        took = (time.thread_time_ns() - start) / done
        best = took if best is None or took < best else best
    print(shape.__name__, best)
"""


def viztracer_of(version):
    return os.environ.get("PM_VIZTRACER", "").replace("{version}", version)


def environment(folder, case):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "PROFILEMATE_", "PYTHON"))}
    path = [str(folder)]
    if case.startswith("ours"):
        build = pathlib.Path(os.environ.get("PM_BUILD", ROOT / "build" / "release"))
        site = build.resolve() / "site"
        if not (site / "sitecustomize.abi3.so").exists():
            sys.exit(f"bench_functions: {site} has no extension: build the target pm_extension first")
        path.append(str(site))
        env["VLLM_TRACE_FUNCTION"] = "elsewhere" if case.endswith("not traced") else "all"
        env.update(VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=str(folder / "sessions"))
    env["PYTHONPATH"] = os.pathsep.join(path)
    return env


def run_case(python, version, folder, case, calls):
    env = environment(folder, case)
    if case.startswith("viztracer"):
        env["PYTHONPATH"] += os.pathsep + viztracer_of(version)
    done = subprocess.run(
        [python, "-c", CHILD, case, str(calls)], env=env, capture_output=True, text=True, timeout=600
    )
    if done.returncode != 0 and case.startswith("viztracer") and "No module named" in done.stderr:
        return None
    if done.returncode != 0:
        sys.exit(f"bench_functions: {case} failed:\n{done.stderr}")
    return {name: float(ns) for name, ns in map(str.split, done.stdout.splitlines())}


def measure(python, calls, rounds):
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    differences = {case: {} for case in CASES}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "vllm" / "engine").mkdir(parents=True)
        (folder / "vllm" / "__init__.py").write_text('__version__ = "0.32.0"')
        (folder / "vllm" / "engine" / "__init__.py").write_text("")
        (folder / "vllm" / "engine" / "arg_utils.py").write_text(ENGINE)
        for _ in range(rounds):
            order = random.sample(CASES, len(CASES))
            found = {case: run_case(python, version, folder, case, calls) for case in order}
            for case, shapes in found.items():
                for shape, ns in (shapes or {}).items():
                    differences[case].setdefault(shape, []).append(ns if case == "bare" else ns - found["bare"][shape])
    return version, {
        case: {shape: statistics.median(values) for shape, values in shapes.items()} for case, shapes in differences.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = dict(measure(python, options.calls, options.rounds) for python in options.python)
    if options.json:
        print(json.dumps({"machine": platform.machine(), "ns_per_call": results}, indent=1))
        return
    for version, cases in results.items():
        shapes = list(cases["bare"])
        print(f"CPython {version}, ns a call over the bare one (aim: {AIM_NS})")
        print(f"{'':20}" + "".join(f"{shape:>12}" for shape in shapes))
        for case, found in cases.items():
            if found:
                print(f"{case:20}" + "".join(f"{found[shape]:12.1f}" for shape in shapes))


if __name__ == "__main__":
    main()
