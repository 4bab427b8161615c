"""What the extension costs a Python process that it does not profile.

    python bench/bench_startup.py [--site build/release/site] [--rounds 200] [--python EXE …]

Each round starts every interpreter three times, in changing order: bare, with an empty sitecustomize.py on
PYTHONPATH (the floor of being on PYTHONPATH at all), and with the extension there. Reported: the median difference from
bare in milliseconds, with the interval that has the true one in 95 of 100 runs. bench/overhead.py puts it into docs/OVERHEAD.md.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import paired

WAYS = ("bare", "empty sitecustomize", "extension")


def measure(site: str, rounds: int, python: str) -> dict[str, list[float]]:
    """Milliseconds of each start, by way."""
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "sitecustomize.py"), "w").close()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and "PROFIL" not in key}
        paths = {"bare": {}, "empty sitecustomize": {"PYTHONPATH": folder}, "extension": {"PYTHONPATH": os.path.abspath(site)}}
        taken = {name: [] for name in WAYS}
        for _ in range(rounds + 3):
            for name in random.sample(WAYS, len(WAYS)):
                start = time.perf_counter_ns()
                subprocess.run([python, "-c", "pass"], env={**environment, **paths[name]}, check=True)
                taken[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: values[3:] for name, values in taken.items()}


def more(taken: dict[str, list[float]], name: str) -> paired.Estimate:
    """Milliseconds that a way takes more than bare."""
    return paired.estimate([a - b for a, b in zip(taken[name], taken["bare"], strict=True)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", default="build/release/site")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    arguments = parser.parse_args()
    for python in arguments.python:
        taken = measure(arguments.site, arguments.rounds, python)
        print(f"{python}: bare {statistics.median(taken['bare']):.2f} ms")
        for name in WAYS[1:]:
            found = more(taken, name)
            print(f"  {name:20} {found.median:+.2f} ms ({found.low:+.2f} to {found.high:+.2f})")


if __name__ == "__main__":
    main()
