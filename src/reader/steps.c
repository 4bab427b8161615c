/*
 * Joins the scheduler's steps with a worker's, by step number, and checks each pair by its counts.
 * Called by the views on one thread; owns its cursors.
 *
 *   scheduler's process, stream CORE:  sched_step 4   sched_step 5   sched_step 6 …
 *                                           |              |
 *   worker's process, stream CORE:    worker_step 4  worker_step 5  worker_sync 4  …
 *
 * Both sides are walked once, in their own order. A number that does not grow (numbering begun anew
 * without a new instance, a fact told twice) is never paired: which half belongs to which could
 * only be guessed.
 */
#include "reader/internal.h"

#include "reader/facts.h"
#include "reader/steps.h"

#include <stdlib.h>
#include <string.h>

#define PENDING 64u /* worker steps that wait for their worker_sync; a power of two */

struct sched_side {
    struct pm_cursor *cursor; /* NULL: no scheduler's facts */
    struct pm_fact_map map;
    unsigned instance;
    bool have, in_order;
    uint64_t last; /* number of the newest step seen, + 1 */
    struct pm_sched_step fact;
};

struct pending {
    struct pm_worker_step fact;
    uint64_t sync_at_ns;
    bool in_order;
};

struct worker_side {
    struct pm_cursor *cursor; /* NULL: no worker's facts */
    struct pm_fact_map map, sync_map;
    unsigned instance;
    bool at_end;
    uint64_t last;
    struct pending ring[PENDING];
    unsigned first, count;
};

struct pm_steps {
    struct sched_side sched;
    struct worker_side worker;
    uint64_t mismatched, sched_only, worker_only;
    /* Lone halves since the last pair: in the middle only once another pair follows. */
    uint64_t pending_sched_only, pending_worker_only;
    bool any_pair;
};

void pm_steps_close(struct pm_steps *steps)
{
    if (steps == NULL)
        return;
    pm_cursor_close(steps->sched.cursor);
    pm_cursor_close(steps->worker.cursor);
    free(steps);
}

int pm_steps_open(struct pm_steps **ret_steps, const struct pm_session *session, size_t engine,
                  unsigned n)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    const struct pm_process *process;
    unsigned instance;
    int rank, rc;

    if (which == NULL || (n > 0 && n >= which->n_ranks))
        return -PM_ENOTFOUND;
    struct pm_steps *steps = calloc(1, sizeof(*steps));
    if (steps == NULL)
        return -PM_ENOMEM;
    if (which->process != NULL) {
        pm_fact_map_sched(&steps->sched.map, which->process);
        steps->sched.instance = which->instance;
        if (steps->sched.map.schema >= 0) {
            rc = pm_cursor_open(&steps->sched.cursor, which->process, PM_STREAM_CORE);
            if (rc != 0)
                goto fail;
        }
    }
    rc = pm_engine_worker(session, engine, n, &process, &instance, &rank);
    if (rc == 0) {
        pm_fact_map_worker(&steps->worker.map, process);
        pm_fact_map_sync(&steps->worker.sync_map, process);
        steps->worker.instance = instance;
        if (steps->worker.map.schema >= 0) {
            rc = pm_cursor_open(&steps->worker.cursor, process, PM_STREAM_CORE);
            if (rc != 0)
                goto fail;
        }
    }
    *ret_steps = steps;
    return 0;
fail:
    pm_steps_close(steps);
    return rc;
}

/* The scheduler's next fact into side->fact. */
static int sched_fill(struct sched_side *side)
{
    struct pm_record record;
    int rc;

    if (side->have || side->cursor == NULL)
        return 0;
    while ((rc = pm_cursor_next(side->cursor, &record)) == 1) {
        if ((int)record.schema != side->map.schema || record.keyframe)
            continue;
        pm_fact_take(&side->map, record.payload, &side->fact);
        if (side->fact.instance != side->instance)
            continue;
        side->have = true;
        side->in_order = side->fact.step >= side->last && side->fact.step != UINT64_MAX;
        if (side->in_order)
            side->last = side->fact.step + 1;
        return 0;
    }
    return rc;
}

static void take_sync(struct worker_side *side, const struct pm_worker_sync *sync)
{
    /* The newest step of that number: after a new beginning an older one may still wait. */
    for (unsigned i = side->count; i-- > 0;) {
        struct pending *pending = &side->ring[(side->first + i) % PENDING];
        if (pending->fact.step == sync->step) {
            if (pending->sync_at_ns == 0)
                pending->sync_at_ns = sync->sync_at_ns;
            return;
        }
    }
}

/* Whether a step's time is known only once its worker_sync has come. */
static bool waits_for_sync(const struct pending *pending)
{
    const struct pm_worker_step *fact = &pending->fact;
    return (fact->flags & PM_WORKER_ASYNC) != 0 && (fact->flags & PM_WORKER_DEVICE) != 0 &&
           fact->gpu_ns == 0 && fact->sync_ns == 0 && pending->sync_at_ns == 0;
}

/* Reads on until the worker's oldest pending step is complete. */
static int worker_fill(struct worker_side *side)
{
    struct pm_record record;
    int rc;

    while (!side->at_end && side->cursor != NULL) {
        if (side->count > 0 &&
            (side->count == PENDING || !waits_for_sync(&side->ring[side->first % PENDING])))
            return 0;
        rc = pm_cursor_next(side->cursor, &record);
        if (rc < 0)
            return rc;
        if (rc == 0) {
            side->at_end = true;
            return 0;
        }
        if (record.keyframe)
            continue;
        if ((int)record.schema == side->map.schema) {
            struct pending *pending = &side->ring[(side->first + side->count) % PENDING];
            pm_fact_take(&side->map, record.payload, &pending->fact);
            if (pending->fact.instance != side->instance)
                continue;
            pending->sync_at_ns = 0;
            pending->in_order =
                pending->fact.step >= side->last && pending->fact.step != UINT64_MAX;
            if (pending->in_order)
                side->last = pending->fact.step + 1;
            side->count++;
        } else if ((int)record.schema == side->sync_map.schema) {
            struct pm_worker_sync sync;
            pm_fact_take(&side->sync_map, record.payload, &sync);
            if (sync.instance == side->instance)
                take_sync(side, &sync);
        }
    }
    return 0;
}

static void put_sched(struct pm_step *step, const struct pm_sched_step *fact)
{
    step->step = fact->step;
    step->has_sched = true;
    step->time_ns = fact->start_ns;
    step->phase = fact->phase;
    step->requests = fact->requests;
    step->tokens = fact->tokens;
    step->sched_start_ns = fact->start_ns;
    step->sched_ns = fact->dur_ns;
    step->prefill_requests = fact->prefill_requests;
    step->prefill_tokens = fact->prefill_tokens;
    step->recompute_requests = fact->recompute_requests;
    step->recompute_tokens = fact->recompute_tokens;
    step->decode_requests = fact->decode_requests;
    step->decode_tokens = fact->decode_tokens;
    step->spec_requests = fact->spec_requests;
    step->spec_tokens = fact->spec_tokens;
    step->running = fact->running;
    step->waiting = fact->waiting;
    step->mixed = (fact->flags & PM_SCHED_MIXED) != 0;
}

/* How long the model took, and by which clock: the device's own; where there is a device but its
 * events are not used, from the model's start to vLLM's synchronisation (host times are launches
 * there); else the host's clock round the model call. */
static void put_forward(struct pm_step *step, const struct pm_worker_step *fact,
                        uint64_t sync_at_ns)
{
    if (fact->gpu_ns != 0) {
        step->forward_ns = fact->gpu_ns;
        step->forward_clock = 3;
    } else if ((fact->flags & PM_WORKER_DEVICE) != 0) {
        if (fact->sync_ns != 0)
            step->forward_ns = fact->sync_ns;
        else if (fact->model_ns_at != 0 && sync_at_ns > fact->model_ns_at)
            step->forward_ns = sync_at_ns - fact->model_ns_at;
        step->forward_clock = step->forward_ns != 0 ? 2 : 0;
    } else if ((fact->flags & PM_WORKER_HAS_MODEL) != 0) {
        step->forward_ns = fact->model_ns;
        step->forward_clock = step->forward_ns != 0 ? 1 : 0;
    }
}

static void put_worker(struct pm_step *step, const struct pm_worker_step *fact, uint64_t sync_at_ns)
{
    step->has_worker = true;
    step->time_ns = fact->model_ns_at != 0 ? fact->model_ns_at : fact->start_ns;
    step->worker_start_ns = fact->start_ns;
    step->pre_ns = fact->pre_ns;
    step->model_ns = fact->model_ns;
    step->post_ns = fact->post_ns;
    step->sample_ns = fact->sample_ns;
    step->total_ns = fact->total_ns;
    step->runner = fact->runner;
    step->failed = (fact->flags & PM_WORKER_FAILED) != 0;
    put_forward(step, fact, sync_at_ns);
    if (!step->matched) {
        /* Alone, or beside a scheduler's fact that tells of another batch. */
        step->step = fact->step;
        step->requests = fact->requests;
        step->tokens = fact->tokens;
        step->phase = fact->phase;
        step->phase_guessed = true;
    }
}

static void settle_phase(struct pm_step *step)
{
    if (step->tokens == 0) {
        step->phase = PM_PHASE_EMPTY;
    } else if (step->phase == PM_PHASE_EMPTY || step->phase >= PM_PHASE_CLASSES) {
        step->phase = PM_PHASE_DECODE;
        step->phase_guessed = true;
    }
}

int pm_steps_next(struct pm_steps *steps, struct pm_step *ret_step)
{
    struct sched_side *sched = &steps->sched;
    struct worker_side *worker = &steps->worker;
    int rc = sched_fill(sched);

    if (rc < 0)
        return rc;
    rc = worker_fill(worker);
    if (rc < 0)
        return rc;
    if (!sched->have && worker->count == 0)
        return 0;

    const struct pending *pending =
        worker->count > 0 ? &worker->ring[worker->first % PENDING] : NULL;
    bool use_sched = sched->have, use_worker = pending != NULL;
    if (use_sched && use_worker) {
        if (!sched->in_order)
            use_worker = false;
        else if (!pending->in_order)
            use_sched = false;
        else if (sched->fact.step < pending->fact.step)
            use_worker = false;
        else if (sched->fact.step > pending->fact.step)
            use_sched = false;
    }
    memset(ret_step, 0, sizeof(*ret_step));
    if (use_sched && use_worker) {
        ret_step->matched = sched->fact.requests == pending->fact.requests &&
                            sched->fact.tokens == pending->fact.tokens;
        steps->mismatched += !ret_step->matched;
        if (steps->any_pair) {
            steps->sched_only += steps->pending_sched_only;
            steps->worker_only += steps->pending_worker_only;
        }
        steps->pending_sched_only = steps->pending_worker_only = 0;
        steps->any_pair = true;
    } else {
        steps->pending_sched_only += use_sched;
        steps->pending_worker_only += use_worker;
    }
    if (use_sched) {
        put_sched(ret_step, &sched->fact);
        sched->have = false;
    }
    if (use_worker) {
        put_worker(ret_step, &pending->fact, pending->sync_at_ns);
        worker->first = (worker->first + 1) % PENDING;
        worker->count--;
    }
    settle_phase(ret_step);
    return 1;
}

void pm_steps_confess(const struct pm_steps *steps, uint64_t *ret_mismatched,
                      uint64_t *ret_sched_only, uint64_t *ret_worker_only)
{
    *ret_mismatched = steps->mismatched;
    *ret_sched_only = steps->sched_only;
    *ret_worker_only = steps->worker_only;
}
