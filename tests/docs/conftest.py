"""Fixtures of the documents' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from blocks import ROOT, units
from running import World, serving


@pytest.fixture(scope="session", autouse=True)
def build() -> Path:
    """The build under test, which has to be there: nothing is skipped for want of it."""
    for path in (serving.PROGRAM, serving.BUILD / "site" / "simple" / "sitecustomize.abi3.so"):
        assert path.exists(), f"{path} is missing: cmake --preset release && cmake --build --preset release"
    return serving.BUILD


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="session")
def session_of(world, request):
    """session_of("full"): the session that the README's first server leaves; "simple": that of the simple guide's.
    In `./test quick`, which starts no server, one of vLLM's scheduler alone."""
    first = {"full": ROOT / "README.md", "simple": ROOT / "docs" / "SIMPLE_PROFILER.md"}

    def find(preset: str):
        if "not slow" in request.config.getoption("markexpr"):
            return world.harness(preset)
        return world.serve(next(unit for unit in units(first[preset]) if unit.serves))

    return find
