/*
 * Timelines (see lanes.h). One thread.
 */
#include "trace/lanes.h"

#include <stdlib.h>
#include <string.h>

#include "trace/gpu.h"

#define FIRST_GRAIN_NS 128

/* A block that still takes events, per row of a track. */
struct block {
    struct pm_lane_slice slice;
    int64_t longest_ns;
    int64_t class_ns[PM_CLASSES_MAX];
};

struct laying {
    struct pm_lanes *lanes;
    const struct pm_trace *trace;
    const struct pm_classes *classes;
    uint32_t *rows;    /* of the trace, by track, then start */
    uint32_t *begin;   /* per track: its first entry of rows; one more at the end */
    uint8_t *depth;    /* per entry of rows */
    uint8_t *class_of; /* per string: class + 1, 0 while unknown */
    struct block *blocks;
    size_t n_slices, most; /* counted or written; where counting stops */
    bool write;
};

static bool is_drawn(enum pm_trace_kind kind)
{
    return pm_kind_on_cpu(kind) || pm_kind_on_device(kind);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static int sort_by_track(struct laying *l)
{
    const struct pm_trace *trace = l->trace;
    const uint32_t n = trace->events.n, tracks = trace->n_tracks;
    l->rows = malloc(((size_t)n + 1) * sizeof(*l->rows));
    l->begin = calloc((size_t)tracks + 2, sizeof(*l->begin));
    l->depth = malloc((size_t)n + 1);
    if (l->rows == NULL || l->begin == NULL || l->depth == NULL)
        return -PM_ENOMEM;
    for (uint32_t row = 0; row < n; row++)
        l->begin[pm_trace_track_of(trace, row) + 1] += is_drawn(pm_trace_kind_of(trace, row));
    for (uint32_t t = 0; t < tracks; t++)
        l->begin[t + 1] += l->begin[t];
    /* Filled from each track's begin on, which moves to its end, and is put back. */
    for (uint32_t row = 0; row < n; row++)
        if (is_drawn(pm_trace_kind_of(trace, row)))
            l->rows[l->begin[pm_trace_track_of(trace, row)]++] = row;
    memmove(l->begin + 1, l->begin, tracks * sizeof(*l->begin));
    l->begin[0] = 0;
    for (uint32_t t = 0; t < tracks; t++) {
        int err = pm_trace_sort_rows(trace, l->rows + l->begin[t], l->begin[t + 1] - l->begin[t]);
        if (err != 0)
            return err;
    }
    return 0;
}

/* In which row each event of a track lies: below all that have not ended. */
static void find_depths(struct laying *l, struct pm_lane *lane)
{
    int64_t ends[PM_LANES_DEPTH_MAX];
    for (uint32_t k = l->begin[lane->track]; k < l->begin[lane->track + 1]; k++) {
        const uint32_t row = l->rows[k];
        const int64_t begin = l->trace->events.ts_ns[row];
        unsigned depth = 0; /* behind the deepest that still runs */
        for (unsigned d = lane->depth; d > 0 && depth == 0; d--)
            if (ends[d - 1] > begin)
                depth = d;
        if (depth == PM_LANES_DEPTH_MAX) {
            l->depth[k] = UINT8_MAX;
            lane->too_deep++;
            continue;
        }
        l->depth[k] = (uint8_t)depth;
        ends[depth] = pm_trace_end_ns(l->trace, row);
        for (unsigned d = depth + 1; d < lane->depth; d++)
            ends[d] = INT64_MIN;
        if (depth + 1 > lane->depth)
            lane->depth = depth + 1;
    }
}

static int by_events(const void *a, const void *b)
{
    const struct pm_lane *x = a, *y = b;
    if (x->device != y->device)
        return x->device ? -1 : 1;
    if (x->device && x->device_id != y->device_id)
        return x->device_id < y->device_id ? -1 : 1;
    if (x->events != y->events)
        return x->events > y->events ? -1 : 1;
    return x->track < y->track ? -1 : x->track > y->track;
}

static int by_most(const void *a, const void *b)
{
    const struct pm_lane *x = a, *y = b;
    if (x->events != y->events)
        return x->events > y->events ? -1 : 1;
    return x->track < y->track ? -1 : x->track > y->track;
}

static int find_lanes(struct laying *l)
{
    struct pm_lanes *lanes = l->lanes;
    const struct pm_trace *trace = l->trace;
    lanes->lanes = calloc((size_t)trace->n_tracks + 1, sizeof(*lanes->lanes));
    if (lanes->lanes == NULL)
        return -PM_ENOMEM;
    for (uint32_t t = 0; t < trace->n_tracks; t++) {
        const uint32_t n = l->begin[t + 1] - l->begin[t];
        if (n == 0)
            continue;
        const uint32_t row = l->rows[l->begin[t]];
        struct pm_lane *lane = &lanes->lanes[lanes->n++];
        *lane = (struct pm_lane){.track = t, .events = n};
        lane->device = pm_kind_on_device(pm_trace_kind_of(trace, row));
        if (!lane->device)
            continue;
        const uint32_t stream = trace->work[trace->events.extra[row]].stream;
        lane->device_id = pm_gpu_device_of(trace, row);
        lane->has_stream = stream != 0;
        lane->stream = pm_trace_id_value(trace, stream);
    }
    qsort(lanes->lanes, lanes->n, sizeof(*lanes->lanes), by_most);
    if (lanes->n > PM_LANES_TRACKS_MAX) {
        lanes->left_out = lanes->n - PM_LANES_TRACKS_MAX;
        lanes->n = PM_LANES_TRACKS_MAX;
    }
    qsort(lanes->lanes, lanes->n, sizeof(*lanes->lanes), by_events);
    for (uint32_t i = 0; i < lanes->n; i++)
        find_depths(l, &lanes->lanes[i]);
    return 0;
}

/* ---- slices ---------------------------------------------------------------------------------- */

static unsigned class_of(struct laying *l, uint32_t row)
{
    const enum pm_trace_kind kind = pm_trace_kind_of(l->trace, row);
    const uint32_t name = l->trace->events.name[row];
    if (!pm_kind_is_work(kind))
        return PM_CLASS_OTHER;
    if (kind != PM_KIND_KERNEL)
        return PM_CLASS_COPY;
    if (l->class_of[name] == 0)
        l->class_of[name] =
            (uint8_t)(pm_classes_find(l->classes, pm_trace_text(l->trace, name)) + 1);
    return l->class_of[name] - 1u;
}

static bool is_whole(const struct pm_lanes *lanes, int64_t at_ns)
{
    return at_ns >= lanes->whole_from_ns && at_ns < lanes->whole_to_ns;
}

/* Halves the stretch until its events are few enough. */
static void find_whole(struct laying *l, int64_t from_ns, int64_t to_ns)
{
    const struct pm_trace_events *events = &l->trace->events;
    l->lanes->whole_from_ns = from_ns;
    l->lanes->whole_to_ns = to_ns;
    for (size_t n = l->most; n > l->most / 3 && l->lanes->whole_to_ns > from_ns;) {
        n = 0;
        for (uint32_t row = 0; row < events->n; row++)
            n += is_whole(l->lanes, events->ts_ns[row]);
        if (n > l->most / 3)
            l->lanes->whole_to_ns = from_ns + (l->lanes->whole_to_ns - from_ns) / 2;
    }
}

static void emit(struct laying *l, const struct pm_lane_slice *slice)
{
    if (l->write)
        l->lanes->slices[l->n_slices] = *slice;
    l->n_slices++;
}

static void close_block(struct laying *l, struct block *block)
{
    if (block->slice.events == 0)
        return;
    for (unsigned c = 0; c < l->classes->n; c++)
        if (block->class_ns[c] > block->class_ns[block->slice.class])
            block->slice.class = (uint8_t)c;
    emit(l, &block->slice);
    block->slice.events = 0;
}

static void add_to_block(struct laying *l, struct block *block, const struct pm_lane_slice *slice)
{
    const int64_t end = slice->ts_ns + slice->dur_ns;
    struct pm_lane_slice *whole = &block->slice;
    if (whole->events > 0 && end - whole->ts_ns > l->lanes->grain_ns)
        close_block(l, block);
    if (whole->events == 0) {
        *block = (struct block){.slice = *slice, .longest_ns = slice->dur_ns};
    } else {
        if (slice->dur_ns > block->longest_ns) {
            block->longest_ns = slice->dur_ns;
            whole->name = slice->name;
            whole->kind = slice->kind;
        }
        whole->events++;
        whole->busy_ns += slice->dur_ns;
        if (end > whole->ts_ns + whole->dur_ns)
            whole->dur_ns = end - whole->ts_ns;
    }
    block->class_ns[slice->class] += slice->dur_ns;
}

static void lay(struct laying *l, const struct pm_lane *lane)
{
    const struct pm_trace_events *events = &l->trace->events;
    const uint32_t end = l->begin[lane->track + 1];
    for (uint32_t k = l->begin[lane->track]; k < end && l->n_slices <= l->most; k++) {
        const uint32_t row = l->rows[k];
        if (l->depth[k] == UINT8_MAX)
            continue;
        const struct pm_lane_slice slice = {
            .ts_ns = events->ts_ns[row],
            .dur_ns = events->dur_ns[row],
            .busy_ns = events->dur_ns[row],
            .name = events->name[row],
            .events = 1,
            .depth = l->depth[k],
            .kind = (uint8_t)pm_trace_kind_of(l->trace, row),
            .class = lane->device ? (uint8_t)class_of(l, row) : (uint8_t)PM_CLASS_OTHER,
        };
        if (slice.dur_ns < l->lanes->grain_ns && !is_whole(l->lanes, slice.ts_ns)) {
            add_to_block(l, &l->blocks[slice.depth], &slice);
        } else {
            close_block(l, &l->blocks[slice.depth]);
            emit(l, &slice);
        }
    }
    for (unsigned d = 0; d < lane->depth; d++)
        close_block(l, &l->blocks[d]);
}

/* Counts the slices of a grain, up to one too many, or writes them. */
static void lay_all(struct laying *l)
{
    l->n_slices = 0;
    for (uint32_t i = 0; i < l->lanes->n; i++) {
        struct pm_lane *lane = &l->lanes->lanes[i];
        lane->first = (uint32_t)l->n_slices;
        lay(l, lane);
        lane->n = (uint32_t)(l->n_slices - lane->first);
    }
}

int pm_lanes_build(struct pm_lanes *lanes, const struct pm_trace *trace,
                   const struct pm_classes *classes, size_t most, int64_t from_ns, int64_t to_ns)
{
    struct laying l = {.lanes = lanes, .trace = trace, .classes = classes, .most = most};
    *lanes = (struct pm_lanes){0};
    l.class_of = calloc((size_t)trace->strings.n + 1, 1);
    l.blocks = calloc(PM_LANES_DEPTH_MAX, sizeof(*l.blocks));
    int err = l.class_of == NULL || l.blocks == NULL ? -PM_ENOMEM : sort_by_track(&l);
    if (err == 0)
        err = find_lanes(&l);
    if (err == 0) {
        find_whole(&l, from_ns, to_ns);
        for (lay_all(&l); l.n_slices > most && lanes->grain_ns < PM_TRACE_MAX_NS / 2; lay_all(&l))
            lanes->grain_ns = lanes->grain_ns == 0 ? FIRST_GRAIN_NS : lanes->grain_ns * 2;
        l.most = SIZE_MAX;
        lay_all(&l);
        lanes->slices = calloc(l.n_slices + 1, sizeof(*lanes->slices));
        err = lanes->slices == NULL ? -PM_ENOMEM : 0;
    }
    if (err == 0) {
        l.write = true;
        lay_all(&l);
        lanes->n_slices = l.n_slices;
    }
    free(l.rows);
    free(l.begin);
    free(l.depth);
    free(l.class_of);
    free(l.blocks);
    if (err != 0)
        pm_lanes_release(lanes);
    return err;
}

void pm_lanes_release(struct pm_lanes *lanes)
{
    free(lanes->lanes);
    free(lanes->slices);
    *lanes = (struct pm_lanes){0};
}
