/*
 * Which schedulers and workers a process ran, one after another or side by side, from its step
 * facts. Inside the reader; used by engines.c.
 */
#ifndef PM_READER_INSTANCES_H
#define PM_READER_INSTANCES_H

#include "reader/internal.h"

#define PM_INSTANCES_MAX 256 /* of one kind in one process; more is damage */

struct pm_instance {
    unsigned number;
    uint64_t first_ns; /* start of its oldest readable step */
};

struct pm_instances {
    struct pm_instance rows[PM_INSTANCES_MAX]; /* in order of appearance */
    size_t count;
};

/* Fills both lists. The usual process has one of each, which its totals prove without reading all
 * facts; any other is read through. */
PM_MUST_USE int pm_instances_find(const struct pm_process *process, struct pm_instances *ret_scheds,
                                  struct pm_instances *ret_workers);

#endif
