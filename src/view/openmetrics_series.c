/*
 * Series with timestamps (openmetrics.h): the records of a table are counted into intervals, table
 * by table, and written metric by metric.
 */
#include "view/openmetrics.h"

#include <stdlib.h>
#include <string.h>

#include "session/step_facts.h"
#include "view/outfile.h"
#include "view/table.h"

#define METRICS_MAX 16 /* rows of openmetrics.def with one schema */

/* One metric of one engine, rank and phase; its points are values, and counts for durations. */
struct serie {
    unsigned metric; /* among those of the schema */
    unsigned engine;
    int rank, phase;
    double *values;
    uint64_t *counts;
    bool *have; /* of a gauge: a value fell into this interval */
};

struct series {
    struct pm_metric_text text;
    const struct pm_session *session;
    uint64_t interval_ns, start_ns, end_ns;
    size_t points;
    /* Of the schema in hand: */
    const struct pm_metric *metrics;
    size_t n_metrics;
    int fields[METRICS_MAX], totals, engine, rank, phase;
    struct serie *rows;
    size_t n_rows, last;
};

static int find_column(const struct pm_table *table, const char *name)
{
    for (size_t i = 0; i < table->n_columns; i++)
        if (strcmp(table->columns[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void forget(struct series *s)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        free(s->rows[i].values);
        free(s->rows[i].counts);
        free(s->rows[i].have);
    }
    free(s->rows);
    s->rows = NULL;
    s->n_rows = s->last = 0;
}

static bool is(const struct serie *row, unsigned metric, unsigned engine, int rank, int phase)
{
    return row->metric == metric && row->engine == engine && row->rank == rank &&
           row->phase == phase;
}

/* NULL: no memory, or too many. Records of one series mostly follow each other's. */
static struct serie *find(struct series *s, unsigned metric, unsigned engine, int rank, int phase)
{
    for (size_t i = 0; i < s->n_rows; i++) {
        struct serie *row = &s->rows[(s->last + i) % s->n_rows];
        if (!is(row, metric, engine, rank, phase))
            continue;
        s->last = (s->last + i + 1) % s->n_rows;
        return row;
    }
    if (s->n_rows == PM_OPENMETRICS_RANKS_MAX)
        return NULL;
    struct serie *more = realloc(s->rows, (s->n_rows + 1) * sizeof(*more));
    if (more == NULL)
        return NULL;
    s->rows = more;
    struct serie *row = &s->rows[s->n_rows];
    *row = (struct serie){.metric = metric, .engine = engine, .rank = rank, .phase = phase};
    row->values = calloc(s->points, sizeof(*row->values));
    row->counts = calloc(s->points, sizeof(*row->counts));
    row->have = calloc(s->points, sizeof(*row->have));
    if (row->values == NULL || row->counts == NULL || row->have == NULL) {
        free(row->values);
        free(row->counts);
        free(row->have);
        return NULL;
    }
    s->n_rows++;
    return row;
}

static uint64_t cell_of(const struct pm_table *table, int at)
{
    return at >= 0 && table->cells[at].have ? table->cells[at].u64 : 0;
}

static int count_row(struct series *s, const struct pm_table *table)
{
    const int64_t at_ns = table->cells[0].i64; /* timestamp_sec */
    const unsigned engine = (unsigned)cell_of(table, s->engine);
    const int rank =
        s->rank >= 0 && table->cells[s->rank].have ? (int)table->cells[s->rank].i64 : 0;
    const int phase = (int)(cell_of(table, s->phase) % PM_PHASE_CLASSES);
    const bool of_worker = pm_metric_of_worker(s->metrics);
    size_t point = at_ns > 0 ? (size_t)((uint64_t)at_ns / s->interval_ns) : 0;

    if (point >= s->points)
        point = s->points - 1;
    for (unsigned i = 0; i < s->n_metrics; i++) {
        const struct pm_metric *m = &s->metrics[i];
        if (m->field[0] != '\0' && s->fields[i] < 0)
            continue;
        const uint64_t value = m->field[0] != '\0' ? cell_of(table, s->fields[i]) : 1;
        if (m->type == PM_METRIC_TIME && value == 0)
            continue; /* it did not come */
        struct serie *row = find(s, i, engine, of_worker ? rank : -1, m->by_phase ? phase : -1);
        if (row == NULL)
            return s->n_rows == PM_OPENMETRICS_RANKS_MAX ? 0 : -PM_ENOMEM;
        row->have[point] = true;
        if (m->type == PM_METRIC_COUNTER || m->type == PM_METRIC_TIME) {
            row->values[point] += (double)value;
            row->counts[point]++;
        } else if (m->type == PM_METRIC_GAUGE) {
            row->values[point] = (double)value;
        } else {
            const uint64_t total = cell_of(table, s->totals);
            row->values[point] = total > 0 ? (double)value / (double)total : 0;
        }
    }
    return 0;
}

static int count_table(struct series *s)
{
    struct pm_table *table;
    if (pm_table_open(&table, s->session, s->metrics->schema, NULL) != 0)
        return 0; /* not recorded */
    for (size_t i = 0; i < s->n_metrics; i++)
        s->fields[i] = find_column(table, s->metrics[i].field);
    s->engine = find_column(table, "engine");
    s->rank = find_column(table, "rank");
    s->phase = find_column(table, "phase");
    s->totals = find_column(table, "total");
    int rc = strcmp(table->columns[0].name, "timestamp_sec") == 0 ? 1 : 0;
    while (rc == 1 && (rc = pm_table_next(table)) == 1) {
        rc = count_row(s, table);
        rc = rc == 0 ? 1 : rc;
    }
    pm_table_close(table);
    return rc;
}

/* ---- the text ---- */

static void put_point(struct series *s, const struct serie *row, const char *suffix, double value,
                      uint64_t real_ns)
{
    pm_metric_sample(&s->text, &s->metrics[row->metric], suffix, row->engine, row->rank, row->phase,
                     NULL);
    (void)pm_buf_printf(&s->text.buf, "%.15g ", value);
    pm_metric_seconds(&s->text.buf, real_ns);
    (void)pm_buf_add_char(&s->text.buf, '\n');
}

/* The points of one series; a gauge has none before its first value. */
static int put_points(struct series *s, const struct serie *row)
{
    const struct pm_metric *m = &s->metrics[row->metric];
    const bool adds_up = m->type == PM_METRIC_COUNTER || m->type == PM_METRIC_TIME;
    const uint64_t real_ns = pm_session_info(s->session)->start_real_ns;
    double value = 0, count = 0;
    bool any = adds_up;
    int rc = 0;

    for (size_t i = 0; i < s->points && rc == 0; i++) {
        uint64_t at_ns = (i + 1) * s->interval_ns;
        if (at_ns > s->end_ns)
            at_ns = s->end_ns;
        at_ns += real_ns;
        count += (double)row->counts[i];
        if (adds_up)
            value += row->values[i];
        else if (row->have[i])
            value = row->values[i];
        any = any || row->have[i];
        if (m->type == PM_METRIC_TIME) {
            put_point(s, row, "_count", count, at_ns);
            put_point(s, row, "_sum", value / 1e9, at_ns);
        } else if (any) {
            put_point(s, row, adds_up ? "_total" : "", value, at_ns);
        }
        rc = pm_metric_text_spill(&s->text, PM_OUTFILE_SPILL_BYTES);
    }
    return rc;
}

static int put_schema(struct series *s)
{
    int rc = 0;
    for (unsigned i = 0; i < s->n_metrics && rc == 0; i++) {
        const struct pm_metric *m = &s->metrics[i];
        if (i == 0 || strcmp(m->name, m[-1].name) != 0)
            pm_metric_head(&s->text, m, true);
        for (size_t r = 0; r < s->n_rows && rc == 0; r++) {
            const struct serie *row = &s->rows[r];
            if (row->metric == i)
                rc = put_points(s, row);
        }
    }
    return rc;
}

/* How long the session lasted, and in how many intervals. */
static int measure(struct series *s, struct pm_error *err)
{
    struct pm_sums sums;
    pm_session_sums(s->session, &sums);
    s->start_ns = pm_session_info(s->session)->start_mono_ns;
    s->end_ns = sums.end_ns > s->start_ns ? sums.end_ns - s->start_ns : 1;
    const uint64_t points = (s->end_ns + s->interval_ns - 1) / s->interval_ns;
    if (points > PM_OPENMETRICS_POINTS_MAX)
        return pm_error_set(err, -PM_EINVALID,
                            "%llu points a series are more than %u, give a longer interval",
                            (unsigned long long)points, PM_OPENMETRICS_POINTS_MAX);
    s->points = (size_t)points;
    return 0;
}

int pm_view_openmetrics_series(const struct pm_session *session, uint64_t interval_ns, FILE *out,
                               struct pm_error *err)
{
    struct series s = {.session = session, .interval_ns = interval_ns};
    int rc = interval_ns > 0 ? measure(&s, err)
                             : pm_error_set(err, -PM_EINVALID, "an interval of 0 s is none");
    if (rc != 0)
        return rc;
    rc = pm_metric_text_init(&s.text, session, out);
    for (size_t i = 0; i < pm_metrics_count && rc == 0; i += s.n_metrics) {
        s.metrics = &pm_metrics[i];
        s.n_metrics = 1;
        while (i + s.n_metrics < pm_metrics_count && s.n_metrics < METRICS_MAX &&
               strcmp(s.metrics[s.n_metrics].schema, s.metrics->schema) == 0)
            s.n_metrics++;
        rc = count_table(&s);
        if (rc == 0)
            rc = put_schema(&s);
        forget(&s);
    }
    (void)pm_buf_add_text(&s.text.buf, "# EOF\n");
    if (rc == 0)
        rc = pm_metric_text_spill(&s.text, 0);
    pm_metric_text_release(&s.text);
    return rc == 0 ? 0
                   : pm_error_set(err, rc, "the metrics cannot be written: %s", pm_strerror(rc));
}
