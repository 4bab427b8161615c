"""LLM() scripts: the same tokens with the profiler as without, no warning more, and the truth on both model runners.

Each variant runs twice in processes of its own, without and with the profiler.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until

VARIANTS = {
    # name: (options of LLM(), environment, newer runner, requests)
    "processes": ({"enforce_eager": True}, {}, False, 40),
    "eager": ({"enforce_eager": True}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, False, 40),
    "compiled": ({}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, False, 40),
    "newer-runner": ({"enforce_eager": True}, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, True, 40),
}
LIMITS = {"max_num_batched_tokens": 128, "max_num_seqs": 8, "enable_logging_iteration_details": True, "seed": 7}


def run(llama, sessions, variant: str, profile: bool):
    options, extra, newer, requests = VARIANTS[variant]
    # A cache of compiled models of its own: vLLM warns when it finds one there that it cannot load.
    cache = sessions.with_name(f"cache-{variant}-{'with' if profile else 'without'}")
    environment = serving.clean_environment(**extra, VLLM_CACHE_ROOT=str(cache))
    if profile:
        environment.update(serving.profiled(sessions))
    if newer:
        environment = serving.newer_runner(environment)
    # Two calls of generate(), so that the second finds prefixes of the first in the cache.
    batches = [workload(seed=11, requests=requests), workload(seed=11, requests=12)]
    spec = {"model": str(llama), "options": {**LIMITS, **options}, "batches": batches}
    result, errors = serving.run_llm(spec, environment)
    return SimpleNamespace(tokens=result["tokens"], metrics=result["metrics"], log=result["log"], errors=errors)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, llama, folder):
    sessions = folder / f"sessions-{request.param}"
    without = run(llama, sessions, request.param, profile=False)
    assert not sessions.exists()
    profiled = run(llama, sessions, request.param, profile=True)
    session = results.only_session(sessions)
    timing = session / "forward_pass_timing.csv"
    until(timing.exists)
    return SimpleNamespace(
        name=request.param, without=without, profiled=profiled, session=session, rows=results.read_csv(timing)
    )


def test_the_variant_ran_what_it_says(pair):
    """Guards the other tests: a variant that silently fell back to another runner would prove nothing."""
    log = pair.profiled.log + pair.profiled.errors
    assert ("Using V2 Model Runner" in log) == (pair.name == "newer-runner")
    eager = "enforce_eager=True" in log
    assert eager == (pair.name != "compiled")


def test_generated_tokens_are_the_same(pair):
    assert pair.profiled.tokens == pair.without.tokens
    assert len({tuple(tokens) for batch in pair.without.tokens for tokens in batch}) > 10, (
        "the model says one thing only"
    )


def test_no_warning_is_new(pair):
    before = results.warnings_in(pair.without.log + pair.without.errors)
    after = results.warnings_in(pair.profiled.log + pair.profiled.errors)
    assert sorted(after - before) == []


def test_every_row_is_a_step_that_vllm_logged(pair):
    assert len(pair.rows) >= 200
    results.assert_rows_are_vllms(pair.rows, pair.profiled.log)


def test_the_tokens_are_those_that_vllm_counted(pair):
    assert pair.profiled.metrics["vllm:prompt_tokens_cached"] > 0, "the workload had no prefix hit"
    assert sum(int(row["num_tokens"]) for row in pair.rows) == results.computed_tokens(pair.profiled.metrics)


def test_rows_are_in_order_and_wellformed(pair):
    results.assert_rows_are_wellformed(pair.rows, "duration_ms")
