"""profilemate doctor about the model and the front end of a command: models that vLLM does not run are named as such."""

import json

import pytest


def config(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(text if isinstance(text, str) else json.dumps(text))
    return folder


@pytest.fixture
def checks(cli, tmp_path):
    """What doctor says about a command, by id."""

    def ask(*command, **env):
        shown = cli("doctor", "--json", "--", *command, env={"HF_HOME": str(tmp_path / "hf"), **env})
        assert shown.returncode in (0, 1) and shown.stderr == ""
        found = json.loads(shown.stdout)["checks"]
        return {check["id"]: check for check in found if check["section"] in ("Model", "Front end")}

    return ask


def model(tmp_path, architecture):
    return str(config(tmp_path / architecture, {"model_type": "x", "architectures": [architecture], "d_model": 8}))


def test_t5_is_named_as_what_no_vllm_runs(checks, tmp_path):
    path = model(tmp_path, "T5ForConditionalGeneration")
    for command in (("vllm", "serve", path), ("python", "-m", "vllm.entrypoints.openai.api_server", "--model", path)):
        check = checks(*command)["model-unsupported"]
        assert check["status"] == "problem"
        assert check["text"].startswith(f"{path} is a T5ForConditionalGeneration: no vLLM that ProfileMate knows runs those")
        assert check["advice"]


def test_bart_needs_the_plug_in(checks, tmp_path):
    path = model(tmp_path, "BartForConditionalGeneration")
    check = checks("vllm", "serve", f"--model={path}")["model-unsupported"]
    assert check["status"] == "warning"
    assert "up to 0.10.2, and since then with a plug-in only" in check["text"] and "bart-plugin" in check["advice"]


@pytest.mark.parametrize("architecture", ["WhisperForConditionalGeneration", "LlamaForCausalLM"])
def test_models_that_run_have_no_finding(checks, tmp_path, architecture):
    assert checks("vllm", "serve", model(tmp_path, architecture)) == {}


def test_a_model_of_the_local_cache(checks, tmp_path):
    hub = tmp_path / "hf" / "hub" / "models--google--flan-t5-base"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("abc123")
    config(hub / "snapshots" / "abc123", {"architectures": ["T5ForConditionalGeneration"]})
    assert "model-unsupported" in checks("vllm", "serve", "google/flan-t5-base")
    assert checks("vllm", "serve", "google/flan-t5-large") == {}


def test_anything_may_be_in_a_config(checks, tmp_path):
    for i, text in enumerate(("", "[]", "{", '{"architectures": [', '{"architectures": "T5ForConditionalGeneration')):
        path = str(config(tmp_path / f"m{i}", text))
        assert set(checks("vllm", "serve", path)) == {"model-config"}
    for i, text in enumerate(('{"architectures": []}', '{"architectures": null}', '{"architectures": ["' + "x" * 5000 + '"]}')):
        assert checks("vllm", "serve", str(config(tmp_path / f"n{i}", text))) == {}
    assert checks("vllm", "serve") == {} and checks("vllm", "serve", "/no/such/folder") == {}


def test_the_rust_front_end_is_told(checks, tmp_path):
    check = checks("vllm", "serve", "m", VLLM_USE_RUST_FRONTEND="1")["frontend-rust"]
    assert check["status"] == "note" and "tokenization, detokenization and admission are not seen" in check["text"]
    assert checks("vllm", "serve", "m", VLLM_USE_RUST_FRONTEND="0") == {}
