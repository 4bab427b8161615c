/*
 * A trace from a file or from memory (see trace.h). One thread, beside the source's helper.
 */
#include "trace/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int begin(struct pm_trace **ret, const char *name)
{
    struct pm_trace *trace = calloc(1, sizeof(*trace));
    if (trace == NULL)
        return -PM_ENOMEM;
    snprintf(trace->path, sizeof(trace->path), "%s", name);
    trace->rank = trace->world_size = -1;
    trace->ops = calloc(256, sizeof(*trace->ops));
    trace->work = calloc(256, sizeof(*trace->work));
    trace->memory = calloc(256, sizeof(*trace->memory));
    if (trace->ops == NULL || trace->work == NULL || trace->memory == NULL ||
        pm_intern_init(&trace->strings) != 0 || pm_intern_init(&trace->raw) != 0 ||
        pm_intern_init(&trace->wide) != 0) {
        pm_trace_free(trace);
        return -PM_ENOMEM;
    }
    trace->room_ops = trace->room_work = trace->room_memory = 256;
    trace->n_ops = trace->n_work = trace->n_memory = 1; /* row 0: nothing known */
    trace->work[0] = (struct pm_trace_work){.device = -1, .occupancy_pct = -1};
    *ret = trace;
    return 0;
}

void pm_trace_free(struct pm_trace *trace)
{
    if (trace == NULL)
        return;
    struct pm_trace_events *events = &trace->events;
    void *columns[] = {events->ts_ns, events->dur_ns,  events->name,  events->where,
                       events->ext,   events->link,    events->extra, events->ordinal,
                       trace->ops,    trace->op_table, trace->work,   trace->memory,
                       trace->tracks};
    for (size_t k = 0; k < sizeof(columns) / sizeof(columns[0]); k++)
        free(columns[k]);
    pm_intern_release(&trace->strings);
    pm_intern_release(&trace->raw);
    pm_intern_release(&trace->wide);
    free(trace);
}

static bool has_anything(const struct pm_parse *parse)
{
    return parse->events_done || parse->trace->all_events > 0 || parse->state == PM_IN_EVENTS;
}

static int load(struct pm_trace *trace, struct pm_trace_source *source,
                const struct pm_trace_options *options, struct pm_error *err)
{
    struct pm_parse parse = {
        .trace = trace,
        .source = source,
        .on_event = pm_store_event,
        .arg = options != NULL && options->ordinals ? trace : NULL,
        .scan_kind = options != NULL ? options->scan : PM_SCAN_BEST,
        .chunk = options != NULL ? options->chunk_bytes : 0,
        .last_track = 0,
        .last_pid = {0, UINT32_MAX},
    };
    int code = pm_parse_run(&parse);
    if (code != 0)
        return pm_error_set(
            err, code, "cannot read %.300s to its end, %s", trace->path,
            code == -PM_ELIMIT ? "it holds more events or text than this program takes (4 GiB of "
                                 "distinct names, 2^31 events); cut it with `profilemate trace cut`"
                               : pm_strerror(code));
    if (has_anything(&parse))
        return 0;
    char lost[512];
    if (pm_trace_loss_text(trace, lost, sizeof(lost)))
        return pm_error_set(err, -PM_EFORMAT, "%.300s is no torch trace that can be read: %s",
                            trace->path, lost);
    return pm_error_set(err, -PM_EFORMAT,
                        "%.300s is JSON but no torch trace: it has no traceEvents; give a file "
                        "that torch.profiler wrote (*.pt.trace.json or *.json.gz)",
                        trace->path);
}

static int load_source(struct pm_trace **ret, struct pm_trace_source *source, const char *name,
                       const struct pm_trace_options *options, struct pm_error *err)
{
    struct pm_trace *trace = NULL;
    int code = begin(&trace, name);
    if (code != 0)
        code = pm_error_set(err, code, "cannot read %.300s, out of memory, free some", name);
    else
        code = load(trace, source, options, err);
    pm_trace_source_close(source);
    if (code == 0)
        *ret = trace;
    else
        pm_trace_free(trace);
    return code;
}

int pm_trace_load(struct pm_trace **ret, const char *path, const struct pm_trace_options *options,
                  struct pm_error *err)
{
    struct pm_trace_source *source;
    int code = pm_trace_source_open(&source, path, options != NULL ? &options->source : NULL, err);
    if (code != 0)
        return code;
    return load_source(ret, source, path, options, err);
}

int pm_trace_load_memory(struct pm_trace **ret, const void *bytes, size_t n, const char *name,
                         const struct pm_trace_options *options, struct pm_error *err)
{
    struct pm_trace_source *source;
    int code = pm_trace_source_memory(&source, bytes, n, options != NULL ? &options->source : NULL);
    if (code != 0)
        return pm_error_set(err, code, "cannot read %.300s, %s", name, pm_strerror(code));
    return load_source(ret, source, name, options, err);
}

bool pm_trace_loss_text(const struct pm_trace *trace, char *out, size_t size)
{
    const struct pm_trace_loss *loss = &trace->loss;
    char what[256];
    out[0] = '\0';
    if (loss->code == 0)
        return false;
    if (loss->in_gzip && loss->code == -PM_ECORRUPT)
        snprintf(what, sizeof(what),
                 "the gzip stream is damaged at its byte %" PRIu64 ", %" PRIu64
                 " compressed bytes are lost",
                 loss->gzip_at, loss->gzip_lost);
    else if (loss->in_gzip)
        snprintf(what, sizeof(what), "the gzip stream is cut off after %" PRIu64 " bytes",
                 loss->gzip_at);
    else if (loss->code == -PM_ETRUNCATED)
        snprintf(what, sizeof(what), "it is cut off at byte %" PRIu64, loss->at);
    else
        snprintf(what, sizeof(what), "it is damaged at byte %" PRIu64 ", where %s was expected",
                 loss->at, loss->expected[0] != '\0' ? loss->expected : "JSON");
    if (loss->after_events)
        snprintf(out, size, "%s; all events were read before that", what);
    else
        snprintf(out, size,
                 "%s; the %" PRIu64 " events before are kept, the last %" PRIu64
                 " bytes of its JSON are lost",
                 what, trace->all_events, loss->lost_bytes);
    return true;
}
