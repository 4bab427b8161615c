"""What a hooked call costs over the bare one: ours, with guard and a record of 48 bytes included, against a wrapper in
pure Python that does the same, and wrapt's.

    cmake --preset release && cmake --build --preset release --target _pmbench
    python bench/bench_wrapper.py [--calls N] [--rounds N] [--json]

Every round times all the cases one after another, in an order that changes; a case's figure is the median over rounds
of (its time - the bare call's time in the same round). PM_BUILD names another build folder.
"""

import argparse
import functools
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import platform
import random
import statistics
import sys
import tempfile
import time

BUDGET_NS = {"tsc": 40, "cntvct": 40, "monotonic": 70}


def load(name):
    root = pathlib.Path(os.environ.get("PM_BUILD", pathlib.Path(__file__).parents[1] / "build" / "release"))
    path = root / "tests" / f"{name}.abi3.so"
    if not path.exists():
        sys.exit(f"bench_wrapper: {path} is missing: build the target {name} first")
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def in_python(function, rows):
    """What a profiler in Python does: two readings of the clock and an appended row."""
    now = time.perf_counter_ns

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        start = now()
        try:
            return function(*args, **kwargs)
        finally:
            rows.append((start, now(), len(args)))

    return wrapper


def in_wrapt(function, rows):
    import wrapt

    now = time.perf_counter_ns

    def wrapper(wrapped, instance, args, kwargs):
        start = now()
        try:
            return wrapped(*args, **kwargs)
        finally:
            rows.append((start, now(), len(args)))

    return wrapt.FunctionWrapper(function, wrapper)


def time_calls(obj, calls):
    """ns per call of obj.step(1), the loop included."""
    loop = range(calls)
    start = time.perf_counter_ns()
    for _ in loop:
        obj.step(1)
    return (time.perf_counter_ns() - start) / calls


def time_keyword_calls(obj, calls):
    loop = range(calls)
    start = time.perf_counter_ns()
    for _ in loop:
        obj.step(x=1)
    return (time.perf_counter_ns() - start) / calls


def make(wrap):
    class Runner:
        def step(self, x):
            return x

    Runner.step = wrap(Runner.__dict__["step"])
    return Runner()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20000, help="calls per case and round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=60, help="(default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()

    pm, rows = load("_pmbench"), []
    cases = {
        "bare": make(lambda f: f),
        "hooked, no probe": make(lambda f: pm.wrap(f)),
        "hooked, guard and clock only": make(lambda f: pm.wrap(f, 3)),
        "hooked, leave + record": make(lambda f: pm.wrap(f, 0)),
        "hooked, enter + leave + record": make(lambda f: pm.wrap(f, 1)),
        "hooked, outermost + record": make(lambda f: pm.wrap(f, 2)),
        "hooked, three targets, one record": make(lambda f: pm.wrap(f, 0, 3, 3)),
        "pure Python wrapper": make(lambda f: in_python(f, rows)),
    }
    try:
        cases["wrapt (with its C part)"] = make(lambda f: in_wrapt(f, rows))
    except ImportError:
        pass

    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "records"))
        pm.open(folder)
        time.sleep(2.2)  # the clock is steered once a second, and read by the TSC only then
        clock_ns, record_ns = pm.clock_ns(1000000)[0], pm.records_ns(20000)
        times = {name: [] for name in cases}
        keyword_times = {name: [] for name in cases}
        order = list(cases)
        for obj in cases.values():
            time_calls(obj, 1000)
        for _ in range(options.rounds):
            random.shuffle(order)
            for name in order:
                times[name].append(time_calls(cases[name], options.calls))
                keyword_times[name].append(time_keyword_calls(cases[name], options.calls // 4))
                rows.clear()
        records, calls, own_ns, faults, clock = pm.done()

    def over(table, name):
        return statistics.median(own - bare for own, bare in zip(table[name], table["bare"]))

    added = {name: over(times, name) for name in cases if name != "bare"}
    keyword = {name: over(keyword_times, name) for name in cases if name != "bare"}
    ours = added["hooked, leave + record"]
    if options.json:
        print(json.dumps({
            "python": platform.python_version(), "clock": clock, "clock_ns": clock_ns, "record_ns": record_ns,
            "bare_ns": statistics.median(times["bare"]), "added_ns": added, "added_keyword_ns": keyword,
            "budget_ns": BUDGET_NS[clock], "records": records, "calls": calls, "faults": faults,
        }))  # fmt: skip
        return
    print(f"CPython {platform.python_version()}, clock {clock} ({clock_ns:.1f} ns a reading), "
          f"a record {record_ns:.1f} ns, bare call {statistics.median(times['bare']):.1f} ns")
    print(f"{'ns added per call':36}{'obj.f(1)':>10}{'obj.f(x=1)':>12}{'to ours':>9}")
    for name in added:
        print(f"{name:36}{added[name]:10.1f}{keyword[name]:12.1f}{added[name] / ours:8.1f}x")
    print(f"budget {BUDGET_NS[clock]} ns: {'kept' if ours <= BUDGET_NS[clock] else 'EXCEEDED'}; "
          f"{records} records, {faults} faults, sampled own time {own_ns / max(calls, 1):.0f} ns a call")


if __name__ == "__main__":
    main()
