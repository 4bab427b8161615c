"""How many cache lines and pages the profiler touches per engine step: what a step pays for whose caches the model has emptied.

    PM_BUILD=build/release python bench/footprint.py [--steps N] [--requests N] [--json|--write]

A step of a real model leaves nothing of ours in the processor's caches, so that each line costs a fetch of some tens of ns, and a page a
walk through its tables: more than the instructions do. Counted, not timed: the made-up steps of bench_instructions.py run under callgrind's
simulation of a cache that holds all of a step and is emptied before each one, so that its misses are the distinct lines of the step. The
same with lines of 4096 bytes counts pages. Hooked less bare, of the serving thread; a line belongs to the object whose instruction
was the first to touch it. --write brings the table of docs/OVERHEAD.md up to date.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import paired
from bench_instructions import counted

ROOT = Path(__file__).resolve().parents[1]
# A first level of next to nothing, so that every line comes to the second, and a sweep of twice the second's size.
LINES = (["--cache-sim=yes", "--I1=128,1,64", "--D1=128,1,64", "--LL=524288,16,64"], 2 * 524288)
PAGES = (["--cache-sim=yes", "--I1=8192,1,4096", "--D1=8192,1,4096", "--LL=2097152,16,4096"], 2 * 2097152)


def misses(part, ours):
    """(of code, of data) that came from memory: in the extension's own instructions, or in all."""
    of = [cost for name, cost in part.items() if not ours or "sitecustomize" in name]
    return sum(cost["ILmr"] for cost in of), sum(cost["DLmr"] + cost["DLmw"] for cost in of)


def measure(build, steps, requests, kinds=("lines", "pages"), python=sys.executable):
    """Per step: {"lines": {"ours": [code, data], "all": [code, data]}, "pages": …}."""
    found = {}
    for kind in kinds:
        options, sweep = {"lines": LINES, "pages": PAGES}[kind]
        hooked, plain = counted(build, steps, requests, python, options, sweep)
        less = {whose: zip(misses(hooked, whose == "ours"), misses(plain, whose == "ours"), strict=True) for whose in ("ours", "all")}
        found[kind] = {whose: [(a - b) / steps for a, b in pairs] for whose, pairs in less.items()}
    return found


def rendered(found):
    head = ["running requests", "lines of code, extension", "lines of data, extension", "lines in all", "pages, extension", "pages in all"]
    rows = []
    for n, one in found.items():
        lines, pages = one["lines"], one["pages"]
        figures = (*lines["ours"], sum(lines["all"]), sum(pages["ours"]), sum(pages["all"]))
        rows.append([str(n), *[f"{figure:,.0f}" for figure in figures]])
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True).stdout.strip()
    machine = f"gcc {compiler}, -O2, {platform.machine()}, CPython {platform.python_version()}"
    return paired.table(head, rows, numbers=0) + f"\n({machine}.)\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--requests", type=int, default=0, help="running requests (default: 1, 32 and 256)")
    parser.add_argument("--json", action="store_true", help="lines alone, as JSON")
    parser.add_argument("--write", action="store_true")
    words = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("footprint: valgrind is not installed")
    build = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
    kinds = ("lines",) if words.json else ("lines", "pages")
    found = {n: measure(build, words.steps, n, kinds) for n in ([words.requests] if words.requests else [1, 32, 256])}
    if words.json:
        print(json.dumps(found))
        return
    text = rendered(found)
    print(text, end="")
    if words.write:
        paired.write(ROOT / "docs" / "OVERHEAD.md", "footprint", text)


if __name__ == "__main__":
    main()
