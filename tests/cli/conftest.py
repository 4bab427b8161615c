"""Fixtures of the program's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from program import BUILD, MAKE_SESSION, PROGRAM, SITE, Cli


@pytest.fixture(scope="session", autouse=True)
def build() -> Path:
    """The build under test, which has to be there: nothing is skipped for want of it."""
    for path in (PROGRAM, MAKE_SESSION, SITE / "sitecustomize.abi3.so"):
        assert path.exists(), f"{path} is missing: cmake --preset release && cmake --build --preset release"
    return BUILD


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def script(tmp_path: Path):
    """Writes an executable file; its path."""

    def write(name: str, text: str, interpreter: str = f"#!{sys.executable}") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{interpreter}\n{text}")
        path.chmod(0o755)
        return path

    return write
