/*
 * Reads vLLM's descriptors of batches and its forward context, whatever the release. Used by the
 * probe cuda_graph inside its halves, under the GIL; no references are kept, no exception is left.
 */
#ifndef PM_PROBE_GRAPH_READ_H
#define PM_PROBE_GRAPH_READ_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

#include "session/graph_facts.h"

/* What vLLM has decided for the forward pass that is being prepared or run. */
struct pm_graph_dispatch {
    struct pm_graph_desc desc; /* mode included; holder and variant 0 */
    bool has_desc;             /* there is a batch descriptor */
    bool skip_compiled;
};

/* From the forward context in force (vllm.forward_context._forward_context). False: there is none.
 */
bool pm_graph_read_context(struct pm_graph_dispatch *ret_dispatch);

/* A key of CudaGraphManager.graphs: a BatchExecutionDescriptor, or an int (tokens) up to 0.17.1.
 * False: neither. */
bool pm_graph_read_key(PyObject *key, struct pm_graph_desc *ret_desc);

/* The name of an object's class; false (and an empty text) where it cannot be had. */
bool pm_graph_class_name(PyObject *object, char *out, size_t size);

/* The runtime mode that the engine is configured for: worker.vllm_config.compilation_config.
 * cudagraph_mode, by name ("FULL_AND_PIECEWISE"). False: not known. */
bool pm_graph_read_config(PyObject *worker, char *out, size_t size);

#endif
