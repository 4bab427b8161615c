"""The newer model runner: real CudaGraphManagers (the model's and a drafter's), their capture, dispatch,
run_fullgraph and run_pw_graph, and the runner's own profile_cudagraph_memory and KV connector."""

from __future__ import annotations

import stand_in
from stand_in import Truth, describe, scheduled


def make_manager_class():
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor, set_forward_context
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    class ModelCudaGraphManager(CudaGraphManager):
        """vLLM's own of that name without attention and inputs: its forward function sets the same context."""

        def capture(self, model):
            def create_forward_fn(desc, warmup):
                def forward(mode):
                    piecewise = mode == CUDAGraphMode.PIECEWISE
                    with set_forward_context(
                        None, self.vllm_config, num_tokens=desc.num_tokens, cudagraph_runtime_mode=mode,
                        batch_descriptor=BatchDescriptor(num_tokens=desc.num_tokens) if piecewise else None,
                    ):  # fmt: skip
                        self.run_pw_graph(model, {}) if piecewise else model()

                return forward

            super().capture(create_forward_fn)

    class SpeculatorCudaGraphManager(ModelCudaGraphManager):
        pass

    return ModelCudaGraphManager, SpeculatorCudaGraphManager


def make_runner(config, truth: Truth):
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor, set_forward_context
    from vllm.v1.worker.gpu.kv_connector import NO_OP_KV_CONNECTOR
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    wrappers, model = stand_in.make_pieces(config)
    ModelManager, DraftManager = make_manager_class()

    class Runner(GPUModelRunner):
        def __init__(self):
            self.vllm_config = config
            self.kv_connector = NO_OP_KV_CONNECTOR
            self.is_pooling_model = False
            self.wrappers = wrappers
            self.make_managers()

        def make_managers(self):
            self.manager = ModelManager(config, "cpu", CUDAGraphMode.FULL_AND_PIECEWISE, 1)
            self.drafter = DraftManager(config, "cpu", CUDAGraphMode.FULL, 1)

        def capture_model(self, *, profile_only=False):
            self.manager.capture(model)
            self.drafter.capture(model)
            return 0

        def ask(self, expected, drafts=0):
            self.expected, self.drafts = expected, drafts

        def execute_model(self, scheduler_output, intermediate_tensors=None):
            tokens, requests = scheduler_output.total_num_scheduled_tokens, len(scheduler_output.num_scheduled_tokens)
            desc = self.manager.dispatch(requests, tokens, 1 if tokens == requests else None, 0)
            shown = desc if desc.cg_mode == CUDAGraphMode.FULL else BatchDescriptor(num_tokens=desc.num_tokens)
            with truth.step(tokens, desc.cg_mode, shown, self.expected):
                self.run(scheduler_output, desc, shown)
            self.state = scheduler_output

        def run(self, scheduler_output, desc, shown):
            if desc.cg_mode == CUDAGraphMode.FULL:
                self.kv_connector.pre_forward(scheduler_output, None)
                self.manager.run_fullgraph(desc)
                return
            with set_forward_context(
                None, config, num_tokens=desc.num_tokens, cudagraph_runtime_mode=desc.cg_mode, batch_descriptor=shown
            ):
                self.kv_connector.pre_forward(scheduler_output, None)
                if desc.cg_mode == CUDAGraphMode.PIECEWISE:
                    self.manager.run_pw_graph(model, {})
                else:
                    model()

        def sample_tokens(self, grammar_output):
            requests = len(self.state.num_scheduled_tokens)
            for _ in range(self.drafts):
                desc = self.drafter.dispatch(requests, requests, 1, 0)
                self.drafter.run_fullgraph(desc)
                truth.aside.append(describe(desc.cg_mode, desc))
            return stand_in.finished(self.state)

    return Runner()


def profile(runner) -> None:
    """The runner's own method, around what stands in for vLLM's estimate: captures that are all dropped."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.v1.worker.gpu import model_runner

    def estimate(runner):
        runner.capture_model(profile_only=True)
        CUDAGraphWrapper.clear_all_graphs()
        runner.make_managers()
        return 0

    model_runner._profile_cudagraph_memory = estimate
    runner.profile_cudagraph_memory()
    assert stand_in.CudaGraph.made


def run(truth: Truth) -> None:
    from vllm.compilation.counter import compilation_counter
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor

    config = stand_in.make_config("FULL_AND_PIECEWISE")
    runner = make_runner(config, truth)
    worker = stand_in.make_worker(config, runner)
    worker.use_v2_model_runner = True

    def step(requests, tokens, expected, drafts=0):
        runner.ask(expected, drafts)
        worker.execute_model(scheduled(requests, tokens))
        worker.sample_tokens(None)

    profile(runner)
    before = compilation_counter.num_cudagraph_captured
    worker.compile_or_warm_up_model()
    truth.vllm_counted = compilation_counter.num_cudagraph_captured - before
    for manager in (runner.manager, runner.drafter):
        for mode in (CUDAGraphMode.PIECEWISE, CUDAGraphMode.FULL):
            for desc in manager._capture_descs.get(mode, []):
                shown = desc if mode == CUDAGraphMode.FULL else BatchDescriptor(num_tokens=desc.num_tokens)
                truth.captured.append(describe(mode, shown))

    for _ in range(10):
        step(3, 3, "full")
    for _ in range(5):
        step(8, 8, "full", drafts=2)
    step(2, 11, "piecewise")
    step(1, 13, "piecewise")
    step(2, 40, "too_large")

    # Pieces that are gone: captured while a request waits; the newer runner does not forbid it.
    late = BatchDescriptor(num_tokens=16)
    for wrapper in runner.wrappers:
        wrapper.concrete_cudagraph_entries.pop(late)
    step(2, 15, "captured")
    step(2, 15, "piecewise")
    truth.late = [describe(CUDAGraphMode.PIECEWISE, late)]
