"""The instructions that a step takes in the extension, and the cache lines that it touches: a change that makes it dearer has to say so here.

Counted by callgrind, so the same on a busy machine; by gcc 12's code for x86-64 alone (others are skipped). The interpreter's
part is left out: it differs between CPythons, ours does not.
"""

import json
import os
import platform
import shutil
import sys

import pytest
import tools

REQUESTS, STEPS = 32, 500
OURS = 6524  # per step; change it with the reason in the commit
TOLERANCE = 0.15
LINES = 365  # of code and data per step, touched first by the extension's own instructions (bench/footprint.py)
LINES_TOLERANCE = 0.1


def per_step(program, steps):
    """What a program of bench/ counts of a step with so many requests."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    if platform.machine() != "x86_64" or not tools.run("gcc", "-dumpversion").stdout.startswith("12"):
        pytest.skip("the count is of gcc 12's code for x86-64")
    shown = tools.run(
        sys.executable, f"bench/{program}", "--json", "--steps", str(steps), "--requests", str(REQUESTS),
        env={**os.environ, "PM_BUILD": str(tools.BUILD)},
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-3000:]
    return json.loads(shown.stdout)[str(REQUESTS)]


def test_a_step_takes_no_more_instructions_than_it_did():
    ours = per_step("bench_instructions.py", STEPS)["ours"]
    assert ours < OURS * (1 + TOLERANCE), f"{ours:.0f} instructions a step, were {OURS}"
    assert ours > OURS * 0.5, f"{ours:.0f} instructions a step, were {OURS}: halved? Then write the new figure here"


def test_a_step_touches_no_more_lines_than_it_did():
    """A simulated cache, emptied before each step: as steady as the instructions, and what a step of a real model pays for."""
    ours = sum(per_step("footprint.py", 100)["lines"]["ours"])
    assert ours < LINES * (1 + LINES_TOLERANCE), f"{ours:.0f} cache lines a step, were {LINES}"
    assert ours > LINES * 0.5, f"{ours:.0f} cache lines a step, were {LINES}: halved? Then write the new figure here"
