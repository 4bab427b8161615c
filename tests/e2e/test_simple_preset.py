"""Seed 000 as it stands: PYTHONPATH to site/simple/, `python -m vllm.entrypoints.openai.api_server`, Ctrl+C.

One server serves a mixed workload (chunked prefill, prefix hits, concurrency), and every test looks at what it left.
What vLLM counted itself, its metrics and its own line per iteration, is the truth that the rows are held against.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(
        **serving.profiled(sessions, VLLM_PROFILING_VERBOSE="1", VLLM_PROFILING_LOG_INTERVAL="50")
    )
    arguments = (
        "--enable-logging-iteration-details", "--max-num-batched-tokens", "128", "--max-num-seqs", "8",
        "--block-size", "32",
    )  # fmt: skip
    with serving.Server(llama, folder / "server", environment, arguments) as server:
        server.wait_ready()
        server.complete_all(workload(seed=5, requests=60), concurrency=12)
        metrics = server.metrics()
        # While it serves, as the seeds do: the files can be had at any time, and do not disturb what follows.
        running = results.only_session(sessions)
        early = folder / "early"
        results.profilemate("export", "--quiet", "--out", early, running)
        server.complete_all(workload(seed=6, requests=20), concurrency=4)
        metrics = server.metrics()
        processes = {kind: server.pids(kind) for kind in ("api", "engine", "worker")}
        code = server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    timing = session / "forward_pass_timing.csv"
    until(timing.exists)  # the export that the root's exit started may outlive it by a little
    return SimpleNamespace(
        code=code,
        metrics=metrics,
        processes=processes,
        sessions=sessions,
        session=session,
        early=early,
        errors=server.errors(),
        output=server.output(),
        timing=timing,
        rows=results.read_csv(timing),
    )


def test_the_server_ends_as_without_us(served):
    assert served.code == 0


def test_the_console_lines_are_the_seeds(served):
    lines = served.errors.splitlines()
    start = lines.index("[Simple Profiler] Forward pass timing enabled")
    assert lines[start + 1] == f"  Session ID: {served.session.name.removeprefix('session_')}"
    assert lines[start + 2] == f"  Output directory: {served.session}"
    assert lines.count("[Simple Profiler] Forward pass timing enabled") == 1
    assert "[Simple Profiler] ✅ Successfully patched GPUModelRunner.execute_model" in lines
    passes = [line for line in lines if line.startswith("[Forward Pass]")]
    for line in passes:
        assert re.fullmatch(r"\[Forward Pass\] (prefill|decode): \d+\.\d\dms \(batch=\d+, tokens=\d+\)", line), line
    # The first of each phase, then every 50th step.
    assert {line.split()[2] for line in passes} == {"prefill:", "decode:"}
    assert len(passes) >= len(served.rows) // 50


def test_nothing_of_ours_is_on_standard_output(served):
    # The bare word may stand in a path that vLLM prints: the test environment's own folder has it.
    ours = r"\[Simple Profiler\]|\[Forward Pass\]|\[ProfileMate\]|\[sitecustomize\]|\[Instrumentation\]|profilemate[: ]"
    assert not re.search(ours, served.output)


def test_no_variable_of_ours_is_unknown_to_vllm(served):
    assert "Unknown vLLM environment variable" not in served.output + served.errors


def test_the_files_are_the_presets(served):
    files = {path.name for path in served.session.iterdir()}
    assert {"forward_pass_timing.csv", "summary.json", "records", "session"} <= files
    csvs_and_summaries = {name for name in files if name.endswith(".csv") or "summary" in name}
    assert csvs_and_summaries == {"forward_pass_timing.csv", "summary.json"}


def test_the_files_are_private(served):
    assert stat.S_IMODE(served.session.stat().st_mode) == 0o700
    for path in served.session.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_header_is_exact_and_the_rows_wellformed(served):
    text = served.timing.read_bytes().decode()
    assert text.splitlines()[0] == results.SIMPLE_HEADER
    assert text.endswith("\n") and "\r" not in text
    results.assert_rows_are_wellformed(served.rows, "duration_ms")


def test_every_row_is_a_step_that_vllm_logged(served):
    assert len(served.rows) >= 200
    results.assert_rows_are_vllms(served.rows, served.output)


def test_the_tokens_are_those_that_vllm_counted(served):
    assert served.metrics.sum("vllm:prompt_tokens_cached_total") > 0, "the workload had no prefix hit"
    assert sum(int(row["num_tokens"]) for row in served.rows) == results.computed_tokens(served.metrics)


def test_chunked_prefill_took_place(served):
    """A prompt of 600 tokens cannot be computed in one step of 128."""
    full = [row for row in served.rows if row["phase"] == "prefill" and int(row["num_tokens"]) == 128]
    assert len(full) >= 5


def test_the_summary_is_that_of_the_rows(served):
    results.assert_summary(served.session / "summary.json", served.rows, "duration_ms", with_deviation=False)


def test_what_was_exported_while_it_served_is_the_beginning(served):
    early = results.read_csv(served.early / "forward_pass_timing.csv")
    assert len(early) > 100
    assert early == served.rows[: len(early)]


def test_exporting_again_changes_nothing(served):
    before = served.timing.read_bytes(), (served.session / "summary.json").read_bytes()
    results.profilemate("export", "--quiet", served.session)
    assert (served.timing.read_bytes(), (served.session / "summary.json").read_bytes()) == before


def test_the_pandas_lines_of_the_seed_run(served):
    import pandas

    df = pandas.read_csv(served.timing)
    prefill, decode = df[df["phase"] == "prefill"], df[df["phase"] == "decode"]
    summary = json.loads((served.session / "summary.json").read_text())
    assert len(prefill) + len(decode) == len(df)
    assert abs(prefill["duration_ms"].mean() - summary["prefill"]["mean_ms"]) < 0.002
    assert abs(decode["duration_ms"].mean() - summary["decode"]["mean_ms"]) < 0.002


def test_the_awk_lines_of_the_seed_run(served):
    awk = shutil.which("awk")
    assert awk, "awk is part of every system that vLLM runs on"
    command = [awk, "-F,", "NR>1 {sum+=$5; count++} END {print sum/count, count}", str(served.timing)]
    mean, count = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(count) == len(served.rows)
    assert abs(float(mean) - sum(float(row["duration_ms"]) for row in served.rows) / len(served.rows)) < 0.01


def test_the_report_names_what_ran(served):
    text = results.profilemate("report", "--text", served.session).stdout
    assert served.session.name in text
    assert "prefill" in text and "decode" in text


def test_the_doctor_is_content(served):
    done = results.profilemate("doctor", "--all", served.session)
    assert "Scheduler.schedule" in done.stdout


def test_processes_of_the_server_recorded_and_no_other(served):
    """One file each for the engine core and the worker; the front end's own facts come with a later probe."""
    recorded = {int(re.match(r"p(\d+)-", path.name)[1]) for path in (served.session / "records").glob("*.pmrec")}
    assert recorded >= set(served.processes["engine"] + served.processes["worker"])
    assert recorded <= {pid for pids in served.processes.values() for pid in pids}
    assert os.getpid() not in recorded
