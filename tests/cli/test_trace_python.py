"""profilemate.load_trace: the two snippets of the profiling guide, with one name changed."""

from __future__ import annotations

import json
import re
import sys

import pytest
import trace_oracle as oracle
from program import PROGRAM, ROOT
from test_trace import server, trace  # noqa: F401  (trace is a fixture)


@pytest.fixture(autouse=True)
def package(monkeypatch):
    """The package from the tree, with the program under test."""
    monkeypatch.syspath_prepend(str(ROOT / "python"))
    for name in [n for n in sys.modules if n.split(".")[0] == "profilemate"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("PROFILEMATE_PROGRAM", str(PROGRAM))


def test_the_guides_snippets(trace, tmp_path):  # noqa: F811
    import profilemate

    path = trace(server(), "trace.json.gz")
    loaded = profilemate.load_trace(str(path))
    table = loaded.key_averages().table(sort_by="cuda_time_total", row_limit=10)
    lines = table.splitlines()
    assert len(re.split(r"\s{2,}", lines[1].strip())) == 12
    assert lines[1].split()[0] == "Name" and "Self CUDA %" in lines[1]
    assert lines[3].split()[0] in ("aten::linear", "aten::mm", "gemm<float>(float,", "void")
    assert "800.000us" in lines[3] and len(lines) == 3 + 10 + 1 + 2
    assert lines[-1] == "Self CUDA time total: 1.240ms"

    out = tmp_path / "stacks.txt"
    loaded.export_stacks(str(out), "self_cuda_time_total")
    assert out.read_text().splitlines()[0].endswith("aten::linear;aten::mm;void_gemm<float>(float,_float) 200")


def test_grouping_and_attributes(trace):  # noqa: F811
    import profilemate

    loaded = profilemate.load_trace(trace(server()))
    averages = loaded.key_averages(group_by_input_shape=True)
    mm = [row for row in averages if row.key == "aten::mm"]
    assert [row.input_shapes for row in mm] == [f"[[{i}, 64], [64, 32]]" for i in (1, 2, 3, 4)]
    assert mm[0].count == 1 and mm[0].cuda_time_total == mm[0].device_time == 200 and mm[0].flops == 2 * 64 * 32
    assert "Input Shapes" in str(averages)
    assert {f["id"] for f in loaded.findings} >= {"cpu-bound"}
    by_stack = profilemate.load_trace(trace(server(), "other.json")).key_averages(group_by_stack_n=3)
    assert all(row.stack == [] for row in by_stack)


def test_what_is_wrong_is_said(trace, tmp_path):  # noqa: F811
    import profilemate

    with pytest.raises(ValueError, match="no traceEvents"):
        profilemate.load_trace(trace({"a": 1}))
    with pytest.raises(ValueError, match=r"none\.json"):
        profilemate.load_trace(tmp_path / "none.json")
    loaded = profilemate.load_trace(trace(server()))
    with pytest.raises(ValueError, match="metric should be one of"):
        loaded.export_stacks(str(tmp_path / "x"), "count")
    with pytest.raises(AttributeError, match="no_such"):
        loaded.key_averages().table(sort_by="no_such")
    assert profilemate.load_trace(trace({"traceEvents": []})).key_averages().table() == ""


def test_the_table_is_torchs(tmp_path):
    """Line for line, on a profile made here."""
    torch = pytest.importorskip("torch", reason="torch makes the profile")
    import profilemate

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(3):
            torch.nn.functional.layer_norm(torch.randn(8, 16) @ torch.randn(16, 16), (16,)).sum()
    path = tmp_path / "trace.json"
    profiler.export_chrome_trace(str(path))
    for sort_by in ("self_cpu_time_total", "cpu_time_total"):
        theirs = profiler.key_averages().table(sort_by=sort_by, row_limit=8)
        ours = profilemate.load_trace(path).key_averages().table(sort_by=sort_by, row_limit=8)
        split = lambda table: [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if "---" not in line]  # noqa: E731
        ours, theirs = ([row for row in split(table) if row != [""]] for table in (ours, theirs))
        assert len(ours) > 5
        for rows in zip(ours, theirs, strict=True):
            for cells in zip(*rows, strict=True):
                same_but_rounding(*cells)


def same_but_rounding(ours: str, theirs: str) -> None:
    """Equal, or the same unit and one apart in the last of three digits: torch adds up floats, so that a mean which
    lies between two of them may fall to either side."""
    if ours != theirs:
        number = re.compile(r"([\d.]+)(us|ms|s|%)")
        (a, unit), (b, same_unit) = (number.fullmatch(cell).groups() for cell in (ours, theirs))
        assert unit == same_unit and abs(float(a) - float(b)) < (0.0015 if unit != "%" else 0.015), (ours, theirs)


@pytest.mark.skipif(not oracle.SHARED.is_dir(), reason=f"no traces in {oracle.SHARED}")
def test_a_real_trace():
    import profilemate

    loaded = profilemate.load_trace(oracle.SHARED / "nccl.json.gz")
    table = loaded.key_averages().table(sort_by="self_cuda_time_total", row_limit=10)
    assert "ncclKernel_AllReduce" in table
    assert json.dumps(loaded.report["files"][0]["rank"]) == "0"
