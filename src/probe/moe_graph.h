/*
 * Counting inside graphs, where VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING=1 asks for it: runs
 * moe_graph.py in a module of its own and calls it. GIL held, on the worker's thread; for use in a
 * hook's half. Python objects live in that module, none here.
 */
#ifndef PM_PROBE_MOE_GRAPH_H
#define PM_PROBE_MOE_GRAPH_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

#include "probe/moe_layers.h"

/* A capture function for a router that is compiled, calling previous (NULL or None: nothing) first.
 * New reference; NULL without an exception where it cannot be had. */
PyObject *pm_moe_graph_traced(uint32_t handle, PyObject *previous);

/* The counters of a worker's layers (those that are PM_MOE_DEVICE, in order) on a device, for steps
 * of at most most_rows rows. */
bool pm_moe_graph_device(uint16_t instance, PyObject *device, uint64_t most_rows);

/* The capture function of one of them, as pm_moe_graph_traced. */
PyObject *pm_moe_graph_capture(const struct pm_moe_slot *slot, PyObject *previous);

/* Before and after a step. end: counts that have arrived are taken over; read_back: ask for them
 * again; last: no step may follow for long. False: it failed. */
bool pm_moe_graph_begin(uint16_t instance, uint32_t tokens);
bool pm_moe_graph_end(uint16_t instance, bool read_back, bool last);

#endif
