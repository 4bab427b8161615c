/*
 * The metrics of `serve`: of all sessions, from the figures that src/live keeps up to date, so that
 * a scrape reads no records (metrics.c). What comes from records is the list of
 * view/openmetrics.def, under the names that `export --format openmetrics` gives; serve/metrics.def
 * has the rest. One thread.
 *
 * Labels: session (as in /api/sessions), model_name and engine as vLLM's own metrics have them,
 * and rank, phase, kind, where there is more than one.
 */
#ifndef PM_SERVE_METRICS_H
#define PM_SERVE_METRICS_H

#include "serve/request.h"
#include "serve/serve.h"

/* Appends all of them. With PM_FORMAT_OTLP: Metric fields of a ScopeMetrics, as of now. */
PM_MUST_USE int pm_serve_metrics(const struct pm_serve *serve, enum pm_serve_format format,
                                 struct pm_buf *buf);
const char *pm_serve_metrics_type(enum pm_serve_format format);

/* Writes them as text 0.0.4 to a file, whole or not at all, for node_exporter's textfile
 * collector; its name has to end in .prom for that. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_serve_textfile(const struct pm_serve *serve, const char *path,
                                  struct pm_error *err);

#endif
