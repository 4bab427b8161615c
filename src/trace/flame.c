/*
 * Flame graphs (see flame.h). One thread.
 */
#include "trace/flame.h"

#include <stdlib.h>
#include <string.h>

#include "trace/stacks.h"

#define STEP_MAX_BYTES 200

struct building {
    struct pm_stacks stacks; /* the paths: nodes that share their outer ones */
    const struct pm_tree *tree;
    struct pm_flame_node *nodes; /* one per node of stacks */
    uint32_t room;
};

/* ---- paths ----------------------------------------------------------------------------------- */

/* "execute_context_0(0)_generation_4(4)" without its numbers. */
static int step_name(struct pm_trace *trace, uint32_t row, uint32_t *ret)
{
    static const char vllm[] = "execute_";
    const uint32_t name = trace->events.name[row];
    const char *text = pm_trace_text(trace, name);
    char out[STEP_MAX_BYTES];
    size_t n = 0;
    *ret = name;
    if (pm_trace_kind_of(trace, row) != PM_KIND_ANNOTATION)
        return 0;
    if (strncmp(text, PM_STEP_PREFIX, sizeof(PM_STEP_PREFIX) - 1) == 0)
        return pm_intern_add(&trace->strings, PM_STEP_NAME, sizeof(PM_STEP_NAME) - 1, ret);
    if (strncmp(text, vllm, sizeof(vllm) - 1) != 0)
        return 0;
    for (const char *p = text; *p != '\0' && n < sizeof(out); p++) {
        const bool digit = *p >= '0' && *p <= '9';
        if (!digit)
            out[n++] = *p;
        else if (n == 0 || out[n - 1] != '*')
            out[n++] = '*';
    }
    return pm_intern_add(&trace->strings, out, n, ret);
}

/* The path of a name inside another. */
static int push(struct building *b, uint32_t outer, uint32_t name, uint8_t kind, uint32_t *ret)
{
    const uint32_t before = b->stacks.n;
    int err = pm_stacks_push(&b->stacks, outer, name, ret);
    if (err != 0)
        return err;
    if (b->stacks.n > b->room) {
        struct pm_flame_node *more = realloc(b->nodes, b->stacks.room * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        b->nodes = more;
        b->room = b->stacks.room;
    }
    if (b->stacks.n > before)
        b->nodes[*ret] = (struct pm_flame_node){.outer = outer, .name = name, .kind = kind};
    return 0;
}

static void count(struct building *b, uint32_t node, uint32_t at)
{
    b->nodes[node].calls++;
    if (b->tree->self_ns[at] > 0)
        b->nodes[node].cpu_ns += b->tree->self_ns[at];
}

/* of: gets the path of each position of the tree. */
static int add_nesting(struct building *b, uint32_t *of)
{
    const struct pm_tree *tree = b->tree;
    int err = 0;
    for (uint32_t at = 0; at < tree->n && err == 0; at++) {
        const uint32_t row = tree->event[at], parent = tree->parent[at];
        const uint32_t outer = parent == PM_NONE ? PM_NONE : of[parent];
        uint32_t name;
        of[at] = outer;
        if (pm_tree_is_merged(tree, at))
            continue;
        err = step_name(tree->trace, row, &name);
        if (err == 0)
            err = push(b, outer, name, (uint8_t)pm_trace_kind_of(tree->trace, row), &of[at]);
        if (err == 0)
            count(b, of[at], at);
    }
    return err;
}

/* The frames of stacks are paths already, made by pm_stacks_build. */
static int add_python(struct building *b, uint32_t *of)
{
    const struct pm_tree *tree = b->tree;
    int err = pm_stacks_build(&b->stacks, tree, false);
    if (err != 0 || !b->stacks.any)
        return err;
    b->nodes = calloc(b->stacks.room, sizeof(*b->nodes));
    if (b->nodes == NULL)
        return -PM_ENOMEM;
    b->room = b->stacks.room;
    for (uint32_t i = 0; i < b->stacks.n; i++)
        b->nodes[i] = (struct pm_flame_node){.outer = b->stacks.nodes[i].outer,
                                             .name = b->stacks.nodes[i].frame,
                                             .kind = PM_KIND_PYTHON};
    for (uint32_t at = 0; at < tree->n && err == 0; at++) {
        const uint32_t row = tree->event[at], parent = tree->parent[at];
        uint32_t name;
        of[at] = PM_NONE;
        if (pm_tree_is_merged(tree, at)) {
            of[at] = parent == PM_NONE ? PM_NONE : of[parent];
            continue;
        }
        err = step_name(tree->trace, row, &name);
        if (err == 0)
            err = push(b, b->stacks.of[at], name, (uint8_t)pm_trace_kind_of(tree->trace, row),
                       &of[at]);
        if (err == 0)
            count(b, of[at], at);
    }
    return err;
}

static int add_device(struct building *b, const uint32_t *of)
{
    const struct pm_tree *tree = b->tree;
    const struct pm_trace *trace = tree->trace;
    int err = 0;
    for (uint32_t k = 0; k < tree->n_device && err == 0; k++) {
        const uint32_t row = tree->device[k], at = tree->launcher[k];
        const enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        uint32_t node;
        if (!pm_kind_is_work(kind))
            continue;
        err = push(b, at == PM_NONE ? PM_NONE : of[at], trace->events.name[row], (uint8_t)kind,
                   &node);
        if (err != 0)
            break;
        b->nodes[node].calls++;
        b->nodes[node].device_ns += trace->events.dur_ns[row];
    }
    return err;
}

/* ---- the largest of them --------------------------------------------------------------------- */

struct total {
    int64_t cpu_ns, device_ns;
    uint64_t calls;
};

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* Shares of the whole, never larger than that of the path around. */
static double *shares(const struct building *b, const struct total *totals)
{
    const uint32_t n = b->stacks.n;
    double *share = malloc(((size_t)n + 1) * sizeof(*share));
    struct total whole = {0};
    for (uint32_t i = 0; i < n; i++)
        if (b->nodes[i].outer == PM_NONE) {
            whole.cpu_ns += totals[i].cpu_ns;
            whole.device_ns += totals[i].device_ns;
        }
    for (uint32_t i = 0; i < n && share != NULL; i++) {
        const double cpu = whole.cpu_ns > 0 ? (double)totals[i].cpu_ns / (double)whole.cpu_ns : 0;
        const double device =
            whole.device_ns > 0 ? (double)totals[i].device_ns / (double)whole.device_ns : 0;
        share[i] = cpu > device ? cpu : device;
    }
    return share;
}

/* place: of each kept path its entry in the result, else PM_NONE. */
static int choose(const struct building *b, const struct total *totals, uint32_t most,
                  uint32_t *place, uint32_t *ret_kept)
{
    const uint32_t n = b->stacks.n;
    double *share = shares(b, totals), *sorted = malloc(((size_t)n + 1) * sizeof(*sorted));
    uint32_t kept = 0, above = 0, ties = 0;
    double least = -1;
    const int err = share == NULL || sorted == NULL ? -PM_ENOMEM : 0;
    if (err == 0 && n > most) {
        memcpy(sorted, share, n * sizeof(*sorted));
        qsort(sorted, n, sizeof(*sorted), descending);
        least = sorted[most];
        while (above < most && sorted[above] > least)
            above++;
        ties = most - above;
    }
    for (uint32_t i = 0; i < n && err == 0; i++) {
        /* Of equal ones the first stay: a path stands before those inside it. */
        const bool tie = share[i] == least && ties > 0;
        ties -= tie;
        place[i] = share[i] > least || tie ? kept++ : PM_NONE;
    }
    free(share);
    free(sorted);
    *ret_kept = kept;
    return err;
}

static int keep(struct pm_flame *flame, const struct building *b, const struct total *totals,
                const uint32_t *place, uint32_t kept)
{
    const uint32_t n = b->stacks.n;
    struct pm_flame_node *nodes = calloc((size_t)kept * 2 + 2, sizeof(*nodes));
    uint32_t *rest = malloc(((size_t)kept + 1) * sizeof(*rest)); /* entry of what was left out */
    uint32_t used = kept;
    if (nodes == NULL || rest == NULL) {
        free(nodes);
        free(rest);
        return -PM_ENOMEM;
    }
    memset(rest, 0xff, ((size_t)kept + 1) * sizeof(*rest));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t outer = b->nodes[i].outer;
        const uint32_t around = outer == PM_NONE ? PM_NONE : place[outer];
        if (place[i] != PM_NONE) {
            nodes[place[i]] = b->nodes[i];
            nodes[place[i]].outer = around;
            continue;
        }
        flame->left_out++;
        if (outer != PM_NONE && around == PM_NONE)
            continue; /* counted with the path around it */
        uint32_t *at = &rest[outer == PM_NONE ? kept : around];
        if (*at == PM_NONE) {
            *at = used++;
            nodes[*at] = (struct pm_flame_node){.outer = around, .name = PM_NONE};
        }
        nodes[*at].paths++;
        nodes[*at].calls += totals[i].calls;
        nodes[*at].cpu_ns += totals[i].cpu_ns;
        nodes[*at].device_ns += totals[i].device_ns;
    }
    free(rest);
    flame->nodes = nodes;
    flame->n = used;
    return 0;
}

static int cut(struct pm_flame *flame, const struct building *b, uint32_t most)
{
    const uint32_t n = b->stacks.n;
    struct total *totals = calloc((size_t)n + 1, sizeof(*totals));
    uint32_t *place = malloc(((size_t)n + 1) * sizeof(*place)), kept;
    int err = totals == NULL || place == NULL ? -PM_ENOMEM : 0;
    for (uint32_t i = n; i-- > 0 && err == 0;) {
        const struct pm_flame_node *node = &b->nodes[i];
        totals[i].cpu_ns += node->cpu_ns;
        totals[i].device_ns += node->device_ns;
        totals[i].calls += node->calls;
        if (node->outer == PM_NONE)
            continue;
        totals[node->outer].cpu_ns += totals[i].cpu_ns;
        totals[node->outer].device_ns += totals[i].device_ns;
        totals[node->outer].calls += totals[i].calls;
    }
    if (err == 0)
        err = choose(b, totals, most, place, &kept);
    if (err == 0)
        err = keep(flame, b, totals, place, kept);
    free(totals);
    free(place);
    return err;
}

int pm_flame_build(struct pm_flame *flame, const struct pm_tree *tree, enum pm_flame_kind kind,
                   uint32_t most)
{
    struct building b = {.tree = tree};
    uint32_t *of = malloc(((size_t)tree->n + 1) * sizeof(*of));
    int err = of == NULL ? -PM_ENOMEM : 0;
    *flame = (struct pm_flame){0};
    if (err == 0)
        err = kind == PM_FLAME_PYTHON ? add_python(&b, of) : add_nesting(&b, of);
    if (err == 0 && (kind == PM_FLAME_NESTING || b.stacks.any))
        err = add_device(&b, of);
    if (err == 0 && b.nodes != NULL)
        err = cut(flame, &b, most);
    pm_stacks_release(&b.stacks);
    free(b.nodes);
    free(of);
    return err;
}

void pm_flame_release(struct pm_flame *flame)
{
    free(flame->nodes);
    *flame = (struct pm_flame){0};
}
