/*
 * The Chrome trace (chrome_trace.h): one event a line, written as the timeline tells them. Format:
 * the document "Trace Event Format" of the Chromium project.
 */
#include "view/chrome_trace.h"

#include "view/outfile.h"
#include "view/timeline.h"

struct chrome {
    FILE *out;
    struct pm_buf buf;
    uint64_t start_ns;
    bool any;
};

static int spill(struct chrome *c, size_t at_least)
{
    int rc = pm_buf_status(&c->buf);
    if (rc != 0 || c->buf.used < at_least)
        return rc;
    if (c->buf.used > 0 && fwrite(c->buf.data, 1, c->buf.used, c->out) != c->buf.used)
        rc = -PM_EIO;
    pm_buf_clear(&c->buf);
    return rc;
}

/* Opens an event: {"ph":…,"pid":…, and what follows. */
static void begin(struct chrome *c, struct pm_json *json, const char *ph, uint32_t pid)
{
    (void)pm_buf_add_text(&c->buf, c->any ? ",\n" : "\n");
    c->any = true;
    pm_json_init(json, &c->buf, 0);
    pm_json_object(json);
    pm_json_key(json, "ph");
    pm_json_text(json, ph);
    pm_json_key(json, "pid");
    pm_json_u64(json, pid);
}

static int end(struct chrome *c, struct pm_json *json)
{
    pm_json_end(json);
    int rc = pm_json_finish(json);
    if (rc == 0)
        c->buf.used--; /* its newline */
    return rc == 0 ? spill(c, PM_OUTFILE_SPILL_BYTES) : rc;
}

static void put_us(struct pm_json *json, const char *key, int64_t ns)
{
    pm_json_key(json, key);
    pm_json_fixed_signed(json, ns, 3, 3);
}

static int metadata(struct chrome *c, const char *what, const struct pm_timeline_track *track,
                    bool thread)
{
    struct pm_json json;
    begin(c, &json, "M", track->pid);
    if (thread) {
        pm_json_key(&json, "tid");
        pm_json_u64(&json, track->tid);
    }
    pm_json_key(&json, "name");
    pm_json_text(&json, what);
    pm_json_key(&json, "args");
    pm_json_object(&json);
    pm_json_key(&json, "name");
    pm_json_text(&json, track->name);
    pm_json_end(&json);
    return end(c, &json);
}

static int put_track(void *arg, const struct pm_timeline_track *track)
{
    switch (track->kind) {
    case PM_TIMELINE_PROCESS:
    case PM_TIMELINE_REQUESTS:
        return metadata(arg, "process_name", track, false);
    case PM_TIMELINE_COUNTER:
        return 0; /* known by its events */
    default:
        return metadata(arg, "thread_name", track, true);
    }
}

static void put_head(struct chrome *c, struct pm_json *json, const char *ph,
                     const struct pm_timeline_event *event, const char *category, const char *name)
{
    begin(c, json, ph, event->track->pid);
    pm_json_key(json, "tid");
    pm_json_u64(json, event->track->tid);
    put_us(json, "ts", (int64_t)(event->at_ns - c->start_ns));
    pm_json_key(json, "cat");
    pm_json_text(json, category);
    pm_json_key(json, "name");
    pm_json_text(json, name);
}

/* An arrow begins ("s") or ends ("f") at the slice that its event lies in. */
static int put_flow(struct chrome *c, const struct pm_timeline_event *event, uint64_t flow,
                    bool out)
{
    struct pm_json json;
    char id[24];

    snprintf(id, sizeof(id), "0x%llx", (unsigned long long)flow);
    put_head(c, &json, out ? "s" : "f", event, "flow", "step to request");
    pm_json_key(&json, "id");
    pm_json_text(&json, id);
    if (!out) {
        pm_json_key(&json, "bp");
        pm_json_text(&json, "e");
    }
    return end(c, &json);
}

/* An instant is an empty slice: arrows are bound to slices. */
static int put_slice(void *arg, const struct pm_timeline_event *event)
{
    struct chrome *c = arg;
    struct pm_json json;

    put_head(c, &json, "X", event, event->category, event->name);
    put_us(&json, "dur", (int64_t)event->dur_ns);
    if (event->n_args > 0) {
        pm_json_key(&json, "args");
        pm_json_object(&json);
        for (size_t i = 0; i < event->n_args; i++) {
            pm_json_key(&json, event->args[i].name);
            event->args[i].text != NULL ? pm_json_text(&json, event->args[i].text)
                                        : pm_json_u64(&json, event->args[i].value);
        }
        pm_json_end(&json);
    }
    int rc = end(c, &json);
    for (size_t i = 0; i < event->n_flows_out && rc == 0; i++)
        rc = put_flow(c, event, event->flows_out[i], true);
    if (rc == 0 && event->flow_in != 0)
        rc = put_flow(c, event, event->flow_in, false);
    return rc;
}

static int put_counter(void *arg, const struct pm_timeline_track *track, uint64_t at_ns,
                       double value)
{
    struct chrome *c = arg;
    struct pm_json json;
    char text[40];
    const int bytes = snprintf(text, sizeof(text), "%.17g", value);

    begin(c, &json, "C", track->pid);
    put_us(&json, "ts", (int64_t)(at_ns - c->start_ns));
    pm_json_key(&json, "name");
    pm_json_text(&json, track->name);
    pm_json_key(&json, "args");
    pm_json_object(&json);
    pm_json_key(&json, "value"); /* Perfetto then takes the name alone */
    pm_json_raw(&json, text, (size_t)bytes);
    pm_json_end(&json);
    return end(c, &json);
}

static int put_tail(struct chrome *c, const struct pm_session *session)
{
    const struct pm_session_info *info = pm_session_info(session);
    char real[32];
    struct pm_json json;

    snprintf(real, sizeof(real), "%llu", (unsigned long long)info->start_real_ns);
    (void)pm_buf_add_text(&c->buf, "\n],\"displayTimeUnit\":\"ms\",\"otherData\":");
    pm_json_init(&json, &c->buf, 0);
    pm_json_object(&json);
    pm_json_key(&json, "session");
    pm_json_text(&json, info->name);
    pm_json_key(&json, "start_real_ns");
    pm_json_text(&json, real); /* as text: beyond what a double holds */
    pm_json_end(&json);
    int rc = pm_json_finish(&json);
    if (rc == 0)
        c->buf.used--;
    (void)pm_buf_add_text(&c->buf, "}\n");
    return rc == 0 ? spill(c, 0) : rc;
}

int pm_view_chrome(const struct pm_session *session, FILE *out, struct pm_error *err)
{
    struct chrome c = {.out = out, .start_ns = pm_session_info(session)->start_mono_ns};
    const struct pm_timeline_sink sink = {put_track, put_slice, put_slice, put_counter, &c};

    pm_buf_init(&c.buf, PM_VIEW_TEXT_MAX);
    (void)pm_buf_add_text(&c.buf, "{\"traceEvents\":[");
    int rc = pm_timeline_walk(session, &sink);
    if (rc == 0)
        rc = put_tail(&c, session);
    pm_buf_release(&c.buf);
    return rc == 0 ? 0 : pm_error_set(err, rc, "the trace cannot be written: %s", pm_strerror(rc));
}
