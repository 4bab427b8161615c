/*
 * Marks: how the reader finds which step of a worker is which of the scheduler's, where recording
 * began in both while they ran, in processes of their own and therefore not with the same step. A
 * step in which a request is scheduled for the first time is known on both sides by that request's
 * id: the first few such steps leave an attribute with the step's number and a digest of the id.
 * GIL held; owns nothing.
 */
#ifndef PM_PROBE_STEP_MARK_H
#define PM_PROBE_STEP_MARK_H

#include "hook/compat.h"

#include <stdint.h>

/* Looks at a SchedulerOutput, once recording began late; *marks counts those of this scheduler or
 * worker. prefix: PM_ATTR_MARK_SCHED or PM_ATTR_MARK_WORKER. */
void pm_step_mark(const char *prefix, unsigned instance, uint64_t step, PyObject *output,
                  uint8_t *marks);

#endif
