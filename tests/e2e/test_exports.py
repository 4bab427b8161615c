"""Exports of a session that vLLM's own scheduler made: tables in other libraries, metrics, timelines."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import results
import serving
from prometheus_client.openmetrics.parser import text_string_to_metric_families

PACKAGE_TESTS = serving.ROOT / "tests" / "package"


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    sessions = tmp_path_factory.mktemp("exports")
    done = subprocess.run(
        (sys.executable, Path(__file__).parent / "harness.py", "--requests", "40", "--num-blocks", "60"),
        env=serving.clean_environment(**serving.profiled(sessions, "full"), VLLM_LOGGING_LEVEL="ERROR"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return results.only_session(sessions)


def export(session: Path, *words: str | Path) -> str:
    done = subprocess.run([serving.PROGRAM, "export", *words, session], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def csvs(session, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("csv")
    export(session, "--quiet", "--format=csv-native", "--out", out)
    return out


def rows(csvs: Path, name: str) -> list[dict[str, str]]:
    with open(csvs / f"{name}.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_table_equals_its_csv_in_every_library(session, csvs):
    python = os.environ.get("PM_PACKAGE_PYTHON")
    if python is None:
        pytest.skip("no environment with pyarrow, polars and DuckDB: ./test makes it, or set PM_PACKAGE_PYTHON")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{serving.BUILD / 'python'}:{PACKAGE_TESTS}"}
    done = subprocess.run(
        [python, PACKAGE_TESTS / "check_session.py", session, csvs], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50000


def test_metrics_agree_with_the_tables(session, csvs):
    found = {f.name: f for f in text_string_to_metric_families(export(session, "--format=openmetrics"))}
    steps, requests = rows(csvs, "sched_step"), rows(csvs, "request")
    assert sum(s.value for s in found["profilemate_steps"].samples) == len(steps)
    (finished,) = found["profilemate_requests_finished"].samples
    assert finished.value == len(requests) == 40
    (preemptions,) = found["profilemate_preemptions"].samples
    assert preemptions.value == sum(int(row["preemptions"]) for row in requests) > 0
    tokens = {s.labels["kind"]: s.value for s in found["profilemate_scheduled_tokens"].samples}
    assert tokens == {
        kind: sum(int(row[f"{kind}_tokens"]) for row in steps) for kind in ("prefill", "recompute", "decode")
    }


def test_the_timeline_has_every_step_request_and_preemption(session, csvs):
    events = json.loads(export(session, "--format=chrome"))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    names = Counter(event["name"] for event in slices)
    assert names["schedule"] == len(rows(csvs, "sched_step"))
    requests = {row["request_id"]: row for row in rows(csvs, "requests")}
    assert all(names[request] == 1 for request in requests)
    assert names["kv_eviction"] == len(rows(csvs, "kv_eviction")) > 0
    assert names["preempted"] == sum(int(row["preemptions"]) for row in requests.values())
    assert_nested(slices)


def assert_nested(slices):
    """On each track a slice lies within the one that is open, or after it."""
    tracks = {}
    for event in slices:
        tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], -event["dur"], event))
    for found in tracks.values():
        open_ends = []
        for at, minus_dur, event in sorted(found, key=lambda each: each[:2]):
            while open_ends and open_ends[-1] <= at + 1e-6:
                open_ends.pop()
            assert not open_ends or at - minus_dur <= open_ends[-1] + 1e-3, event
            open_ends.append(at - minus_dur)


def test_fleet_queries_give_its_report_beside_made_up_servers(session, tmp_path):
    """In a lake with others, a real session's figures are those of its own report, number for number."""
    python = os.environ.get("PM_PACKAGE_PYTHON")
    if python is None:
        pytest.skip("no environment with pyarrow and DuckDB: ./test makes it, or set PM_PACKAGE_PYTHON")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(serving.BUILD / "python")}
    make = [serving.BUILD / "bench" / "make_day", tmp_path / "made", "hours=0.002"]
    made = subprocess.run(make, capture_output=True, text=True, check=True).stdout.strip()

    def program(*words: str | Path) -> str:
        command = [serving.PROGRAM, words[0], "--python", python, *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    lake = tmp_path / "lake"
    program("export", "--quiet", "--format=parquet", "--partition", "--out", lake, session, made)
    report = json.loads(subprocess.run([serving.PROGRAM, "report", "--json", session], capture_output=True).stdout)
    (engine,) = report["engines"]

    def row(query: str) -> dict:
        found = json.loads(program("fleet", query, lake, "--format=json"))["rows"]
        assert {each["model"] for each in found} == {report["model"], "made-up/model"}
        (mine,) = [each for each in found if each["model"] == report["model"]]
        return mine

    slo, waste, kv, told = row("slo"), row("waste"), row("kv"), engine["requests"]
    assert slo["vllm"] == report["vllm"] and slo["requests"] == told["total"] > 0
    assert slo["ended"] == sum(told["finished"].values()) and slo["aborted"] == told["finished"].get("abort", 0)
    assert (slo["prompt_tokens"], slo["output_tokens"]) == (told["prompt_tokens"], told["output_tokens"])
    for column, key, percentile in (("ttft_p50_ms", "ttft", "p50_ms"), ("tpot_p99_ms", "tpot", "p99_ms"),
                                    ("e2e_p99_ms", "e2e", "p99_ms"), ("queue_p99_ms", "queue", "p99_ms")):  # fmt: skip
        assert slo[column] == pytest.approx(told[key][percentile], abs=0.00051), column
    assert waste["steps"] == engine["steps"] and waste["preemptions"] == told["preemptions"] > 0
    assert waste["tokens"] == engine["prefill_tokens"] + engine["recompute_tokens"] + engine["decode_tokens"]
    assert (waste["recomputed_tokens"], waste["lost_tokens"]) == (engine["recompute_tokens"], told["lost_tokens"])
    cache = engine["kv_cache"]
    assert (kv["peak_blocks"], kv["evicted_blocks"]) == (cache["peak_blocks"], cache["evictions"])
