/*
 * Outputs of steps that are known only later: handed out by the worker, waited for in get_output,
 * perhaps on another thread. Used by the probe worker_step, under the GIL.
 */
#ifndef PM_PROBE_WORKER_OUTPUT_H
#define PM_PROBE_WORKER_OUTPUT_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* A step's output: remembered, and true, if it is one that is waited for. */
bool pm_output_expect(PyObject *output, uint64_t step, uint16_t instance);

/* get_output of an output returned: records a worker_sync if its step is remembered. */
void pm_output_known(const PyObject *output, uint64_t at_ns);

void pm_outputs_reset(void);

#endif
