/*
 * key_averages (see keys.h). One thread.
 */
#include "trace/keys.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "trace/stacks.h"

int pm_keys_init(struct pm_keys *keys, bool by_shape, unsigned by_stack)
{
    *keys = (struct pm_keys){.by_shape = by_shape, .by_stack = by_stack, .mask = 1023};
    keys->table = calloc((size_t)keys->mask + 1, sizeof(*keys->table));
    if (keys->table == NULL || pm_intern_init(&keys->strings) != 0) {
        pm_keys_release(keys);
        return -PM_ENOMEM;
    }
    return 0;
}

void pm_keys_release(struct pm_keys *keys)
{
    pm_intern_release(&keys->strings);
    free(keys->rows);
    free(keys->table);
    *keys = (struct pm_keys){0};
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* What a row is found by. */
struct group {
    uint32_t name, shapes, stack;
    bool on_device, annotation;
};

static uint32_t group_hash(const struct group *group)
{
    uint64_t h = group->name * 0x9E3779B97F4A7C15ull ^ group->shapes * 0xC2B2AE3D27D4EB4Full ^
                 group->stack * 0x165667B19E3779F9ull ^
                 (group->on_device * 2ull + group->annotation) * 0xD6E8FEB86659FD93ull;
    return (uint32_t)(h >> 32 ^ h);
}

static bool is_group(const struct pm_key *row, const struct group *group)
{
    return row->name == group->name && row->shapes == group->shapes && row->stack == group->stack &&
           row->on_device == group->on_device && row->annotation == group->annotation;
}

static int grow(struct pm_keys *keys)
{
    if (keys->n == keys->room) {
        uint32_t room = keys->room == 0 ? 256 : keys->room * 2;
        struct pm_key *rows = realloc(keys->rows, room * sizeof(*rows));
        if (rows == NULL)
            return -PM_ENOMEM;
        keys->rows = rows;
        keys->room = room;
    }
    if (keys->n * 2ull < keys->mask)
        return 0;
    uint32_t mask = keys->mask * 2 + 1;
    uint32_t *table = calloc((size_t)mask + 1, sizeof(*table));
    if (table == NULL)
        return -PM_ENOMEM;
    for (uint32_t i = 0; i < keys->n; i++) {
        const struct pm_key *row = &keys->rows[i];
        struct group group = {row->name, row->shapes, row->stack, row->on_device, row->annotation};
        uint32_t slot = group_hash(&group) & mask;
        while (table[slot] != 0)
            slot = (slot + 1) & mask;
        table[slot] = i + 1;
    }
    free(keys->table);
    keys->table = table;
    keys->mask = mask;
    return 0;
}

static int find_row(struct pm_keys *keys, const struct group *group, enum pm_trace_kind kind,
                    uint32_t *ret)
{
    int err = grow(keys);
    if (err != 0)
        return err;
    uint32_t slot = group_hash(group) & keys->mask;
    for (; keys->table[slot] != 0; slot = (slot + 1) & keys->mask)
        if (is_group(&keys->rows[keys->table[slot] - 1], group)) {
            *ret = keys->table[slot] - 1;
            return 0;
        }
    keys->rows[keys->n] = (struct pm_key){
        .name = group->name,
        .shapes = group->shapes,
        .stack = group->stack,
        .on_device = group->on_device,
        .annotation = group->annotation,
        .kind = kind,
        .first_ns = INT64_MAX,
    };
    *ret = keys->n++;
    keys->table[slot] = keys->n;
    return 0;
}

/* ---- one trace ------------------------------------------------------------------------------- */

struct adding {
    struct pm_keys *keys;
    const struct pm_tree *tree;
    struct pm_trace *trace;
    uint32_t *names;  /* per string of the trace: the one of keys, or PM_NONE */
    uint32_t *rows;   /* per string and class of the trace: the row, when only names count */
    uint32_t *shapes; /* per row of ops: string of keys, or PM_NONE */
    struct {
        uint32_t name; /* of the trace */
        uint64_t flops;
        bool known;
    } * flops; /* per row of ops */
    struct pm_stacks stacks;
    uint32_t *stack_text;            /* per node: string of keys, or PM_NONE */
    int64_t *memory_ts;              /* of memory events, sorted */
    int64_t *cpu_sums, *device_sums; /* bytes before each */
    uint32_t n_memory;
    int64_t *child_cpu, *child_device; /* per position: the children's bytes */
    uint32_t *marks; /* per memory event: how many top-level events hold it, as differences */
};

static uint32_t *filled(size_t n)
{
    uint32_t *array = malloc((n + 1) * sizeof(*array));
    if (array != NULL)
        memset(array, 0xFF, (n + 1) * sizeof(*array));
    return array;
}

static int name_of(struct adding *a, uint32_t string, uint32_t *ret)
{
    if (a->names[string] == PM_NONE) {
        const char *text = pm_trace_text(a->trace, string);
        uint32_t len = pm_intern_len(&a->trace->strings, string);
        if (strncmp(text, PM_STEP_PREFIX, sizeof(PM_STEP_PREFIX) - 1) == 0) {
            text = PM_STEP_NAME;
            len = sizeof(PM_STEP_NAME) - 1;
        }
        int err = pm_intern_add(&a->keys->strings, text, len, &a->names[string]);
        if (err != 0)
            return err;
    }
    *ret = a->names[string];
    return 0;
}

static int shapes_of(struct adding *a, uint32_t op, uint32_t *ret)
{
    if (a->shapes[op] == PM_NONE) {
        const char *dims = pm_trace_text(a->trace, a->trace->ops[op].dims);
        size_t size = strlen(dims) * 2 + 8;
        char *text = malloc(size);
        if (text == NULL)
            return -PM_ENOMEM;
        size_t n = pm_shapes_text(dims[0] == '\0' ? "[]" : dims, text, size);
        int err = pm_intern_add(&a->keys->strings, text, n, &a->shapes[op]);
        free(text);
        if (err != 0)
            return err;
    }
    *ret = a->shapes[op];
    return 0;
}

static int stack_of(struct adding *a, uint32_t node, uint32_t *ret)
{
    char text[4096];
    size_t used = 0;
    *ret = 0;
    if (node == PM_NONE)
        return 0;
    if (a->stack_text[node] != PM_NONE) {
        *ret = a->stack_text[node];
        return 0;
    }
    uint32_t up = node;
    for (unsigned k = 0; k < a->keys->by_stack && up != PM_NONE; k++) {
        const struct pm_stack_node *frame = &a->stacks.nodes[up];
        size_t n = pm_intern_len(&a->trace->strings, frame->frame);
        if (used + n + 1 >= sizeof(text))
            break;
        if (used > 0)
            text[used++] = '\n';
        memcpy(text + used, pm_trace_text(a->trace, frame->frame), n);
        used += n;
        up = frame->outer;
    }
    int err = pm_intern_add(&a->keys->strings, text, used, &a->stack_text[node]);
    *ret = a->stack_text[node];
    return err;
}

/* The row of an event; position is PM_NONE for one on a device. */
static int row_of(struct adding *a, uint32_t event, uint32_t position, uint32_t *ret)
{
    enum pm_trace_kind kind = pm_trace_kind_of(a->trace, event);
    uint32_t name = a->trace->events.name[event];
    struct group group = {
        .on_device = pm_kind_on_device(kind),
        .annotation = kind == PM_KIND_ANNOTATION || kind == PM_KIND_GPU_ANNOTATION,
    };
    bool plain = !a->keys->by_shape && a->keys->by_stack == 0;
    uint32_t *known = &a->rows[(size_t)name * 4 + group.on_device * 2u + group.annotation];
    if (plain && *known != PM_NONE) {
        *ret = *known;
        return 0;
    }
    uint32_t op = kind <= PM_KIND_ANNOTATION ? a->trace->events.extra[event] : 0;
    int err = name_of(a, name, &group.name);
    if (err == 0 && a->keys->by_shape)
        err = shapes_of(a, op, &group.shapes);
    if (err == 0 && a->keys->by_stack > 0 && position != PM_NONE)
        err = stack_of(a, a->stacks.of[position], &group.stack);
    if (err == 0)
        err = find_row(a->keys, &group, kind, ret);
    if (err == 0)
        *known = *ret;
    return err;
}

static uint64_t flops_of(struct adding *a, uint32_t event)
{
    uint32_t op = a->trace->events.extra[event], name = a->trace->events.name[event];
    if (op == 0 || a->trace->ops[op].dims == 0)
        return 0;
    if (!a->flops[op].known || a->flops[op].name != name) {
        const struct pm_trace_op *row = &a->trace->ops[op];
        a->flops[op].flops =
            pm_flops(pm_trace_text(a->trace, name), pm_trace_text(a->trace, row->dims),
                     pm_trace_text(a->trace, row->concrete));
        a->flops[op].name = name;
        a->flops[op].known = true;
    }
    return a->flops[op].flops;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool is_cpu_memory(int32_t type)
{
    return type == 0 || type == 4 || type == 5; /* CPU, MKLDNN, IDEEP of c10::DeviceType */
}
static bool is_device_memory(int32_t type)
{
    return type == 1 || type == 6 || type == 12 || type == 20; /* CUDA, HIP, XPU, PrivateUse1 */
}

static int collect_memory(struct adding *a)
{
    const struct pm_trace *trace = a->trace;
    uint32_t n = 0;
    if (trace->n_memory <= 1)
        return 0;
    uint32_t *rows = malloc(trace->n_memory * sizeof(*rows));
    a->memory_ts = malloc(trace->n_memory * sizeof(int64_t));
    a->cpu_sums = malloc(((size_t)trace->n_memory + 1) * sizeof(int64_t));
    a->device_sums = malloc(((size_t)trace->n_memory + 1) * sizeof(int64_t));
    a->child_cpu = calloc((size_t)a->tree->n + 1, sizeof(int64_t));
    a->child_device = calloc((size_t)a->tree->n + 1, sizeof(int64_t));
    a->marks = calloc((size_t)trace->n_memory + 1, sizeof(uint32_t));
    int err = rows == NULL || a->memory_ts == NULL || a->cpu_sums == NULL ||
                      a->device_sums == NULL || a->child_cpu == NULL || a->child_device == NULL ||
                      a->marks == NULL
                  ? -PM_ENOMEM
                  : 0;
    for (uint32_t row = 0; err == 0 && row < trace->events.n && n < trace->n_memory; row++)
        if (pm_trace_kind_of(trace, row) == PM_KIND_MEMORY)
            rows[n++] = row;
    if (err == 0)
        err = pm_trace_sort_rows(trace, rows, n);
    if (err == 0) {
        a->cpu_sums[0] = a->device_sums[0] = 0;
        for (uint32_t i = 0; i < n; i++) {
            const struct pm_trace_memory *memory = &trace->memory[trace->events.extra[rows[i]]];
            a->memory_ts[i] = trace->events.ts_ns[rows[i]];
            int64_t cpu = is_cpu_memory(memory->device_type) ? memory->bytes : 0;
            int64_t device = is_device_memory(memory->device_type) ? memory->bytes : 0;
            a->cpu_sums[i + 1] = a->cpu_sums[i] + cpu;
            a->device_sums[i + 1] = a->device_sums[i] + device;
        }
        a->n_memory = n;
        a->keys->has_memory = a->keys->has_memory || n > 0;
    }
    free(rows);
    return err;
}

/* How many memory events are before ts (or at it, with `also`). */
static uint32_t memory_before(const struct adding *a, int64_t ts, bool also)
{
    uint32_t low = 0, high = a->n_memory;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (a->memory_ts[middle] < ts || (also && a->memory_ts[middle] == ts))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Bytes that were allocated, on any thread, while the event ran: as torch counts them. Children
 * come before their parents here. */
static void add_memory(struct adding *a, uint32_t position, struct pm_key *row)
{
    uint32_t event = a->tree->event[position], parent = a->tree->parent[position];
    uint32_t from = memory_before(a, a->trace->events.ts_ns[event], false);
    uint32_t to = memory_before(a, pm_trace_end_ns(a->trace, event), true);
    int64_t cpu = a->cpu_sums[to] - a->cpu_sums[from];
    int64_t device = a->device_sums[to] - a->device_sums[from];
    row->cpu_bytes += cpu;
    row->device_bytes += device;
    row->self_cpu_bytes += cpu - a->child_cpu[position];
    row->self_device_bytes += device - a->child_device[position];
    if (parent != PM_NONE) {
        a->child_cpu[parent] += cpu;
        a->child_device[parent] += device;
    } else {
        a->marks[from]++;
        a->marks[to]--;
    }
}

/* Memory events outside of every CPU event are rows of their own, and so is running out. */
static int add_loose_memory(struct adding *a)
{
    uint32_t held = 0, row;
    int err = 0;
    struct group group = {0};
    for (uint32_t i = 0; i < a->n_memory && err == 0; i++) {
        held += a->marks[i];
        if (held != 0)
            continue;
        err = pm_intern_add(&a->keys->strings, "[memory]", 8, &group.name);
        if (err == 0 && a->keys->by_shape)
            err = pm_intern_add(&a->keys->strings, "[]", 2, &group.shapes);
        if (err == 0)
            err = find_row(a->keys, &group, PM_KIND_MEMORY, &row);
        if (err != 0)
            break;
        struct pm_key *key = &a->keys->rows[row];
        int64_t cpu = a->cpu_sums[i + 1] - a->cpu_sums[i];
        int64_t device = a->device_sums[i + 1] - a->device_sums[i];
        key->calls++;
        key->cpu_bytes += cpu;
        key->self_cpu_bytes += cpu;
        key->device_bytes += device;
        key->self_device_bytes += device;
        if (a->memory_ts[i] < key->first_ns)
            key->first_ns = a->memory_ts[i];
    }
    for (uint32_t event = 0; event < a->trace->events.n && err == 0; event++) {
        if (pm_trace_kind_of(a->trace, event) != PM_KIND_OOM)
            continue;
        err = row_of(a, event, PM_NONE, &row);
        if (err == 0)
            a->keys->rows[row].calls++;
    }
    return err;
}

/* ---- adding ---------------------------------------------------------------------------------- */

static void note_first(struct pm_key *row, const struct pm_trace *trace, uint32_t event)
{
    if (trace->events.ts_ns[event] < row->first_ns) {
        row->first_ns = trace->events.ts_ns[event];
        row->order = event;
    }
}

static int add_cpu(struct adding *a)
{
    const struct pm_tree *tree = a->tree;
    for (uint32_t at = tree->n; at-- > 0;) {
        uint32_t event = tree->event[at], index;
        if (pm_tree_is_merged(tree, at))
            continue;
        int err = row_of(a, event, at, &index);
        if (err != 0)
            return err;
        struct pm_key *row = &a->keys->rows[index];
        row->calls++;
        row->cpu_ns += a->trace->events.dur_ns[event];
        row->self_cpu_ns += tree->self_ns[at];
        a->keys->total_self_cpu_ns += tree->self_ns[at];
        if (tree->device_ns != NULL) {
            row->device_ns += tree->device_ns[at];
            row->self_device_ns += tree->own_device_ns[at];
        }
        if (pm_trace_kind_of(a->trace, event) <= PM_KIND_CPU_OP) {
            uint64_t flops = flops_of(a, event);
            row->flops += flops;
            a->keys->has_flops = a->keys->has_flops || flops > 0;
        }
        if (a->n_memory > 0)
            add_memory(a, at, row);
        note_first(row, a->trace, event);
    }
    return 0;
}

static int add_device(struct adding *a)
{
    const struct pm_tree *tree = a->tree;
    for (uint32_t k = 0; k < tree->n_device; k++) {
        uint32_t event = tree->device[k], index;
        int err = row_of(a, event, PM_NONE, &index);
        if (err != 0)
            return err;
        struct pm_key *row = &a->keys->rows[index];
        int64_t dur = a->trace->events.dur_ns[event];
        row->calls++;
        row->device_ns += dur;
        row->self_device_ns += dur;
        if (!row->annotation)
            a->keys->total_self_device_ns += dur;
        note_first(row, a->trace, event);
    }
    a->keys->has_device = a->keys->has_device || tree->n_device > 0;
    return 0;
}

static void release(struct adding *a)
{
    void *arrays[] = {a->names,      a->rows,         a->shapes,   a->flops,
                      a->stack_text, a->memory_ts,    a->cpu_sums, a->device_sums,
                      a->child_cpu,  a->child_device, a->marks};
    for (size_t k = 0; k < sizeof(arrays) / sizeof(arrays[0]); k++)
        free(arrays[k]);
    pm_stacks_release(&a->stacks);
}

int pm_keys_add(struct pm_keys *keys, const struct pm_tree *tree)
{
    struct adding a = {.keys = keys, .tree = tree, .trace = tree->trace};
    int err = 0;
    if (keys->by_stack > 0) {
        err = pm_stacks_build(&a.stacks, tree, false);
        if (err != 0)
            return err;
        a.stack_text = filled(a.stacks.n);
    }
    a.names = filled(a.trace->strings.n);
    a.rows = filled((size_t)a.trace->strings.n * 4);
    a.shapes = filled(a.trace->n_ops);
    a.flops = calloc(a.trace->n_ops, sizeof(*a.flops));
    if (a.names == NULL || a.rows == NULL || a.shapes == NULL || a.flops == NULL ||
        (keys->by_stack > 0 && a.stack_text == NULL))
        err = -PM_ENOMEM;
    if (err == 0)
        err = collect_memory(&a);
    if (err == 0)
        err = add_cpu(&a);
    if (err == 0)
        err = add_device(&a);
    if (err == 0)
        err = add_loose_memory(&a);
    for (uint32_t i = 0; i < keys->n; i++)
        keys->has_device_memory = keys->has_device_memory || keys->rows[i].self_device_bytes != 0;
    release(&a);
    return err;
}
