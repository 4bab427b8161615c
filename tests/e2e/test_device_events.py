"""A real vLLM server on the CPU, two ranks, eager, whose workers are told that they have a device: the driver is a stand-in
(tests/gpu/stand_in_cuda.c), which ends the process at any call that waits. Layers and collectives have events as well. With
n-gram speculation, so that the same server shows what was drafted for nothing.

The stand-in's log says which event came by when on its stream, so each time that must be told is worked out from it, and from the
order in which vLLM calls its modules.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from types import SimpleNamespace

import pytest
import results
import serving

sys.path.insert(0, str(serving.ROOT / "tests" / "gpu"))
import stand_in
from patience import until

DRAFTS = 3
GAPS = [5 + 11 * k % 61 for k in range(61)]  # of the stand-in's stream, in us: a prime number of different ones
SLACK = 2000  # ns: what comes as single precision of milliseconds has been rounded at both ends


def workload() -> list[dict]:
    """Prompts that repeat themselves, so that n-grams find something to propose. Greedy: vLLM's rejection of drafts that
    were sampled needs Triton, which the CPU has not."""
    rng = random.Random(3)
    return [{"prompt": [rng.randrange(3, 200) for _ in range(12)] * 5, "max_tokens": 24 + i} for i in range(13)]


@pytest.fixture(scope="module")
def served(llama, folder):
    sessions, log = folder / "sessions", folder / "driver.log"
    environment = serving.clean_environment(
        **serving.profiled(
            sessions, "full", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="20", VLLM_PROFILING_ENABLE_LAYER_TIMING="1"
        ),
        PROFILEMATE_TEST_DRIVER=str(stand_in.build(folder)), STAND_IN_LOG=str(log), STAND_IN_BEHIND="100",
        STAND_IN_GAPS=",".join(map(str, GAPS)), VLLM_CPU_OMP_THREADS_BIND="0|1",
    )  # fmt: skip
    speculation = json.dumps(
        {"method": "ngram", "num_speculative_tokens": DRAFTS, "prompt_lookup_max": 2, "prompt_lookup_min": 1}
    )
    with serving.Server(
        llama, folder / "server", environment,
        ("--speculative-config", speculation, "--max-num-seqs", "8", "--enforce-eager", "--tensor-parallel-size", "2"),
    ) as server:
        server.wait_ready()
        server.complete_all(workload(), concurrency=6)
        metrics = server.metrics()
        code = server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    until((session / "forward_pass_summary.json").exists)
    depth = json.loads((llama / "config.json").read_text())["num_hidden_layers"]
    return SimpleNamespace(code=code, metrics=metrics, session=session, log=log, errors=server.errors(), depth=depth)


def step_events(depth: int) -> list[tuple[str, tuple]]:
    """The events of a step in the order in which they are recorded: what each is, and whose time begins with it."""
    root = ("layer", None, "other")

    def module(cell, *inside):
        return [("border", cell, 1), *inside]

    reduce = [("begin", "all_reduce"), ("end", "all_reduce")]
    found = [("model",), ("border", root, 1), *reduce]
    for layer in range(depth):
        whole, norm = ("layer", layer, "other"), ("layer", layer, "norm")
        found += module(whole)
        found += [("border", norm, 1), ("border", whole, 0)]
        found += [("border", ("layer", layer, "attention"), 1), *reduce, ("border", whole, 0)]
        found += [("border", norm, 1), ("border", whole, 0)]
        found += [("border", ("layer", layer, "mlp"), 1), *reduce, ("border", whole, 0)]
        found += [("border", root, 0)]
    found += [("border", ("layer", None, "norm"), 1), ("border", root, 0), ("border", None, 0)]
    return [*found, ("model_end",), ("begin", "all_gather"), ("end", "all_gather"), ("sample",), ("sample_end",)]


def recorded(log) -> dict[int, list[float]]:
    """When the events of each process came by on its one stream, in us, in the order in which they were recorded."""
    found: dict[int, list[float]] = {}
    for call in stand_in.calls(log):
        if call.name == "cuEventRecord" and call.result == 0:
            times = found.setdefault(call.pid, [])
            times.append((times[-1] if times else 0.0) + GAPS[len(times) % len(GAPS)])
    return found


def steps_of(served, rank: int) -> list[dict]:
    return [row for row in results.native(served.session, "steps") if row["tokens"] and row["rank"] == rank]


def by_step(served, rank: int) -> list[list[float]]:
    """The times of the events of each step of a rank."""
    (pid,) = {row["pid"] for row in results.native(served.session, "worker_step") if row["rank"] == rank}
    times, each = recorded(served.log)[pid], len(step_events(served.depth))
    assert len(times) == each * len(steps_of(served, rank)), (len(times), each)
    return [times[n : n + each] for n in range(0, len(times), each)]


def test_the_server_ran_and_nothing_waited_for_the_device(served):
    assert served.code == 0, served.errors[-3000:]
    assert "stand-in libcuda" not in served.errors and "CUDA Events mode: True" in served.errors
    counts = stand_in.counts(served.log)
    assert set(counts) <= {"cuEventCreate", "cuEventRecord", "cuEventQuery", "cuEventElapsedTime",
                           "cuEventDestroy_v2", "cuStreamIsCapturing"}  # fmt: skip
    assert counts["cuEventRecord"] > 100 and counts["cuEventCreate"] <= counts["cuEventRecord"]
    stand_in.live(served.log)
    # Each rank is a process, and one thread of it.
    assert len({(call.pid, call.thread) for call in stand_in.calls(served.log)}) == 2
    assert not [row for row in results.native(served.session, "device_miss")]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_devices_times_are_in_their_steps(served, rank):
    rows, times = steps_of(served, rank), by_step(served, rank)
    kinds = [event[0] for event in step_events(served.depth)]
    model, model_end, sample, sample_end = (kinds.index(name) for name in ("model", "model_end", "sample", "sample_end"))
    timed = [row for row in rows if row["forward_clock"] == "events"]
    # The last steps may still have been under way when the server ended.
    assert len(timed) >= len(rows) - 10 and [row["step"] for row in timed] == sorted(row["step"] for row in timed)
    for row, at, before in zip(rows, times, [None, *times]):
        if row["forward_clock"] != "events":
            continue
        assert row["matched"] and row["device"] == 0
        assert row["forward_ns"] == row["device_model_ns"] == pytest.approx((at[model_end] - at[model]) * 1e3, abs=SLACK)
        assert row["device_after_ns"] == pytest.approx((at[sample] - at[model_end]) * 1e3, abs=SLACK)
        assert row["device_sample_ns"] == pytest.approx((at[sample_end] - at[sample]) * 1e3, abs=SLACK)
        if before is not None and row["device_wait_ns"] is not None:
            assert row["device_wait_ns"] == pytest.approx((at[model] - before[sample_end]) * 1e3, abs=SLACK)
        assert row["model_ns"] > 0, "the host's time is kept as well"
    if rank == 0:
        metadata = json.loads((served.session / "metadata.json").read_text())
        assert (metadata["forward_clock"], metadata["device_events"]) == ("events", "cuda")
        assert (metadata["layer_clock"], metadata["collective_clock"]) == ("device", "device")


@pytest.mark.parametrize("rank", [0, 1])
def test_each_layer_and_kind_has_the_devices_own_time(served, rank):
    """Sums over the passes that were read back, which are the first ones: the last few may be missing."""
    folder = served.session if rank == 0 else served.session / "engine_0" / "rank_1"
    summary = json.loads((folder / "layer_summary.json").read_text())
    times, events = by_step(served, rank), step_events(served.depth)
    passes = summary["passes"]
    assert summary["clock"] == "device" and len(times) - 10 <= passes <= len(times)
    assert passes + summary["passes_without_times"] == len(times)
    borders = [(i, event) for i, event in enumerate(events) if event[0] == "border"]
    expected: dict[tuple, float] = {}
    for at in times[:passes]:
        for (begun, (_, cell, _)), (ended, _) in zip(borders, borders[1:]):
            expected[cell[1:]] = expected.get(cell[1:], 0) + (at[ended] - at[begun]) / 1e3
    rows = results.read_csv(folder / "layer_timing.csv")
    found = {(int(row["layer_idx"]) if row["layer_idx"] else None, row["kind"]): float(row["total_ms"]) for row in rows}
    assert found.keys() == expected.keys()
    for module, ms in expected.items():
        assert found[module] == pytest.approx(ms, abs=0.01), module
    assert summary["forward_ms"] == pytest.approx(sum(expected.values()), abs=0.05)
    assert summary["host_forward_ms"] > 0


@pytest.mark.parametrize("rank", [0, 1])
def test_each_collective_has_its_own_time_in_its_own_step(served, rank):
    times, events = by_step(served, rank), step_events(served.depth)
    numbers = [row["step"] for row in steps_of(served, rank)]
    kinds = {0: "all_reduce", 1: "all_gather"}
    rows = [row for row in results.native(served.session, "collective_device") if row["rank"] == rank]
    assert len(rows) >= 2 * (len(times) - 10) and {row["group"] for row in rows} == {"tp:0"}
    for row in rows:
        at, name = times[numbers.index(row["step"])], kinds[row["operation"]]
        begins = [i for i, event in enumerate(events) if event == ("begin", name)]
        assert row["calls"] == len(begins)
        assert row["device_ns"] == pytest.approx(sum(at[i + 1] - at[i] for i in begins) * 1e3, abs=SLACK), (row["step"], name)
    host = [row for row in results.native(served.session, "collective_step") if row["rank"] == rank and not row["flags"] & 2]
    assert len(host) == 2 * len(times), "the host's times are kept as well"
    folder = served.session if rank == 0 else served.session / "engine_0" / "rank_1"
    summary = json.loads((folder / "collective_summary.json").read_text())
    assert summary["clock"] == "device" and summary["timed_calls"] == sum(row["calls"] for row in rows)
    assert summary["total_ms"] == pytest.approx(sum(row["device_ns"] for row in rows) / 1e6, abs=0.002)


def test_drafts_are_those_that_vllm_counted(served):
    rows = [{name: float(value) for name, value in row.items()} for row in results.read_csv(served.session / "spec_decode.csv")]
    drafted = served.metrics.sum("vllm:spec_decode_num_draft_tokens_total")
    accepted = served.metrics.sum("vllm:spec_decode_num_accepted_tokens_total")
    assert drafted > accepted > 0
    assert (sum(row["drafted"] for row in rows), sum(row["accepted"] for row in rows)) == (drafted, accepted)
    assert all(row["rejected"] == row["drafted"] - row["accepted"] >= 0 for row in rows)


def test_wasted_work_is_worked_out_again_from_the_steps(served):
    wasted = json.loads((served.session / "wasted_work.json").read_text())
    steps = steps_of(served, 0)
    rejected = [row["drafted"] - row["accepted"] for row in steps]
    assert wasted["forward_clock"] == "events" and wasted["computed_tokens"] == sum(row["tokens"] for row in steps)
    drafts = wasted["causes"]["rejected_drafts"]
    assert drafts["tokens"] == sum(rejected) == wasted["drafts"]["rejected"] == wasted["total"]["tokens"] > 0
    expected = sum((row["forward_ns"] or 0) * gone / row["tokens"] for row, gone in zip(steps, rejected, strict=True)) / 1e6
    assert drafts["time_ms"] == pytest.approx(expected, abs=0.002)
    nothing = {"tokens": 0, "tokens_pct": 0, "time_ms": 0, "time_pct": 0}
    assert wasted["causes"]["graph_padding"] == wasted["causes"]["recomputed_tokens"] == nothing  # none on a CPU
    text = results.profilemate("report", "--text", served.session).stdout
    assert "Work that produced nothing" in text and f"{sum(rejected)} " in text


def test_reports_say_that_they_are_the_devices_own(served):
    text = results.profilemate("report", "--text", served.session).stdout
    assert "(device events" in text and "The device's time by its own events" in text
    assert "Layers, ms per pass of the model (the device's events)" in text and "By the device's events: waiting" in text
