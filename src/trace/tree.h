/*
 * Who called whom: the CPU events of a trace nested by time, thread by thread, and the device
 * events put to the operators that launched them. Built once per trace, read by all analyses; one
 * thread. Owns its arrays, borrows the trace.
 *
 * The rules are those of torch's own tables (torch/autograd/profiler.py _parse_kineto_results,
 * profiler_util.py EventList._build_tree), so that the figures are the same:
 * - on a thread, sorted by start and then by descending end, an event is the child of the nearest
 *   earlier one that is still open and does not end before it; those that overlap only in part are
 *   no relatives;
 * - a runtime call (cudaLaunchKernel) belongs to the thread only if an operator launched it;
 * - an only child of the same name is merged into its parent;
 * - a device event counts for the operator whose "External id" it carries. Traces before 2023 do
 *   not say: there it is the innermost operator around the runtime call of the same correlation.
 */
#ifndef PM_TRACE_TREE_H
#define PM_TRACE_TREE_H

#include "trace/trace.h"

#define PM_NONE UINT32_MAX

struct pm_tree {
    struct pm_trace *trace;
    /* CPU events, by thread, then start, then descending end: a parent stands before its children.
     * All arrays below have one entry per position in `event`. */
    uint32_t n;
    uint32_t *event;        /* row of the trace */
    uint32_t *parent;       /* position or PM_NONE */
    uint32_t *merged;       /* bit per position: merged into its parent, counts no more */
    int64_t *self_ns;       /* duration without the children's */
    int64_t *own_device_ns; /* launched by it directly; NULL where there are no device events */
    int64_t *device_ns;     /* with its children's; NULL likewise */
    /* Device events. */
    uint32_t n_device;
    uint32_t *device;      /* rows of the trace, by start */
    uint32_t *launcher;    /* per entry of `device`: position of the operator, or PM_NONE */
    uint32_t *launch;      /* per entry of `device`: row of the runtime call, or PM_NONE */
    bool old_ids;          /* "External id" of device events repeats the correlation */
    uint64_t n_unlaunched; /* work on a device without an operator */
};

PM_MUST_USE int pm_tree_build(struct pm_tree *tree, struct pm_trace *trace);
void pm_tree_release(struct pm_tree *tree);

static inline bool pm_tree_is_merged(const struct pm_tree *tree, uint32_t position)
{
    return (tree->merged[position / 32] >> position % 32 & 1) != 0;
}

/* Sorts rows of the trace by start, then descending end, then position in the file. 0 or
 * -PM_ENOMEM. */
PM_MUST_USE int pm_trace_sort_rows(const struct pm_trace *trace, uint32_t *rows, uint32_t n);

/* The name that stands for all steps: "ProfilerStep#7" counts as "ProfilerStep*". */
#define PM_STEP_PREFIX "ProfilerStep#"
#define PM_STEP_NAME "ProfilerStep*"

#endif
