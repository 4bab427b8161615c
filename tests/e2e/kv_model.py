"""Drives vLLM's real scheduler, KV cache manager and block pool through random workloads, and keeps its own account.

One scheduler after another in one process, each with options, arrivals, aborts, resets and odd uses of the pool drawn
from its seed. After every schedule() the model counts the pool's blocks one by one, and what moved it counts where the
pool's own queue is worked on. Evictions are those that vLLM itself announces (its KV cache events).

    python tests/e2e/kv_model.py --seeds 1:40 --steps 250 --out FILE      one JSON line per seed
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import harness


def arguments_of(rng: random.Random, steps: int) -> tuple[list[str], dict]:
    """A workload: harness.py's options, and what the model does besides."""
    extra = {
        "window": rng.choice((0, 0, 0, 32, 64)),  # a second group of layers, with sliding-window attention
        "defer": rng.random() < 0.25,  # blocks come back once the steps under way are done, as with a KV connector
        "abort": rng.choice((0.0, 0.05, 0.2)),
        "reset": rng.choice((0.0, 0.02)),
        "invalid": rng.choice((0.0, 0.0, 0.05)),
        "odd": rng.choice((0.0, 0.1)),
    }
    longest = rng.choice((40, 120, 300))
    arguments = [
        "--steps", str(steps), "--requests", "0",
        "--num-blocks", str(rng.choice((30, 60, 150)) * (2 if extra["window"] else 1)),
        "--prompt", f"1:{longest}", "--output", f"1:{rng.choice((4, 40))}",
        "--shared-prefix", str(rng.choice((0, 16, 50, 100))),
        "--concurrency", str(rng.choice((2, 8, 24))), "--max-num-seqs", str(rng.choice((2, 8, 16))),
        "--max-num-batched-tokens", str(rng.choice((32, 128))), "--max-model-len", "400",
        "--seed", str(rng.randrange(1 << 30)),
    ]  # fmt: skip
    if rng.random() < 0.4:
        arguments.append("--async-scheduling")
    if rng.random() < 0.15:
        arguments.append("--no-prefix-caching")
    return arguments, extra


def with_window(make_config, window: int):
    """Two groups of layers on one pool, the second with a sliding window."""

    def made(opts):
        import torch
        from vllm.v1.kv_cache_interface import KVCacheGroupSpec, SlidingWindowSpec

        config, cache = make_config(opts)
        layer = SlidingWindowSpec(
            block_size=opts.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32, sliding_window=window
        )
        cache.kv_cache_groups.append(KVCacheGroupSpec(["window"], layer))
        return config, cache

    return made


class KvModel(harness.Harness):
    def __init__(self, opts, extra: dict):
        super().__init__(opts)
        self.extra = extra
        self.dice = random.Random(opts.seed + 1)
        self.manager = self.scheduler.kv_cache_manager
        self.pool = self.manager.block_pool
        self.rows: list[dict] = []
        self.evictions: list[dict] = []
        self.moved = dict.fromkeys(("allocated", "revived", "freed", "evicted", "dropped"), 0)
        self.prefix_stats = None, (0, 0, 0, 0)
        # Of each block: the schedule() calls that were over when it was given out, and last used; hits; last holder.
        self.born: dict[int, int] = {}
        self.used: dict[int, int] = {}
        self.hits: dict[int, int] = {}
        self.holder: dict[int, str] = {}
        self.done = 0  # schedule() calls
        if extra["defer"] and opts.async_scheduling:
            self.scheduler.defer_block_free = True
        self.watch()
        self.other = type(self.pool)(8, True, opts.block_size)  # a pool that is not the scheduler's

    def watch(self) -> None:
        """Counts what moves, on these objects alone: what is hooked on their classes runs beneath, as ever."""
        pool, queue, manager = self.pool, self.pool.free_block_queue, self.manager
        popleft_n, remove, append_n, prepend_n = queue.popleft_n, queue.remove, queue.append_n, queue.prepend_n
        touch, free, pop = pool.touch, manager.free, manager.pop_blocks_for_free
        evict, reset = pool._maybe_evict_cached_block, pool.reset_prefix_cache
        pool.enable_kv_cache_events = True

        def taken(n):
            blocks = popleft_n(n)
            self.moved["allocated"] += n
            if not pool.enable_caching:
                for block in blocks:
                    self.new_life(block.block_id)
            return blocks

        def evicted(block):
            cached = block._block_hash
            before = len(pool.kv_event_queue)
            result = evict(block)
            told = [event for event in pool.kv_event_queue[before:] if type(event).__name__ == "BlockRemoved"]
            if told:
                self.moved["evicted"] += 1
                self.evictions.append(
                    {
                        "step": self.done,
                        "block": block.block_id,
                        "born": self.born.get(block.block_id, -1),
                        "used": self.used.get(block.block_id, -1),
                        "reuses": self.hits.get(block.block_id, 0),
                        "request": self.holder.get(block.block_id, ""),
                        "group": int.from_bytes(cached[-4:], "big"),
                        "cause": int(self.invalidating),
                    }
                )
            if not self.invalidating:
                self.new_life(block.block_id)
            return result

        def removed(block):
            self.moved["revived"] += 1
            remove(block)

        def given_back(blocks, put):
            self.moved["freed"] += len(blocks)
            for block in blocks:
                self.used[block.block_id] = self.done
            put(blocks)

        def touched(blocks):
            for block in blocks:
                self.used[block.block_id] = self.done
                self.hits[block.block_id] = self.hits.get(block.block_id, 0) + 1
            touch(blocks)

        def freed(request):
            held = self.blocks_of(request)
            free(request)
            for block in held:
                if block.ref_cnt == 0 and block._block_hash is not None:
                    self.holder[block.block_id] = request.request_id

        def popped(request):
            blocks = pop(request)
            for block in blocks:
                if block._block_hash is not None:
                    self.holder[block.block_id] = request.request_id
            return blocks

        def emptied():
            cached = sum(block._block_hash is not None for block in pool.blocks)
            result = reset()
            if result:
                self.moved["dropped"] += cached
                self.holder.clear()
            return result

        self.invalidating = False
        queue.popleft_n, queue.remove = taken, removed
        queue.append_n = lambda blocks: given_back(blocks, append_n)
        queue.prepend_n = lambda blocks: given_back(blocks, prepend_n)
        pool.reset_prefix_cache = emptied
        pool.touch, pool._maybe_evict_cached_block = touched, evicted
        manager.free, manager.pop_blocks_for_free = freed, popped

    def new_life(self, block_id: int) -> None:
        self.born[block_id] = self.used[block_id] = self.done
        self.hits[block_id] = 0
        self.holder.pop(block_id, None)

    def blocks_of(self, request) -> list:
        managers = self.manager.coordinator.single_type_managers
        return [block for one in managers for block in one.req_to_blocks.get(request.request_id, ())]

    # Between steps

    def disturb(self) -> None:
        extra, dice = self.extra, self.dice
        if dice.random() < 0.05:  # what prompts share changes, and what they shared grows cold
            self.prefix = [dice.randrange(3, harness.VOCABULARY) for _ in self.prefix]
        if dice.random() < extra["abort"] and self.live:
            from vllm.v1.request import RequestStatus

            rid = dice.choice(list(self.live))
            self.live_after_abort.append((rid, self.live.pop(rid)))
            self.scheduler.finish_requests(rid, RequestStatus.FINISHED_ABORTED)
        if dice.random() < extra["reset"]:
            # Works only where no request holds a block; all are preempted first where no step is under way.
            self.scheduler.reset_prefix_cache(reset_running_requests=not self.opts.async_scheduling)
        if dice.random() < extra["invalid"]:
            self.invalidating = True
            self.manager.evict_blocks(set(dice.sample(range(1, self.pool.num_gpu_blocks), 5)))
            self.invalidating = False
        if dice.random() < extra["odd"]:
            self.odd()

    def odd(self) -> None:
        """Uses of the pool that a server makes seldom: a generator, pins, another pool's blocks."""
        n = min(3, self.pool.get_num_free_blocks())
        if n:
            blocks = self.pool.get_new_blocks(n)
            if self.dice.random() < 0.5:
                self.pool.free_blocks(block for block in blocks)
            else:
                self.pool.unpin_blocks(blocks, lambda block: None)
        foreign = self.other.get_new_blocks(2)
        self.other.touch(foreign)
        self.pool.free_blocks(foreign)
        self.other.free_blocks(foreign)

    # Steps

    def run(self) -> dict:
        queue: deque = deque()
        depth = 2 if self.opts.async_scheduling else 1
        self.live_after_abort: list = []
        while self.step < self.opts.steps or queue:
            if self.step < self.opts.steps:
                self.arrive()
                self.disturb()
            if self.step < self.opts.steps and self.scheduler.has_requests():
                output = self.scheduler.schedule()
                self.account()
                self.live.update(self.live_after_abort)  # the harness still counts their last step
                self.count(output)
                for rid, _ in self.live_after_abort:
                    self.live.pop(rid, None)
                queue.append((output, self.execute(output)))
                self.step += 1
                if len(queue) < depth:
                    continue
            if queue:
                self.update(*queue.popleft())
        return {"steps": self.step, "rows": self.rows, "evictions": self.evictions}

    def account(self) -> None:
        """The pool as it stands, block by block."""
        pool, null = self.pool, self.pool.null_block
        blocks = [block for block in pool.blocks if block is not null]
        free = pool.free_block_queue.get_all_free_blocks()
        used = sum(block.ref_cnt > 0 for block in blocks)
        assert used + len(free) == len(blocks)
        stats = self.manager.prefix_cache_stats
        seen = (stats.queries, stats.hits, stats.preempted_queries, stats.preempted_hits)
        last, before = self.prefix_stats
        fresh = [a - b for a, b in zip(seen, before, strict=True)] if stats is last else list(seen)
        self.prefix_stats = stats, seen
        names = ("queried_tokens", "hit_tokens", "requeried_tokens", "rehit_tokens")
        self.rows.append(
            {
                "step": self.done,
                "total": len(blocks),
                "used": used,
                "evictable": sum(block._block_hash is not None for block in free),
                "usage": self.manager.usage,
                **self.moved,
                **dict(zip(names, fresh, strict=True)),
            }
        )
        pool.kv_event_queue.clear()
        self.moved = dict.fromkeys(self.moved, 0)
        self.done += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="kv_model.py", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=harness.span, default=(1, 10), metavar="FIRST:LAST")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--out", required=True)
    chosen = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    make_config = harness.make_config
    with open(chosen.out, "w") as out:
        for seed in range(chosen.seeds[0], chosen.seeds[1] + 1):
            arguments, extra = arguments_of(random.Random(seed), chosen.steps)
            harness.make_config = with_window(make_config, extra["window"]) if extra["window"] else make_config
            result = KvModel(harness.options(arguments), extra).run()
            print(json.dumps({"seed": seed, "arguments": arguments, "extra": extra, **result}), file=out, flush=True)


if __name__ == "__main__":
    main()
