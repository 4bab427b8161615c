/*
 * Nesting and launches (see tree.h). One thread.
 */
#include "trace/tree.h"

#include <stdlib.h>
#include <string.h>

/* Events that torch leaves out of its tables (profiler_util.py _filter_name). */
static const char *const left_out[] = {
    "profiler::_record_function_enter",
    "profiler::_record_function_enter_new",
    "profiler::_record_function_exit",
    "aten::is_leaf",
    "aten::output_nr",
    "aten::_version",
};
#define LEFT_OUT (sizeof(left_out) / sizeof(left_out[0]))

/* ---- which ids ------------------------------------------------------------------------------- */

/* Early Kineto wrote the correlation as "External id" of every call and of all it launched. */
static bool has_old_ids(const struct pm_trace *trace)
{
    const struct pm_trace_events *events = &trace->events;
    bool any = false;
    for (uint32_t row = 0; row < events->n; row++) {
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        if (kind != PM_KIND_RUNTIME && !pm_kind_is_work(kind))
            continue;
        if (events->link[row] != 0 && events->ext[row] != events->link[row])
            return false;
        any = true;
    }
    return any;
}

/* A map from ids to rows or positions, open addressing. */
struct id_map {
    uint32_t *keys, *values;
    uint32_t mask;
};

static int map_init(struct id_map *map, uint32_t n)
{
    map->mask = 63;
    while (map->mask < n * 2ull && map->mask < UINT32_MAX / 2)
        map->mask = map->mask * 2 + 1;
    map->keys = calloc((size_t)map->mask + 1, sizeof(uint32_t));
    map->values = malloc(((size_t)map->mask + 1) * sizeof(uint32_t));
    return map->keys == NULL || map->values == NULL ? -PM_ENOMEM : 0;
}

static void map_release(struct id_map *map)
{
    free(map->keys);
    free(map->values);
    *map = (struct id_map){0};
}

static uint32_t map_slot(const struct id_map *map, uint32_t key)
{
    uint32_t slot = (uint32_t)(key * 0x9E3779B97F4A7C15ull >> 29) & map->mask;
    while (map->keys[slot] != 0 && map->keys[slot] != key)
        slot = (slot + 1) & map->mask;
    return slot;
}

/* The first one wins. */
static void map_add(struct id_map *map, uint32_t key, uint32_t value)
{
    uint32_t slot = map_slot(map, key);
    if (map->keys[slot] != 0)
        return;
    map->keys[slot] = key;
    map->values[slot] = value;
}

static uint32_t map_get(const struct id_map *map, uint32_t key)
{
    uint32_t slot = key != 0 ? map_slot(map, key) : 0;
    return key != 0 && map->keys[slot] == key ? map->values[slot] : PM_NONE;
}

/* ---- the order of the CPU events ------------------------------------------------------------- */

/* Where an event goes: its track, or its own track of calls that no operator made, or nowhere. */
static uint32_t bin_of(const struct pm_tree *tree, uint32_t row, const uint32_t filtered[LEFT_OUT])
{
    const struct pm_trace *trace = tree->trace;
    enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
    if (!pm_kind_on_cpu(kind))
        return PM_NONE;
    for (size_t k = 0; k < LEFT_OUT; k++)
        if (trace->events.name[row] == filtered[k])
            return PM_NONE;
    uint32_t track = pm_trace_track_of(trace, row);
    bool apart = kind == PM_KIND_RUNTIME && !tree->old_ids && trace->events.ext[row] == 0;
    return track * 2 + (apart ? 1 : 0);
}

static int put_in_order(struct pm_tree *tree, uint32_t **ret_ends, uint32_t *ret_bins)
{
    const struct pm_trace *trace = tree->trace;
    uint32_t filtered[LEFT_OUT], bins = trace->n_tracks * 2;
    uint32_t *ends = calloc((size_t)bins + 1, sizeof(*ends));
    int err = 0;
    if (ends == NULL)
        return -PM_ENOMEM;
    for (size_t k = 0; k < LEFT_OUT; k++)
        filtered[k] = pm_intern_find(&trace->strings, left_out[k], strlen(left_out[k]));
    for (uint32_t row = 0; row < trace->events.n; row++) {
        uint32_t bin = bin_of(tree, row, filtered);
        if (bin != PM_NONE) {
            ends[bin]++;
            tree->n++;
        }
    }
    tree->event = malloc(((size_t)tree->n + 1) * sizeof(*tree->event));
    if (tree->event == NULL) {
        free(ends);
        return -PM_ENOMEM;
    }
    uint32_t total = 0;
    for (uint32_t bin = 0; bin < bins; bin++) {
        uint32_t count = ends[bin];
        ends[bin] = total; /* the start, which the next loop moves to the end */
        total += count;
    }
    for (uint32_t row = 0; row < trace->events.n; row++) {
        uint32_t bin = bin_of(tree, row, filtered);
        if (bin != PM_NONE)
            tree->event[ends[bin]++] = row;
    }
    uint32_t begin = 0;
    for (uint32_t bin = 0; bin < bins && err == 0; bin++) {
        err = pm_trace_sort_rows(trace, tree->event + begin, ends[bin] - begin);
        begin = ends[bin];
    }
    *ret_ends = ends;
    *ret_bins = bins;
    return err;
}

/* ---- nesting --------------------------------------------------------------------------------- */

static void nest(struct pm_tree *tree, const uint32_t *ends, uint32_t bins)
{
    const struct pm_trace *trace = tree->trace;
    uint32_t begin = 0;
    for (uint32_t bin = 0; bin < bins; bin++) {
        uint32_t open = PM_NONE; /* the innermost event that may still be open */
        for (uint32_t at = begin; at < ends[bin]; at++) {
            int64_t start = trace->events.ts_ns[tree->event[at]];
            int64_t end = pm_trace_end_ns(trace, tree->event[at]);
            while (open != PM_NONE) {
                int64_t open_end = pm_trace_end_ns(trace, tree->event[open]);
                if (start < open_end && end <= open_end)
                    break;
                open = tree->parent[open];
            }
            tree->parent[at] = open;
            open = at;
        }
        begin = ends[bin];
    }
}

/* In old traces: calls that no operator made are nobody's children. */
static void part_unlaunched(struct pm_tree *tree)
{
    for (uint32_t at = 0; at < tree->n; at++) {
        if (pm_trace_kind_of(tree->trace, tree->event[at]) != PM_KIND_RUNTIME)
            continue;
        uint32_t up = tree->parent[at];
        while (up != PM_NONE && pm_trace_kind_of(tree->trace, tree->event[up]) > PM_KIND_ANNOTATION)
            up = tree->parent[up];
        if (up == PM_NONE)
            tree->parent[at] = PM_NONE;
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

static int collect_device(struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    uint32_t n = 0;
    for (uint32_t row = 0; row < trace->events.n; row++)
        n += pm_kind_on_device(pm_trace_kind_of(trace, row));
    tree->n_device = n;
    if (n == 0)
        return 0;
    tree->device = malloc(n * sizeof(uint32_t));
    tree->launcher = malloc(n * sizeof(uint32_t));
    tree->launch = malloc(n * sizeof(uint32_t));
    tree->own_device_ns = calloc((size_t)tree->n + 1, sizeof(int64_t));
    tree->device_ns = calloc((size_t)tree->n + 1, sizeof(int64_t));
    if (tree->device == NULL || tree->launcher == NULL || tree->launch == NULL ||
        tree->own_device_ns == NULL || tree->device_ns == NULL)
        return -PM_ENOMEM;
    n = 0;
    for (uint32_t row = 0; row < trace->events.n; row++)
        if (pm_kind_on_device(pm_trace_kind_of(trace, row)))
            tree->device[n++] = row;
    return pm_trace_sort_rows(trace, tree->device, n);
}

/* The innermost operator or annotation around a runtime call. */
static uint32_t operator_around(const struct pm_tree *tree, uint32_t position)
{
    uint32_t up = tree->parent[position];
    while (up != PM_NONE && pm_trace_kind_of(tree->trace, tree->event[up]) > PM_KIND_ANNOTATION)
        up = tree->parent[up];
    return up;
}

static int find_launches(struct pm_tree *tree)
{
    struct pm_trace *trace = tree->trace;
    const struct pm_trace_events *events = &trace->events;
    struct id_map calls = {0}, operators = {0};
    if (tree->n_device == 0)
        return 0;
    uint32_t n_calls = 0, n_operators = 0;
    for (uint32_t at = 0; at < tree->n; at++) {
        enum pm_trace_kind kind = pm_trace_kind_of(trace, tree->event[at]);
        n_calls += kind == PM_KIND_RUNTIME;
        n_operators += kind <= PM_KIND_ANNOTATION && events->ext[tree->event[at]] != 0;
    }
    int err = map_init(&calls, n_calls);
    if (err == 0)
        err = map_init(&operators, n_operators);
    for (uint32_t at = 0; at < tree->n && err == 0; at++) {
        uint32_t row = tree->event[at];
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        if (kind == PM_KIND_RUNTIME && events->link[row] != 0)
            map_add(&calls, events->link[row], at);
        else if (kind <= PM_KIND_ANNOTATION && events->ext[row] != 0)
            map_add(&operators, events->ext[row], at);
    }
    for (uint32_t k = 0; k < tree->n_device && err == 0; k++) {
        uint32_t row = tree->device[k];
        uint32_t call = map_get(&calls, events->link[row]);
        uint32_t by = PM_NONE;
        if (!tree->old_ids)
            by = map_get(&operators, events->ext[row]);
        else if (call != PM_NONE)
            by = operator_around(tree, call);
        tree->launch[k] = call != PM_NONE ? tree->event[call] : PM_NONE;
        tree->launcher[k] = by;
        if (by != PM_NONE)
            tree->own_device_ns[by] += events->dur_ns[row];
        else if (pm_kind_is_work(pm_trace_kind_of(trace, row)))
            tree->n_unlaunched++;
    }
    map_release(&calls);
    map_release(&operators);
    return err;
}

/* ---- merging and sums ------------------------------------------------------------------------ */

static bool is_step(const struct pm_trace *trace, uint32_t name)
{
    return strncmp(pm_trace_text(trace, name), PM_STEP_PREFIX, sizeof(PM_STEP_PREFIX) - 1) == 0;
}

static bool same_name(const struct pm_trace *trace, uint32_t a, uint32_t b)
{
    uint32_t name_a = trace->events.name[a], name_b = trace->events.name[b];
    return name_a == name_b || (is_step(trace, name_a) && is_step(trace, name_b));
}

/* An only child of its parent's name goes into it: its children and its launches become the
 * parent's (EventList._remove_dup_nodes). Parents come first, so one pass settles chains too. */
static int merge_only_children(struct pm_tree *tree)
{
    uint32_t *children = calloc((size_t)tree->n + 1, sizeof(*children));
    tree->merged = calloc((size_t)tree->n / 32 + 1, sizeof(*tree->merged));
    if (children == NULL || tree->merged == NULL) {
        free(children);
        return -PM_ENOMEM;
    }
    for (uint32_t at = 0; at < tree->n; at++)
        if (tree->parent[at] != PM_NONE)
            children[tree->parent[at]]++;
    for (uint32_t at = 0; at < tree->n; at++) {
        uint32_t parent = tree->parent[at];
        if (parent == PM_NONE)
            continue;
        if (pm_tree_is_merged(tree, parent)) /* its parent is final: it stands before it */
            parent = tree->parent[at] = tree->parent[parent];
        if (children[parent] != 1 || !same_name(tree->trace, tree->event[at], tree->event[parent]))
            continue;
        tree->merged[at / 32] |= 1u << at % 32;
        children[parent] = children[at];
        if (tree->own_device_ns != NULL)
            tree->own_device_ns[parent] = tree->own_device_ns[at];
    }
    free(children);
    return 0;
}

static int sum_up(struct pm_tree *tree)
{
    const struct pm_trace *trace = tree->trace;
    tree->self_ns = malloc(((size_t)tree->n + 1) * sizeof(*tree->self_ns));
    if (tree->self_ns == NULL)
        return -PM_ENOMEM;
    for (uint32_t at = 0; at < tree->n; at++)
        tree->self_ns[at] = trace->events.dur_ns[tree->event[at]];
    for (uint32_t at = tree->n; at-- > 0;) {
        uint32_t parent = tree->parent[at];
        if (pm_tree_is_merged(tree, at))
            continue;
        if (tree->device_ns != NULL)
            tree->device_ns[at] += tree->own_device_ns[at];
        if (parent == PM_NONE)
            continue;
        tree->self_ns[parent] -= trace->events.dur_ns[tree->event[at]];
        if (tree->device_ns != NULL)
            tree->device_ns[parent] += tree->device_ns[at];
    }
    return 0;
}

int pm_tree_build(struct pm_tree *tree, struct pm_trace *trace)
{
    uint32_t *ends = NULL, bins = 0;
    *tree = (struct pm_tree){.trace = trace};
    tree->old_ids = has_old_ids(trace);
    int err = put_in_order(tree, &ends, &bins);
    if (err == 0) {
        tree->parent = malloc(((size_t)tree->n + 1) * sizeof(*tree->parent));
        err = tree->parent == NULL ? -PM_ENOMEM : 0;
    }
    if (err == 0) {
        nest(tree, ends, bins);
        if (tree->old_ids)
            part_unlaunched(tree);
        err = collect_device(tree);
    }
    if (err == 0)
        err = find_launches(tree);
    if (err == 0)
        err = merge_only_children(tree);
    if (err == 0)
        err = sum_up(tree);
    free(ends);
    if (err != 0)
        pm_tree_release(tree);
    return err;
}

void pm_tree_release(struct pm_tree *tree)
{
    void *arrays[] = {tree->event,   tree->parent,        tree->merged,
                      tree->self_ns, tree->own_device_ns, tree->device_ns,
                      tree->device,  tree->launcher,      tree->launch};
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++)
        free(arrays[k]);
    *tree = (struct pm_tree){0};
}
