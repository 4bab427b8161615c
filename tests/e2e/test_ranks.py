"""Tensor parallelism over two ranks on the CPU: one session, both ranks complete and agreed."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until


@pytest.fixture(scope="module")
def ran(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(
        **serving.profiled(sessions, preset="full"), VLLM_CPU_OMP_THREADS_BIND="0|1"
    )
    options = {
        "tensor_parallel_size": 2,
        "enforce_eager": True,
        "max_num_batched_tokens": 128,
        "max_num_seqs": 8,
        "enable_logging_iteration_details": True,
    }
    spec = {"model": str(llama), "options": options, "batches": [workload(seed=21, requests=24)]}
    result, errors = serving.run_llm(spec, environment)
    session = results.only_session(sessions)
    until((session / "forward_pass_timing.csv").exists)
    return SimpleNamespace(session=session, log=result["log"], metrics=result["metrics"], errors=errors)


def test_both_ranks_ran_every_step(ran):
    wanted = [(step["requests"], step["tokens"]) for step in results.iterations(ran.log)]
    by_rank: dict[int, list] = {}
    for row in results.native(ran.session, "worker_step"):
        if row["tokens"]:
            by_rank.setdefault(row["rank"], []).append((row["requests"], row["tokens"]))
    assert sorted(by_rank) == [0, 1]
    assert by_rank[0] == wanted
    assert by_rank[1] == wanted


def test_the_files_at_the_top_are_of_one_rank_and_the_other_has_its_own(ran):
    top = results.read_csv(ran.session / "forward_pass_timing.csv")
    other = results.read_csv(ran.session / "engine_0" / "rank_1" / "forward_pass_timing.csv")
    results.assert_rows_are_vllms(top, ran.log)
    results.assert_rows_are_vllms(other, ran.log)
    assert [row["forward_time_ms"] for row in top] != [row["forward_time_ms"] for row in other]
    assert sum(int(row["num_tokens"]) for row in top) == results.computed_tokens(ran.metrics)


def test_ranks_are_in_different_processes(ran):
    pids = {row["rank"]: row["pid"] for row in results.native(ran.session, "worker_step")}
    assert len(set(pids.values())) == 2


def test_what_the_scheduler_knows_is_told_once(ran):
    other = ran.session / "engine_0" / "rank_1"
    for name in ("batch_utilization.csv", "preemption_events.csv", "request_lifecycle.csv"):
        assert (ran.session / name).exists() and not (other / name).exists()
    top = {row["operation"] for row in results.read_csv(ran.session / "cpu_operations_timing.csv")}
    of_the_other = {row["operation"] for row in results.read_csv(other / "cpu_operations_timing.csv")}
    assert {"scheduling", "output_processing", "batch_prep", "model_execution", "sampling"} <= top
    assert {"batch_prep", "model_execution"} <= of_the_other <= top - {"scheduling", "output_processing"}
    assert len(results.read_csv(ran.session / "request_lifecycle.csv")) == 24


def test_collectives_are_what_the_shapes_of_the_tensors_say(ran, llama):
    """One all-reduce after the embedding and two per layer, of the step's tokens; one gathering of its logits."""
    model = json.loads((llama / "config.json").read_text())
    width, layers, vocabulary = model["hidden_size"], model["num_hidden_layers"], model["vocab_size"]
    steps = {(row["rank"], row["step"]): row for row in results.native(ran.session, "worker_step") if row["tokens"]}
    wanted, found = {}, {}
    for (rank, number), step in steps.items():
        reduces = 1 + 2 * layers
        wanted[rank, number, 0] = ("tp:0", reduces, reduces * step["tokens"] * width * 4)
        wanted[rank, number, 1] = ("tp:0", 1, step["requests"] * vocabulary // 2 * 4)
    for row in results.native(ran.session, "collective_step"):
        step = steps[row["rank"], row["step"]]
        assert not row["flags"]
        assert step["start_ns"] <= row["start_ns"]
        assert row["start_ns"] + row["dur_ns"] <= step["start_ns"] + step["total_ns"]
        found[row["rank"], row["step"], row["operation"]] = (row["group"], row["calls"], row["bytes"])
    assert found == wanted


def test_the_files_of_collectives_are_of_one_rank_each(ran):
    for rank, folder in enumerate((ran.session, ran.session / "engine_0" / "rank_1")):
        facts = [row for row in results.native(ran.session, "collective_step") if row["rank"] == rank]
        rows = results.read_csv(folder / "collective_timing.csv")
        assert {(row["group"], row["operation"], row["captured"]) for row in rows} == {
            ("tp", "all_reduce", "False"),
            ("tp", "all_gather", "False"),
        }
        times = [float(row["timestamp_sec"]) for row in rows]
        assert times == sorted(times)
        assert [int(row["bytes"]) for row in rows] == [fact["bytes"] for fact in sorted(facts, key=lambda fact: fact["start_ns"])]
        summary = json.loads((folder / "collective_summary.json").read_text())
        assert summary["calls"] == sum(fact["calls"] for fact in facts)
        assert summary["bytes"] == sum(fact["bytes"] for fact in facts)
        assert list(summary["groups"]) == ["tp"] and summary["clock"] == "host"


def test_memory_is_told_by_phase_of_the_start_and_while_serving(ran):
    for folder in (ran.session, ran.session / "engine_0" / "rank_1"):
        results.assert_columns(folder, "memory_usage.csv")
        rows = results.read_csv(folder / "memory_usage.csv")
        summary = json.loads((folder / "memory_summary.json").read_text())
        assert list(summary["phases"]) == ["weights", "profile_run", "kv_cache", "warm_up"]
        assert summary["source"] == "process" and summary["samples"] == len(rows) >= 5
        assert {row["device"] for row in rows} == {"cpu"}
        assert all(int(row["allocated_bytes"]) > 0 for row in rows)
