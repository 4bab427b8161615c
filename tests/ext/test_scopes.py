"""Scopes: NVTX ranges for a tool that takes them by NVTX's injection interface (nvtx_tool.c), and spans of the session."""

import json
import subprocess
from pathlib import Path

import fake
import pytest

PROGRAM = fake.BUILD / "bin" / "profilemate"
TOOL = fake.BUILD / "tests" / "nvtx_tool.so"
FILES = {
    "vllm/v1/worker/gpu_worker.py": """
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        class Worker:
            def __init__(self, vllm_config, local_rank=0, rank=0, distributed_init_method="", is_driver_worker=False):
                self.rank, self.runner = rank, GPUModelRunner()

            def compile_or_warm_up_model(self):
                self.runner._model_forward()

            def execute_model(self, scheduler_output):
                self.runner._model_forward()
                if scheduler_output.total_num_scheduled_tokens == 99:
                    raise ValueError("no")

            def sample_tokens(self, grammar_output):
                return "tokens"
        """,
    "vllm/v1/worker/gpu_model_runner.py": """
        from vllm.model_executor.layers.attention.attention import Attention

        class GPUModelRunner:
            def __init__(self):
                self.layers = [Attention(), Attention()]

            def _model_forward(self):
                for layer in self.layers:
                    layer.impl.forward()
        """,
    "vllm/model_executor/__init__.py": "",
    "vllm/model_executor/layers/__init__.py": "",
    "vllm/model_executor/layers/attention/__init__.py": "",
    "vllm/model_executor/layers/attention/attention.py": """
        import os

        class Impl:
            def forward(self):
                pass

        class Attention:
            def __init__(self):
                self.impl = Impl()
                self.use_direct_call = os.environ.get("DIRECT") == "1"
        """,
    "vllm/v1/core/__init__.py": "",
    "vllm/v1/core/sched/__init__.py": "",
    "vllm/v1/core/sched/scheduler.py": """
        class Scheduler:
            def schedule(self):
                return "output"

            def update_from_output(self, scheduler_output, model_runner_output):
                return {}
        """,
}
SCRIPT = """
from types import SimpleNamespace as N
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.worker.gpu_worker import Worker

def output(new, *tokens):
    requests = {str(i): n for i, n in enumerate(tokens)}
    return N(num_scheduled_tokens=requests, total_num_scheduled_tokens=sum(tokens), scheduled_new_reqs=["n"] * new,
             scheduled_spec_decode_tokens={}, scheduled_encoder_inputs={}, finished_req_ids=set())

worker, scheduler = Worker(EngineArgs().create_engine_config()), Scheduler()
worker.compile_or_warm_up_model()
for step in (output(1, 24, 1), output(0, 1, 1), output(0, 1)):
    scheduler.schedule()
    worker.execute_model(step)
    worker.sample_tokens(None)
    scheduler.update_from_output(step, None)
try:
    worker.execute_model(output(1, 99))
except ValueError:
    print("raised")
print(type(worker.runner.layers[0].impl).__dict__["forward"].__qualname__)
"""
STEPS = ["step 0 prefill: 2 requests, 25 tokens", "step 1 decode: 2 requests, 2 tokens", "step 2 decode: 1 request, 1 token"]
FAILED = "step 3 prefill: 1 request, 99 tokens"


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", {**fake.FILES, **FILES})
    log = tmp_path / "nvtx.log"

    def do(python=fake.PYTHON, tool=TOOL, **settings):
        if tool:
            settings.update(NVTX_INJECTION64_PATH=str(tool), NVTX_TOOL_LOG=str(log))
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", **settings)
        done = fake.run(python, ["-c", SCRIPT], env, tmp_path)
        assert done.stdout.splitlines() == ["raised", "Impl.forward"]
        (session,) = fake.sessions(tmp_path)
        (record,) = fake.records(session)
        return log.read_text().splitlines() if log.exists() else [], record.attributes, session

    return do


def tree(lines):
    """The labels, each with those within it; every push has its pop on its thread."""
    top, stack = [], []
    for line in lines:
        thread, word, *rest = line.split(" ", 5)
        if word == "push":
            node = (rest[-1] if rest[0] != "-" else rest[-1], [])
            (stack[-1][1] if stack else top).append(node)
            stack.append(node)
        elif word == "pop":
            stack.pop()
        else:
            assert word == "domain", line
    assert not stack
    return top


def expected(attention=False, scheduler=True):
    layers = [("attention", []), ("attention", [])] if attention else []
    found = []
    for label in STEPS:
        found += [("scheduling", [])] * scheduler
        found += [(label, [("model_forward", layers)]), ("sampling", [])]
        found += [("output_processing", [])] * scheduler
    return [*found, (FAILED, [("model_forward", layers)])]


def spans(session):
    shown = subprocess.run([PROGRAM, "export", "--format=json", session], capture_output=True, text=True, check=True)
    return [row for row in map(json.loads, shown.stdout.splitlines()) if row["table"] == "scope_span"]


def test_ranges_of_every_step_with_its_batch(run, python):
    lines, attributes, session = run(python, VLLM_PROFILING_NVTX="1")
    assert tree(lines) == expected()
    assert [line.split(" ", 1)[1] for line in lines].count("domain ProfileMate") == 1
    assert not [line for line in lines if "odd" in line]
    pushed = next(line for line in lines if "step 0" in line)
    assert pushed.split(" ")[2:5] == ["ProfileMate", "ff4c78a8", "25"]
    assert "note.nvtx" not in attributes and spans(session) == []


def test_the_guides_names(run, python):
    lines, attributes, session = run(
        python,
        VLLM_NVTX_SCOPES_FOR_PROFILING="model_forward, attention,sampling",
        VLLM_CUSTOM_SCOPES_FOR_PROFILING="attention,scheduling,step",
    )
    assert tree(lines) == expected(attention=True, scheduler=False)
    found = spans(session)
    assert [row["name"] for row in found].count("attention") == 2 * 4
    assert [row["name"] for row in found].count("scheduling") == 3
    assert [(row["step"], row["tokens"]) for row in found if row["name"] == "step"] == [(0, 25), (1, 2), (2, 1), (3, 99)]
    chrome = subprocess.run([PROGRAM, "export", "--format=chrome", session], capture_output=True, text=True, check=True)
    names = [event["name"] for event in json.loads(chrome.stdout)["traceEvents"] if event["ph"] == "X"]
    assert names.count("attention") == 8 and names.count("scheduling") == 3, "the timeline shows the spans by name"


def test_a_tool_without_domains(run):
    lines, _, _ = run(VLLM_PROFILING_NVTX="1", NVTX_TOOL_MODE="core")
    assert tree(lines) == expected() and not [line for line in lines if "domain" in line]


@pytest.mark.parametrize(
    "extra, tool, why",
    [
        ({}, None, "no tool is attached (NVTX_INJECTION64_PATH is not set)"),
        ({}, Path("/does/not/exist.so"), "the tool's library cannot be loaded"),
        ({}, PROGRAM.parent.parent / "site" / "sitecustomize.abi3.so", "has no InitializeInjectionNvtx2"),
        ({"NVTX_TOOL_MODE": "refuse"}, TOOL, "refused"),
        ({"NVTX_TOOL_MODE": "none"}, TOOL, "takes no ranges"),
    ],
)
def test_no_tool_is_no_failure(run, extra, tool, why):
    lines, attributes, _ = run(tool=tool, VLLM_PROFILING_NVTX="1", **extra)
    assert lines == [] and why in attributes["note.nvtx"]


def test_attention_that_is_traced_is_left_alone(run):
    lines, attributes, _ = run(VLLM_NVTX_SCOPES_FOR_PROFILING="all", DIRECT="1")
    assert tree(lines) == expected(attention=False)
    assert "torch.compile traces it" in attributes["note.scope.attention"]


def test_a_name_that_is_none(run):
    lines, attributes, _ = run(VLLM_NVTX_SCOPES_FOR_PROFILING="sampling,everything")
    assert "no scope is called everything" in attributes["note.scopes"] and len(tree(lines)) == 3 * 2 + 1


def test_off_is_off(run):
    lines, attributes, session = run()
    assert lines == [] and spans(session) == [] and not [key for key in attributes if "nvtx" in key and "setting" not in key]
