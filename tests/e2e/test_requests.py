"""Requests of real servers: every time and count against vLLM's own, under preemptions, priorities, drafts and aborts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import time
from socket import SHUT_WR
from types import SimpleNamespace

import driving
import pytest
import results
import serving
from conftest import workload
from harness import Truth
from patience import until

SPECULATION = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
HUNG_UP = 4


def total(metrics: serving.Metrics, name: str, **labels: str) -> float:
    """The sum of a sample over engines; 0 where vLLM has not made it yet."""
    return sum(
        value
        for sample, has, value in metrics.samples
        if sample == name and all(has.get(key) == wanted for key, wanted in labels.items())
    )


def requests_that_crowd() -> list[dict]:
    """More than fit into the cache at a time; prompts that repeat themselves, so that n-grams are found."""
    made = workload(seed=31, requests=40, shared=64)
    for i, request in enumerate(made):
        prompt = request["prompt"][:150]
        request |= {"prompt": (prompt * 3)[: max(30, len(prompt))], "max_tokens": 40 + 3 * i, "priority": i % 3}
    return made


def hang_up(server: serving.Server, prompt: list[int]) -> None:
    """A client that goes away in the middle of a streamed answer. The engine core runs for moments only, with time in
    between for the server to pass on what there is and to notice that nobody listens: else it may be through before."""
    (engine,) = server.pids("engine")
    body = {"model": serving.MODEL_NAME, "prompt": prompt, "max_tokens": 800, "stream": True, "ignore_eos": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
    connection.connect()
    got, deadline = b"", time.monotonic() + 180
    os.kill(engine, signal.SIGSTOP)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        while got.count(b"data:") < 5:
            assert time.monotonic() < deadline, got
            if select.select([connection.sock], [], [], 0.5)[0]:
                got += connection.sock.recv(65536)
                continue
            os.kill(engine, signal.SIGCONT)
            time.sleep(0.01)
            os.kill(engine, signal.SIGSTOP)
        connection.sock.shutdown(SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.sock.recv(65536):
                pass
        time.sleep(0.5)
    finally:
        connection.close()
        os.kill(engine, signal.SIGCONT)


@pytest.fixture(scope="module")
def crowded(llama, folder):
    sessions = folder / "crowded"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    arguments = (
        "--num-gpu-blocks-override", "40", "--block-size", "32", "--max-num-batched-tokens", "128", "--max-num-seqs",
        "12", "--scheduling-policy", "priority", "--speculative-config", json.dumps(SPECULATION),
    )  # fmt: skip
    with serving.Server(llama, folder / "crowded-server", environment, arguments) as server:
        server.wait_ready()
        server.complete_all(requests_that_crowd(), concurrency=24)
        metrics = server.metrics()
        for i in range(HUNG_UP):
            hang_up(server, [5 + i] * 20)
        until(lambda: total(server.metrics(), "vllm:num_requests_running") == 0)
        after = server.metrics()
        server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    until((session / "request_lifecycle.csv").exists)
    rows = sorted(results.native(session, "requests"), key=lambda row: row["queued_sec"])
    return SimpleNamespace(
        session=session,
        metrics=metrics,
        after=after,
        steps={step["step"]: step for step in results.native(session, "steps")},
        rows=rows[:-HUNG_UP],
        hung_up=rows[-HUNG_UP:],
        report=json.loads(results.profilemate("report", "--json", session).stdout)["engines"][0],
    )


def test_the_crowd_was_one(crowded):
    """Guards the other tests."""
    assert total(crowded.metrics, "vllm:num_preemptions_total") > 0
    assert total(crowded.metrics, "vllm:spec_decode_num_accepted_tokens_total") > 0
    assert total(crowded.metrics, "vllm:prompt_tokens_cached_total") > 0
    assert any(step["prefill_tokens"] and step["decode_tokens"] for step in crowded.steps.values())


def test_counts_are_those_of_metrics(crowded):
    def ours(name: str) -> int:
        return sum(row[name] for row in crowded.rows)

    metrics = crowded.metrics
    assert len(crowded.rows) == 40
    assert ours("prompt_tokens") == total(metrics, "vllm:prompt_tokens_total")
    assert ours("output_tokens") == total(metrics, "vllm:generation_tokens_total")
    assert ours("cached_tokens") == total(metrics, "vllm:prompt_tokens_cached_total")
    assert ours("preemptions") == total(metrics, "vllm:num_preemptions_total")
    for reason in ("stop", "length", "error"):
        assert sum(row["reason"] == reason for row in crowded.rows) == total(
            metrics, "vllm:request_success_total", finished_reason=reason
        )


def test_drafts_are_those_of_metrics(crowded):
    for ours, vllms in (
        ("drafted", "vllm:spec_decode_num_draft_tokens_total"),
        ("accepted", "vllm:spec_decode_num_accepted_tokens_total"),
    ):
        assert sum(step[ours] or 0 for step in crowded.steps.values()) == total(crowded.after, vllms)


def test_output_tokens_of_the_steps_are_those_of_the_requests(crowded):
    steps = sum(step["output_tokens"] or 0 for step in crowded.steps.values())
    assert steps == sum(row["output_tokens"] for row in crowded.rows + crowded.hung_up)


def test_times_are_those_of_metrics(crowded):
    """vLLM stamps `scheduled` as schedule() begins, we as it returns; it stamps outputs inside update_from_output, we
    as that returns. So the sums differ by no more than these calls took, for each request once or twice."""
    rows, metrics = crowded.rows, crowded.metrics
    schedule = max(step["schedule_ns"] for step in crowded.steps.values()) / 1e9
    update = max(step["update_ns"] or 0 for step in crowded.steps.values()) / 1e9
    margin = len(rows) * (schedule + 2 * update)

    def apart(ours_ns: float, name: str) -> float:
        return abs(ours_ns / 1e9 - total(metrics, f"vllm:{name}_seconds_sum"))

    assert apart(sum(row["queue_ns"] for row in rows), "request_queue_time") <= margin
    prefill = sum((row["first_token_sec"] - row["started_sec"]) * 1e9 for row in rows)
    assert apart(prefill, "request_prefill_time") <= margin
    decode = sum((row["last_token_sec"] - row["first_token_sec"]) * 1e9 for row in rows)
    assert apart(decode, "request_decode_time") <= margin
    assert apart(sum(row["tpot_ns"] for row in rows), "request_time_per_output_token") <= margin
    # The front end's own times hold ours, and what it does before and after.
    for ours, name in (("ttft_ns", "time_to_first_token"), ("e2e_ns", "e2e_request_latency")):
        seconds = sum(row[ours] for row in rows) / 1e9
        assert 0 < seconds <= total(metrics, f"vllm:{name}_seconds_sum")


def test_every_time_between_two_outputs_is_counted(crowded):
    """As many times as vLLM counts, and their sum is last output minus first, over all requests."""
    itl = crowded.report["requests"]["itl"]
    later = sum(row["outputs"] - 1 for row in crowded.hung_up if row["outputs"])
    assert itl["count"] - later == total(crowded.metrics, "vllm:inter_token_latency_seconds_count")
    span = sum((row["last_token_sec"] - row["first_token_sec"]) * 1e3 for row in crowded.rows + crowded.hung_up)
    assert abs(itl["count"] * itl["mean_ms"] - span) <= 0.001 * itl["count"] + 0.01


def test_clients_that_hang_up_are_aborts(crowded):
    """vLLM may be through with an answer before it notices that nobody listens."""
    assert len(crowded.rows) == 40
    aborted = [row for row in crowded.hung_up if row["reason"] == "abort"]
    assert aborted and {row["reason"] for row in crowded.hung_up} <= {"abort", "length"}
    for row in aborted:
        assert row["state"] == "finished" and 0 < row["output_tokens"] < 800
        assert row["first_token_sec"] < row["last_token_sec"] <= row["finished_sec"]


def test_preemption_files_tell_the_same(crowded):
    events = results.read_csv(crowded.session / "preemption_events.csv")
    preempted = [event for event in events if event["event"] == "preempted"]
    assert len(preempted) == total(crowded.after, "vllm:num_preemptions_total")
    assert {event["reason"] for event in preempted} == {"kv_cache_exhausted"}
    lost = sum(int(dict(pair.split("=") for pair in event["extra_info"].split(";"))["tokens_lost"])
               for event in preempted)  # fmt: skip
    assert lost == sum(row["lost_tokens"] for row in crowded.rows + crowded.hung_up)
    assert [e["event"] for e in events].count("resumed") == sum(
        event["event"] == "preempted" for event in events
    ) - sum(row["last_preempted_sec"] > (row["last_resumed_sec"] or 0) for row in crowded.hung_up if row["preemptions"])


def test_utilization_is_of_vllms_limits(crowded):
    rows = results.read_csv(crowded.session / "batch_utilization.csv")
    assert {(row["max_num_seqs"], row["max_tokens"]) for row in rows} == {("12", "128")}
    assert len(rows) == sum(step["tokens"] > 0 for step in crowded.steps.values())
    assert any(int(row["waiting_queue_len"]) > 0 for row in rows)
    for row in rows:
        assert abs(float(row["token_utilization_pct"]) - 100 * int(row["num_tokens"]) / 128) <= 0.005 + 1e-9


def test_operations_of_the_host_hold_together(crowded):
    rows = results.read_csv(crowded.session / "cpu_operations_timing.csv")
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["operation"], []).append(row)
    assert {
        "scheduling", "batch_prep", "model_execution", "sampling", "bookkeeping", "drafting", "output_processing",
    } <= set(by_name)  # fmt: skip
    times = [float(row["timestamp_sec"]) for row in rows]
    assert times == sorted(times)
    for row in rows:
        step = row["context"].split(";")[0]
        assert not step.startswith("step=") or int(step[5:]) in crowded.steps
    for step in crowded.steps.values():  # the parts of sample_tokens are parts of it
        if step["sample_ns"]:
            assert (step["sampler_ns"] or 0) + (step["bookkeep_ns"] or 0) + (step["draft_ns"] or 0) <= step["sample_ns"]


# The newer model runner, and each setting alone


@pytest.fixture(scope="module")
def newer(llama, folder):
    sessions = folder / "newer"
    environment = serving.newer_runner(
        serving.clean_environment(
            **serving.profiled(sessions, preset="full", VLLM_PROFILING_ENABLE_BATCH_UTILIZATION_TRACKING="0")
        )
    )
    options = {"enforce_eager": True, "max_num_batched_tokens": 256, "num_gpu_blocks_override": 34, "block_size": 32}
    batch = [{"prompt": [7 + i] * 60, "max_tokens": 12 + i % 8} for i in range(16)]
    spec = {"model": str(llama), "options": options, "batches": [batch]}
    result, _ = serving.run_llm(spec, environment)
    assert "Using V2 Model Runner" in result["log"]
    session = results.only_session(sessions)
    until((session / "request_lifecycle.csv").exists)
    return SimpleNamespace(session=session, metrics=result["metrics"], rows=results.native(session, "requests"))


def test_the_newer_runner_gives_the_same(newer):
    def ours(name: str) -> int:
        return sum(row[name] for row in newer.rows)

    assert len(newer.rows) == newer.metrics["vllm:request_success"] == 16
    assert ours("prompt_tokens") == newer.metrics["vllm:prompt_tokens"]
    assert ours("output_tokens") == ours("outputs") == newer.metrics["vllm:generation_tokens"]
    assert ours("cached_tokens") == newer.metrics["vllm:prompt_tokens_cached"]
    assert ours("preemptions") == newer.metrics["vllm:num_preemptions"] > 0
    operations = {row["operation"] for row in results.read_csv(newer.session / "cpu_operations_timing.csv")}
    assert {"scheduling", "batch_prep", "model_execution", "sampling", "bookkeeping", "output_processing"} <= operations


def test_a_profiler_that_is_off_has_no_files(newer):
    names = {path.name for path in newer.session.iterdir()}
    assert not any(name.startswith("batch_utilization") for name in names)
    assert {"cpu_operations_timing.csv", "cpu_timing_summary.json", "preemption_events.csv"} <= names


# Two engines, each with its own scheduler


@pytest.fixture(scope="module")
def twins(llama, folder):
    sessions = folder / "twins"
    environment = serving.clean_environment(
        **serving.profiled(sessions, preset="full"), VLLM_CPU_OMP_THREADS_BIND="0|1"
    )
    arguments = ("--data-parallel-size", "2", "--max-num-batched-tokens", "128", "--num-gpu-blocks-override", "400")
    with serving.Server(llama, folder / "twins-server", environment, arguments) as server:
        server.wait_ready()
        server.complete_all(workload(seed=5, requests=24), concurrency=8)
        metrics = server.metrics()
        server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    until((session / "request_lifecycle.csv").exists)
    return SimpleNamespace(session=session, metrics=metrics, rows=results.native(session, "requests"))


def test_each_engine_has_its_own_requests(twins):
    assert {row["engine"] for row in twins.rows} == {0, 1}
    for engine in (0, 1):
        rows = [row for row in twins.rows if row["engine"] == engine]
        for ours, vllms in (
            ("prompt_tokens", "vllm:prompt_tokens_total"),
            ("output_tokens", "vllm:generation_tokens_total"),
            ("cached_tokens", "vllm:prompt_tokens_cached_total"),
        ):
            assert sum(row[ours] for row in rows) == total(twins.metrics, vllms, engine=str(engine))
        folder = twins.session / (f"engine_{engine}/rank_0" if engine else "")
        assert len(results.read_csv(folder / "request_lifecycle.csv")) == len(rows)
        assert results.read_csv(folder / "batch_utilization.csv")


# Killed in the middle


def test_a_killed_engine_tells_what_happened_and_nothing_else(folder):
    server = driving.ForkServer(driving.environment(folder / "killed"))
    try:
        truth = folder / "killed-truth"
        pid = server.spawn(["--requests", "0", "--num-blocks", "40", "--async-scheduling", "--max-rows", "200000",
                            "--truth", str(truth)])  # fmt: skip
        until(lambda: driving.finished_steps(truth) > 1500, every=0.01)
        time.sleep(0.002)
        server.kill(pid)
    finally:
        server.close()
    counts, counted = Truth.read(truth)
    session = results.only_session(folder / "killed")
    results.profilemate("export", "--quiet", session)
    events = results.read_csv(session / "preemption_events.csv")

    def told(kind: str) -> int:
        return sum(event["event"] == kind for event in events)

    # The hook has run when the harness counts a step, so the newest step may be one more than it counted.
    most = max(sum(row[kind] for kind in ("started", "resumed", "preempted")) for row in counted) + 16
    for kind in ("started", "resumed", "preempted"):
        sure = sum(row[kind] for row in counted)
        assert sure <= told(kind) <= sure + most, kind
    lifecycle = results.read_csv(session / "request_lifecycle.csv")
    over = [row for row in lifecycle if row["finished_sec"]]
    running = [row for row in lifecycle if row["started_sec"] and not row["finished_sec"]]
    assert told("finished") == len(over) and 0 < len(running) <= 16
    assert told("started") == len([row for row in lifecycle if row["started_sec"]])
    for row in running:
        assert row["total_time_sec"] == ""
    # Those that were running have the outputs that the steps gave them: one in each from the first on.
    rows = {row["request_id"]: row for row in results.native(session, "requests")}
    for row in running:
        known = rows[row["request_id"]]
        assert known["state"] in ("running", "preempted") and known["reason"] is None
        assert known["output_tokens"] == known["outputs"] or known["outputs"] is None
    assert counts["finished"] > 1500


def test_what_is_off_is_not_hooked(folder):
    """Without times of the host, requests and drafts nothing is recorded of what comes out of a step."""
    off = {
        "VLLM_PROFILING_ENABLE_PREEMPTION_TRACKING": "0",
        "VLLM_PROFILING_ENABLE_CPU_TIMING": "0",
        "VLLM_PROFILING_ENABLE_SPEC_DECODE_TRACKING": "0",
    }
    server = driving.ForkServer(driving.environment(folder / "off", **off))
    try:
        run, _ = server.run(folder / "off-run", ["--requests", "20"])
    finally:
        server.close()
    session = results.only_session(folder / "off")
    results.profilemate("export", "--quiet", session)
    assert not results.native(session, "update_step")
    assert not results.native(session, "requests")
    assert len(results.native(session, "sched_step")) == len(run.rows)
    names = {path.name for path in session.iterdir()}
    assert {"batch_utilization.csv", "forward_pass_timing.csv"} <= names
    assert not {name for name in names if name.startswith(("cpu_", "preemption_", "request_"))}


def test_a_long_run_with_little_room(folder):
    """Where older detail had to go: totals stay exact, and requests that began before it are told right."""
    server = driving.ForkServer(driving.environment(folder / "long", VLLM_PROFILING_MAX_MB="8"))
    try:
        truth = folder / "long-truth"
        pid = server.spawn(["--requests", "0", "--num-blocks", "60", "--output", "200:400", "--prompt", "8:60",
                            "--max-rows", "400000", "--truth", str(truth)])  # fmt: skip
        until(lambda: driving.finished_steps(truth) > 15000, every=0.02)
        server.kill(pid)
    finally:
        server.close()
    _, counted = Truth.read(truth)
    session = results.only_session(folder / "long")
    results.profilemate("export", "--quiet", session)
    rows = results.native(session, "requests")
    assert min(int(row["request_id"].removeprefix("req-")) for row in rows) > 0, "nothing had to go"

    summary = json.loads((session / "preemption_summary.json").read_text())
    newest = sum(counted[-1][kind] for kind in ("started", "preempted")) + 16
    preempted, started = (sum(row[kind] for row in counted) for kind in ("preempted", "started"))
    waiting = sum(row["state"] == "waiting" for row in rows)
    assert preempted <= summary["total_preemptions"] <= preempted + newest
    assert started <= summary["total_requests"] - waiting <= started + newest

    full = json.loads((session / "batch_utilization_summary.json").read_text())
    steps = [row for row in counted if row["tokens"]]
    assert full["percentiles"] == "histogram" and 0 <= full["total_samples"] - len(steps) <= 1
    mean = 100 * sum(row["requests"] for row in steps) / len(steps) / 16
    assert abs(full["mean_seq_utilization_pct"] - mean) <= 0.02

    running = [row for row in rows if row["state"] in ("running", "preempted")]
    assert running
    for row in running:
        assert row["queued_sec"] <= row["started_sec"] <= row["first_token_sec"] <= row["last_token_sec"]
        assert row["outputs"] is None or 0 < row["outputs"] <= 400
