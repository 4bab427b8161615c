"""Kinds of models that the other tests do not run, each for a moment: adapters (LoRA), embeddings, GPT-OSS, experts
over two ranks and on the newer model runner, vision-language models of Qwen3-VL's and InternVL's kind. With the first
one every time of every request is compared with what vLLM itself says of it.

Most of them run one after another in one process, as engines of one session: that saves minutes, and is a case of its
own.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import results
import serving
import tiny
import tiny_text
import tiny_vision
from conftest import workload

EAGER = {"enforce_eager": True, "max_num_batched_tokens": 128, "max_num_seqs": 8}
ROUND_NS = 501  # times in seconds are rounded to microseconds
TORCHVISION = Path(sys.prefix) / "torchvision"  # put there by scripts/setup-vllm


def short(count: int, tokens: int = 6) -> list[dict]:
    return [{"prompt": [5 + i] * (20 + i), "max_tokens": tokens} for i in range(count)]


def run(sessions: Path, specs: list[dict], newer: bool = False, **extra: str) -> SimpleNamespace:
    """LLM()s in one process; per one its result and its engine's tables and folder."""
    environment = serving.clean_environment(
        **serving.profiled(sessions, preset="full"), VLLM_ENABLE_V1_MULTIPROCESSING="0"
    )
    environment["PYTHONPATH"] += extra.pop("path", "")
    environment.update(extra)
    if newer:
        environment = serving.newer_runner(environment)
    result, errors = serving.run_llm(specs, environment, timeout=500)
    session = results.only_session(sessions)
    results.profilemate("export", "--quiet", session)
    lines = results.profilemate("export", "--quiet", "--format", "json", session).stdout.splitlines()
    tables: dict[tuple[int, str], list[dict]] = {}
    for row in map(json.loads, lines):
        if row["table"] in ("requests", "steps"):
            tables.setdefault((row["engine"], row["table"]), []).append(row)
    start = next(line for line in (session / "session").read_text().splitlines() if line.startswith("start_mono_ns"))
    runs = []
    for engine, ran in enumerate(result["runs"]):
        assert "error" not in ran, ran["error"]
        runs.append(
            SimpleNamespace(
                **ran,
                folder=session / f"engine_{engine}" / "rank_0" if engine else session,
                requests=tables[engine, "requests"],
                steps=tables[engine, "steps"],
            )
        )
    return SimpleNamespace(session=session, runs=runs, log=result["log"] + errors, start_ns=int(start.split()[1]))


@pytest.fixture(scope="module")
def ran(folder):
    llama, adapter = str(tiny.make("llama")), str(tiny.make("llama-lora"))
    crowd = workload(seed=41, requests=30)
    specs = {
        "lora": {
            "model": llama,
            "options": {**EAGER, "num_gpu_blocks_override": 40, "block_size": 32, "enable_lora": True,
                        "max_lora_rank": tiny_text.LORA_RANK, "max_loras": 1, "max_cpu_loras": 1},
            "batches": [crowd, short(4), [{**request, "lora": adapter} for request in short(4)]],
        },
        "bert": {
            "model": str(tiny.make("bert")),
            "options": {"enforce_eager": True, "load_format": "dummy", "runner": "pooling", "max_model_len": 512},
            "embed": True,
            "batches": [short(5), short(3)],
        },
        "gpt-oss": {
            "model": str(tiny.make("gpt-oss")), "options": {**EAGER, "load_format": "dummy"}, "batches": [short(6)],
        },
        # An engine core of its own, as in a server, runs a step without tokens after the last request has ended: it is
        # then that the newest selections are recorded.
        "ranks": {
            "model": str(tiny.make("qwen3-moe")), "options": {**EAGER, "tensor_parallel_size": 2}, "batches":
            [short(4)], "environment": {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        },
    }  # fmt: skip
    found = run(folder / "several", list(specs.values()))
    found.by_name = dict(zip(specs, found.runs, strict=True))
    return found


def assert_sums(one: SimpleNamespace) -> None:
    """Requests and tokens of an engine are those that vLLM counted."""
    metrics = one.metrics
    for ours, vllms in (
        ("prompt_tokens", "vllm:prompt_tokens"),
        ("output_tokens", "vllm:generation_tokens"),
        ("cached_tokens", "vllm:prompt_tokens_cached"),
        ("preemptions", "vllm:num_preemptions"),
    ):
        assert sum(row[ours] for row in one.requests) == metrics[vllms], ours
    assert len(one.requests) == metrics["vllm:request_success"] == sum(map(len, one.tokens))
    assert all(row["state"] == "finished" for row in one.requests)


@pytest.mark.parametrize("name", ["lora", "bert", "gpt-oss", "ranks"])
def test_requests_and_tokens_are_vllms(ran, name):
    one = ran.by_name[name]
    assert_sums(one)
    assert all(step["matched"] for step in one.steps)
    if not one.metrics["vllm:num_preemptions"] and name != "bert":
        assert sum(step["tokens"] for step in one.steps if step["rank"] in (0, None)) == results.computed_tokens(
            one.metrics
        )


# Every request's times and counts, one by one


def pairs(ran) -> list[tuple[dict, dict]]:
    """Each request as we tell it and as vLLM's FinishedRequestStats do. vLLM's id inside of the engine has a suffix."""
    one = ran.by_name["lora"]
    theirs = {stats["request_id"]: stats for stats in one.finished}
    return [(row, theirs.pop(row["request_id"].split("-")[0])) for row in one.requests] + [(None, x) for x in theirs]


def test_every_request_is_the_one_that_vllm_tells_of(ran):
    compared = pairs(ran)
    assert len(compared) == 38
    assert any(row["preemptions"] for row, _ in compared) and any(row["cached_tokens"] for row, _ in compared)
    for row, theirs in compared:
        assert row["reason"] == theirs["finish_reason"]
        assert row["prompt_tokens"] == theirs["num_prompt_tokens"]
        assert row["output_tokens"] == theirs["num_generation_tokens"]
        assert row["preemptions"] == theirs["num_preemptions"]
        assert row["cached_tokens"] == theirs["num_cached_tokens"]
        assert row["max_tokens"] == theirs["max_tokens_param"]


def test_every_moment_lies_in_the_call_that_made_it(ran):
    """vLLM stamps `scheduled` inside schedule() and outputs inside update_from_output(), we take the return of these
    calls; both by CLOCK_MONOTONIC. So vLLM's stamp is between the begin of our call and our moment: no tolerance but
    for the microseconds to which our seconds are rounded. `queued` is stamped inside add_request(), and ours is its
    beginning."""
    one = ran.by_name["lora"]
    calls = {
        kind: [(step[f"{kind}_start_ns"], step[f"{kind}_start_ns"] + step[f"{kind}_ns"]) for step in one.steps
               if step[f"{kind}_start_ns"]]
        for kind in ("schedule", "update")
    }  # fmt: skip

    def inside(kind: str, row: dict, ours: str, stamp_sec: float) -> int:
        at = ran.start_ns + round(row[ours] * 1e9)
        (call,) = (call for call in calls[kind] if abs(at - call[1]) <= ROUND_NS)
        assert call[0] <= stamp_sec * 1e9 <= call[1] + 1, (ours, row)
        return call[0]

    for row, theirs in pairs(ran):
        stamps = theirs["moments"]
        schedule = inside("schedule", row, "started_sec", stamps["scheduled_ts"])
        inside("update", row, "first_token_sec", stamps["first_token_ts"])
        inside("update", row, "last_token_sec", stamps["last_token_ts"])
        assert ran.start_ns + row["queued_sec"] * 1e9 - ROUND_NS <= stamps["queued_ts"] * 1e9 <= schedule


def test_every_duration_is_vllms_but_for_these_calls(ran):
    """Differences of the moments above: each end is off by less than the longest such call took. What the front end
    adds before and after is only in its own e2e latency; both measure that from the same arrival."""
    one = ran.by_name["lora"]
    schedule = max(step["schedule_ns"] for step in one.steps)
    update = max(step["update_ns"] or 0 for step in one.steps)
    for row, theirs in pairs(ran):
        first, last = (round(row[name] * 1e9) for name in ("first_token_sec", "last_token_sec"))
        started = round(row["started_sec"] * 1e9)
        enqueued = theirs["moments"]["queued_ts"] * 1e9 - (ran.start_ns + row["queued_sec"] * 1e9)
        for ours, name, apart in (
            (row["queue_ns"], "queued_time", schedule + enqueued),
            (first - started, "prefill_time", schedule + update),
            (last - first, "decode_time", update),
            (last - started, "inference_time", schedule + update),
        ):
            assert abs(ours - theirs[name] * 1e9) <= apart + 2 * ROUND_NS, (name, row, theirs)
        if row["output_tokens"] > 1:
            assert (
                abs(row["tpot_ns"] - theirs["mean_time_per_output_token"] * 1e9)
                <= update / (row["output_tokens"] - 1) + 2 * ROUND_NS
            )
        assert row["e2e_ns"] <= theirs["e2e_latency"] * 1e9 + 1e6  # the wall clock's own steering


# Adapters and embeddings


def test_an_adapter_changes_answers_and_nothing_else(ran):
    one = ran.by_name["lora"]
    _, without, with_it = one.tokens
    assert all(a != b for a, b in zip(without, with_it, strict=True))
    plain, adapted = one.requests[30:34], one.requests[34:]
    same = ("prompt_tokens", "output_tokens", "outputs", "reason", "max_tokens")
    assert [{key: row[key] for key in same} for row in plain] == [{key: row[key] for key in same} for row in adapted]


def test_embeddings_are_prefills_whose_one_output_has_no_tokens(ran):
    """vLLM, too, takes the embedding for the first output, in its time to the first token."""
    one = ran.by_name["bert"]
    assert [len(vector) for batch in one.tokens for vector in batch] == [64] * 8
    rows = results.read_csv(one.folder / "forward_pass_timing.csv")
    assert {row["phase"] for row in rows} == {"prefill"}
    assert sum(int(row["num_tokens"]) for row in rows) == one.metrics["vllm:prompt_tokens"]
    for row in one.requests:
        assert (row["output_tokens"], row["outputs"], row["reason"]) == (0, 1, "stop")
        assert row["started_sec"] < row["first_token_sec"] == row["last_token_sec"] == row["finished_sec"]
        assert row["tpot_ns"] is None and row["max_itl_ns"] is None
    assert one.histograms["vllm:time_to_first_token_seconds"]["count"] == 8
    operations = {row["operation"] for row in results.read_csv(one.folder / "cpu_operations_timing.csv")}
    assert {"scheduling", "batch_prep", "model_execution", "output_processing"} <= operations
    assert "sampling" not in operations


def test_the_pass_of_a_model_that_only_encodes_is_its_encoder(ran):
    one = ran.by_name["bert"]
    summary = json.loads((one.folder / "encoder_decoder_summary.json").read_text())
    rows = results.read_csv(one.folder / "encoder_decoder_timing.csv")
    passes = results.read_csv(one.folder / "forward_pass_timing.csv")
    assert summary["model_type"] == "encoder_only" and summary["encoder"]["count"] == len(passes) == len(rows)
    assert {row["component"] for row in rows} == {"encoder"}
    assert [row["duration_ms"] for row in rows] == [row["forward_time_ms"] for row in passes]
    for name in ("lora", "gpt-oss", "ranks"):
        other = json.loads((ran.by_name[name].folder / "encoder_decoder_summary.json").read_text())
        assert other["model_type"] == "decoder_only"


# Experts


def selections(folder: Path) -> dict[int, list[int]]:
    layers: dict[int, list[int]] = {}
    for row in results.read_csv(folder / "moe_expert_selection.csv"):
        layers.setdefault(int(row["layer_idx"]), []).append(int(row["selection_count"]))
    return layers


def test_gpt_oss_is_told_as_it_is(ran):
    """Without its quantization its experts go through the router on a CPU: all of its selections are counted."""
    one = ran.by_name["gpt-oss"]
    summary = json.loads((one.folder / "moe_summary.json").read_text())
    assert summary["observable"] is True and summary["reason"] is None
    computed = results.computed_tokens(one.metrics)
    assert summary["total_selections"] == 2 * 2 * computed
    assert {layer: sum(counts) for layer, counts in selections(one.folder).items()} == {
        0: 2 * computed,
        1: 2 * computed,
    }
    assert {layer["observed"] for layer in summary["layers"].values()} == {"host"}


def test_both_ranks_see_the_same_routers(ran):
    one = ran.by_name["ranks"]
    other = one.folder.with_name("rank_1")
    counts = selections(one.folder)
    computed = results.computed_tokens(one.metrics)
    assert {layer: sum(cells) for layer, cells in counts.items()} == {0: 4 * computed, 1: 4 * computed}
    assert selections(other) == counts
    pairs: dict[str, int] = {}
    for row in results.read_csv(one.folder / "moe_expert_coselection.csv"):
        pairs[row["layer_idx"]] = pairs.get(row["layer_idx"], 0) + int(row["coselection_count"])
    assert pairs == {"0": 6 * computed, "1": 6 * computed}  # of 4 experts
    for each in (one.folder, other):
        assert json.loads((each / "moe_summary.json").read_text())["observable"] is True


def test_the_newer_runners_experts(folder):
    """The model `mixtral-known` sends token t to expert t % 8 and the one after it."""
    batch = short(2, tokens=4)
    spec = {"model": str(tiny.make("mixtral-known")), "options": EAGER, "batches": [batch]}
    found = run(folder / "newer", [spec], newer=True)
    assert "Using V2 Model Runner" in found.log
    (one,) = found.runs
    assert_sums(one)
    expected = [0] * 8
    for request, answer in zip(batch, one.tokens[0], strict=True):
        for token in itertools.chain(request["prompt"], answer[:-1]):
            expected[token % 8] += 1
            expected[(token + 1) % 8] += 1
    assert selections(one.folder) == {0: expected, 1: expected}


# Images


@pytest.fixture(scope="module")
def seeing(folder):
    if not (TORCHVISION / "torchvision").is_dir():
        pytest.skip("their image processors need torchvision, which scripts/setup-vllm could not install")
    options = {
        "enforce_eager": True, "load_format": "dummy", "limit_mm_per_prompt": {"image": 1, "video": 0},
        "skip_mm_profiling": True, "max_num_batched_tokens": 512, "max_num_seqs": 8,
    }  # fmt: skip
    specs = {
        name: {
            "model": str(tiny.make(name)),
            "options": options,
            "batches": [
                [{"prompt": f"{prompt}A prefill", "max_tokens": 3 + i, "image": i} for i in range(3)],
                [{"prompt": "Numbers 0 1", "max_tokens": 4}],
            ],
        }
        for name, prompt in (
            ("qwen3-vl", tiny_vision.QWEN_PROMPT),
            ("qwen3-vl-moe", tiny_vision.QWEN_PROMPT),
            ("internvl", tiny_vision.INTERN_PROMPT),
        )
    }
    found = run(
        folder / "seeing", list(specs.values()), path=f":{Path(__file__).with_name('vision')}:{TORCHVISION}"
    )  # fmt: skip
    return dict(zip(specs, found.runs, strict=True))


@pytest.mark.parametrize("name", ["qwen3-vl", "qwen3-vl-moe", "internvl"])
def test_images_go_through_the_encoder_once(seeing, name):
    one = seeing[name]
    assert_sums(one)
    summary = json.loads((one.folder / "encoder_decoder_summary.json").read_text())
    rows = results.read_csv(one.folder / "encoder_decoder_timing.csv")
    encoder = [row for row in rows if row["component"] == "encoder"]
    assert summary["model_type"] == "vision_language"
    assert sum(int(dict(pair.split("=") for pair in row["context"].split(";"))["items"]) for row in encoder) == 3
    assert all(float(row["duration_ms"]) > 0 for row in encoder)
    passes = results.read_csv(one.folder / "forward_pass_timing.csv")
    assert [row["duration_ms"] for row in rows if row["component"] == "decoder"] == [
        row["forward_time_ms"] for row in passes
    ]
    assert sum(int(row["num_tokens"]) for row in passes) == results.computed_tokens(one.metrics)


def test_encoder_and_experts_at_once(seeing):
    one = seeing["qwen3-vl-moe"]
    computed = results.computed_tokens(one.metrics)
    per_layer = tiny_vision.TOP_K * computed
    assert {layer: sum(counts) for layer, counts in selections(one.folder).items()} == {0: per_layer, 1: per_layer}
    assert json.loads((one.folder / "moe_summary.json").read_text())["observable"] is True
    assert selections(seeing["qwen3-vl"].folder) == {}
