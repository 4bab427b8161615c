"""What came of a run: sessions found on disk, their files and native tables, and vLLM's own account to compare with."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import serving

SIMPLE_HEADER = "timestamp_sec,phase,batch_size,num_tokens,duration_ms,throughput_tokens_per_sec"
FULL_HEADER = "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,throughput_tokens_per_sec"

# The CSV files of the full preset: each column and what pandas must take it for. "flag": True and False; "maybe": a
# whole number or None.
_FLOAT, _INT, _TEXT, _FLAG, _MAYBE = "float64", "int64", "object", "flag", "maybe"
_GRAPH = {"runtime_mode": _TEXT, "num_tokens": _INT, "num_reqs": _MAYBE, "uniform": _FLAG, "has_lora": _FLAG}
FILES = {
    "forward_pass_timing.csv": {
        "timestamp_sec": _FLOAT, "phase": _TEXT, "batch_size": _INT, "num_tokens": _INT, "forward_time_ms": _FLOAT,
        "throughput_tokens_per_sec": _FLOAT,
    },
    "bandwidth_compute.csv": {
        "timestamp_sec": _FLOAT, "phase": _TEXT, "batch_size": _INT, "num_tokens": _INT, "duration_ms": _FLOAT, "gflop": _FLOAT,
        "weight_mb": _FLOAT, "kv_read_mb": _FLOAT, "kv_written_mb": _FLOAT, "tflops": _FLOAT, "gb_per_sec": _FLOAT,
        "compute_pct": _MAYBE, "bandwidth_pct": _MAYBE,
    },
    "cpu_operations_timing.csv": {"timestamp_sec": _FLOAT, "operation": _TEXT, "duration_ms": _FLOAT, "context": _TEXT},
    "memory_usage.csv": {
        "timestamp_sec": _FLOAT, "device": _TEXT, "allocated_bytes": _INT, "reserved_bytes": _MAYBE,
        "peak_allocated_bytes": _INT, "fragmentation_pct": _MAYBE,
    },
    "collective_timing.csv": {
        "timestamp_sec": _FLOAT, "group": _TEXT, "operation": _TEXT, "bytes": _INT, "duration_ms": _FLOAT, "captured": _FLAG,
    },
    "kv_transfer_timing.csv": {
        "timestamp_sec": _FLOAT, "connector": _TEXT, "operation": _TEXT, "calls": _INT, "tokens": _MAYBE, "duration_ms": _FLOAT,
    },
    "sampling_timing.csv": {"timestamp_sec": _FLOAT, "strategy": _TEXT, "batch_size": _INT, "duration_ms": _FLOAT},
    "spec_decode.csv": {"timestamp_sec": _FLOAT, "drafted": _INT, "accepted": _INT, "rejected": _INT},
    "batch_utilization.csv": {
        "timestamp_sec": _FLOAT, "num_seqs": _INT, "max_num_seqs": _INT, "seq_utilization_pct": _FLOAT,
        "num_tokens": _INT, "max_tokens": _INT, "token_utilization_pct": _FLOAT, "phase": _TEXT,
        "running_queue_len": _INT, "waiting_queue_len": _INT,
    },
    "preemption_events.csv": {
        "timestamp_sec": _FLOAT, "request_id": _TEXT, "event": _TEXT, "reason": _TEXT, "running_time_sec": _FLOAT,
        "extra_info": _TEXT,
    },
    "request_lifecycle.csv": {
        "request_id": _TEXT, "started_sec": _FLOAT, "preempted_sec": _FLOAT, "resumed_sec": _FLOAT,
        "finished_sec": _FLOAT, "total_time_sec": _FLOAT, "preemption_delay_sec": _FLOAT,
    },
    "encoder_decoder_timing.csv": {
        "timestamp_sec": _FLOAT, "component": _TEXT, "duration_ms": _FLOAT, "context": _TEXT,
    },
    "cuda_graph_captures.csv": {**_GRAPH, "capture_time_sec": _FLOAT},
    "cuda_graph_usage.csv": {**_GRAPH, "replay_count": _INT},
    "cuda_graph_timeline.csv": {"timestamp_sec": _FLOAT, "descriptor": _TEXT, "duration_ms": _FLOAT},
    "kv_cache_usage.csv": {"timestamp_sec": _FLOAT, "usage_pct": _FLOAT, "num_blocks": _INT, "total_blocks": _INT},
    "kv_cache_evictions.csv": {"timestamp_sec": _FLOAT, "lifetime_sec": _FLOAT, "idle_sec": _FLOAT},
    "moe_expert_selection.csv": {"layer_idx": _INT, "expert_id": _INT, "selection_count": _INT, "percentage": _FLOAT},
    "moe_expert_timing.csv": {"timestamp_sec": _FLOAT, "layer_idx": _INT, "num_tokens": _INT, "duration_ms": _FLOAT},
    "moe_expert_coselection.csv": {
        "layer_idx": _INT, "expert_id_1": _INT, "expert_id_2": _INT, "coselection_count": _INT,
    },
    "moe_load_imbalance.csv": {"layer_idx": _INT, "timestamp_sec": _FLOAT, "std_dev": _FLOAT, "max_min_ratio": _FLOAT},
    "custom_timing.csv": {"timestamp_sec": _FLOAT, "name": _TEXT, "duration_ms": _FLOAT},
}  # fmt: skip


def assert_columns(session: Path, *names: str, filled: bool = True) -> None:
    """The header, byte for byte, and the types that pandas finds. Not filled: the header alone will do."""
    import pandas

    accepted = {_FLAG: {"bool"}, _MAYBE: {"int64", "float64", "object"}}
    for name in names:
        data = (session / name).read_bytes()
        assert data.split(b"\n", 1)[0] == ",".join(FILES[name]).encode(), name
        assert data.endswith(b"\n") and b"\r" not in data, name
        table = pandas.read_csv(session / name)
        assert len(table) or not filled, f"{name} has no rows"
        for column, kind in FILES[name].items() if len(table) else ():
            assert str(table[column].dtype) in accepted.get(kind, {kind}), (name, column, table[column].dtype)


def shell(script: str, folder: Path) -> str:
    """What a script of the shell prints, in a session's folder, with the program on the path."""
    environment = serving.clean_environment()
    environment["PATH"] = f"{serving.PROGRAM.parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ("bash", "-euc", script), cwd=folder, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def profilemate(*arguments: str | Path, check: bool = True, **how) -> subprocess.CompletedProcess:
    """Runs the program as a user would, with nothing of the test's own settings in its environment."""
    done = subprocess.run(
        [str(serving.PROGRAM), *map(str, arguments)],
        env=how.pop("env", serving.clean_environment()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        **how,
    )
    if check:
        assert done.returncode == 0, f"profilemate {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def sessions_in(base: Path) -> list[Path]:
    """The sessions of a folder; anything else in it is a failure."""
    entries = sorted(base.iterdir()) if base.exists() else []
    wrong = [entry.name for entry in entries if not re.fullmatch(r"session_\d{8}_\d{6}(_\d+)?", entry.name)]
    assert not wrong, f"{base} holds {wrong}"
    return entries


def only_session(base: Path) -> Path:
    sessions = sessions_in(base)
    assert len(sessions) == 1, f"expected one session in {base}, found {[s.name for s in sessions]}"
    return sessions[0]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def native(session: Path, table: str) -> list[dict]:
    """The rows of one native table of a session, as `profilemate export --format json` prints them."""
    lines = profilemate("export", "--quiet", "--format", "json", session).stdout.splitlines()
    return [row for row in map(json.loads, lines) if row["table"] == table]


ITERATION = re.compile(
    r"Engine (?P<engine>\d+): Iteration\((?P<n>\d+)\): (?P<ctx_requests>\d+) context requests, "
    r"(?P<ctx_tokens>\d+) context tokens, (?P<gen_requests>\d+) generation requests, "
    r"(?P<gen_tokens>\d+) generation tokens, iteration elapsed time: (?P<ms>[\d.]+) ms"
)


def iterations(log: str) -> list[dict]:
    """vLLM's own line for each step (--enable-logging-iteration-details), in order: what it scheduled, and how long
    the step took.

    A request is in its context phase, in vLLM's words, until it has an output token: without preemptions that is
    what outputs.md calls prefill.
    """
    steps = []
    for match in ITERATION.finditer(log):
        found = {name: float(value) if name == "ms" else int(value) for name, value in match.groupdict().items()}
        found["requests"] = found["ctx_requests"] + found["gen_requests"]
        found["tokens"] = found["ctx_tokens"] + found["gen_tokens"]
        found["phase"] = "prefill" if found["ctx_requests"] else "decode"
        steps.append(found)
    assert [step["n"] for step in steps] == list(range(len(steps))), "vLLM's log lacks iterations"
    return steps


def computed_tokens(metrics: serving.Metrics | dict[str, float]) -> int:
    """How many tokens vLLM must have scheduled, from its own counters, when every request has finished unpreempted.

    Each prompt token is computed once, unless the prefix cache had it. Each generated token is computed once, as the
    input of the step after it, but for the last one of each request, which is the input of no step. So:
    prompt tokens - tokens from the prefix cache + generated tokens - finished requests.
    """
    if isinstance(metrics, dict):
        prompt, generated = metrics["vllm:prompt_tokens"], metrics["vllm:generation_tokens"]
        cached, finished = metrics["vllm:prompt_tokens_cached"], metrics["vllm:request_success"]
        preempted = metrics["vllm:num_preemptions"]
    else:
        prompt, generated = metrics.sum("vllm:prompt_tokens_total"), metrics.sum("vllm:generation_tokens_total")
        cached, finished = metrics.sum("vllm:prompt_tokens_cached_total"), metrics.sum("vllm:request_success_total")
        preempted = metrics.sum("vllm:num_preemptions_total")
    assert preempted == 0, "the relation holds without preemptions only"
    return int(prompt - cached + generated - finished)


def assert_rows_are_vllms(rows: list[dict[str, str]], log: str) -> None:
    """The rows of forward_pass_timing.csv are vLLM's own iterations, one by one and in order."""
    truth = iterations(log)
    got = [(row["phase"], int(row["batch_size"]), int(row["num_tokens"])) for row in rows]
    assert got == [(step["phase"], step["requests"], step["tokens"]) for step in truth]


def assert_rows_are_wellformed(rows: list[dict[str, str]], duration: str) -> None:
    """Decimals, order and throughput of forward_pass_timing.csv, and that passes of one worker do not overlap."""
    second_decimals = 3 if duration == "duration_ms" else 6  # the simple preset keeps to seed 000
    times = []
    for row in rows:
        assert re.fullmatch(rf"\d+\.\d{{{second_decimals}}}", row["timestamp_sec"]), row
        assert re.fullmatch(r"\d+\.\d{3}", row[duration]), row
        assert re.fullmatch(r"\d+\.\d", row["throughput_tokens_per_sec"]), row
        assert row["phase"] in ("prefill", "decode"), row
        milliseconds = float(row[duration])
        assert milliseconds > 0, row
        # Throughput comes from the unrounded time; the three decimals here bound how far it may be off.
        low, high = milliseconds - 0.0005, milliseconds + 0.0005
        tokens = int(row["num_tokens"])
        assert tokens * 1000 / high - 0.06 <= float(row["throughput_tokens_per_sec"]) <= tokens * 1000 / low + 0.06, row
        times.append((float(row["timestamp_sec"]), milliseconds / 1000))
    rounding = 10.0**-second_decimals + 1e-6
    for (start, seconds), (following, _) in itertools.pairwise(times):
        assert start + seconds <= following + rounding, (start, seconds, following)


def summary_of(rows: list[dict[str, str]], duration: str, with_deviation: bool) -> dict:
    """The summary that the rows should give, by NumPy, from times rounded to three decimals."""
    import numpy

    result = {}
    for phase in ("prefill", "decode"):
        values = numpy.array([float(row[duration]) for row in rows if row["phase"] == phase])
        if not len(values):
            continue
        result[phase] = {"count": len(values), "mean_ms": values.mean()}
        if with_deviation:
            result[phase]["std_ms"] = values.std()
        result[phase] |= {"min_ms": values.min(), "max_ms": values.max()}
        result[phase] |= {f"p{p}_ms": numpy.percentile(values, p) for p in (50, 95, 99)}
    return result


def assert_summary(path: Path, rows: list[dict[str, str]], duration: str, with_deviation: bool) -> None:
    got, wanted = json.loads(path.read_text()), summary_of(rows, duration, with_deviation)
    assert list(got) == list(wanted)
    for phase, values in wanted.items():
        assert list(got[phase]) == list(values), phase
        for key, value in values.items():
            assert abs(got[phase][key] - value) <= 0.002, (phase, key, got[phase][key], value)


# What vLLM says or not about its own end, depending on which of its processes is faster.
ENDING = re.compile(r"\[shutdown\]|resource_tracker|nanobind: leaked")


def warnings_in(text: str) -> set[str]:
    """vLLM's and Python's warnings and errors, without what differs from run to run: times, pids, addresses, the
    order of lines, and how its processes ended."""
    found = set()
    for line in text.splitlines():
        if re.search(r"\b(WARNING|ERROR|CRITICAL|\w*Warning:|Traceback|Error:)", line) and not ENDING.search(line):
            line = re.sub(r"^\(.*?pid=\d+\)\s*", "", line)
            line = re.sub(r"\d{2}-\d{2} \d{2}:\d{2}:\d{2}", "", line)
            line = re.sub(r"\[W\d+[^\]]*\]", "[W]", line)
            found.add(re.sub(r"0x[0-9a-f]+|\bpid=?\s?\d+|\d+\.\d+", "", line))
    return found
