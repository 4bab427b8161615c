"""Fixtures of the end-to-end tests: the build, the tiny model, folders for sessions."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import serving
import tiny


@pytest.fixture(scope="session", autouse=True)
def build() -> Path:
    """The build under test, which has to be there: nothing is skipped for want of it."""
    for path in (serving.PROGRAM, serving.BUILD / "site" / "simple" / "sitecustomize.abi3.so"):
        assert path.exists(), f"{path} is missing: cmake --preset release && cmake --build --preset release"
    return serving.BUILD


@pytest.fixture(scope="session")
def llama() -> Path:
    return tiny.make("llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder for everything that the tests of one module make."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = (
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--disable-pip-version-check",
        "-w",
        folder,
        serving.ROOT,
    )
    done = subprocess.run(command, capture_output=True, text=True, env=serving.clean_environment(), timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (built,) = folder.glob("*.whl")
    return built


def workload(seed: int, requests: int, shared: int = 64) -> list[dict]:
    """Requests for complete(): prompts of 3 to 600 tokens, a third of which begin alike, 2 to 60 tokens of output."""
    rng = random.Random(seed)
    prefix = [rng.randrange(3, tiny.VOCABULARY) for _ in range(shared)]
    made = []
    for i in range(requests):
        prompt = [rng.randrange(3, tiny.VOCABULARY) for _ in range(rng.choice((3, 17, 40, 130, 300, 600)))]
        if i % 3 == 0:
            prompt = prefix + prompt[:100]
        made.append({"prompt": prompt, "max_tokens": rng.randrange(2, 60)})
    return made


def kills(name: str, default: int) -> int:
    """How many kills a test makes: more in `./test soak`, fewer in `./test quick`."""
    return int(os.environ.get(name, default))
