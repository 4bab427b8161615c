/*
 * Counts what one step is made of: the composition of a sched_step fact, and a step_request fact
 * for every change.
 *
 * Used by the probe sched_step (sched_step.c), in the engine core, under the GIL, inside a hook's
 * half. Reads of a request's attributes happen only when it joins, while it has something to
 * prefill, and once as it turns to decoding.
 */
#ifndef PM_PROBE_STEP_COUNT_H
#define PM_PROBE_STEP_COUNT_H

#include "hook/compat.h"

#include "probe/probe.h"
#include "probe/scheduler.h"
#include "session/step_facts.h"

/* One step while it is being counted. */
struct pm_counting {
    struct pm_recorder *rec; /* NULL: count, record nothing */
    struct pm_scheduler *scheduler;
    PyObject *requests;       /* Scheduler.requests, borrowed for the call; NULL: unreadable */
    PyObject *spec_tokens;    /* scheduled_spec_decode_tokens when it has any; else NULL */
    uint64_t at_ns;           /* moment of the events */
    struct pm_flight *flight; /* the step's own; NULL: none (events outside of schedule()) */
    uint32_t gives;           /* requests that get an output from it */
    struct pm_sched_step fact;
};

/* Counts `num_scheduled_tokens` (request id -> tokens, in batch order) into the fact, and brings
 * the scheduler's members up to date. finished: ids of requests that are no more (any iterable, or
 * NULL). */
void pm_step_count(struct pm_counting *counting, PyObject *num_scheduled_tokens,
                   PyObject *finished);

/* Records one change of membership: event, tokens, computed, phase and, where it has them, blocks,
 * reason and flags of `what`; the rest is filled in. */
void pm_step_event(struct pm_counting *counting, struct pm_member *member,
                   const struct pm_step_request *what);

#endif
