/*
 * The Perfetto trace (perfetto_trace.h). Names of events, categories and arguments are interned:
 * told once, then numbers.
 */
#include "view/perfetto_trace.h"

#include <stdlib.h>

#include "view/outfile.h"
#include "view/perfetto_packet.h"
#include "view/timeline.h"

#define INTERN_MAX 512   /* texts of one sort; names beyond them are written in full */
#define INTERN_BYTES 128 /* of a text, with its end */

struct interned {
    unsigned count;
    char texts[INTERN_MAX][INTERN_BYTES];
};

struct perfetto {
    struct pm_packets packets;
    struct interned interned[4]; /* by field of InternedData */
};

/* ---- what comes first ---- */

static void put_clock(struct perfetto *p, uint64_t id, uint64_t at_ns)
{
    const size_t clock = pm_proto_begin(&p->packets.buf, SNAPSHOT_CLOCKS);
    pm_proto_u64(&p->packets.buf, CLOCK_ID, id);
    pm_proto_u64(&p->packets.buf, CLOCK_TIMESTAMP, at_ns);
    pm_proto_end(&p->packets.buf, clock);
}

/* All times are of CLOCK_MONOTONIC, which is the trace's own clock too. */
static int put_clocks(struct perfetto *p, const struct pm_session_info *info)
{
    size_t packet = pm_packet_begin(&p->packets, SEQUENCE_CLEARED);
    size_t defaults = pm_proto_begin(&p->packets.buf, PACKET_DEFAULTS);
    pm_proto_u64(&p->packets.buf, DEFAULTS_CLOCK_ID, CLOCK_MONO);
    pm_proto_end(&p->packets.buf, defaults);
    int rc = pm_packet_end(&p->packets, packet);
    packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    size_t snapshot = pm_proto_begin(&p->packets.buf, PACKET_CLOCK_SNAPSHOT);
    put_clock(p, CLOCK_MONO, info->start_mono_ns);
    put_clock(p, CLOCK_REAL, info->start_real_ns);
    pm_proto_u64(&p->packets.buf, SNAPSHOT_PRIMARY, CLOCK_MONO);
    pm_proto_end(&p->packets.buf, snapshot);
    return rc == 0 ? pm_packet_end(&p->packets, packet) : rc;
}

/* ---- names ---- */

/* The number of a text, told in this packet if it is new; 0: there is no room for it. */
static uint64_t intern(struct perfetto *p, unsigned sort, const char *text, size_t *data)
{
    struct interned *interned = &p->interned[sort];
    for (unsigned i = 0; i < interned->count; i++)
        if (strcmp(interned->texts[i], text) == 0)
            return i + 1;
    if (interned->count == INTERN_MAX || strlen(text) >= INTERN_BYTES)
        return 0;
    memcpy(interned->texts[interned->count++], text, strlen(text) + 1);
    if (*data == 0)
        *data = pm_proto_begin(&p->packets.buf, PACKET_INTERNED_DATA);
    const size_t entry = pm_proto_begin(&p->packets.buf, sort);
    pm_proto_u64(&p->packets.buf, 1, interned->count);
    pm_proto_text(&p->packets.buf, 2, text);
    pm_proto_end(&p->packets.buf, entry);
    return interned->count;
}

/* ---- tracks and events ---- */

static int put_track(void *arg, const struct pm_timeline_track *track)
{
    struct perfetto *p = arg;
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    const size_t descriptor = pm_proto_begin(&p->packets.buf, PACKET_TRACK_DESCRIPTOR);
    pm_proto_u64(&p->packets.buf, TRACK_UUID, track->id);
    pm_proto_text(&p->packets.buf, TRACK_NAME, track->name);
    if (track->parent != 0)
        pm_proto_u64(&p->packets.buf, TRACK_PARENT, track->parent);
    if (track->kind == PM_TIMELINE_PROCESS) {
        const size_t process = pm_proto_begin(&p->packets.buf, TRACK_PROCESS);
        pm_proto_u64(&p->packets.buf, PROCESS_PID, track->pid);
        pm_proto_text(&p->packets.buf, PROCESS_NAME, track->name);
        pm_proto_end(&p->packets.buf, process);
    } else if (track->kind == PM_TIMELINE_COUNTER) {
        const size_t counter = pm_proto_begin(&p->packets.buf, TRACK_COUNTER);
        if (track->unit[0] != '\0')
            pm_proto_text(&p->packets.buf, COUNTER_UNIT_NAME, track->unit);
        pm_proto_end(&p->packets.buf, counter);
    } else if (track->kind == PM_TIMELINE_REQUESTS) {
        pm_proto_u64(&p->packets.buf, TRACK_CHILD_ORDERING, ORDER_CHRONOLOGICAL);
    }
    pm_proto_end(&p->packets.buf, descriptor);
    return pm_packet_end(&p->packets, packet);
}

#define IIDS_MAX (PM_TIMELINE_ARGS_MAX + 2)

static void put_args(struct perfetto *p, const struct pm_timeline_event *event,
                     const uint64_t *iids)
{
    for (size_t i = 0; i < event->n_args && i < PM_TIMELINE_ARGS_MAX; i++) {
        if (iids[i] == 0)
            continue;
        const size_t annotation = pm_proto_begin(&p->packets.buf, EVENT_ANNOTATION);
        pm_proto_u64(&p->packets.buf, ANNOTATION_NAME_IID, iids[i]);
        if (event->args[i].text != NULL)
            pm_proto_text(&p->packets.buf, ANNOTATION_TEXT, event->args[i].text);
        else
            pm_proto_u64(&p->packets.buf, ANNOTATION_UINT, event->args[i].value);
        pm_proto_end(&p->packets.buf, annotation);
    }
}

static int put_event(struct perfetto *p, const struct pm_timeline_event *event, unsigned type)
{
    uint64_t category, name, args[PM_TIMELINE_ARGS_MAX];
    size_t data = 0;
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);

    pm_proto_u64(&p->packets.buf, PACKET_TIMESTAMP, event->at_ns);
    /* Ids of requests are names too, each used once. */
    const bool own = event->track->kind == PM_TIMELINE_REQUEST && event->name == event->track->name;
    category = intern(p, INTERNED_CATEGORIES, event->category, &data);
    name = own ? 0 : intern(p, INTERNED_NAMES, event->name, &data);
    for (size_t i = 0; i < event->n_args && i < PM_TIMELINE_ARGS_MAX; i++)
        args[i] = intern(p, INTERNED_ANNOTATIONS, event->args[i].name, &data);
    if (data != 0)
        pm_proto_end(&p->packets.buf, data);

    const size_t track_event = pm_proto_begin(&p->packets.buf, PACKET_TRACK_EVENT);
    pm_proto_u64(&p->packets.buf, EVENT_TYPE, type);
    pm_proto_u64(&p->packets.buf, EVENT_TRACK, event->track->id);
    if (category != 0)
        pm_proto_u64(&p->packets.buf, EVENT_CATEGORY_IID, category);
    if (name != 0)
        pm_proto_u64(&p->packets.buf, EVENT_NAME_IID, name);
    else
        pm_proto_text(&p->packets.buf, EVENT_NAME, event->name);
    put_args(p, event, args);
    for (size_t i = 0; i < event->n_flows_out; i++)
        pm_proto_fixed64(&p->packets.buf, EVENT_FLOW, event->flows_out[i]);
    if (event->flow_in != 0)
        pm_proto_fixed64(&p->packets.buf, EVENT_FLOW_ENDS, event->flow_in);
    pm_proto_end(&p->packets.buf, track_event);
    return pm_packet_end(&p->packets, packet);
}

static int put_end(struct perfetto *p, const struct pm_timeline_track *track, uint64_t at_ns)
{
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    pm_proto_u64(&p->packets.buf, PACKET_TIMESTAMP, at_ns);
    const size_t event = pm_proto_begin(&p->packets.buf, PACKET_TRACK_EVENT);
    pm_proto_u64(&p->packets.buf, EVENT_TYPE, TYPE_END);
    pm_proto_u64(&p->packets.buf, EVENT_TRACK, track->id);
    pm_proto_end(&p->packets.buf, event);
    return pm_packet_end(&p->packets, packet);
}

static int put_slice(void *arg, const struct pm_timeline_event *event)
{
    int rc = put_event(arg, event, TYPE_BEGIN);
    return rc == 0 ? put_end(arg, event->track, event->at_ns + event->dur_ns) : rc;
}

static int put_instant(void *arg, const struct pm_timeline_event *event)
{
    return put_event(arg, event, TYPE_INSTANT);
}

static int put_counter(void *arg, const struct pm_timeline_track *track, uint64_t at_ns,
                       double value)
{
    struct perfetto *p = arg;
    const size_t packet = pm_packet_begin(&p->packets, SEQUENCE_NEEDS_STATE);
    pm_proto_u64(&p->packets.buf, PACKET_TIMESTAMP, at_ns);
    const size_t event = pm_proto_begin(&p->packets.buf, PACKET_TRACK_EVENT);
    pm_proto_u64(&p->packets.buf, EVENT_TYPE, TYPE_COUNTER);
    pm_proto_u64(&p->packets.buf, EVENT_TRACK, track->id);
    pm_proto_double(&p->packets.buf, EVENT_DOUBLE_COUNTER, value);
    pm_proto_end(&p->packets.buf, event);
    return pm_packet_end(&p->packets, packet);
}

int pm_view_perfetto(const struct pm_session *session, FILE *out, struct pm_error *err)
{
    struct perfetto *p = calloc(1, sizeof(*p));
    const struct pm_timeline_sink sink = {put_track, put_slice, put_instant, put_counter, p};
    int rc = -PM_ENOMEM;
    if (p != NULL) {
        p->packets.out = out;
        p->packets.sequence = SEQUENCE_OF_SESSION;
        pm_buf_init(&p->packets.buf, PM_VIEW_TEXT_MAX);
        rc = put_clocks(p, pm_session_info(session));
        if (rc == 0)
            rc = pm_timeline_walk(session, &sink);
        if (rc == 0)
            rc = pm_packets_spill(&p->packets, 0);
        pm_buf_release(&p->packets.buf);
        free(p);
    }
    return rc == 0 ? 0 : pm_error_set(err, rc, "the trace cannot be written: %s", pm_strerror(rc));
}
