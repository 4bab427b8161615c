"""profilemate export: timelines, metrics and tables as the libraries of their formats read them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict

import pandas
import polars
import profilemate
import pyarrow
import pyarrow.parquet
import pytest
from conftest import PACKAGE, PROGRAM
from equal import assert_equal
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto
from prometheus_client.openmetrics.parser import text_string_to_metric_families

BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4


def rows_of(csvs, name):
    with open(csvs / f"{name}.csv", newline="") as lines:
        return list(csv.DictReader(lines))


# ---- Perfetto ----


class Trace:
    """A Perfetto trace, with its interned names, in order of time."""

    def __init__(self, data: bytes):
        parsed = perfetto.Trace()
        parsed.ParseFromString(data)
        assert {packet.trusted_packet_sequence_id for packet in parsed.packet} == {1}
        self.tracks, self.events, names, annotations = {}, [], {}, {}
        assert parsed.packet[0].trace_packet_defaults.timestamp_clock_id == 3
        (self.clocks,) = [
            {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
            for packet in parsed.packet
            if packet.HasField("clock_snapshot")
        ]
        for packet in parsed.packet:
            names |= {name.iid: name.name for name in packet.interned_data.event_names}
            annotations |= {name.iid: name.name for name in packet.interned_data.debug_annotation_names}
            if packet.HasField("track_descriptor"):
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            elif packet.HasField("track_event"):
                event = packet.track_event
                args = {
                    annotations[each.name_iid]: each.string_value or each.uint_value for each in event.debug_annotations
                }
                name = names[event.name_iid] if event.name_iid else event.name
                self.events.append((packet.timestamp, event, name, args))

    def slices(self):
        """(track, name, begin, end, args, depth), by the rule of the format: an end ends the newest that is open."""
        by_track = defaultdict(list)
        for at, event, name, args in sorted(self.events, key=lambda e: e[0]):
            if event.type in (BEGIN, END):
                by_track[event.track_uuid].append((at, event, name, args))
        for uuid, events in by_track.items():
            open_ones = []
            for at, event, name, args in events:
                if event.type == BEGIN:
                    open_ones.append((name, at, args))
                else:
                    began = open_ones.pop()
                    yield self.tracks[uuid], began[0], began[1], at, began[2], len(open_ones)
            assert not open_ones, f"slices of {self.tracks[uuid].name} that never end"


@pytest.fixture(scope="module")
def trace(day, program):
    return Trace(program("export", "--format=perfetto", day, text=False).stdout)


def test_perfetto_has_every_step_and_its_parts(trace, csvs):
    steps = rows_of(csvs, "steps")
    slices = list(trace.slices())
    of_worker = [each for each in slices if each[0].name == "steps, rank 0"]
    drawn = {args["step"]: (name, begin, end) for _, name, begin, end, args, _ in of_worker if name in PHASES}
    assert len(drawn) == len(steps)
    for row in steps:
        name, begin, end = drawn[int(row["step"])]
        assert begin == int(row["worker_start_ns"]) and end - begin == int(row["total_ns"])
        assert name in (row["phase"], "mixed")
    counts = Counter(name for _, name, *_ in slices)
    assert counts["schedule"] == counts["update_from_output"] == counts["model"] == len(steps)
    models = [(begin, end) for _, name, begin, end, _, depth in slices if name == "model" and depth == 1]
    assert models[0] == (
        int(steps[0]["worker_start_ns"]) + int(steps[0]["pre_ns"]),
        int(steps[0]["worker_start_ns"]) + int(steps[0]["pre_ns"]) + int(steps[0]["model_ns"]),
    )


PHASES = ("prefill", "decode", "mixed", "empty")


def test_perfetto_has_a_track_per_request(trace, csvs, day):
    session = profilemate.open(day)
    requests = {row["request_id"]: row for row in rows_of(csvs, "requests")}
    tracks = {t.name: t for t in trace.tracks.values() if trace.tracks.get(t.parent_uuid) and t.name in requests}
    assert set(tracks) == set(requests)
    parents = {trace.tracks[track.parent_uuid].name for track in tracks.values()}
    assert parents == {"Requests of engine 0"}
    lives = defaultdict(dict)
    preempted = Counter()
    for track, name, begin, end, _, _ in trace.slices():
        if track.name in requests:
            lives[track.name].setdefault(name, (begin, end))
            preempted[track.name] += name == "preempted"
    assert preempted.total() > 0, "the session has no preemption: nothing was tested"
    for name, row in requests.items():
        assert preempted[name] == int(row["preemptions"])
        if row["first_token_sec"] and row["state"] == "finished":
            first = (lives[name]["decode"][0] - session.start_monotonic_ns) / 1e9
            assert first == pytest.approx(float(row["first_token_sec"]), abs=1e-6)
            assert lives[name][name][1] == lives[name]["decode"][1]


def test_perfetto_leads_from_steps_to_requests(trace, csvs):
    begins, ends = defaultdict(list), defaultdict(list)
    for at, event, name, args in trace.events:
        for flow in event.flow_ids:
            begins[flow].append((at, name, args["step"], trace.tracks[event.track_uuid].name))
        for flow in event.terminating_flow_ids:
            ends[flow].append((at, name, args["step"], trace.tracks[event.track_uuid].name))
    assert begins.keys() == ends.keys()
    assert all(len(each) == 1 for each in (*begins.values(), *ends.values()))
    found = set()
    for flow, ((at, _, step, where),) in begins.items():
        ((to, _, to_step, request),) = ends[flow]
        assert (at, step) == (to, to_step) and where == "steps, rank 0"
        found.add((step, request))
    told = {
        (int(row["step"]), row["request"])
        for row in rows_of(csvs, "step_request")
        if row["event"] in ("1", "2", "3", "7") and row["tokens"] != "0"
    }
    assert found == told


def test_perfetto_has_counters_with_units(trace, csvs):
    counters = {t.name: t.counter.unit_name for t in trace.tracks.values() if t.HasField("counter")}
    assert counters["running requests"] == "requests" and counters["kv_step.used"] == "blocks"
    used = [e.double_counter_value for _, e, _, _ in trace.events if _is(trace, e, "kv_step.used")]
    assert used == [float(row["used"]) for row in rows_of(csvs, "kv_step")]


def _is(trace, event, name):
    return event.type == COUNTER and trace.tracks[event.track_uuid].name == name


def test_perfetto_knows_the_wall_clock(trace, day):
    session = profilemate.open(day)
    assert trace.clocks[3] == session.start_monotonic_ns
    assert trace.clocks[1] / 1e9 == pytest.approx(session.start.timestamp(), abs=1e-3)


def test_perfetto_of_a_part(day, program):
    part = Trace(program("export", "--format=perfetto", "--steps=100:119", day, text=False).stdout)
    assert sum(name == "schedule" for _, name, *_ in part.slices()) == 20


# ---- Chrome ----


def test_chrome_says_the_same(trace, day, program):
    chrome = json.loads(program("export", "--format=chrome", day).stdout)
    events = chrome["traceEvents"]
    start = profilemate.open(day).start_monotonic_ns
    mine = Counter((name, (begin - start) / 1e3, (end - begin) / 1e3) for _, name, begin, end, _, _ in trace.slices())
    theirs = Counter((e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X")
    instants = sum(event.type == INSTANT for _, event, _, _ in trace.events)
    assert not mine - theirs and (theirs - mine).total() == instants
    assert {e["id"] for e in events if e["ph"] == "s"} == {e["id"] for e in events if e["ph"] == "f"}
    values = Counter(e["name"] for e in events if e["ph"] == "C")
    assert values["running requests"] == values["kv_step.used"] > 1000
    assert {"process_name", "thread_name"} == {e["name"] for e in events if e["ph"] == "M"}
    assert chrome["otherData"]["session"] == day.name


# ---- OpenMetrics ----


def metrics(text):
    assert text.endswith("# EOF\n")
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_openmetrics_agrees_with_the_tables(day, csvs, program):
    found = metrics(program("export", "--format=openmetrics", day).stdout)
    steps, requests = rows_of(csvs, "steps"), rows_of(csvs, "request")
    assert all(name.startswith("profilemate_") for name in found)
    labels = {"model_name": "made-up/model", "engine": "0"}

    def value(name, suffix="", **more):
        (sample,) = [
            s for s in found[name].samples if s.name == name + suffix and s.labels == {**labels, **more}
        ]
        return sample.value

    for phase in ("prefill", "decode"):
        mine = [row for row in steps if row["phase"] == phase]
        assert value("profilemate_steps", "_total", phase=phase) == len(mine)
        assert value("profilemate_step_seconds", "_count", phase=phase, rank="0") == len(mine)
        assert value("profilemate_step_seconds", "_sum", phase=phase, rank="0") == pytest.approx(
            sum(int(row["total_ns"]) for row in mine) / 1e9
        )
    assert value("profilemate_requests_finished", "_total") == len(requests)
    assert value("profilemate_preemptions", "_total") == sum(int(row["preemptions"]) for row in requests) > 0
    times = [int(row["ttft_ns"]) for row in requests if row["ttft_ns"] != "0"]
    assert value("profilemate_time_to_first_token_seconds", "_count") == len(times)
    for sample in found["profilemate_time_to_first_token_seconds"].samples:
        if "le" in sample.labels:
            assert sample.value == sum(ns <= float(sample.labels["le"]) * 1e9 for ns in times)
    kv = rows_of(csvs, "kv_step")[-1]
    assert value("profilemate_kv_cache_usage_ratio") == pytest.approx(int(kv["used"]) / int(kv["total"]))
    assert value("profilemate_running_requests") == int(steps[-1]["running"])
    assert found["profilemate_session"].samples[0].labels["session"] == day.name


def test_openmetrics_names_are_escaped(tmp_path, program):
    from conftest import make_day

    made = make_day(tmp_path, "hours=0.0005", 'model=a "quoted"\\name')
    found = metrics(program("export", "--format=openmetrics", made).stdout)
    assert found["profilemate_steps"].samples[0].labels["model_name"] == 'a "quoted"\\name'


def test_openmetrics_series_end_where_the_tables_do(day, csvs, program):
    found = metrics(program("export", "--format=openmetrics", "--series=2s", day).stdout)
    steps = rows_of(csvs, "steps")
    began = profilemate.open(day).start.timestamp()
    totals = [s for s in found["profilemate_steps"].samples if s.labels["phase"] == "decode"]
    stamps = [float(s.timestamp) for s in totals]
    assert len(stamps) >= 5 and stamps == sorted(stamps)
    for sample, stamp in list(zip(totals, stamps, strict=True))[:-1]:
        until = [row for row in steps if float(row["timestamp_sec"]) < stamp - began and row["phase"] == "decode"]
        assert abs(sample.value - len(until)) <= 2  # the wall clock has microseconds, and a step its own moment
    assert totals[-1].value == sum(row["phase"] == "decode" for row in steps)
    gauges = found["profilemate_kv_cache_usage_ratio"].samples
    assert all(0 <= s.value <= 1 for s in gauges) and len(gauges) == len(stamps)
    assert found["profilemate_schedule_seconds"].type == "summary"


def test_prometheus_takes_the_series(day, program, tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    text = tmp_path / "metrics.txt"
    program("export", "--quiet", "--format=openmetrics", "--series=2s", "--out", text, day)
    words = [promtool, "tsdb", "create-blocks-from", "openmetrics", text, tmp_path / "data"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([promtool, "tsdb", "list", tmp_path / "data"], capture_output=True, text=True).stdout
    samples = sum(int(line.split()[4]) for line in listed.splitlines()[1:])
    assert samples == sum(not line.startswith("#") for line in text.read_text().splitlines())


# ---- Arrow and Parquet ----


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_files_equal_the_csvs(day, csvs, program, tmp_path, format):
    out = tmp_path / "made" / "folder"
    done = program("export", f"--format={format}", "--python", sys.executable, "--out", out, day)
    assert done.stderr.startswith("Wrote ") and str(out) in done.stderr
    assert {path.name for path in out.iterdir()} == {f"{path.stem}.{format}" for path in csvs.glob("*.csv")}
    for name in ("steps", "requests", "step_request"):
        if format == "arrow":
            table = pyarrow.ipc.open_file(out / f"{name}.arrow").read_all()
            assert polars.read_ipc(out / f"{name}.arrow").height == table.num_rows
        else:
            table = pyarrow.parquet.read_table(out / f"{name}.parquet")
            assert len(pandas.read_parquet(out / f"{name}.parquet")) == table.num_rows
        assert_equal(csvs / f"{name}.csv", table.to_pydict())
        assert table.schema.field(1).metadata[b"description"], "the metadata went lost"


def test_a_part_as_parquet(day, program, tmp_path):
    words = ("--format=parquet", "--python", sys.executable, "--quiet", "--out", tmp_path, "--steps=5:9")
    assert program("export", *words, day).stderr == ""
    assert pyarrow.parquet.read_table(tmp_path / "steps.parquet").column("step").to_pylist() == [5, 6, 7, 8, 9]


def test_what_is_missing_is_said(day, tmp_path, program):
    bare = next((p for p in os.environ.get("PM_PYTHONS", "").split(os.pathsep) if p), None)
    words = ["export", "--format=parquet", "--out", str(tmp_path / "out")]
    if bare is not None:
        done = subprocess.run(
            [PROGRAM, *words, "--python", bare, day], capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)},
        )  # fmt: skip
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "needs the Python package profilemate with pyarrow" in done.stderr and "pip install" in done.stderr
    done = program(*words, "--python", "/no/python", day, check=False)
    assert done.returncode == 1 and "cannot be started as /no/python" in done.stderr
    done = program("export", "--format=parquet", day, check=False)
    assert done.returncode == 2 and "say where with --out DIR" in done.stderr
