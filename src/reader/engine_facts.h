/*
 * The facts of one kind that one engine's scheduler recorded, in order, as C structs. For views
 * that need no join.
 */
#ifndef PM_READER_ENGINE_FACTS_H
#define PM_READER_ENGINE_FACTS_H

#include "session/step_facts.h"
#include "reader/reader.h"
#include "session/request_facts.h"

enum pm_engine_fact {
    PM_ENGINE_SCHED,  /* struct pm_sched_step */
    PM_ENGINE_UPDATE, /* struct pm_update_step */
};

struct pm_engine_facts;

/* An engine of which no scheduler was found has none. 0, -PM_ENOTFOUND, -PM_ENOMEM, …. */
PM_MUST_USE int pm_engine_facts_open(struct pm_engine_facts **ret_facts,
                                     const struct pm_session *session, size_t engine,
                                     enum pm_engine_fact kind);
/* Of facts just opened: those recorded before this moment may be left out. */
void pm_engine_facts_skip(struct pm_engine_facts *facts, uint64_t from_ns);
/* 1: the struct of the kind at ret_fact; 0: the end; < 0: error. */
PM_MUST_USE int pm_engine_facts_next(struct pm_engine_facts *facts, void *ret_fact);
void pm_engine_facts_close(struct pm_engine_facts *facts);

#endif
