"""What counting the experts of one MoE layer costs, per call, by each of the three ways and in plain Python.

    PYTHONPATH=build/release/site VLLM_ENABLE_PROFILING=1 VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING=1 \\
        python bench/bench_moe.py [--rounds N]

Needs vLLM on a CPU; no model is run. Each way is timed inside a real worker's step, since nothing else is counted;
the figures are medians over rounds, in microseconds per layer and step, one thread. "host" is what --enforce-eager on a
CPU costs; "graph" is the operation that MOE_EXPERT_TRACKING=1 puts into a compiled graph, called as the graph calls it;
"device" is the sequence of additions that a captured graph replays, here on the CPU: on a GPU it is that many small
kernels, none of which waits. "Python" does on tensors what a profiler in Python does: torch.bincount and a copy to the host.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

SHAPES = ((8, 2, 1), (8, 2, 32), (8, 2, 256), (128, 8, 1), (128, 8, 32), (128, 8, 256))


def in_python(experts):
    import torch

    counts = [0] * experts

    def capture(ids):
        for expert, n in enumerate(torch.bincount(ids.reshape(-1), minlength=experts).tolist()):
            counts[expert] += n

    return capture


def worker_for(way, experts, top_k):
    """A real worker with one layer whose router is counted in that way."""
    import harness
    import moe_driver
    from vllm.config import CompilationMode
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    config, _ = harness.make_config(harness.options(["--max-num-batched-tokens", "512"]))
    if way == "device":
        config.device_config.device_type = "cuda"
    if way in ("host", "python"):
        config.compilation_config.mode = CompilationMode.NONE
    worker = moe_driver.make_worker(config, device=False)
    layer = SimpleNamespace(
        router=CPURouter(top_k=top_k, global_num_experts=experts),
        is_monolithic=False,
        moe_config=SimpleNamespace(num_logical_experts=experts, experts_per_token=top_k),
    )
    worker.model_runner.load_model = lambda load_dummy_weights=False: config.compilation_config.static_forward_context.update(
        {"model.layers.0.mlp.experts": layer}
    )
    worker.load_model()
    return worker, layer.router


def measure(way, experts, top_k, tokens, rounds):
    import torch
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

    worker, router = worker_for(way, experts, top_k)
    capture = in_python(experts) if way == "python" else router.capture_fn
    ids = torch.stack([torch.randperm(experts)[:top_k] for _ in range(tokens)]).to(torch.int32)
    calls, samples = 200, []

    def step(scheduler_output, intermediate_tensors=None):
        with torch.inference_mode():
            for _ in range(20):
                capture(ids)
            begin = time.perf_counter_ns()
            for _ in range(calls):
                capture(ids)
            samples.append((time.perf_counter_ns() - begin) / calls / 1000)
        return EMPTY_MODEL_RUNNER_OUTPUT

    worker.model_runner.execute_model = step
    for _ in range(rounds):
        output = SchedulerOutput.make_empty()
        output.num_scheduled_tokens, output.total_num_scheduled_tokens = {"request": tokens}, tokens
        worker.execute_model(output)
    return statistics.median(samples)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    os.environ.setdefault("VLLM_PROFILING_DIR", tempfile.mkdtemp())
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import torch

    torch.set_num_threads(1)
    ways = ("host", "graph", "device", "python")
    print(f"{'experts':>8}{'top_k':>7}{'tokens':>8}" + "".join(f"{way:>10}" for way in ways) + "   us per layer and step")
    for experts, top_k, tokens in SHAPES:
        row = [measure(way, experts, top_k, tokens, options.rounds) for way in ways]
        print(f"{experts:>8}{top_k:>7}{tokens:>8}" + "".join(f"{value:>10.2f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
