/* See otlp.h: the face of the room, on the thread of `serve`. */
#include "otlp/otlp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "otlp/queue.h"
#include "otlp/send.h"
#include "otlp/spans.h"
#include "serve/expose_otlp.h"
#include "serve/metrics.h"
#include "view/perfetto_proto.h"

enum { RESOURCE_METRICS = 1, RESOURCE = 1, SCOPE_METRICS = 2, SCOPE = 1, ATTRIBUTE = 1 };
enum { SCOPE_NAME = 1, SCOPE_VERSION = 2 };

struct pm_otlp {
    struct pm_otlp_queue queue;
    struct pm_otlp_sender *sender;
    struct pm_otlp_spans *spans;
    uint64_t interval_ns, pushed_ns; /* metrics; 0: never */
};

int pm_otlp_open(struct pm_otlp **ret_otlp, const struct pm_otlp_options *options,
                 struct pm_error *err)
{
    if (strncmp(options->url, "http://", 7) != 0 && strncmp(options->url, "https://", 8) != 0)
        return pm_error_set(
            err, -PM_EINVALID,
            "%.80s is no address of a collector, give http://HOST:4318 or https://…", options->url);
    struct pm_otlp *otlp = calloc(1, sizeof(*otlp));
    if (otlp == NULL || pm_otlp_queue_init(&otlp->queue) != 0) {
        free(otlp);
        return pm_error_set(err, -PM_ENOMEM, "out of memory");
    }
    otlp->interval_ns = options->interval_ns;
    int rc = pm_otlp_spans_open(&otlp->spans);
    if (rc != 0)
        (void)pm_error_set(err, rc, "out of memory");
    else
        rc = pm_otlp_sender_start(&otlp->sender, &otlp->queue, options, err);
    if (rc != 0) {
        pm_otlp_spans_close(otlp->spans);
        pm_otlp_queue_release(&otlp->queue);
        free(otlp);
        return rc;
    }
    *ret_otlp = otlp;
    return 0;
}

static void put_head(struct pm_buf *buf, size_t *ret_whole, size_t *ret_scope)
{
    char host[256] = "";
    *ret_whole = pm_proto_begin(buf, RESOURCE_METRICS);
    const size_t resource = pm_proto_begin(buf, RESOURCE);
    pm_otlp_text(buf, ATTRIBUTE, "service.name", "vllm");
    if (gethostname(host, sizeof(host) - 1) == 0)
        pm_otlp_text(buf, ATTRIBUTE, "host.name", host);
    pm_proto_end(buf, resource);
    *ret_scope = pm_proto_begin(buf, SCOPE_METRICS);
    const size_t scope = pm_proto_begin(buf, SCOPE);
    pm_proto_text(buf, SCOPE_NAME, "profilemate");
    pm_proto_text(buf, SCOPE_VERSION, PM_VERSION);
    pm_proto_end(buf, scope);
}

static void gather_metrics(struct pm_otlp *otlp, const struct pm_serve *serve)
{
    struct pm_buf buf;
    size_t whole, scope;
    pm_buf_init(&buf, PM_OTLP_BODY_MAX);
    put_head(&buf, &whole, &scope);
    if (pm_serve_metrics(serve, PM_FORMAT_OTLP, &buf) != 0 && pm_buf_status(&buf) == 0) {
        pm_buf_release(&buf);
        return;
    }
    pm_proto_end(&buf, scope);
    pm_proto_end(&buf, whole);
    pm_otlp_queue_put(&otlp->queue, PM_OTLP_METRICS, &buf, 0);
}

static void gather_spans(struct pm_otlp *otlp, const struct pm_serve *serve)
{
    uint64_t count = PM_OTLP_BATCH_SPANS;
    /* Full batches follow each other at once: a server may end more requests than one holds. */
    for (unsigned batch = 0; batch < 64 && count >= PM_OTLP_BATCH_SPANS; batch++) {
        struct pm_buf buf;
        pm_buf_init(&buf, PM_OTLP_BODY_MAX);
        if (pm_otlp_spans_take(otlp->spans, serve, &buf, &count) != 0)
            count = count < PM_OTLP_BATCH_SPANS ? count : 0;
        if (count > 0)
            pm_otlp_queue_put(&otlp->queue, PM_OTLP_TRACES, &buf, count);
        else
            pm_buf_release(&buf);
    }
}

void pm_otlp_gather(struct pm_otlp *otlp, const struct pm_serve *serve)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    gather_spans(otlp, serve);
    if (otlp->pushed_ns != 0 && now_ns - otlp->pushed_ns < otlp->interval_ns)
        return;
    otlp->pushed_ns = now_ns;
    gather_metrics(otlp, serve);
}

void pm_otlp_counts(struct pm_otlp *otlp, struct pm_otlp_counts *ret_counts)
{
    pthread_mutex_lock(&otlp->queue.lock);
    *ret_counts = otlp->queue.counts;
    pthread_mutex_unlock(&otlp->queue.lock);
}

void pm_otlp_close(struct pm_otlp *otlp, unsigned limit_ms, struct pm_otlp_counts *ret_counts)
{
    if (otlp == NULL)
        return;
    pm_otlp_queue_end(&otlp->queue);
    pm_otlp_sender_stop(otlp->sender, limit_ms);
    if (ret_counts != NULL)
        pm_otlp_counts(otlp, ret_counts);
    pm_otlp_spans_close(otlp->spans);
    pm_otlp_queue_release(&otlp->queue);
    free(otlp);
}
