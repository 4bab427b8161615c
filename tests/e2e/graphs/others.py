"""Holders beside the wrappers and managers: breakable graphs, microbatches, encoders; their own captures and
replays, on the older runner's worker."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import SimpleNamespace

import older
import stand_in
from stand_in import Truth, describe, scheduled

ENCODER = "ENCODER|{}|4|False|False"


def make_breakable(config):
    from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphCapture, BreakableCUDAGraphWrapper

    def model():
        for _ in range(2):  # three segments
            BreakableCUDAGraphCapture.current().add_eager(lambda: None)
        return []

    return BreakableCUDAGraphWrapper(model, config)


def make_encoder():
    import torch
    from vllm.v1.worker.encoder_cudagraph import EncoderCudaGraphManager

    class Model:
        def prepare_encoder_cudagraph_capture_inputs(self, *_):
            return SimpleNamespace(values={"pixels": torch.zeros(1)})

        def prepare_encoder_cudagraph_replay_buffers(self, *_):
            return SimpleNamespace(values={})

        def encoder_cudagraph_forward(self, values, path=None):
            return values["pixels"]

        def get_encoder_cudagraph_item_specs(self, _kwargs):
            return [SimpleNamespace(output_tokens=4)]

    encoder = EncoderCudaGraphManager.__new__(EncoderCudaGraphManager)  # the real one wants a multimodal model
    vars(encoder).update(
        model=Model(), device="cpu", dtype=torch.float32, max_batch_size=4, max_frames_per_batch=0,
        budget_graphs={}, graph_pool=None, graph_hits=0, graph_misses=0, _capture_axes=(),
        path_token_budgets={"default": [16, 64]}, config=SimpleNamespace(padding_logics={}),
    )  # fmt: skip
    return encoder


class Microbatch:
    """As much of UbatchMetadata as _capture_ubatches looks at."""

    num_tokens = 8
    input_ids = positions = intermediate_tensors = inputs_embeds = None

    class Context(contextlib.nullcontext):
        id = 0
        compute_stream = comm_stream = None
        cpu_wait_event = threading.Event()

    context = Context()


def make_microbatches():
    from vllm.v1.worker.gpu_ubatch_wrapper import UBatchWrapper

    ubatch = UBatchWrapper.__new__(UBatchWrapper)  # the real one wants a CUDA stream
    vars(ubatch).update(cudagraphs={}, device="cpu", ready_barrier=threading.Barrier(1), cudagraph_wrapper=None)
    sys.modules[UBatchWrapper.__module__]._cat_ubatch_outputs = lambda results: results
    return ubatch


def run(truth: Truth) -> None:
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor, set_forward_context

    FULL, PIECEWISE = CUDAGraphMode.FULL, CUDAGraphMode.PIECEWISE
    config = stand_in.make_config("PIECEWISE")
    runner = older.make_runner(config, truth)
    worker = stand_in.make_worker(config, runner)
    breakable, encoder, ubatch = make_breakable(config), make_encoder(), make_microbatches()
    small = BatchDescriptor(num_tokens=4)
    micro = BatchDescriptor(num_tokens=8, num_reqs=8, uniform=True)

    def in_context(mode, desc, call):
        with set_forward_context(
            None, config, num_tokens=desc.num_tokens, cudagraph_runtime_mode=mode, batch_descriptor=desc
        ):
            return call()

    def capture_all(*_args, **_kwargs):
        in_context(PIECEWISE, small, breakable)
        in_context(FULL, micro, lambda: ubatch._capture_ubatches([Microbatch()], lambda **_: None))
        encoder.capture(graph_pool=(0, 3))

    runner._capture_cudagraphs = capture_all  # inside of the runner's own capture_model
    runner.cudagraph_dispatcher.get_capture_descs = lambda: [(PIECEWISE, [small])]
    worker.compile_or_warm_up_model()
    truth.captured = [describe(PIECEWISE, small), describe(FULL, micro), ENCODER.format(64), ENCODER.format(16)]

    def step(call, mode, desc, tokens, images, expected):
        def execute_model(scheduler_output, intermediate_tensors=None):
            for _ in range(images):
                encoder._run_budget_graph({}, 16)
                truth.aside.append(ENCODER.format(16))
            runner.model = lambda **_: call()
            with truth.step(tokens, mode, desc, expected):
                in_context(mode, desc, runner._model_forward)
            runner.state = scheduler_output

        runner.execute_model = execute_model
        worker.execute_model(scheduled(min(tokens, 4), tokens))
        worker.sample_tokens(None)

    for _ in range(3):
        step(breakable, PIECEWISE, small, 3, 1, "piecewise")
    for _ in range(2):
        step(ubatch.cudagraphs[8].cudagraph.replay, FULL, micro, 8, 0, "full")
