"""Every step of vLLM's real scheduler, as recorded, against what the harness counted itself."""

from __future__ import annotations

from types import SimpleNamespace

import driving
import pytest
import results
import serving

CASES = {
    "chunked": [],
    "whole-prompts": ["--no-chunked-prefill", "--max-num-batched-tokens", "1024"],
    "prefix-hits": ["--shared-prefix", "100", "--requests", "120"],
    "no-prefix-caching": ["--no-prefix-caching", "--shared-prefix", "100"],
    "preemptions": ["--num-blocks", "40", "--requests", "150"],
    "preemptions-uncached": ["--num-blocks", "40", "--requests", "150", "--no-prefix-caching"],
    "async": ["--async-scheduling", "--requests", "120"],
    "async-preemptions": ["--async-scheduling", "--num-blocks", "40", "--requests", "150"],
    "newer-chunked": ["--shared-prefix", "100"],
    "newer-preemptions": ["--num-blocks", "40", "--requests", "150"],
    "newer-async-preemptions": ["--async-scheduling", "--num-blocks", "40", "--requests", "150"],
    "wide": ["--max-num-seqs", "256", "--concurrency", "256", "--requests", "400", "--max-num-batched-tokens", "2048",
             "--num-blocks", "8000"],
}  # fmt: skip
# What a step is made of, under the names of the native table.
COMPOSITION = (
    "requests", "tokens", "prefill_requests", "prefill_tokens", "recompute_requests", "recompute_tokens",
    "decode_requests", "decode_tokens", "running", "waiting",
)  # fmt: skip


# Two requests, 10 and 5 prompt tokens, 3 outputs each, at most 8 tokens a step, worked out by hand:
#   step 0: 8 tokens of the first's prompt                                            prefill, 1 request, 8 tokens
#   step 1: its other 2, and the second's 5; both get their first output              prefill, 2 requests, 7 tokens
#   step 2: each computes its first output and gets its second                        decode, 2 requests, 2 tokens
#   step 3: each computes its second output and gets its third and last               decode, 2 requests, 2 tokens
BY_HAND = [
    "--requests",
    "2",
    "--prompts",
    "10,5",
    "--output",
    "3",
    "--max-num-batched-tokens",
    "8",
    "--max-num-seqs",
    "4",
]
BY_HAND_ROWS = [("prefill", 1, 8), ("prefill", 2, 7), ("decode", 2, 2), ("decode", 2, 2)]


@pytest.fixture(scope="module")
def driven(folder):
    """All cases, each in a child of a fork server (one per model runner): engines of one session."""
    found = {}
    for runner in ("older", "newer"):
        sessions = folder / f"sessions-{runner}"
        environment = driving.environment(sessions)
        server = driving.ForkServer(serving.newer_runner(environment) if runner == "newer" else environment)
        runs, pids = {}, {}
        try:
            for name, arguments in [*CASES.items(), ("by-hand", BY_HAND)]:
                if name.startswith("newer-") == (runner == "newer"):
                    runs[name], pids[name] = server.run(folder / name, arguments)
        finally:
            server.close()
        session = results.only_session(sessions)
        results.profilemate("export", "--quiet", session)
        engines = {row["pid"]: row["engine"] for row in results.native(session, "sched_step")}
        steps: dict[int, list[dict]] = {}
        for row in results.native(session, "steps"):
            steps.setdefault(row["engine"], []).append(row)
        for name, run in runs.items():
            engine = engines[pids[name]]
            found[name] = SimpleNamespace(run=run, steps=steps[engine], rows=rows_of(session, engine))
    return found


def rows_of(session, engine: int) -> list[dict[str, str]]:
    folder = session / f"engine_{engine}" / "rank_0" if engine else session
    return results.read_csv(folder / "forward_pass_timing.csv")


@pytest.fixture(params=CASES)
def case(request, driven):
    return SimpleNamespace(name=request.param, **vars(driven[request.param]))


def test_the_case_is_what_it_is_called(case):
    """Guards the other tests, and checks that the harness's own account adds up."""
    total = {key: sum(row[key] for row in case.run.rows) for key in case.run.rows[0]}
    assert len(case.run.rows) >= 50
    newer = case.name.startswith("newer-")
    assert case.run.summary["runner"] == f"vllm.v1.worker.{'gpu.model_runner' if newer else 'gpu_model_runner'}"
    assert (total["preempted"] > 0) == ("preemptions" in case.name)
    assert total["recompute_tokens"] > 0 or "preemptions" not in case.name
    assert total["prefix_hit_tokens"] > 0 or case.name != "prefix-hits"
    if not total["resumed"]:
        requests = case.run.summary["requests"].values()
        wanted = sum(request["prompt_tokens"] + request["output_tokens"] - 1 for request in requests)
        assert total["tokens"] == wanted - total["prefix_hit_tokens"]


def test_steps_are_the_harnesss_one_by_one(case):
    assert [step["step"] for step in case.steps] == list(range(len(case.run.rows)))
    for got, counted in zip(case.steps, case.run.rows, strict=True):
        assert {key: got[key] for key in COMPOSITION} == {key: counted[key] for key in COMPOSITION}, counted["step"]


def test_phases_follow_the_composition(case):
    for got, counted in zip(case.steps, case.run.rows, strict=True):
        prefill = counted["prefill_requests"] or counted["recompute_requests"]
        assert got["phase"] == ("prefill" if prefill else "decode" if counted["tokens"] else "empty"), counted


def test_both_halves_of_every_step_were_found(case):
    assert all(step["has_scheduler"] and step["has_worker"] and step["matched"] for step in case.steps)


def test_rows_are_the_steps_with_tokens(case):
    assert [(int(row["batch_size"]), int(row["num_tokens"])) for row in case.rows] == [
        (row["requests"], row["tokens"]) for row in case.run.rows if row["tokens"]
    ]


def test_a_case_worked_out_by_hand(driven):
    by_hand = driven["by-hand"]
    assert [(row["requests"], row["tokens"]) for row in by_hand.run.rows if row["tokens"]] == [
        row[1:] for row in BY_HAND_ROWS
    ]
    assert [(row["phase"], int(row["batch_size"]), int(row["num_tokens"])) for row in by_hand.rows] == BY_HAND_ROWS
