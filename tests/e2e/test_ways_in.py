"""The wheel in an environment with real vLLM: by its .pth line, by vLLM's plug-in entry point alone, by all ways at
once; each gives one session with every step.

The environment is a new one whose path goes on into that of the tests, so that nothing is installed into the latter.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig

import pytest
import results
import serving
from conftest import workload
from patience import until

WAYS = {
    # name: (files of the wheel that are taken away, PYTHONPATH as well, in processes of their own)
    "pth": ((), False, False),
    "entry-point": (("profilemate.pth", "profilemate.start"), False, False),
    "entry-point-processes": (("profilemate.pth", "profilemate.start"), False, True),
    "all": ((), True, False),
}


@pytest.fixture(scope="module", params=WAYS)
def ran(request, llama, folder, wheel):
    without, pythonpath, processes = WAYS[request.param]
    place = folder / request.param
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / "bin" / "python"
    command = (
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        python,
        "install",
        "--no-index",
        wheel,
    )
    subprocess.run(command, check=True, capture_output=True, env=serving.clean_environment())
    (site,) = place.glob("lib/python3*/site-packages")
    (site / "vllm-of-the-tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in without:
        (site / name).unlink()

    sessions = folder / f"{request.param}-sessions"
    environment = serving.clean_environment(VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=str(sessions))
    environment["PATH"] = f"{place / 'bin'}:{environment['PATH']}"
    if pythonpath:
        environment["PYTHONPATH"] = str(serving.BUILD / "site")
    if not processes:
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    options = {
        "enforce_eager": True,
        "enable_logging_iteration_details": True,
        "max_num_batched_tokens": 128,
        "max_num_seqs": 8,
    }
    spec = {"model": str(llama), "options": options, "batches": [workload(seed=31, requests=12)]}
    result, errors = serving.run_llm(spec, environment, python=python)
    session = results.only_session(sessions)
    until((session / "forward_pass_timing.csv").exists)
    return request.param, session, result, errors


def test_every_step_is_there_once(ran):
    _, session, result, _ = ran
    results.assert_rows_are_vllms(results.read_csv(session / "forward_pass_timing.csv"), result["log"])


def test_the_banner_is_there_once(ran):
    _, _, result, errors = ran
    assert errors.count("vLLM Comprehensive Instrumentation Loaded") == 1
    lines = [line for line in errors.splitlines() if "Successfully patched" in line]
    assert lines and len(lines) == len(set(lines))
    assert "Unknown vLLM environment variable" not in result["log"] + errors


def test_the_doctor_says_which_way_it_was(ran):
    """`site` runs .pth lines before it imports sitecustomize: with all ways open the first is in force."""
    name, session, _, _ = ran
    done = results.profilemate("doctor", session)
    wanted = "by the installed package (.pth)" if name in ("pth", "all") else "by vLLM's plug-in entry point"
    assert wanted in done.stdout
    assert ("another copy of the extension was loaded" in done.stdout) == (name == "all")
