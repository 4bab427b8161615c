/*
 * Steps on the timeline (timeline.h): schedule() and update_from_output of each engine's scheduler,
 * each step of each worker with its parts, the queues, and the flows from a step to requests.
 */
#include "view/timeline.h"

#include <stdlib.h>

#include "reader/engine_facts.h"
#include "reader/requests.h"
#include "view/columns.h"

#define SCHEDULER_TID 1u
#define WORKER_TID 16u
#define FLOWS_MAX 4096 /* of one step; vLLM's batches are far below */

static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
static const char *const clocks[4] = {"none", "wall", "sync", "events"};

static struct pm_timeline_track counter_of(const struct pm_process *process, unsigned engine,
                                           const char *name, const char *unit)
{
    return (struct pm_timeline_track){
        .kind = PM_TIMELINE_COUNTER,
        .id = pm_timeline_id("counter", engine, 0, name),
        .parent = pm_timeline_process_id(process),
        .pid = pm_process_info(process)->pid,
        .name = name,
        .unit = unit,
    };
}

/* ---- the scheduler ---- */

struct scheduler {
    struct pm_timeline *t;
    struct pm_timeline_track track, counters[4]; /* running, waiting, requests, tokens */
};

static int put_schedule(struct scheduler *s, const struct pm_sched_step *fact)
{
    const struct pm_timeline_sink *sink = s->t->sink;
    const struct pm_timeline_arg args[] = {
        {"step", NULL, fact->step},
        {"requests", NULL, fact->requests},
        {"tokens", NULL, fact->tokens},
        {"prefill_tokens", NULL, fact->prefill_tokens},
        {"recompute_tokens", NULL, fact->recompute_tokens},
        {"decode_tokens", NULL, fact->decode_tokens},
        {"joined", NULL, fact->joined},
        {"left", NULL, fact->left},
    };
    const struct pm_timeline_event event = {
        .track = &s->track,
        .category = "scheduler",
        .name = "schedule",
        .at_ns = fact->start_ns,
        .dur_ns = fact->dur_ns,
        .args = args,
        .n_args = sizeof(args) / sizeof(args[0]),
    };
    const uint32_t levels[4] = {fact->running, fact->waiting, fact->requests, fact->tokens};
    int rc = sink->slice(sink->arg, &event);
    for (int i = 0; i < 4 && rc == 0; i++)
        rc = sink->counter(sink->arg, &s->counters[i], fact->start_ns + fact->dur_ns, levels[i]);
    return rc;
}

static int put_update(struct scheduler *s, const struct pm_update_step *fact)
{
    const struct pm_timeline_sink *sink = s->t->sink;
    const struct pm_timeline_arg args[] = {
        {"step", NULL, fact->step},
        {"outputs", NULL, fact->outputs},
        {"output_tokens", NULL, fact->output_tokens},
        {"finished", NULL, fact->finished},
        {"drafted", NULL, fact->drafted},
        {"accepted", NULL, fact->accepted},
    };
    const struct pm_timeline_event event = {
        .track = &s->track,
        .category = "scheduler",
        .name = "update_from_output",
        .at_ns = fact->start_ns,
        .dur_ns = fact->dur_ns,
        .args = args,
        .n_args = sizeof(args) / sizeof(args[0]),
    };
    return sink->slice(sink->arg, &event);
}

static int walk_sched(struct scheduler *s, size_t engine)
{
    struct pm_engine_facts *facts;
    struct pm_sched_step fact;
    int rc = pm_engine_facts_open(&facts, s->t->session, engine, PM_ENGINE_SCHED);
    if (rc != 0)
        return rc;
    while ((rc = pm_engine_facts_next(facts, &fact)) == 1)
        if ((rc = put_schedule(s, &fact)) != 0)
            break;
    pm_engine_facts_close(facts);
    return rc;
}

static int walk_updates(struct scheduler *s, size_t engine)
{
    struct pm_engine_facts *facts;
    struct pm_update_step fact;
    int rc = pm_engine_facts_open(&facts, s->t->session, engine, PM_ENGINE_UPDATE);
    if (rc != 0)
        return rc;
    while ((rc = pm_engine_facts_next(facts, &fact)) == 1)
        if ((rc = put_update(s, &fact)) != 0)
            break;
    pm_engine_facts_close(facts);
    return rc;
}

int pm_timeline_scheduler(struct pm_timeline *t, size_t engine)
{
    static const char *const names[4] = {"running requests", "waiting requests",
                                         "requests in the batch", "tokens in the batch"};
    const struct pm_engine *which = pm_session_engine(t->session, engine);
    if (which->process == NULL)
        return 0;
    struct scheduler s = {
        .t = t,
        .track = {.kind = PM_TIMELINE_THREAD,
                  .id = pm_timeline_id("scheduler", which->number, 0, ""),
                  .parent = pm_timeline_process_id(which->process),
                  .pid = pm_process_info(which->process)->pid,
                  .tid = SCHEDULER_TID,
                  .name = "scheduler"},
    };
    int rc = t->sink->track(t->sink->arg, &s.track);
    for (int i = 0; i < 4 && rc == 0; i++) {
        s.counters[i] =
            counter_of(which->process, which->number, names[i], i == 3 ? "tokens" : "requests");
        rc = t->sink->track(t->sink->arg, &s.counters[i]);
    }
    if (rc == 0)
        rc = walk_sched(&s, engine);
    return rc == 0 ? walk_updates(&s, engine) : rc;
}

/* ---- who did what in a step ---- */

struct member {
    char id[PM_REQUEST_ID_MAX];
    uint32_t tokens;
    uint8_t phase, event;
};

/* The step_request facts of one scheduler, read along with its steps. */
struct members {
    struct pm_cursor *cursor; /* NULL: there are none */
    int number;               /* of the schema */
    unsigned instance;
    const struct pm_field *f_step, *f_instance, *f_request, *f_tokens, *f_phase, *f_event;
    bool ahead; /* next is of a step to come */
    uint64_t next_step;
    struct member next;
    struct member *rows; /* of the step asked for */
    uint64_t *flows;
    size_t count;
};

static int members_open(struct members *m, const struct pm_engine *engine)
{
    *m = (struct members){0};
    if (engine->process == NULL)
        return 0;
    m->number = pm_process_schema_find(engine->process, "step_request");
    if (m->number < 0)
        return 0;
    const struct pm_schema *schema = pm_process_schema(engine->process, (size_t)m->number);
    m->instance = engine->instance;
    m->f_step = pm_column(schema, "step");
    m->f_instance = pm_column(schema, "instance");
    m->f_request = pm_column(schema, "request");
    m->f_tokens = pm_column(schema, "tokens");
    m->f_phase = pm_column(schema, "phase");
    m->f_event = pm_column(schema, "event");
    m->rows = malloc(FLOWS_MAX * sizeof(*m->rows));
    m->flows = malloc(FLOWS_MAX * sizeof(*m->flows));
    if (m->rows == NULL || m->flows == NULL)
        return -PM_ENOMEM;
    return pm_cursor_open(&m->cursor, engine->process, schema->stream);
}

static void members_close(struct members *m)
{
    pm_cursor_close(m->cursor);
    free(m->rows);
    free(m->flows);
}

/* Scheduled with tokens, in a way that is told (a decode that goes on is not). */
static bool has_work(const struct member *member)
{
    return member->tokens > 0 &&
           (member->event == PM_REQUEST_STARTED || member->event == PM_REQUEST_RESUMED ||
            member->event == PM_REQUEST_CHUNK || member->event == PM_REQUEST_DECODING);
}

/* Reads on to the next fact that matters: m->next, or m->ahead is false at the end. */
static int members_read(struct members *m)
{
    struct pm_record record;
    int rc;
    m->ahead = false;
    while ((rc = pm_cursor_next(m->cursor, &record)) == 1) {
        if ((int)record.schema != m->number || record.keyframe ||
            pm_column_get(m->f_instance, record.payload) != m->instance)
            continue;
        m->next.tokens = (uint32_t)pm_column_get(m->f_tokens, record.payload);
        m->next.phase = (uint8_t)pm_column_get(m->f_phase, record.payload);
        m->next.event = (uint8_t)pm_column_get(m->f_event, record.payload);
        if (!has_work(&m->next) || m->f_request == NULL)
            continue;
        snprintf(m->next.id, sizeof(m->next.id), "%s",
                 pm_cursor_string(m->cursor, (uint32_t)pm_field_get(m->f_request, record.payload)));
        m->next_step = pm_column_get(m->f_step, record.payload);
        m->ahead = true;
        return 0;
    }
    return rc;
}

/* Fills rows with those of this step; steps are asked for in order. */
static int members_of(struct members *m, uint64_t step)
{
    int rc = 0;
    m->count = 0;
    if (m->cursor == NULL)
        return 0;
    if (!m->ahead)
        rc = members_read(m);
    while (rc == 0 && m->ahead && m->next_step <= step) {
        if (m->next_step == step && m->count < FLOWS_MAX)
            m->rows[m->count++] = m->next;
        rc = members_read(m);
    }
    return rc;
}

/* ---- a worker ---- */

struct worker {
    struct pm_timeline *t;
    unsigned engine;
    struct pm_timeline_track track;
    struct members *members; /* NULL: flows are another worker's */
};

static int part(const struct worker *w, const char *name, uint64_t at_ns, uint64_t dur_ns)
{
    const struct pm_timeline_event event = {
        .track = &w->track, .category = "step", .name = name, .at_ns = at_ns, .dur_ns = dur_ns};
    return dur_ns > 0 ? w->t->sink->slice(w->t->sink->arg, &event) : 0;
}

static int put_step(const struct worker *w, const struct pm_step *s)
{
    const struct pm_timeline_sink *sink = w->t->sink;
    const struct members *m = w->members;
    const struct pm_timeline_arg args[] = {
        {"step", NULL, s->step},
        {"requests", NULL, s->requests},
        {"tokens", NULL, s->tokens},
        {"prefill_requests", NULL, s->prefill_requests},
        {"prefill_tokens", NULL, s->prefill_tokens},
        {"recompute_tokens", NULL, s->recompute_tokens},
        {"decode_requests", NULL, s->decode_requests},
        {"decode_tokens", NULL, s->decode_tokens},
        {"forward_ns", NULL, s->forward_ns},
        {"forward_clock", clocks[s->forward_clock & 3], 0},
        {"device_wait_ns", NULL, s->device_wait_ns},
        {"device_sample_ns", NULL, s->device_sample_ns},
    };
    for (size_t i = 0; m != NULL && i < m->count; i++)
        m->flows[i] = pm_timeline_flow(w->engine, s->step, m->rows[i].id);
    const struct pm_timeline_event event = {
        .track = &w->track,
        .category = "step",
        .name = s->mixed ? "mixed" : phases[s->phase % PM_PHASE_CLASSES],
        .at_ns = s->worker_start_ns,
        .dur_ns = s->total_ns,
        .args = args,
        .n_args = sizeof(args) / sizeof(args[0]) - (s->has_device ? 0 : 2),
        .flows_out = m != NULL ? m->flows : NULL,
        .n_flows_out = m != NULL ? m->count : 0,
    };
    const uint64_t model_ns = s->worker_start_ns + s->pre_ns;
    const uint64_t sample_ns = s->worker_start_ns + s->total_ns - s->sample_ns;
    int rc = sink->slice(sink->arg, &event);
    if (rc == 0)
        rc = part(w, "pre", s->worker_start_ns, s->pre_ns);
    if (rc == 0)
        rc = part(w, "model", model_ns, s->model_ns);
    if (rc == 0)
        rc = part(w, "post", model_ns + s->model_ns, s->post_ns);
    if (rc == 0 && s->sample_ns <= s->total_ns)
        rc = part(w, "sample", sample_ns, s->sample_ns);
    if (rc == 0 && s->sampler_ns > 0)
        rc = part(w, "sampler", s->worker_start_ns + s->sampler_at_ns, s->sampler_ns);
    if (rc == 0 && s->bookkeep_ns > 0)
        rc = part(w, "bookkeeping", s->worker_start_ns + s->bookkeep_at_ns, s->bookkeep_ns);
    if (rc == 0 && s->draft_ns > 0)
        rc = part(w, "draft", s->worker_start_ns + s->draft_at_ns, s->draft_ns);
    return rc;
}

/* Where a flow ends: on the request's track, as the step begins. */
static int put_members(const struct worker *w, const struct pm_step *s)
{
    const struct pm_timeline_sink *sink = w->t->sink;
    int rc = 0;
    for (size_t i = 0; i < w->members->count && rc == 0; i++) {
        const struct member *member = &w->members->rows[i];
        const struct pm_timeline_track track = pm_timeline_request(w->engine, member->id);
        const struct pm_timeline_arg args[] = {{"step", NULL, s->step},
                                               {"tokens", NULL, member->tokens}};
        const struct pm_timeline_event event = {
            .track = &track,
            .category = "request",
            .name = member->event == PM_REQUEST_DECODING  ? "decodes from here"
                    : member->event == PM_REQUEST_RESUMED ? "resumed"
                                                          : "prefill chunk",
            .at_ns = s->worker_start_ns,
            .args = args,
            .n_args = 2,
            .flow_in = w->members->flows[i],
        };
        rc = sink->instant(sink->arg, &event);
    }
    return rc;
}

static int walk_steps(struct worker *w, size_t engine, unsigned n)
{
    struct pm_steps *steps;
    struct pm_step step;
    int rc = pm_steps_open(&steps, w->t->session, engine, n);
    if (rc != 0)
        return rc;
    while ((rc = pm_steps_next(steps, &step)) == 1) {
        if (!step.has_worker)
            continue;
        if (w->members != NULL && (rc = members_of(w->members, step.step)) != 0)
            break;
        if ((rc = put_step(w, &step)) != 0)
            break;
        if (w->members != NULL && (rc = put_members(w, &step)) != 0)
            break;
    }
    pm_steps_close(steps);
    return rc;
}

int pm_timeline_worker(struct pm_timeline *t, size_t engine, unsigned n)
{
    const struct pm_engine *which = pm_session_engine(t->session, engine);
    const struct pm_process *process;
    struct members members = {0};
    unsigned instance;
    char name[64];
    int rank;

    if (pm_engine_worker(t->session, engine, n, &process, &instance, &rank) != 0)
        return 0;
    snprintf(name, sizeof(name), rank >= 0 ? "steps, rank %d" : "steps", rank);
    struct worker w = {
        .t = t,
        .engine = which->number,
        .track = {.kind = PM_TIMELINE_THREAD,
                  .id = pm_timeline_id("worker", which->number, n, ""),
                  .parent = pm_timeline_process_id(process),
                  .pid = pm_process_info(process)->pid,
                  .tid = WORKER_TID + n + (which->number << 8),
                  .name = name},
    };
    int rc = t->sink->track(t->sink->arg, &w.track);
    if (rc == 0 && n == pm_engine_sampler(t->session, engine)) {
        w.members = &members;
        rc = members_open(&members, which);
    }
    if (rc == 0)
        rc = walk_steps(&w, engine, n);
    members_close(&members);
    return rc;
}
