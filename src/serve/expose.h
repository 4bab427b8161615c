/*
 * Metrics on their way out, in one of three forms: Prometheus text 0.0.4, OpenMetrics text 1.0, and
 * the delimited MetricFamily messages of io.prometheus.client (metrics.proto of
 * https://github.com/prometheus/client_model), in which histograms are native ones too. Used by
 * metrics.c, one thread; owns what it needs between two calls.
 *
 * A family is begun, gets its samples, and ends with the next one or with pm_expose_end. Failures
 * stick in the buffer.
 */
#ifndef PM_SERVE_EXPOSE_H
#define PM_SERVE_EXPOSE_H

#include "base/buf.h"
#include "serve/request.h"
#include "session/hist.h"

enum pm_family_type { PM_FAMILY_COUNTER, PM_FAMILY_GAUGE, PM_FAMILY_HISTOGRAM, PM_FAMILY_INFO };

struct pm_family {
    const char *name; /* without `profilemate_`, `_total` and `_info`, the unit at its end */
    enum pm_family_type type;
    const char *unit; /* "" none */
    const char *help;
};

#define PM_LABELS_MAX 10
struct pm_labels {
    size_t count;
    struct {
        const char *name, *value; /* of a value only UTF-8 is told */
    } at[PM_LABELS_MAX];
};
void pm_labels_add(struct pm_labels *labels, const char *name, const char *value);

struct pm_expose {
    enum pm_serve_format format;
    struct pm_buf *buf;
    struct pm_family family;
    bool open;       /* it has a sample */
    size_t begun;    /* protobuf: where its message is */
    size_t data;     /* OTLP: where its data is */
    uint64_t now_ns; /* OTLP: Unix time of the points */
};

void pm_expose_begin(struct pm_expose *expose, enum pm_serve_format format, struct pm_buf *buf);
void pm_expose_family(struct pm_expose *expose, const struct pm_family *family);
/* A whole number; nanoseconds, told as seconds; any number. */
void pm_expose_count(struct pm_expose *expose, const struct pm_labels *labels, uint64_t value);
void pm_expose_seconds(struct pm_expose *expose, const struct pm_labels *labels, uint64_t ns);
void pm_expose_number(struct pm_expose *expose, const struct pm_labels *labels, double value);
/* Nanoseconds. Bucket 0, of those that did not come, counts for nothing. */
void pm_expose_histogram(struct pm_expose *expose, const struct pm_labels *labels,
                         const struct pm_hist *hist, uint64_t sum_ns);
/* The end of it all. 0, or the buffer's failure. */
PM_MUST_USE int pm_expose_end(struct pm_expose *expose);

#endif
