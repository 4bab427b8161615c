/*
 * Folded stacks for flame graphs (see stacks.h). One thread.
 */
#include "trace/stacks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES (1024u * 1024)

struct folding {
    struct pm_stacks stacks;
    const struct pm_tree *tree;
    int64_t *ns; /* per node */
    uint32_t room;
};

static int add_time(struct folding *f, uint32_t node, int64_t ns)
{
    if (node >= f->room) {
        uint32_t room = f->stacks.room > node ? f->stacks.room : node + 1;
        int64_t *more = realloc(f->ns, room * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        memset(more + f->room, 0, (room - f->room) * sizeof(*more));
        f->ns = more;
        f->room = room;
    }
    f->ns[node] += ns;
    return 0;
}

static int fold_cpu(struct folding *f)
{
    const struct pm_tree *tree = f->tree;
    int err = 0;
    for (uint32_t at = 0; at < tree->n && err == 0; at++) {
        uint32_t node;
        if (pm_tree_is_merged(tree, at) || tree->self_ns[at] <= 0)
            continue;
        err = pm_stacks_push(&f->stacks, f->stacks.of[at],
                             tree->trace->events.name[tree->event[at]], &node);
        if (err == 0)
            err = add_time(f, node, tree->self_ns[at]);
    }
    return err;
}

static int fold_device(struct folding *f)
{
    const struct pm_tree *tree = f->tree;
    const struct pm_trace *trace = tree->trace;
    int err = 0;
    for (uint32_t k = 0; k < tree->n_device && err == 0; k++) {
        uint32_t row = tree->device[k], at = tree->launcher[k], node = PM_NONE;
        if (!pm_kind_is_work(pm_trace_kind_of(trace, row)))
            continue;
        if (at != PM_NONE && pm_tree_is_merged(tree, at))
            at = tree->parent[at];
        if (at != PM_NONE)
            err = pm_stacks_push(&f->stacks, f->stacks.of[at], trace->events.name[tree->event[at]],
                                 &node);
        if (err == 0)
            err = pm_stacks_push(&f->stacks, node, trace->events.name[row], &node);
        if (err == 0)
            err = add_time(f, node, trace->events.dur_ns[row]);
    }
    return err;
}

/* One line, from its end to its begin: frames are found from the inside out. */
static int write_line(const struct folding *f, uint32_t node, char *line, pm_folded_fn add,
                      void *arg)
{
    size_t at = LINE_MAX_BYTES - 32;
    int64_t us = (f->ns[node] + 500) / 1000;
    if (us <= 0)
        return 0;
    int n = snprintf(line + at, 32, " %" PRId64 "\n", us);
    size_t end = at + (size_t)n;
    for (uint32_t up = node; up != PM_NONE; up = f->stacks.nodes[up].outer) {
        uint32_t frame = f->stacks.nodes[up].frame;
        const char *text = pm_trace_text(f->tree->trace, frame);
        size_t len = pm_intern_len(&f->tree->trace->strings, frame);
        if (len == 0) { /* an event without a name is a frame all the same */
            text = "_";
            len = 1;
        }
        if (len + 1 > at)
            return -PM_ELIMIT;
        if (up != node)
            line[--at] = ';';
        at -= len;
        for (size_t i = 0; i < len; i++) {
            unsigned char c = (unsigned char)text[i];
            line[at + i] = c <= ' ' || c == ';' || c == 0x7F ? '_' : text[i];
        }
    }
    return add(arg, line + at, end - at);
}

int pm_folded(const struct pm_tree *tree, bool device_time, pm_folded_fn add, void *arg,
              bool *ret_nesting)
{
    struct folding f = {.tree = tree};
    char *line = malloc(LINE_MAX_BYTES);
    bool nesting = false;
    int err = line == NULL ? -PM_ENOMEM : pm_stacks_build(&f.stacks, tree, false);
    if (err == 0 && !f.stacks.any) {
        pm_stacks_release(&f.stacks);
        nesting = true;
        err = pm_stacks_build(&f.stacks, tree, true);
    }
    if (err == 0)
        err = device_time ? fold_device(&f) : fold_cpu(&f);
    for (uint32_t node = 0; node < f.stacks.n && node < f.room && err == 0; node++)
        err = write_line(&f, node, line, add, arg);
    if (err == 0)
        *ret_nesting = nesting;
    pm_stacks_release(&f.stacks);
    free(f.ns);
    free(line);
    return err;
}
