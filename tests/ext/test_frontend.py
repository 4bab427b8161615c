"""The front end's probe: what it reads of vLLM's objects, and what it leaves alone, on classes that look like vLLM's."""

import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **fake.FILES,
    "vllm/renderers/__init__.py": "",
    "vllm/renderers/base.py": """
        class BaseRenderer:
            def _tokenize_prompt(self, prompt, params):
                if prompt["prompt"] == "bad":
                    raise ValueError("bad")
                return {"prompt": prompt["prompt"], "prompt_token_ids": list(range(len(prompt["prompt"])))}

            async def _tokenize_prompt_async(self, prompt, params):
                return self._tokenize_prompt(prompt, params)
        """,
    "vllm/inputs/__init__.py": "",
    "vllm/inputs/preprocess.py": """
        class InputPreprocessor:
            def _tokenize_prompt(self, prompt, tokenization_kwargs=None):
                return [1, 2, 3]
        """,
    "vllm/v1/engine/output_processor.py": """
        class OutputProcessor:
            def add_request(self, request, prompt, parent_req=None, request_index=0, queue=None):
                pass

            def process_outputs(self, engine_core_outputs, engine_core_timestamp=None, iteration_stats=None):
                return object()
        """,
}
BEGIN = """
import asyncio, time
from types import SimpleNamespace as N
from vllm.renderers.base import BaseRenderer
from vllm.inputs.preprocess import InputPreprocessor
from vllm.v1.engine.output_processor import OutputProcessor
renderer, processor = BaseRenderer(), OutputProcessor()
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script; returns the rows of frontend_op and the session's folder (None: there is none)."""
    package = fake.write(tmp_path / "package", FILES)

    def run(script, **extra):
        env = fake.environment(
            tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra
        )
        fake.run(fake.PYTHON, ["-c", BEGIN + textwrap.dedent(script)], env, tmp_path)
        if not (found := fake.sessions(tmp_path)):
            return [], None
        command = [PROGRAM, "export", "--quiet", "--format", "json", found[0]]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [row for row in map(json.loads, lines) if row["table"] == "frontend_op"], found[0]

    return run


def test_a_prompt_is_counted_once_by_whatever_way_it_comes(run):
    rows, session = run("""
        renderer._tokenize_prompt({"prompt": "seven.."}, None)
        asyncio.run(renderer._tokenize_prompt_async(prompt={"prompt": "five."}, params=None))
        InputPreprocessor()._tokenize_prompt("x")
        try:
            renderer._tokenize_prompt({"prompt": "bad"}, None)
        except ValueError:
            pass
    """)
    assert [(row["op"], row["tokens"], row["flags"]) for row in rows] == [(0, 7, 0), (0, 5, 0), (0, 3, 0), (0, 0, 1)]
    (process,) = fake.records(session)
    assert process.roles & 1  # a front end


def test_outputs_and_their_delay(run):
    rows, _ = run("""
        processor.process_outputs([1, 2, 3], time.monotonic() - 0.25)
        processor.process_outputs([1], engine_core_timestamp=time.monotonic() + 60)
        processor.process_outputs([1])
        processor.process_outputs([1], "noon")
        processor.process_outputs([])
    """)
    assert [(row["op"], row["outputs"]) for row in rows] == [(1, 3), (1, 1), (1, 1), (1, 1)]
    assert 0.25e9 <= rows[0]["delay_ns"] < 60e9
    assert [row["delay_ns"] for row in rows[1:]] == [0, 0, 0]


def test_admission_is_the_way_from_arrival(run):
    rows, _ = run("""
        processor.add_request(N(arrival_time=time.time() - 0.5, prompt_token_ids=[1, 2]), None)
        processor.add_request(request=N(arrival_time=time.time() - 1, prompt_token_ids=None), prompt=None)
        processor.add_request(N(arrival_time=time.time() + 9), None)
        processor.add_request(N(arrival_time=0.0), None)
        processor.add_request(N(), None)
    """)
    assert [(row["op"], row["tokens"]) for row in rows] == [(2, 2), (2, 0)]
    assert 0.5e9 <= rows[0]["dur_ns"] < 60e9 and 1e9 <= rows[1]["dur_ns"] < 60e9


def test_the_rust_front_end_leaves_a_note(run):
    script = """
        from vllm.engine.arg_utils import EngineArgs
        EngineArgs().create_engine_config()
    """
    for value, told in (("1", True), ("0", False)):
        _, session = run(script, VLLM_USE_RUST_FRONTEND=value)
        (process,) = fake.records(session)
        assert ("note.frontend" in process.attributes) == told
        if told:
            shown = subprocess.run([PROGRAM, "doctor", session], capture_output=True, text=True).stdout
            assert "vLLM's Rust front end serves, and tokenization, detokenization and admission are not seen" in shown
            subprocess.run(["rm", "-r", session], check=True)
