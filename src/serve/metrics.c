/*
 * The metrics of all sessions (metrics.h): family by family, and in each of them session by
 * session, as the forms want it.
 */
#include "serve/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/scrape.h"
#include "session/step_facts.h"
#include "view/openmetrics.h"

/* ---- what there is ---- */

static int add_part(struct scrape *s, const struct part *part)
{
    /* Totals are a process's: where it ran several engines one after another they are all of
     * theirs, and stand for the first. */
    for (size_t i = 0; i < s->n_parts; i++)
        if (s->parts[i].process == part->process && (s->parts[i].n < 0) == (part->n < 0))
            return 0;
    if (s->n_parts == s->capacity) {
        const size_t capacity = s->capacity * 2 + 16;
        struct part *more = realloc(s->parts, capacity * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        s->parts = more;
        s->capacity = capacity;
    }
    s->parts[s->n_parts++] = *part;
    return 0;
}

static int collect_session(struct scrape *s, size_t i)
{
    const struct pm_live *live = pm_serve_at(s->serve, i);
    struct session *session = &s->sessions[i];
    int rc = 0;

    session->view = pm_live_view(live);
    pm_serve_id(s->serve, i, session->id, sizeof(session->id));
    pm_metric_model_name(session->view->session, session->model, sizeof(session->model));
    for (size_t e = 0; e < session->view->n_engines && rc == 0; e++) {
        const struct pm_live_engine *engine = &session->view->engines[e];
        struct part part = {.session = i, .engine = e, .n = -1, .rank = -1};
        if (pm_live_process_totals(live, e, -1, &part.process, &part.totals))
            rc = add_part(s, &part);
        for (size_t n = 0; n < engine->n_ranks && n < PM_OPENMETRICS_RANKS_MAX && rc == 0; n++) {
            part.n = (int)n;
            part.rank = engine->ranks[n].rank >= 0 ? engine->ranks[n].rank : (int)n;
            if (pm_live_process_totals(live, e, part.n, &part.process, &part.totals))
                rc = add_part(s, &part);
        }
    }
    return rc;
}

static int collect(struct scrape *s)
{
    s->n_sessions = pm_serve_count(s->serve);
    s->sessions = calloc(s->n_sessions + 1, sizeof(*s->sessions));
    int rc = s->sessions != NULL ? 0 : -PM_ENOMEM;
    for (size_t i = 0; i < s->n_sessions && rc == 0; i++)
        rc = collect_session(s, i);
    return rc;
}

/* ---- labels ---- */

void pm_label_session(const struct scrape *s, size_t session, struct pm_labels *ret_labels)
{
    *ret_labels = (struct pm_labels){0};
    pm_labels_add(ret_labels, "model_name", s->sessions[session].model);
    pm_labels_add(ret_labels, "session", s->sessions[session].id);
}

void pm_label_engine(const struct scrape *s, size_t session, size_t engine, struct label_text *text,
                     struct pm_labels *ret_labels)
{
    pm_label_session(s, session, ret_labels);
    snprintf(text->engine, sizeof(text->engine), "%u",
             s->sessions[session].view->engines[engine].number);
    pm_labels_add(ret_labels, "engine", text->engine);
}

void pm_label_rank(int rank, struct label_text *text, struct pm_labels *labels)
{
    snprintf(text->rank, sizeof(text->rank), "%d", rank);
    pm_labels_add(labels, "rank", text->rank);
}

/* A row's own label, name="value". */
static void label_kind(const char *label, struct label_text *text, struct pm_labels *labels)
{
    const char *value = strstr(label, "=\"");
    const size_t name = value != NULL ? (size_t)(value - label) : 0;
    if (value == NULL || strlen(label) >= sizeof(text->kind))
        return;
    snprintf(text->kind, sizeof(text->kind), "%s", label);
    text->kind[name] = '\0';
    text->kind[strlen(label) - 1] = '\0'; /* its closing quote */
    pm_labels_add(labels, text->kind, text->kind + name + 2);
}

/* ---- what comes from records ---- */

struct putting {
    struct scrape *s;
    const struct pm_metric *m;
    const struct part *part;
};

static void put_sum(const struct pm_metric_sum *sum, int phase, void *arg)
{
    static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
    const struct putting *to = arg;
    struct scrape *s = to->s;
    const struct pm_metric *m = to->m;
    const struct part *part = to->part;
    struct label_text text = {.engine = ""};
    struct pm_labels labels;

    pm_label_engine(s, part->session, part->engine, &text, &labels);
    if (part->rank >= 0)
        pm_label_rank(part->rank, &text, &labels);
    if (phase >= 0)
        pm_labels_add(&labels, "phase", phases[phase]);
    label_kind(m->label, &text, &labels);
    if (m->type == PM_METRIC_TIME)
        pm_expose_histogram(&s->expose, &labels, &sum->hist, sum->sum);
    else
        pm_expose_count(&s->expose, &labels, m->field[0] != '\0' ? sum->sum : sum->count);
}

static void put_totals(struct scrape *s, const struct pm_metric *m)
{
    const bool of_worker = pm_metric_of_worker(m);
    for (size_t i = 0; i < s->n_parts; i++) {
        const struct part *part = &s->parts[i];
        struct putting to = {s, m, part};
        if ((part->n >= 0) == of_worker)
            pm_metric_sums(part->process, part->totals, m, put_sum, &to);
    }
}

/* The newest level of a field, from the engine's view; false: there is none. */
static bool level(const struct pm_live_engine *engine, const struct pm_metric *m, double *ret_level)
{
    const double total = engine->kv_total;
    if (strcmp(m->schema, "kv_step") == 0) {
        if (!engine->has_kv)
            return false;
        *ret_level = m->type != PM_METRIC_RATIO ? total : total > 0 ? engine->kv_used / total : 0;
        return true;
    }
    *ret_level = strcmp(m->field, "running") == 0 ? engine->running : engine->waiting;
    return engine->stepped;
}

static void put_levels(struct scrape *s, const struct pm_metric *m)
{
    for (size_t i = 0; i < s->n_sessions; i++)
        for (size_t e = 0; e < s->sessions[i].view->n_engines; e++) {
            struct label_text text = {.engine = ""};
            struct pm_labels labels;
            double value;
            if (!level(&s->sessions[i].view->engines[e], m, &value))
                continue;
            pm_label_engine(s, i, e, &text, &labels);
            pm_expose_number(&s->expose, &labels, value);
        }
}

static void put_records(struct scrape *s)
{
    static const enum pm_family_type types[] = {[PM_METRIC_COUNTER] = PM_FAMILY_COUNTER,
                                                [PM_METRIC_TIME] = PM_FAMILY_HISTOGRAM,
                                                [PM_METRIC_GAUGE] = PM_FAMILY_GAUGE,
                                                [PM_METRIC_RATIO] = PM_FAMILY_GAUGE};
    for (size_t i = 0; i < pm_metrics_count; i++) {
        const struct pm_metric *m = &pm_metrics[i];
        if (i == 0 || strcmp(m->name, m[-1].name) != 0)
            pm_expose_family(&s->expose,
                             &(struct pm_family){.name = m->name,
                                                 .type = types[m->type],
                                                 .unit = m->type == PM_METRIC_TIME    ? "seconds"
                                                         : m->type == PM_METRIC_RATIO ? "ratio"
                                                                                      : "",
                                                 .help = m->help});
        if (m->type == PM_METRIC_COUNTER || m->type == PM_METRIC_TIME)
            put_totals(s, m);
        else
            put_levels(s, m);
    }
}

int pm_serve_metrics(const struct pm_serve *serve, enum pm_serve_format format, struct pm_buf *buf)
{
    struct scrape s = {.serve = serve};
    int rc = collect(&s);
    if (rc == 0) {
        pm_expose_begin(&s.expose, format, buf);
        s.expose.now_ns = pm_clock_real_ns();
        pm_scrape_own(&s);
        put_records(&s);
        rc = pm_expose_end(&s.expose);
    }
    free(s.parts);
    free(s.sessions);
    return rc;
}

const char *pm_serve_metrics_type(enum pm_serve_format format)
{
    return format == PM_FORMAT_PROTOBUF
               ? "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
                 "encoding=delimited"
           : format == PM_FORMAT_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}
