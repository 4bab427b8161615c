"""Real traces of GPU runs (PM_SHARED_TRACES, or ../shared/data/traces beside the checkout): every figure twice."""

from __future__ import annotations

import csv
import io
import json

import pytest
import trace_oracle as oracle

FILES = sorted(oracle.SHARED.glob("*.json.gz")) if oracle.SHARED.is_dir() else []
pytestmark = pytest.mark.skipif(
    not FILES, reason=f"no traces in {oracle.SHARED} (PM_SHARED_TRACES names another folder)"
)
each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.split(".")[0])


@pytest.fixture(scope="module")
def traces():
    """Each trace is read once."""
    kept = {}

    def get(path):
        if path not in kept:
            kept[path] = oracle.read(path)
        return kept[path]

    return get


def report(cli, *words) -> dict:
    shown = cli("trace", "--format", "json", *words)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def us(ns) -> float:
    return ns / 1000


@each
def test_every_event_is_counted(cli, traces, path):
    events = traces(path)["traceEvents"]
    file = report(cli, path)["files"][0]
    assert file["events"] == len(events)
    assert file["flow_events"] == sum(e.get("ph") in ("s", "t", "f") for e in events)
    assert file["loss"] is None and file["incomplete_events"] == 0 and file["odd_numbers"] == 0
    assert sum(file["counts"].values()) == sum(e.get("ph") == "X" for e in events) + sum(
        e.get("name") in ("[memory]", "[OutOfMemory]") for e in events
    )
    rank = (traces(path).get("distributedInfo") or {}).get("rank")
    if rank is not None:
        assert file["rank"] == rank


@each
@pytest.mark.parametrize("by_shape", [False, True], ids=["by-name", "by-shape"])
def test_the_averages_are_torchs(cli, traces, path, by_shape):
    pytest.importorskip("torch", reason="torch's own table is the oracle")
    expected = {}
    for row in oracle.torch_averages(traces(path), by_shape):
        shapes = str([[int(d) for d in dims] for dims in row.input_shapes]) if by_shape else ""
        key = (row.key, row.device_type.name != "CPU", row.is_user_annotation, shapes)
        assert key not in expected
        expected[key] = row
    shown = cli("trace", "--format", "csv", *(["--group-by-shape"] if by_shape else []), path)
    assert shown.returncode == 0, shown.stderr
    rows = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert shown.stdout.startswith("name,calls,self_cpu_us,cpu_us,self_device_us,device_us,")
    ours = {
        (r["name"], r["on"] == "device", "annotation" in r["kind"], r["input_shapes"] if by_shape else ""): r
        for r in rows
    }
    assert len(ours) == len(rows)
    assert set(ours) == set(expected)
    for key, row in expected.items():
        close = pytest.approx
        assert int(ours[key]["calls"]) == row.count, key
        for column, value in (
            ("self_cpu_us", row.self_cpu_time_total),
            ("cpu_us", row.cpu_time_total),
            ("self_device_us", row.self_device_time_total),
            ("device_us", row.device_time_total),
        ):
            assert float(ours[key][column]) == close(value, rel=1e-9, abs=0.002), (key, column)


@each
def test_busy_and_idle_time_and_their_overlaps(cli, traces, path):
    events = [e for e in oracle.events_of(traces(path)) if e.cat in oracle.WORK]
    shown = {d["id"]: d for d in report(cli, path)["files"][0]["devices"]}
    assert set(shown) == {oracle.device_of(e) for e in events}
    for number, device in shown.items():
        mine = [e for e in events if oracle.device_of(e) == number]
        times = oracle.device_times(mine, lambda name: name.startswith("nccl"))
        assert device["events"] == len(mine)
        assert device["span_us"] == us(times["span"])
        assert device["busy_us"] == us(times["all"])
        assert device["idle_us"] == us(times["span"] - times["all"])
        assert device["kernel_us"] == us(times["kernel"])
        assert device["compute_us"] == us(times["compute"])
        assert device["collective_us"] == us(times["collective"])
        assert device["exposed_collective_us"] == us(times["exposed"])
        assert device["copy_us"] == us(times["copy"])
        assert sum(reason["us"] for reason in device["idle"].values()) == pytest.approx(device["idle_us"], abs=0.001)


@each
def test_kernels_and_copies(cli, traces, path):
    events = [e for e in oracle.events_of(traces(path)) if e.cat in oracle.WORK]
    file = report(cli, path)["files"][0]
    times, calls = {}, {}
    for event in events:
        times[event.name] = times.get(event.name, 0) + event.dur
        calls[event.name] = calls.get(event.name, 0) + 1
    assert {k["name"]: (k["calls"], k["us"]) for k in file["kernels"]} == {n: (calls[n], us(times[n])) for n in times}
    assert sum(c["us"] for c in file["classes"].values()) == pytest.approx(us(sum(times.values())))
    copies = oracle.copies(events)
    assert {c["name"] for c in file["copies"]} == set(copies)
    for copy in file["copies"]:
        number, ns, size = copies[copy["name"]]
        assert (copy["calls"], copy["us"]) == (number, us(ns))
        if size:
            assert copy["bytes"] == size
            assert copy["gb_per_s"] == pytest.approx(size / ns, abs=0.001)


@each
def test_launches(cli, traces, path):
    events = oracle.events_of(traces(path))
    calls = {}
    for event in events:
        if event.cat in oracle.RUNTIME and event.correlation is not None:
            calls.setdefault(event.correlation, event)
    launched = [e for e in events if e.cat in oracle.WORK and e.correlation in calls]
    first = {}
    for event in sorted(launched, key=lambda e: (e.start, -e.end)):
        first.setdefault(event.correlation, event)
    delays = sorted(max(0, e.start - calls[c].end) for c, e in first.items())
    shown = report(cli, path)["files"][0]["launches"]
    assert shown["calls"] == len(first)
    assert shown["works"] == len(launched)
    assert shown["call_us"] == us(sum(calls[c].dur for c in first))
    assert shown["shorter_than_call"] == sum(e.dur < calls[e.correlation].dur for e in launched)
    if delays:
        assert shown["delay_max_us"] == us(delays[-1])
        assert shown["delay_p50_us"] == us(delays[(len(delays) - 1) // 2])
        assert shown["delay_mean_us"] == pytest.approx(us(sum(delays) / len(delays)), abs=0.001)


@each
def test_steps(cli, traces, path):
    events = oracle.events_of(traces(path))
    steps = sorted(
        (e for e in events if e.cat == "user_annotation" and e.name.startswith("ProfilerStep#")), key=lambda e: e.start
    )
    shown = report(cli, path)["files"][0]["steps"]
    assert [(s["name"], s["cpu_us"]) for s in shown] == [(e.name, us(e.dur)) for e in steps]
    busy = oracle.union([(e.start, e.end) for e in events if e.cat in oracle.WORK])
    for i, step in enumerate(steps):
        end = steps[i + 1].start if i + 1 < len(steps) else step.end
        inside = sum(max(0, min(e, end) - max(b, step.start)) for b, e in busy)
        assert shown[i]["period_us"] == us(end - step.start)
        assert shown[i]["device_busy_us"] == us(inside)


def test_the_two_ranks_of_one_job(cli, traces):
    files = [p for p in FILES if p.name.startswith("timeline_rank")]
    if len(files) < 2:
        pytest.skip("the two ranks are not there")
    both = report(cli, *files)
    assert [f["rank"] for f in both["files"]] == [0, 1]
    alone = [report(cli, f) for f in files]
    calls = {}
    for one in alone:
        for row in one["key_averages"]:
            key = (row["name"], row["on"], "annotation" in row["kind"])
            calls[key] = calls.get(key, 0) + row["calls"]
    assert {(r["name"], r["on"], "annotation" in r["kind"]): r["calls"] for r in both["key_averages"]} == calls


def test_before_and_after_a_change(cli):
    files = [oracle.SHARED / f"diff_{which}.json.gz" for which in ("control", "test")]
    if not all(f.exists() for f in files):
        pytest.skip("the pair is not there")
    shown = cli("trace", "diff", "--by", "self_device", "--format", "json", *files)
    assert shown.returncode == 0, shown.stderr
    changes = {(c["name"], c["on"]): c for c in json.loads(shown.stdout)["changes"]}
    sides = []
    for file in files:
        rows = report(cli, file)["key_averages"]
        sides.append({(r["name"], r["on"]): r for r in rows if r["kind"] != "user_annotation"})
    for key in set(sides[0]) | set(sides[1]):
        before, after = (side.get(key, {"calls": 0, "self_device_us": 0}) for side in sides)
        change = changes.get(key)
        if change is None:
            assert before["calls"] == after["calls"] and before["self_device_us"] == after["self_device_us"] == 0
            continue
        assert (change["calls_before"], change["calls_after"]) == (before["calls"], after["calls"])
        assert change["change_us"] == pytest.approx(after["self_device_us"] - before["self_device_us"], abs=0.002)
    sizes = [abs(c["change_us"]) for c in json.loads(shown.stdout)["changes"]]
    assert sizes == sorted(sizes, reverse=True)
