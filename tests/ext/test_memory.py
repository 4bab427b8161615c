"""Memory on classes that look like vLLM's, with an allocator that looks like torch's: phases of the start, every N steps, and the CPU."""

import csv
import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **fake.FILES,
    "torch/__init__.py": """
        from types import SimpleNamespace as N

        held, asked = dict(current=100, peak=150, reserved=400), []

        def _cuda_memoryStats(device):
            asked.append(device)
            return {"allocated_bytes": {"all": {"current": held["current"], "peak": held["peak"]}},
                    "reserved_bytes": {"all": {"current": held["reserved"]}}}

        _C = N(_cuda_memoryStats=_cuda_memoryStats)
        """,
    "vllm/v1/worker/gpu_worker.py": """
        from types import SimpleNamespace as N
        import torch

        class Worker:
            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank
                self.device_config = N(device_type=vllm_config.device)
                self.device = N(type=vllm_config.device, index=1)

            def grow(self, by):
                torch.held["current"] += by
                torch.held["peak"] = max(torch.held["peak"], torch.held["current"])

            def load_model(self):
                self.grow(1000)

            def determine_available_memory(self):
                torch.held["peak"] += 500
                return 7

            def initialize_from_config(self, kv_cache_config):
                self.grow(2000)
                torch.held["reserved"] = 6200

            def compile_or_warm_up_model(self):
                raise MemoryError("no room")

            def execute_model(self, scheduler_output):
                return N()
        """,
}
BEGIN = """
from types import SimpleNamespace as N
import torch
from vllm.v1.worker.gpu_worker import Worker

worker = Worker(N(device="DEVICE"), 0, 0, "tcp://")
worker.load_model()
assert worker.determine_available_memory() == 7
worker.initialize_from_config(None)
try:
    worker.compile_or_warm_up_model()
except MemoryError as error:
    print(error)

def step(tokens=2):
    worker.execute_model(N(num_scheduled_tokens={"r": tokens} if tokens else {}, total_num_scheduled_tokens=tokens,
                           scheduled_new_reqs=[], scheduled_spec_decode_tokens={}))
"""


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", FILES)

    def run(script, python=fake.PYTHON, device="cuda", **extra):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra)
        done = fake.run(python, ["-c", BEGIN.replace("DEVICE", device) + textwrap.dedent(script)], env, tmp_path)
        assert done.stdout.split("\n")[0] == "no room"
        (session,) = fake.sessions(tmp_path)
        exported = subprocess.run([PROGRAM, "export", "--format", "seed", session], capture_output=True, text=True)
        assert exported.returncode == 0, exported.stderr
        return session, done.stdout.split("\n")[1:]

    return run


def rows(session):
    with open(session / "memory_usage.csv", newline="") as file:
        return [tuple(row.values())[1:] for row in csv.DictReader(file)]


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_a_device_is_asked_after_each_phase_and_every_n_steps(run, python):
    session, output = run(
        """
        for n in range(7):
            step()
            worker.grow(10)
        step(0)
        print(len(torch.asked), set(torch.asked))
        """,
        python=fake.PYTHONS[python], VLLM_PROFILING_LOG_INTERVAL="3",
    )  # fmt: skip
    assert rows(session) == [
        ("1", "1100", "400", "1100", "0.00"),
        ("1", "1100", "400", "1600", "0.00"),
        ("1", "3100", "6200", "3100", "50.00"),
        ("1", "3100", "6200", "3100", "50.00"),  # after the 1st, 4th and 7th step
        ("1", "3130", "6200", "3130", "49.52"),
        ("1", "3160", "6200", "3160", "49.03"),
    ]
    assert output[0] == "10 {1}"  # two per phase (one where it raised before its end), three steps
    summary = json.loads((session / "memory_summary.json").read_text())
    durations = [phase.pop("duration_sec") for phase in summary["phases"].values()]
    assert all(duration >= 0 for duration in durations)
    assert summary == {
        "samples": 6, "source": "torch", "allocated_bytes": 3160, "reserved_bytes": 6200, "max_reserved_bytes": 6200,
        "peak_allocated_bytes": 3160, "serving_min_bytes": 3100, "serving_max_bytes": 3160, "fragmentation_pct": 49.03,
        "phases": {
            "weights": {"before_bytes": 100, "after_bytes": 1100},
            "profile_run": {"before_bytes": 1100, "after_bytes": 1100},
            "kv_cache": {"before_bytes": 1100, "after_bytes": 3100},
        },
    }  # fmt: skip
    page = subprocess.run([PROGRAM, "report", "--text", session], capture_output=True, text=True, check=True).stdout
    assert "torch's allocator on the device" in page and "(49.03 % of it not allocated)" in page


def test_on_a_cpu_it_is_the_memory_of_the_process(run):
    session, output = run(
        """
        step()
        fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(fields["VmRSS"].split()[0], torch.asked)
        """,
        device="cpu",
    )
    resident, asked = output[0].split(maxsplit=1)
    found = rows(session)
    assert len(found) == 4 and asked == "[]"
    for device, allocated, reserved, peak, fragmentation in found:
        assert (device, reserved, fragmentation) == ("cpu", "", "")
        assert 0.5 * int(resident) * 1024 < int(allocated) <= int(peak)
    summary = json.loads((session / "memory_summary.json").read_text())
    assert summary["source"] == "process" and summary["reserved_bytes"] is None and set(summary["phases"]) == {
        "weights", "profile_run", "kv_cache",
    }  # fmt: skip


@pytest.mark.parametrize("broken", ["torch._C = None", "torch._C._cuda_memoryStats = lambda device: 1 / 0",
                                    "torch._C._cuda_memoryStats = lambda device: {'allocated_bytes': 3}", "worker.device = None"])  # fmt: skip
def test_where_nothing_can_be_read_nothing_is_disturbed(run, broken):
    session, output = run(f"{broken}\nstep()\nprint('on')")
    assert output[0] == "on"
    assert len(rows(session)) in (3, 4)
