"""KV connectors on classes that look like vLLM's: what is counted per step, where the methods lie, and what compilation forbids.

(A real connector that stores to a folder: tests/e2e/test_kv_transfer.py.)"""

import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
BASE = "vllm/distributed/kv_transfer/kv_connector/v1/base.py"
FILES = {
    **fake.FILES,
    **dict.fromkeys((
        "vllm/v1/core/__init__.py", "vllm/v1/core/sched/__init__.py", "vllm/distributed/__init__.py",
        "vllm/distributed/kv_transfer/__init__.py", "vllm/distributed/kv_transfer/kv_connector/__init__.py",
        "vllm/distributed/kv_transfer/kv_connector/v1/__init__.py",
    ), ""),
    BASE: """
        class KVConnectorBase_V1:
            def __init__(self, vllm_config, role, kv_cache_config=None):
                self._vllm_config = vllm_config

            def register_kv_caches(self, kv_caches):
                pass

            def get_finished(self, finished_req_ids):
                return None, None

            def wait_for_save(self):
                pass
        """,
    "vllm/v1/core/sched/scheduler.py": """
        from types import SimpleNamespace as N

        class Scheduler:
            requests, running, waiting = {}, [], []

            def get_request_counts(self):
                return (1, 0)

            def schedule(self, throttle=False):
                for request, found in self.coming:
                    tokens, later = self.connector.get_num_new_matched_tokens(request, 0)
                    if tokens is not None:
                        self.connector.update_state_after_alloc(request, None, num_external_tokens=tokens)
                return N(num_scheduled_tokens={"a": 1}, total_num_scheduled_tokens=1, scheduled_spec_decode_tokens={},
                         finished_req_ids=set(), scheduled_new_reqs=[])
        """,
    "vllm/v1/worker/gpu_worker.py": """
        from types import SimpleNamespace as N

        class Worker:
            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank
                self.device_config = N(device_type="cpu")

            def execute_model(self, scheduler_output):
                self.connector.start_load_kv(None)
                for layer in range(3):
                    self.connector.wait_for_layer_load(str(layer))
                    self.connector.save_kv_layer(str(layer), None, attn_metadata=None)
                self.connector.wait_for_save()
                return N()
        """,
}  # fmt: skip
BEGIN = """
from types import SimpleNamespace as N
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.worker.gpu_worker import Worker

class Middle(KVConnectorBase_V1):
    def start_load_kv(self, forward_context, **kwargs):
        return "loaded"
    def wait_for_layer_load(self, layer_name):
        pass
    def save_kv_layer(self, layer_name, kv_layer, attn_metadata, **kwargs):
        if self.broken:
            raise OSError("full")
class FolderConnector(Middle):
    broken = False
    def wait_for_save(self):
        return super().wait_for_save()
    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        return request[1], False
    def update_state_after_alloc(self, request, blocks, num_external_tokens):
        pass

config = N(compilation_config=N(mode=MODE), device_config=N(device_type="cpu"),
           cache_config=N(num_gpu_blocks=10, block_size=16))
scheduler, worker = Scheduler(), Worker(config, 0, 0, "tcp://")
scheduler.connector = worker.connector = connector = FolderConnector(config, role=None)
connector.register_kv_caches({"0": N(nbytes=160 * 64), "1": N(nbytes=160 * 64), "odd": 3})

def step(*coming):
    scheduler.coming = [(found, found[1]) for found in coming]
    return worker.execute_model(scheduler.schedule())
"""


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", FILES)

    def run(script, python=fake.PYTHON, mode=0, **extra):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra)
        done = fake.run(python, ["-c", BEGIN.replace("MODE", str(mode)) + textwrap.dedent(script)], env, tmp_path)
        (session,) = fake.sessions(tmp_path)
        for options in (("seed",), ("json", "-o", session / "native")):
            exported = subprocess.run([PROGRAM, "export", "--format", *options, session], capture_output=True, text=True)
            assert exported.returncode == 0, exported.stderr
        (process,) = fake.records(session)
        return session, done.stdout, process.attributes

    return run


LOOKUP, LOAD, START, WAIT, SAVE, WAIT_SAVE, FINISHED = range(7)


def calls(session):
    rows = map(json.loads, (session / "native" / "kv_transfer.jsonl").read_text().splitlines())
    return sorted((row["step"], row["operation"], row["calls"], row["tokens"], row["flags"]) for row in rows)


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_calls_are_counted_per_step(run, python):
    session, output, attributes = run(
        """
        step(("a", 32), ("b", None), ("c", 0))
        assert connector.start_load_kv(None) == "loaded"  # between steps
        connector.broken = True
        try:
            step(("d", 16))
        except OSError as error:
            print(error)
        """,
        python=fake.PYTHONS[python],
    )
    assert output == "full\n"
    assert calls(session) == sorted([
        (0, LOOKUP, 3, 32, 0), (0, LOAD, 1, 32, 0), (0, START, 1, 0, 0), (0, WAIT, 3, 0, 0), (0, SAVE, 3, 0, 0),
        (0, WAIT_SAVE, 1, 0, 0), (0, START, 1, 0, 2),
        (1, LOOKUP, 1, 16, 0), (1, LOAD, 1, 16, 0), (1, START, 1, 0, 0), (1, WAIT, 1, 0, 0), (1, SAVE, 1, 0, 1),
    ])  # fmt: skip
    assert attributes["kv_transfer.token_bytes"] == "128"
    summary = json.loads((session / "kv_transfer_summary.json").read_text())
    of = summary["connectors"]["FolderConnector"]
    assert (of["load"]["requests"], of["load"]["tokens"], of["load"]["bytes"]) == (2, 48, 48 * 128)
    assert of["save"]["failed_steps"] == 1 and of["lookup"]["calls"] == 4
    page = subprocess.run([PROGRAM, "report", "--text", session], capture_output=True, text=True, check=True).stdout
    assert "FolderConnector" in page and "A token is 128 bytes" in page
    report = subprocess.run([PROGRAM, "report", "--json", session], capture_output=True, text=True, check=True).stdout
    assert json.loads(report)["engines"][0]["kv_transfers"] == summary


def test_what_torch_compile_traces_is_left_alone(run):
    session, _, attributes = run("step(('a', 16))\nprint(type(vars(Middle)['save_kv_layer']).__name__)", mode=3)
    assert {row[1] for row in calls(session)} == {LOOKUP, LOAD, START, WAIT_SAVE}
    assert "--enforce-eager" in attributes["note.kv_transfer"]


def test_switched_off_nothing_is_hooked(run):
    session, output, _ = run("step(('a', 16))\nprint(type(vars(Middle)['start_load_kv']).__name__)",
                             VLLM_PROFILING_ENABLE_COLLECTIVE_TIMING="0")  # fmt: skip
    assert output == "function\n" and not list(session.glob("kv_transfer*"))
