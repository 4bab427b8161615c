"""Drives a real vLLM Worker and real routers through steps whose routed ids are made up here; prints what was routed.

What is real: Worker's load_model, execute_model, compile_or_warm_up_model, and CPURouter with its capture function.
What stands in: the model, whose layers hand the routers the ids of this script, and, with --device, the device: its
tensors lie in main memory, and a "graph" is the sequence of torch operations that ran while it was captured, which a
replay runs again on the same memory, without any Python of the capture function, as a CUDA graph does.

With --ranks the worker is the second of two data-parallel ranks whose routers see the rows of both, as vLLM's naive
dispatch has it (which it cannot do on a CPU): the first rank's come before, and each has its padding.

    python tests/e2e/moe_driver.py CASE…      each in a child of its own, forked when vLLM has been imported

A case is a name and its options: host=--eager ranks=--eager,--ranks device=--device. Prints `RESULT name {json}` for
each, in the order of their engines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent))

import harness

LAYERS, EXPERTS, TOP_K, PADDED = 2, 8, 2, 16
MONOLITHIC = "model.layers.5.mlp.experts"
DRAFTERS = "model.layers.6.mlp.experts"  # an MTP layer: numbered on from the model's own


def routers():
    """Layers as vLLM keeps them by name: two with a router whose ids are those of `chosen`, one with a kernel of its
    own, and one of the drafter's."""
    import torch
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter

    class Router(CPURouter):
        chosen = None

        def _compute_routing(self, hidden_states, router_logits, indices_type, *, input_ids=None):
            return torch.ones_like(self.chosen, dtype=torch.float32), self.chosen

    sizes = SimpleNamespace(num_logical_experts=EXPERTS, experts_per_token=TOP_K)
    layers = {}
    for layer in range(LAYERS):
        router = Router(top_k=TOP_K, global_num_experts=EXPERTS)
        layers[f"model.layers.{layer}.mlp.experts"] = SimpleNamespace(
            router=router, is_monolithic=False, moe_config=sizes
        )
    layers[MONOLITHIC] = SimpleNamespace(
        router=Router(top_k=TOP_K, global_num_experts=EXPERTS), is_monolithic=True, moe_config=sizes
    )
    layers[DRAFTERS] = SimpleNamespace(
        router=Router(top_k=TOP_K, global_num_experts=EXPERTS), is_monolithic=False, moe_config=sizes
    )
    return layers


class Drafter:
    """What vLLM's proposers are in this: the holder of a torch module."""

    def __init__(self, layer):
        self.model = SimpleNamespace(modules=lambda: iter([self.model, layer]))


class Graph:
    """A stand-in for a captured graph."""

    def __init__(self, run):
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        self.operations = []
        operations = self.operations

        class Capture(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                result = function(*args, **(kwargs or {}))
                operations.append((function, args, kwargs or {}, result))
                return result

        with Capture():
            run()
        self.tensor = torch.Tensor

    def replay(self):
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            if isinstance(result, self.tensor) and again.data_ptr() != result.data_ptr():
                result.copy_(again)


class Runner:
    """The model runner: each layer's router is asked once per forward pass, directly or in a graph."""

    def __init__(self, config, device: bool):
        self.config, self.device = config, device
        self.layers = config.compilation_config.static_forward_context
        self.kv_caches, self.is_pooling_model = [None], False
        self.theirs = []  # what a capture function of vLLM's own saw
        self.graph = None

    def load_model(self, load_dummy_weights=False):
        import torch

        self.layers.update(routers())
        self.drafter = Drafter(self.layers[DRAFTERS])
        self.buffers = [torch.zeros((PADDED, TOP_K), dtype=torch.int32) for _ in self.layers]
        first = next(iter(self.layers.values())).router
        first.set_capture_fn(lambda ids: self.theirs.append(("before", ids.shape[0])))

    def get_model(self):
        return None

    def ask(self):
        for layer, buffer in zip(self.layers.values(), self.buffers, strict=True):
            layer.router.chosen = buffer
            if not layer.is_monolithic:
                layer.router.select_experts(None, None)

    def forward(self):
        if self.graph is not None:
            self.graph.replay()
        else:
            self.ask()

    def warming_up_model(self):
        self.ask()
        if self.device:
            self.graph = Graph(self.ask)
            self.graph.replay()

    def execute_model(self, scheduler_output, intermediate_tensors=None):
        from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

        if not scheduler_output.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT
        self.forward()
        return None

    def sample_tokens(self, grammar_output):
        from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

        self.forward()  # a drafter's pass: no token of the step
        return EMPTY_MODEL_RUNNER_OUTPUT


def make_worker(config, device: bool):
    import torch
    from vllm.distributed import parallel_state
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    class StandInWorker(CPUWorker):
        def __init__(self):
            Worker.__init__(self, config, local_rank=0, rank=0, distributed_init_method="", is_driver_worker=True)
            self.model_runner = Runner(config, device)
            self.device = torch.device("cpu")

    parallel_state._PP = harness.OneRank()
    return StandInWorker()


def steps(worker, count: int, seed: int):
    """Runs the steps; returns how often each expert, and each pair, was routed a token of theirs, by layer."""
    import torch
    from vllm.v1.core.sched.output import SchedulerOutput

    chance = random.Random(seed)
    from vllm import forward_context

    runner = worker.model_runner
    ranks = worker.vllm_config.parallel_config.data_parallel_size > 1
    counts = [[0] * EXPERTS for _ in range(LAYERS)]
    pairs = [{} for _ in range(LAYERS)]
    tokens = 0
    for number in range(count):
        first = chance.randint(0, PADDED - 1) if ranks else 0
        rows = chance.randint(1, PADDED - first)
        if ranks:
            across = torch.tensor([first, PADDED - first], dtype=torch.int32)
            metadata = SimpleNamespace(num_tokens_across_dp_cpu=across)
            forward_context._forward_context = SimpleNamespace(dp_metadata=metadata)
        for layer, buffer in enumerate(runner.buffers):
            ids = [chance.sample(range(EXPERTS), TOP_K) for _ in range(PADDED)]
            buffer.copy_(torch.tensor(ids, dtype=torch.int32))
            for a, b in ids[first : first + rows] if layer < LAYERS else ():
                counts[layer][a] += 1
                counts[layer][b] += 1
                key = f"{min(a, b)}-{max(a, b)}"
                pairs[layer][key] = pairs[layer].get(key, 0) + 1
        output = SchedulerOutput.make_empty()
        output.num_scheduled_tokens = {"request": rows}
        output.total_num_scheduled_tokens = rows
        worker.execute_model(output)
        worker.sample_tokens(None)
        tokens += rows
        if number % 3 == 0:
            runner.forward()  # a dummy run, which never comes through Worker.execute_model
    for _ in range(2):  # vLLM's step without tokens after the last request; the second finds what was read back
        worker.execute_model(SchedulerOutput.make_empty())
    return {"counts": counts, "pairs": pairs, "tokens": tokens, "theirs": runner.theirs}


def run(options: argparse.Namespace, engine: int) -> dict:
    from vllm.config import CompilationMode

    config, _cache = harness.make_config(harness.options([]))
    config.parallel_config.data_parallel_index = engine  # what tells the workers of one session apart
    if options.device:
        config.device_config.device_type = "cuda"
    if options.eager:
        config.compilation_config.mode = CompilationMode.NONE
    worker = make_worker(config, options.device)
    if options.ranks:
        config.parallel_config.data_parallel_size, config.parallel_config.data_parallel_rank = 2, 1
    worker.load_model()
    layers = worker.model_runner.layers
    # vLLM binds its own once the KV cache is there, over whatever was in the router's one place.
    second = list(layers.values())[1].router
    theirs = worker.model_runner.theirs
    second.set_capture_fn(lambda ids: theirs.append(("after", ids.shape[0])))
    if options.device:
        worker.model_runner.warming_up_model()
    else:
        worker.compile_or_warm_up_model()
    del theirs[:]
    return steps(worker, options.steps, seed=5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", action="store_true")
    parser.add_argument("--eager", action="store_true", help="as with --enforce-eager")
    parser.add_argument("--ranks", action="store_true", help="the second of two data-parallel ranks")
    parser.add_argument("--steps", type=int, default=60)

    import vllm.v1.worker.cpu_worker  # noqa: F401 (the slow part, once for all cases)

    for engine, case in enumerate(sys.argv[1:]):
        name, _, options = case.partition("=")
        child = os.fork()
        if not child:
            result = run(parser.parse_args(options.split(",")), engine)
            print(f"RESULT {name} {json.dumps(result)}", flush=True)
            sys.exit()
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"case {name} failed")


if __name__ == "__main__":
    main()
