/*
 * What the files of the probe kv_cache share: the pools, and the hooks of kv_blocks.c. Engine core,
 * its scheduling thread, under the GIL.
 */
#ifndef PM_PROBE_KV_CACHE_H
#define PM_PROBE_KV_CACHE_H

#include "probe/kv_pool.h"
#include "probe/probe.h"

/* The pool of a scheduler, a KVCacheManager, a BlockPool or a FreeKVCacheBlockQueue; NULL for those
 * that belong to no scheduler. */
struct pm_kv_pool *pm_kv_by_scheduler(const PyObject *self);
struct pm_kv_pool *pm_kv_by_manager(const PyObject *self);
struct pm_kv_pool *pm_kv_by_pool(const PyObject *self);
struct pm_kv_pool *pm_kv_by_queue(const PyObject *self);

/* The free blocks of a BlockPool; false where it does not say. */
bool pm_kv_read_free(PyObject *block_pool, uint64_t *ret_free);

void pm_kv_allocate_enter(struct pm_call *call); /* BlockPool.get_new_blocks */
void pm_kv_allocate_leave(struct pm_call *call);
void pm_kv_evict_enter(struct pm_call *call); /* BlockPool._maybe_evict_cached_block */
void pm_kv_evict_leave(struct pm_call *call);
void pm_kv_touch_enter(struct pm_call *call); /* BlockPool.touch */
void pm_kv_touch_leave(struct pm_call *call);
void pm_kv_append_leave(struct pm_call *call); /* FreeKVCacheBlockQueue.append_n, prepend_n */
void pm_kv_reset_leave(struct pm_call *call);  /* BlockPool.reset_prefix_cache */
void pm_kv_free_enter(struct pm_call *call);   /* KVCacheManager.free */
void pm_kv_free_leave(struct pm_call *call);
void pm_kv_pop_leave(struct pm_call *call); /* KVCacheManager.pop_blocks_for_free */

#endif
