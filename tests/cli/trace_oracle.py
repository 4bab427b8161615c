"""Other ways to the figures of `profilemate trace`: torch's own classes, and plain Python.

Nothing here is fast or clever: every figure is computed in the most straightforward way from what Python's json reads.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

from program import ROOT

SHARED = Path(os.environ.get("PM_SHARED_TRACES", ROOT.parent / "shared" / "data" / "traces"))
RUNTIME = {"cuda_runtime", "cuda_driver"}
WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
DEVICE = WORK | {"cuda_sync", "gpu_user_annotation"}
ANNOTATION = {"user_annotation", "gpu_user_annotation"}
CPU = {"cpu_op", "user_annotation", "python_function", "overhead"} | RUNTIME
LEFT_OUT = {
    "profiler::_record_function_enter",
    "profiler::_record_function_enter_new",
    "profiler::_record_function_exit",
    "aten::is_leaf",
    "aten::output_nr",
    "aten::_version",
}


def read(path: Path) -> dict:
    """The trace with exact decimals."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return json.loads(data, parse_float=Decimal)


class Event:
    """One complete event, times in whole nanoseconds."""

    def __init__(self, raw: dict, index: int):
        self.index = index
        self.name = raw["name"]
        self.cat = raw.get("cat", "cpu_op")
        self.thread = (str(raw.get("pid")), str(raw.get("tid")))
        self.start = int((Decimal(raw["ts"]) * 1000).to_integral_value())
        self.dur = max(0, int((Decimal(raw.get("dur", 0)) * 1000).to_integral_value()))
        self.end = self.start + self.dur
        self.args = raw.get("args") or {}

    @property
    def external(self):
        return self.args.get("External id") or None

    @property
    def correlation(self):
        return self.args.get("correlation")


def events_of(trace: dict) -> list[Event]:
    """Complete events, in the order of the file."""
    return [Event(raw, i) for i, raw in enumerate(trace["traceEvents"]) if raw.get("ph") == "X"]


def has_old_ids(events: list[Event]) -> bool:
    pairs = [(e.external, e.correlation) for e in events if e.cat in WORK | RUNTIME]
    pairs = [(x, c) for x, c in pairs if c is not None]
    return bool(pairs) and all(x == c for x, c in pairs)


def operators_around(events: list[Event]) -> dict[int, Event]:
    """By the correlation of a runtime call: the innermost operator or annotation whose time holds it."""
    by_thread = defaultdict(list)
    for event in events:
        if event.cat in CPU:
            by_thread[event.thread].append(event)
    found = {}
    for thread in by_thread.values():
        thread.sort(key=lambda e: (e.start, -e.end, e.index))
        open_events: list[Event] = []
        for event in thread:
            while open_events and not (event.start < open_events[-1].end and event.end <= open_events[-1].end):
                open_events.pop()
            if event.cat in RUNTIME:
                for outer in reversed(open_events):
                    if outer.cat in ("cpu_op", "user_annotation"):
                        found.setdefault(event.correlation, outer)
                        break
            open_events.append(event)
    return found


def torch_averages(trace: dict, by_shape: bool = False):
    """key_averages() by torch's own EventList, fed with the events of the file."""
    from torch.autograd import DeviceType
    from torch.autograd.profiler_util import EventList, FunctionEvent

    events = [e for e in events_of(trace) if e.cat in CPU | DEVICE and e.name not in LEFT_OUT]
    first = min(e.start for e in events)
    old = has_old_ids(events)
    around = operators_around(events) if old else {}
    use_device = "cuda" if any(e.cat in DEVICE for e in events) else None
    made, by_external, linked = [], defaultdict(list), defaultdict(list)
    for event in events:
        on_device = event.cat in DEVICE
        thread = event.thread
        launched = event.cat in DEVICE | RUNTIME
        link = None
        if launched and old:
            link = around.get(event.correlation)
        elif launched:
            link = event.external
        if event.cat in RUNTIME and link is None:
            thread = ("apart", *event.thread)
        shapes = [
            [] if isinstance(dims, list) and any(isinstance(d, list) for d in dims) else dims
            for dims in event.args.get("Input Dims", [])
        ]
        function = FunctionEvent(
            id=event.index,
            name="ProfilerStep*" if event.name.startswith("ProfilerStep#") else event.name,
            thread=str(thread),
            start_us=(event.start - first) / 1000,
            end_us=(event.end - first) / 1000,
            use_device=use_device,
            device_type=DeviceType.CUDA if on_device else DeviceType.CPU,
            is_user_annotation=event.cat in ANNOTATION,
            input_shapes=shapes,
            stack=[],
            flops=0,
        )
        made.append(function)
        if not launched:
            by_external[event.index if old else event.external].append(function)
        elif on_device and link is not None:
            linked[link.index if old else link].append(function)
    for key, kernels in linked.items():
        for function in by_external.get(key, ()):
            for kernel in kernels:
                function.append_kernel(kernel.name, 0, kernel.time_range.elapsed_us())
    made.sort(key=lambda f: [f.time_range.start, -f.time_range.end])
    listed = EventList(made, use_device=use_device)
    listed._build_tree()
    return listed.key_averages(group_by_input_shapes=by_shape)


# ---- devices, by intervals -------------------------------------------------------------------------------------------


def union(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[list[int]] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return [(b, e) for b, e in merged]


def length(intervals: list[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in union(intervals))


def overlap(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> int:
    return length(a) + length(b) - length(a + b)


def device_times(events: list[Event], is_collective) -> dict:
    """Of one device: span, busy, computing, collectives, copies, in ns."""
    work = [e for e in events if e.cat in WORK]
    spans = {
        "all": work,
        "kernel": [e for e in work if e.cat == "kernel"],
        "compute": [e for e in work if e.cat == "kernel" and not is_collective(e.name)],
        "collective": [e for e in work if e.cat == "kernel" and is_collective(e.name)],
        "copy": [e for e in work if e.cat != "kernel"],
    }
    times = {name: length([(e.start, e.end) for e in part]) for name, part in spans.items()}
    times["span"] = max(e.end for e in work) - min(e.start for e in work)
    times["exposed"] = times["collective"] - overlap(
        [(e.start, e.end) for e in spans["collective"]], [(e.start, e.end) for e in spans["compute"]]
    )
    return times


def device_of(event: Event) -> int:
    return int(event.args.get("device", event.thread[0]))


def copies(events: list[Event]) -> dict[str, tuple[int, int, int]]:
    """By name: calls, ns, bytes."""
    calls, times, sizes = Counter(), Counter(), Counter()
    for event in events:
        if event.cat in ("gpu_memcpy", "gpu_memset"):
            calls[event.name] += 1
            times[event.name] += event.dur
            sizes[event.name] += int(event.args.get("bytes", 0))
    return {name: (calls[name], times[name], sizes[name]) for name in calls}
