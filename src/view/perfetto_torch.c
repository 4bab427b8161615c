/*
 * A torch trace as Perfetto packets (perfetto_torch.h): a track per thread and stream, beneath the
 * process of the session that wrote it. A packet sequence of its own, so that its names have
 * numbers of their own: those of the trace's strings.
 */
#include "view/perfetto_torch.h"

#include <inttypes.h>
#include <stdlib.h>

#include "trace/tree.h"
#include "view/outfile.h"
#include "view/perfetto_packet.h"
#include "view/timeline.h"

#define NEAR_NS 10000000000 /* a session's last moment is that of its last record */
#define ANNOTATIONS                                                                                \
    8u              /* the first lane of annotations: Python calls around their begin cross them */
#define LANES 16u   /* of a track, for what overlaps without nesting */
#define DEPTH 1024u /* of a lane */
#define ROUNDING 1000 /* ns that an inner event may end after its outer one: it is cut there */

struct lane {
    uint64_t id;
    uint32_t depth;
    int64_t *ends; /* of the slices that are open, the innermost last; NULL: no such lane yet */
};

struct track {
    struct lane lanes[LANES];
};

struct placing {
    const struct pm_session *session;
    const struct pm_trace *trace;
    struct pm_packets packets;
    struct track *tracks; /* of the trace's, by number */
    uint64_t *processes;  /* by string of the pid: the track's id; 0: not told */
    uint8_t *named;       /* by string: its number has been told */
    int64_t offset_ns;    /* added to a time of the trace: CLOCK_MONOTONIC */
};

/* ---- whose it is ---- */

static const struct pm_process *process_of(const struct pm_session *session, const char *pid)
{
    char *end;
    const unsigned long number = strtoul(pid, &end, 10);
    for (size_t i = 0; *end == '\0' && i < pm_session_process_count(session); i++) {
        const struct pm_process *process = pm_session_process(session, i);
        if (pm_process_info(process)->pid == number && number != 0)
            return process;
    }
    return NULL;
}

/* The clocks of the process that wrote the trace, read as its record file was opened, else those of
 * the session. */
static void set_clock(struct placing *p, struct pm_torch_placed *ret)
{
    const struct pm_session_info *info = pm_session_info(p->session);
    uint64_t mono_ns = info->start_mono_ns, real_ns = info->start_real_ns;
    for (uint32_t i = 0; i < p->trace->n_tracks && !ret->same_process; i++) {
        const struct pm_process *process =
            process_of(p->session, pm_trace_text(p->trace, p->trace->tracks[i].pid));
        if (process == NULL)
            continue;
        ret->same_process = true;
        if (pm_process_info(process)->opened_real_ns != 0) {
            mono_ns = pm_process_info(process)->opened_mono_ns;
            real_ns = pm_process_info(process)->opened_real_ns;
        }
    }
    p->offset_ns = (int64_t)((uint64_t)p->trace->base_ns + mono_ns - real_ns);
}

static bool is_placed(const struct pm_trace *trace, uint32_t row)
{
    const enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
    return kind < PM_KIND_MEMORY;
}

/* Begin and end of its events in the session's clock; false: it has none. */
static bool span_of(const struct placing *p, int64_t *ret_begin, int64_t *ret_end)
{
    const struct pm_trace_events *events = &p->trace->events;
    bool any = false;
    for (uint32_t row = 0; row < events->n; row++) {
        int64_t begin, end;
        if (!is_placed(p->trace, row) ||
            __builtin_add_overflow(events->ts_ns[row], p->offset_ns, &begin) ||
            __builtin_add_overflow(begin, events->dur_ns[row], &end))
            continue;
        *ret_begin = any && *ret_begin < begin ? *ret_begin : begin;
        *ret_end = any && *ret_end > end ? *ret_end : end;
        any = true;
    }
    return any;
}

static int check_time(const struct placing *p, struct pm_torch_placed *ret, struct pm_error *err)
{
    const int64_t start_ns = (int64_t)pm_session_info(p->session)->start_mono_ns;
    struct pm_sums sums;
    int64_t begin, end;
    if (!span_of(p, &begin, &end))
        return pm_error_set(err, -PM_EINVALID, "%.300s holds no events with a time",
                            p->trace->path);
    pm_session_sums(p->session, &sums);
    if (end < start_ns - NEAR_NS || begin > (int64_t)sums.end_ns + NEAR_NS)
        return pm_error_set(
            err, -PM_EINVALID,
            "%.300s is of another time: it ends %.0f s %s, give a trace of the same run",
            p->trace->path,
            end < start_ns ? (double)(start_ns - end) / 1e9
                           : (double)(end - (int64_t)sums.end_ns) / 1e9,
            end < start_ns ? "before the session begins" : "after the session's end");
    ret->begin_ns = begin - start_ns;
    ret->end_ns = end - start_ns;
    return 0;
}

/* ---- tracks ---- */

static uint64_t parent_of(struct placing *p, uint32_t number)
{
    const struct pm_trace_track *track = &p->trace->tracks[number];
    const char *pid = pm_trace_text(p->trace, track->pid);
    const struct pm_process *process = process_of(p->session, pid);
    uint64_t *id = &p->processes[track->pid];
    char name[192];
    if (process != NULL)
        return pm_timeline_process_id(process);
    if (*id != 0)
        return *id;
    *id = pm_timeline_id("torch process", 0, 0, pid);
    const char *labels = track->labels != 0 ? pm_trace_text(p->trace, track->labels) : "";
    snprintf(name, sizeof(name), "torch: %.80s %.80s", pid, labels);
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    const size_t descriptor = pm_proto_begin(&p->packets.buf, PACKET_TRACK_DESCRIPTOR);
    pm_proto_u64(&p->packets.buf, TRACK_UUID, *id);
    pm_proto_text(&p->packets.buf, TRACK_NAME, name);
    pm_proto_end(&p->packets.buf, descriptor);
    (void)pm_packet_end(&p->packets,
                        packet); /* a failure sticks in the buffer, and in the stream */
    return *id;
}

static int tell_lane(struct placing *p, uint32_t number, unsigned n)
{
    const struct pm_trace_track *track = &p->trace->tracks[number];
    struct lane *lane = &p->tracks[number].lanes[n];
    char name[256];
    lane->ends = malloc(DEPTH * sizeof(*lane->ends));
    if (lane->ends == NULL)
        return -PM_ENOMEM;
    lane->depth = 0;
    lane->id = pm_timeline_id("torch", number, n, "");
    const char *tid = pm_trace_text(p->trace, track->tid);
    const char *own = track->name != 0 ? pm_trace_text(p->trace, track->name) : "";
    snprintf(name, sizeof(name), "torch: %.100s%s%.100s%s%s", own[0] != '\0' ? own : "thread",
             own[0] != '\0' && strstr(own, tid) != NULL ? "" : " ",
             own[0] != '\0' && strstr(own, tid) != NULL ? "" : tid,
             n >= ANNOTATIONS ? ", annotations" : "", n % ANNOTATIONS > 0 ? " (beside)" : "");
    const uint64_t parent = parent_of(p, number);
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    const size_t descriptor = pm_proto_begin(&p->packets.buf, PACKET_TRACK_DESCRIPTOR);
    pm_proto_u64(&p->packets.buf, TRACK_UUID, lane->id);
    pm_proto_text(&p->packets.buf, TRACK_NAME, name);
    pm_proto_u64(&p->packets.buf, TRACK_PARENT, parent);
    pm_proto_end(&p->packets.buf, descriptor);
    return pm_packet_end(&p->packets, packet);
}

/* The lane in which [begin, *end) nests; 0, 1 where there is none, or -PM_E…. */
static int find_lane(struct placing *p, uint32_t row, int64_t begin, int64_t *end,
                     struct lane **ret_lane)
{
    const uint32_t number = pm_trace_track_of(p->trace, row);
    const enum pm_trace_kind kind = pm_trace_kind_of(p->trace, row);
    const bool annotation = kind == PM_KIND_ANNOTATION || kind == PM_KIND_GPU_ANNOTATION;
    const unsigned first = annotation ? ANNOTATIONS : 0;
    for (unsigned n = first; n < first + ANNOTATIONS; n++) {
        struct lane *lane = &p->tracks[number].lanes[n];
        int rc = lane->ends == NULL ? tell_lane(p, number, n) : 0;
        if (rc != 0)
            return rc;
        while (lane->depth > 0 && lane->ends[lane->depth - 1] <= begin)
            lane->depth--;
        const int64_t outer = lane->depth > 0 ? lane->ends[lane->depth - 1] : INT64_MAX;
        if (lane->depth == DEPTH || *end - ROUNDING > outer)
            continue;
        if (*end > outer)
            *end = outer;
        lane->ends[lane->depth++] = *end;
        *ret_lane = lane;
        return 0;
    }
    return 1;
}

/* ---- events ---- */

static void put_text(struct placing *p, const char *name, uint32_t string)
{
    if (string == 0 || pm_intern_len(&p->trace->strings, string) == 0)
        return;
    const size_t annotation = pm_proto_begin(&p->packets.buf, EVENT_ANNOTATION);
    pm_proto_text(&p->packets.buf, ANNOTATION_NAME, name);
    pm_proto_text(&p->packets.buf, ANNOTATION_TEXT, pm_trace_text(p->trace, string));
    pm_proto_end(&p->packets.buf, annotation);
}

static void put_number(struct placing *p, const char *name, uint64_t value)
{
    const size_t annotation = pm_proto_begin(&p->packets.buf, EVENT_ANNOTATION);
    pm_proto_text(&p->packets.buf, ANNOTATION_NAME, name);
    pm_proto_u64(&p->packets.buf, ANNOTATION_UINT, value);
    pm_proto_end(&p->packets.buf, annotation);
}

/* Arguments, and the arrow from a launch to its kernel. All kernels of a graph share one launch:
 * they get none. */
static void put_details(struct placing *p, uint32_t row)
{
    const struct pm_trace *trace = p->trace;
    const enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
    const uint32_t extra = trace->events.extra[row];
    bool ends = false;
    if (kind <= PM_KIND_ANNOTATION) {
        put_text(p, "Input Dims", trace->ops[extra].dims);
        return;
    }
    if (pm_kind_is_work(kind)) {
        const struct pm_trace_work *work = &trace->work[extra];
        if (work->bytes != 0)
            put_number(p, "bytes", work->bytes);
        put_text(p, "Collective name", work->collective);
        ends = work->graph_node == 0;
    }
    if ((!ends && kind != PM_KIND_RUNTIME) || trace->events.link[row] == 0)
        return;
    const uint64_t correlation = pm_trace_id_value(trace, trace->events.link[row]);
    pm_proto_fixed64(&p->packets.buf, ends ? EVENT_FLOW_ENDS : EVENT_FLOW,
                     pm_timeline_id("torch flow", correlation, 0, ""));
}

static int put_event(struct placing *p, const struct lane *lane, uint32_t row, int64_t begin,
                     int64_t end)
{
    const uint32_t name = p->trace->events.name[row];
    size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    pm_proto_u64(&p->packets.buf, PACKET_TIMESTAMP, (uint64_t)begin);
    if (!p->named[name]) {
        const size_t data = pm_proto_begin(&p->packets.buf, PACKET_INTERNED_DATA);
        const size_t entry = pm_proto_begin(&p->packets.buf, INTERNED_NAMES);
        pm_proto_u64(&p->packets.buf, 1, (uint64_t)name + 1);
        pm_proto_text(&p->packets.buf, 2, pm_trace_text(p->trace, name));
        pm_proto_end(&p->packets.buf, entry);
        pm_proto_end(&p->packets.buf, data);
        p->named[name] = 1;
    }
    size_t event = pm_proto_begin(&p->packets.buf, PACKET_TRACK_EVENT);
    pm_proto_u64(&p->packets.buf, EVENT_TYPE, TYPE_BEGIN);
    pm_proto_u64(&p->packets.buf, EVENT_TRACK, lane->id);
    pm_proto_text(&p->packets.buf, EVENT_CATEGORY, pm_kind_name(pm_trace_kind_of(p->trace, row)));
    pm_proto_u64(&p->packets.buf, EVENT_NAME_IID, (uint64_t)name + 1);
    put_details(p, row);
    pm_proto_end(&p->packets.buf, event);
    int rc = pm_packet_end(&p->packets, packet);
    packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    pm_proto_u64(&p->packets.buf, PACKET_TIMESTAMP, (uint64_t)end);
    event = pm_proto_begin(&p->packets.buf, PACKET_TRACK_EVENT);
    pm_proto_u64(&p->packets.buf, EVENT_TYPE, TYPE_END);
    pm_proto_u64(&p->packets.buf, EVENT_TRACK, lane->id);
    pm_proto_end(&p->packets.buf, event);
    return rc == 0 ? pm_packet_end(&p->packets, packet) : rc;
}

static int put_events(struct placing *p, uint32_t *rows, struct pm_torch_placed *ret)
{
    const struct pm_trace_events *events = &p->trace->events;
    uint32_t n = 0;
    for (uint32_t row = 0; row < events->n; row++)
        if (is_placed(p->trace, row))
            rows[n++] = row;
    int rc = pm_trace_sort_rows(p->trace, rows, n);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        struct lane *lane;
        int64_t begin, end;
        if (__builtin_add_overflow(events->ts_ns[rows[i]], p->offset_ns, &begin) || begin < 0 ||
            __builtin_add_overflow(begin, events->dur_ns[rows[i]], &end))
            continue;
        rc = find_lane(p, rows[i], begin, &end, &lane);
        if (rc == 1) {
            ret->crowded++;
            rc = 0;
            continue;
        }
        if (rc == 0)
            rc = put_event(p, lane, rows[i], begin, end);
        ret->events++;
    }
    return rc;
}

static int put_defaults(struct placing *p)
{
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_CLEARED);
    const size_t defaults = pm_proto_begin(&p->packets.buf, PACKET_DEFAULTS);
    pm_proto_u64(&p->packets.buf, DEFAULTS_CLOCK_ID, CLOCK_MONO);
    pm_proto_end(&p->packets.buf, defaults);
    return pm_packet_end(&p->packets, packet);
}

int pm_perfetto_torch(const struct pm_session *session, const struct pm_trace *trace, FILE *out,
                      struct pm_torch_placed *ret, struct pm_error *err)
{
    struct placing p = {
        .session = session, .trace = trace, .packets = {.out = out, .sequence = SEQUENCE_OF_TORCH}};
    uint32_t *rows = malloc(((size_t)trace->events.n + 1) * sizeof(*rows));
    struct pm_torch_placed placed = {0};
    p.tracks = calloc((size_t)trace->n_tracks + 1, sizeof(*p.tracks));
    p.processes = calloc((size_t)trace->strings.n + 1, sizeof(*p.processes));
    p.named = calloc((size_t)trace->strings.n + 1, 1);
    pm_buf_init(&p.packets.buf, PM_VIEW_TEXT_MAX);
    int rc = rows == NULL || p.tracks == NULL || p.processes == NULL || p.named == NULL
                 ? pm_error_set(err, -PM_ENOMEM, "cannot show %.300s, out of memory", trace->path)
                 : 0;
    if (rc == 0) {
        set_clock(&p, &placed);
        rc = check_time(&p, &placed, err);
    }
    if (rc == 0) {
        rc = put_defaults(&p);
        if (rc == 0)
            rc = put_events(&p, rows, &placed);
        if (rc == 0)
            rc = pm_packets_spill(&p.packets, 0);
        if (rc != 0)
            rc = pm_error_set(err, rc, "the trace cannot be written: %s", pm_strerror(rc));
    }
    for (uint32_t i = 0; p.tracks != NULL && i < trace->n_tracks; i++)
        for (unsigned n = 0; n < LANES; n++)
            free(p.tracks[i].lanes[n].ends);
    pm_buf_release(&p.packets.buf);
    free(p.tracks);
    free(p.processes);
    free(p.named);
    free(rows);
    if (rc == 0)
        *ret = placed;
    return rc;
}
