/*
 * Spans of requests that have ended, with the names of OpenTelemetry's GenAI conventions, from the
 * sessions' files: a follower of its own per session, which reads each record once. One thread.
 */
#ifndef PM_OTLP_SPANS_H
#define PM_OTLP_SPANS_H

#include "base/buf.h"
#include "serve/serve.h"

struct pm_otlp_spans;
PM_MUST_USE int pm_otlp_spans_open(struct pm_otlp_spans **ret_spans);
void pm_otlp_spans_close(struct pm_otlp_spans *spans);

/* Appends an ExportTraceServiceRequest with requests that ended since the last call, at most
 * PM_OTLP_BATCH_SPANS of them; *ret_count how many. 0, or a failure that this session's file may be
 * over by the next call. */
PM_MUST_USE int pm_otlp_spans_take(struct pm_otlp_spans *spans, const struct pm_serve *serve,
                                   struct pm_buf *buf, uint64_t *ret_count);

/* One request's spans into a ScopeSpans message (tests). away: pairs of preempted and resumed. */
struct pm_otlp_away {
    uint64_t from_ns, to_ns;
};
struct pm_otlp_request {
    const struct pm_request *request;
    const struct pm_otlp_away *away;
    size_t n_away;
    const struct pm_session_info *info;
    const char *model;
    unsigned engine;
};
void pm_otlp_put_request(struct pm_buf *buf, const struct pm_otlp_request *what);

#endif
