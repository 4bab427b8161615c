"""Function tracing of real vLLM: the calls of Scheduler.schedule are the engine's steps; `all` runs to its end and
changes no token; what is not asked for is not traced."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload

LIMITS = {"max_num_batched_tokens": 128, "max_num_seqs": 8, "seed": 7, "enforce_eager": True}
SCHEDULER = "vllm.v1.core.sched.scheduler"


def program(*arguments) -> str:
    return subprocess.run([serving.PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=600).stdout


def run(llama, sessions, setting: str, **extra: str):
    environment = serving.clean_environment(**extra)
    environment.update(serving.profiled(sessions, preset="full"), VLLM_TRACE_FUNCTION=setting)
    spec = {"model": str(llama), "options": LIMITS, "batches": [workload(seed=5, requests=16)]}
    result, errors = serving.run_llm(spec, environment)
    session = results.only_session(sessions)
    shown = json.loads(program("functions", "--format", "json", session))
    rows = [json.loads(line) for line in program("export", "--format", "json", session).splitlines()]
    functions: dict[str, dict] = {}
    for row in shown["functions"]:
        functions.setdefault(f"{row['module']}.{row['name']}", row)
    return SimpleNamespace(
        tokens=result["tokens"],
        errors=errors,
        session=session,
        processes=shown["processes"],
        functions=functions,
        steps=sum(row["table"] == "sched_step" for row in rows),
        updates=sum(row["table"] == "update_step" for row in rows),
    )


@pytest.fixture(scope="module")
def scheduler(llama, folder):
    """The scheduler's functions only, with an engine core in a process of its own, which is killed at the end."""
    return run(llama, folder / "sessions-scheduler", SCHEDULER)


@pytest.fixture(scope="module")
def everything(llama, folder):
    return run(llama, folder / "sessions-all", "all", VLLM_ENABLE_V1_MULTIPROCESSING="0")


def test_calls_of_schedule_are_the_engines_steps(scheduler):
    assert scheduler.steps > 50
    assert scheduler.functions[f"{SCHEDULER}.Scheduler.schedule"]["calls"] == scheduler.steps
    assert scheduler.functions[f"{SCHEDULER}.Scheduler.update_from_output"]["calls"] == scheduler.updates
    assert scheduler.functions[f"{SCHEDULER}.Scheduler.add_request"]["calls"] == 16
    assert {row["module"] for row in scheduler.functions.values()} == {SCHEDULER}


def test_every_process_of_the_server_traces(scheduler):
    assert sorted(process["role"] for process in scheduler.processes) == ["engine", "frontend", "worker"]
    assert all(process["calls_without_end"] == process["calls_without_path"] == 0 for process in scheduler.processes)


def test_all_traces_everything_and_changes_no_token(scheduler, everything):
    assert everything.tokens == scheduler.tokens
    assert everything.functions[f"{SCHEDULER}.Scheduler.schedule"]["calls"] == everything.steps > 50
    assert {"torch", "vllm", "transformers"} <= {row["module"].split(".")[0] for row in everything.functions.values()}
    assert len(everything.functions) > 1000
    assert everything.functions["vllm.v1.engine.core.EngineCore.step"]["calls"] >= everything.steps


def test_all_of_a_start_has_room_in_the_table(everything):
    (process,) = everything.processes
    assert process["functions"] > 1000 and process["paths"] > 10000
    assert process["calls_without_path"] == process["calls_without_function"] == 0


def test_the_timeline_and_the_flame_graph_have_the_steps(everything):
    events = json.loads(program("functions", "--format", "chrome", everything.session))["traceEvents"]
    assert sum(event["ph"] == "X" and event["name"] == "EngineCore.step" for event in events) > 50
    stacks = program("functions", "--format", "folded", everything.session).splitlines()
    assert any(";vllm.v1.engine.core.EngineCore.step" in stack for stack in stacks)
