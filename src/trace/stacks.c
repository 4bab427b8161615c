/*
 * Stacks (see stacks.h). One thread.
 */
#include "trace/stacks.h"

#include <stdlib.h>
#include <string.h>

/* ---- nodes ----------------------------------------------------------------------------------- */

static uint32_t node_hash(uint32_t outer, uint32_t frame)
{
    uint64_t h = ((uint64_t)outer << 32 | frame) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(h >> 32);
}

static int grow_nodes(struct pm_stacks *stacks)
{
    uint32_t mask = stacks->mask == 0 ? 1023 : stacks->mask * 2 + 1;
    uint32_t *table = calloc((size_t)mask + 1, sizeof(*table));
    struct pm_stack_node *nodes = realloc(stacks->nodes, ((size_t)mask + 1) / 2 * sizeof(*nodes));
    if (nodes != NULL)
        stacks->nodes = nodes;
    if (table == NULL || nodes == NULL) {
        free(table);
        return -PM_ENOMEM;
    }
    for (uint32_t i = 0; i < stacks->n; i++) {
        uint32_t slot = node_hash(nodes[i].outer, nodes[i].frame) & mask;
        while (table[slot] != 0)
            slot = (slot + 1) & mask;
        table[slot] = i + 1;
    }
    free(stacks->table);
    stacks->table = table;
    stacks->mask = mask;
    stacks->room = (mask + 1) / 2;
    return 0;
}

int pm_stacks_push(struct pm_stacks *stacks, uint32_t outer, uint32_t frame, uint32_t *ret)
{
    if (stacks->n == stacks->room) {
        if (stacks->n > UINT32_MAX / 8)
            return -PM_ELIMIT;
        int err = grow_nodes(stacks);
        if (err != 0)
            return err;
    }
    uint32_t slot = node_hash(outer, frame) & stacks->mask;
    for (; stacks->table[slot] != 0; slot = (slot + 1) & stacks->mask) {
        const struct pm_stack_node *node = &stacks->nodes[stacks->table[slot] - 1];
        if (node->outer == outer && node->frame == frame) {
            *ret = stacks->table[slot] - 1;
            return 0;
        }
    }
    stacks->nodes[stacks->n] = (struct pm_stack_node){outer, frame};
    *ret = stacks->n++;
    stacks->table[slot] = stacks->n;
    return 0;
}

/* ---- the stack of every event ---------------------------------------------------------------- */

/* Frames that torch leaves out (profiler_util.py _filter_stack_entry). */
static bool frame_is_left_out(const char *frame)
{
    static const char *const pairs[][2] = {
        {"autograd/__init__", "_make_grads"},
        {"autograd/__init__", "backward"},
        {"torch/tensor", "backward"},
        {"_internal/common_utils", "prof_callable"},
        {"_internal/common_utils", "prof_func_call"},
        {"_internal/common_utils", "prof_meth_call"},
    };
    for (size_t k = 0; k < sizeof(pairs) / sizeof(pairs[0]); k++)
        if (strstr(frame, pairs[k][0]) != NULL && strstr(frame, pairs[k][1]) != NULL)
            return true;
    return false;
}

/* "inner;…;outer" as nodes. */
static int push_call_stack(struct pm_stacks *stacks, struct pm_trace *trace, uint32_t string,
                           uint32_t *ret)
{
    uint32_t node = PM_NONE, len = pm_intern_len(&trace->strings, string);
    char *copy = malloc((size_t)len + 1);
    int err = copy == NULL ? -PM_ENOMEM : 0;
    if (err == 0)
        memcpy(copy, pm_trace_text(trace, string), (size_t)len + 1);
    for (size_t end = len; err == 0 && end > 0;) {
        size_t begin = end;
        while (begin > 0 && copy[begin - 1] != ';')
            begin--;
        uint32_t frame;
        if (end > begin) {
            err = pm_intern_add(&trace->strings, copy + begin, end - begin, &frame);
            if (err == 0 && !frame_is_left_out(pm_trace_text(trace, frame)))
                err = pm_stacks_push(stacks, node, frame, &node);
        }
        end = begin > 0 ? begin - 1 : 0;
    }
    free(copy);
    *ret = node;
    return err;
}

/* What torch records with RecordScope::BACKWARD_FUNCTION: nodes of the backward graph, but not the
 * engine's call around them. The file does not say so; the id of the forward thread and the names
 * do. */
static bool is_backward(const struct pm_trace *trace, uint32_t row, uint32_t accumulate)
{
    static const char engine[] = "autograd::engine::evaluate_function: ";
    if (pm_trace_kind_of(trace, row) > PM_KIND_ANNOTATION)
        return false;
    if ((trace->events.link[row] & PM_TRACE_BACKWARD) == 0)
        return trace->events.name[row] == accumulate;
    return strncmp(pm_trace_text(trace, trace->events.name[row]), engine, sizeof(engine) - 1) != 0;
}

struct forward {
    uint32_t sequence; /* number + 1 */
    uint32_t node;
    int64_t ts_ns;
};

static int by_sequence(const void *a, const void *b)
{
    const struct forward *x = a, *y = b;
    if (x->sequence != y->sequence)
        return x->sequence < y->sequence ? -1 : 1;
    return x->ts_ns < y->ts_ns ? -1 : x->ts_ns > y->ts_ns;
}

/* The stack of the first operator with that number. */
static uint32_t find_forward(const struct forward *list, uint32_t n, uint32_t sequence)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (list[middle].sequence < sequence)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && list[low].sequence == sequence && sequence != 0 ? list[low].node : PM_NONE;
}

/* Gives the backward pass the stacks of its forward operators, by sequence number
 * (EventList._set_backward_stacktraces, but for the thread, which the file does not name). */
static int set_backward(struct pm_stacks *stacks, const struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    uint32_t n = 0,
             accumulate = pm_intern_find(&trace->strings, "torch::autograd::AccumulateGrad", 31);
    struct forward *forward = malloc(((size_t)tree->n + 1) * sizeof(*forward));
    uint32_t *around = malloc(((size_t)tree->n + 1) * sizeof(*around)); /* backward node, or none */
    if (forward == NULL || around == NULL) {
        free(forward);
        free(around);
        return -PM_ENOMEM;
    }
    for (uint32_t at = 0; at < tree->n; at++) {
        uint32_t row = tree->event[at], parent = tree->parent[at];
        around[at] = is_backward(trace, row, accumulate) ? at
                     : parent != PM_NONE                 ? around[parent]
                                                         : PM_NONE;
        if (around[at] != PM_NONE || pm_trace_kind_of(trace, row) > PM_KIND_ANNOTATION)
            continue;
        uint32_t sequence = trace->events.link[row] & ~PM_TRACE_BACKWARD;
        if (sequence != 0)
            forward[n++] = (struct forward){sequence, stacks->of[at], trace->events.ts_ns[row]};
    }
    if (n > 0)
        qsort(forward, n, sizeof(*forward), by_sequence);
    for (uint32_t at = 0; at < tree->n; at++)
        if (around[at] != PM_NONE)
            stacks->of[at] = find_forward(
                forward, n, trace->events.link[tree->event[around[at]]] & ~PM_TRACE_BACKWARD);
    free(forward);
    free(around);
    return 0;
}

/* The event on top of the thread's stack when each one began. Unlike in the table's tree
 * (tree.h), an event that outlasts the one it began in is its child all the same, until that one
 * ends (torch/csrc/profiler/collection.cpp build_tree). lowest: earliest end up the stack. */
struct outer {
    uint32_t position;
    int64_t lowest;
};

static struct outer *find_outer(const struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    struct outer *outer = malloc(((size_t)tree->n + 1) * sizeof(*outer));
    uint32_t top = PM_NONE, track = PM_NONE;
    int64_t before = INT64_MIN;
    for (uint32_t at = 0; at < tree->n && outer != NULL; at++) {
        uint32_t row = tree->event[at];
        int64_t begin = trace->events.ts_ns[row], end = pm_trace_end_ns(trace, row);
        if (pm_trace_track_of(trace, row) != track || begin < before)
            top = PM_NONE; /* another thread */
        track = pm_trace_track_of(trace, row);
        before = begin;
        if (top != PM_NONE && outer[top].lowest < begin) {
            /* Some have ended: the outermost of them takes all inside it along. */
            for (uint32_t up = top; up != PM_NONE; up = outer[up].position)
                if (pm_trace_end_ns(trace, tree->event[up]) < begin)
                    top = outer[up].position;
        }
        outer[at].position = top;
        outer[at].lowest = top != PM_NONE && outer[top].lowest < end ? outer[top].lowest : end;
        if (end > begin)
            top = at;
    }
    return outer;
}

int pm_stacks_build(struct pm_stacks *stacks, const struct pm_tree *tree, bool nesting)
{
    struct pm_trace *trace = tree->trace;
    int err = 0;
    *stacks = (struct pm_stacks){0};
    stacks->of = malloc(((size_t)tree->n + 1) * sizeof(*stacks->of));
    struct outer *outer = nesting ? NULL : find_outer(tree);
    if (stacks->of == NULL || (outer == NULL && !nesting))
        err = -PM_ENOMEM;
    for (uint32_t at = 0; at < tree->n && err == 0; at++) {
        uint32_t parent = nesting ? tree->parent[at] : outer[at].position, node = PM_NONE;
        if (parent != PM_NONE) {
            uint32_t row = tree->event[parent], frame = trace->events.name[row];
            bool is_frame = nesting || pm_trace_kind_of(trace, row) == PM_KIND_PYTHON;
            node = stacks->of[parent];
            if (is_frame && !frame_is_left_out(pm_trace_text(trace, frame)))
                err = pm_stacks_push(stacks, node, frame, &node);
        }
        uint32_t row = tree->event[at];
        if (node == PM_NONE && !nesting && err == 0 &&
            pm_trace_kind_of(trace, row) <= PM_KIND_ANNOTATION) {
            uint32_t string = trace->ops[trace->events.extra[row]].stack;
            if (string != 0)
                err = push_call_stack(stacks, trace, string, &node);
        }
        stacks->of[at] = node;
        stacks->any = stacks->any || node != PM_NONE;
    }
    free(outer);
    if (err == 0 && stacks->any && !nesting)
        err = set_backward(stacks, tree);
    if (err != 0)
        pm_stacks_release(stacks);
    return err;
}

void pm_stacks_release(struct pm_stacks *stacks)
{
    free(stacks->nodes);
    free(stacks->table);
    free(stacks->of);
    *stacks = (struct pm_stacks){0};
}
