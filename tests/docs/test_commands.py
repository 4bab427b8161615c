"""Every command and every script in the documents is run (blocks.py says how)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from blocks import ROOT, Unit, all_units, documents, parse
from running import serving

UNITS = all_units()


def parameter(unit: Unit):
    block, marks = unit.block, []
    if block.skipped:
        marks.append(pytest.mark.skip(reason=block.skipped))
    elif unit.slow:
        marks.append(pytest.mark.slow)
    return pytest.param(unit, id=block.name, marks=marks)


@pytest.mark.parametrize("unit", [parameter(unit) for unit in UNITS])
def test_block(unit, world, session_of):
    block = unit.block
    if unit.serves:
        served = world.serve(unit)
        assert (served.session / "forward_pass_timing.csv").stat().st_size > 200, "no forward pass was recorded"
        for shown in unit.console:
            check_console(shown, world.adapted(shown.text, served.session.parent), served.errors)
        return
    starts = re.search(r"^(?!profilemate doctor).*(\bvllm serve (?!--help)|api_server --model)", block.text, re.M)
    assert not starts, f"{block.name} starts a server: put <!-- test: serve --> above it"
    if block.asks("traces"):
        package = {"PYTHONPATH": str(ROOT / "python"), "PROFILEMATE_PROGRAM": str(serving.PROGRAM)}
        world.run(block, world.fresh("sessions"), world.traces(), **package)
        return
    package = {}
    if block.asks("package"):
        python = os.environ.get("PM_PACKAGE_PYTHON")
        if python is None:
            pytest.skip("no environment with pyarrow, polars and DuckDB: ./test makes it, or set PM_PACKAGE_PYTHON")
        package = {"PYTHONPATH": str(serving.BUILD / "python"), "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    session = world.copy_of(session_of("simple" if block.asks("session simple") else "full"))
    world.run(block, session.parent, ROOT if block.asks("checkout") else session, **package)


def check_console(block, text: str, errors: str) -> None:
    lines = errors.splitlines()
    for line in text.splitlines():
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        assert any(re.fullmatch(pattern, seen) for seen in lines), (
            f"{block.name}: the server did not say {line!r}; it said:\n{errors[-4000:]}"
        )


HEADERS = [
    (block, want) for path in documents() for block in parse(path) for want in block.wants if want.startswith("header ")
]


@pytest.mark.parametrize(("block", "want"), [pytest.param(*each, id=each[0].name) for each in HEADERS])
def test_header(block, want, session_of, world):
    session = world.copy_of(session_of("simple" if want.startswith("header simple ") else "full"))
    real = (session / want.split()[-1]).read_text().splitlines()[0]
    assert block.text.splitlines()[0] == real


def test_every_document_has_been_looked_at():
    """The runner finds the blocks that a plain search finds."""
    for path in documents():
        fences = re.findall(r"^\s*```(?:bash|sh|python)\s*$", path.read_text(), re.M)
        mine = [unit for unit in UNITS if unit.block.document == str(path.relative_to(ROOT))]
        assert len(fences) == sum(1 + len([b for b in unit.beside if b.runs]) for unit in mine), path
