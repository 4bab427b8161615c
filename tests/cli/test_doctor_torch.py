"""doctor about torch's profiler: its folder, its room, variables that do nothing or too much."""

import json

import pytest


def findings(cli, *command, **env) -> dict[str, dict]:
    words = ("--", *command) if command else ()
    shown = cli("doctor", "--json", "--python", "/bin/false", *words, env=env)
    return {
        each["id"]: each
        for each in json.loads(shown.stdout)["checks"]
        if each["id"].startswith("torch-") or each["id"] == "launch-blocking"
    }


def test_nothing_is_said_where_nothing_asks_for_it(cli):
    assert findings(cli) == {}


def test_a_folder_that_will_be_made(cli):
    found = findings(cli, VLLM_TORCH_PROFILER_DIR=str(cli.tmp / "a" / "b"))
    assert found["torch-folder"]["status"] == "ok" and "which is made" in found["torch-folder"]["text"]


def test_traces_that_are_there_are_counted(cli):
    out = cli.tmp / "out"
    out.mkdir()
    (out / "rank0.1.pt.trace.json.gz").write_bytes(b"x" * (3 << 20))
    found = findings(cli, VLLM_TORCH_PROFILER_DIR=str(out))
    assert f"1 traces in {out} take 3.0 MB" in found["torch-size"]["text"]
    with open(out / "rank1.1.pt.trace.json", "wb") as file:
        file.truncate(2 << 30)
    assert findings(cli, VLLM_TORCH_PROFILER_DIR=str(out))["torch-size"]["status"] == "warning"


@pytest.mark.parametrize("below", ["", "/below/that"])
def test_a_folder_that_is_a_file(cli, below):
    (cli.tmp / "file").write_text("")
    found = findings(cli, VLLM_TORCH_PROFILER_DIR=f"{cli.tmp}/file{below}")
    assert found["torch-folder"]["status"] == "problem" and "is not a folder" in found["torch-folder"]["text"]


def test_a_relative_folder_and_an_address(cli):
    assert "torch-relative" in findings(cli, VLLM_TORCH_PROFILER_DIR="out")
    assert findings(cli, VLLM_TORCH_PROFILER_DIR="gs://bucket/x")["torch-folder"]["status"] == "note"


def test_switches_without_a_folder(cli):
    found = findings(cli, VLLM_TORCH_PROFILER_WITH_STACK="1")
    assert found["torch-no-folder"]["status"] == "warning" and list(found) == ["torch-no-folder"]


def test_the_command_line_wins(cli):
    command = ("vllm", "serve", "m", "--profiler-config.profiler=torch")
    assert "torch-config" in findings(cli, *command, VLLM_TORCH_PROFILER_DIR="/tmp")


def test_unusual_operation(cli):
    found = findings(cli, CUDA_LAUNCH_BLOCKING="1", VLLM_TRACE_FUNCTION="1", VLLM_NVTX_SCOPES_FOR_PROFILING="attention")
    assert found["launch-blocking"]["status"] == found["torch-trace-function"]["status"] == "warning"
    assert found["torch-scopes"]["status"] == "note"
    assert findings(cli, CUDA_LAUNCH_BLOCKING="0", VLLM_TRACE_FUNCTION="all") == {}
