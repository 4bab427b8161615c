"""Sampling on classes that look like vLLM's: which settings a batch asks for, when that is told, and what becomes of it.

(What a setting costs: tests/unit/test_sampling_cost.c. A real server: tests/e2e/test_sampling_server.py.)
"""

import csv
import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **fake.FILES,
    "vllm/v1/core/__init__.py": "",
    "vllm/v1/core/sched/__init__.py": "",
    "vllm/v1/core/sched/scheduler.py": """
        from types import SimpleNamespace as N

        DEFAULTS = dict(
            temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, seed=None, repetition_penalty=1.0, presence_penalty=0.0,
            frequency_penalty=0.0, logprobs=None, logprob_token_ids=None, prompt_logprobs=None, structured_outputs=None,
            logit_bias=None, allowed_token_ids=None, bad_words=None, min_tokens=0,
        )

        class Request:
            def __init__(self, request_id, params):
                self.request_id, self.num_prompt_tokens, self.num_tokens = request_id, 1, 1
                self.num_computed_tokens = 0
                self.sampling_params = params

        class Scheduler:
            def __init__(self):
                self.requests, self.running, self.waiting = {}, [], []

            def get_request_counts(self):
                return len(self.running), 0

            def add(self, request_id, **params):
                self.requests[request_id] = Request(request_id, N(**(DEFAULTS | params)))

            def schedule(self):
                scheduled, finished = self.plan
                for name in scheduled:
                    self.requests[name].num_computed_tokens += 1
                    self.requests[name].num_tokens += 1
                return N(num_scheduled_tokens=scheduled, scheduled_spec_decode_tokens=self.drafts, finished_req_ids=finished,
                         total_num_scheduled_tokens=sum(scheduled.values()), scheduled_new_reqs=[])

            def update_from_output(self, scheduler_output, model_runner_output):
                return {}
        """,
    "vllm/v1/structured_output/__init__.py": """
        class StructuredOutputManager:
            def grammar_bitmask(self, requests, structured_output_request_ids, scheduled_spec_decode_tokens):
                return object() if structured_output_request_ids else None
        """,
    "vllm/v1/worker/gpu_model_runner.py": """
        class GPUModelRunner:
            def _model_forward(self):
                pass

            def _sample(self, logits, spec_decode_metadata):
                return logits
        """,
    "vllm/v1/worker/gpu_worker.py": """
        from types import SimpleNamespace as N
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        class Worker:
            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank
                self.device_config = N(device_type="cpu")
                self.model_runner = GPUModelRunner()

            def execute_model(self, scheduler_output):
                self.model_runner._model_forward()

            def sample_tokens(self, grammar_output):
                self.model_runner._sample(1, None)
                return N()
        """,
}
BEGIN = """
from types import SimpleNamespace as N
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.worker.gpu_worker import Worker

worker = Worker(N(), 0, 0, "tcp://")
scheduler, manager = Scheduler(), StructuredOutputManager()

def step(*names, finished=(), drafts=None, grammars=()):
    keys = {name: name for name in scheduler.requests}
    scheduler.plan, scheduler.drafts = ({keys[name]: 1 for name in names}, set(finished)), drafts or {}
    output = scheduler.schedule()
    manager.grammar_bitmask(scheduler.requests, list(grammars), {})
    worker.execute_model(output)
    worker.sample_tokens(None)
    scheduler.update_from_output(output, N(sampled_token_ids=[[1]] * len(names), req_id_to_index={}))
    for name in finished:
        del scheduler.requests[name]
"""


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", FILES)

    def run(script, python=fake.PYTHON, **extra):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra)
        fake.run(python, ["-c", BEGIN + textwrap.dedent(script)], env, tmp_path)
        (session,) = fake.sessions(tmp_path)
        exported = subprocess.run([PROGRAM, "export", "--format", "seed", session], capture_output=True, text=True)
        assert exported.returncode == 0, exported.stderr
        return session

    return run


def rows(session):
    with open(session / "sampling_timing.csv", newline="") as file:
        return [(row["strategy"], int(row["batch_size"])) for row in csv.DictReader(file)]


def native(session, table):
    done = subprocess.run([PROGRAM, "export", "--quiet", "--format", "json", session], capture_output=True, text=True, check=True)
    return [row for row in map(json.loads, done.stdout.splitlines()) if row["table"] == table]


# A request's parameters, and the strategy of a batch that it is alone in.
ASKED = {
    "greedy": dict(temperature=0.0),
    "greedy+logprobs": dict(temperature=0.0, top_p=0.5, top_k=3, min_p=0.1, seed=4, logprobs=0),  # no effect on the likeliest
    "temperature": dict(),
    "temperature+top_p": dict(top_p=0.9),
    "temperature+top_k": dict(top_k=20),
    "temperature+min_p": dict(min_p=0.05),
    "temperature+seed": dict(seed=0),
    "temperature+top_p+top_k+penalties": dict(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05),
    "temperature+penalties": dict(presence_penalty=-0.5),
    "greedy+penalties": dict(temperature=0, frequency_penalty=1),
    "temperature+logprobs": dict(logprob_token_ids=[1]),
    "temperature+prompt_logprobs": dict(prompt_logprobs=1),
    "temperature+structured_output": dict(structured_outputs=object()),
    "temperature+token_rules": dict(logit_bias={1: 2.0}, bad_words=[]),
    "greedy+token_rules": dict(temperature=0.0, min_tokens=2),
}


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_what_a_request_asks_for(run, python):
    script = "".join(
        f"scheduler.add('r{i}', {', '.join(f'{key}={value!r}' for key, value in params.items())})\n"
        f"step('r{i}')\nstep('r{i}')\nstep('r{i}', finished=['r{i}'])\n"
        for i, params in enumerate(ASKED.values())
    ).replace(repr(ASKED["temperature+structured_output"]["structured_outputs"]), "object()")
    session = run(script, python=fake.PYTHONS[python])
    assert rows(session) == [(strategy, 1) for strategy in ASKED for _ in range(3)]
    mixes = native(session, "sampling_mix")
    assert [mix["step"] for mix in mixes] == list(range(0, 3 * len(ASKED), 3)), "only where it changes"


def test_the_mix_of_a_batch_and_what_becomes_of_it(run):
    session = run(
        """
        scheduler.add("a", temperature=0.0)
        scheduler.add("b", top_p=0.5)
        scheduler.add("c", temperature=0.0)
        step("a")
        step("a", "b")
        step("a", "b")
        step("a", "b", "c")
        step("b", "c")                       # c takes a's place: the settings are the same as two steps before
        step("b", "c", drafts={"b": [7]})    # drafts are the step's
        step("c", finished=["b"])
        """
    )
    both = "greedy+temperature+top_p"
    assert rows(session) == [
        ("greedy", 1), (both, 2), (both, 2), (both, 3), (both, 2), (f"{both}+spec_verification", 2), ("greedy", 1),
    ]  # fmt: skip
    found = [(mix["step"], mix["requests"], mix["greedy"], mix["temperature"], mix["top_p"]) for mix in native(session, "sampling_mix")]
    assert found == [(0, 1, 1, 0, 0), (1, 2, 1, 1, 1), (3, 3, 2, 1, 1), (4, 2, 1, 1, 1), (6, 1, 1, 0, 0)]
    summary = json.loads((session / "sampling_summary.json").read_text())
    assert summary["steps"] == 7 and summary["clock"] == "wall"
    assert {name: strategy["steps"] for name, strategy in summary["strategies"].items()} == {
        "greedy": 2, both: 4, f"{both}+spec_verification": 1,
    }  # fmt: skip
    settings = summary["settings"]
    assert (settings["greedy"]["steps"], settings["greedy"]["request_steps"]) == (7, 8)
    assert (settings["top_p"]["steps"], settings["top_p"]["request_steps"]) == (5, 5)
    assert settings["top_p"]["together_with"] == ["temperature"]
    assert settings["spec_verification"]["steps"] == 1 and settings["min_p"]["cost"] == "never used"
    assert settings["top_p"]["cost"] == "not matched" and settings["top_p"]["cost_ms_per_step"] is None
    text = subprocess.run([PROGRAM, "report", "--text", session], capture_output=True, text=True, check=True).stdout
    section = text[text.index("Sampling, ms (wall time)") :].split("\n\n")[0]
    assert both in section and "as one with top_p" in section
    assert all(len(line) <= 80 for line in section.splitlines()), section


def test_grammars_are_counted_where_they_are(run):
    session = run(
        """
        scheduler.add("a", structured_outputs=object())
        scheduler.add("b")
        step("b")
        step("a", "b", grammars=["a"])
        step("a", "b", grammars=["a"])
        """
    )
    assert [(fact["step"], fact["requests"]) for fact in native(session, "grammar_bitmask")] == [(1, 1), (2, 1)]
    bitmasks = json.loads((session / "sampling_summary.json").read_text())["grammar_bitmasks"]
    assert (bitmasks["count"], bitmasks["requests"]) == (2, 2) and bitmasks["engine_total_ms"] >= 0


@pytest.mark.parametrize("params", ["None", "3", "object()", "N(temperature='warm')", "N()"])
def test_what_cannot_be_read_is_unknown(run, params):
    session = run(
        f"""
        scheduler.add("a")
        scheduler.requests["a"].sampling_params = {params}
        step("a")
        step("a")
        """
    )
    assert rows(session) == [("none" if params == "None" else "unknown", 1)] * 2  # None: a pooling model's


def test_off_there_is_nothing(run):
    session = run("scheduler.add('a')\nstep('a')", VLLM_PROFILING_ENABLE_SAMPLING_TIMING="0")
    assert not list(session.glob("sampling_*"))
    assert "Sampling" not in subprocess.run([PROGRAM, "report", "--text", session], capture_output=True, text=True).stdout


def test_alone_it_brings_the_steps_that_it_needs(run):
    others = ("FORWARD_PASS_TIMING", "CPU_TIMING", "BATCH_UTILIZATION_TRACKING", "PREEMPTION_TRACKING", "ENCODER_DECODER_TIMING",
              "CUDA_GRAPH_TRACKING", "SPEC_DECODE_TRACKING", "MOE_EXPERT_TRACKING")  # fmt: skip
    session = run("scheduler.add('a', temperature=0)\nstep('a')\nstep('a')",
                  **{f"VLLM_PROFILING_ENABLE_{name}": "0" for name in others})  # fmt: skip
    assert rows(session) == [("greedy", 1)] * 2
