"""A KV connector on real vLLM: vLLM's own one that stores to a folder; what was counted against what lies there and what it logged."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
import results
import serving
from safetensors.numpy import load_file

LENGTHS = (150, 300, 135)  # of more than a block of 128, which is what vLLM has on a CPU


@pytest.fixture(scope="module")
def ran(llama, folder):
    sessions, storage = folder / "sessions", folder / "storage"
    environment = serving.clean_environment(
        **serving.profiled(sessions, preset="full"), VLLM_ENABLE_V1_MULTIPROCESSING="0", PYTHONHASHSEED="0"
    )
    prompts = [{"prompt": [3 + (n * 11 + i * (n + 3)) % 40 for i in range(length)], "max_tokens": 4}
               for n, length in enumerate(LENGTHS)]  # fmt: skip
    connector = {"kv_connector": "ExampleConnector", "kv_role": "kv_both",
                 "kv_connector_extra_config": {"shared_storage_path": str(storage)}}  # fmt: skip
    spec = {
        "model": str(llama),
        "options": {"enforce_eager": True, "enable_prefix_caching": False, "max_num_seqs": 4, "kv_transfer_config": connector},
        "batches": [prompts, prompts],
    }
    result, errors = serving.run_llm(spec, environment)
    session = results.only_session(sessions)
    results.profilemate("export", session)
    report = json.loads(results.profilemate("report", "--json", session).stdout)
    return SimpleNamespace(
        session=session, tokens=result["tokens"], log=result["log"] + errors, storage=storage,
        found=report["engines"][0]["kv_transfers"], rows=results.native(session, "kv_transfer"),
        layers=json.loads((llama / "config.json").read_text())["num_hidden_layers"],
    )  # fmt: skip


def test_the_first_batch_is_stored_and_the_second_loaded(ran):
    assert ran.tokens[0] == ran.tokens[1]
    of = ran.found["connectors"]["ExampleConnector"]
    loaded = [int(n) for n in re.findall(r"Inject KV cache of (\d+) tokens", ran.log)]
    assert len(loaded) == len(LENGTHS) and ran.log.count("External Cache Hit!") == len(LENGTHS)
    assert (of["load"]["requests"], of["load"]["tokens"]) == (len(loaded), sum(loaded))
    assert of["lookup"]["calls"] == 2 * len(LENGTHS) and of["lookup"]["tokens"] == sum(loaded)


def test_bytes_are_those_of_the_files(ran):
    """Each prompt has a folder with a file per layer: what is loaded of it again."""
    files = list(ran.storage.rglob("*.safetensors"))
    assert len(files) == len(LENGTHS) * ran.layers
    stored = sum(array.nbytes for file in files for array in load_file(file).values())
    assert ran.found["connectors"]["ExampleConnector"]["load"]["bytes"] == stored


def test_each_layer_of_each_step_waits_and_saves(ran):
    steps = [row for row in results.native(ran.session, "worker_step") if row["tokens"]]
    of = ran.found["connectors"]["ExampleConnector"]
    assert of["save"]["calls"] == of["wait_load"]["calls"] == len(steps) * ran.layers
    assert of["save"]["steps"] == len(steps) and of["save"]["failed_steps"] == 0
    assert of["start_load"]["calls"] >= len(steps) and of["wait_save"]["calls"] >= len(steps)
    numbers = {row["step"]: row for row in steps}
    for row in ran.rows:
        if row["operation"] in (3, 4):  # wait_load, save: inside of their step
            step = numbers[row["step"]]
            assert not row["flags"] and step["start_ns"] <= row["start_ns"] <= step["start_ns"] + step["total_ns"]


def test_the_files_of_the_session(ran):
    rows = results.read_csv(ran.session / "kv_transfer_timing.csv")
    assert list(rows[0]) == ["timestamp_sec", "connector", "operation", "calls", "tokens", "duration_ms"]
    assert {row["operation"] for row in rows} >= {"lookup", "load", "start_load", "wait_load", "save", "wait_save", "finished"}
    assert json.loads((ran.session / "kv_transfer_summary.json").read_text()) == ran.found
    text = results.profilemate("report", "--text", ran.session).stdout
    assert "KV connectors, ms per step" in text and "ExampleConnector" in text
