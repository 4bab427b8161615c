"""What stands in for a device under vLLM's real CUDA graph classes, and what the driver counts by itself.

Stood in: the C++ class under torch.cuda.CUDAGraph (its capture records that it happened, its replay counts; the Python
methods, which are hooked, are torch's own), the context manager torch.cuda.graph (begins and ends a capture, without
streams), the device's memory and streams.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness

SIZES = [1, 2, 4, 8, 16]
PIECES = 5  # of the model: attention layers + 1
MAX_SEQS = 8


class CudaGraph:
    """Under torch.cuda.CUDAGraph."""

    made = 0  # captures that ended
    replayed = 0
    capturing = 0

    def __new__(cls, keep_graph=False):
        return object.__new__(cls)

    def __init__(self, keep_graph=False):
        pass

    def capture_begin(self, pool=None, capture_error_mode="global"):
        CudaGraph.capturing += 1

    def capture_end(self):
        CudaGraph.capturing -= 1
        CudaGraph.made += 1

    def replay(self):
        assert not CudaGraph.capturing, "a replay inside a capture"
        CudaGraph.replayed += 1

    def pool(self):
        return (0, 0)

    def reset(self):
        pass


@contextlib.contextmanager
def graph_context(cuda_graph, pool=None, stream=None, capture_error_mode="global"):
    """torch.cuda.graph without streams."""
    more = () if pool is None else (pool,)
    cuda_graph.capture_begin(*more, capture_error_mode=capture_error_mode)
    try:
        yield
    finally:
        cuda_graph.capture_end()


@contextlib.contextmanager
def graph_capture(device=None):
    """vllm.distributed.parallel_state.graph_capture without streams."""
    yield SimpleNamespace(stream=None)


def install() -> None:
    import torch
    from vllm.compilation import cuda_graph
    from vllm.distributed import parallel_state
    from vllm.platforms import current_platform
    from vllm.v1.worker import encoder_cudagraph, gpu_model_runner
    from vllm.v1.worker.gpu import cudagraph_utils

    torch.cuda.graphs.CUDAGraph.__bases__ = (CudaGraph,)
    torch.cuda.graph = graph_context
    torch.cuda.current_stream = lambda *_: None
    torch.cuda.stream = lambda *_: contextlib.nullcontext()
    torch.cuda.current_blas_handle = lambda: 0
    torch.accelerator.synchronize = torch.accelerator.empty_cache = lambda *_: None
    torch.accelerator.set_device_index = lambda *_: None
    torch.accelerator.get_memory_info = lambda *_: (1 << 30, 1 << 31)
    type(current_platform)._global_graph_pool = (0, 1)
    type(current_platform).graph_pool_handle = lambda *_: (0, 2)
    parallel_state._PP = harness.OneRank()
    parallel_state._WORLD = SimpleNamespace(local_rank=0, rank=0, is_first_rank=True, rank_in_group=0)
    gpu_model_runner.lock_workspace = lambda: None
    for module in (gpu_model_runner, cudagraph_utils):
        module.graph_capture = graph_capture
        module.is_global_first_rank = lambda: False
    for module in (cuda_graph, encoder_cudagraph, cudagraph_utils):
        module.current_stream = lambda: None


def make_config(mode: str, lora: bool = False):
    """An engine's configuration with what the CPU's platform has switched off."""
    from vllm.config import CUDAGraphMode
    from vllm.config.compilation import CompilationMode

    config, _ = harness.make_config(harness.options(["--max-num-seqs", str(MAX_SEQS), "--max-model-len", "256"]))
    compilation = config.compilation_config
    compilation.cudagraph_mode = CUDAGraphMode[mode]
    compilation.mode = CompilationMode.VLLM_COMPILE
    type(compilation).splitting_ops_contain_attention = lambda _: True
    compilation.cudagraph_capture_sizes = list(SIZES)
    compilation.max_cudagraph_capture_size = max(SIZES)
    compilation.cudagraph_num_of_warmups = 1
    if lora:
        compilation.cudagraph_specialize_lora = True
        config.lora_config = SimpleNamespace(max_loras=2, specialize_active_lora=False)
    return config


def make_pieces(config):
    """The wrappers of a model compiled in pieces, and the function that runs them, as backends.py makes them: the
    first one logs, the last one drops its output."""
    from vllm.compilation.cuda_graph import CUDAGraphOptions, CUDAGraphWrapper
    from vllm.config import CUDAGraphMode

    wrappers = []
    for i in range(PIECES):
        options = CUDAGraphOptions(debug_log_enable=i == 0, gc_disable=i != 0, weak_ref_output=i == PIECES - 1)
        wrappers.append(CUDAGraphWrapper(lambda: [], config, CUDAGraphMode.PIECEWISE, options))
    return wrappers, lambda **_inputs: [wrapper() for wrapper in wrappers][-1]


def make_worker(config, runner):
    """A real worker object around a runner."""
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    class StandInWorker(CPUWorker):
        def __init__(self):
            # Worker's own, past CPUWorker's binding of memory and cores.
            Worker.__init__(self, config, local_rank=0, rank=0, distributed_init_method="", is_driver_worker=True)
            self.model_runner = runner

        def compile_or_warm_up_model(self):
            return self.model_runner.capture_model()

    return StandInWorker()


def scheduled(requests: int, tokens: int):
    """A SchedulerOutput as far as the worker and the hooks look at it."""
    each = {f"req-{i}": 1 for i in range(requests)}
    if requests:
        each["req-0"] += tokens - requests
    return SimpleNamespace(
        total_num_scheduled_tokens=tokens,
        num_scheduled_tokens=each,
        scheduled_new_reqs=[],
        scheduled_spec_decode_tokens={},
    )


def finished(scheduler_output):
    from vllm.v1.outputs import ModelRunnerOutput

    ids = list(scheduler_output.num_scheduled_tokens)
    return ModelRunnerOutput(
        req_ids=ids, req_id_to_index={rid: i for i, rid in enumerate(ids)}, sampled_token_ids=[[7] for _ in ids]
    )


def describe(mode, desc) -> str:
    """The seeds' words for a BatchDescriptor or a BatchExecutionDescriptor."""
    if desc is None:
        return f"{mode.name}|?|None|False|False"
    if hasattr(desc, "uniform"):
        uniform, lora = desc.uniform, desc.has_lora
    else:
        uniform, lora = desc.uniform_token_count is not None, desc.num_active_loras > 0
    return f"{mode.name}|{desc.num_tokens}|{desc.num_reqs}|{uniform}|{lora}"


class Truth:
    """What was done: by what the driver asked for, and by what the stand-in saw of it."""

    def __init__(self):
        self.steps: list[dict] = []  # in order
        self.captured: list[str] = []  # descriptors, by vLLM's own lists
        self.late: list[str] = []  # captured while requests waited
        self.aside: list[str] = []  # replays beside the steps' models
        self.vllm_counted: int | None = None  # graph objects kept at start-up, by vLLM's own counter

    @contextlib.contextmanager
    def step(self, tokens, mode, desc, expected):
        """One step's model; expected: the outcome that the profiler is to find."""
        made, replayed = CudaGraph.made, CudaGraph.replayed
        yield
        self.steps.append(
            {
                "tokens": tokens,
                "mode": mode.name,
                "descriptor": describe(mode, desc),
                "padding": desc.num_tokens - tokens if desc is not None else 0,
                "pieces": CudaGraph.replayed - replayed,
                "captures": CudaGraph.made - made,
                "expected": expected,
            }
        )

    def data(self) -> dict:
        assert CudaGraph.capturing == 0
        return {**vars(self), "made": CudaGraph.made, "replayed": CudaGraph.replayed}
