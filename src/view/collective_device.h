/*
 * What the device took for the collective operations of a step (collective_device), which is on
 * disk some steps after them: read ahead of the walk through the steps (collective.c), and found by
 * step, group and operation.
 */
#ifndef PM_VIEW_COLLECTIVE_DEVICE_H
#define PM_VIEW_COLLECTIVE_DEVICE_H

#include "view/collective.h"

/* Of one step, group and operation. */
struct pm_collective_time {
    uint64_t step, calls, ns;
    unsigned row; /* of pm_collectives */
};

struct pm_collective_ahead {
    struct pm_cursor *cursor; /* NULL: at its end, or there is nothing to read */
    struct pm_collectives *sums;
    unsigned instance, schema, step_schema;
    const struct pm_field *step, *ns, *calls, *group, *in, *operation;
    const struct pm_field *step_step, *step_in;
    struct pm_collective_time *times; /* in the order in which they came */
    size_t first, count, room;
    uint64_t until; /* of steps before this one all are there */
};

/* Begins with the process's first record; step_schema is collective_step's. Close it in any case.
 */
PM_MUST_USE int pm_collective_ahead_open(struct pm_collective_ahead *ahead,
                                         struct pm_collectives *sums,
                                         const struct pm_process *process, unsigned step_schema,
                                         unsigned instance);
void pm_collective_ahead_close(struct pm_collective_ahead *ahead);

/* The time of a step's calls of an operation, until the next question; NULL: not all of them have
 * one. Asked with steps that do not fall. */
PM_MUST_USE int pm_collective_ahead_find(struct pm_collective_ahead *ahead, uint64_t step,
                                         unsigned row, uint64_t calls,
                                         const struct pm_collective_time **ret_time);

/* collective.c: the place of a group's operation among the rows, made where it is not there. */
unsigned pm_collective_row_of(struct pm_collectives *sums, const char *name, unsigned operation);

#endif
