"""Drives vLLM's real scheduler and KV-cache manager with a stand-in for the model: thousands of steps a second.

What is real: Scheduler (or AsyncScheduler), KVCacheManager, BlockPool, Request, and Worker's own execute_model,
sample_tokens and compile_or_warm_up_model, so that everything hooked on them is called as in a server. What stands
in: the model runner, whose "model" returns at once and whose tokens are drawn from a seed.

The harness keeps the truth by counting itself, apart from anything that is hooked: one row per step, in a file
mapping that survives a SIGKILL at any moment (class Truth), and a JSON summary at a normal end.

    python tests/e2e/harness.py --steps 500 --num-blocks 40 --truth FILE
    python tests/e2e/harness.py --serve          reads {"spawn": [options]} lines, forks a child for each

The model runner is the one that vLLM chooses: with the environment of serving.newer_runner() the newer one.

`--serve` imports vLLM once, so that a kill test pays the seven seconds of the import only once.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

VOCABULARY = 512

# One row of the truth per step, all u32. `prefill`: prompt tokens never computed before; `recompute`: tokens that
# were computed once and lost to a preemption; `decode`: the rest. A request counts where its first token of the
# step belongs. `prefix_hit`: tokens of requests scheduled first, or again, in this step that the prefix cache gave.
ROW = (
    "step",
    "requests",
    "tokens",
    "prefill_requests",
    "prefill_tokens",
    "recompute_requests",
    "recompute_tokens",
    "decode_requests",
    "decode_tokens",
    "running",
    "waiting",
    "started",
    "resumed",
    "preempted",
    "prefix_hit_tokens",
)
ROW_BYTES = 4 * len(ROW)
HEAD = struct.Struct("<8sQQQ")  # magic, steps scheduled, steps executed, steps finished
MAGIC = b"PMTRUTH1"


class Truth:
    """The steps as the harness counted them, in a shared mapping: each counter is bumped after its row is whole.

    A hook on schedule() has run when `scheduled` is bumped, one on sample_tokens() (execute_model() for a step
    without tokens) when `executed` is; so a process killed at any moment must have recorded at least that many,
    and at most one more of each.
    """

    def __init__(self, path: str | Path | None, max_rows: int):
        self.max_rows = max_rows
        size = HEAD.size + max_rows * ROW_BYTES
        if path:
            with open(path, "w+b") as file:
                file.truncate(size)
                self.memory = mmap.mmap(file.fileno(), size)
        else:
            self.memory = mmap.mmap(-1, size)
        self.counts = memoryview(self.memory)[8 : HEAD.size].cast("Q")  # stores of 8 aligned bytes
        self.memory[:8] = MAGIC

    def scheduled(self, row: dict[str, int]) -> None:
        n = self.counts[0]
        if n < self.max_rows:
            struct.pack_into(f"<{len(ROW)}I", self.memory, HEAD.size + n * ROW_BYTES, *(row[name] for name in ROW))
        self.counts[0] = n + 1

    def executed(self) -> None:
        self.counts[1] += 1

    def finished(self) -> None:
        self.counts[2] += 1

    @staticmethod
    def read(path: str | Path) -> tuple[dict[str, int], list[dict[str, int]]]:
        """The counters and the rows of a truth file, whether its writer lives or not."""
        data = Path(path).read_bytes()
        magic, scheduled, executed, finished = HEAD.unpack_from(data)
        if magic != MAGIC:
            raise ValueError(f"{path}: not a truth file")
        rows = min(scheduled, (len(data) - HEAD.size) // ROW_BYTES)
        return (
            {"scheduled": scheduled, "executed": executed, "finished": finished},
            [
                dict(zip(ROW, struct.unpack_from(f"<{len(ROW)}I", data, HEAD.size + i * ROW_BYTES), strict=True))
                for i in range(rows)
            ],
        )


@dataclass
class Known:
    """What the harness itself knows of one request."""

    prompt_tokens: int
    output_tokens: int
    high: int = 0  # tokens computed at least once
    started: int | None = None
    preempted: list[int] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    lost: bool = False  # preempted and not scheduled again yet
    finished: int | None = None
    scheduled_tokens: int = 0
    prefix_hit_tokens: int = 0


def span(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    return int(low), int(high or low)


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="harness.py", description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help="fork a child for each line of standard input")
    parser.add_argument("--steps", type=int, default=1_000_000, help="stop after so many")
    parser.add_argument("--requests", type=int, default=64, help="how many in all; 0: no end of them")
    parser.add_argument("--concurrency", type=int, default=32, help="requests in the system at a time")
    parser.add_argument("--prompt", type=span, default=(8, 200), metavar="MIN[:MAX]")
    parser.add_argument(
        "--prompts", type=lambda text: [int(n) for n in text.split(",")], metavar="N,N…", help="exactly"
    )
    parser.add_argument("--output", type=span, default=(4, 60), metavar="MIN[:MAX]")
    parser.add_argument("--shared-prefix", type=int, default=0, help="first tokens that all prompts share")
    parser.add_argument("--max-num-seqs", type=int, default=16)
    parser.add_argument("--max-num-batched-tokens", type=int, default=128, help="below a prompt: chunks")
    parser.add_argument("--num-blocks", type=int, default=1000, help="a small pool forces preemptions")
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--no-chunked-prefill", action="store_true")
    parser.add_argument("--no-prefix-caching", action="store_true")
    parser.add_argument("--async-scheduling", action="store_true", help="schedule N+1 before the output of N")
    parser.add_argument("--model-us", type=int, default=0, help="how long the model sleeps per step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--truth", help="file of the counted steps")
    parser.add_argument("--max-rows", type=int, default=100_000)
    parser.add_argument("--summary", help="file for the JSON summary (default: standard output)")
    return parser.parse_args(arguments)


class OneRank:
    """Stands for vLLM's pipeline-parallel group of one."""

    is_first_rank = True
    is_last_rank = True


def make_config(opts: argparse.Namespace):
    """The engine's configuration and its KV cache, as vLLM's own scheduler tests build them."""
    import tiny
    import torch
    from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    config = VllmConfig(
        model_config=ModelConfig(
            model=str(tiny.make("llama")), dtype="float32", seed=42, max_model_len=opts.max_model_len
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=opts.max_num_seqs,
            max_num_batched_tokens=opts.max_num_batched_tokens,
            max_model_len=opts.max_model_len,
            enable_chunked_prefill=not opts.no_chunked_prefill,
            is_encoder_decoder=False,
        ),
        cache_config=CacheConfig(
            block_size=opts.block_size,
            cache_dtype="auto",
            enable_prefix_caching=not opts.no_prefix_caching,
        ),
    )
    config.scheduler_config.async_scheduling = opts.async_scheduling
    config.cache_config.num_gpu_blocks = opts.num_blocks
    layer = FullAttentionSpec(block_size=opts.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32)
    cache = KVCacheConfig(
        num_blocks=opts.num_blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)]
    )
    return config, cache


class StandIn:
    """The part of a stand-in model runner that both kinds share: no model, seeded tokens."""

    def __init__(self, opts: argparse.Namespace):
        self.random = random.Random(opts.seed)
        self.pause = opts.model_us / 1e6
        self.kv_caches = [None]
        self.is_pooling_model = False
        self.scheduled = None

    def model(self, **_inputs):
        if self.pause:
            time.sleep(self.pause)

    def sampled(self):
        """The step's output as a ModelRunnerOutput; a request whose prompt is not through yet gets no token."""
        from vllm.v1.outputs import ModelRunnerOutput

        output, self.scheduled = self.scheduled, None
        ids = list(output.num_scheduled_tokens)
        tokens = [[] if output.unfinished_prefill[rid] else [self.random.randrange(3, VOCABULARY)] for rid in ids]
        return ModelRunnerOutput(
            req_ids=ids, req_id_to_index={rid: i for i, rid in enumerate(ids)}, sampled_token_ids=tokens
        )


def older_runner(opts: argparse.Namespace):
    """A GPUModelRunner of gpu_model_runner.py with that one's own _model_forward, on a model that does nothing."""
    from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT
    from vllm.v1.utils import record_function_or_nullcontext
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    class Runner(StandIn, GPUModelRunner):
        def execute_model(self, scheduler_output, intermediate_tensors=None):
            with record_function_or_nullcontext("gpu_model_runner: preprocess"):
                self.scheduled = scheduler_output
            if not scheduler_output.total_num_scheduled_tokens:
                return EMPTY_MODEL_RUNNER_OUTPUT
            with record_function_or_nullcontext("gpu_model_runner: forward"):
                self._model_forward()
            with record_function_or_nullcontext("gpu_model_runner: postprocess"):
                return None

        def sample_tokens(self, grammar_output):
            with record_function_or_nullcontext("gpu_model_runner: sample"):
                return self.sampled()

    return Runner(opts)


def newer_runner(opts: argparse.Namespace):
    """A GPUModelRunner of gpu/model_runner.py: its step timing, its connector that does nothing, its AsyncOutput."""
    import numpy
    from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT
    from vllm.v1.worker.gpu.async_utils import AsyncOutput, StepTimingCollector
    from vllm.v1.worker.gpu.kv_connector import KVConnector
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    class Event:
        def synchronize(self):
            pass

    class Runner(StandIn, GPUModelRunner):
        def execute_model(self, scheduler_output, intermediate_tensors=None, dummy_run=False):
            self.scheduled = scheduler_output
            if not scheduler_output.total_num_scheduled_tokens:
                return EMPTY_MODEL_RUNNER_OUTPUT
            self.step_timing.forward_start()
            self.kv_connector.pre_forward(scheduler_output)
            self.model()
            self.step_timing.forward_end()
            self.kv_connector.finish_forward()
            return None

        def sample_tokens(self, grammar_output):
            # What AsyncOutput's own constructor leaves behind, without its copies from a device.
            made = object.__new__(AsyncOutput)
            made.model_runner_output = self.sampled()
            tokens = made.model_runner_output.sampled_token_ids
            made.sampled_token_ids = numpy.array([row or [-1] for row in tokens], dtype=numpy.int64)
            made.num_sampled_tokens_np = numpy.array([len(row) for row in tokens], dtype=numpy.int64)
            made.copy_event = Event()
            made.sampling_mask_tensors = made.num_nans = made.logprobs_tensors = None
            made.pending_aux_output = made._has_fault = None
            made.prompt_logprobs_dict, made.prompt_token_id_logprobs_dict = {}, {}
            return made

    runner = Runner(opts)
    runner.step_timing, runner.kv_connector = StepTimingCollector(), KVConnector()
    return runner


def make_worker(config, opts: argparse.Namespace):
    """A real worker object whose model runner is a stand-in, of the kind that vLLM chose."""
    from vllm.distributed import parallel_state
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    class StandInWorker(CPUWorker):
        def __init__(self):
            # Worker's own, past CPUWorker's binding of memory and cores.
            Worker.__init__(self, config, local_rank=0, rank=0, distributed_init_method="", is_driver_worker=True)
            self.model_runner = (newer_runner if config.use_v2_model_runner else older_runner)(opts)

    parallel_state._PP = OneRank()
    worker = StandInWorker()
    worker.compile_or_warm_up_model()
    return worker


class Harness:
    """The engine's loop, as EngineCore.step and step_with_batch_queue have it."""

    def __init__(self, opts: argparse.Namespace):
        from vllm.sampling_params import SamplingParams
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.request import Request
        from vllm.v1.structured_output import StructuredOutputManager

        self.opts = opts
        self.random = random.Random(opts.seed)
        self.config, cache = make_config(opts)
        hash_fn = get_hash_fn_by_name(self.config.cache_config.prefix_caching_hash_algo)
        init_none_hash(hash_fn)
        self.hasher = None if opts.no_prefix_caching else get_request_block_hasher(opts.block_size, hash_fn)
        self.Request, self.SamplingParams = Request, SamplingParams
        self.worker = make_worker(self.config, opts)
        self.scheduler = (AsyncScheduler if opts.async_scheduling else Scheduler)(
            vllm_config=self.config,
            kv_cache_config=cache,
            structured_output_manager=StructuredOutputManager(self.config),
            block_size=opts.block_size,
            log_stats=True,
        )
        self.truth = Truth(opts.truth, opts.max_rows)
        self.known: dict[str, Known] = {}
        self.live: dict[str, object] = {}
        self.made = 0
        self.step = 0
        self.generated = 0
        self.prefix = [self.random.randrange(3, VOCABULARY) for _ in range(opts.shared_prefix)]

    def arrive(self) -> None:
        """Adds requests up to the concurrency asked for."""
        while len(self.live) < self.opts.concurrency and (self.made < self.opts.requests or not self.opts.requests):
            length, output = self.random.randint(*self.opts.prompt), self.random.randint(*self.opts.output)
            if self.opts.prompts:
                length = self.opts.prompts[self.made % len(self.opts.prompts)]
            prompt = (self.prefix + [self.random.randrange(3, VOCABULARY) for _ in range(length)])[:length]
            rid = f"req-{self.made}"
            self.made += 1
            request = self.Request(
                request_id=rid,
                prompt_token_ids=prompt,
                sampling_params=self.SamplingParams(max_tokens=output, ignore_eos=True),
                pooling_params=None,
                block_hasher=self.hasher,
            )
            self.known[rid] = Known(prompt_tokens=length, output_tokens=output)
            self.live[rid] = request
            self.scheduler.add_request(request)

    def count(self, output) -> None:
        """One row of truth from a SchedulerOutput, by the harness's own account of each request."""
        before = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        before.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        row = dict.fromkeys(ROW, 0)
        row["step"] = self.step
        for rid in output.preempted_req_ids or ():
            self.known[rid].preempted.append(self.step)
            self.known[rid].lost = True
            row["preempted"] += 1
        output.unfinished_prefill = {}
        for rid, tokens in output.num_scheduled_tokens.items():
            known, start = self.known[rid], before[rid]
            again = min(max(known.high - start, 0), tokens)
            prompt = min(max(known.prompt_tokens - max(start, known.high), 0), tokens - again)
            kind = "recompute" if again else "prefill" if prompt else "decode"
            row["requests"] += 1
            row["tokens"] += tokens
            row[f"{kind}_requests"] += 1
            row["recompute_tokens"] += again
            row["prefill_tokens"] += prompt
            row["decode_tokens"] += tokens - again - prompt
            if known.started is None:
                known.started = self.step
                known.high = start
                row["started"] += 1
                row["prefix_hit_tokens"] += start
            elif known.lost:
                known.resumed.append(self.step)
                row["resumed"] += 1
                row["prefix_hit_tokens"] += start
            if known.lost or known.started == self.step:
                known.prefix_hit_tokens += start
            known.lost = False
            known.high = max(known.high, start + tokens)
            known.scheduled_tokens += tokens
            request = self.live[rid]
            output.unfinished_prefill[rid] = start + tokens < request.num_tokens
        row["running"], row["waiting"] = self.scheduler.get_request_counts()
        self.truth.scheduled(row)

    def execute(self, output):
        result = self.worker.execute_model(output)
        if result is None:
            result = self.worker.sample_tokens(None)
        self.truth.executed()
        return result

    def update(self, output, result) -> None:
        if hasattr(result, "get_output"):
            result = result.get_output()
        self.scheduler.update_from_output(output, result)
        self.generated += sum(map(len, result.sampled_token_ids))
        for rid in [rid for rid in output.num_scheduled_tokens if rid not in self.scheduler.requests]:
            if self.live.pop(rid, None) is not None:
                self.known[rid].finished = self.step
        self.truth.finished()

    def run(self) -> dict:
        """Steps until the requests are done or the steps asked for have been made."""
        queue: deque = deque()
        depth = 2 if self.opts.async_scheduling else 1
        while True:
            self.arrive()
            if self.step < self.opts.steps and self.scheduler.has_requests():
                output = self.scheduler.schedule()
                self.count(output)
                queue.append((output, self.execute(output)))
                self.step += 1
                if len(queue) < depth:
                    continue
            elif not queue:
                break
            self.update(*queue.popleft())
        return self.summary()

    def summary(self) -> dict:
        return {
            "pid": os.getpid(),
            "runner": type(self.worker.model_runner).__mro__[2].__module__,
            "steps": self.step,
            "generated_tokens": self.generated,
            "requests": {rid: vars(known) for rid, known in self.known.items()},
        }


def run(opts: argparse.Namespace) -> None:
    text = json.dumps(Harness(opts).run())
    if opts.summary:
        Path(opts.summary).write_text(text + "\n")
    else:
        print(text, flush=True)


def serve() -> None:
    """Imports vLLM, then forks one child per line; prints its pid, and how it ended when asked.

    {"spawn": [options]} -> {"pid": N}        {"wait": N} -> {"pid": N, "status": exit code or -signal}
    """
    import vllm.v1.core.sched.async_scheduler
    import vllm.v1.structured_output
    import vllm.v1.worker.cpu_worker  # noqa: F401

    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "spawn" in order:
            pid = os.fork()
            if pid == 0:
                sys.stdin.close()
                code = 1
                try:
                    run(options(order["spawn"]))
                    code = 0
                except BaseException as error:  # the child must not go on in the server's loop
                    print(f"harness: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(code)
            print(json.dumps({"pid": pid}), flush=True)
        else:
            _, status = os.waitpid(order["wait"], 0)
            print(json.dumps({"pid": order["wait"], "status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    chosen = options()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if chosen.serve:
        serve()
    else:
        run(chosen)
