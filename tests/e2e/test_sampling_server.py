"""Sampling on a real server: the mix of every step against the requests that were sent. Bytes and operations against vLLM's own."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until

GREEDY = {"temperature": 0}
KINDS = [
    ("greedy", GREEDY),
    ("temperature", {"temperature": 1.0}),
    ("temperature top_p", {"temperature": 0.8, "top_p": 0.9}),
    ("temperature top_k", {"temperature": 0.8, "top_k": 20}),
    ("temperature min_p seed", {"temperature": 0.8, "min_p": 0.1, "seed": 7}),
    ("greedy penalties", {**GREEDY, "presence_penalty": 0.5, "repetition_penalty": 1.2}),
    ("greedy logprobs", {**GREEDY, "logprobs": 3}),
    ("greedy prompt_logprobs", {**GREEDY, "prompt_logprobs": 2}),
    ("greedy structured_output", {**GREEDY, "structured_outputs": {"regex": "[a-z ]{40,400}"}}),
    ("temperature token_rules", {"temperature": 1.0, "logit_bias": {"17": 3.0}}),
    ("greedy token_rules", {**GREEDY, "min_tokens": 5}),
]
# One after another, each alone in its steps: with and without a setting, alike in all the rest.
ALONE = ["temperature", "temperature top_p", "greedy"] * 2


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    # Prompts whole, however many come at once: a part of one is a step of its request without a token.
    arguments = (
        "--max-num-seqs", "16", "--max-num-batched-tokens", "8192", "--enable-mfu-metrics", "--generation-config", "vllm",
    )  # fmt: skip
    with serving.Server(llama, folder / "server", environment, arguments) as server:
        server.wait_ready()
        sent = []
        for i, request in enumerate(workload(seed=12, requests=44)):
            names, params = KINDS[i % len(KINDS)]
            sent.append((names, {**request, "max_tokens": 8 + i, **params}))
        answers = server.complete_all([request for _, request in sent], concurrency=8)
        alone = [(names, server.complete([5, 6, 7], 30, **dict(KINDS)[names])) for names in ALONE]
        metrics = server.metrics()
        server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    until((session / "sampling_timing.csv").exists)
    return SimpleNamespace(
        session=session,
        sent=[(names.split(), request, answer) for (names, request), answer in zip(sent, answers)]
        + [(names.split(), {"prompt": [5, 6, 7]}, answer) for names, answer in alone],
        rows=results.read_csv(session / "sampling_timing.csv"),
        summary=json.loads((session / "sampling_summary.json").read_text()),
        metrics=metrics,
    )


def test_each_request_is_in_as_many_steps_as_it_had_tokens(served):
    assert served.summary["clock"] == "wall"
    for name, setting in served.summary["settings"].items():
        steps = sum(len(answer) for names, _, answer in served.sent if name in names)
        assert setting["request_steps"] == steps, name
    assert served.summary["settings"]["structured_output"]["request_steps"] > 0


def test_each_step_that_sampled_has_a_row(served):
    steps = [step for step in results.native(served.session, "steps") if step["tokens"]]
    assert [int(row["batch_size"]) for row in served.rows] == [step["requests"] for step in steps]
    for row, step in zip(served.rows, steps):
        whole, inside = step["sample_ns"] / 1e6, step["sampler_ns"] / 1e6
        assert inside - 0.001 <= float(row["duration_ms"]) <= whole + 0.001
    for strategy, of in served.summary["strategies"].items():
        assert of["steps"] == sum(row["strategy"] == strategy for row in served.rows)


def test_a_batch_is_what_its_requests_ask_for(served):
    """The last requests were alone; no strategy has what nobody asked for."""
    alone = [(row["strategy"], row["batch_size"]) for row in served.rows[-180:]]
    assert alone == [(names.replace(" ", "+"), "1") for names in ALONE for _ in range(30)]
    asked = {name for names, _, _ in served.sent for name in names}
    assert set("+".join(served.summary["strategies"]).split("+")) == asked


def test_the_engine_filled_a_mask_for_each_token_that_a_grammar_allowed(served):
    held = [answer for names, _, answer in served.sent if "structured_output" in names]
    assert served.summary["grammar_bitmasks"]["requests"] == sum(map(len, held))


def test_the_report_says_which_setting_costs_what(served):
    text = results.profilemate("report", "--text", served.session).stdout
    section = text[text.index("Sampling, ms (wall time)") :].split("\n\n")[0]
    assert "What a setting adds to a step" in section and all(len(line) <= 80 for line in section.splitlines())
    for name in ("temperature", "top_p"):
        setting = served.summary["settings"][name]
        assert setting["cost"] in ("told", "no difference seen") and setting["error_ms"] >= 0
        assert min(setting["matched_with"], setting["matched_without"]) >= 50
    report = json.loads(results.profilemate("report", "--json", served.session).stdout)["engines"][0]["sampling"]
    assert report == served.summary


def test_greedy_answers_are_alike(served):
    answers = [answer for names, request, answer in served.sent if request["prompt"] == [5, 6, 7] and names == ["greedy"]]
    assert answers[0] == answers[1] and len(answers[0]) == 30


# ---- bandwidth and compute, against vLLM's own estimate (--enable-mfu-metrics, vllm/v1/metrics/perf.py) ----

HIDDEN, LAYERS, HEADS, KV, HEAD, INNER, VOCABULARY, BYTES = 64, 2, 4, 2, 32, 128, 512, 4  # tiny.make_llama, float32


@pytest.fixture(scope="module")
def computed(served):
    """What ProfileMate computed of all steps, with tokens and logits of all, and pairs that a causal mask leaves out."""
    summary = json.loads((served.session / "bandwidth_compute_summary.json").read_text())
    steps = [step for step in results.native(served.session, "steps") if step["tokens"]]
    prompts = [event["tokens"] for event in results.native(served.session, "step_request") if event["tokens"] > 1]
    return SimpleNamespace(
        summary=summary,
        steps=len(steps),
        empty=sum(not step["tokens"] for step in results.native(served.session, "steps")),
        tokens=sum(step["tokens"] for step in steps),
        logits=sum(step["requests"] for step in steps),
        masked=sum(n * (n - 1) // 2 for n in prompts),
        all=lambda name: summary["prefill"][name] + summary["decode"][name],
    )


def test_every_step_is_computed(served, computed):
    assert computed.summary["steps_left_out"] == 0 and computed.summary["not_computed"] is None
    assert computed.all("steps") == computed.steps == len(results.read_csv(served.session / "bandwidth_compute.csv"))
    assert computed.all("tokens") == computed.tokens
    weights = LAYERS * (HIDDEN * (HEADS + 2 * KV) * HEAD + HEADS * HEAD * HIDDEN + 3 * HIDDEN * INNER) + HIDDEN * VOCABULARY
    assert computed.all("weight_bytes") == BYTES * weights * computed.steps


def test_operations_are_vllms_but_for_what_the_mask_leaves_out(served, computed):
    """vLLM takes each of a prompt's tokens to attend to all of them; half of these pairs are masked."""
    theirs = served.metrics.sum("vllm:estimated_flops_per_gpu_total")
    assert computed.all("operations") + 4 * HEADS * HEAD * LAYERS * computed.masked == theirs


def test_bytes_are_vllms_but_for_activations(served, computed):
    """vLLM adds what each matrix is given and gives, as if nothing stayed on the chip, and the weights of steps without tokens."""
    given = HIDDEN + 2 * HEADS * HEAD + HIDDEN + 3 * INNER  # to q k v, attention and o, the MLP's three
    gives = (HEADS + 2 * KV) * HEAD + HIDDEN + 3 * INNER + HIDDEN
    weights = computed.all("weight_bytes")
    read = weights + weights // computed.steps * computed.empty + computed.all("kv_read_bytes")
    activations = BYTES * (computed.tokens * LAYERS * given + computed.logits * HIDDEN)
    assert read + activations == served.metrics.sum("vllm:estimated_read_bytes_per_gpu_total")
    activations = BYTES * (computed.tokens * LAYERS * gives + computed.logits * VOCABULARY)
    assert computed.all("kv_written_bytes") + activations == served.metrics.sum("vllm:estimated_write_bytes_per_gpu_total")
