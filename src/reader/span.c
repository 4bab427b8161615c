/* See span.h. Called by cursor.c and requests.c; pm_session_see by the program, one thread. */
#include "reader/span.h"

#include "reader/engine_facts.h"
#include "reader/steps.h"

#include <stdlib.h>
#include <string.h>

/* No fact of a step comes later than this after the span that it belongs to: what a step under way
 * at its end may take. */
#define LATE_NS 60000000000u

/* The steps of one scheduler, or worker, that are in the span. */
struct range {
    const struct pm_process *process;
    unsigned instance;
    bool any;
    uint64_t from, to; /* both included */
};

struct pm_span_view {
    struct pm_span span;
    uint64_t from_ns, to_ns; /* of what goes by its moment: from <= t < to */
    struct range *ranges;
    size_t n_ranges;
};

static const struct pm_field *field_named(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

static const struct pm_field *first_time(const struct pm_schema *schema)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (schema->fields[i].kind == PM_KIND_TIME)
            return &schema->fields[i];
    return NULL;
}

void pm_span_rule_make(struct pm_span_rule *ret_rule, const struct pm_schema *schema)
{
    struct pm_span_rule rule = {.way = PM_SPAN_ALWAYS};
    const char *const name = schema->name;

    if (schema->stream == PM_STREAM_KEEP || strcmp(name, "moe_layer") == 0 ||
        strcmp(name, "sampling_mix") == 0 /* holds until the next one */) {
        *ret_rule = rule;
        return;
    }
    if (strcmp(name, "moe_totals") == 0 || strcmp(name, "graph_usage") == 0) {
        rule.way = PM_SPAN_NEVER;
    } else if (strcmp(name, "request") == 0 || strcmp(name, "request_open") == 0) {
        rule.way = PM_SPAN_LIFE;
        rule.time = field_named(schema, "queued_ns");
        rule.until = field_named(schema, "finished_ns");
    } else if ((rule.step = field_named(schema, "step")) != NULL) {
        rule.way = PM_SPAN_STEP;
        rule.instance = field_named(schema, "instance");
        rule.time = first_time(schema);
    } else {
        rule.time = first_time(schema);
        rule.way = rule.time != NULL ? PM_SPAN_TIME : PM_SPAN_ALWAYS;
    }
    *ret_rule = rule;
}

bool pm_span_has_step(const struct pm_span_view *view, const struct pm_process *process,
                      unsigned instance, uint64_t step)
{
    for (size_t i = 0; i < view->n_ranges; i++) {
        const struct range *range = &view->ranges[i];
        if (range->process == process && range->instance == instance)
            return range->any && step >= range->from && step <= range->to;
    }
    return false;
}

bool pm_span_has(const struct pm_span_view *view, const struct pm_process *process,
                 const struct pm_span_rule *rule, const uint8_t *payload)
{
    uint64_t from, until;

    switch (rule->way) {
    case PM_SPAN_NEVER:
        return false;
    case PM_SPAN_STEP:
        return pm_span_has_step(
            view, process,
            rule->instance != NULL ? (unsigned)pm_field_get(rule->instance, payload) : 0,
            pm_field_get(rule->step, payload));
    case PM_SPAN_TIME:
        from = pm_field_get(rule->time, payload);
        return from >= view->from_ns && from < view->to_ns;
    case PM_SPAN_LIFE:
        from = rule->time != NULL ? pm_field_get(rule->time, payload) : 0;
        until = rule->until != NULL ? pm_field_get(rule->until, payload) : 0;
        return from < view->to_ns && (until == 0 || until >= view->from_ns);
    case PM_SPAN_ALWAYS:
    default:
        return true;
    }
}

static uint64_t early(uint64_t from_ns)
{
    return from_ns > LATE_NS ? from_ns - LATE_NS : 0;
}

bool pm_span_is_over(const struct pm_span_view *view, const struct pm_span_rule *rule,
                     const uint8_t *payload)
{
    return rule->way == PM_SPAN_STEP && rule->time != NULL && view->to_ns < UINT64_MAX - LATE_NS &&
           pm_field_get(rule->time, payload) > view->to_ns + LATE_NS;
}

uint64_t pm_span_from_ns(const struct pm_span_view *view)
{
    return view->from_ns;
}

uint64_t pm_span_skip_ns(const struct pm_span_view *view)
{
    return early(view->from_ns);
}

uint64_t pm_span_to_ns(const struct pm_span_view *view)
{
    return view->to_ns;
}

void pm_span_free(struct pm_span_view *view)
{
    if (view == NULL)
        return;
    free(view->ranges);
    free(view);
}

/* ---- laying one over a session ---- */

/* The steps of an engine's scheduler that are in the span, and the moments that they cover. */
static int find_steps(const struct pm_session *session, size_t engine, const struct pm_span *span,
                      struct range *range, uint64_t *first_ns, uint64_t *after_ns)
{
    struct pm_engine_facts *facts;
    struct pm_sched_step step;
    bool beyond = false;
    int rc = pm_engine_facts_open(&facts, session, engine, PM_ENGINE_SCHED);

    if (rc != 0)
        return rc;
    if (!span->by_steps)
        pm_engine_facts_skip(facts, early(span->from_ns));
    while (!beyond && (rc = pm_engine_facts_next(facts, &step)) == 1) {
        const bool in = span->by_steps
                            ? step.step >= span->from_step && step.step <= span->to_step
                            : step.start_ns >= span->from_ns && step.start_ns < span->to_ns;
        if (in) {
            if (!range->any) {
                range->from = step.step;
                *first_ns = step.start_ns < *first_ns ? step.start_ns : *first_ns;
            }
            range->any = true;
            range->to = step.step;
        } else if (range->any) {
            beyond = true;
            *after_ns = step.start_ns > *after_ns ? step.start_ns : *after_ns;
        }
    }
    if (beyond)
        rc = 0;
    else if (rc == 0 && range->any)
        *after_ns = UINT64_MAX; /* its last step is in: nothing follows */
    pm_engine_facts_close(facts);
    return rc;
}

static int add_range(struct pm_span_view *view, const struct range *range)
{
    struct range *more = realloc(view->ranges, (view->n_ranges + 1) * sizeof(*more));
    if (more == NULL)
        return -PM_ENOMEM;
    view->ranges = more;
    view->ranges[view->n_ranges++] = *range;
    return 0;
}

/* The scheduler of an engine, then its workers: they number alike. */
static int add_engine(struct pm_span_view *view, const struct pm_session *session, size_t engine,
                      uint64_t *first_ns, uint64_t *after_ns)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    struct range range = {.process = which->process, .instance = which->instance};
    int rank, rc = 0;

    if (which->process != NULL)
        rc = find_steps(session, engine, &view->span, &range, first_ns, after_ns);
    else if (view->span.by_steps) /* workers alone: their own numbers are all there is */
        range = (struct range){.any = true, .from = view->span.from_step, .to = view->span.to_step};
    if (rc == 0 && which->process != NULL)
        rc = add_range(view, &range);
    for (unsigned n = 0; n < which->n_ranks && rc == 0; n++) {
        struct range worker = range;
        if (pm_engine_worker(session, engine, n, &worker.process, &worker.instance, &rank) == 0 &&
            (worker.process != which->process || worker.instance != which->instance))
            rc = add_range(view, &worker);
    }
    return rc;
}

/* Detail that had to go before the span began is missed by nobody. */
static void forget_what_went(struct pm_session *session, const struct pm_span_view *view)
{
    bool told = false;
    for (size_t p = 0; p < session->n_processes; p++) {
        struct pm_process *process = session->processes[p];
        struct pm_segment_list lists[PM_STREAM_COUNT];
        if (pm_segments_list(process, (1u << PM_STREAM_COUNT) - 1, lists) != 0)
            continue;
        for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
            if (process->info.first_fact[s] == 0)
                continue;
            if (lists[s].count > 0 && lists[s].refs[0].begun_ns <= view->from_ns)
                process->info.first_fact[s] = 0;
            else
                told = true;
        }
        pm_segments_free(lists);
    }
    if (told)
        pm_session_add_note(session, "some of the detail that was asked for had to go: figures are "
                                     "of what is left of it");
}

static bool same(const struct pm_span *a, const struct pm_span *b)
{
    return a->by_steps == b->by_steps && a->from_ns == b->from_ns && a->to_ns == b->to_ns &&
           a->from_step == b->from_step && a->to_step == b->to_step;
}

int pm_session_see(const struct pm_session *session, const struct pm_span *span)
{
    uint64_t first_ns = UINT64_MAX, after_ns = 0;
    bool any = false;
    int rc = 0;

    if (session->view != NULL)
        return same(&session->view->span, span) ? 0 : -PM_EINVALID;
    struct pm_span_view *view = calloc(1, sizeof(*view));
    if (view == NULL)
        return -PM_ENOMEM;
    view->span = *span;
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++)
        rc = add_engine(view, session, e, &first_ns, &after_ns);
    for (size_t i = 0; i < view->n_ranges; i++)
        any = any || view->ranges[i].any;
    view->from_ns = span->from_ns;
    view->to_ns = span->to_ns;
    if (span->by_steps) {
        if (rc == 0 && !any)
            rc = -PM_ENOTFOUND;
        view->from_ns = first_ns != UINT64_MAX ? first_ns : 0;
        view->to_ns = after_ns != 0 ? after_ns : UINT64_MAX;
    }
    if (rc != 0) {
        pm_span_free(view);
        return rc;
    }
    forget_what_went(session->self, view);
    session->self->view = view;
    return 0;
}

const struct pm_span *pm_session_span(const struct pm_session *session)
{
    return session->view != NULL ? &session->view->span : NULL;
}

bool pm_session_span_steps(const struct pm_session *session, size_t engine, uint64_t *ret_from,
                           uint64_t *ret_to)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    if (session->view == NULL || which == NULL || which->process == NULL)
        return false;
    for (size_t i = 0; i < session->view->n_ranges; i++) {
        const struct range *range = &session->view->ranges[i];
        if (range->process != which->process || range->instance != which->instance)
            continue;
        *ret_from = range->from;
        *ret_to = range->to;
        return range->any;
    }
    return false;
}
