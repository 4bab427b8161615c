"""The KV cache's facts against an account kept by a model of its own (kv_model.py), and against vLLM's own metrics."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path
from types import SimpleNamespace

import driving
import pytest
import results
import serving
import tiny
from patience import until

MODEL = str(Path(__file__).resolve().parent / "kv_model.py")
SEEDS = int(os.environ.get("PM_KV_SEEDS", "40"))  # below 256: a reader takes more schedulers of a process for damage
LEVELS = ("step", "total", "used", "evictable")
MOVES = ("allocated", "revived", "freed", "evicted", "dropped")
TOKENS = ("queried_tokens", "hit_tokens", "requeried_tokens", "rehit_tokens")
USAGE_HEADER = "timestamp_sec,usage_pct,num_blocks,total_blocks"
EVICTIONS_HEADER = "timestamp_sec,lifetime_sec,idle_sec"


def summary_of(session: Path) -> dict[str, str]:
    """The lines `Key:   value` of kv_cache_summary.txt."""
    lines = (session / "kv_cache_summary.txt").read_text().splitlines()
    return {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in lines if ":" in line)}


# Random workloads on the real scheduler, without a model


@pytest.fixture(scope="module")
def random_runs(folder):
    """Per seed: what the model counted, and what was recorded. All schedulers are of one process."""
    sessions, out = folder / "sessions", folder / "model"
    command = (sys.executable, MODEL, "--seeds", f"1:{SEEDS}", "--steps", "250", "--out", str(out))
    done = subprocess.run(
        command, env=driving.environment(sessions), capture_output=True, text=True, errors="replace", timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    session = results.only_session(sessions)
    runs = []
    for line in out.open():
        counted = json.loads(line)
        runs.append(SimpleNamespace(**counted, steps_recorded=[], evictions_recorded=[]))
    assert len(runs) == SEEDS
    for row in results.native(session, "kv_step"):
        runs[row["instance"]].steps_recorded.append(row)
    for row in results.native(session, "kv_eviction"):
        runs[row["instance"]].evictions_recorded.append(row)
    results.profilemate("export", "--quiet", session)
    return SimpleNamespace(session=session, runs=runs)


def each(random_runs):
    for run in random_runs.runs:
        yield run, f"seed {run.seed}: {run.arguments} {run.extra}"


def test_the_workloads_are_worth_it(random_runs):
    """Guards the others: what they compare must have happened, often."""
    total = {key: sum(row[key] for run in random_runs.runs for row in run.rows) for key in MOVES + TOKENS}
    assert sum(len(run.rows) for run in random_runs.runs) >= 200 * SEEDS
    assert all(value > SEEDS for value in total.values()), total
    evictions = [eviction for run in random_runs.runs for eviction in run.evictions]
    assert {eviction["group"] for eviction in evictions} == {0, 1}
    assert {eviction["cause"] for eviction in evictions} == {0, 1}
    assert any(eviction["reuses"] for eviction in evictions)
    assert {bool(eviction["request"]) for eviction in evictions} == {True, False}
    assert any(run.extra["defer"] and "--async-scheduling" in run.arguments for run in random_runs.runs)
    assert any("--no-prefix-caching" in run.arguments for run in random_runs.runs)


def test_levels_and_moves_are_the_models_step_by_step(random_runs):
    for run, said in each(random_runs):
        assert len(run.steps_recorded) == len(run.rows), said
        peak = 0
        for got, counted in zip(run.steps_recorded, run.rows, strict=True):
            keys = LEVELS + MOVES + TOKENS
            assert {key: got[key] for key in keys} == {key: counted[key] for key in keys}, said
            peak = max(peak, counted["used"])
            assert got["peak"] == peak <= got["total"], said
            assert got["used"] / got["total"] == pytest.approx(counted["usage"], abs=1e-12), said
            assert got["flags"] == ("--no-prefix-caching" not in run.arguments), said


def test_every_eviction_is_there_with_its_block_and_owner(random_runs):
    for run, said in each(random_runs):
        keys = ("step", "block", "reuses", "request", "group", "cause")
        got = [{key: row[key] for key in keys} for row in run.evictions_recorded]
        assert got == [{key: row[key] for key in keys} for row in run.evictions], said


def test_lives_and_idle_times_begin_in_the_right_step(random_runs):
    """Without a clock of the model's own: between which two steps the block was given out, and last used."""
    for run, said in each(random_runs):
        ends = [row["at_ns"] for row in run.steps_recorded]
        for got, counted in zip(run.evictions_recorded, run.evictions, strict=True):
            assert bisect_left(ends, got["at_ns"] - got["lifetime_ns"]) == counted["born"], said
            assert bisect_left(ends, got["at_ns"] - got["idle_ns"]) == counted["used"], said
            assert 0 <= got["idle_ns"] <= got["lifetime_ns"], said


def test_the_files_say_the_same(random_runs):
    for number, run in enumerate(random_runs.runs):
        folder = random_runs.session / f"engine_{number}" / "rank_0" if number else random_runs.session
        usage, evictions = folder / "kv_cache_usage.csv", folder / "kv_cache_evictions.csv"
        assert usage.read_text().splitlines()[0] == USAGE_HEADER
        assert evictions.read_text().splitlines()[0] == EVICTIONS_HEADER
        rows = results.read_csv(usage)
        assert [(int(row["num_blocks"]), int(row["total_blocks"])) for row in rows] == [
            (row["used"], row["total"]) for row in run.rows
        ]
        assert all(row["usage_pct"] == f"{100 * int(row['num_blocks']) / int(row['total_blocks']):.2f}" for row in rows)
        assert len(results.read_csv(evictions)) == len(run.evictions)
        summary = summary_of(folder)
        assert int(summary["Total blocks"]) == run.rows[-1]["total"]
        assert int(summary["Allocations"]) == sum(row["allocated"] for row in run.rows)
        assert int(summary["Deallocations"]) == sum(row["freed"] for row in run.rows)
        assert int(summary["Evictions"]) == len(run.evictions)
        assert int(summary["Peak blocks"]) == max(row["used"] for row in run.rows)


# A real server, with vLLM's own metrics of the cache and of CUDA graphs on at the same time

BLOCK, TOTAL = 32, 47  # one of the 48 is vLLM's null block


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions = folder / "served"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    arguments = (
        "--block-size", str(BLOCK), "--num-gpu-blocks-override", str(TOTAL + 1), "--max-num-seqs", "8",
        "--kv-cache-metrics", "--kv-cache-metrics-sample", "1.0", "--cudagraph-metrics",
    )  # fmt: skip
    rng = random.Random(3)

    def tokens(n: int) -> list[int]:
        return [rng.randrange(3, tiny.VOCABULARY) for _ in range(n)]

    with serving.Server(llama, folder / "server", environment, arguments) as server:
        server.wait_ready()
        # Whole blocks, all different, nothing generated into them: each block given out anew was cached.
        server.complete_all([{"prompt": tokens(4 * BLOCK), "max_tokens": 1} for _ in range(40)], concurrency=4)
        whole = server.metrics()
        # Prompts that begin alike, three beginnings after one another; and too many tokens at once for the pool.
        for _ in range(3):
            beginning = tokens(200)
            server.complete_all(
                [{"prompt": beginning + tokens(rng.randrange(1, 120)), "max_tokens": 40} for _ in range(16)]
            )
        crowded = server.metrics().sum("vllm:num_preemptions_total") + 1
        for _ in range(20):  # until they were there at once: clients may be slower than the server
            server.complete_all([{"prompt": tokens(300), "max_tokens": 240} for _ in range(8)])
            if server.metrics().sum("vllm:num_preemptions_total") >= crowded:
                break
        gauges: set[float] = set()

        def scrape() -> serving.Metrics:
            scraped = server.metrics()
            gauges.add(gauge(scraped, "vllm:kv_cache_usage_perc"))
            return scraped

        # One request alone, scraped while it decodes. A busy machine may come too late for it: then another one.
        while not any(gauges):
            before = scrape().sum("vllm:generation_tokens_total")
            server.complete_in_background([{"prompt": tokens(340), "max_tokens": 660}])
            until(
                lambda before=before: scrape().sum("vllm:generation_tokens_total") >= before + 660, 60, every=0.02
            )
        until(lambda: gauge(scrape(), "vllm:num_requests_running") == 0, every=0.02)
        metrics = server.metrics()
        server.stop()
    session = results.only_session(sessions)
    until((session / "kv_cache_summary.txt").exists)
    results.profilemate("export", "--quiet", session)
    return SimpleNamespace(
        session=session,
        whole=whole,
        metrics=metrics,
        gauges=gauges,
        steps=results.native(session, "kv_step"),
        evictions=results.native(session, "kv_eviction"),
        summary=summary_of(session),
    )


def gauge(metrics: serving.Metrics, name: str) -> float:
    return sum(value for sample, _, value in metrics.samples if sample == name)


def test_the_pool_is_vllms(served):
    assert {row["total"] for row in served.steps} == {TOTAL}
    assert max(row["used"] for row in served.steps) == served.steps[-1]["peak"] <= TOTAL
    assert served.steps[-1]["used"] == 0


def test_prefix_queries_and_hits_are_vllms(served):
    """To the token: both count when a request is admitted; requests that had been preempted are counted apart."""
    for field, name in (("queried_tokens", "queries"), ("hit_tokens", "hits")):
        assert sum(row[field] for row in served.steps) == served.metrics.sum(f"vllm:prefix_cache_{name}_total")
        assert int(served.summary[field.replace("_", " ").capitalize()]) == served.metrics.sum(
            f"vllm:prefix_cache_{name}_total"
        )
    assert sum(row["hit_tokens"] for row in served.steps) > 1000
    assert sum(row["requeried_tokens"] for row in served.steps) > 0
    assert served.metrics.sum("vllm:num_preemptions_total") > 0


def test_usage_is_vllms_gauge(served):
    """vLLM's gauge is read after a step's output was worked on; with one request decoding, nothing moved in between."""
    seen = {gauge * TOTAL for gauge in served.gauges if gauge > 0}
    assert seen
    levels = {row["used"] for row in served.steps}
    for blocks in seen:
        assert round(blocks) in levels and blocks == pytest.approx(round(blocks), abs=1e-6)


def test_evictions_are_vllms_where_both_count_the_same(served):
    """vLLM counts a block whenever it is given out again, cached or not; we count it when it was cached. In the first
    part each one was. Our moments enclose vLLM's, which are a few lines of Python nearer to each other: hence 5 %."""
    count = served.whole.sum("vllm:kv_block_lifetime_seconds_count")
    assert count == 40 * 4 - TOTAL
    first = served.evictions[:count]
    assert {row["reuses"] for row in first} == {0}
    ours = sum(row["lifetime_ns"] for row in first) / 1e9
    vllms = gauge(served.whole, "vllm:kv_block_lifetime_seconds_sum")
    assert vllms <= ours <= 1.05 * vllms
    # Never hit: vLLM's idle time is the whole life; ours begins when the last holder gave the block back.
    assert gauge(served.whole, "vllm:kv_block_idle_before_evict_seconds_sum") == pytest.approx(vllms, rel=0.05)
    assert sum(row["idle_ns"] for row in first) / 1e9 <= ours
    assert served.evictions[count - 1]["at_ns"] < served.evictions[count]["at_ns"]


def test_every_block_given_out_again_is_in_vllms_histogram(served):
    """Blocks that were never used are given out before any cached one, so by now each block has been given out once."""
    given = sum(row["allocated"] for row in served.steps)
    assert served.metrics.sum("vllm:kv_block_lifetime_seconds_count") == given - TOTAL
    assert 40 * 4 - TOTAL < len(served.evictions) <= given - TOTAL
    assert int(served.summary["Evictions"]) == len(served.evictions) == sum(row["evicted"] for row in served.steps)


def test_blocks_are_conserved(served):
    used = 0
    for row in served.steps:
        used += row["allocated"] + row["revived"] - row["freed"]
        assert used == row["used"] and row["used"] + row["evictable"] <= TOTAL, row


def test_the_report_has_a_section(served):
    text = results.profilemate("report", "--text", served.session).stdout
    section = text[text.index("\nKV cache\n") :]
    assert f"of {TOTAL} blocks" in section and f"{len(served.evictions)}, mean life" in section
    data = json.loads(results.profilemate("report", "--json", served.session).stdout)["engines"][0]["kv_cache"]
    assert data["evictions"] == len(served.evictions) and data["total_blocks"] == TOTAL


# Settings


def run_alone(folder: Path, **settings: str) -> Path:
    sessions = folder / "sessions"
    command = (sys.executable, MODEL, "--seeds", "3:3", "--steps", "40", "--out", str(folder / "model"))
    folder.mkdir()
    done = subprocess.run(command, env=driving.environment(sessions, **settings), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    session = results.only_session(sessions)
    results.profilemate("export", "--quiet", session)
    return session


def test_switched_off_it_leaves_no_file(folder):
    session = run_alone(folder / "off", VLLM_PROFILING_ENABLE_KV_CACHE_TRACKING="0")
    assert not list(session.rglob("kv_cache_*")) and not results.native(session, "kv_step")
    assert (session / "forward_pass_timing.csv").exists()


def test_alone_it_still_finds_its_engine(folder):
    others = (
        "CUDA_GRAPH_TRACKING", "MOE_EXPERT_TRACKING", "FORWARD_PASS_TIMING", "CPU_TIMING",
        "BATCH_UTILIZATION_TRACKING", "PREEMPTION_TRACKING", "ENCODER_DECODER_TIMING", "MEMORY_TRACKING",
        "SAMPLING_TIMING", "COLLECTIVE_TIMING", "SPEC_DECODE_TRACKING",
    )  # fmt: skip
    session = run_alone(folder / "alone", **{f"VLLM_PROFILING_ENABLE_{name}": "0" for name in others})
    assert not (session / "forward_pass_timing.csv").exists()
    assert len(results.read_csv(session / "kv_cache_usage.csv")) == 40
