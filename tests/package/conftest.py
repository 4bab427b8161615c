"""Fixtures of the Python package's tests: the package as it was built, and sessions of a made-up server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
PACKAGE = BUILD / "python"
PROGRAM = BUILD / "bin" / "profilemate"
sys.path.insert(0, str(PACKAGE))


def make_day(base: Path, *words: str) -> Path:
    """A session of a made-up server: some seconds, with preemptions."""
    base.mkdir(parents=True, exist_ok=True)
    subprocess.run([BUILD / "bench" / "make_day", base, *words], check=True, stdout=subprocess.DEVNULL)
    return max(base.glob("session_*"))


@pytest.fixture(scope="session", autouse=True)
def build() -> Path:
    """The build under test, which has to be there: nothing is skipped for want of it."""
    for path in (PROGRAM, PACKAGE / "profilemate" / "_reader.abi3.so", BUILD / "bench" / "make_day"):
        assert path.exists(), f"{path} is missing: cmake --preset release && cmake --build --preset release"
    return BUILD


@pytest.fixture(scope="session")
def day(tmp_path_factory) -> Path:
    """Some thousand steps with a KV cache that is too small: requests are preempted."""
    made = make_day(tmp_path_factory.mktemp("day"), "hours=0.004", "requests_per_s=40", "kv_blocks=500", "end=kill")
    os.environ["VLLM_PROFILING_DIR"] = str(made.parent)
    return made


def spark_environment() -> dict[str, str]:
    """What Spark has to find: the interpreter and the package for its workers, and no name to look up."""
    return {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(PACKAGE), "SPARK_LOCAL_IP": "127.0.0.1", "TZ": "UTC"}


@pytest.fixture(scope="session")
def for_spark():
    """The environment of this process until its end: all modules share the JVM that the first of them starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in spark_environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def program():
    def run(*words, check: bool = True, **kwargs) -> subprocess.CompletedProcess:
        env = {**os.environ, "PYTHONPATH": str(PACKAGE), **kwargs.pop("env", {})}
        text = kwargs.pop("text", True)
        done = subprocess.run([PROGRAM, *words], capture_output=True, text=text, env=env, timeout=600, **kwargs)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def csvs(day, program, tmp_path_factory) -> Path:
    """The native tables of the day as CSV."""
    out = tmp_path_factory.mktemp("csv")
    program("export", "--quiet", "--format=csv-native", "--out", out, day)
    return out
