/*
 * The schedulers of this process and what of their steps is under way: shared by the probes
 * sched_step, update_step and request_life, which hook different methods of one object. Engine
 * core, its scheduling thread, under the GIL. A scheduler is known by its address, which is
 * compared, never followed.
 *
 * A step is in flight from schedule() to update_from_output(). Under asynchronous scheduling
 * schedule(N + 1) comes before update_from_output(N), so that several are; the output object that
 * both calls are given tells which is which.
 */
#ifndef PM_PROBE_SCHEDULER_H
#define PM_PROBE_SCHEDULER_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/gaps.h"
#include "probe/members.h"
#include "probe/queue_counts.h"

#define PM_NEVER UINT64_MAX
#define PM_FLIGHTS 16 /* vLLM has two steps under way, or one per pipeline stage */

/* Slots of members, in any order. */
struct pm_slots {
    uint32_t *slots;
    uint32_t n, room;
};

struct pm_flight {
    const PyObject *output; /* the SchedulerOutput; compared, never followed; NULL: none */
    uint64_t step;
    uint32_t requests;
    uint32_t gives;         /* requests that get an output from it */
    uint32_t spec_tokens;   /* draft tokens to verify */
    bool dropped;           /* some outputs of it will not be delivered: aborted meanwhile */
    struct pm_slots opens;  /* members whose run of outputs begins with this step */
    struct pm_slots closes; /* members whose run ends with it */
};

struct pm_scheduler {
    const PyObject *self;
    uint64_t step; /* number of the next step */
    uint64_t prev; /* number + 1 of the last step that changed the batch; 0: none yet */
    uint64_t last; /* number + 1 of the last step that had tokens; 0: none yet */
    uint16_t instance;
    bool scheduling;                   /* inside schedule() */
    uint8_t marks;                     /* left so far, see step_mark.h */
    bool limits_known;                 /* the next three have been read */
    bool odd_tokens;                   /* a decode does not sample one token (diffusion) */
    struct pm_queue_counts queues;     /* learnt at the first step */
    uint32_t max_requests, max_tokens; /* of one step */
    struct pm_members members;
    struct pm_flight flights[PM_FLIGHTS];
    uint32_t next_flight;
    struct pm_flight *updating; /* inside update_from_output() of this one; NULL: outside */
    bool in_update;             /* inside update_from_output(), of whichever step */
    uint64_t updated_ns;        /* when the last update of a step with tokens returned; 0: none */
    struct pm_gaps gaps;        /* between these, by step number */
    struct pm_slots ended;      /* requests that ended in the update under way */
};

/* The scheduler of this object; a new one where it has not been seen. */
struct pm_scheduler *pm_scheduler_of(const PyObject *self);

/* The same; NULL where it has not been seen. */
struct pm_scheduler *pm_scheduler_known(const PyObject *self);

/* A new scheduler at this address (one that was there is gone). The oldest makes room where there
 * are too many. */
struct pm_scheduler *pm_scheduler_add(const PyObject *self);

/* The i-th, for walks; NULL past the last one. Unused places have self NULL. */
struct pm_scheduler *pm_scheduler_at(size_t i);

/* Forgets all of them. */
void pm_scheduler_reset(void);

/* A step has been scheduled: its flight, with empty lists. */
struct pm_flight *pm_flight_begin(struct pm_scheduler *scheduler, uint64_t step);

/* The flight of this output, the newest of its address; NULL where there is none. */
struct pm_flight *pm_flight_of(struct pm_scheduler *scheduler, const PyObject *output);

/* The flight of a step, NULL where it has landed. */
struct pm_flight *pm_flight_at(struct pm_scheduler *scheduler, uint64_t step);

/* False without memory. */
bool pm_slots_add(struct pm_slots *slots, uint32_t slot);

#endif
