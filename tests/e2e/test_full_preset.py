"""The full preset, by PYTHONPATH to site/, through `vllm serve`, stopped by SIGTERM (which kills the engine at once).

`vllm serve` sends SIGKILL to its engine right after SIGTERM: whatever was recorded must already be on disk.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until

# What a client sent, and the server's key: neither may be found anywhere afterwards.
CANARY = "Kassandra prophesied xylophones"
CANARY_IDS = [(37 * i) % 461 + 11 for i in range(40)]
SECRET = "secret-value-1"


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    arguments = (
        "--enable-logging-iteration-details", "--max-num-batched-tokens", "256", "--max-num-seqs", "16",
        "--num-gpu-blocks-override", "110", "--api-key", SECRET,
    )  # fmt: skip
    with serving.Server(llama, folder / "server", environment, arguments, launcher="serve") as server:
        server.headers["Authorization"] = f"Bearer {SECRET}"
        server.wait_ready()
        server.complete_all(workload(seed=8, requests=50), concurrency=16)
        server.complete(CANARY, 12, stream=True)
        answers = [server.complete(CANARY, 24), server.complete(CANARY_IDS, 24)]
        # Prompts of four blocks, all different, more than the cache has room for: old blocks are evicted.
        server.complete_all([{"prompt": [5 + i] * 500, "max_tokens": 2} for i in range(30)], concurrency=4)
        metrics = server.metrics()
        code = server.stop(signal.SIGTERM)
    session = results.only_session(sessions)
    timing = session / "forward_pass_timing.csv"
    until(timing.exists)
    return SimpleNamespace(
        code=code,
        answers=answers,
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
    assert "  CUDA Events mode: False (CPU: wall clock)" in banner
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


SUMMARIES = {  # what each summary must hold; a set: of each entry
    "cpu_timing_summary.json": {"count", "mean_ms", "std_ms", "min_ms", "max_ms", "p95_ms"},
    "batch_utilization_summary.json": [
        "total_samples", "mean_seq_utilization_pct", "mean_token_utilization_pct", "underutilization_events",
        "prefill_avg_utilization", "decode_avg_utilization", "max_num_seqs", "max_tokens",
    ],
    "preemption_summary.json": [
        "total_preemptions", "total_requests", "preemption_reasons", "mean_running_time_before_preempt",
        "mean_resume_delay", "max_resume_delay",
    ],
    "encoder_decoder_summary.json": [
        "model_type", "encoder", "decoder", "cross_attention", "encoder_pct", "decoder_pct", "cross_attention_pct",
    ],
    "wasted_work.json": [
        "passes", "computed_tokens", "forward_time_ms", "forward_clock", "causes", "total", "drafts",
    ],
    "moe_summary.json": ["moe_layers", "observable", "total_selections", "layers"],
    "kv_transfer_summary.json": ["clock", "token_bytes", "connectors"],
    "collective_summary.json": ["clock", "calls", "bytes", "total_ms", "captured_calls", "captured_bytes", "groups"],
    "bandwidth_compute_summary.json": ["forward_clock", "prefill", "decode", "steps_left_out", "not_computed", "peak"],
    "sampling_summary.json": [
        "steps", "clock", "total_ms", "mean_ms", "share_of_step_pct", "strategies", "settings", "grammar_bitmasks",
    ],
    "memory_summary.json": [
        "samples", "source", "allocated_bytes", "reserved_bytes", "peak_allocated_bytes", "fragmentation_pct", "phases",
    ],
}  # fmt: skip
OTHERS = ("moe_", "cuda_graph_", "encoder_decoder", "spec_decode", "collective", "kv_transfer")  # what one rank of this model has not
EMPTY = {name for name in results.FILES if name.startswith(OTHERS)}


@pytest.mark.parametrize("name", [name for name in results.FILES if name != "custom_timing.csv"])
def test_pandas_takes_the_columns_for_what_they_are(served, name):
    """Those of a model without experts and encoder, without graphs, on one rank, have their headers only (their own tests fill
    them)."""
    results.assert_columns(served.session, name, filled=name not in EMPTY)
    if name in EMPTY:
        assert (served.session / name).read_text().count("\n") == 1


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_summaries_have_their_keys(served, name):
    data = json.loads((served.session / name).read_text())
    wanted = SUMMARIES[name]
    if isinstance(wanted, set):
        assert data and all(wanted <= entry.keys() for entry in data.values())
    else:
        assert [key for key in data if key in wanted] == wanted


def test_no_file_is_missing_and_none_is_more_than_documented(served):
    text = {"forward_pass_summary.json", "kv_cache_summary.txt", "metadata.json", "session"}
    wanted = {name for name in results.FILES if name != "custom_timing.csv"} | SUMMARIES.keys() | text
    assert {path.name for path in served.session.iterdir() if path.is_file()} == wanted


def test_configuration_has_booleans(served):
    config = json.loads((served.session / "metadata.json").read_text())["engine_config"]
    assert config["enforce_eager"] is True and config["enable_prefix_caching"] is True
    assert config["async_scheduling"] in (True, False) and config["max_num_seqs"] == 16


# Every line of the seeds that reads these files. Those on CUDA graphs with data are in test_cuda_graphs.py.

SEED_COMMANDS = """
cat forward_pass_timing.csv | wc -l
wc -l cuda_graph_captures.csv
sort -t',' -k6 -rn cuda_graph_usage.csv | head -5
awk -F',' 'NR>1 {sum+=$2; count++} END {print sum/count}' kv_cache_usage.csv
sort -t',' -k2 -rn kv_cache_usage.csv | head -1
cat cuda_graph_usage.csv | cut -d',' -f2 | sort | uniq -c
total_replays=$(awk -F',' 'NR>1 {sum+=$6} END {print sum}' cuda_graph_usage.csv)
echo "Total CUDA graph replays: $total_replays"
awk -F',' 'NR>1 && $2<10 {count++} END {print count " blocks evicted quickly"}' \\
    kv_cache_evictions.csv
"""

# Left out is read_csv(…, glob=True), an argument that pandas never had. What is drawn with matplotlib is read only.
SEED_PANDAS = """
import pandas as pd
import json

df = pd.read_csv('forward_pass_timing.csv')
prefill = df[df['phase'] == 'prefill']
decode = df[df['phase'] == 'decode']

print(f"Prefill mean: {prefill['forward_time_ms'].mean():.2f}ms")
print(f"Decode mean: {decode['forward_time_ms'].mean():.2f}ms")

with open('batch_utilization_summary.json') as f:
    batch_summary = json.load(f)
print(f"Token utilization: {batch_summary['mean_token_utilization_pct']:.1f}%")

with open('preemption_summary.json') as f:
    preempt_summary = json.load(f)
print(f"Preemption rate: {preempt_summary['total_preemptions']/preempt_summary['total_requests']*100:.1f}%")

print(f"Mean forward time: {df['forward_time_ms'].mean():.2f}ms")

graphs = pd.read_csv('cuda_graph_usage.csv')
top_graphs = graphs.astype({'replay_count': int}).nlargest(10, 'replay_count')
print("Top 10 CUDA Graphs:")
print(top_graphs[['num_tokens', 'replay_count']])

kv_cache = pd.read_csv('kv_cache_usage.csv')
drawn = (kv_cache['timestamp_sec'], kv_cache['usage_pct'])

for _, row in kv_cache.iterrows():
    print(f'vllm_kv_cache_usage{{timestamp="{row["timestamp_sec"]}"}} {row["usage_pct"]}')
"""


def test_the_seeds_command_lines(served):
    usage = [float(row["usage_pct"]) for row in results.read_csv(served.session / "kv_cache_usage.csv")]
    evictions = [float(row["lifetime_sec"]) for row in results.read_csv(served.session / "kv_cache_evictions.csv")]
    lines = results.shell(SEED_COMMANDS, served.session).splitlines()
    assert lines[0] == str(len(served.rows) + 1)
    assert lines[1] == "1 cuda_graph_captures.csv"
    assert float(lines[3]) == pytest.approx(sum(usage) / len(usage), rel=1e-4)
    assert lines[4].split(",")[1] == f"{max(usage):.2f}"
    assert lines[-2] == "Total CUDA graph replays: "
    assert lines[-1] == f"{sum(life < 10 for life in evictions)} blocks evicted quickly"
    assert evictions


def test_the_seeds_pandas_lines(served):
    done = subprocess.run(
        (sys.executable, "-c", SEED_PANDAS), cwd=served.session, env=serving.clean_environment(), capture_output=True,
        text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads((served.session / "forward_pass_summary.json").read_text())
    lines = dict(line.split(": ") for line in done.stdout.splitlines()[:4])
    for phase in ("Prefill", "Decode"):
        assert float(lines[f"{phase} mean"][:-2]) == pytest.approx(summary[phase.lower()]["mean_ms"], abs=0.006)
    assert lines["Preemption rate"] == "0.0%"
    assert done.stdout.count("vllm_kv_cache_usage{timestamp=") == len(
        results.read_csv(served.session / "kv_cache_usage.csv")
    )


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


@pytest.fixture(scope="module")
def outputs(served, folder):
    """Everything that came of the session: its files, and what each command writes or prints of it."""
    out = folder / "outputs"
    out.mkdir()
    found = {}
    whole = {"forms": 0}

    def command(*words: str) -> None:
        done = subprocess.run([serving.PROGRAM, *words], capture_output=True, timeout=300, env=serving.clean_environment())
        assert done.returncode in (0, 1), (words, done.stderr[-500:])
        found[" ".join(map(str, words[:3]))] = done.stdout + done.stderr
        whole["forms"] += 1

    for form in ("text", "json"):
        command("report", f"--{form}", served.session)
    command("report", "--out", out / "report.html", served.session)
    for form in ("json", "chrome", "perfetto", "openmetrics"):
        command("export", f"--format={form}", f"--out={out / form}", served.session)
    command("export", "--format=openmetrics", "--series=1s", f"--out={out / 'series'}", served.session)
    command("export", "--format=csv-native", f"--out={out / 'native'}", served.session)
    command("explain", "--json", served.session)
    command("explain", served.session)
    command("doctor", "--all", served.session)
    command("doctor", "--json", served.session)
    command("postmortem", served.session)
    command("postmortem", "--json", served.session)
    command("sessions", "--dir", served.session.parent)
    command("diff", served.session, served.session)
    assert whole["forms"] == 17
    for folder_ in (served.session, out):
        for path in folder_.rglob("*"):
            if path.is_file():
                found[str(path)] = path.read_bytes()
    assert len(found) > 50
    return found


def hits(outputs, needle: bytes) -> list[str]:
    return [name for name, data in outputs.items() if needle in data]


def test_secrets_of_the_command_line_are_nowhere(outputs):
    assert hits(outputs, SECRET.encode()) == []
    assert hits(outputs, b"--api-key"), "the option is there, with *** for its value"


def test_prompts_are_nowhere(outputs):
    for needle in (CANARY, CANARY.split()[0], CANARY.split()[2], CANARY.encode("utf-16-le").decode("latin-1")):
        assert hits(outputs, needle.encode("latin-1")) == [], needle


def test_token_ids_are_nowhere(served, outputs):
    """Four of a prompt's or an answer's ids in a row, as text or as numbers of any width."""
    for ids in (CANARY_IDS, *served.answers):
        assert len(ids) >= 24
        middle = ids[10:14]
        needles = [separator.join(map(str, middle)).encode() for separator in (",", ", ", " ", "\n", ";", "\t")]
        needles += [struct.pack(f"<4{width}", *middle) for width in "HIQ"]
        for needle in needles:
            assert hits(outputs, needle) == [], needle


def test_files_are_their_owners_alone(served):
    """0700 and 0600, whatever the umask was: those of the server and those that the program wrote later."""
    assert served.session.stat().st_mode & 0o777 == 0o700
    for path in served.session.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        assert path.stat().st_uid == os.geteuid() and not path.is_symlink(), path


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
