"""Layers of real models on real vLLM, eager: every module of every layer by its kind, adding up to the model's passes, the tokens
unchanged, and nothing left in the modules when it is switched off while the process runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import results
import serving
import tiny


@pytest.fixture(scope="module")
def ran(llama, folder):
    sessions, models = folder / "sessions", (llama, tiny.make("qwen3-moe"))
    environment = serving.clean_environment(
        **serving.profiled(sessions, preset="full", VLLM_PROFILING_ENABLE_LAYER_TIMING="1"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_ALLOW_INSECURE_SERIALIZATION="1",
    )  # fmt: skip
    driver = Path(__file__).with_name("layer_driver.py")
    done = subprocess.run(
        (sys.executable, driver, serving.PROGRAM, *models), env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (line,) = re.findall(r"^RESULT (.*)$", done.stdout, re.M)
    session = results.only_session(sessions)
    results.profilemate("export", session)
    report = json.loads(results.profilemate("report", "--json", session).stdout)
    configs = [json.loads((model / "config.json").read_text()) for model in models]
    return SimpleNamespace(session=session, found=json.loads(line), report=report, configs=configs)


def test_tokens_are_the_same_and_nothing_is_left(ran):
    for model in ran.found:
        assert model["timed"] == model["again"]
        assert model["timers"] > 0 and model["left"] == 0


def layers_of(ran, n: int) -> dict:
    return ran.report["engines"][n]["layers"]


@pytest.mark.parametrize(("n", "block"), [(0, "mlp"), (1, "moe")])
def test_every_layer_has_its_parts_once_a_pass(ran, n, block):
    layers, config = layers_of(ran, n), ran.configs[n]
    passes, depth = layers["passes"], config["num_hidden_layers"]
    norms = 2 + (2 if block == "moe" else 0)  # Qwen3 has norms inside of its attention
    assert layers["source"] == "modules" and layers["clock"] == "host" and layers["steps_not_seen"] == 0
    assert {kind: row["calls"] for kind, row in layers["kinds"].items()} == {
        "attention": passes * depth, block: passes * depth, "norm": passes * (norms * depth + 1),
        "other": passes * (depth + 1),
    }  # fmt: skip
    assert [row["layer_idx"] for row in layers["layers"]] == [*range(depth), None]
    total = sum(row["total_ms"] for row in layers["layers"])
    assert total == pytest.approx(layers["forward_ms"], abs=0.001 * (depth + 2))
    assert sum(row["total_ms"] for row in layers["kinds"].values()) == pytest.approx(total, abs=0.001 * (depth + 8))


@pytest.mark.parametrize("n", [0, 1])
def test_a_pass_lies_inside_the_models_time_of_its_step(ran, n):
    layers = layers_of(ran, n)
    steps = [row for row in results.native(ran.session, "worker_step") if row["tokens"] and row["engine"] == n]
    timed = steps[: layers["passes"]]  # the rest ran after it was switched off
    assert len(steps) == 2 * len(timed) > 20
    assert 0 < layers["forward_ms"] <= sum(row["model_ns"] for row in timed) / 1e6


def test_the_files_have_what_the_report_has(ran):
    first = ran.session / "layer_timing.csv"
    other = ran.session / "engine_1" / "rank_0" / "layer_timing.csv"
    for n, file in enumerate((first, other)):
        rows = results.read_csv(file)
        assert list(rows[0]) == ["layer_idx", "kind", "count", "total_ms", "mean_ms", "share_pct"]
        kinds: dict[str, float] = {}
        for row in rows:
            kinds[row["kind"]] = kinds.get(row["kind"], 0) + float(row["total_ms"])
        for kind, row in layers_of(ran, n)["kinds"].items():
            assert kinds[kind] == pytest.approx(row["total_ms"], abs=0.001 * len(rows))
        assert json.loads(file.with_name("layer_summary.json").read_text()) == layers_of(ran, n)
    assert re.search(r"^modules: \d+ of \d+ layers$", json.loads((ran.session / "metadata.json").read_text())["layers"])


def test_the_page_has_the_values_of_the_report(ran):
    page = Path(results.profilemate("report", ran.session).stdout.strip()).read_text()
    data = json.loads(re.search(r'id="pm-data">(.*?)</script>', page, re.S).group(1))
    for shown, told in zip(data["engines"], ran.report["engines"], strict=True):
        for name in ("layers", "memory", "collectives"):
            assert shown[name] == told[name], name
        assert shown["device"] == told["ranks"][0]["device"]
        assert shown["memory_series"]["rows"] == told["memory"]["samples"]
