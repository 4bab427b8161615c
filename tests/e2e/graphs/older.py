"""The older model runner: its own profile_cudagraph_memory, capture_model and _model_forward over a FULL
CUDAGraphWrapper around PIECEWISE ones, with the real CudagraphDispatcher."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import stand_in
from stand_in import Truth, describe, scheduled


def make_runner(config, truth: Truth):
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import set_forward_context
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    wrappers, pieces = stand_in.make_pieces(config)
    full = CUDAGraphWrapper(pieces, config, CUDAGraphMode.FULL)

    class Runner(GPUModelRunner):
        def __init__(self):  # not the real one, which would load a model
            self.vllm_config = config
            self.compilation_config = config.compilation_config
            self.parallel_config = config.parallel_config
            self.load_config = config.load_config
            self.lora_config = None
            self.device = "cpu"
            self.max_model_len, self.max_num_tokens = 256, 256
            self.encoder_cudagraph_manager = None
            self.cudagraph_dispatcher = CudagraphDispatcher(config)
            self.full, self.pieces, self.wrappers = full, pieces, wrappers
            self.model = full

        # What profile_cudagraph_memory and capture_model need of a runner without a device.
        def _init_minimal_kv_cache_for_profiling(self):
            self.cudagraph_dispatcher.initialize_cudagraph_keys(config.compilation_config.cudagraph_mode)

        def _cleanup_profiling_kv_cache(self):
            pass

        def _create_encoder_cudagraph_manager(self):
            return None

        def _maybe_init_encoder_cudagraph_manager(self):
            pass

        def maybe_remove_all_loras(self, _config):
            pass

        def _freeze_gc(self):
            return contextlib.nullcontext()

        def _dummy_run(self, num_tokens, cudagraph_runtime_mode=None, uniform_decode=False, num_active_loras=0, **_):
            modes = {cudagraph_runtime_mode} if cudagraph_runtime_mode else None
            _, desc = self.dispatch(num_tokens, uniform_decode, num_active_loras, modes)
            with set_forward_context(
                None,
                config,
                num_tokens=num_tokens,
                cudagraph_runtime_mode=cudagraph_runtime_mode,
                batch_descriptor=desc,
            ):
                self.model()

        def dispatch(self, tokens, uniform, loras, modes=None, never=None):
            return self.cudagraph_dispatcher.dispatch(
                num_tokens=tokens, uniform_decode=uniform, has_lora=loras > 0, num_active_loras=loras,
                valid_modes=modes, invalid_modes=never,
            )  # fmt: skip

        def ask(self, expected, loras=0, modes=None, never=None, choice=None, eager=False, skip_compiled=False):
            """How the next step is to be run: choice overrules the dispatcher, eager runs the model bare."""
            self.asked = SimpleNamespace(**{k: v for k, v in locals().items() if k != "self"})

        def execute_model(self, scheduler_output, intermediate_tensors=None):
            from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT

            asked, tokens = self.asked, scheduler_output.total_num_scheduled_tokens
            if not tokens:
                return EMPTY_MODEL_RUNNER_OUTPUT
            uniform = tokens == len(scheduler_output.num_scheduled_tokens)
            mode, desc = asked.choice or self.dispatch(tokens, uniform, asked.loras, asked.modes, asked.never)
            self.model = (lambda **_: []) if asked.eager else full
            with truth.step(tokens, mode, desc, asked.expected), set_forward_context(
                None, config, num_tokens=None if desc is None else desc.num_tokens, cudagraph_runtime_mode=mode,
                batch_descriptor=desc, skip_compiled=asked.skip_compiled,
            ):  # fmt: skip
                self._model_forward()
            self.model = full
            self.state = scheduler_output
            return None

        def sample_tokens(self, grammar_output):
            return stand_in.finished(self.state)

    return Runner()


def run(truth: Truth, mode: str) -> None:
    from vllm.compilation.counter import compilation_counter
    from vllm.compilation.monitor import set_cudagraph_capturing_enabled
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor

    FULL, PIECEWISE, NONE = CUDAGraphMode.FULL, CUDAGraphMode.PIECEWISE, CUDAGraphMode.NONE
    config = stand_in.make_config(mode, lora=mode == "FULL_AND_PIECEWISE")
    runner = make_runner(config, truth)
    worker = stand_in.make_worker(config, runner)

    def step(requests, tokens, expected, **asked):
        runner.ask(expected, **asked)
        worker.execute_model(scheduled(requests, tokens))
        if tokens:
            worker.sample_tokens(None)

    runner.profile_cudagraph_memory()
    assert stand_in.CudaGraph.made and compilation_counter.num_cudagraph_captured == 0, "all thrown away"
    runner.cudagraph_dispatcher.initialize_cudagraph_keys(config.compilation_config.cudagraph_mode)
    worker.compile_or_warm_up_model()
    truth.captured = [
        describe(mode, desc) for mode, descs in runner.cudagraph_dispatcher.get_capture_descs() for desc in descs
    ]
    truth.vllm_counted = compilation_counter.num_cudagraph_captured
    entries = [describe(FULL, desc) for desc in runner.full.concrete_cudagraph_entries]
    entries += [describe(PIECEWISE, desc) for desc in runner.wrappers[0].concrete_cudagraph_entries]
    assert sorted(entries) == sorted(truth.captured), "the wrappers' own entries"

    for _ in range(10):
        step(3, 3, "full")  # padded to 4
    for _ in range(4):
        step(8, 8, "full")
    step(2, 40, "too_large")
    step(0, 0, "")
    if mode == "FULL_DECODE_ONLY":
        step(2, 7, "not_uniform")
        return
    step(2, 11, "piecewise")  # padded to 16
    step(2, 16, "piecewise")
    step(5, 5, "full", loras=1)  # padded to 8
    step(2, 7, "piecewise", loras=2)
    step(4, 4, "piecewise", never={FULL})  # as with encoder outputs
    step(3, 3, "dispatched_none", modes={NONE})  # as other data-parallel ranks force it
    step(1, 6, "skip_compiled", eager=True, skip_compiled=True)
    step(1, 6, "not_replayed", eager=True)
    step(1, 6, "no_descriptor", choice=(NONE, None))

    # A descriptor that start-up did not capture, while requests wait.
    late = BatchDescriptor(num_tokens=12)
    truth.late = [describe(PIECEWISE, late)]
    set_cudagraph_capturing_enabled(True)
    step(2, 12, "captured", choice=(PIECEWISE, late))
    set_cudagraph_capturing_enabled(False)
    step(2, 12, "piecewise", choice=(PIECEWISE, late))
    step(2, 11, "piecewise", choice=(PIECEWISE, late))

    # All graphs dropped and captured anew, as elastic expert parallelism does: the same descriptors count on.
    type(runner.full).clear_all_graphs()
    worker.compile_or_warm_up_model()
    step(3, 3, "full")
    step(2, 16, "piecewise")
