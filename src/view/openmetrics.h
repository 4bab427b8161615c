/*
 * A session as OpenMetrics text (https://prometheus.io/docs/specs/om/open_metrics_spec/): a
 * snapshot as a scraper would have got it, or series with timestamps, for a backfill with `promtool
 * tsdb create-blocks-from openmetrics`. Names are profilemate_*, units are base units, labels
 * model_name and engine are those of vLLM's own metrics. How many series there are depends on
 * engines, ranks and processes only, never on requests.
 */
#ifndef PM_VIEW_OPENMETRICS_H
#define PM_VIEW_OPENMETRICS_H

#include <string.h>

#include <stdio.h>

#include "reader/reader.h"

#define PM_OPENMETRICS_POINTS_MAX 20000u /* of one series */
#define PM_OPENMETRICS_RANKS_MAX 1024u   /* engines and ranks of one metric; more are left out */

/* Counters and histograms come from the totals, exact also where detail had to go, without reading
 * the records; gauges from the session's last minute. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_view_openmetrics(const struct pm_session *session, FILE *out,
                                    struct pm_error *err);

/* From the records: a point at the end of every interval, counters from 0 at the session's start,
 * durations as count and sum. -PM_EINVALID for an interval that is too short for the session. */
PM_MUST_USE int pm_view_openmetrics_series(const struct pm_session *session, uint64_t interval_ns,
                                           FILE *out, struct pm_error *err);

/* ---- inside ---- */

#include "view/common.h"

enum pm_metric_type { PM_METRIC_COUNTER, PM_METRIC_TIME, PM_METRIC_GAUGE, PM_METRIC_RATIO };

struct pm_metric {
    const char *name;
    enum pm_metric_type type;
    const char *schema, *field;
    bool by_phase;
    const char *label, *help;
};
extern const struct pm_metric pm_metrics[];

/* Whether it is told by a worker, and so apart by rank. */
static inline bool pm_metric_of_worker(const struct pm_metric *m)
{
    return strcmp(m->schema, "worker_step") == 0 || strcmp(m->schema, "device_step") == 0;
}
extern const size_t pm_metrics_count;

/* What the totals of a process have of a metric. */
struct pm_metric_sum {
    uint64_t count, sum;
    struct pm_hist hist;
};
/* phase -1: of all of them. */
typedef void pm_metric_put(const struct pm_metric_sum *sum, int phase, void *arg);
/* Hands over each sum that there is: one per phase for a metric that is told by phase, else one. */
void pm_metric_sums(const struct pm_process *process, const struct pm_totals *totals,
                    const struct pm_metric *metric, pm_metric_put *put, void *arg);

/* What vLLM's own metrics call the model: the first of --served-model-name, else the model. Cut to
 * fit; "" where it is not known yet. */
void pm_metric_model_name(const struct pm_session *session, char *out, size_t size);

/* Text on its way out. */
struct pm_metric_text {
    FILE *out;
    struct pm_buf buf;
    struct pm_buf model; /* the model's name, escaped */
};
PM_MUST_USE int pm_metric_text_init(struct pm_metric_text *text, const struct pm_session *session,
                                    FILE *out);
/* Writes what is held; with at_least 0 all of it. */
PM_MUST_USE int pm_metric_text_spill(struct pm_metric_text *text, size_t at_least);
void pm_metric_text_release(struct pm_metric_text *text);

/* # TYPE, # UNIT and # HELP; summary: durations as count and sum. */
void pm_metric_head(struct pm_metric_text *text, const struct pm_metric *metric, bool summary);
/* name, suffix and labels of a sample, up to the blank before its value. rank, phase -1: none;
 * more: one more label, or NULL. */
void pm_metric_sample(struct pm_metric_text *text, const struct pm_metric *metric,
                      const char *suffix, unsigned engine, int rank, int phase, const char *more);
/* Buckets are powers of two, in nanoseconds: the totals' own bounds, so that the counts are exact.
 */
#define PM_METRIC_FIRST_BOUND 10 /* 1.024 us */
#define PM_METRIC_LAST_BOUND 38  /* 275 s */
#define PM_METRIC_BOUNDS (PM_METRIC_LAST_BOUND - PM_METRIC_FIRST_BOUND + 1)
/* How many values lie below each bound; the result is how many there are. Times that did not come
 * are zeros, and count for nothing. */
uint64_t pm_metric_buckets(const struct pm_hist *hist, uint64_t ret_below[PM_METRIC_BOUNDS]);
/* A label's value, escaped, without its quotes. */
void pm_metric_escape(struct pm_buf *buf, const char *value);
/* value / 10^9, exact, and no longer than it has to be. */
void pm_metric_seconds(struct pm_buf *buf, uint64_t ns);

#endif
