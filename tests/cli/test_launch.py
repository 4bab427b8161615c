"""The launch scripts: thin over `run`, arguments passed on untouched."""

import json
import os
import subprocess

import pytest
from program import PROGRAM, ROOT

SAY = "import json, sys; print(json.dumps(sys.argv[1:]))"
EXTRA = ["a model", "--port", "8000", "", "--chat-template", "{{ x }}"]


def launch(script, tmp_path, name, on_path=True, **env):
    said = script("bin/profilemate", SAY) if on_path else None
    path = f"{said.parent}:{os.environ['PATH']}" if said else "/usr/bin:/bin"
    done = subprocess.run(
        [ROOT / "launch" / name, *EXTRA], env={"PATH": path, **env}, cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    return done


def words(*args, **env) -> list[str]:
    done = launch(*args, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_with_profiling(script, tmp_path):
    assert words(script, tmp_path, "start_vllm_with_profiling.sh") == [
        "run", "--torch-profile", "light", "--request-log", "request_logs", "--", "vllm", "serve", *EXTRA,
    ]  # fmt: skip
    env = {"PROFILE_MODE": "deep", "PROFILE_OPTIONS": "--requests 10:20 --every 5m", "REQUEST_LOG_DIR": "my logs"}
    assert words(script, tmp_path, "start_vllm_with_profiling.sh", **env) == [
        "run", "--torch-profile", "deep", "--request-log", "my logs", "--requests", "10:20", "--every", "5m", "--", "vllm",
        "serve", *EXTRA,
    ]  # fmt: skip


def test_with_request_logs(script, tmp_path):
    assert words(script, tmp_path, "start_vllm_with_per_request_logging.sh") == [
        "run", "--request-log", "request_logs", "--", "vllm", "serve", *EXTRA,
    ]  # fmt: skip


@pytest.mark.skipif(PROGRAM != ROOT / "build/release/bin/profilemate", reason="another build is under test")
def test_from_a_checkout_without_an_installation(script, tmp_path):
    done = launch(script, tmp_path, "start_vllm_with_per_request_logging.sh", on_path=False)
    assert "cannot run `vllm`, it is not in PATH" in done.stderr and done.returncode == 127
