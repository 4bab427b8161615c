"""Torch's profiler on real vLLM: run --torch-profile deep and its window, request logs, the guide's variables by PYTHONPATH
alone. Two servers and one LLM() script."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import results
import serving

sys.path.append(str(Path(__file__).resolve().parents[1] / "cli"))
import pftrace  # noqa: E402

LAUNCH = serving.ROOT / "launch" / "start_vllm_with_profiling.sh"
FROM, TO, TOKENS, IN_ALL = 4, 9, 8, 14
TOLERANCE_NS = 1_000_000  # both clocks were read one after the other, as the process opened its file; it may have waited


def wait_for_line(server: serving.Server, pattern: str) -> re.Match:
    deadline = time.monotonic() + 180
    while not (found := re.search(pattern, server.errors())):
        assert server.popen.poll() is None and time.monotonic() < deadline, f"no {pattern!r}:\n{server.tail()}"
        time.sleep(0.02)
    return found


class Launched(serving.Server):
    """A server started by the launch script."""

    def __init__(self, model: Path, folder: Path, environment: dict[str, str], name: str = "server"):
        self.port, self.headers = serving.free_port(), {}
        self.stdout, self.stderr = folder / f"{name}.stdout", folder / f"{name}.stderr"
        command = (
            LAUNCH, model, "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", serving.MODEL_NAME,
            "--dtype", "float32", "--max-model-len", "512", "--gpu-memory-utilization", "0.2", "--enforce-eager",
        )  # fmt: skip
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.popen = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                cwd=folder,
            )  # fmt: skip
        self.session = self.popen.pid


@pytest.fixture(scope="module")
def profiled(llama, folder):
    """Requests one after another: 4, a window of 5, 5 more; then the server is killed."""
    sessions = folder / "sessions"
    environment = serving.clean_environment(
        VLLM_PROFILING_DIR=str(sessions), PROFILE_MODE="deep", PROFILE_OPTIONS=f"--requests {FROM}:{TO}"
    )
    environment["PATH"] = f"{serving.PROGRAM.parent}{os.pathsep}{environment['PATH']}"
    with Launched(llama, folder, environment) as server:
        server.wait_ready()
        asked = 0

        def ask(count: int):
            nonlocal asked
            for _ in range(count):
                server.headers["X-Request-Id"] = f"task{asked % 2}x-{asked}"
                server.complete([7 + asked] * 20, TOKENS, ignore_eos=True)
                asked += 1

        ask(FROM)
        wait_for_line(server, r"torch profiler on \(deep\)")
        ask(TO - FROM)
        wait_for_line(server, "torch profiler off")
        ask(IN_ALL - TO)
        metrics = server.metrics()
        for kind in ("engine", "api"):
            for pid in server.pids(kind):
                os.kill(pid, signal.SIGKILL)
        server.popen.wait(180)
    log = [json.loads(line) for path in (folder / "request_logs").iterdir() for line in path.read_text().splitlines()]
    traces = {path.name: path for path in (folder / "profiler_output").iterdir()}
    return SimpleNamespace(
        session=results.only_session(sessions), errors=server.errors(), output=server.output(), metrics=metrics,
        folder=folder, log=log, traces=traces,
    )  # fmt: skip


def worker_trace(profiled) -> Path:
    (path,) = (path for name, path in profiled.traces.items() if name.startswith("rank0.") and ".trace.json" in name)
    return path


def test_the_window_is_that_of_the_requests(profiled):
    assert f"torch profiler on (deep) after {FROM} requests and {FROM * TOKENS} steps" in profiled.errors
    assert f"torch profiler off after {(TO - FROM) * TOKENS} steps and {TO - FROM} requests" in profiled.errors
    events = json.loads(gzip.decompress(worker_trace(profiled).read_bytes()))["traceEvents"]
    steps = [event["name"] for event in events if re.match(r"execute_context_\d+\(\d+\)_gen", event.get("name", ""))]
    prefills = [name for name in steps if name.startswith("execute_context_1(20)")]
    decodes = [name for name in steps if name.endswith("_generation_1(1)")]
    assert len(prefills) == TO - FROM and len(decodes) == (TO - FROM) * (TOKENS - 1)
    assert "server ended while it was profiled" not in profiled.errors


def test_deep_has_shapes_stacks_and_the_front_end(profiled):
    text = gzip.decompress(worker_trace(profiled).read_bytes())
    assert b'"Input Dims"' in text and b'"python_function"' in text and b'"Bytes"' in text
    assert any("async_llm" in name for name in profiled.traces), profiled.traces.keys()


def test_deep_traces_functions_before_and_after_torchs_stacks(profiled):
    """On CPython 3.11 torch takes the profile function of every thread of a worker while it records stacks."""

    def shown(*arguments):
        return json.loads(results.profilemate("functions", "--format", "json", *arguments, profiled.session).stdout)

    def calls(process, name):
        functions = shown("--pid", process["pid"])["functions"]
        return sum(row["calls"] for row in functions if f"{row['module']}.{row['name']}" == name)

    by_role = {process["role"]: process for process in shown()["processes"]}
    worker, engine = by_role["worker"], by_role["engine"]
    steps = len(results.native(profiled.session, "sched_step"))
    events = json.loads(gzip.decompress(worker_trace(profiled).read_bytes()))["traceEvents"]
    window = sum(event.get("name", "").startswith("execute_context_") for event in events)  # steps without tokens too
    assert window >= (TO - FROM) * TOKENS
    assert calls(engine, "vllm.v1.core.sched.scheduler.Scheduler.schedule") == steps
    executed = calls(worker, "vllm.v1.worker.gpu_worker.Worker.execute_model")
    assert worker["calls_without_path"] == engine["calls_without_path"] == 0
    if worker["by"] == "sys.monitoring":
        assert (executed, worker["pauses"]) == (steps, 0)
        return
    assert worker["pauses"] == 1 and float(worker["paused_us"]) > 0 and engine["pauses"] == 0
    assert executed == steps - window, "those of the window are in torch's trace"
    assert "functions are not traced in the window" in profiled.errors
    stacks = results.profilemate("functions", "--format", "folded", "--pid", worker["pid"], profiled.session).stdout
    after = [line for line in stacks.splitlines() if "Worker.execute_model" in line]
    assert after and all(";vllm.v1.executor.multiproc_executor.WorkerProc.worker_busy_loop;" in line for line in after)


def test_profilemate_trace_reads_it(profiled):
    shown = results.profilemate("trace", "--format", "csv", worker_trace(profiled))
    header, *rows = shown.stdout.splitlines()
    assert header.startswith("name,calls,self_cpu_us,cpu_us") and len(rows) > 20
    assert "read the traces with: profilemate trace" in profiled.errors


def test_no_variable_is_unknown_to_vllm(profiled):
    assert "Unknown vLLM environment variable" not in profiled.output + profiled.errors


def test_the_request_log_is_what_vllm_counted(profiled):
    log, metrics = profiled.log, profiled.metrics
    assert len(log) == IN_ALL == metrics.sum("vllm:request_success_total")
    assert sum(line["prompt_tokens"] for line in log) == metrics.sum("vllm:prompt_tokens_total") == 20 * IN_ALL
    assert sum(line["output_tokens"] for line in log) == metrics.sum("vllm:generation_tokens_total")
    assert sum(line["preemptions"] for line in log) == metrics.sum("vllm:num_preemptions_total") == 0
    assert {line["finish_reason"] for line in log} == {"length"}
    assert metrics.sum("vllm:request_success_total", finished_reason="length") == IN_ALL
    for line in log:
        assert 0 <= line["queue_ms"] <= line["ttft_ms"] <= line["e2e_ms"]
        assert abs(line["ttft_ms"] + line["tpot_ms"] * (TOKENS - 1) - line["e2e_ms"]) < 50


def test_a_file_per_task(profiled):
    assert sorted(path.name for path in (profiled.folder / "request_logs").iterdir()) == [
        "task0x.jsonl", "task1x.jsonl",
    ]  # fmt: skip
    assert all(re.fullmatch(rf"cmpl-{line['task']}-\d+-0(-\w+)?", line["request_id"]) for line in profiled.log)
    assert f"profilemate: {IN_ALL} requests in the log request_logs" in profiled.errors


def test_the_lines_are_those_of_the_session(profiled):
    rows = {row["request_id"]: row for row in results.native(profiled.session, "requests")}
    assert set(rows) == {line["request_id"] for line in profiled.log}


def test_light_is_operators_only_and_ends_by_steps(llama, folder):
    environment = serving.clean_environment(
        VLLM_PROFILING_DIR=str(folder / "light-sessions"), PROFILE_MODE="light", PROFILE_OPTIONS="--steps 6",
        VLLM_TORCH_PROFILER_DIR=str(folder / "light_output"), REQUEST_LOG_DIR=str(folder / "light_log"),
    )  # fmt: skip
    environment["PATH"] = f"{serving.PROGRAM.parent}{os.pathsep}{environment['PATH']}"
    with Launched(llama, folder, environment, name="light") as server:
        server.wait_ready()
        wait_for_line(server, r"torch profiler on \(light\) after 0 requests and 0 steps, for at most 6 steps")
        server.complete([7] * 20, 16, ignore_eos=True)
        wait_for_line(server, "torch profiler off")
    (trace,) = (folder / "light_output").glob("*.pt.trace.json.gz")  # of the worker: none of the front end
    text = gzip.decompress(trace.read_bytes())
    steps = [e["name"] for e in json.loads(text)["traceEvents"] if e.get("name", "").startswith("execute_context_")]
    assert 6 <= len(steps) <= 8 and steps[0] == "execute_context_1(20)_generation_0(0)"
    assert b'"aten::' in text
    for heavy in (b'"python_function"', b'"Input Dims"', b'"[memory]"'):
        assert heavy not in text


SCRIPT = """
import sys

if __name__ == "__main__":
    from vllm import LLM, SamplingParams

    llm = LLM(sys.argv[1], enforce_eager=True, max_model_len=256, max_num_seqs=8, dtype="float32",
              gpu_memory_utilization=0.2, fail_on_environ_validation=True)
    llm.generate(["warm up"], SamplingParams(max_tokens=2), use_tqdm=False)
    llm.start_profile()
    llm.generate(["The server batches"] * 3, SamplingParams(max_tokens=40, ignore_eos=True), use_tqdm=False)
    llm.stop_profile()
"""


@pytest.fixture(scope="module")
def scripted(llama, folder):
    """Mode 2 of the guide, but for stacks, with values that end vLLM 0.32 where nobody takes them out of its sight."""
    script, out = folder / "script.py", folder / "guide_output"
    script.write_text(SCRIPT)
    environment = serving.clean_environment(
        **serving.profiled(folder / "script-sessions", preset="full"),
        VLLM_TORCH_PROFILER_DIR=str(out), VLLM_TORCH_PROFILER_RECORD_SHAPES="1", VLLM_TORCH_PROFILER_WITH_FLOPS="1",
        VLLM_TORCH_PROFILER_WITH_STACK="0", VLLM_PROFILER_MAX_ITERS="12",
        VLLM_TRACE_FUNCTION="json.decoder:JSONDecoder.decode",
        VLLM_NVTX_SCOPES_FOR_PROFILING="model_forward,attention,sampling",
        VLLM_CUSTOM_SCOPES_FOR_PROFILING="attention,sampling", KINETO_LOG_LEVEL="ERROR",
        NVTX_INJECTION64_PATH=str(serving.BUILD / "tests" / "nvtx_tool.so"), NVTX_TOOL_LOG=str(folder / "nvtx.log"),
    )  # fmt: skip
    done = subprocess.run(
        [serving.sys.executable, script, llama], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (trace,) = out.glob("*.pt.trace.json.gz")
    session = results.only_session(folder / "script-sessions")
    return SimpleNamespace(session=session, trace=trace, folder=folder, nvtx=(folder / "nvtx.log").read_text())


def test_the_guides_variables_by_pythonpath_alone(scripted):
    text = gzip.decompress(scripted.trace.read_bytes())
    events = json.loads(text)["traceEvents"]
    steps = [event for event in events if re.match(r"execute_context_\d+\(\d+\)_gen", event.get("name", ""))]
    assert len(steps) == 12, "VLLM_PROFILER_MAX_ITERS ends the window"
    assert b'"Input Dims"' in text and b'"python_function"' not in text
    settings = json.loads((scripted.session / "metadata.json").read_text())["settings"]
    assert settings["nvtx_scopes"] == "model_forward,attention,sampling"
    assert settings["trace_function"] == "json.decoder:JSONDecoder.decode"


def test_one_timeline(scripted):
    """vLLM's annotations of its steps lie within the session's steps, and count the same requests and tokens."""
    out = scripted.folder / "both.pftrace"
    said = results.profilemate(
        "export", "--format", "perfetto", "--with-trace", scripted.trace, "--out", out, scripted.session
    ).stderr
    assert "With " in said and "none of the session's processes wrote it" not in said
    both = pftrace.read(out)
    steps = sorted((s for s in both.slices if s.category == "step" and s.depth == 0), key=lambda s: s.begin_ns)
    marks = sorted((s for s in both.slices if s.name.startswith("execute_context_")), key=lambda s: s.begin_ns)
    assert len(marks) == 12
    assert {both.tracks[s.track][1] for s in marks} == {both.tracks[s.track][1] for s in steps}, "one process"
    first = next(i for i, step in enumerate(steps) if step.end_ns > marks[0].begin_ns)
    for step, mark in zip(steps[first:], marks, strict=False):
        numbers = [int(number) for number in re.findall(r"\d+", mark.name)]
        assert numbers[0] + numbers[2] == step.args["requests"] and numbers[1] + numbers[3] == step.args["tokens"]
        outside = max(step.begin_ns - mark.begin_ns, mark.end_ns - step.end_ns)
        assert outside < TOLERANCE_NS, f"{mark.name} reaches {outside / 1e3:.1f} µs out of its step"


LAYERS = 2


def test_scopes_are_ranges_and_spans(scripted):
    """Every step is an NVTX range with its batch, with the model in it and the layers' attention in that; sampling follows."""
    steps = [row for row in results.native(scripted.session, "worker_step") if row["tokens"] > 0]
    spans = [row["name"] for row in results.native(scripted.session, "scope_span")]
    assert spans.count("sampling") == len(steps) and spans.count("attention") == LAYERS * len(steps)
    depth, seen = 0, []
    for line in scripted.nvtx.splitlines():
        _, word, *rest = line.split(" ", 5)
        if word == "push":
            seen.append((depth, rest[-1]))
        depth += {"push": 1, "pop": -1}.get(word, 0)
    assert depth == 0
    labels = [label for level, label in seen if label.startswith("step ")]
    plural = {1: ""}
    assert labels == [
        f"step {row['step']} {('empty', 'prefill', 'decode')[row['phase']]}: "
        f"{row['requests']} request{plural.get(row['requests'], 's')}, {row['tokens']} token{plural.get(row['tokens'], 's')}"
        for row in results.native(scripted.session, "worker_step")
    ]
    assert seen.count((1, "model_forward")) == len(steps) == seen.count((0, "sampling"))
    assert seen.count((2, "attention")) == LAYERS * len(steps)
