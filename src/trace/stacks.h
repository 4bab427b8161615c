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

/* folded.c: lines for flame graphs, "outer;inner value": the stack, the operator and, for device
 * time, the kernel; each stack once, by first appearance. Values are whole microseconds, those that
 * round to 0 are left out; blanks, tabs and `;` in names become `_`, as in torch's export_stacks.
 * Where the trace has no Python frames the operators around stand for them, and *ret_nesting is
 * set. */
typedef int (*pm_folded_fn)(void *arg, const char *line, size_t n_bytes);
PM_MUST_USE int pm_folded(const struct pm_tree *tree, bool device_time, pm_folded_fn add, void *arg,
                          bool *ret_nesting);

#endif
