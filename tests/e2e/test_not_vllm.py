"""Processes that are not vLLM, with the extension on their path: no output, no folder, no finder left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import serving

SCRIPT = "import sys\nprint(sys.argv[1:])\n"

CASES = {
    "pass": ("-c", "pass"),
    "pip": ("-m", "pip", "--version"),
    "pip-install-vllm": ("-m", "pip", "install", "--dry-run", "--no-index", "--no-deps", "vllm"),
    "script-with-model": ("train.py", "--model", "x"),
    "vllm-version": (str(Path(sys.executable).parent / "vllm"), "--version"),
    "bench-serve-help": (str(Path(sys.executable).parent / "vllm"), "bench", "serve", "--help"),
}


# These import half of torch and vLLM, which takes seconds: one look is enough.
HEAVY = {"vllm-version", "bench-serve-help"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in HEAVY else ()) for case in CASES]
)
def test_nothing_changes(case, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    sessions = tmp_path / "sessions"
    runs = []
    sites = [serving.BUILD / "site"] if case in HEAVY else [serving.BUILD / "site", serving.BUILD / "site" / "simple"]
    for site in (None, *sites):
        extra = {"PYTHONPATH": str(site), "VLLM_PROFILING_DIR": str(sessions)} if site else {}
        done = subprocess.run(
            (sys.executable, *CASES[case]), env=serving.clean_environment(**extra), cwd=tmp_path,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        runs.append((done.returncode, done.stdout, done.stderr))
    for run in runs[1:]:
        assert run == runs[0]
    assert not sessions.exists()


def test_switched_on_without_an_engine_makes_nothing(tmp_path):
    """Switched on, but no engine is configured and no fact recorded: importing is not serving."""
    sessions = tmp_path / "sessions"
    environment = serving.clean_environment(**serving.profiled(sessions))
    done = subprocess.run(
        (sys.executable, "-c", "import vllm.v1.core.sched.scheduler"), env=environment, cwd=tmp_path,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Profiler" not in done.stdout + done.stderr
    assert not sessions.exists()
