/*
 * What vLLM calls of ours inside a forward pass: the capture function of a router, the operation
 * inside a compiled graph, the timer around a layer's body. GIL held, on the worker's thread. Each
 * passes on what was there before it, results and exceptions included, and adds its half under the
 * guard's rules: nothing of ours is ever raised.
 */
#ifndef PM_PROBE_MOE_CAPTURE_H
#define PM_PROBE_MOE_CAPTURE_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

/* For the process: whether a real step is inside execute_model right now, with so many tokens.
 * Everything else (warm-up, dummy runs, drafting) is not counted. dp_size and dp_rank: of the
 * worker; with more than one, a router may see the rows of all ranks. */
struct pm_moe_now {
    bool counting;
    uint32_t tokens;
    uint16_t instance;
    uint32_t dp_size, dp_rank;
};
extern struct pm_moe_now pm_moe_now;

/* A router's capture function: calls previous (may be NULL or None) and then counts. New reference,
 * NULL with an exception. */
PyObject *pm_moe_capture_new(uint32_t handle, PyObject *previous);

/* The operation `count(topk_ids, handle)`; handle is a tensor on the host whose first element is
 * the layer's. New reference, NULL with an exception. */
PyObject *pm_moe_operation_new(void);

/* Times calls of `original`, a bound method of a layer. New reference, NULL with an exception. */
PyObject *pm_moe_timer_new(uint32_t handle, PyObject *original);

#endif
