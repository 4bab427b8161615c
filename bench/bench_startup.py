"""What the extension costs a Python process that it does not profile.

    python bench/bench_startup.py [--site build/release/site] [--rounds 200] [--python EXE …]

Each round starts every interpreter three times, in changing order: bare, with an empty sitecustomize.py on
PYTHONPATH (the floor of being on PYTHONPATH at all), and with the extension there. Reported: the median difference from
bare in milliseconds, with a 95 % interval from the pairs.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", default="build/release/site")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "sitecustomize.py"), "w").close()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH" and "PROFIL" not in key}
        ways = {
            "bare": environment,
            "empty sitecustomize": {**environment, "PYTHONPATH": folder},
            "extension": {**environment, "PYTHONPATH": os.path.abspath(arguments.site)},
        }
        for python in arguments.python:
            taken = {name: [] for name in ways}
            for _ in range(arguments.rounds + 3):
                names = list(ways)
                random.shuffle(names)
                for name in names:
                    start = time.perf_counter_ns()
                    subprocess.run([python, "-c", "pass"], env=ways[name], check=True)
                    taken[name].append((time.perf_counter_ns() - start) / 1e6)
            taken = {name: values[3:] for name, values in taken.items()}
            print(f"{python}: bare {statistics.median(taken['bare']):.2f} ms")
            for name in list(ways)[1:]:
                differences = [a - b for a, b in zip(taken[name], taken["bare"], strict=True)]
                spread = 1.96 * 1.2533 * statistics.stdev(differences) / len(differences) ** 0.5
                print(f"  {name:20} {statistics.median(differences):+.2f} ms ± {spread:.2f}")


if __name__ == "__main__":
    main()
