"""MoE: selections, co-selection, imbalance and layer times, against routers whose choices are known and vLLM's counts.

On real vLLM: eager (counted on the host) in a server that is killed, compiled (by an operation inside the graph, where
that is asked for); on real routers and a stand-in for the device: captured graphs (moe_driver.py). What needs nothing
of each other runs beside each other (class Runs).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import results
import serving
import tiny
from conftest import workload
from patience import until

EXPERTS, TOP_K, LAYERS = 8, 2, 2  # of tiny's Mixtral
LIMITS = {"max_num_batched_tokens": 128, "max_num_seqs": 8, "seed": 7, "enable_prefix_caching": False}
SWITCH = "VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING"
FILES = tuple(name for name in results.FILES if name.startswith("moe_"))


BATCHES = [workload(seed=3, requests=12), workload(seed=3, requests=4)]
DRIVEN = {  # cases of moe_driver.py, by the setting of the process that they share
    "auto": {"host": "--eager", "ranks": "--eager,--ranks", "left-alone": "--device"},
    "1": {"device": "--device"},
}


def with_inputs(tokens: list[list[list[int]]], **found) -> SimpleNamespace:
    """What was generated, and with it all tokens that went through the model: each but the last one of a request."""
    inputs = [
        token
        for batch, answers in zip(BATCHES, tokens, strict=True)
        for request, answer in zip(batch, answers, strict=True)
        for token in request["prompt"] + answer[:-1]
    ]
    return SimpleNamespace(tokens=tokens, inputs=inputs, **found)


def compile_and_run(base: Path, cache: Path, moe: str | None) -> SimpleNamespace:
    """One LLM() in a process of its own; moe None: without the profiler."""
    environment = serving.clean_environment(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CACHE_ROOT=str(cache))
    if moe is not None:
        environment.update(serving.profiled(base, preset="full", **{SWITCH: moe}))
    spec = {"model": str(tiny.make("mixtral-known")), "options": LIMITS, "batches": BATCHES}
    result, errors = serving.run_llm(spec, environment)
    session = results.only_session(base) if moe is not None else None
    if session:
        until((session / "moe_summary.json").exists)
    keys = {path.name for path in (cache / "torch_compile_cache" / "torch_aot_compile").iterdir()}
    return with_inputs(
        result["tokens"], metrics=result["metrics"], log=result["log"] + errors, session=session, keys=keys
    )


def compile_thrice(folder: Path) -> SimpleNamespace:
    """Without the profiler, with counting in the graph, and again without counting there: one compile cache."""
    stages = {"bare": None, "counted": "1", "after": "auto"}
    return SimpleNamespace(
        **{name: compile_and_run(folder / name, folder / "cache", moe) for name, moe in stages.items()}
    )


def serve_and_kill(folder: Path) -> SimpleNamespace:
    """A server whose engine is a process of its own, eager, killed while it is idle."""
    sessions = folder / "eager"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full", **{SWITCH: "auto"}))
    arguments = ("--max-num-batched-tokens", "128", "--max-num-seqs", "8", "--seed", "7", "--no-enable-prefix-caching")
    with serving.Server(tiny.make("mixtral-known"), folder / "server", environment, arguments) as server:
        server.wait_ready()
        tokens = [server.complete_all(batch) for batch in BATCHES]
        metrics = server.metrics()
        session = results.only_session(sessions)
        wanted = LAYERS * TOP_K * results.computed_tokens(metrics)
        # Recorded when the last request has ended, in the step without tokens that vLLM runs then.
        until(
            lambda: sum(n for row in results.native(session, "moe_counts") if row["what"] == 0
                        for name, n in row.items() if name[0] == "n" and name[1:].isdigit()) == wanted
        )  # fmt: skip
        for process in reversed(server.processes()):
            serving.os.kill(process.pid, signal.SIGKILL)
        server.wait_gone(20)
    results.profilemate("export", session)
    return with_inputs(tokens, metrics=metrics, session=session)


def drive(base: Path, moe: str) -> dict[str, SimpleNamespace]:
    """Per case of moe_driver.py: what it routed, and the folder of its engine's files."""
    environment = serving.clean_environment(
        **serving.profiled(base, preset="full", **{SWITCH: moe}), VLLM_LOGGING_LEVEL="ERROR"
    )
    script = Path(__file__).with_name("moe_driver.py")
    cases = [f"{name}={options}" for name, options in DRIVEN[moe].items()]
    done = subprocess.run(
        (sys.executable, script, *cases), env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    session = results.only_session(base)
    results.profilemate("export", session)
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            _, name, truth = line.split(" ", 2)
            folder = session / f"engine_{len(found)}" / "rank_0" if found else session
            found[name] = SimpleNamespace(truth=json.loads(truth), folder=folder)
    assert list(found) == list(DRIVEN[moe])
    return found


class Runs:
    """Everything that this file runs, begun at once: what is compiled in one thread, the rest in another."""

    def __init__(self, folder: Path):
        self.pool = ThreadPoolExecutor(2)
        self.compiled: Future = self.pool.submit(compile_thrice, folder)
        self.others: Future = self.pool.submit(self.run_others, folder)

    @staticmethod
    def run_others(folder: Path) -> SimpleNamespace:
        driven = {name: case for moe in DRIVEN for name, case in drive(folder / f"driven-{moe}", moe).items()}
        return SimpleNamespace(driven=driven, eager=serve_and_kill(folder))


@pytest.fixture(scope="module")
def runs(folder):
    for model in ("mixtral-known", "llama"):
        tiny.make(model)
    runs = Runs(folder)
    yield runs
    runs.pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def eager(runs):
    return runs.others.result().eager


@pytest.fixture(scope="module")
def driven(runs):
    return runs.others.result().driven


@pytest.fixture(scope="module")
def compiled(runs):
    return runs.compiled.result()


def counts_of(session: Path) -> dict[int, list[int]]:
    layers: dict[int, list[int]] = {}
    for row in results.read_csv(session / "moe_expert_selection.csv"):
        assert int(row["expert_id"]) == len(layers.setdefault(int(row["layer_idx"]), []))
        layers[int(row["layer_idx"])].append(int(row["selection_count"]))
    return layers


def pairs_of(session: Path) -> dict[int, dict[str, int]]:
    layers: dict[int, dict[str, int]] = {}
    for row in results.read_csv(session / "moe_expert_coselection.csv"):
        pair = f"{row['expert_id_1']}-{row['expert_id_2']}"
        layers.setdefault(int(row["layer_idx"]), {})[pair] = int(row["coselection_count"])
    return layers


def summary_of(session: Path) -> dict:
    return json.loads((session / "moe_summary.json").read_text())


def expected_counts(ran: SimpleNamespace) -> list[int]:
    """Of the model `mixtral-known`: token t goes to t % 8 and the expert after it."""
    counts = [0] * EXPERTS
    for token in ran.inputs:
        counts[token % EXPERTS] += 1
        counts[(token + 1) % EXPERTS] += 1
    return counts


def assert_counts(ran: SimpleNamespace) -> None:
    expected = expected_counts(ran)
    assert sum(expected) == TOP_K * results.computed_tokens(ran.metrics)
    assert counts_of(ran.session) == {layer: expected for layer in range(LAYERS)}
    met = {}
    for token in ran.inputs:
        a, b = sorted((token % EXPERTS, (token + 1) % EXPERTS))
        met[f"{a}-{b}"] = met.get(f"{a}-{b}", 0) + 1
    assert pairs_of(ran.session) == {layer: met for layer in range(LAYERS)}


def test_known_routers_give_exactly_their_counts_though_the_server_was_killed(eager):
    assert_counts(eager)
    assert summary_of(eager.session)["observable"] is True
    for layer in summary_of(eager.session)["layers"].values():
        assert layer["observed"] == "host"


def test_known_routers_give_exactly_their_counts_compiled(compiled):
    assert_counts(compiled.counted)
    for layer in summary_of(compiled.counted.session)["layers"].values():
        assert layer["observed"] == "graph"


def test_generated_tokens_are_the_same(eager, compiled):
    assert compiled.counted.tokens == compiled.bare.tokens
    assert compiled.after.tokens == compiled.bare.tokens
    assert eager.tokens == compiled.bare.tokens  # nothing is added up in this model: the same in both
    assert len({tuple(tokens) for batch in compiled.bare.tokens for tokens in batch}) > 3


def test_every_file_adds_up(eager):
    numpy = pytest.importorskip("numpy")
    session = eager.session
    results.assert_columns(session, *FILES)
    steps = [row for row in results.native(session, "worker_step") if row["tokens"]]
    timing = results.read_csv(session / "moe_expert_timing.csv")
    assert len(timing) == LAYERS * len(steps)
    assert sum(int(row["num_tokens"]) for row in timing) == LAYERS * results.computed_tokens(eager.metrics)
    times = [float(row["timestamp_sec"]) for row in timing]
    assert times == sorted(times)
    assert all(float(row["duration_ms"]) > 0 for row in timing)
    counts = counts_of(session)
    for row in results.read_csv(session / "moe_expert_selection.csv"):
        of = sum(counts[int(row["layer_idx"])])
        assert float(row["percentage"]) == pytest.approx(100 * int(row["selection_count"]) / of, abs=0.0051)
    for layer, values in summary_of(session)["layers"].items():
        array = numpy.array(counts[int(layer)])
        assert (values["experts"], values["top_k"], values["selections"]) == (EXPERTS, TOP_K, array.sum())
        assert (values["min"], values["max"]) == (array.min(), array.max())
        assert values["mean"] == pytest.approx(array.mean(), abs=0.001)
        assert values["std"] == pytest.approx(array.std(), abs=0.001)
        assert values["load_balance_ratio"] == pytest.approx(array.mean() / array.max(), abs=0.0001)
        assert values["coverage_pct"] == 100 * (array > 0).mean()


def test_imbalance_is_of_the_intervals_between_two_records(eager):
    numpy = pytest.importorskip("numpy")
    intervals: dict[tuple[int, int], list[int]] = {}
    for row in results.native(eager.session, "moe_counts"):
        if row["what"] == 0:
            cells = intervals.setdefault((row["at_ns"], row["slot"]), [0] * EXPERTS)
            for i in range(EXPERTS):
                cells[row["first"] + i] += row[f"n{i}"]
    rows = results.read_csv(eager.session / "moe_load_imbalance.csv")
    assert len(rows) == len(intervals) >= LAYERS
    for row, ((_, slot), cells) in zip(rows, sorted(intervals.items()), strict=True):
        assert int(row["layer_idx"]) == slot
        assert float(row["std_dev"]) == pytest.approx(numpy.std(cells), abs=0.001)
        assert float(row["max_min_ratio"]) == pytest.approx(max(cells) / max(min(cells), 1), abs=0.001)


def test_compiled_routers_are_not_observable_unless_asked(compiled):
    session = compiled.after.session
    summary = summary_of(session)
    assert summary["observable"] is False
    assert f"{SWITCH}=1" in summary["reason"]
    assert summary["moe_layers"] == LAYERS
    assert {layer["selections"] for layer in summary["layers"].values()} == {None}
    for name in FILES:
        assert (session / name).read_text() == ",".join(results.FILES[name]) + "\n", name
    report = results.profilemate("report", "--text", session).stdout
    assert "not seen" in report
    doctor = results.profilemate("doctor", session, check=False).stdout
    assert "not observable" in doctor


def test_counting_in_the_graph_is_stated(compiled):
    metadata = (compiled.counted.session / "metadata.json").read_text()
    assert "counted inside the graphs of 2 MoE layers" in metadata
    assert "counted inside the graphs" not in (compiled.after.session / "metadata.json").read_text()


def test_off_after_on_compiles_nothing_and_prints_nothing(compiled):
    """The graph with our operation has a key of its own in vLLM's compile cache, so that the other one's stays."""
    assert len(compiled.counted.keys - compiled.bare.keys) == 1
    assert compiled.after.keys == compiled.counted.keys
    # vLLM 0.32.0 on a CPU fails to load what it saved itself and says so, whoever runs it the second time; nothing
    # else may be new.
    new = results.warnings_in(compiled.after.log) - results.warnings_in(compiled.bare.log)
    assert all("finalize_loading" in line for line in new), new
    assert not results.warnings_in(compiled.counted.log) - results.warnings_in(compiled.bare.log)


# Real routers, a stand-in for the device


@pytest.mark.parametrize("way", ["host", "device", "ranks"])
def test_real_routers_with_padding_drafts_and_dummy_runs(driven, way):
    """Only the tokens of steps count, on the host and in a replayed graph; vLLM's own capture function still runs,
    whether it was there first or came later; a kernel that bypasses its router is named. Of the rows of several
    data-parallel ranks, this one's count."""
    truth, folder = driven[way].truth, driven[way].folder
    assert counts_of(folder) == dict(enumerate(truth["counts"]))
    assert pairs_of(folder) == dict(enumerate(truth["pairs"]))
    assert sum(truth["counts"][0]) == 2 * truth["tokens"]
    # In a replayed graph no Python runs, neither ours nor vLLM's.
    assert {when for when, _ in truth["theirs"]} == (set() if way == "device" else {"before", "after"})
    summary = summary_of(folder)
    assert summary["observable"] is False  # of one layer
    assert "2 of 4 MoE layers" in summary["reason"] and "bypasses" in summary["reason"]
    seen = "device" if way == "device" else "host"
    assert [layer["observed"] for layer in summary["layers"].values()] == [seen, seen, "no", "no"]
    drafters = summary["layers"]["6"]
    assert drafters["selections"] is None and drafters["timed_calls"] == 0


def test_a_device_is_left_alone_unless_asked(driven):
    truth, folder = driven["left-alone"].truth, driven["left-alone"].folder
    assert sum(truth["counts"][0]) > 0
    assert counts_of(folder) == {}
    assert "on the device only" in summary_of(folder)["reason"]
