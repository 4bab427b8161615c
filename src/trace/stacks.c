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

/* The operator of the backward pass that this is, or runs in; PM_NONE when there is none. */
static uint32_t backward_around(const struct pm_tree *tree, uint32_t position)
{
    const struct pm_trace *trace = tree->trace;
    for (; position != PM_NONE; position = tree->parent[position]) {
        uint32_t row = tree->event[position];
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        if (kind <= PM_KIND_ANNOTATION && (trace->events.link[row] & PM_TRACE_BACKWARD) != 0)
            return position;
    }
    return PM_NONE;
}

struct forward {
    uint32_t sequence, node; /* sequence number + 1 */
};

static int by_sequence(const void *a, const void *b)
{
    uint32_t x = ((const struct forward *)a)->sequence, y = ((const struct forward *)b)->sequence;
    return (x > y) - (x < y);
}

/* Gives operators of the backward pass the stacks of their forward operators. */
static int set_backward(struct pm_stacks *stacks, const struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    bool any = false;
    uint32_t n = 0;
    struct forward *forward = malloc(((size_t)tree->n + 1) * sizeof(*forward));
    if (forward == NULL)
        return -PM_ENOMEM;
    for (uint32_t at = 0; at < tree->n; at++) {
        uint32_t row = tree->event[at];
        if (pm_trace_kind_of(trace, row) > PM_KIND_ANNOTATION)
            continue;
        uint32_t link = trace->events.link[row];
        any = any || (link & PM_TRACE_BACKWARD) != 0;
        if (link == 0 || (link & PM_TRACE_BACKWARD) != 0 || stacks->of[at] == PM_NONE)
            continue;
        /* The outermost operator with a number comes first on its thread. */
        uint32_t parent = tree->parent[at];
        if (parent != PM_NONE && trace->events.link[tree->event[parent]] == link)
            continue;
        forward[n++] = (struct forward){link, stacks->of[at]};
    }
    if (any) {
        qsort(forward, n, sizeof(*forward), by_sequence);
        for (uint32_t at = 0; at < tree->n; at++) {
            uint32_t backward = backward_around(tree, at);
            if (backward == PM_NONE)
                continue;
            struct forward key = {trace->events.link[tree->event[backward]] & ~PM_TRACE_BACKWARD,
                                  0};
            const struct forward *found = bsearch(&key, forward, n, sizeof(key), by_sequence);
            stacks->of[at] = found != NULL ? found->node : PM_NONE;
        }
    }
    free(forward);
    return 0;
}

int pm_stacks_build(struct pm_stacks *stacks, const struct pm_tree *tree, bool nesting)
{
    struct pm_trace *trace = tree->trace;
    int err = 0;
    *stacks = (struct pm_stacks){0};
    stacks->of = malloc(((size_t)tree->n + 1) * sizeof(*stacks->of));
    if (stacks->of == NULL)
        return -PM_ENOMEM;
    for (uint32_t at = 0; at < tree->n && err == 0; at++) {
        uint32_t parent = tree->parent[at], node = PM_NONE;
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
