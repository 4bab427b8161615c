/*
 * The workers of this process: which of them a step is of, and what number it has. Used by the
 * probe worker_step, in the worker, under the GIL.
 */
#ifndef PM_PROBE_WORKER_KNOWN_H
#define PM_PROBE_WORKER_KNOWN_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* A worker seen in this process. self is compared, never followed. */
struct pm_worker {
    const PyObject *self;
    uint64_t step;     /* number of the next step */
    uint16_t instance; /* n-th of the process */
    bool device;       /* runs on something else than the CPU */
    bool described;
    uint8_t marks; /* left so far, see step_mark.h */
    bool unsynced; /* was there before us: its number of the next step is not known yet */
};

/* A worker that is being made: one at the same address has gone. Where too many are known the
 * oldest makes room; pointers to its place then mean the new one. */
struct pm_worker *pm_workers_add(const PyObject *self);

/* The worker that self is, added if it was not seen before. */
struct pm_worker *pm_workers_of(const PyObject *self);

/* Gives a worker that was there before us its number, from the scheduler in the same process that
 * made this output; where there is none, numbers begin at 0. False: the step was scheduled before
 * recording began, and has no number. */
bool pm_worker_sync(struct pm_worker *worker, const PyObject *output);

/* Reads what holds for all steps of a worker, and tells it as facts of the process. */
void pm_worker_describe(PyObject *self, struct pm_worker *worker);

void pm_workers_reset(void);

#endif
