/*
 * How many requests of a scheduler run and wait, as its get_request_counts() says, without a call
 * of Python's in each step: that would bring the interpreter's loop and some hundred cache lines of
 * its own into a step whose caches the model has emptied.
 *
 * Which queues it adds up differs between versions of vLLM. It is learnt once, by having it count
 * an object whose queues have known lengths; where that does not tell, it is called in every step.
 * Called by the probe sched_step, under the GIL.
 */
#ifndef PM_PROBE_QUEUE_COUNTS_H
#define PM_PROBE_QUEUE_COUNTS_H

#include "hook/compat.h"

#include <stdint.h>

/* What was learnt of a scheduler; all zero: nothing yet. */
struct pm_queue_counts {
    uint8_t queues; /* bits of those that wait, in the order of queue_counts.c */
    uint8_t how;    /* enum pm_queue_how of queue_counts.c */
};

/* Fills both; 0 where vLLM does not say. Leaves no exception. */
void pm_queue_counts(PyObject *scheduler, struct pm_queue_counts *known, uint32_t *ret_running,
                     uint32_t *ret_waiting);

#endif
