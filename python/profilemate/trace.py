"""Traces of torch's profiler, read by the program `profilemate trace`.

    trace = profilemate.load_trace("trace.json.gz")
    print(trace.key_averages().table(sort_by="cuda_time_total", row_limit=10))
    trace.export_stacks("stacks.txt", "self_cuda_time_total")

The names are those of torch.profiler.profile; neither torch nor a GPU is needed. Times are microseconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Average", "Averages", "Trace", "load_trace"]

_METRICS = ("self_cpu_time_total", "self_cuda_time_total", "self_xpu_time_total", "self_privateuse1_time_total")


def _program() -> str:
    """$PROFILEMATE_PROGRAM, the one of this environment, or the first on PATH."""
    named = os.environ.get("PROFILEMATE_PROGRAM")
    if named:
        return named
    from profilemate import program

    try:
        return str(program())
    except FileNotFoundError:
        found = shutil.which("profilemate")
        if found is None:
            raise
        return found


def _run(*words: str) -> str:
    done = subprocess.run([_program(), "trace", *words], capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise ValueError(done.stderr.strip().removeprefix("profilemate: ") or f"exit code {done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class Average:
    """One row: what torch calls a FunctionEventAvg."""

    key: str
    count: int
    self_cpu_time_total: float
    cpu_time_total: float
    self_device_time_total: float
    device_time_total: float
    cpu_memory_usage: int
    self_cpu_memory_usage: int
    device_memory_usage: int
    self_device_memory_usage: int
    flops: int
    on_device: bool
    is_user_annotation: bool
    input_shapes: str = ""
    stack: list[str] = field(default_factory=list)

    @property
    def cpu_time(self) -> float:
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def device_time(self) -> float:
        return self.device_time_total / self.count if self.count else 0.0

    self_cuda_time_total = property(lambda self: self.self_device_time_total)
    cuda_time_total = property(lambda self: self.device_time_total)
    cuda_time = property(lambda self: self.device_time)
    cuda_memory_usage = property(lambda self: self.device_memory_usage)
    self_cuda_memory_usage = property(lambda self: self.self_device_memory_usage)


class Averages(list[Average]):
    """The rows, by first appearance."""

    def __init__(self, rows: list[Average], has_device: bool, has_memory: bool):
        super().__init__(rows)
        self._has_device = has_device
        self._has_memory = has_memory

    @property
    def self_cpu_time_total(self) -> float:
        return sum(row.self_cpu_time_total for row in self)

    @property
    def self_device_time_total(self) -> float:
        return sum(row.self_device_time_total for row in self if row.on_device and not row.is_user_annotation)

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_src_column_width: int = 75,
        max_name_column_width: int | None = 55,
        max_shapes_column_width: int = 80,
        header: str | None = None,
    ) -> str:
        """The table as text, laid out as torch does it."""
        if not self:
            return ""
        rows = list(self)
        if sort_by is not None:
            attribute = sort_by.replace("cuda", "device").replace("xpu", "device").replace("privateuse1", "device")
            if not hasattr(Average, attribute) and attribute not in Average.__dataclass_fields__:
                raise AttributeError(f"no column {sort_by!r}: cpu_time_total, self_cuda_time_total, count and so on")
            rows.sort(key=lambda row: getattr(row, attribute), reverse=True)
        if row_limit >= 0:
            rows = rows[:row_limit]
        columns = list(self._columns(max_name_column_width, max_shapes_column_width, max_src_column_width))
        cells = [[title for title, _, _ in columns]] + [[cell(row) for _, cell, _ in columns] for row in rows]
        widths = [max(12 if i else 0, *(len(line[i]) for line in cells)) for i in range(len(columns))]
        rule = "  ".join("-" * width for width in widths)
        lines = [header] if header else []
        for number, line in enumerate(cells):
            if number < 2:
                lines.append(rule)
            parts = zip(line, widths, columns, strict=False)
            lines.append("  ".join(f"{text:{align}{width}}" for text, width, (_, _, align) in parts).rstrip())
        lines.append(rule)
        lines.append(f"Self CPU time total: {_time(self.self_cpu_time_total)}")
        if self._has_device:
            lines.append(f"Self CUDA time total: {_time(self.self_device_time_total)}")
        return "\n".join(lines) + "\n"

    def _columns(self, name_width: int | None, shapes_width: int, source_width: int) -> Iterator[tuple[str, Callable[[Average], str], str]]:
        cpu, device = self.self_cpu_time_total, self.self_device_time_total
        yield "Name", lambda r: _cut(r.key, name_width), ">"
        yield "Self CPU %", lambda r: _share(r.self_cpu_time_total, cpu), ">"
        yield "Self CPU", lambda r: _time(r.self_cpu_time_total), ">"
        yield "CPU total %", lambda r: _share(r.cpu_time_total, cpu), ">"
        yield "CPU total", lambda r: _time(r.cpu_time_total), ">"
        yield "CPU time avg", lambda r: _time(r.cpu_time), ">"
        if self._has_device:
            yield "Self CUDA", lambda r: _time(r.self_device_time_total), ">"
            yield "Self CUDA %", lambda r: _share(r.self_device_time_total, device), ">"
            yield "CUDA total", lambda r: _time(r.device_time_total), ">"
            yield "CUDA time avg", lambda r: _time(r.device_time), ">"
        if self._has_memory:
            yield "CPU Mem", lambda r: _bytes(r.cpu_memory_usage), ">"
            yield "Self CPU Mem", lambda r: _bytes(r.self_cpu_memory_usage), ">"
            if any(row.self_device_memory_usage for row in self):
                yield "CUDA Mem", lambda r: _bytes(r.device_memory_usage), ">"
                yield "Self CUDA Mem", lambda r: _bytes(r.self_device_memory_usage), ">"
        yield "# of Calls", lambda r: str(r.count), ">"
        if any(row.input_shapes for row in self):
            yield "Input Shapes", lambda r: r.input_shapes[:shapes_width], ">"
        if any(row.stack for row in self):
            yield "Source Location", lambda r: (r.stack[0] if r.stack else "")[-source_width:], "<"
        if any(row.flops for row in self):
            yield "Total MFLOPs", lambda r: f"{r.flops / 1e6:.3f}" if r.flops else "--", ">"

    def __str__(self) -> str:
        return self.table()


class Trace:
    """A trace file; see load_trace."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._report: dict[str, Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """All that `profilemate trace --format json` says of the file."""
        if self._report is None:
            self._report = json.loads(_run("--format", "json", "--sort", "time", "--", str(self.path)))
        return self._report

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What to look into: id, title, share_pct, evidence, remedy."""
        return list(self.report["findings"])

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0) -> Averages:
        """Calls and times by name, as torch.profiler.profile.key_averages()."""
        report = self.report
        words = ["--group-by-shape"] if group_by_input_shape else []
        if group_by_stack_n > 0:
            words += ["--group-by-stack", str(group_by_stack_n)]
        if words:
            report = json.loads(_run("--format", "json", "--sort", "time", *words, "--", str(self.path)))
        rows = [
            Average(
                key=row["name"],
                count=row["calls"],
                self_cpu_time_total=row["self_cpu_us"],
                cpu_time_total=row["cpu_us"],
                self_device_time_total=row["self_device_us"],
                device_time_total=row["device_us"],
                cpu_memory_usage=row["cpu_bytes"],
                self_cpu_memory_usage=row["self_cpu_bytes"],
                device_memory_usage=row["device_bytes"],
                self_device_memory_usage=row["self_device_bytes"],
                flops=row["flops"],
                on_device=row["on"] == "device",
                is_user_annotation=row["kind"] in ("user_annotation", "gpu_user_annotation"),
                input_shapes=row.get("input_shapes", ""),
                stack=row.get("stack", []),
            )
            for row in report["key_averages"]
        ]
        return Averages(rows, report["has_device"], report["has_memory"])

    def export_stacks(self, path: str | os.PathLike[str], metric: str = "self_cpu_time_total") -> None:
        """Folded stacks for flamegraph.pl and speedscope, as torch.profiler.profile.export_stacks()."""
        if metric not in _METRICS:
            raise ValueError(f"metric should be one of: {list(_METRICS)}")
        own = "self_cpu_time_total" if metric == "self_cpu_time_total" else "self_cuda_time_total"
        _run("--findings", "--export-stacks", os.fspath(path), "--metric", own, "--", str(self.path))


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """A trace that torch.profiler wrote, .json or .json.gz. ValueError says what is wrong with it."""
    trace = Trace(path)
    _ = trace.report  # reads it now: a bad path should not show up later
    return trace


def _time(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def _share(part: float, whole: float) -> str:
    return f"{part * 100 / whole:.2f}%" if whole else "NaN"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) < width - 3 else text[: width - 3] + "..."
