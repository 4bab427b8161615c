/*
 * A flame graph of a trace: call paths with the time spent in each, cut to the largest ones, for
 * the page of `profilemate trace`. One thread. Owns its nodes; names are strings of the trace.
 */
#ifndef PM_TRACE_FLAME_H
#define PM_TRACE_FLAME_H

#include "trace/tree.h"

enum pm_flame_kind {
    PM_FLAME_NESTING, /* as events nest on their threads: Python functions, operators, calls */
    PM_FLAME_PYTHON,  /* by Python stacks as export_stacks has them (stacks.h), then the operator */
};

/* A path. Its total is its own time and that of all paths inside it. */
struct pm_flame_node {
    uint32_t outer; /* entry, which stands earlier; PM_NONE: a root */
    uint32_t name;  /* PM_NONE: `paths` children of `outer` that are left out, with all in them */
    uint8_t kind;   /* enum pm_trace_kind; of several the first seen; PM_KIND_PYTHON for frames */
    uint32_t paths;
    uint64_t calls;
    int64_t cpu_ns, device_ns; /* own: self CPU time; kernels and copies are paths of their own */
};

struct pm_flame {
    struct pm_flame_node *nodes;
    uint32_t n;
    uint32_t left_out; /* paths, where not all are there */
};

/* At most `most` paths, and one more for each that lost some inside it; those with the largest
 * share of CPU or device time stay. No node at all where the trace has no such stacks.
 * `ProfilerStep#N` counts as one path, and so do vLLM's `execute_…` of any batch. The strings of
 * the trace may grow. */
PM_MUST_USE int pm_flame_build(struct pm_flame *flame, const struct pm_tree *tree,
                               enum pm_flame_kind kind, uint32_t most);
void pm_flame_release(struct pm_flame *flame);

#endif
