/*
 * Probe kv_cache: the block pool of each scheduler: how full it is at each step, what moved, what
 * the prefix cache gave, and every cached block that lost its contents.
 *
 * Runs in the engine core, on its scheduling thread, under the GIL. Here: which pool is whose,
 * steps and look-ups; the blocks themselves: kv_blocks.c. Nothing of either is called once per
 * running request and step. What the facts mean: session/kv_facts.h.
 */
#include "probe/kv_cache.h"

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/scheduler.h"
#include "session/kv_schema.h"

static const struct pm_schema *const schemas[] = {&pm_kv_step_schema, &pm_kv_eviction_schema};

static struct pm_name n_kv_cache_manager = PM_NAME("kv_cache_manager");
static struct pm_name n_block_pool = PM_NAME("block_pool");
static struct pm_name n_free_block_queue = PM_NAME("free_block_queue");
static struct pm_name n_num_free_blocks = PM_NAME("num_free_blocks");
static struct pm_name n_num_gpu_blocks = PM_NAME("num_gpu_blocks");
static struct pm_name n_enable_caching = PM_NAME("enable_caching");
static struct pm_name n_kv_cache_config = PM_NAME("kv_cache_config");
static struct pm_name n_kv_cache_groups = PM_NAME("kv_cache_groups");
static struct pm_name n_record_prefix_cache_stats = PM_NAME("record_prefix_cache_stats");
static struct pm_name n_request = PM_NAME("request");
static struct pm_name n_num_tokens = PM_NAME("num_tokens");
static struct pm_name n_num_hits = PM_NAME("num_hits");
static struct pm_name n_num_preemptions = PM_NAME("num_preemptions");
static struct pm_name n_skip_reading = PM_NAME("skip_reading_prefix_cache");

static struct pm_kv_pool pools[PM_KV_POOLS_MAX];
static uint16_t n_instances;

/* ---- which pool ---- */

#define POOL_BY(member)                                                                            \
    struct pm_kv_pool *pm_kv_by_##member(const PyObject *self)                                     \
    {                                                                                              \
        for (size_t i = 0; i < PM_KV_POOLS_MAX; i++) {                                             \
            if (pools[i].member == self)                                                           \
                return &pools[i];                                                                  \
        }                                                                                          \
        return NULL;                                                                               \
    }
POOL_BY(scheduler)
POOL_BY(manager)
POOL_BY(pool)
POOL_BY(queue)
#undef POOL_BY

/* A new scheduler's place; what was at its address is gone. */
static struct pm_kv_pool *pool_add(const PyObject *scheduler)
{
    struct pm_kv_pool *place = &pools[0];
    for (size_t i = 0; i < PM_KV_POOLS_MAX; i++) {
        struct pm_kv_pool *each = &pools[i];
        if (each->scheduler == scheduler || each->scheduler == NULL) {
            place = each;
            break;
        }
        if (each->instance < place->instance)
            place = each;
    }
    pm_kv_pool_clear(place);
    place->scheduler = scheduler;
    place->instance = n_instances++;
    return place;
}

bool pm_kv_read_free(PyObject *block_pool, uint64_t *ret_free)
{
    PyObject *queue = pm_read_attr(block_pool, &n_free_block_queue);
    bool good = pm_read_u64(queue, &n_num_free_blocks, ret_free);
    Py_XDECREF(queue);
    return good;
}

/* What the scheduler's pool is: once, and again should it get another. */
static void learn(struct pm_kv_pool *pool, PyObject *manager, PyObject *block_pool, PyObject *queue)
{
    struct pm_kv_pool old = *pool;
    uint64_t n = 0, free_blocks;

    pm_kv_pool_clear(pool);
    pool->scheduler = old.scheduler;
    pool->instance = old.instance;
    pool->step = old.step;
    if (!pm_read_u64(block_pool, &n_num_gpu_blocks, &n) || n < 2 || n > UINT32_MAX)
        return;
    for (size_t i = 0; i < PM_KV_POOLS_MAX; i++) { /* whatever had these addresses is gone */
        if (pools[i].pool == block_pool || pools[i].manager == manager || pools[i].queue == queue)
            pools[i].pool = pools[i].manager = pools[i].queue = NULL;
    }
    pool->manager = manager;
    pool->pool = block_pool;
    pool->queue = queue;
    pool->total = (uint32_t)n - 1; /* without the null block */
    (void)pm_read_bool(block_pool, &n_enable_caching, &pool->caching);
    PyObject *config = pm_read_attr(manager, &n_kv_cache_config);
    pool->several = config != NULL && pm_read_len(config, &n_kv_cache_groups, &n) && n > 1;
    Py_XDECREF(config);
    PyObject *told = pm_read_attr(manager, &n_record_prefix_cache_stats);
    pool->told_hits = told != NULL;
    Py_XDECREF(told);
    if (pm_kv_read_free(block_pool, &free_blocks)) {
        pool->used = free_blocks < pool->total ? pool->total - (uint32_t)free_blocks : 0;
        pool->level_known = true;
    }
}

/* Follows the scheduler to its pool; false where it has none that can be read. */
static bool look(struct pm_kv_pool *pool, PyObject *scheduler, uint64_t *ret_free)
{
    PyObject *manager = pm_read_attr(scheduler, &n_kv_cache_manager);
    PyObject *block_pool = manager != NULL ? pm_read_attr(manager, &n_block_pool) : NULL;
    PyObject *queue = block_pool != NULL ? pm_read_attr(block_pool, &n_free_block_queue) : NULL;
    bool good = queue != NULL && pm_read_u64(queue, &n_num_free_blocks, ret_free);

    if (good && (pool->pool != block_pool || pool->queue != queue || pool->manager != manager))
        learn(pool, manager, block_pool, queue);
    Py_XDECREF(manager);
    Py_XDECREF(block_pool);
    Py_XDECREF(queue);
    return good && pool->pool != NULL;
}

static void init_leave(struct pm_call *call)
{
    uint64_t free_blocks;
    struct pm_kv_pool *pool = pool_add(call->args[0]);
    if (call->result != NULL)
        (void)look(pool, call->args[0], &free_blocks);
}

/* ---- steps ---- */

/* A scheduler that was made before we came: the step under way has the number that sched_step gives
 * it, whose enter came first. */
static void schedule_enter(struct pm_call *call)
{
    uint64_t free_blocks;
    struct pm_kv_pool *pool = pm_kv_by_scheduler(call->args[0]);
    if (pool != NULL && pool->pool != NULL)
        return;
    if (pool == NULL)
        pool = pool_add(call->args[0]);
    const struct pm_scheduler *known = pm_scheduler_known(call->args[0]);
    if (known != NULL)
        pool->step = known->step;
    (void)look(pool, call->args[0], &free_blocks);
}

static void schedule_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_scheduler(call->args[0]);
    struct pm_recorder *rec = pm_facts();
    struct pm_kv_step fact;
    uint64_t free_blocks = 0;

    if (pool == NULL || call->result == NULL)
        return; /* raised: the step never was */
    if (pool->step == 0 && rec != NULL)
        pm_recorder_identify(rec, PM_ROLE_ENGINE, -1, -1);
    bool known = look(pool, call->args[0], &free_blocks);
    pm_kv_pool_step(pool, known, free_blocks, call->end_ns, &fact);
    if (rec == NULL || pool->pool == NULL)
        return;
    struct pm_kv_step *record = pm_recorder_reserve(rec, pm_facts_schema(&pm_kv_step_schema));
    if (record != NULL) {
        *record = fact;
        pm_recorder_commit(rec, record);
    }
}

/* ---- the prefix cache ---- */

static void count_lookup(struct pm_kv_pool *pool, PyObject *request, uint64_t hit)
{
    uint64_t queried, preemptions = 0;
    bool skip = false;
    (void)pm_read_bool(request, &n_skip_reading, &skip);
    if (!pool->caching || skip || !pm_read_u64(request, &n_num_tokens, &queried))
        return;
    if (pm_read_u64(request, &n_num_preemptions, &preemptions) && preemptions > 0) {
        pool->requeried_tokens += (uint32_t)queried;
        pool->rehit_tokens += (uint32_t)hit;
    } else {
        pool->queried_tokens += (uint32_t)queried;
        pool->hit_tokens += (uint32_t)hit;
    }
}

/* Before a vLLM told the hits of requests that it admitted, each look-up counted. */
static void lookup_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_manager(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_request);
    uint64_t hit;
    if (pool == NULL || pool->told_hits || request == NULL || call->result == NULL ||
        !PyTuple_Check(call->result) || PyTuple_Size(call->result) < 2)
        return;
    if (pm_u64(PyTuple_GetItem(call->result, 1), &hit))
        count_lookup(pool, request, hit);
}

static void hits_leave(struct pm_call *call)
{
    struct pm_kv_pool *pool = pm_kv_by_manager(call->args[0]);
    PyObject *request = pm_call_arg(call, 1, &n_request);
    PyObject *hits = pm_call_arg(call, 2, &n_num_hits);
    uint64_t hit;
    if (pool != NULL && request != NULL && hits != NULL && pm_u64(hits, &hit))
        count_lookup(pool, request, hit);
}

/* ---- the probe ---- */

#define init_enter NULL
#define allocate_enter pm_kv_allocate_enter
#define allocate_leave pm_kv_allocate_leave
#define evict_enter pm_kv_evict_enter
#define evict_leave pm_kv_evict_leave
#define touch_enter pm_kv_touch_enter
#define touch_leave pm_kv_touch_leave
#define append_enter NULL
#define append_leave pm_kv_append_leave
#define prepend_enter NULL
#define prepend_leave pm_kv_append_leave
#define reset_enter NULL
#define reset_leave pm_kv_reset_leave
#define free_enter pm_kv_free_enter
#define free_leave pm_kv_free_leave
#define pop_enter NULL
#define pop_leave pm_kv_pop_leave
#define lookup_enter NULL
#define hits_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/kv_cache.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->kv_cache && settings->preset != PM_PRESET_SIMPLE;
}

static void reset(void)
{
    for (size_t i = 0; i < PM_KV_POOLS_MAX; i++)
        pm_kv_pool_clear(&pools[i]);
    n_instances = 0;
}

/* Blocks moved unseen: what was known of them is void, the pools keep their numbers. */
static void resume(void)
{
    for (size_t i = 0; i < PM_KV_POOLS_MAX; i++)
        pools[i].pool = pools[i].manager = pools[i].queue = NULL;
}

const struct pm_probe pm_probe_kv_cache = {
    .name = "kv_cache",
    .component = "KVCacheManager",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .resume = resume,
    .reset = reset,
};
