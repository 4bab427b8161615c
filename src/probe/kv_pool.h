/*
 * What the probe kv_cache knows of a scheduler's block pool: one entry per block, by its id, and
 * the requests that blocks in the prefix cache came from. Engine core, its scheduling thread, under
 * the GIL; no call into vLLM from here.
 *
 * The scheduler, its KV cache manager, its block pool and the pool's queue are known by their
 * addresses, which are compared, never followed: a process may have other pools (offloading, event
 * queues of other caches), and their blocks are none of ours. Entries hold no reference to vLLM's
 * blocks; owners hold one to the id (a str) of a request that blocks in the prefix cache came from.
 */
#ifndef PM_PROBE_KV_POOL_H
#define PM_PROBE_KV_POOL_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

#include "session/kv_facts.h"

#define PM_KV_POOLS_MAX 4 /* schedulers at a time in one process; the oldest makes room */
#define PM_KV_BLOCKS_MAX                                                                           \
    (4u << 20) /* blocks beyond these are counted, but have no entry: 24 bytes                     \
                  each, in memory only once used */

struct pm_kv_block {
    uint64_t allocated_ns;  /* when it was given out; 0: not seen */
    uint64_t used_ns;       /* its last use: given out, hit, or given back by its last holder */
    uint32_t reuses : 31;   /* prefix hits since it was given out; saturates */
    uint32_t evictable : 1; /* free, and cached */
    uint32_t owner;         /* + 1 of the owner; 0: none known */
};

/* A request whose id entries refer to. */
struct pm_kv_owner {
    PyObject *request_id; /* a strong reference; NULL: place free */
    uint32_t blocks;      /* entries that name this owner */
    uint32_t next_free;   /* of free places: + 1 of the next */
};

struct pm_kv_pool {
    const PyObject *scheduler, *manager, *pool, *queue; /* compared, never followed */
    uint64_t step;                                      /* number of the next step */
    uint16_t instance;
    bool caching;    /* prefix caching is on */
    bool told_hits;  /* this vLLM tells the hits of admitted requests */
    bool several;    /* KV cache groups */
    bool allocating; /* inside get_new_blocks() of this pool */
    bool level_known;
    uint32_t total, used, peak, evictable;

    /* Since the last step. */
    uint32_t allocated, revived, evicted, dropped;
    uint32_t queried_tokens, hit_tokens, requeried_tokens, rehit_tokens;

    struct pm_kv_block *blocks;
    uint32_t n_blocks;

    struct pm_kv_owner *owners;
    uint32_t n_owners, owners_room, free_owner; /* free_owner: + 1; 0: none */
    PyObject *
        freeing; /* id of the request that is being freed, held by the call under way; NULL: none */
    uint32_t freeing_owner; /* + 1, made when the first cached block is given back */
    uint32_t told_owner,
        told_string; /* the last one that a record named, and its string; 0: none */
};

/* Forgets everything about a pool, strings of the recorder excepted. */
void pm_kv_pool_clear(struct pm_kv_pool *pool);

/* The entry of a block, made where the pool has grown; NULL beyond the ceiling or without memory.
 */
struct pm_kv_block *pm_kv_pool_block(struct pm_kv_pool *pool, uint64_t block_id);

/* The block was given out: a new life. */
void pm_kv_block_allocated(struct pm_kv_pool *pool, struct pm_kv_block *block, uint64_t at_ns);

/* A prefix hit. */
void pm_kv_block_touched(struct pm_kv_pool *pool, struct pm_kv_block *block, uint64_t at_ns);

/* No request holds it any longer; cached: its contents can still be hit. */
void pm_kv_block_freed(struct pm_kv_pool *pool, struct pm_kv_block *block, bool cached,
                       uint64_t at_ns);

/* It is no longer in the prefix cache. Its owner stays known until the block is given out. */
void pm_kv_block_uncached(struct pm_kv_pool *pool, struct pm_kv_block *block);

/* Names the request that held the block last; owner as from pm_kv_owner_new, 0: nobody. */
void pm_kv_block_own(struct pm_kv_pool *pool, struct pm_kv_block *block, uint32_t owner);

/* A place for this request's id, + 1; 0 without memory. It goes when the last entry that names it
 * does, or with pm_kv_owner_settle if there never was one. */
uint32_t pm_kv_owner_new(struct pm_kv_pool *pool, PyObject *request_id);
void pm_kv_owner_settle(struct pm_kv_pool *pool, uint32_t owner);

/* The prefix cache was emptied: how many blocks were free and cached. */
uint32_t pm_kv_pool_drop(struct pm_kv_pool *pool);

/* Ends a step: its levels and what moved since the last one, which begins anew. Gives the step its
 * number. free_known false: the levels are those of the step before. */
void pm_kv_pool_step(struct pm_kv_pool *pool, bool free_known, uint64_t free_blocks, uint64_t at_ns,
                     struct pm_kv_step *ret_fact);

#endif
