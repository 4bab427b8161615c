/*
 * The native table `steps`: each step of each engine as each of its workers ran it, both halves in
 * one row. A column whose half was not found is empty (null).
 */
#include "view/native.h"

#include "session/step_facts.h"
#include "reader/engine_facts.h"

static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
static const char *const clocks[4] = {"none", "wall", "sync", "events"};

static void put_u64(struct pm_rows *rows, const char *name, bool have, uint64_t value)
{
    have ? pm_rows_u64(rows, name, value) : pm_rows_null(rows, name);
}

static void put_sched(struct pm_rows *rows, const struct pm_step *s)
{
    const bool have = s->has_sched;
    put_u64(rows, "prefill_requests", have, s->prefill_requests);
    put_u64(rows, "prefill_tokens", have, s->prefill_tokens);
    put_u64(rows, "recompute_requests", have, s->recompute_requests);
    put_u64(rows, "recompute_tokens", have, s->recompute_tokens);
    put_u64(rows, "decode_requests", have, s->decode_requests);
    put_u64(rows, "decode_tokens", have, s->decode_tokens);
    put_u64(rows, "spec_requests", have, s->spec_requests);
    put_u64(rows, "spec_tokens", have, s->spec_tokens);
    put_u64(rows, "running", have, s->running);
    put_u64(rows, "waiting", have, s->waiting);
    put_u64(rows, "schedule_start_ns", have, s->sched_start_ns);
    put_u64(rows, "schedule_ns", have, s->sched_ns);
}

static void put_worker(struct pm_rows *rows, const struct pm_step *s)
{
    const bool have = s->has_worker;
    put_u64(rows, "worker_start_ns", have, s->worker_start_ns);
    put_u64(rows, "pre_ns", have, s->pre_ns);
    put_u64(rows, "model_ns", have, s->model_ns);
    put_u64(rows, "post_ns", have, s->post_ns);
    put_u64(rows, "sample_ns", have, s->sample_ns);
    put_u64(rows, "total_ns", have, s->total_ns);
    put_u64(rows, "sampler_ns", have && s->sampler_ns != 0, s->sampler_ns);
    put_u64(rows, "bookkeep_ns", have && s->bookkeep_ns != 0, s->bookkeep_ns);
    put_u64(rows, "draft_ns", have && s->draft_ns != 0, s->draft_ns);
    put_u64(rows, "runner", have, s->runner);
    have ? pm_rows_bool(rows, "failed", s->failed) : pm_rows_null(rows, "failed");
}

/* What came out of the steps, read along with them. */
struct updates {
    struct pm_engine_facts *facts; /* NULL: none */
    struct pm_update_step next;
    bool have;
};

/* The update of a step, NULL where it is not known (yet). */
static int find_update(struct updates *updates, uint64_t step, const struct pm_update_step **ret)
{
    int rc = 1;
    *ret = NULL;
    while (updates->facts != NULL && (!updates->have || updates->next.step < step ||
                                      (updates->next.flags & PM_UPDATE_UNKNOWN_STEP) != 0)) {
        rc = pm_engine_facts_next(updates->facts, &updates->next);
        updates->have = rc == 1;
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
    }
    if (updates->have && updates->next.step == step)
        *ret = &updates->next;
    return 0;
}

static void put_update(struct pm_rows *rows, const struct pm_update_step *u)
{
    static const struct pm_update_step none = {0};
    const bool have = u != NULL;
    u = have ? u : &none;
    put_u64(rows, "update_start_ns", have, u->start_ns);
    put_u64(rows, "update_ns", have, u->dur_ns);
    put_u64(rows, "outputs", have, u->outputs);
    put_u64(rows, "output_tokens", have, u->output_tokens);
    put_u64(rows, "finished", have && (u->flags & PM_UPDATE_LIVES) != 0, u->finished);
    put_u64(rows, "drafted", have, u->drafted);
    put_u64(rows, "accepted", have, u->accepted);
}

/* last_end_ns: the end of this worker's step before; 0: none. */
static int put_step(struct pm_rows *rows, const struct pm_step *s, const struct pm_update_step *u,
                    uint64_t start_ns, unsigned engine, int rank, uint64_t last_end_ns)
{
    pm_rows_begin(rows);
    pm_rows_sec6(rows, "timestamp_sec", (int64_t)(s->time_ns - start_ns));
    pm_rows_u64(rows, "engine", engine);
    rank >= 0 ? pm_rows_i64(rows, "rank", rank) : pm_rows_null(rows, "rank");
    pm_rows_u64(rows, "step", s->step);
    pm_rows_text(rows, "phase", phases[s->phase % PM_PHASE_CLASSES]);
    pm_rows_bool(rows, "phase_from_worker_only", s->phase_guessed);
    pm_rows_bool(rows, "matched", s->matched);
    pm_rows_bool(rows, "has_scheduler", s->has_sched);
    pm_rows_bool(rows, "has_worker", s->has_worker);
    pm_rows_u64(rows, "requests", s->requests);
    pm_rows_u64(rows, "tokens", s->tokens);
    put_u64(rows, "forward_ns", s->forward_clock != 0, s->forward_ns);
    pm_rows_text(rows, "forward_clock", clocks[s->forward_clock & 3]);
    put_sched(rows, s);
    put_worker(rows, s);
    put_u64(rows, "idle_ns", s->has_worker && last_end_ns != 0,
            s->worker_start_ns > last_end_ns ? s->worker_start_ns - last_end_ns : 0);
    put_update(rows, u);
    return pm_rows_end(rows);
}

static int put_worker_steps(struct pm_rows *rows, const struct pm_session *session, size_t e,
                            unsigned n)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    const struct pm_process *process;
    struct pm_steps *steps;
    struct pm_step step;
    unsigned instance;
    int rank;

    if (pm_engine_worker(session, e, n, &process, &instance, &rank) != 0)
        rank = -1;
    struct updates updates = {0};
    const struct pm_update_step *update;
    uint64_t last_end_ns = 0;
    int rc = pm_steps_open(&steps, session, e, n);
    if (rc != 0)
        return rc;
    rc = pm_engine_facts_open(&updates.facts, session, e, PM_ENGINE_UPDATE);
    while (rc == 0 && (rc = pm_steps_next(steps, &step)) == 1) {
        rc = find_update(&updates, step.step, &update);
        if (rc == 0)
            rc = put_step(rows, &step, update, start_ns, pm_session_engine(session, e)->number,
                          rank, last_end_ns);
        if (step.has_worker)
            last_end_ns = step.worker_start_ns + step.total_ns;
    }
    pm_engine_facts_close(updates.facts);
    pm_steps_close(steps);
    return rc;
}

int pm_native_steps(struct pm_rows *rows, const struct pm_session *session)
{
    int rc = 0;

    if (rows->format == PM_NATIVE_CSV) {
        const struct pm_step none = {0};
        rows->header = true;
        rc = put_step(rows, &none, NULL, 0, 0, 0, 0);
        rows->header = false;
    }
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++) {
        const unsigned n_ranks = pm_session_engine(session, e)->n_ranks;
        for (unsigned n = 0; n < (n_ranks > 0 ? n_ranks : 1) && rc == 0; n++)
            rc = put_worker_steps(rows, session, e, n);
    }
    return rc;
}
