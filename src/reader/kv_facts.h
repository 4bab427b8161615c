/*
 * The KV cache's facts of one engine, in order, as C structs: its steps, and the cached blocks that
 * it lost. For the views.
 */
#ifndef PM_READER_KV_FACTS_H
#define PM_READER_KV_FACTS_H

#include "reader/reader.h"
#include "session/kv_facts.h"

struct pm_kv_facts;

/* Both open on an engine without such facts (older sessions, no scheduler found), which then has
 * none. 0, -PM_ENOTFOUND where there is no such engine, -PM_ENOMEM, …. */
PM_MUST_USE int pm_kv_steps_open(struct pm_kv_facts **ret_facts, const struct pm_session *session,
                                 size_t engine);
PM_MUST_USE int pm_kv_evictions_open(struct pm_kv_facts **ret_facts,
                                     const struct pm_session *session, size_t engine);

/* Of facts just opened: those recorded before this moment may be left out. */
void pm_kv_facts_skip(struct pm_kv_facts *facts, uint64_t from_ns);
/* 1: *ret_…; 0: the end; < 0: error. Each only on what its own function opened. */
PM_MUST_USE int pm_kv_steps_next(struct pm_kv_facts *facts, struct pm_kv_step *ret_step);
PM_MUST_USE int pm_kv_evictions_next(struct pm_kv_facts *facts,
                                     struct pm_kv_eviction *ret_eviction);

/* NULL is fine. */
void pm_kv_facts_close(struct pm_kv_facts *facts);

#endif
