/* See device_chain.h. Owns the pools, one per user, made when the first chain begins. */
#include "hook/compat.h"

#include "probe/device_chain.h"

#include "base/clock.h"
#include "probe/device.h"
#include "probe/probe.h"

/* Events of one device at most. A pass of 80 layers has some 1,000 borders, its collectives 320
 * pairs at the most; with asynchronous scheduling two steps are under way. */
#define LAYER_MARKS 16384u
#define COLLECTIVE_MARKS 8192u

static struct pool {
    struct pm_chains *chains; /* NULL: none yet */
    struct pm_chain_of of;    /* the open chain's, or the last one's */
    pm_chains_tell told;
    bool missed; /* the open chain has a device_miss */
} pools[PM_DEVICE_MISS_WHATS];

static struct pool *pool_of(enum pm_device_miss_what what)
{
    return &pools[what];
}

static void miss(struct pool *pool, enum pm_event_outcome outcome)
{
    struct pm_recorder *rec = pool->missed ? NULL : pm_facts();
    struct pm_device_miss *fact =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_device_miss_schema)) : NULL;
    pool->missed = true;
    if (fact == NULL)
        return;
    *fact = (struct pm_device_miss){
        .step = pool->of.step,
        .at_ns = pm_clock_now_ns(),
        .instance = pool->of.instance,
        .why = (uint8_t)pm_device_why(outcome),
        .what = (uint8_t)(pool - pools),
    };
    pm_recorder_commit(rec, fact);
}

/* The driver gave an error: no probe calls it again. */
static void look_for_errors(struct pool *pool)
{
    char what[160];
    if (pool->chains != NULL && pm_chains_failed(pool->chains, what, sizeof what))
        pm_device_turn_off(what, pool->of.step);
}

bool pm_device_chain_begin(enum pm_device_miss_what what, const struct pm_chain_of *of,
                           pm_chains_tell told)
{
    struct pool *pool = pool_of(what);
    const struct pm_driver *driver = pm_device_driver();
    if (driver == NULL)
        return false;
    if (pool->chains == NULL &&
        pm_chains_open(&pool->chains, driver,
                       what == PM_DEVICE_MISS_LAYERS ? LAYER_MARKS : COLLECTIVE_MARKS,
                       2 * (unsigned)pm_facts_settings()->cuda_event_batch) != 0) {
        pool->chains = NULL;
        return false;
    }
    pool->of = *of;
    pool->told = told;
    pool->missed = false;
    pm_chains_begin(pool->chains, of);
    return true;
}

bool pm_device_chain_is_open(enum pm_device_miss_what what)
{
    const struct pool *pool = pool_of(what);
    return pool->chains != NULL && pm_chains_is_open(pool->chains);
}

enum pm_event_outcome pm_device_chain_mark(enum pm_device_miss_what what, bool one_stream,
                                           uint32_t from, uint32_t tag, uint32_t *ret_mark)
{
    struct pool *pool = pool_of(what);
    enum pm_event_outcome outcome;
    void *stream;

    if (!pm_device_chain_is_open(what))
        return PM_EVENT_NONE;
    if (pm_device_captures())
        outcome = PM_EVENT_CAPTURE;
    else if (!pm_device_stream(&stream))
        outcome = PM_EVENT_NO_DEVICE;
    else if (one_stream && pm_chains_is_elsewhere(pool->chains, stream))
        return PM_EVENT_NONE;
    else
        outcome = pm_chains_mark(pool->chains, stream, from, tag, ret_mark);
    if (outcome != PM_EVENT_RECORDED && outcome != PM_EVENT_NONE)
        miss(pool, outcome);
    if (outcome == PM_EVENT_OFF)
        look_for_errors(pool);
    return outcome;
}

void pm_device_chain_end(enum pm_device_miss_what what)
{
    if (pm_device_chain_is_open(what))
        pm_chains_end(pool_of(what)->chains);
}

void pm_device_chain_lose(enum pm_device_miss_what what)
{
    if (pm_device_chain_is_open(what))
        pm_chains_lose(pool_of(what)->chains);
}

void pm_device_chain_read(enum pm_device_miss_what what, bool all, uint64_t now_ns)
{
    struct pool *pool = pool_of(what);
    if (pool->chains == NULL || pm_device_captures() ||
        !(all || pm_chains_due(pool->chains, now_ns)))
        return;
    (void)pm_chains_read(pool->chains, all, pool->told, NULL);
    look_for_errors(pool);
}

void pm_device_chains_finish(void)
{
    for (unsigned i = 0; i < PM_DEVICE_MISS_WHATS; i++) {
        pm_device_chain_end((enum pm_device_miss_what)i);
        pm_device_chain_read((enum pm_device_miss_what)i, true, 0);
    }
    pm_device_chains_close();
}

void pm_device_chains_close(void)
{
    for (unsigned i = 0; i < PM_DEVICE_MISS_WHATS; i++) {
        pm_chains_close(pools[i].chains);
        pools[i].chains = NULL;
    }
}

void pm_device_chains_abandon(void)
{
    for (unsigned i = 0; i < PM_DEVICE_MISS_WHATS; i++) {
        pm_chains_abandon(pools[i].chains);
        pools[i].chains = NULL;
    }
}
