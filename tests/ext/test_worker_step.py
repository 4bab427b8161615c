"""Steps of a worker on classes that look like vLLM's: the older and the newer model runner, outputs that are known only
later and in any order, parts that are there once or several times, and calls that fail."""

import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **fake.FILES,
    "vllm/v1/worker/gpu_model_runner.py": """
        class GPUModelRunner:
            def _model_forward(self, tokens):
                if tokens == 13:
                    raise RuntimeError("the model fails")
            def _sample(self, logits):
                if logits == 17:
                    raise RuntimeError("sampling fails")
            def propose_draft_token_ids(self):
                pass
            def _bookkeeping_sync(self):
                pass

        class AsyncGPUModelRunnerOutput:
            def get_output(self):
                return []
        """,
    "vllm/v1/worker/gpu/__init__.py": "",
    "vllm/v1/worker/gpu/async_utils.py": """
        class StepTimingCollector:
            def forward_start(self):
                pass

        class AsyncOutput:
            def get_output(self):
                return []
        """,
    "vllm/v1/worker/gpu/kv_connector.py": """
        class KVConnector:
            def pre_forward(self, scheduler_output):
                pass
            def finish_forward(self):
                pass
        """,
    "vllm/v1/worker/gpu/model_runner.py": """
        class GPUModelRunner:
            def sample(self, logits):
                pass
            def postprocess_sampled(self):
                pass
        """,
    "vllm/v1/worker/gpu/spec_decode/__init__.py": "",
    "vllm/v1/worker/gpu/spec_decode/dflash/__init__.py": "",
    "vllm/v1/worker/gpu/spec_decode/dflash/speculator.py": """
        class DFlashSpeculator:
            def propose(self):
                pass
        """,
    "vllm/v1/worker/gpu_worker.py": """
        class Worker:
            runner = None  # the older, the newer, or one whose steps have no sample_tokens

            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank

            def execute_model(self, scheduler_output):
                return self.runner.execute(scheduler_output.total_num_scheduled_tokens)

            def sample_tokens(self, grammar=None):
                return self.runner.sampled()
        """,
}
BEGIN = """
from types import SimpleNamespace as N
from vllm.v1.worker.gpu_worker import Worker
from vllm.v1.worker import gpu_model_runner as older
from vllm.v1.worker.gpu import async_utils, kv_connector, model_runner as newer
from vllm.v1.worker.gpu.spec_decode.dflash.speculator import DFlashSpeculator

class Older(older.GPUModelRunner):
    tokens = 0
    def execute(self, tokens):
        self.tokens = tokens
        self._model_forward(tokens)
    def sampled(self):
        self._sample(self.tokens)
        self._bookkeeping_sync()
        self.propose_draft_token_ids()
        return older.AsyncGPUModelRunnerOutput()

class Newer(newer.GPUModelRunner):
    timing, connector, speculator = async_utils.StepTimingCollector(), kv_connector.KVConnector(), DFlashSpeculator()
    def execute(self, tokens):
        self.timing.forward_start()
        self.connector.pre_forward(None)
        self.connector.finish_forward()
    def sampled(self):
        self.sample(1)
        self.postprocess_sampled()
        self.speculator.propose()
        return async_utils.AsyncOutput()

class Pooling(older.GPUModelRunner):
    def execute(self, tokens):
        self._model_forward(tokens)
        return N(pooler_output=[])

worker = Worker(None, 0, 0, "tcp://")

def step(runner, tokens=2):
    worker.runner = runner
    output = worker.execute_model(N(num_scheduled_tokens={"r": tokens}, total_num_scheduled_tokens=tokens,
                                    scheduled_new_reqs=[], scheduled_spec_decode_tokens={}))
    return worker.sample_tokens() if output is None else output
"""
HAS_MODEL, HAS_SAMPLE, ASYNC, FAILED = 1, 2, 4, 16


class Run:
    def __init__(self, base):
        (self.session,) = fake.sessions(base)
        (process,) = fake.records(self.session)
        self.attributes = process.attributes
        done = subprocess.run(
            [PROGRAM, "export", "--quiet", "--format", "json", self.session], capture_output=True, text=True, check=True
        )
        self.rows = [json.loads(line) for line in done.stdout.splitlines()]

    def table(self, name):
        return [row for row in self.rows if row["table"] == name]


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", FILES)

    def run(script, python=fake.PYTHON, **extra):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra)
        fake.run(python, ["-c", BEGIN + textwrap.dedent(script)], env, tmp_path)
        return Run(tmp_path)

    return run


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_outputs_that_are_known_later(run, python):
    """Two in flight, fetched in another order than they were made; one is fetched twice, one never."""
    done = run(
        """
        one, two, three = step(Older()), step(Older()), step(Newer())
        two.get_output(), one.get_output(), one.get_output()
        four = step(Newer())
        four.get_output()
        """,
        fake.PYTHONS[python],
    )
    steps = done.table("worker_step")
    assert [row["step"] for row in steps] == [0, 1, 2, 3]
    assert all(row["flags"] & ASYNC for row in steps) and all(row["sync_ns"] == 0 for row in steps)
    known = done.table("worker_sync")
    assert [row["step"] for row in known] == [1, 0, 3]
    ends = {row["step"]: row["start_ns"] + row["total_ns"] for row in steps}
    assert all(row["sync_at_ns"] >= ends[row["step"]] for row in known)


def test_both_runners_have_the_parts_of_a_step(run):
    done = run("step(Older())\nstep(Newer())\nstep(Newer(), 5)", CUDA_LAUNCH_BLOCKING="1")
    assert done.attributes["cuda_launch_blocking"] == "1", "what times of launches mean hangs on it"
    for row, runner in zip(done.table("worker_step"), (1, 2, 2), strict=True):
        assert row["flags"] & (HAS_MODEL | HAS_SAMPLE) == HAS_MODEL | HAS_SAMPLE and row["runner"] == runner
        start, end = row["start_ns"], row["start_ns"] + row["total_ns"]
        assert start <= row["model_ns_at"] and row["model_ns_at"] + row["model_ns"] <= end
        parts = [(row[f"{part}_at_ns"], row[f"{part}_ns"]) for part in ("sampler", "bookkeep", "draft")]
        assert all(ns > 0 and at + ns <= row["total_ns"] for at, ns in parts), parts
        assert parts[0][0] + parts[0][1] <= min(parts[1][0], parts[2][0]), "sampling comes first"


def test_a_rank_whose_steps_end_without_sampling(run):
    done = run(
        """
        class Last(Older):
            def sampled(self):
                raise AssertionError("nobody asks this rank")
        worker.runner = Last()
        for tokens in (2, 3):
            worker.execute_model(N(num_scheduled_tokens={"r": tokens}, total_num_scheduled_tokens=tokens,
                                   scheduled_new_reqs=[], scheduled_spec_decode_tokens={}))
        step(Pooling(), 4)
        """
    )
    steps = done.table("worker_step")
    assert [(row["step"], row["tokens"]) for row in steps] == [(0, 2), (1, 3), (2, 4)]
    assert all(row["flags"] & (HAS_SAMPLE | ASYNC | FAILED) == 0 and row["flags"] & HAS_MODEL for row in steps)
    assert done.table("worker_sync") == []


@pytest.mark.parametrize("tokens, where", [(13, "execute_model"), (17, "sample_tokens")])
def test_a_step_that_fails_is_told_and_the_next_is_whole(run, tokens, where):
    done = run(
        f"""
        try:
            step(Older(), {tokens})
        except RuntimeError as error:
            assert "fails" in str(error)
        else:
            raise SystemExit("it did not fail")
        step(Older(), 1)
        """
    )
    failed, whole = done.table("worker_step")
    assert failed["flags"] & FAILED and not whole["flags"] & FAILED
    assert failed["flags"] & HAS_MODEL and bool(failed["flags"] & HAS_SAMPLE) == (where == "sample_tokens")
    assert whole["flags"] & (HAS_MODEL | HAS_SAMPLE | ASYNC) == HAS_MODEL | HAS_SAMPLE | ASYNC
    told = {key: value for key, value in done.attributes.items() if key.startswith("raised.")}
    assert [key for key in told if where in key] and all("RuntimeError" in value for value in told.values()), told
    assert "fails" not in str(told), "what an exception says may be a prompt"
