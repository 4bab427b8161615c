/*
 * What happens to blocks: given out, hit, given back, emptied. Hooks of the probe kv_cache on the
 * pool, its free queue and its manager; same thread, under the GIL.
 *
 * These run when blocks move, not once per running request and step. The free list is never walked,
 * nor is the argument of free_blocks(), which may be a generator: blocks that come free are seen
 * where they are put into the free queue, as a list, and how many came free follows from the
 * levels.
 */
#include "hook/read.h"
#include "probe/kv_cache.h"
#include "probe/request_name.h"
#include "session/kv_schema.h"

static struct pm_name n_block = PM_NAME("block");
static struct pm_name n_block_id = PM_NAME("block_id");
static struct pm_name n_block_hash = PM_NAME("_block_hash");
static struct pm_name n_request_id = PM_NAME("request_id");
static struct pm_name n_blocks = PM_NAME("blocks");
static struct pm_name n_request = PM_NAME("request");

static struct pm_kv_block *entry_of(struct pm_kv_pool *pool, PyObject *block, uint64_t *ret_id)
{
    return pm_read_u64(block, &n_block_id, ret_id) ? pm_kv_pool_block(pool, *ret_id) : NULL;
}

static bool is_cached(PyObject *block)
{
    PyObject *hash = pm_read_attr(block, &n_block_hash);
    bool cached = hash != NULL && hash != Py_None;
    Py_XDECREF(hash);
    return cached;
}

/* Calls each(block) for a list or a tuple of blocks; anything else might be used up by looking. */
#define FOR_BLOCKS(block_, blocks_)                                                                \
    for (Py_ssize_t at_ = 0, end_ = PyList_Check(blocks_)    ? PyList_Size(blocks_)                \
                                    : PyTuple_Check(blocks_) ? PyTuple_Size(blocks_)               \
                                                             : 0;                                  \
         at_ < end_ && ((block_) = PyList_Check(blocks_) ? PyList_GetItem(blocks_, at_)            \
                                                         : PyTuple_GetItem(blocks_, at_)) != NULL; \
         at_++)

void pm_kv_allocate_enter(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_pool(call->args[0]);
    if (pool != NULL)
        pool->allocating = true;
}

void pm_kv_allocate_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_pool(call->args[0]);
    if (pool == NULL)
        return;
    pool->allocating = false;
    if (call->result != NULL && PyList_Check(call->result))
        pool->allocated += (uint32_t)PyList_Size(call->result);
}

/* The group stands in the last four bytes of the block's hash, which is gone afterwards. */
void pm_kv_evict_enter(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_pool(call->args[0]);
    if (pool == NULL || !pool->several)
        return;
    PyObject *block = pm_call_arg(call, 1, &n_block);
    PyObject *hash = block != NULL ? pm_read_attr(block, &n_block_hash) : NULL;
    if (hash != NULL && PyBytes_Check(hash) && PyBytes_Size(hash) >= 4) {
        const char *end = PyBytes_AsString(hash) + PyBytes_Size(hash);
        call->scratch[0] = (unsigned char)end[-1];
    }
    Py_XDECREF(hash);
}

/* The string of the block's owner, held until another owner's block goes. */
static uint32_t owner_string(struct pm_kv_pool *pool, struct pm_recorder *rec, uint32_t owner)
{
    if (owner == 0 || owner == pool->told_owner)
        return owner == 0 ? 0 : pool->told_string;
    pm_recorder_string_drop(rec, PM_STREAM_BLOCKS, pool->told_string);
    pool->told_owner = owner;
    pool->told_string = pm_request_name(rec, PM_STREAM_BLOCKS, pool->owners[owner - 1].request_id);
    return pool->told_string;
}

static void record_eviction(struct pm_kv_pool *pool, const struct pm_kv_block *block,
                            const struct pm_call *call, uint64_t block_id)
{
    struct pm_recorder *rec = pm_facts();
    pool->evicted++;
    if (rec == NULL)
        return;
    uint32_t request = block != NULL ? owner_string(pool, rec, block->owner) : 0;
    struct pm_kv_eviction *fact = pm_recorder_reserve(rec, pm_facts_schema(&pm_kv_eviction_schema));
    if (fact == NULL)
        return;
    *fact = (struct pm_kv_eviction){
        .at_ns = call->end_ns,
        .step = pool->step,
        .block = (uint32_t)block_id,
        .request = request,
        .instance = pool->instance,
        .group = (uint8_t)call->scratch[0],
        .cause = pool->allocating ? PM_KV_CAUSE_ROOM : PM_KV_CAUSE_INVALID,
    };
    if (block != NULL && block->allocated_ns != 0) {
        fact->lifetime_ns = call->end_ns - block->allocated_ns;
        fact->idle_ns = call->end_ns - block->used_ns;
        fact->reuses = block->reuses;
    }
    pm_recorder_commit(rec, fact);
}

void pm_kv_evict_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_pool(call->args[0]);
    uint64_t block_id = 0;
    if (pool == NULL || call->result == NULL)
        return;
    PyObject *object = pm_call_arg(call, 1, &n_block);
    struct pm_kv_block *block = object != NULL ? entry_of(pool, object, &block_id) : NULL;
    if (call->result == Py_True) {
        record_eviction(pool, block, call, block_id);
        if (block != NULL)
            pm_kv_block_uncached(pool, block);
    }
    if (block != NULL && pool->allocating)
        pm_kv_block_allocated(pool, block, call->end_ns);
}

void pm_kv_touch_enter(struct pm_call *call)
{
    if (pm_kv_by_pool(call->args[0]) != NULL)
        call->scratch[1] = pm_kv_read_free(call->args[0], &call->scratch[0]);
}

static void touch_all(struct pm_kv_pool *pool, PyObject *blocks, uint64_t at_ns, bool nested)
{
    PyObject *item;
    uint64_t block_id;
    FOR_BLOCKS(item, blocks)
    {
        if (PyList_Check(item) || PyTuple_Check(item)) { /* one list per group, until 0.13 */
            if (!nested)
                touch_all(pool, item, at_ns, true);
            continue;
        }
        struct pm_kv_block *block = entry_of(pool, item, &block_id);
        if (block != NULL)
            pm_kv_block_touched(pool, block, at_ns);
    }
}

void pm_kv_touch_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_pool(call->args[0]);
    PyObject *blocks = pm_call_arg(call, 1, &n_blocks);
    uint64_t free_blocks;
    if (pool == NULL || blocks == NULL)
        return;
    if (call->scratch[1] && pm_kv_read_free(call->args[0], &free_blocks) &&
        free_blocks <= call->scratch[0])
        pool->revived += (uint32_t)(call->scratch[0] - free_blocks);
    touch_all(pool, blocks, call->end_ns, false);
}

/* Blocks come free: the queue gets them as a list, cached ones at its end. */
void pm_kv_append_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_queue(call->args[0]);
    PyObject *blocks = pm_call_arg(call, 1, &n_blocks), *item;
    uint64_t block_id;
    if (pool == NULL || !pool->caching || blocks == NULL || call->result == NULL)
        return;
    FOR_BLOCKS(item, blocks)
    {
        struct pm_kv_block *block = entry_of(pool, item, &block_id);
        if (block != NULL)
            pm_kv_block_freed(pool, block, is_cached(item), call->end_ns);
    }
}

void pm_kv_reset_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_pool(call->args[0]);
    if (pool != NULL && call->result == Py_True)
        pool->dropped += pm_kv_pool_drop(pool);
}

/* ---- requests ---- */

/* The request whose blocks are given back until free_leave. */
void pm_kv_free_enter(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_manager(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_request);
    if (pool == NULL || !pool->caching || pool->freeing != NULL || request == NULL)
        return;
    PyObject *request_id = pm_read_attr(request, &n_request_id);
    if (request_id == NULL || !PyUnicode_Check(request_id)) {
        Py_XDECREF(request_id);
        return;
    }
    pool->freeing = request_id; /* ours until free_leave */
    pool->freeing_owner = 0;
    call->scratch[0] = 1;
}

void pm_kv_free_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_manager(call->args[0]);
    if (pool == NULL || pool->freeing == NULL || !call->scratch[0])
        return;
    uint32_t owner = pool->freeing_owner;
    PyObject *request_id = pool->freeing;
    pool->freeing = NULL;
    pool->freeing_owner = 0;
    pm_kv_owner_settle(pool, owner);
    Py_DECREF(request_id);
}

/* The request is over; its blocks come free later, when no step under way can write them. */
void pm_kv_pop_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_manager(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_request), *item;
    uint64_t block_id;
    if (pool == NULL || !pool->caching || pool->freeing != NULL || request == NULL ||
        call->result == NULL)
        return;
    PyObject *request_id = pm_read_attr(request, &n_request_id);
    if (request_id != NULL && PyUnicode_Check(request_id)) {
        const uint32_t owner = pm_kv_owner_new(pool, request_id);
        if (owner != 0) {
            FOR_BLOCKS(item, call->result)
            {
                struct pm_kv_block *block = entry_of(pool, item, &block_id);
                if (block != NULL && is_cached(item))
                    pm_kv_block_own(pool, block, owner);
            }
            pm_kv_owner_settle(pool, owner);
        }
    }
    Py_XDECREF(request_id);
}
