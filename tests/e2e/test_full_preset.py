"""The full preset, by PYTHONPATH to site/, through `vllm serve`, stopped by SIGTERM (which kills the engine at once).

`vllm serve` sends SIGKILL to its engine right after SIGTERM: whatever was recorded must already be on disk.
"""

from __future__ import annotations

import json
import re
import signal
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    arguments = (
        "--enable-logging-iteration-details", "--max-num-batched-tokens", "256", "--max-num-seqs", "16",
        "--num-gpu-blocks-override", "400", "--api-key", "secret-value-1",
    )  # fmt: skip
    with serving.Server(llama, folder / "server", environment, arguments, launcher="serve") as server:
        server.headers["Authorization"] = "Bearer secret-value-1"
        server.wait_ready()
        server.complete_all(workload(seed=8, requests=50), concurrency=16)
        server.complete("The server batches requests", 12, stream=True)
        metrics = server.metrics()
        code = server.stop(signal.SIGTERM)
    session = results.only_session(sessions)
    timing = session / "forward_pass_timing.csv"
    results.wait_for(timing.exists)
    return SimpleNamespace(
        code=code,
        metrics=metrics,
        session=session,
        errors=server.errors(),
        output=server.output(),
        rows=results.read_csv(timing),
    )


def test_the_server_ends_as_without_us(served):
    assert served.code == 0


def test_the_console_lines_are_the_seeds(served):
    lines = served.errors.splitlines()
    start = lines.index("[sitecustomize] vLLM Comprehensive Instrumentation Loaded")
    banner = lines[start + 1 : start + 16]
    assert f"  Session ID: {served.session.name.removeprefix('session_')}" in banner
    assert f"  Output directory: {served.session}" in banner
    assert "  Forward pass timing: True" in banner
    assert "  CUDA Events mode: True" in banner
    assert lines.count("[sitecustomize] vLLM Comprehensive Instrumentation Loaded") == 1
    patched = [line for line in lines if line.startswith("[Instrumentation] ✅ Successfully patched ")]
    assert patched and len(patched) == len(set(patched))


def test_no_variable_of_ours_is_unknown_to_vllm(served):
    assert "Unknown vLLM environment variable" not in served.output + served.errors


def test_the_header_is_exact_and_the_rows_wellformed(served):
    text = (served.session / "forward_pass_timing.csv").read_text()
    assert text.splitlines()[0] == results.FULL_HEADER
    results.assert_rows_are_wellformed(served.rows, "forward_time_ms")


def test_every_row_is_a_step_that_vllm_logged(served):
    assert len(served.rows) >= 100
    results.assert_rows_are_vllms(served.rows, served.output)


def test_the_tokens_are_those_that_vllm_counted(served):
    assert sum(int(row["num_tokens"]) for row in served.rows) == results.computed_tokens(served.metrics)


def test_the_summary_is_that_of_the_rows(served):
    path = served.session / "forward_pass_summary.json"
    results.assert_summary(path, served.rows, "forward_time_ms", with_deviation=True)


def test_metadata_says_what_ran(served):
    text = (served.session / "metadata.json").read_text()
    data = json.loads(text)
    flat = json.dumps(data)
    assert served.session.name in flat or served.session.name.removeprefix("session_") in flat
    for version in ("0.32.0", "2.13.0"):
        assert version in flat
    iso = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?([+-]\d{2}:\d{2}|Z)"
    assert re.search(iso, flat)
    assert "max_num_batched_tokens" in flat and "256" in flat


def test_secrets_of_the_command_line_are_masked(served):
    for path in served.session.rglob("*"):
        if path.is_file():
            assert b"secret-value-1" not in path.read_bytes(), path


def test_prompts_are_not_recorded(served):
    for path in served.session.rglob("*"):
        if path.is_file():
            assert b"The server batches" not in path.read_bytes(), path


def test_every_process_is_accounted_for(served):
    report = json.loads(results.profilemate("report", "--json", served.session).stdout)
    assert report
    text = results.profilemate("report", "--text", served.session).stdout
    assert served.session.name in text


def test_native_steps_agree_with_the_rows(served):
    steps = [step for step in results.native(served.session, "steps") if step["tokens"]]
    assert [(s["requests"], s["tokens"]) for s in steps] == [
        (int(row["batch_size"]), int(row["num_tokens"])) for row in served.rows
    ]


def test_the_doctor_finds_the_hooks_that_fired(served):
    done = results.profilemate("doctor", "--all", served.session)
    assert "Scheduler.schedule" in done.stdout and "Worker.execute_model" in done.stdout


def test_without_graphs_the_graph_files_have_their_headers_only(served):
    files = {
        name: (served.session / f"cuda_graph_{name}.csv").read_text() for name in ("captures", "usage", "timeline")
    }
    assert files == {
        "captures": "runtime_mode,num_tokens,num_reqs,uniform,has_lora,capture_time_sec\n",
        "usage": "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\n",
        "timeline": "timestamp_sec,descriptor,duration_ms\n",
    }
    assert results.native(served.session, "graph_pass") == []
    doctor = results.profilemate("doctor", "--all", served.session).stdout
    quiet = next(line for line in doctor.splitlines() if "torch.cuda.graphs:CUDAGraph.replay" in line)
    assert "in place, never called; normal where no CUDA graph is replayed: on a CPU" in quiet
