"""Every request of random workloads on vLLM's real scheduler, as recorded, against what the driver saw (lives.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import driving
import pytest
import results
import serving

SEEDS = int(os.environ.get("PM_LIVES", "40"))
# An engine process remembers the last four schedulers, but its records all: any number may follow one another.
NEVER = (0, 0)


@pytest.fixture(scope="module")
def recorded(folder):
    """All workloads in one process, one engine each; the native tables by engine."""
    done = subprocess.run(
        (sys.executable, str(Path(__file__).with_name("lives.py")), "--seeds", f"1:{SEEDS}"),
        env=driving.environment(folder / "sessions"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    session = results.only_session(folder / "sessions")
    results.profilemate("export", "--quiet", session)
    truth = json.loads(done.stdout)["workloads"]
    tables: dict[str, list[list[dict]]] = {}
    lines = results.profilemate("export", "--quiet", "--format", "json", session).stdout.splitlines()
    for row in map(json.loads, lines):
        if row["table"] in ("requests", "request", "steps"):
            by_engine = tables.setdefault(row["table"], [[] for _ in truth])
            by_engine[row["engine"]].append(row)
    start = next(line for line in (session / "session").read_text().splitlines() if line.startswith("start_mono_ns"))
    return SimpleNamespace(session=session, truth=truth, start_ns=int(start.split()[1]), **tables)


@pytest.fixture(params=range(SEEDS), ids=lambda i: f"seed-{i + 1}")
def workload(request, recorded):
    engine = request.param
    truth = recorded.truth[engine]
    lives = [(rid, SimpleNamespace(**life)) for rid, life in truth["lives"]]
    return SimpleNamespace(
        mix=truth["mix"],
        lives=lives,
        updates=truth["updates"],
        steps=recorded.steps[engine],
        pairs=paired(lives, recorded.requests[engine], recorded.start_ns),
        start_ns=recorded.start_ns,
        folder=recorded.session / (f"engine_{engine}/rank_0" if engine else ""),
    )


def moment(row: dict, name: str, start_ns: int) -> int | None:
    return None if row[name] is None else start_ns + round(row[name] * 1e9)


def paired(lives, rows: list[dict], start_ns: int):
    """Each life with its row: the n-th of an id by arrival is the n-th row of that id by arrival."""
    by_id: dict[str, list[dict]] = {}
    for row in sorted(rows, key=lambda row: row["queued_sec"]):
        by_id.setdefault(row["request_id"], []).append(row)
    pairs = [(rid, life, by_id[rid].pop(0)) for rid, life in lives]
    assert not any(by_id.values()), "rows of requests that never were"
    return pairs


def assert_within(row: dict, name: str, bounds, start_ns: int) -> None:
    got = moment(row, name, start_ns)
    if bounds is None:
        assert got is None, (name, row)
    else:
        # Times in seconds are cut to microseconds.
        assert got is not None and bounds[0] - 1000 <= got <= bounds[1] + 1000, (name, got, bounds, row)


def test_counts_are_vllms(workload):
    for rid, life, row in workload.pairs:
        assert (row["prompt_tokens"], row["output_tokens"]) == (life.prompt_tokens, life.output_tokens), (rid, row)
        assert (row["state"], row["reason"], row["turns"]) == ("finished", life.reason, life.turns), (rid, row)
        assert (row["preemptions"], row["priority"]) == (len(life.preempted), life.priority), (rid, row)
        if life.started:
            assert row["cached_tokens"] == life.cached_tokens, (rid, row)


def test_outputs_are_those_that_vllm_handed_out(workload):
    for rid, life, row in workload.pairs:
        assert (row["outputs"] or 0) == life.outputs, (rid, row, life)


def test_moments_lie_within_the_calls_that_made_them(workload):
    for _, life, row in workload.pairs:
        for name, bounds in {
            "queued_sec": life.queued,
            "started_sec": life.started,
            "first_token_sec": life.first,
            "last_token_sec": life.last,
            "first_preempted_sec": life.preempted[0] if life.preempted else None,
            "last_preempted_sec": life.preempted[-1] if life.preempted else None,
            "last_resumed_sec": life.resumed[-1] if life.resumed else None,
            "finished_sec": life.finished,
        }.items():
            assert_within(row, name, bounds, workload.start_ns)


def test_the_longest_gap_is_right(workload):
    for _, life, row in workload.pairs:
        got = row["max_itl_ns"] or 0
        assert life.longest_gap[0] <= got <= life.longest_gap[1] or life.longest_gap == [0, 0] == [got, 0], (life, row)


def test_what_preemptions_cost(workload):
    for rid, life, row in workload.pairs:
        assert row["lost_tokens"] == life.lost_tokens, (rid, life, row)
        if workload.mix["policy"] == "fcfs":  # under priorities a victim may have got blocks in the same step
            assert row["lost_blocks"] == life.lost_blocks, (rid, life, row)


def test_durations_are_those_of_the_moments(workload):
    for _, life, row in workload.pairs:
        if life.started:
            assert abs(row["queue_ns"] - (row["started_sec"] - row["queued_sec"]) * 1e9) <= 2000
        if life.first:
            assert abs(row["ttft_ns"] - (row["first_token_sec"] - row["arrived_sec"]) * 1e9) <= 2000
            assert row["arrived_sec"] <= row["queued_sec"]
        if life.output_tokens > 1:
            tpot = (row["last_token_sec"] - row["first_token_sec"]) * 1e9 / (life.output_tokens - 1)
            assert abs(row["tpot_ns"] - tpot) <= 2001


def test_what_came_out_of_each_step(workload):
    steps = [step for step in workload.steps if step["tokens"]]
    assert len(steps) == len(workload.updates)
    for step, counted in zip(steps, workload.updates, strict=True):
        got = {"tokens": step["output_tokens"], **{key: step[key] for key in counted if key != "tokens"}}
        assert got == counted, (workload.mix, step)


def test_the_two_ways_of_knowing_a_request_agree(recorded):
    """The engine core's record of a request that is over, and what the reader made of the steps."""
    by_engine = recorded.requests
    for engine, rows in enumerate(recorded.request):
        table = {(row["request_id"], row["finished_sec"]): row for row in by_engine[engine]}
        for row in rows:
            known = table[row["request"], row["timestamp_sec"]]
            assert known["max_itl_ns"] == (row["longest_gap_ns"] or None)
            assert known["output_tokens"] == row["output_tokens"]


def test_events_tell_each_life(workload):
    events = results.read_csv(workload.folder / "preemption_events.csv")
    times = [float(event["timestamp_sec"]) for event in events]
    lives = workload.lives
    assert [e["event"] for e in events].count("started") == sum(life.started is not None for _, life in lives)
    assert [e["event"] for e in events].count("finished") == len(lives)
    assert sorted(e["reason"] for e in events if e["event"] == "preempted") == sorted(
        reason for _, life in lives for reason in life.reasons
    )
    assert [e["event"] for e in events].count("resumed") == sum(len(life.resumed) for _, life in lives)
    # An end is told when the update that gave the last output has returned; what a step begins, when schedule() has.
    assert times == sorted(times)


def test_lifecycle_and_summary(workload):
    rows = results.read_csv(workload.folder / "request_lifecycle.csv")
    assert len(rows) == len(workload.lives)
    summary = json.loads((workload.folder / "preemption_summary.json").read_text())
    reasons: dict[str, int] = {}
    for _, life in workload.lives:
        for reason in life.reasons:
            reasons[reason] = reasons.get(reason, 0) + 1
    assert summary["total_requests"] == len(workload.lives)
    assert summary["total_preemptions"] == sum(reasons.values())
    assert summary["preemption_reasons"] == reasons


def test_the_mixes_cover_what_they_should(recorded):
    """Guards the other tests: each kind of disturbance came about in some workload."""
    lives = [life for truth in recorded.truth for _, life in truth["lives"]]
    reasons = {reason for life in lives for reason in life["reasons"]}
    assert {"kv_cache_exhausted", "cache_reset"} <= reasons
    assert {"stop", "length", "abort"} <= {life["reason"] for life in lives}
    assert any(life["started"] is None for life in lives)
    assert any(life["turns"] > 1 for life in lives)
    assert any(truth["mix"]["asynchronous"] and sum(len(life["preempted"]) for _, life in truth["lives"])
               for truth in recorded.truth)  # fmt: skip
    assert any(update["accepted"] for truth in recorded.truth for update in truth["updates"])
