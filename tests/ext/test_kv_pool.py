"""The KV cache's probe on a pool as vLLM 0.11 had it, worked out by hand, and on objects that are not what they should be.

(What vLLM of today does is compared in tests/e2e/test_kv_cache.py.)
"""

import json

import pytest

import fake

# As in 0.11: touch() gets a tuple of lists, blocks come back by append_n alone, each look-up counts.
FILES = {
    **fake.FILES,
    "vllm/v1/core/__init__.py": "",
    "vllm/v1/core/sched/__init__.py": "",
    "vllm/v1/core/kv_cache_utils.py": """
        class KVCacheBlock:
            __slots__ = ("block_id", "ref_cnt", "_block_hash", "is_null")

            def __init__(self, block_id):
                self.block_id, self.ref_cnt, self._block_hash, self.is_null = block_id, 0, None, False

        class FreeKVCacheBlockQueue:
            def __init__(self, blocks):
                self.free, self.num_free_blocks = list(blocks), len(blocks)

            def popleft_n(self, n):
                taken, self.free = self.free[:n], self.free[n:]
                self.num_free_blocks -= n
                return taken

            def remove(self, block):
                self.free.remove(block)
                self.num_free_blocks -= 1

            def append_n(self, blocks):
                self.free += blocks
                self.num_free_blocks += len(blocks)
        """,
    "vllm/v1/core/block_pool.py": """
        from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue, KVCacheBlock

        class BlockPool:
            def __init__(self, num_gpu_blocks, enable_caching=True):
                self.num_gpu_blocks, self.enable_caching = num_gpu_blocks, enable_caching
                self.blocks = [KVCacheBlock(i) for i in range(num_gpu_blocks)]
                self.free_block_queue = FreeKVCacheBlockQueue(self.blocks)
                self.null_block = self.free_block_queue.popleft_n(1)[0]

            def get_new_blocks(self, num_blocks):
                if num_blocks > self.free_block_queue.num_free_blocks:
                    raise ValueError("not enough")
                taken = self.free_block_queue.popleft_n(num_blocks)
                for block in taken:
                    if self.enable_caching:
                        self._maybe_evict_cached_block(block)
                    block.ref_cnt += 1
                return taken

            def _maybe_evict_cached_block(self, block):
                if block._block_hash is None:
                    return False
                block._block_hash = None
                return True

            def touch(self, blocks):
                for group in blocks:
                    for block in group:
                        if block.ref_cnt == 0:
                            self.free_block_queue.remove(block)
                        block.ref_cnt += 1

            def free_blocks(self, ordered_blocks):
                blocks = list(ordered_blocks)
                for block in blocks:
                    block.ref_cnt -= 1
                self.free_block_queue.append_n([block for block in blocks if block.ref_cnt == 0])

            def reset_prefix_cache(self):
                if self.free_block_queue.num_free_blocks != self.num_gpu_blocks - 1:
                    return False
                for block in self.blocks:
                    block._block_hash = None
                return True
        """,
    "vllm/v1/core/kv_cache_manager.py": """
        from types import SimpleNamespace

        class KVCacheManager:
            def __init__(self, pool):
                self.block_pool, self.held = pool, {}
                self.kv_cache_config = SimpleNamespace(kv_cache_groups=[1])

            def get_computed_blocks(self, request):
                return [], request.hits

            def free(self, request):
                self.block_pool.free_blocks(block for block in reversed(self.held.pop(request.request_id)))
        """,
    "vllm/v1/core/sched/scheduler.py": """
        from types import SimpleNamespace

        class Scheduler:
            def __init__(self, manager):
                self.kv_cache_manager = manager
                self.requests, self.running, self.waiting = {}, [], []

            def schedule(self):
                return SimpleNamespace(num_scheduled_tokens={}, total_num_scheduled_tokens=0,
                                       scheduled_spec_decode_tokens={}, finished_req_ids=set())
        """,
}

START = """
from types import SimpleNamespace as N
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.scheduler import Scheduler
EngineArgs().create_engine_config()
"""

BY_HAND = (
    START
    + """
pool = BlockPool(5)
manager = KVCacheManager(pool)
scheduler = Scheduler(manager)
other = BlockPool(5)

a = N(request_id="a", num_tokens=40, num_preemptions=0, skip_reading_prefix_cache=False, hits=0)
manager.get_computed_blocks(a)
manager.held["a"] = pool.get_new_blocks(3)
scheduler.schedule()                                    # 0: a has 1, 2, 3
for i, block in enumerate(manager.held["a"][:2]):
    block._block_hash = b"%d" % i                       # 1 and 2 are full
manager.free(a)                                         # the queue: 4 3 2 1
scheduler.schedule()                                    # 1: nothing held, 1 and 2 cached
b = N(request_id="b", num_tokens=50, num_preemptions=1, skip_reading_prefix_cache=False, hits=16)
manager.get_computed_blocks(b)
pool.touch(([pool.blocks[1]],))                         # b hits 1
manager.held["b"] = [pool.blocks[1], *pool.get_new_blocks(3)]   # 4, 3, and 2, whose contents are lost
scheduler.schedule()                                    # 2: all held
try:
    pool.get_new_blocks(1)                              # there is none
except ValueError:
    pass
other.get_new_blocks(2)                                 # not the scheduler's
c = N(request_id="c", num_tokens=70, num_preemptions=0, skip_reading_prefix_cache=True, hits=0)
manager.get_computed_blocks(c)                          # does not look
manager.free(b)
pool.reset_prefix_cache()                               # 1 was still cached
scheduler.schedule()                                    # 3: all free
"""
)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), FILES)


@pytest.fixture(params=fake.PYTHONS)
def run(request, package, tmp_path):
    def script(text, **extra):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra)
        fake.run(fake.PYTHONS[request.param], ["-c", text], env, tmp_path)
        (session,) = fake.sessions(tmp_path)
        program = str(fake.BUILD / "bin" / "profilemate")
        done = fake.run(program, ["export", "--quiet", "--format", "json", str(session)], env, tmp_path)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        report = json.loads(fake.run(program, ["report", "--json", str(session)], env, tmp_path).stdout)
        assert report["own_cost"]["faults"] == 0
        return {table: [row for row in rows if row["table"] == table] for table in ("kv_step", "kv_eviction")}

    return script


def columns(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


def test_worked_out_by_hand(run):
    tables = run(BY_HAND)
    steps, evictions = tables["kv_step"], tables["kv_eviction"]
    assert columns(steps, "step", "total", "used", "evictable", "peak") == [
        (0, 4, 3, 0, 3), (1, 4, 0, 2, 3), (2, 4, 4, 0, 4), (3, 4, 0, 0, 4),
    ]  # fmt: skip
    assert columns(steps, "allocated", "revived", "freed", "evicted", "dropped") == [
        (3, 0, 0, 0, 0), (0, 0, 3, 0, 0), (3, 1, 0, 1, 0), (0, 0, 4, 0, 1),
    ]  # fmt: skip
    assert columns(steps, "queried_tokens", "hit_tokens", "requeried_tokens", "rehit_tokens") == [
        (40, 0, 0, 0), (0, 0, 0, 0), (0, 0, 50, 16), (0, 0, 0, 0),
    ]  # fmt: skip
    assert columns(evictions, "step", "block", "reuses", "request", "group", "cause") == [(2, 2, 0, "a", 0, 0)]
    lost, ends = evictions[0], [step["at_ns"] for step in steps]
    assert lost["at_ns"] - lost["lifetime_ns"] < ends[0] < lost["at_ns"] - lost["idle_ns"] < ends[1] < lost["at_ns"]


def test_ids_that_clients_chose_can_be_hidden(run):
    tables = run(BY_HAND, VLLM_PROFILING_REQUEST_IDS="hash")
    (lost,) = tables["kv_eviction"]
    assert lost["request"].startswith("h") and len(lost["request"]) == 17


def test_without_prefix_caching_blocks_are_counted(run):
    tables = run(
        START
        + """
pool = BlockPool(5, enable_caching=False)
manager = KVCacheManager(pool)
scheduler = Scheduler(manager)
a = N(request_id="a", num_tokens=40, hits=0)
manager.held["a"] = pool.get_new_blocks(3)
scheduler.schedule()
manager.free(a)
scheduler.schedule()
"""
    )
    assert columns(tables["kv_step"], "used", "allocated", "freed", "evictable", "flags") == [
        (3, 3, 0, 0, 0), (0, 0, 3, 0, 0),
    ]  # fmt: skip
    assert not tables["kv_eviction"]


def test_engines_one_after_another_are_told_apart(run):
    """A new pool may lie where an old one lay: it is not taken for it."""
    tables = run(
        START
        + """
for n in range(6):
    pool = BlockPool(3 + n)
    manager = KVCacheManager(pool)
    scheduler = Scheduler(manager)
    pool.get_new_blocks(2)
    scheduler.schedule()
    del pool, manager, scheduler
"""
    )
    assert columns(tables["kv_step"], "instance", "step", "total", "used", "allocated") == [
        (n, 0, 2 + n, 2, 2) for n in range(6)
    ]


@pytest.mark.parametrize(
    "change",
    [
        "scheduler.kv_cache_manager = None",
        "del scheduler.kv_cache_manager",
        "del manager.block_pool",
        "del pool.free_block_queue.num_free_blocks",
        "pool.free_block_queue.num_free_blocks = -3",
        "pool.num_gpu_blocks = 'many'; scheduler = Scheduler(manager)",
        "pool.num_gpu_blocks = 1; scheduler = Scheduler(manager)",
        "pool.blocks[1].block_id = None",
        "pool.blocks[1].block_id = 1 << 40",
        "pool.blocks[1].block_id = -1",
        "del pool.blocks[1].block_id",
        "del pool.enable_caching; type(pool).enable_caching = property(lambda self: 1 / 0 if self is None else True)",
        "manager.kv_cache_config = 3",
        "a.request_id = b'a'; manager.held[b'a'] = []",
        "a.num_tokens = -1",
        "a.hits = 'many'",
        "type(manager).get_computed_blocks.__wrapped__; a.hits = None",
    ],
)
def test_objects_that_are_not_what_they_should_be(run, change):
    """What vLLM's own code says of them is its business; the probe says nothing, and counts on."""
    run(
        START
        + f"""
pool = BlockPool(5)
manager = KVCacheManager(pool)
scheduler = Scheduler(manager)
a = N(request_id="a", num_tokens=40, num_preemptions=0, skip_reading_prefix_cache=False, hits=0)
scheduler.schedule()
{change}
for _ in range(3):
    for call in (
        lambda: manager.get_computed_blocks(a),
        lambda: manager.held.__setitem__(a.request_id, pool.get_new_blocks(2)),
        lambda: setattr(manager.held[a.request_id][0], "_block_hash", b"12345"),
        scheduler.schedule,
        lambda: manager.free(a),
        lambda: pool.touch(([pool.blocks[2]], 5)),
        lambda: pool.free_block_queue.append_n([None, 3]),
        pool.reset_prefix_cache,
        scheduler.schedule,
    ):
        try:
            call()
        except (AttributeError, TypeError, ValueError, KeyError):
            pass
"""
    )
