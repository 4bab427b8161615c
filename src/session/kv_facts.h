/*
 * The facts of the KV cache on disk: what the probe kv_cache records in the engine core, and the
 * views follow by name (src/view/kv.c). Pure C.
 *
 *   kv_step        one per Scheduler.schedule: how full the block pool is, and what has moved since
 *                  the step before
 *   kv_eviction    one for each cached block that lost its contents
 *
 * A block is used (some request holds it), or free. A free block may still be cached: its contents
 * are known by their hash and can be had again by a prefix hit, until the block is given out anew.
 * vLLM's null block is counted nowhere.
 *
 *   used(now) = used(before) + allocated + revived - freed
 */
#ifndef PM_SESSION_KV_FACTS_H
#define PM_SESSION_KV_FACTS_H

#include <stdint.h>

enum pm_kv_flags {
    PM_KV_CACHING = 1, /* prefix caching is on */
};

struct pm_kv_step {
    uint64_t step;      /* of the same number as the sched_step */
    uint64_t at_ns;     /* schedule() returned; the levels are of this moment */
    uint32_t total;     /* blocks that requests can have */
    uint32_t used;      /* held by requests */
    uint32_t evictable; /* free, but still cached */
    uint32_t peak;      /* most of `used` in any step so far */
    /* Since the step before: */
    uint32_t allocated;        /* blocks given out */
    uint32_t revived;          /* free cached blocks that a prefix hit took back into use */
    uint32_t freed;            /* blocks that no request holds any longer */
    uint32_t evicted;          /* cached blocks that lost their contents: kv_eviction facts */
    uint32_t dropped;          /* cached blocks that a reset of the prefix cache emptied */
    uint32_t queried_tokens;   /* looked up in the prefix cache for requests that were admitted */
    uint32_t hit_tokens;       /* of them, found */
    uint32_t requeried_tokens; /* the same of requests that had been preempted, which vLLM counts
                                  apart */
    uint32_t rehit_tokens;
    uint16_t instance; /* n-th scheduler of the process */
    uint16_t flags;    /* enum pm_kv_flags */
};

enum pm_kv_cause {
    PM_KV_CAUSE_ROOM = 0,    /* the block was given out again */
    PM_KV_CAUSE_INVALID = 1, /* its contents were declared void (a failed transfer) */
};

struct pm_kv_eviction {
    uint64_t at_ns;
    uint64_t step;        /* the step that was being scheduled, or comes next */
    uint64_t lifetime_ns; /* since the block was given out; 0: that was not seen */
    uint64_t idle_ns;     /* since its last use: given out, hit, or given back by its last holder */
    uint32_t block;       /* its id in the pool */
    uint32_t reuses;      /* prefix hits since it was given out */
    uint32_t request;     /* string: the last request that gave it back; empty: not known */
    uint16_t instance;    /* n-th scheduler of the process */
    uint8_t group;        /* KV cache group, for models with several */
    uint8_t cause;        /* enum pm_kv_cause */
};

#endif
