"""Selective tracking: each VLLM_PROFILING_ENABLE_… switches its probes, its hooks and its files off, and no others."""

import re
import subprocess

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
ENGINE = """
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.engine.core import EngineCore
from vllm.v1.worker.gpu_worker import Worker
config = EngineArgs().create_engine_config()
EngineCore(config)
worker = Worker(config, 0, 0, "tcp://")
print(type(vars(Worker)["execute_model"]).__name__)
"""
# What each switch alone puts out of force: its own probe, and no probe whose facts another file needs as well.
SWITCHES = {
    "FORWARD_PASS_TIMING": (
        {"device"},
        {"forward_pass_timing.csv", "forward_pass_summary.json", "bandwidth_compute.csv", "bandwidth_compute_summary.json"},
    ),
    "CPU_TIMING": ({"frontend"}, {"cpu_operations_timing.csv", "cpu_timing_summary.json"}),
    "BATCH_UTILIZATION_TRACKING": (set(), {"batch_utilization.csv", "batch_utilization_summary.json"}),
    "PREEMPTION_TRACKING": (
        {"request_life"},
        {"preemption_events.csv", "request_lifecycle.csv", "preemption_summary.json"},
    ),
    "ENCODER_DECODER_TIMING": (
        {"encoder_decoder"},
        {"encoder_decoder_timing.csv", "encoder_decoder_summary.json"},
    ),
    "CUDA_GRAPH_TRACKING": (
        {"cuda_graph"},
        {"cuda_graph_captures.csv", "cuda_graph_usage.csv", "cuda_graph_timeline.csv"},
    ),
    "KV_CACHE_TRACKING": (
        {"kv_cache"},
        {"kv_cache_usage.csv", "kv_cache_evictions.csv", "kv_cache_summary.txt"},
    ),
    "MEMORY_TRACKING": ({"memory"}, {"memory_usage.csv", "memory_summary.json"}),
    "COLLECTIVE_TIMING": (
        {"collective", "kv_transfer"},
        {"collective_timing.csv", "collective_summary.json", "kv_transfer_timing.csv", "kv_transfer_summary.json"},
    ),
    "SAMPLING_TIMING": ({"sampling"}, {"sampling_timing.csv", "sampling_summary.json"}),
    "SPEC_DECODE_TRACKING": (set(), {"spec_decode.csv", "wasted_work.json"}),
    "MOE_EXPERT_TRACKING": (
        {"moe"},
        {
            "moe_expert_selection.csv", "moe_expert_timing.csv", "moe_expert_coselection.csv", "moe_load_imbalance.csv",
            "moe_summary.json",
        },
    ),
}  # fmt: skip
ALWAYS = {"environ", "session", "torch_profiler"}  # what a process is, vLLM's check of names, the torch profiler


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), fake.FILES)


@pytest.fixture
def record(package, tmp_path):
    """Probes that are on, hooks that are not off, files, and the kind of Worker.execute_model."""

    def record(**switches):
        env = fake.environment(
            tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1",
            **{f"VLLM_PROFILING_{name}": value for name, value in switches.items()},
        )  # fmt: skip
        done = fake.run(fake.PYTHON, ["-c", ENGINE], env, tmp_path)
        (session,) = fake.sessions(tmp_path)
        (process,) = fake.records(session)
        subprocess.run([PROGRAM, "export", session], check=True, capture_output=True)
        attributes = process.attributes
        return (
            {key.removeprefix("probe.") for key, value in attributes.items() if (key[:6], value) == ("probe.", "on")},
            {key.removeprefix("hook.") for key, value in attributes.items() if key[:5] == "hook." and value != "off"},
            {path.name for path in session.iterdir() if path.suffix in (".csv", ".json", ".txt")} - {"metadata.json"},
            done.stdout.strip(),
        )

    return record


def test_everything_is_on_by_default(record):
    probes, _, files, kind = record()
    assert probes >= ALWAYS.union(*(probe for probe, _ in SWITCHES.values())) and "custom" not in probes
    assert files == set().union(*(files for _, files in SWITCHES.values()))
    assert kind != "function"


@pytest.mark.parametrize("name", SWITCHES)
def test_one_switch_puts_out_what_is_its_own(record, name, tmp_path):
    everything = record()
    for session in fake.sessions(tmp_path):
        subprocess.run(["rm", "-r", session], check=True)
    probes, hooks, files, _ = record(**{f"ENABLE_{name}": "0"})
    gone, gone_files = SWITCHES[name]
    assert everything[0] - probes == gone and probes <= everything[0]
    assert everything[2] - files == gone_files and files <= everything[2]
    of_probe = re.compile(r'^T\(\w+,\s*"([\w.]+)",\s*"([\w.]+)"', re.M)
    targets = {
        file.stem: {":".join(found) for found in of_probe.findall(file.read_text())}
        for file in (fake.ROOT / "src" / "probe").glob("*.def")
    }
    needed = set().union(*(targets[probe] for probe in probes if probe in targets))
    own = set().union(*(targets[probe] for probe in gone), set()) - needed
    assert own or not gone
    assert not own & hooks


def test_with_all_of_them_off_no_step_is_hooked(record):
    probes, hooks, files, kind = record(**{f"ENABLE_{name}": "0" for name in SWITCHES})
    assert probes == ALWAYS
    assert files == set()
    assert kind == "function"
    assert not any("Scheduler." in hook or "BlockPool" in hook or "execute_model" in hook for hook in hooks)
