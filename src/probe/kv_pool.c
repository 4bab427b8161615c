/* See kv_pool.h. */
#include "probe/kv_pool.h"

#include <stdlib.h>
#include <string.h>

void pm_kv_pool_clear(struct pm_kv_pool *pool)
{
    for (uint32_t i = 0; i < pool->n_owners; i++)
        Py_XDECREF(pool->owners[i].request_id);
    free(pool->owners);
    free(pool->blocks);
    memset(pool, 0, sizeof *pool);
}

static bool grow(struct pm_kv_pool *pool, uint64_t block_id)
{
    /* Once, to the size that the pool says it has; from then on by doubling. */
    uint64_t n = pool->n_blocks == 0 ? (uint64_t)pool->total + 1 : (uint64_t)pool->n_blocks * 2;
    if (n <= block_id)
        n = block_id + 1;
    if (n > PM_KV_BLOCKS_MAX)
        n = PM_KV_BLOCKS_MAX;
    if (block_id >= n)
        return false;
    struct pm_kv_block *blocks = calloc(n, sizeof *blocks);
    if (blocks == NULL)
        return false;
    if (pool->n_blocks > 0)
        memcpy(blocks, pool->blocks, sizeof *blocks * pool->n_blocks);
    free(pool->blocks);
    pool->blocks = blocks;
    pool->n_blocks = (uint32_t)n;
    return true;
}

struct pm_kv_block *pm_kv_pool_block(struct pm_kv_pool *pool, uint64_t block_id)
{
    if (__builtin_expect(block_id >= pool->n_blocks, 0) && !grow(pool, block_id))
        return NULL;
    return &pool->blocks[block_id];
}

void pm_kv_block_allocated(struct pm_kv_pool *pool, struct pm_kv_block *block, uint64_t at_ns)
{
    pm_kv_block_uncached(pool, block);
    pm_kv_block_own(pool, block, 0);
    block->allocated_ns = block->used_ns = at_ns;
    block->reuses = 0;
}

void pm_kv_block_touched(struct pm_kv_pool *pool, struct pm_kv_block *block, uint64_t at_ns)
{
    pm_kv_block_uncached(pool, block); /* it is still cached, but no longer free */
    block->used_ns = at_ns;
    if (block->reuses < (1u << 31) - 1)
        block->reuses++;
}

void pm_kv_block_freed(struct pm_kv_pool *pool, struct pm_kv_block *block, bool cached,
                       uint64_t at_ns)
{
    block->used_ns = at_ns;
    if (!cached || block->evictable)
        return;
    block->evictable = 1;
    pool->evictable++;
    if (pool->freeing == NULL)
        return;
    if (pool->freeing_owner == 0)
        pool->freeing_owner = pm_kv_owner_new(pool, pool->freeing);
    pm_kv_block_own(pool, block, pool->freeing_owner);
}

void pm_kv_block_uncached(struct pm_kv_pool *pool, struct pm_kv_block *block)
{
    pool->evictable -= block->evictable;
    block->evictable = 0;
}

/* An owner that no entry names any longer, nor the call under way. */
static void owner_release(struct pm_kv_pool *pool, uint32_t owner)
{
    struct pm_kv_owner *place = &pool->owners[owner - 1];
    if (place->blocks > 0 || owner == pool->freeing_owner)
        return;
    PyObject *request_id = place->request_id;
    place->request_id = NULL;
    place->next_free = pool->free_owner;
    pool->free_owner = owner;
    if (pool->told_owner == owner)
        pool->told_owner = 0; /* the place may soon be another's */
    Py_XDECREF(request_id);
}

void pm_kv_block_own(struct pm_kv_pool *pool, struct pm_kv_block *block, uint32_t owner)
{
    const uint32_t before = block->owner;
    if (before == owner)
        return;
    block->owner = owner;
    if (owner != 0)
        pool->owners[owner - 1].blocks++;
    if (before != 0) {
        pool->owners[before - 1].blocks--;
        owner_release(pool, before);
    }
}

uint32_t pm_kv_owner_new(struct pm_kv_pool *pool, PyObject *request_id)
{
    uint32_t owner = pool->free_owner;
    if (owner != 0) {
        pool->free_owner = pool->owners[owner - 1].next_free;
    } else {
        if (pool->n_owners == pool->owners_room) {
            const uint32_t room = pool->owners_room == 0 ? 256 : pool->owners_room * 2;
            struct pm_kv_owner *owners = realloc(pool->owners, sizeof *owners * room);
            if (owners == NULL)
                return 0;
            pool->owners = owners;
            pool->owners_room = room;
        }
        owner = ++pool->n_owners; /* as many as blocks at most: each one has a block */
    }
    pool->owners[owner - 1] = (struct pm_kv_owner){.request_id = Py_NewRef(request_id)};
    return owner;
}

void pm_kv_owner_settle(struct pm_kv_pool *pool, uint32_t owner)
{
    if (owner != 0)
        owner_release(pool, owner);
}

uint32_t pm_kv_pool_drop(struct pm_kv_pool *pool)
{
    const uint32_t dropped = pool->evictable;
    for (uint32_t i = 0; i < pool->n_blocks; i++) {
        pool->blocks[i].evictable = 0;
        pm_kv_block_own(pool, &pool->blocks[i], 0);
    }
    pool->evictable = 0;
    return dropped;
}

void pm_kv_pool_step(struct pm_kv_pool *pool, bool free_known, uint64_t free_blocks, uint64_t at_ns,
                     struct pm_kv_step *ret_fact)
{
    const uint32_t before = pool->used;
    uint64_t freed = 0;
    if (free_known) {
        pool->used = free_blocks < pool->total ? pool->total - (uint32_t)free_blocks : 0;
        freed = (uint64_t)before + pool->allocated + pool->revived;
        freed = pool->level_known && freed > pool->used ? freed - pool->used : 0;
    }
    pool->level_known = free_known;
    if (pool->peak < pool->used)
        pool->peak = pool->used;
    *ret_fact = (struct pm_kv_step){
        .step = pool->step++,
        .at_ns = at_ns,
        .total = pool->total,
        .used = pool->used,
        .evictable = pool->evictable,
        .peak = pool->peak,
        .allocated = pool->allocated,
        .revived = pool->revived,
        .freed = (uint32_t)freed,
        .evicted = pool->evicted,
        .dropped = pool->dropped,
        .queried_tokens = pool->queried_tokens,
        .hit_tokens = pool->hit_tokens,
        .requeried_tokens = pool->requeried_tokens,
        .rehit_tokens = pool->rehit_tokens,
        .instance = pool->instance,
        .flags = pool->caching ? PM_KV_CACHING : 0,
    };
    pool->allocated = pool->revived = pool->evicted = pool->dropped = 0;
    pool->queried_tokens = pool->hit_tokens = pool->requeried_tokens = pool->rehit_tokens = 0;
}
