/*
 * Computes the figures of a report (see report_model.h): one walk per worker.
 */
#include "view/report_model.h"

#include <stdlib.h>
#include <string.h>

#include "session/step_facts.h"

static void add_level(struct pm_level *level, uint64_t value)
{
    level->count++;
    level->sum += value;
    if (value > level->max)
        level->max = value;
}

/* The scheduler's half of a step, counted once per engine. */
static void add_sched(struct pm_engine_report *engine, const struct pm_step *step)
{
    engine->steps++;
    engine->empty_steps += step->phase == PM_PHASE_EMPTY;
    engine->prefill_steps += step->phase == PM_PHASE_PREFILL;
    engine->decode_steps += step->phase == PM_PHASE_DECODE;
    engine->mixed_steps += step->mixed;
    engine->preempted_steps += step->recompute_tokens > 0;
    engine->prefill_tokens += step->prefill_tokens;
    engine->recompute_tokens += step->recompute_tokens;
    engine->decode_tokens += step->decode_tokens;
    engine->spec_tokens += step->spec_tokens;
    add_level(&engine->running, step->running);
    add_level(&engine->waiting, step->waiting);
    if (step->phase == PM_PHASE_EMPTY)
        return;
    add_level(&engine->requests, step->requests);
    add_level(&engine->tokens, step->tokens);
}

/* How much of a step's schedule() lies between from and to. */
static uint64_t schedule_between(const struct pm_step *step, uint64_t from_ns, uint64_t to_ns)
{
    const uint64_t start = step->sched_start_ns, end = start + step->sched_ns;
    const uint64_t first = start > from_ns ? start : from_ns, last = end < to_ns ? end : to_ns;
    return step->has_sched && last > first ? last - first : 0;
}

static void add_breakdown(struct pm_breakdown *down, const struct pm_step *step,
                          uint64_t *last_end_ns)
{
    const uint64_t start = step->worker_start_ns, end = start + step->total_ns;
    const uint64_t known =
        (uint64_t)step->pre_ns + step->model_ns + step->post_ns + step->sample_ns;

    down->steps++;
    down->schedule_ns += step->sched_ns;
    down->pre_ns += step->pre_ns;
    down->model_ns += step->model_ns;
    down->post_ns += step->post_ns;
    down->sample_ns += step->sample_ns;
    down->other_ns += step->total_ns > known ? step->total_ns - known : 0;
    if (*last_end_ns != 0 && start > *last_end_ns) {
        down->idle_ns += start - *last_end_ns;
        down->waited_schedule_ns += schedule_between(step, *last_end_ns, start);
    }
    if (*last_end_ns == 0)
        down->span_ns = end - start;
    else if (end > *last_end_ns)
        down->span_ns += end - *last_end_ns;
    if (end > *last_end_ns)
        *last_end_ns = end;
}

/* Walks worker n of an engine; the scheduler's halves are counted with the one that samples. */
static int walk(const struct pm_session *session, size_t e, unsigned n, bool sampler,
                struct pm_engine_report *engine, struct pm_rank_report *rank)
{
    const struct pm_process *process;
    struct pm_steps *steps;
    struct pm_step step;
    uint64_t last_end_ns = 0;
    unsigned instance;

    if (pm_engine_worker(session, e, n, &process, &instance, &rank->rank) == 0)
        rank->forward.recycled = pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0;
    else
        rank->rank = -1;
    int rc = pm_steps_open(&steps, session, e, n);
    if (rc != 0)
        return rc;
    while ((rc = pm_steps_next(steps, &step)) == 1) {
        int error = 0;
        if (sampler && step.has_sched)
            add_sched(engine, &step);
        if (!pm_forward_count(&rank->forward, &step, &error))
            continue;
        if (error != 0) {
            rc = error;
            break;
        }
        if (step.forward_ns != 0) {
            rank->forward_ns[step.phase] += step.forward_ns;
            rank->timed_tokens[step.phase] += step.tokens;
        }
        add_breakdown(&rank->breakdown, &step, &last_end_ns);
        pm_device_add(&rank->device, &step);
    }
    pm_steps_confess(steps, &rank->forward.mismatched, &rank->forward.sched_only,
                     &rank->forward.worker_only);
    pm_steps_close(steps);
    return rc;
}

static int make_engine(struct pm_report *report, size_t e)
{
    const struct pm_session *session = report->session;
    struct pm_engine_report *engine = &report->engines[e];
    const unsigned found = pm_session_engine(session, e)->n_ranks;

    engine->number = pm_session_engine(session, e)->number;
    engine->sampler = pm_engine_sampler(session, e);
    engine->ranks = calloc(found + 1, sizeof(*engine->ranks));
    if (engine->ranks == NULL)
        return -PM_ENOMEM;
    for (unsigned n = 0; n < (found > 0 ? found : 1); n++) {
        struct pm_rank_report *rank = &engine->ranks[n];
        pm_forward_init(&rank->forward);
        engine->n_ranks++;
        int rc = walk(session, e, n, n == engine->sampler, engine, rank);
        if (rc == 0)
            rc = pm_forward_stats(session, e, n, &rank->forward, rank->stats, &rank->source);
        if (rc != 0)
            return rc;
        pm_account_add(&report->account, &rank->forward, rank->source);
        /* Only figures from here on: a report of many ranks must not hold all samples. */
        for (unsigned p = 0; p < PM_FORWARD_PHASES; p++)
            pm_samples_release(&rank->forward.samples[p]);
    }
    return pm_kv_walk(session, e, NULL, NULL, &engine->kv);
}

int pm_report_make(struct pm_report *ret_report, const struct pm_session *session)
{
    struct pm_report report = {.session = session};
    int rc;

    report.n_engines = pm_session_engine_count(session);
    report.engines = calloc(report.n_engines + 1, sizeof(*report.engines));
    if (report.engines == NULL)
        return -PM_ENOMEM;
    for (size_t e = 0; e < report.n_engines; e++) {
        rc = make_engine(&report, e);
        if (rc != 0)
            goto fail;
    }
    rc = pm_hooks_collect(session, &report.hooks, &report.n_hooks);
    if (rc != 0)
        goto fail;
    for (size_t i = 0; i < report.n_hooks; i++) {
        const struct pm_hook_state *hook = &report.hooks[i];
        report.hooks_patched += hook->patched > 0;
        report.hooks_fired += hook->fired > 0;
        report.hooks_missing += hook->patched == 0 && hook->missing > 0;
        report.hooks_off += hook->patched == 0 && hook->missing == 0 && hook->off > 0;
    }
    pm_session_sums(session, &report.sums); /* after the walks: damage is found there */
    *ret_report = report;
    return 0;
fail:
    pm_report_release(&report);
    return rc;
}

void pm_report_release(struct pm_report *report)
{
    for (size_t e = 0; e < report->n_engines && report->engines != NULL; e++) {
        struct pm_engine_report *engine = &report->engines[e];
        for (unsigned n = 0; n < engine->n_ranks; n++)
            pm_forward_release(&engine->ranks[n].forward);
        free(engine->ranks);
    }
    free(report->engines);
    free(report->hooks);
    memset(report, 0, sizeof(*report));
}
