/*
 * The fourth form of metrics: Metric messages of OpenTelemetry's protocol
 * (opentelemetry/proto/metrics/v1/metrics.proto), which src/otlp sends. Inside the serve room, used
 * by expose.c; histograms are exponential ones of scale 3, whose buckets are ours.
 */
#ifndef PM_SERVE_EXPOSE_OTLP_H
#define PM_SERVE_EXPOSE_OTLP_H

#include "serve/expose.h"

void pm_otlp_form_begin(struct pm_expose *expose);
void pm_otlp_form_end(struct pm_expose *expose);
void pm_otlp_form_number(struct pm_expose *expose, const struct pm_labels *labels, double value);
void pm_otlp_form_histogram(struct pm_expose *expose, const struct pm_labels *labels,
                            const struct pm_hist *hist, uint64_t sum_ns);

/* A KeyValue in the field of a message: what resources, points and spans are described with. */
void pm_otlp_text(struct pm_buf *buf, unsigned field, const char *key, const char *value);
void pm_otlp_int(struct pm_buf *buf, unsigned field, const char *key, uint64_t value);
void pm_otlp_double(struct pm_buf *buf, unsigned field, const char *key, double value);

#endif
