/*
 * OpenTelemetry: metrics and a span per finished request, pushed by OTLP/HTTP with protobuf
 * (https://opentelemetry.io/docs/specs/otlp/) to a collector. Switched on by `profilemate serve
 * --otlp URL`; a process of vLLM has nothing to do with it.
 *
 *   spans.c   follows requests that end, and writes them as spans with GenAI names
 *   queue.c   what waits to be sent, within a ceiling; what does not fit is dropped and counted
 *   send.c    a thread of its own: libcurl, retries with back-off
 *   otlp.c    the face: gathers after each refresh, never waits
 *
 * pm_otlp_gather and the rest are called by the thread of `serve`; send.c's thread sees the queue
 * and its own counts only, under the queue's lock.
 */
#ifndef PM_OTLP_OTLP_H
#define PM_OTLP_OTLP_H

#include "base/error.h"
#include "serve/serve.h"

#define PM_OTLP_QUEUE_BYTES (16u << 20) /* what may wait, all together */
#define PM_OTLP_BATCH_SPANS 512         /* requests in one message */
#define PM_OTLP_BODY_MAX (8u << 20)
#define PM_OTLP_RETRY_FIRST_MS 1000
#define PM_OTLP_RETRY_MAX_MS 60000
#define PM_OTLP_TIMEOUT_MS 10000
#define PM_OTLP_GIVE_UP_MS 300000 /* a batch that nobody takes for so long is dropped */

struct pm_otlp_options {
    const char *url;      /* of the collector: /v1/metrics and /v1/traces are added */
    const char *headers;  /* "name=value,…" (OTEL_EXPORTER_OTLP_HEADERS); NULL: none */
    uint64_t interval_ns; /* between two pushes of metrics */
};

/* What became of what was gathered. */
struct pm_otlp_counts {
    uint64_t sent_pushes, sent_spans;
    uint64_t dropped_pushes, dropped_spans;   /* no room, refused for good, or given up */
    uint64_t rejected_points, rejected_spans; /* the collector took the message but not these */
    uint64_t retries;
    char trouble[256]; /* why the last push failed; "": it did not */
    char partial[256]; /* what the collector said of those that it rejected last */
};

struct pm_otlp;

/* 0, or -PM_E… with a sentence: an address that is none, no libcurl (-PM_EUNSUPPORTED), no thread.
 */
PM_MUST_USE int pm_otlp_open(struct pm_otlp **ret_otlp, const struct pm_otlp_options *options,
                             struct pm_error *err);

/* After a refresh of the sessions: takes up what is new. Never waits. */
void pm_otlp_gather(struct pm_otlp *otlp, const struct pm_serve *serve);

void pm_otlp_counts(struct pm_otlp *otlp, struct pm_otlp_counts *ret_counts);

/* Sends what waits, for at most limit_ms, and ends the thread. NULL is fine. What was not sent is
 * in *ret_counts (may be NULL) as dropped. */
void pm_otlp_close(struct pm_otlp *otlp, unsigned limit_ms, struct pm_otlp_counts *ret_counts);

#endif
