"""What following the KV cache's blocks costs, against vLLM's own work on the same blocks.

    PYTHONPATH=build/release/site python bench/bench_kv.py [--rounds N]

Needs vLLM (any platform; no model is run). Two of vLLM's real block pools go through the same motions, in turn: one is
a scheduler's and hooked, the other one is made of the bare methods. Each figure is a median over rounds, per block.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

BLOCKS = 4096


def bare(function):
    return getattr(function, "__wrapped__", function)


def bare_classes():
    """The pool and its queue without hooks."""
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue

    pool_names = ("get_new_blocks", "_maybe_evict_cached_block", "touch", "reset_prefix_cache")
    queue_names = ("append_n", "prepend_n")
    Pool = type("BarePool", (BlockPool,), {name: bare(getattr(BlockPool, name)) for name in pool_names})
    Queue = type(
        "BareQueue", (FreeKVCacheBlockQueue,), {name: bare(getattr(FreeKVCacheBlockQueue, name)) for name in queue_names}
    )
    return Pool, Queue


def scheduler_pool():
    import harness

    return harness.Harness(harness.options(["--num-blocks", str(BLOCKS)])).scheduler


def cycle(pool, n, hashes, times):
    """n blocks are given out (each evicts a cached one), filled, given back and hit; ns of each part, per block."""
    clock = time.perf_counter_ns
    t0 = clock()
    blocks = pool.get_new_blocks(n)
    t1 = clock()
    for block in blocks:
        pool._insert_block_hash(next(hashes), block, num_tokens=16)
    t2 = clock()
    pool.free_blocks(reversed(blocks))
    t3 = clock()
    pool.touch(blocks)
    t4 = clock()
    pool.free_blocks(reversed(blocks))
    times["given out"].append((t1 - t0) / n)
    times["given back"].append((t3 - t2) / n)
    times["hit"].append((t4 - t3) / n)


def endless_hashes():
    n = 0
    while True:
        n += 1
        yield n.to_bytes(32, "big") + bytes(4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3000)
    arguments = parser.parse_args()
    if os.environ.get("VLLM_ENABLE_PROFILING") != "1":
        folder = tempfile.mkdtemp(prefix="bench_kv_")
        os.environ.update(VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=folder, VLLM_LOGGING_LEVEL="ERROR")
        os.execv(sys.executable, [sys.executable, *sys.argv])
    scheduler = scheduler_pool()
    hooked = scheduler.kv_cache_manager.block_pool
    if not hasattr(type(hooked).get_new_blocks, "__wrapped__"):
        sys.exit("bench_kv: the extension is not loaded: put build/release/site on PYTHONPATH")
    Pool, Queue = bare_classes()
    plain = Pool(BLOCKS, True, 16)
    plain.free_block_queue.__class__ = Queue
    hashes = endless_hashes()
    print(f"{'blocks':>7} {'':>11} {'bare':>8} {'hooked':>8} {'ours':>8} {'share':>7}   ns per block")
    for n in (1, 16, 256):
        times = [{name: [] for name in ("given out", "given back", "hit")} for _ in range(2)]
        for pool in (hooked, plain):  # every block is cached from here on
            for _ in range(BLOCKS // n + 1):
                cycle(pool, n, hashes, {name: [] for name in times[0]})
        for _ in range(max(arguments.rounds // n, 100)):
            cycle(plain, n, hashes, times[0])
            cycle(hooked, n, hashes, times[1])
            scheduler.schedule()
        for name in times[0]:
            low, high = (statistics.median(each[name]) for each in times)
            print(f"{n:7} {name:>11} {low:8.0f} {high:8.0f} {high - low:8.0f} {100 * (high - low) / low:6.1f}%")


if __name__ == "__main__":
    main()
