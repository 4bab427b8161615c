/*
 * Python stacks of the events of a trace, as nodes that share their outer frames. Used by keys.c
 * and by the export of stacks; one thread.
 *
 * An operator's stack is the Python functions around it on its thread. In traces without those it
 * is the operator's "Call stack". Operators of the backward pass have that of their forward
 * operator, found by its sequence number.
 */
#ifndef PM_TRACE_STACKS_H
#define PM_TRACE_STACKS_H

#include "trace/tree.h"

struct pm_stack_node {
    uint32_t outer; /* node, PM_NONE for the outermost frame */
    uint32_t frame; /* string of the trace */
};

struct pm_stacks {
    struct pm_stack_node *nodes;
    uint32_t n, room;
    uint32_t *table, mask;
    uint32_t *of; /* per position of the tree: node of its stack, or PM_NONE */
    bool any;     /* some event has one */
};

/* nesting: where there are no Python frames, use the operators around instead. */
PM_MUST_USE int pm_stacks_build(struct pm_stacks *stacks, const struct pm_tree *tree, bool nesting);
void pm_stacks_release(struct pm_stacks *stacks);

/* The node of a frame inside another node (PM_NONE: outermost), made if it is new. */
PM_MUST_USE int pm_stacks_push(struct pm_stacks *stacks, uint32_t outer, uint32_t frame,
                               uint32_t *ret);

/* Folded lines for flame graphs, "outer;inner value": per stack, then the operator and, for device
 * time, the kernel. Values are whole microseconds. metric is PM_SORT_SELF_CPU or
 * PM_SORT_SELF_DEVICE as an int of enum pm_key_sort. add is called per line. */
typedef int (*pm_stacks_line_fn)(void *arg, const char *line, size_t n_bytes);
PM_MUST_USE int pm_stacks_export(const struct pm_tree *tree, bool device_time,
                                 pm_stacks_line_fn add, void *arg, bool *ret_from_nesting);

#endif
