/*
 * Collective operations inside captured CUDA graphs: the half of the probe collective that learns
 * what each graph does again at every replay (collective_graph.c). GIL held.
 */
#ifndef PM_PROBE_COLLECTIVE_H
#define PM_PROBE_COLLECTIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "probe/probe.h"
#include "session/collective_facts.h"

#define PM_COLLECTIVE_NAME_MAX 64 /* of a group */

/* The halves of CUDAGraph.capture_begin and capture_end. */
void pm_collective_graph_begin(struct pm_call *call);
void pm_collective_graph_end(struct pm_call *call);

/* Counts a call for the graph that is being captured; false where none is. */
bool pm_collective_graph_add(const struct pm_call *call, enum pm_collective_operation operation,
                             const char *group, uint64_t bytes);

/* A step begins: records what was captured with the descriptors that the probe cuda_graph has
 * learned by now, and forgets graphs that were not kept. */
void pm_collective_graph_resolve(void);

void pm_collective_graph_reset(void);

#endif
