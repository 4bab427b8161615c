/*
 * The snapshot (openmetrics.h): each metric from the totals of the process that has it.
 */
#include "view/openmetrics.h"

#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"
#include "session/step_facts.h"
#include "view/outfile.h"
#include "view/table.h"
#include "view/window.h"

/* One engine's scheduler, or one of its workers, and its totals. */
struct part {
    unsigned engine;
    int rank; /* -1: the scheduler */
    const struct pm_process *process;
    const struct pm_totals *totals;
};

struct snapshot {
    struct pm_metric_text text;
    const struct pm_session *session;
    struct pm_totals *totals; /* by process; values NULL: it has none */
    struct part *parts;
    size_t n_parts;
};

/* ---- what there is ---- */

/* Totals are a process's: where it ran several engines one after another they are all of theirs,
 * and stand for the first. */
static void add_part(struct snapshot *s, unsigned engine, int rank,
                     const struct pm_process *process)
{
    if (process == NULL || s->n_parts == PM_OPENMETRICS_RANKS_MAX)
        return;
    for (size_t i = 0; i < s->n_parts; i++)
        if (s->parts[i].process == process && (s->parts[i].rank < 0) == (rank < 0))
            return;
    for (size_t p = 0; p < pm_session_process_count(s->session); p++)
        if (pm_session_process(s->session, p) == process && s->totals[p].values != NULL)
            s->parts[s->n_parts++] = (struct part){engine, rank, process, &s->totals[p]};
}

static int collect(struct snapshot *s)
{
    const size_t processes = pm_session_process_count(s->session);
    s->totals = calloc(processes + 1, sizeof(*s->totals));
    s->parts = calloc(PM_OPENMETRICS_RANKS_MAX, sizeof(*s->parts));
    if (s->totals == NULL || s->parts == NULL)
        return -PM_ENOMEM;
    for (size_t p = 0; p < processes; p++)
        if (pm_process_totals(pm_session_process(s->session, p), &s->totals[p]) != 0)
            s->totals[p] = (struct pm_totals){0};
    for (size_t e = 0; e < pm_session_engine_count(s->session); e++) {
        const struct pm_engine *engine = pm_session_engine(s->session, e);
        add_part(s, engine->number, -1, engine->process);
        for (unsigned n = 0; n < engine->n_ranks; n++) {
            const struct pm_process *process;
            unsigned instance;
            int rank;
            if (pm_engine_worker(s->session, e, n, &process, &instance, &rank) == 0)
                add_part(s, engine->number, rank >= 0 ? rank : (int)n, process);
        }
    }
    return 0;
}

static void release(struct snapshot *s)
{
    for (size_t p = 0; s->totals != NULL && p < pm_session_process_count(s->session); p++)
        pm_totals_free(&s->totals[p]);
    free(s->totals);
    free(s->parts);
    pm_metric_text_release(&s->text);
}

/* ---- counters and histograms ---- */

static void put_histogram(struct snapshot *s, const struct pm_metric *m, const struct part *part,
                          int phase, const struct pm_metric_sum *sum)
{
    struct pm_buf *buf = &s->text.buf;
    uint64_t below[PM_METRIC_BOUNDS];
    const uint64_t all = pm_metric_buckets(&sum->hist, below);

    for (unsigned i = 0; i < PM_METRIC_BOUNDS; i++) {
        struct pm_buf label;
        pm_buf_init(&label, 64);
        (void)pm_buf_add_text(&label, "le=\"");
        pm_metric_seconds(&label, 1ull << (PM_METRIC_FIRST_BOUND + i));
        (void)pm_buf_add_char(&label, '"');
        pm_metric_sample(&s->text, m, "_bucket", part->engine, part->rank, phase,
                         pm_buf_text(&label));
        (void)pm_buf_printf(buf, "%llu\n", (unsigned long long)below[i]);
        pm_buf_release(&label);
    }
    pm_metric_sample(&s->text, m, "_bucket", part->engine, part->rank, phase, "le=\"+Inf\"");
    (void)pm_buf_printf(buf, "%llu\n", (unsigned long long)all);
    pm_metric_sample(&s->text, m, "_count", part->engine, part->rank, phase, NULL);
    (void)pm_buf_printf(buf, "%llu\n", (unsigned long long)all);
    pm_metric_sample(&s->text, m, "_sum", part->engine, part->rank, phase, NULL);
    pm_metric_seconds(buf, sum->sum);
    (void)pm_buf_add_char(buf, '\n');
}

struct putting {
    struct snapshot *s;
    const struct pm_metric *m;
    const struct part *part;
};

static void put_sum(const struct pm_metric_sum *sum, int phase, void *arg)
{
    const struct putting *to = arg;
    struct snapshot *s = to->s;
    const struct pm_metric *m = to->m;
    const struct part *part = to->part;

    if (m->type == PM_METRIC_TIME) {
        put_histogram(s, m, part, phase, sum);
        return;
    }
    pm_metric_sample(&s->text, m, "_total", part->engine, part->rank, phase, NULL);
    (void)pm_buf_printf(&s->text.buf, "%llu\n",
                        (unsigned long long)(m->field[0] != '\0' ? sum->sum : sum->count));
}

static int put_metric(struct snapshot *s, const struct pm_metric *m)
{
    const bool of_worker = pm_metric_of_worker(m);
    for (size_t i = 0; i < s->n_parts; i++) {
        const struct part *part = &s->parts[i];
        struct putting to = {s, m, part};
        if ((part->rank >= 0) == of_worker)
            pm_metric_sums(part->process, part->totals, m, put_sum, &to);
    }
    return pm_metric_text_spill(&s->text, PM_OUTFILE_SPILL_BYTES);
}

/* ---- gauges: the last values of the session's last minute ---- */

static double number(const struct pm_cell *cell)
{
    return cell->have ? (double)cell->u64 : 0;
}

static int column(const struct pm_table *table, const char *name)
{
    for (size_t i = 0; i < table->n_columns; i++)
        if (strcmp(table->columns[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int put_gauge(struct snapshot *s, const struct pm_session *end, const struct pm_metric *m)
{
    double last[64] = {0};
    bool have[64] = {false};
    struct pm_table *table;

    if (pm_table_open(&table, end, m->schema, NULL) != 0)
        return 0; /* not recorded */
    const int field = column(table, m->field), engine = column(table, "engine"),
              total = column(table, "total");
    int rc = field < 0 || engine < 0 ? 0 : 1;
    while (rc == 1 && (rc = pm_table_next(table)) == 1) {
        const uint64_t e = table->cells[engine].have ? table->cells[engine].u64 : ~0ull;
        if (e >= 64)
            continue;
        const double all = total >= 0 ? number(&table->cells[total]) : 0;
        last[e] = number(&table->cells[field]);
        if (m->type == PM_METRIC_RATIO)
            last[e] = all > 0 ? last[e] / all : 0;
        have[e] = true;
    }
    pm_table_close(table);
    for (unsigned e = 0; e < 64 && rc == 0; e++)
        if (have[e]) {
            pm_metric_sample(&s->text, m, "", e, -1, -1, NULL);
            (void)pm_buf_printf(&s->text.buf, "%.15g\n", last[e]);
        }
    return rc;
}

/* The session once more, its last minute only: what came before need not be read. */
static struct pm_session *open_end(const struct pm_session *session)
{
    const struct pm_window_options last = {.last = "60s"};
    struct pm_session *end;
    struct pm_window window;
    if (pm_session_open(&end, pm_session_info(session)->path, NULL) != 0)
        return NULL;
    if (pm_window_parse(end, &last, &window, NULL) == 0 && pm_window_apply(end, &window, NULL) == 0)
        return end;
    pm_session_close(end);
    return NULL;
}

/* ---- the session and its processes ---- */

static void own(struct snapshot *s, const char *name, const char *type, const char *unit,
                const char *help)
{
    (void)pm_buf_printf(&s->text.buf, "# TYPE profilemate_%s %s\n", name, type);
    if (unit[0] != '\0')
        (void)pm_buf_printf(&s->text.buf, "# UNIT profilemate_%s %s\n", name, unit);
    (void)pm_buf_printf(&s->text.buf, "# HELP profilemate_%s %s\n", name, help);
}

static void own_sample(struct snapshot *s, const char *name, const struct pm_process_info *info)
{
    char roles[64];
    pm_roles_name(info->roles, roles, sizeof(roles));
    (void)pm_buf_printf(&s->text.buf, "profilemate_%s{pid=\"%u\",role=\"%s\"} ", name, info->pid,
                        roles);
}

enum { OWN_UP, OWN_LOST, OWN_FAULTS, OWN_CALLS, OWN_SECONDS, OWN_COUNT };

static void put_own(struct snapshot *s, int which, const struct pm_process_info *info)
{
    static const char *const names[OWN_COUNT] = {"process_up", "records_lost_total",
                                                 "hook_faults_total", "hook_calls_total",
                                                 "hook_seconds_total"};
    struct pm_buf *buf = &s->text.buf;
    uint64_t lost = 0;
    for (int i = 0; i < PM_STREAM_COUNT; i++)
        lost += info->lost[i];
    const uint64_t values[OWN_COUNT] = {info->life == PM_LIFE_RUNNING, lost, info->faults,
                                        info->hook_calls, 0};
    own_sample(s, names[which], info);
    if (which == OWN_SECONDS)
        pm_metric_seconds(buf, info->hook_ns);
    else
        (void)pm_buf_printf(buf, "%llu", (unsigned long long)values[which]);
    (void)pm_buf_add_char(buf, '\n');
}

static void put_session(struct snapshot *s)
{
    const char *vllm = pm_session_attr(s->session, PM_ATTR_VLLM);
    struct pm_buf *buf = &s->text.buf;
    own(s, "session", "info", "", "The session that these metrics are of.");
    (void)pm_buf_add_text(buf, "profilemate_session_info{session=\"");
    pm_metric_escape(buf, pm_session_info(s->session)->name);
    (void)pm_buf_add_text(buf, "\",model_name=\"");
    (void)pm_buf_add(buf, s->text.model.data, s->text.model.used);
    (void)pm_buf_add_text(buf, "\",vllm=\"");
    pm_metric_escape(buf, vllm != NULL ? vllm : "");
    (void)pm_buf_printf(buf, "\",state=\"%s\"} 1\n", pm_session_state(s->session));
}

static int put_processes(struct snapshot *s)
{
    put_session(s);
    for (int which = 0; which < OWN_COUNT; which++) {
        static const char *const heads[OWN_COUNT][4] = {
            {"process_up", "gauge", "", "1 while the process runs."},
            {"records_lost", "counter", "", "Records that found no room."},
            {"hook_faults", "counter", "", "Failures of the profiler inside hooks."},
            {"hook_calls", "counter", "", "Hooked calls."},
            {"hook_seconds", "counter", "seconds", "Time in the profiler, from every 64th call."},
        };
        own(s, heads[which][0], heads[which][1], heads[which][2], heads[which][3]);
        for (size_t p = 0; p < pm_session_process_count(s->session); p++)
            put_own(s, which, pm_process_info(pm_session_process(s->session, p)));
    }
    return pm_metric_text_spill(&s->text, PM_OUTFILE_SPILL_BYTES);
}

int pm_view_openmetrics(const struct pm_session *session, FILE *out, struct pm_error *err)
{
    struct snapshot s = {.session = session};
    struct pm_session *end = NULL;
    int rc = pm_metric_text_init(&s.text, session, out);

    if (rc == 0)
        rc = collect(&s);
    if (rc == 0)
        rc = put_processes(&s);
    if (rc == 0)
        end = open_end(session);
    for (size_t i = 0; i < pm_metrics_count && rc == 0; i++) {
        const struct pm_metric *m = &pm_metrics[i];
        if (i == 0 || strcmp(m->name, m[-1].name) != 0)
            pm_metric_head(&s.text, m, false);
        if (m->type == PM_METRIC_COUNTER || m->type == PM_METRIC_TIME)
            rc = put_metric(&s, m);
        else if (end != NULL)
            rc = put_gauge(&s, end, m);
    }
    (void)pm_buf_add_text(&s.text.buf, "# EOF\n");
    if (rc == 0)
        rc = pm_metric_text_spill(&s.text, 0);
    if (end != NULL)
        pm_session_close(end);
    release(&s);
    return rc == 0 ? 0
                   : pm_error_set(err, rc, "the metrics cannot be written: %s", pm_strerror(rc));
}
