"""The front end's operations and custom hooks on a real server: against vLLM's own counters.

One server for both, with some profilers switched off besides: their files and hooks must then be absent.
"""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import pytest
import results
import serving
from patience import until

SCHEDULE = "vllm.v1.core.sched.scheduler:Scheduler.schedule"
ADD_REQUEST = "vllm.v1.engine.async_llm:AsyncLLM.add_request"  # a coroutine
FORWARD = "vllm.model_executor.models.llama:LlamaForCausalLM.forward"  # compiled on other devices: refused
NOTHING = "vllm.v1.engine.core:EngineCore.no_such_method"
OFF = {
    "kv_cache": ("KV_CACHE_TRACKING", ["kv_cache_usage.csv", "kv_cache_evictions.csv", "kv_cache_summary.txt"]),
    "batch_utilization": (
        "BATCH_UTILIZATION_TRACKING",
        ["batch_utilization.csv", "batch_utilization_summary.json"],
    ),
    "encoder_decoder": (
        "ENCODER_DECODER_TIMING",
        ["encoder_decoder_timing.csv", "encoder_decoder_summary.json"],
    ),
}
PROMPTS = ["The server batches requests", "A prefill reads the whole prompt at once; a decode", "Numbers 0 1 2 3"]


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(
        **serving.profiled(
            sessions,
            preset="full",
            VLLM_PROFILING_CUSTOM=f"{SCHEDULE},{ADD_REQUEST},{FORWARD},{NOTHING}",
            **{f"VLLM_PROFILING_ENABLE_{name}": "0" for name, _ in OFF.values()},
        )
    )
    with serving.Server(llama, folder / "server", environment) as server:
        server.wait_ready()
        requests = [{"prompt": prompt, "max_tokens": 5 + i} for i, prompt in enumerate(PROMPTS)]
        requests.append({"prompt": [5, 6, 7, 8], "max_tokens": 4})  # nothing to tokenize
        server.complete_all(requests, concurrency=4)
        server.complete(PROMPTS[0], 7, stream=True)
        server.post(
            "/v1/chat/completions",
            {"model": serving.MODEL_NAME, "messages": [{"role": "user", "content": "Blocks"}], "max_tokens": 3},
        )
        metrics = server.metrics()
        server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    until((session / "custom_timing.csv").exists)
    results.profilemate("export", "--quiet", session)
    rows = results.read_csv(session / "cpu_operations_timing.csv")
    return SimpleNamespace(
        session=session,
        metrics=metrics,
        errors=server.errors(),
        operations={
            name: [row for row in rows if row["operation"] == name]
            for name in ("tokenization", "detokenization", "admission")
        },
        rows=rows,
        custom=results.read_csv(session / "custom_timing.csv"),
    )


def context(row: dict[str, str]) -> dict[str, str]:
    return dict(pair.split("=") for pair in row["context"].split(";") if pair)


def test_every_text_prompt_is_tokenized_once(served):
    """Three completions, a streamed one and a chat; the prompt of token ids is not."""
    assert len(served.operations["tokenization"]) == len(PROMPTS) + 2
    tokens = sum(int(context(row)["num_tokens"]) for row in served.operations["tokenization"])
    assert tokens + 4 == served.metrics.sum("vllm:prompt_tokens_total")


def test_every_request_is_admitted_after_its_arrival(served):
    assert len(served.operations["admission"]) == served.metrics.sum("vllm:request_success_total")
    tokens = sum(int(context(row)["num_tokens"]) for row in served.operations["admission"])
    assert tokens == served.metrics.sum("vllm:prompt_tokens_total")


def test_tokenization_lies_within_the_way_to_admission(served):
    """The last request came alone: its prompt was tokenized between its arrival and add_request."""
    (tokenization, admission) = (served.operations[name][-1] for name in ("tokenization", "admission"))
    start, begin = float(admission["timestamp_sec"]), float(tokenization["timestamp_sec"])
    end = begin + float(tokenization["duration_ms"]) / 1e3
    assert start - 1e-3 <= begin  # arrival is of the wall clock, read in Python
    assert end <= start + float(admission["duration_ms"]) / 1e3 + 1e-3


def test_every_output_is_detokenized(served):
    """Without speculation each output of a request has one token."""
    outputs = sum(int(context(row)["outputs"]) for row in served.operations["detokenization"])
    assert outputs == served.metrics.sum("vllm:generation_tokens_total")
    delays = [float(context(row)["delay_ms"]) for row in served.operations["detokenization"]]
    assert all(0 < delay < 60_000 for delay in delays)


def test_rows_are_in_order_and_summed_up(served):
    times = [float(row["timestamp_sec"]) for row in served.rows]
    assert times == sorted(times)
    summary = json.loads((served.session / "cpu_timing_summary.json").read_text())
    for name, rows in served.operations.items():
        assert summary[name]["count"] == len(rows)
        durations = [float(row["duration_ms"]) for row in rows]
        assert summary[name]["max_ms"] == pytest.approx(max(durations), abs=1e-6)
        assert summary[name]["mean_ms"] == pytest.approx(sum(durations) / len(durations), abs=1e-6)


def test_custom_hooks_see_every_call(served):
    results.assert_columns(served.session, "custom_timing.csv")
    calls = {name: [row for row in served.custom if row["name"] == name] for name in (SCHEDULE, ADD_REQUEST)}
    steps = results.native(served.session, "sched_step")
    assert len(calls[SCHEDULE]) == len(steps) > 5
    assert len(calls[ADD_REQUEST]) == served.metrics.sum("vllm:request_success_total")
    assert {row["name"] for row in served.custom} == {SCHEDULE, ADD_REQUEST}


def test_the_doctor_tells_what_became_of_the_custom_hooks(served):
    done = results.profilemate("doctor", "--json", served.session, check=False)
    checks = {check["text"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert checks[f"{SCHEDULE}: called in 1 process"] == "ok"
    assert checks[f"{NOTHING}: its module was imported and has no such callable"] == "problem"
    assert any(f"the custom hook {FORWARD} was refused" in text for text in checks)
    assert f"'{FORWARD}' is refused" in served.errors


def test_what_is_switched_off_has_no_file_and_no_hook(served):
    for name, files in OFF.values():
        for file in files:
            assert not (served.session / file).exists(), file
    metadata = json.loads((served.session / "metadata.json").read_text())
    assert metadata["settings"]["kv_cache"] is False
    processes = results.profilemate("doctor", "--all", served.session, check=False).stdout
    assert "BlockPool.get_new_blocks: its probe kv_cache was off" in processes
    assert (served.session / "forward_pass_timing.csv").exists()
    assert (served.session / "preemption_events.csv").exists()


def test_no_prompt_is_recorded(served):
    for path in served.session.rglob("*"):
        if path.is_file():
            assert b"server batches" not in path.read_bytes(), path
