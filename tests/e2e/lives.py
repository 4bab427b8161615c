"""Random workloads on vLLM's real scheduler, without a worker: what became of each request, told by vLLM's own outputs.

Each workload is a scheduler of its own, with its own mix of preemptions, aborts, stop tokens, drafts, priorities,
cache resets, streaming sessions and asynchronous scheduling, drawn from a seed. The truth is kept from what
`update_from_output` hands out and from the clock before and after each call, so that every moment that the profiler
records has a lower and an upper bound, and every count is exact.

    python tests/e2e/lives.py --seeds 1:20 > truth.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import harness

STOP_TOKEN = 3
Bounds = tuple[int, int]  # monotonic ns: not before, not after


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@dataclass
class Life:
    prompt_tokens: int
    max_tokens: int
    priority: int
    queued: Bounds
    turns: int = 1
    started: Bounds | None = None
    cached_tokens: int = 0
    first: Bounds | None = None
    last: Bounds | None = None
    longest_gap: Bounds = (0, 0)
    outputs: int = 0
    output_tokens: int = 0
    preempted: list[Bounds] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    resumed: list[Bounds] = field(default_factory=list)
    lost_tokens: int = 0
    lost_blocks: int = 0
    recomputed_tokens: int = 0
    finished: Bounds | None = None
    reason: str | None = None
    high: int = 0  # tokens computed at least once
    away: bool = False
    new_turn: bool = False


@dataclass
class Mix:
    """What one workload is made of."""

    seed: int
    asynchronous: bool
    spec: int
    policy: str
    num_blocks: int
    prefix_caching: bool
    max_num_seqs: int
    max_tokens_per_step: int
    requests: int
    concurrency: int
    abort: float
    reset: float
    stop: float
    sessions: float
    reuse_ids: bool

    @classmethod
    def draw(cls, seed: int) -> Mix:
        rng = random.Random(seed)
        asynchronous = rng.random() < 0.4
        sessions = rng.choice((0, 0, 0.3))
        return cls(
            seed=seed,
            asynchronous=asynchronous,
            # vLLM itself fails an assertion of its own where a session goes on with drafts.
            spec=0 if asynchronous or sessions or rng.random() < 0.5 else rng.randint(1, 4),
            policy=rng.choice(("fcfs", "fcfs", "priority")),
            num_blocks=400 if sessions else rng.choice((30, 40, 60, 400)),  # vLLM may lose a session it preempts
            prefix_caching=rng.random() < 0.6,
            max_num_seqs=rng.choice((4, 16)),
            max_tokens_per_step=rng.choice((32, 64, 128)),
            requests=rng.randint(15, 50),
            concurrency=rng.randint(4, 24),
            abort=rng.choice((0, 0.02, 0.1)),
            reset=0 if sessions else rng.choice((0, 0.02)),  # vLLM cannot reset beneath a session that waits
            stop=rng.choice((0, 0.03)),
            sessions=sessions,
            reuse_ids=rng.random() < 0.3,
        )


class Workload:
    def __init__(self, mix: Mix):
        from vllm.config import SpeculativeConfig
        from vllm.sampling_params import SamplingParams
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.request import Request
        from vllm.v1.structured_output import StructuredOutputManager

        self.mix, self.random = mix, random.Random(mix.seed)
        opts = harness.options([
            "--num-blocks", str(mix.num_blocks), "--max-num-seqs", str(mix.max_num_seqs),
            "--max-num-batched-tokens", str(mix.max_tokens_per_step),
            *(["--async-scheduling"] if mix.asynchronous else []),
            *([] if mix.prefix_caching else ["--no-prefix-caching"]),
        ])  # fmt: skip
        config, cache = harness.make_config(opts)
        config.scheduler_config.policy = mix.policy
        if mix.spec:
            config.speculative_config = SpeculativeConfig(
                method="ngram", num_speculative_tokens=mix.spec, prompt_lookup_max=2, prompt_lookup_min=1,
                target_model_config=config.model_config, target_parallel_config=config.parallel_config,
            )  # fmt: skip
        hash_fn = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
        init_none_hash(hash_fn)
        self.hasher = get_request_block_hasher(opts.block_size, hash_fn) if mix.prefix_caching else None
        self.Request, self.SamplingParams = Request, SamplingParams
        self.scheduler = (AsyncScheduler if mix.asynchronous else Scheduler)(
            vllm_config=config, kv_cache_config=cache, structured_output_manager=StructuredOutputManager(config),
            block_size=opts.block_size, log_stats=True,
        )  # fmt: skip
        self.lives: list[tuple[str, Life]] = []  # in the order of their coming; ids may come again
        self.live: dict[str, Life] = {}
        self.resumable: dict[str, int] = {}  # turns still to come
        self.spare_ids: deque[tuple[int, str]] = deque()  # of requests that are over, and in which step
        self.updates: list[dict] = []
        self.steps = 0

    # Requests

    def tokens(self, length: int) -> list[int]:
        return [self.random.randrange(4, harness.VOCABULARY) for _ in range(length)]

    def request(self, rid: str, prompt: list[int], max_tokens: int, priority: int, resumable: bool):
        return self.Request(
            request_id=rid, prompt_token_ids=prompt, pooling_params=None, block_hasher=self.hasher, priority=priority,
            sampling_params=self.SamplingParams(max_tokens=max_tokens, ignore_eos=True, stop_token_ids=[STOP_TOKEN]),
            resumable=resumable,
        )  # fmt: skip

    def arrive(self) -> None:
        while len(self.live) < self.mix.concurrency and len(self.lives) < self.mix.requests:
            if self.mix.reuse_ids and self.spare_ids and self.spare_ids[0][0] + 2 * self.mix.asynchronous <= self.steps:
                rid = self.spare_ids.popleft()[1]  # the very str of one that is over
            else:
                rid = f"seed-{self.mix.seed}-{len(self.lives)}"
            prompt = self.tokens(self.random.randint(1, 150))
            max_tokens, priority = self.random.randint(1, 40), self.random.randrange(3)
            resumable = self.random.random() < self.mix.sessions
            request = self.request(rid, prompt, max_tokens, priority, resumable)
            before = now()
            self.scheduler.add_request(request)
            life = Life(len(prompt), max_tokens, priority, (before, now()))
            self.lives.append((rid, life))
            self.live[rid] = life
            if resumable:
                self.resumable[rid] = self.random.randint(1, 2)

    def go_on(self) -> None:
        """Streaming sessions whose turn is over get their next piece of input, or their end."""
        for rid in list(self.resumable):
            request = self.scheduler.requests.get(rid)
            if request is None or request.status.name != "WAITING_FOR_STREAMING_REQ":
                continue
            life = self.live[rid]
            if self.resumable[rid] == 0:
                del self.resumable[rid]
                before = now()
                self.scheduler.add_request(self.request(rid, [4], 1, life.priority, False))
                self.over(rid, (before, now()), "abort")
                continue
            self.resumable[rid] -= 1
            before_high = request.num_computed_tokens
            self.scheduler.add_request(
                self.request(rid, self.tokens(self.random.randint(1, 30)), 10, life.priority, True)
            )
            life.high = before_high
            life.turns += 1
            life.new_turn = True
            life.prompt_tokens, life.max_tokens = request.num_prompt_tokens, request.max_tokens

    def over(self, rid: str, at: Bounds, reason: str) -> None:
        life = self.live.pop(rid)
        self.resumable.pop(rid, None)
        life.finished, life.reason = at, reason
        self.spare_ids.append((self.steps, rid))

    def disturb(self) -> None:
        from vllm.v1.request import RequestStatus

        for rid in list(self.live):
            if self.random.random() < self.mix.abort / 10:
                before = now()
                self.scheduler.finish_requests(rid, RequestStatus.FINISHED_ABORTED)
                self.over(rid, (before, now()), "abort")
        if self.random.random() < self.mix.reset and self.scheduler.running:
            held = self.snapshot()
            before = now()
            self.scheduler.reset_prefix_cache(reset_running_requests=True)
            self.preempted(held, (before, now()), "cache_reset")

    # Steps

    def snapshot(self) -> dict[str, tuple[int, int, int]]:
        """What each running request has: preemptions, computed tokens, blocks."""
        blocks = self.scheduler.kv_cache_manager.get_block_ids
        return {
            request.request_id: (
                request.num_preemptions, request.num_computed_tokens, sum(map(len, blocks(request.request_id)))
            )
            for request in self.scheduler.running
        }  # fmt: skip

    def preempted(self, held: dict[str, tuple[int, int, int]], at: Bounds, reason: str) -> None:
        for rid, (preemptions, computed, blocks) in held.items():
            request = self.scheduler.requests[rid]
            if request.num_preemptions == preemptions:
                continue
            life = self.live[rid]
            life.preempted.append(at)
            life.reasons.append(reason)
            life.lost_tokens += computed
            life.lost_blocks += blocks
            life.high = max(life.high, computed)
            life.away = True

    def schedule(self):
        held = self.snapshot()
        before = now()
        output = self.scheduler.schedule()
        at = (before, now())
        self.preempted(held, at, "kv_cache_exhausted")
        starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        starts.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        output.chunks = set()
        for rid, tokens in output.num_scheduled_tokens.items():
            life, start, request = self.live[rid], starts[rid], self.scheduler.requests[rid]
            if life.started is None:
                life.started, life.cached_tokens = at, start
                life.high = start
            elif life.away:
                life.resumed.append(at)
            if life.preempted:
                known = request.num_tokens  # tokens under way when it was preempted may never have come
                life.recomputed_tokens += min(max(min(life.high, known) - start, 0), tokens)
            life.away = False
            if not life.preempted:
                life.high = max(life.high, start + tokens)
            if request.is_prefill_chunk:
                output.chunks.add(rid)
        self.steps += 1
        return output

    def run_model(self, output):
        from vllm.v1.outputs import ModelRunnerOutput

        ids, sampled = list(output.num_scheduled_tokens), []
        for rid in ids:
            drafts = len(output.scheduled_spec_decode_tokens.get(rid, ()))
            count = 0 if rid in output.chunks else 1 + self.random.randint(0, drafts)
            sampled.append([
                STOP_TOKEN if self.random.random() < self.mix.stop else self.tokens(1)[0] for _ in range(count)
            ])  # fmt: skip
        return ModelRunnerOutput(
            req_ids=ids, req_id_to_index={rid: i for i, rid in enumerate(ids)}, sampled_token_ids=sampled
        )

    def update(self, output, result) -> None:
        before = now()
        handed = self.scheduler.update_from_output(output, result)
        at = (before, now())
        counted = {"tokens": 0, "outputs": 0, "finished": 0, "drafted": 0, "accepted": 0}
        for outputs in handed.values():
            stats = outputs.scheduler_stats and outputs.scheduler_stats.spec_decoding_stats
            if stats:
                counted["drafted"], counted["accepted"] = stats.num_draft_tokens, stats.num_accepted_tokens
            for one in outputs.outputs:
                life = self.live[one.request_id]
                counted["outputs"] += bool(one.new_token_ids)
                counted["tokens"] += len(one.new_token_ids)
                if one.new_token_ids:
                    self.got(life, at, len(one.new_token_ids))
                if one.finish_reason is not None and one.request_id not in self.scheduler.requests:
                    counted["finished"] += 1
                    self.over(one.request_id, at, str(one.finish_reason))
        if output.num_scheduled_tokens:
            self.updates.append(counted)
        if self.mix.spec:
            self.draft(output)

    @staticmethod
    def got(life: Life, at: Bounds, tokens: int) -> None:
        if life.first is None:
            life.first = at
        elif not life.new_turn:
            low, high = at[0] - life.last[1], at[1] - life.last[0]
            life.longest_gap = (max(life.longest_gap[0], low), max(life.longest_gap[1], high))
        life.new_turn = False
        life.last = at
        life.outputs += 1
        life.output_tokens += tokens

    def draft(self, output) -> None:
        from vllm.v1.outputs import DraftTokenIds

        ids = [rid for rid in output.num_scheduled_tokens if rid in self.scheduler.requests]
        drafts = [self.tokens(self.random.randint(0, self.mix.spec)) for _ in ids]
        self.scheduler.update_draft_token_ids(DraftTokenIds(req_ids=ids, draft_token_ids=drafts))

    def run(self) -> dict:
        queue: deque = deque()
        depth = 2 if self.mix.asynchronous else 1
        while True:
            self.arrive()
            if self.scheduler.has_requests() or self.resumable:
                self.go_on()
                self.disturb()
                output = self.schedule()
                queue.append((output, self.run_model(output)))
                if len(queue) < depth and output.num_scheduled_tokens:
                    continue
            elif not queue:
                break
            self.update(*queue.popleft())
        return {
            "mix": vars(self.mix),
            "steps": self.steps,
            "lives": [[rid, vars(life)] for rid, life in self.lives],
            "updates": self.updates,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=harness.span, required=True, metavar="FIRST:LAST")
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    first, last = arguments.seeds
    json.dump({"pid": os.getpid(), "workloads": [Workload(Mix.draw(seed)).run() for seed in range(first, last + 1)]},
              sys.stdout)  # fmt: skip


if __name__ == "__main__":
    main()
