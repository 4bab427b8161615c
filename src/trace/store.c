/*
 * Events into the columns of a trace (see parse.h). One thread.
 */
#include "trace/parse.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_EVENTS 4096u

static const uint8_t *bytes_of(const struct pm_parse *parse, struct pm_span span)
{
    return parse->text + span.at;
}

int pm_store_string(struct pm_parse *parse, struct pm_span span, uint32_t *ret)
{
    const uint8_t *bytes = bytes_of(parse, span);
    size_t n = span.len;
    if (parse->scan.backslash && memchr(bytes, '\\', n) != NULL) {
        if (n > parse->scratch_size) {
            uint8_t *scratch = realloc(parse->scratch, n * 2);
            if (scratch == NULL)
                return -PM_ENOMEM;
            parse->scratch = scratch;
            parse->scratch_size = n * 2;
        }
        n = pm_value_unescape(bytes, n, parse->scratch);
        bytes = parse->scratch;
    }
    return pm_intern_add(&parse->trace->strings, bytes, n, ret);
}

/* ---- kinds ----------------------------------------------------------------------------------- */

/* Also the names of the first Kineto (torch 1.8): Operator, Runtime, Kernel, Memcpy, Memset. */
static const struct {
    const char *cat;
    enum pm_trace_kind kind;
} kinds[] = {
    {"cpu_op", PM_KIND_CPU_OP},
    {"python_function", PM_KIND_PYTHON},
    {"kernel", PM_KIND_KERNEL},
    {"cuda_runtime", PM_KIND_RUNTIME},
    {"user_annotation", PM_KIND_ANNOTATION},
    {"gpu_user_annotation", PM_KIND_GPU_ANNOTATION},
    {"gpu_memcpy", PM_KIND_MEMCPY},
    {"gpu_memset", PM_KIND_MEMSET},
    {"cuda_driver", PM_KIND_RUNTIME},
    {"cuda_sync", PM_KIND_SYNC},
    {"overhead", PM_KIND_OVERHEAD},
    {"Trace", PM_KIND_SPAN},
    {"xpu_runtime", PM_KIND_RUNTIME},
    {"xpu_driver", PM_KIND_RUNTIME},
    {"mtia_runtime", PM_KIND_RUNTIME},
    {"glow_runtime", PM_KIND_RUNTIME},
    {"privateuse1_runtime", PM_KIND_RUNTIME},
    {"privateuse1_driver", PM_KIND_RUNTIME},
    {"mtia_ccp_events", PM_KIND_DEVICE_OTHER},
    {"mtia_workloadd", PM_KIND_DEVICE_OTHER},
    {"mtia_insight", PM_KIND_DEVICE_OTHER},
    {"hpu_op", PM_KIND_DEVICE_OTHER},
    {"cuda_profiler_range", PM_KIND_DEVICE_OTHER},
    {"collective_comm", PM_KIND_DEVICE_OTHER},
    {"Operator", PM_KIND_CPU_OP},
    {"Runtime", PM_KIND_RUNTIME},
    {"Kernel", PM_KIND_KERNEL},
    {"Memcpy", PM_KIND_MEMCPY},
    {"Memset", PM_KIND_MEMSET},
    {"Python function", PM_KIND_PYTHON},
};

const char *pm_kind_name(enum pm_trace_kind kind)
{
    static const char *const names[PM_KINDS] = {
        "other",
        "cpu_op",
        "user_annotation",
        "python_function",
        "runtime",
        "overhead",
        "kernel",
        "gpu_memcpy",
        "gpu_memset",
        "cuda_sync",
        "gpu_user_annotation",
        "device_other",
        "memory",
        "out_of_memory",
        "span",
    };
    return names[kind];
}

/* A short string whose escapes, if there are any, are taken out into room. */
static const uint8_t *plain(const struct pm_parse *parse, struct pm_span *span, uint8_t room[256])
{
    const uint8_t *bytes = bytes_of(parse, *span);
    if (!parse->scan.backslash || span->len > 256 || memchr(bytes, '\\', span->len) == NULL)
        return bytes;
    span->len = (uint32_t)pm_value_unescape(bytes, span->len, room);
    return room;
}

static enum pm_trace_kind find_kind(const struct pm_parse *parse, struct pm_event *event)
{
    uint8_t room[256];
    if ((event->has & PM_HAS_CAT) == 0)
        return PM_KIND_CPU_OP;
    const uint8_t *cat = plain(parse, &event->cat, room);
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
        if (cat[0] == (uint8_t)kinds[k].cat[0] && strlen(kinds[k].cat) == event->cat.len &&
            memcmp(cat, kinds[k].cat, event->cat.len) == 0)
            return kinds[k].kind;
    return PM_KIND_OTHER;
}

/* ---- ids ------------------------------------------------------------------------------------- */

#define WIDE 0x80000000u

static int make_id(struct pm_trace *trace, uint64_t value, uint32_t *ret)
{
    if (value < WIDE - 2) {
        *ret = (uint32_t)value + 1;
        return 0;
    }
    uint32_t row;
    int err = pm_intern_add(&trace->wide, &value, sizeof(value), &row);
    *ret = WIDE | row;
    return err;
}

uint64_t pm_trace_id_value(const struct pm_trace *trace, uint32_t id)
{
    if (id < WIDE)
        return id == 0 ? 0 : id - 1;
    uint64_t value;
    memcpy(&value, pm_intern_text(&trace->wide, id & ~WIDE), sizeof(value));
    return value;
}

/* ---- tracks ---------------------------------------------------------------------------------- */

static int add_track(struct pm_parse *parse, const struct pm_event *event, uint32_t row)
{
    struct pm_trace *trace = parse->trace;
    struct pm_trace_track track = {0};
    int err = 0;
    if (row >= PM_TRACE_MAX_TRACKS)
        return -PM_ELIMIT;
    if (row == trace->room_tracks) {
        uint32_t room = trace->room_tracks == 0 ? 64 : trace->room_tracks * 2;
        struct pm_trace_track *tracks = realloc(trace->tracks, room * sizeof(*tracks));
        if (tracks == NULL)
            return -PM_ENOMEM;
        trace->tracks = tracks;
        trace->room_tracks = room;
    }
    struct pm_span pid = event->pid, tid = event->tid;
    if ((event->has & PM_HAS_PID) != 0) {
        if (*bytes_of(parse, pid) == '"')
            pid = (struct pm_span){pid.at + 1, pid.len - 2};
        err = pm_store_string(parse, pid, &track.pid);
    }
    if (err == 0 && (event->has & PM_HAS_TID) != 0) {
        if (*bytes_of(parse, tid) == '"')
            tid = (struct pm_span){tid.at + 1, tid.len - 2};
        err = pm_store_string(parse, tid, &track.tid);
    }
    trace->tracks[row] = track;
    trace->n_tracks = row + 1;
    return err;
}

/* The track of the event's pid and tid. The last one is remembered: neighbours share it. */
static int find_track(struct pm_parse *parse, const struct pm_event *event, uint32_t *ret)
{
    char key[sizeof(parse->last_key)], *buffer = key;
    uint32_t n_pid = (event->has & PM_HAS_PID) != 0 ? event->pid.len : 0;
    uint32_t n_tid = (event->has & PM_HAS_TID) != 0 ? event->tid.len : 0;
    size_t n = (size_t)n_pid + 1 + n_tid;
    if (n_pid == parse->last_pid.len && n_tid == parse->last_tid.len && n <= sizeof(key) &&
        memcmp(parse->last_key, bytes_of(parse, event->pid), n_pid) == 0 &&
        memcmp(parse->last_key + n_pid + 1, bytes_of(parse, event->tid), n_tid) == 0) {
        *ret = parse->last_track;
        return 0;
    }
    if (n > sizeof(key)) {
        buffer = malloc(n);
        if (buffer == NULL)
            return -PM_ENOMEM;
    }
    if (n_pid > 0)
        memcpy(buffer, bytes_of(parse, event->pid), n_pid);
    buffer[n_pid] = '\0';
    if (n_tid > 0)
        memcpy(buffer + n_pid + 1, bytes_of(parse, event->tid), n_tid);
    uint32_t row;
    int err = pm_intern_add(&parse->trace->raw, buffer, n, &row);
    row -= 1; /* string 0 is the empty one */
    if (err == 0 && row >= parse->trace->n_tracks)
        err = add_track(parse, event, row);
    if (err == 0 && buffer == key) {
        memcpy(parse->last_key, key, n);
        parse->last_pid.len = n_pid;
        parse->last_tid.len = n_tid;
        parse->last_track = row;
    }
    if (buffer != key)
        free(buffer);
    *ret = row;
    return err;
}

/* ---- the rows behind `extra` ----------------------------------------------------------------- */

/* Doubles an array of records that is full. */
static int grow(void **array, uint32_t n, uint32_t *room, size_t size)
{
    if (n < *room)
        return 0;
    uint32_t more = *room == 0 ? 256 : *room * 2;
    void *bigger = more > *room ? realloc(*array, more * size) : NULL;
    if (bigger == NULL)
        return -PM_ENOMEM;
    *array = bigger;
    *room = more;
    return 0;
}

static uint32_t op_hash(const struct pm_trace_op *op)
{
    uint64_t h = op->dims * 0x9E3779B97F4A7C15ull ^ op->stack * 0xC2B2AE3D27D4EB4Full ^
                 op->concrete * 0x165667B19E3779F9ull;
    return (uint32_t)(h >> 32 ^ h);
}

static int grow_ops(struct pm_trace *trace)
{
    uint32_t mask = trace->op_mask == 0 ? 255 : trace->op_mask * 2 + 1;
    uint32_t *table = calloc((size_t)mask + 1, sizeof(*table));
    if (table == NULL)
        return -PM_ENOMEM;
    for (uint32_t row = 0; row < trace->n_ops; row++) {
        uint32_t slot = op_hash(&trace->ops[row]) & mask;
        while (table[slot] != 0)
            slot = (slot + 1) & mask;
        table[slot] = row + 1;
    }
    free(trace->op_table);
    trace->op_table = table;
    trace->op_mask = mask;
    return 0;
}

static int find_op(struct pm_trace *trace, const struct pm_trace_op *op, uint32_t *ret)
{
    int err = 0;
    if (trace->n_ops * 2ull >= trace->op_mask)
        err = grow_ops(trace);
    if (err == 0)
        err = grow((void **)&trace->ops, trace->n_ops, &trace->room_ops, sizeof(*op));
    if (err != 0)
        return err;
    uint32_t slot = op_hash(op) & trace->op_mask;
    for (; trace->op_table[slot] != 0; slot = (slot + 1) & trace->op_mask) {
        const struct pm_trace_op *row = &trace->ops[trace->op_table[slot] - 1];
        if (row->dims == op->dims && row->stack == op->stack && row->concrete == op->concrete) {
            *ret = trace->op_table[slot] - 1;
            return 0;
        }
    }
    trace->ops[trace->n_ops] = *op;
    *ret = trace->n_ops++;
    trace->op_table[slot] = trace->n_ops;
    return 0;
}

static int store_op(struct pm_parse *parse, const struct pm_event *event, uint32_t *ret)
{
    struct pm_trace_op op = {0, 0, 0};
    int err = 0;
    if ((event->has & PM_HAS_DIMS) != 0)
        err = pm_intern_add(&parse->trace->strings, bytes_of(parse, event->dims), event->dims.len,
                            &op.dims);
    if (err == 0 && (event->has & PM_HAS_STACK) != 0 && event->stack.len > 0)
        err = pm_store_string(parse, event->stack, &op.stack);
    if (err == 0 && (event->has & PM_HAS_CONCRETE) != 0 && event->name.len == 12 &&
        memcmp(bytes_of(parse, event->name), "aten::conv2d", 12) == 0)
        err = pm_store_string(parse, event->concrete, &op.concrete);
    if (err == 0 && (op.dims | op.stack | op.concrete) != 0)
        err = find_op(parse->trace, &op, ret);
    return err;
}

/* The product of the numbers in "[8, 1, 1]". */
static uint32_t product(const struct pm_parse *parse, struct pm_span span)
{
    uint64_t value = 1, odd = 0;
    const uint8_t *p = bytes_of(parse, span), *end = p + span.len;
    while (p < end) {
        int64_t number;
        const uint8_t *behind = pm_value_int(p, &number, &odd);
        if (behind == NULL) {
            p++;
            continue;
        }
        value *= number > 0 && number < UINT32_MAX ? (uint64_t)number : 1;
        if (value > UINT32_MAX)
            return UINT32_MAX;
        p = behind;
    }
    return (uint32_t)value;
}

static int store_work(struct pm_parse *parse, const struct pm_event *event, uint32_t *ret)
{
    struct pm_trace *trace = parse->trace;
    uint32_t has = event->has;
    struct pm_trace_work work = {.device = -1, .occupancy_pct = -1};
    int err = grow((void **)&trace->work, trace->n_work, &trace->room_work, sizeof(work));
    if (err == 0 && (has & PM_HAS_STREAM) != 0)
        err = make_id(trace, event->stream_id, &work.stream);
    if (err == 0 && (has & PM_HAS_COLLECTIVE) != 0)
        err = pm_store_string(parse, event->collective, &work.collective);
    if (err != 0)
        return err;
    if ((has & PM_HAS_BYTES) != 0 && event->bytes > 0)
        work.bytes = (uint64_t)event->bytes;
    if ((has & PM_HAS_DEVICE) != 0 && event->device >= 0 && event->device <= INT32_MAX)
        work.device = (int32_t)event->device;
    if ((has & PM_HAS_GRID) != 0)
        work.blocks = product(parse, event->grid);
    if ((has & PM_HAS_BLOCK) != 0)
        work.threads = product(parse, event->block);
    if ((has & PM_HAS_GRAPH_NODE) != 0 && event->graph_node <= UINT32_MAX)
        work.graph_node = (uint32_t)event->graph_node;
    if ((has & PM_HAS_OCCUPANCY) != 0)
        work.occupancy_pct = (float)event->occupancy;
    trace->work[trace->n_work] = work;
    *ret = trace->n_work++;
    return 0;
}

static int store_memory(struct pm_trace *trace, const struct pm_event *event, uint32_t *ret)
{
    uint32_t has = event->has;
    int err =
        grow((void **)&trace->memory, trace->n_memory, &trace->room_memory, sizeof(*trace->memory));
    if (err != 0)
        return err;
    trace->memory[trace->n_memory] = (struct pm_trace_memory){
        .bytes = (has & PM_HAS_BYTES) != 0 ? event->bytes : 0,
        .allocated = (has & PM_HAS_ALLOCATED) != 0 ? event->allocated : 0,
        .device_type = (has & PM_HAS_DEVICE_TYPE) != 0 ? (int32_t)event->device_type : -1,
        .device = (has & PM_HAS_DEVICE_ID) != 0 ? (int32_t)event->device_id : -1,
    };
    *ret = trace->n_memory++;
    return 0;
}

/* ---- events ---------------------------------------------------------------------------------- */

static int grow_events(struct pm_parse *parse)
{
    struct pm_trace_events *events = &parse->trace->events;
    size_t room = events->room == 0 ? FIRST_EVENTS : (size_t)events->room + events->room / 2;
    if (room >= UINT32_MAX / 2)
        return -PM_ELIMIT;
    int64_t **times[] = {&events->ts_ns, &events->dur_ns};
    uint32_t **words[] = {&events->name, &events->where, &events->ext,
                          &events->link, &events->extra, &events->ordinal};
    for (size_t k = 0; k < 2; k++) {
        int64_t *column = realloc(*times[k], room * sizeof(*column));
        if (column == NULL)
            return -PM_ENOMEM;
        *times[k] = column;
    }
    for (size_t k = 0; k < 6; k++) {
        if (words[k] == &events->ordinal && parse->arg == NULL)
            continue;
        uint32_t *column = realloc(*words[k], room * sizeof(*column));
        if (column == NULL)
            return -PM_ENOMEM;
        *words[k] = column;
    }
    events->room = (uint32_t)room;
    return 0;
}

/* process_name, thread_name, process_labels. */
static int store_metadata(struct pm_parse *parse, const struct pm_event *event)
{
    const uint8_t *name = bytes_of(parse, event->name);
    uint32_t track, label;
    size_t offset;
    if ((event->has & PM_HAS_LABEL) == 0 || (event->has & PM_HAS_NAME) == 0)
        return 0;
    if (event->name.len == 11 && memcmp(name, "thread_name", 11) == 0)
        offset = offsetof(struct pm_trace_track, name);
    else if (event->name.len == 12 && memcmp(name, "process_name", 12) == 0)
        offset = offsetof(struct pm_trace_track, process);
    else if (event->name.len == 14 && memcmp(name, "process_labels", 14) == 0)
        offset = offsetof(struct pm_trace_track, labels);
    else
        return 0;
    int err = find_track(parse, event, &track);
    if (err == 0)
        err = pm_store_string(parse, event->label, &label);
    if (err == 0)
        memcpy((char *)&parse->trace->tracks[track] + offset, &label, sizeof(label));
    return err;
}

static int store_row(struct pm_parse *parse, const struct pm_event *event, enum pm_trace_kind kind)
{
    struct pm_trace *trace = parse->trace;
    struct pm_trace_events *events = &trace->events;
    uint32_t name, track, ext = 0, link = 0, extra = 0, has = event->has;
    int err = events->n == events->room ? grow_events(parse) : 0;
    if (err == 0)
        err = pm_store_string(parse, event->name, &name);
    if (err == 0)
        err = find_track(parse, event, &track);
    if (err == 0 && (has & PM_HAS_EXT) != 0)
        err = make_id(trace, event->ext, &ext);
    if (err != 0)
        return err;
    if (kind == PM_KIND_MEMORY || kind == PM_KIND_OOM) {
        err = store_memory(trace, event, &extra);
    } else if (pm_kind_on_device(kind) || kind == PM_KIND_RUNTIME) {
        if ((has & PM_HAS_CORR) != 0)
            err = make_id(trace, event->corr, &link);
        if (err == 0 && (pm_kind_on_device(kind) || (has & PM_HAS_BYTES) != 0))
            err = store_work(parse, event, &extra);
    } else if (kind != PM_KIND_PYTHON) {
        if ((has & PM_HAS_SEQ) != 0)
            link = (uint32_t)((event->seq + 1) & ~PM_TRACE_BACKWARD);
        if ((has & PM_HAS_FWD) != 0 && event->fwd != 0)
            link |= PM_TRACE_BACKWARD;
        if ((has & (PM_HAS_DIMS | PM_HAS_STACK | PM_HAS_CONCRETE)) != 0)
            err = store_op(parse, event, &extra);
    }
    if (err != 0)
        return err;
    uint32_t row = events->n++;
    events->ts_ns[row] = event->ts_ns;
    int64_t dur = (has & PM_HAS_DUR) != 0 && event->dur_ns > 0 ? event->dur_ns : 0;
    events->dur_ns[row] = dur < PM_TRACE_MAX_NS / 2 ? dur : PM_TRACE_MAX_NS / 2;
    events->name[row] = name;
    events->where[row] = (uint32_t)kind << PM_TRACE_TRACK_BITS | track;
    events->ext[row] = ext;
    events->link[row] = link;
    events->extra[row] = extra;
    if (events->ordinal != NULL)
        events->ordinal[row] = (uint32_t)trace->all_events;
    trace->counted[kind]++;
    return 0;
}

int pm_store_event(struct pm_parse *parse, struct pm_event *event)
{
    struct pm_trace *trace = parse->trace;
    uint8_t ph = 0, room[256];
    enum pm_trace_kind kind;
    if ((event->has & PM_HAS_PH) != 0) {
        const uint8_t *bytes = plain(parse, &event->ph, room);
        ph = event->ph.len == 1 ? *bytes : 0;
    }
    if (ph == 's' || ph == 't' || ph == 'f') {
        trace->flow_events++;
        return 0;
    }
    if (ph == 'M')
        return store_metadata(parse, event);
    if (ph == 'X') {
        kind = find_kind(parse, event);
    } else if (ph == 'i' && (event->has & PM_HAS_NAME) != 0) {
        const uint8_t *name = bytes_of(parse, event->name);
        if (event->name.len == 8 && memcmp(name, "[memory]", 8) == 0)
            kind = PM_KIND_MEMORY;
        else if (event->name.len == 13 && memcmp(name, "[OutOfMemory]", 13) == 0)
            kind = PM_KIND_OOM;
        else
            return 0;
    } else {
        return 0;
    }
    if ((event->has & (PM_HAS_NAME | PM_HAS_TS)) != (PM_HAS_NAME | PM_HAS_TS)) {
        trace->incomplete++;
        return 0;
    }
    return store_row(parse, event, kind);
}
