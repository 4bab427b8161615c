"""Tensor parallelism over two ranks on the CPU: one session, both ranks complete and agreed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload


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
    results.wait_for((session / "forward_pass_timing.csv").exists)
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
