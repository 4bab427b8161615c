/*
 * Joins the scheduler's steps with a worker's, by step number, and checks each pair by its counts.
 * Called by the views on one thread; owns its cursors.
 *
 *   scheduler's process, stream CORE:  sched_step 4   sched_step 5   sched_step 6 …
 *                                           |              |
 *   worker's process, stream CORE:    worker_step 4  worker_step 5  worker_sync 4  … device_step 4
 *
 * What the device's events tell of a step comes up to PM_EVENTS_STEPS (gpu/events.h) steps after
 * it, and not always in order: a step that says by its flag that it will come is held back for it,
 * as long as there is room. Both sides are walked once, in their own order. A number that does not
 * grow (numbering begun anew without a new instance, a fact told twice) is never paired: which half
 * belongs to which could only be guessed.
 */
#include "reader/internal.h"

#include "reader/facts.h"
#include "reader/steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"

#define AHEAD 2048u /* scheduler's steps read and not yet paired; a power of two */
#define PENDING                                                                                    \
    2048u /* worker's steps that wait for their worker_sync, their device_step or their            \
             pair; likewise. More than are under way on a device. */

/* A stream that is read, for one side or, where scheduler and worker share a process, for both. */
struct source {
    struct pm_cursor *cursor; /* NULL: nothing to read */
    bool at_end;
    int sched, worker, sync, device; /* schemas of interest; -1: none */
};

struct ahead {
    struct pm_sched_step fact;
    bool in_order;
};

struct pending {
    struct pm_worker_step fact;
    uint64_t sync_at_ns;
    struct pm_device_step device;
    bool in_order;
    bool has_device; /* device is there */
};

struct sched_side {
    struct source *source;
    struct pm_fact_map map;
    unsigned instance;
    uint64_t last; /* number of the newest step read, + 1 */
    struct ahead ring[AHEAD];
    unsigned first, count;
};

struct worker_side {
    struct source *source;
    struct pm_fact_map map, sync_map, device_map;
    unsigned instance;
    int64_t
        ahead; /* what its numbers lack to be the scheduler's: 0 but where recording began late */
    uint64_t last;
    struct pending ring[PENDING];
    unsigned first, count;
};

struct pm_steps {
    struct source sources[2];
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
    pm_cursor_close(steps->sources[0].cursor);
    pm_cursor_close(steps->sources[1].cursor);
    free(steps);
}

static int open_sources(struct pm_steps *steps, const struct pm_process *sched_process,
                        const struct pm_process *worker_process)
{
    struct source *first = &steps->sources[0], *second = &steps->sources[1];
    int rc = 0;

    if (worker_process != NULL && worker_process == sched_process)
        second = first;
    steps->sched.source = first;
    steps->worker.source = second;
    first->sched = first->worker = first->sync = first->device = -1;
    second->sched = second->worker = second->sync = second->device = -1;
    if (sched_process != NULL) {
        pm_fact_map_sched(&steps->sched.map, sched_process);
        first->sched = steps->sched.map.schema;
    }
    if (worker_process != NULL) {
        pm_fact_map_worker(&steps->worker.map, worker_process);
        pm_fact_map_sync(&steps->worker.sync_map, worker_process);
        second->worker = steps->worker.map.schema;
        second->sync = steps->worker.sync_map.schema;
        pm_fact_map_device(&steps->worker.device_map, worker_process);
        second->device = steps->worker.device_map.schema;
    }
    if (first->sched >= 0 || first->worker >= 0)
        rc = pm_cursor_open(&first->cursor, first->sched >= 0 ? sched_process : worker_process,
                            PM_STREAM_CORE);
    if (rc == 0 && second != first && second->worker >= 0)
        rc = pm_cursor_open(&second->cursor, worker_process, PM_STREAM_CORE);
    return rc;
}

/* The number and the digest of a mark; false where there is none. */
static bool read_mark(const struct pm_process *process, const char *prefix, unsigned instance,
                      unsigned n, uint64_t *ret_step, const char **ret_digest)
{
    char key[64];
    char *rest;
    snprintf(key, sizeof(key), "%s%u.%u", prefix, instance, n);
    const char *value = pm_process_attr(process, key);
    if (value == NULL)
        return false;
    *ret_step = strtoull(value, &rest, 10);
    *ret_digest = rest + 1;
    return rest != value && *rest == ' ' && *ret_step < INT64_MAX;
}

/* Recording began late, and not with the same step on both sides: the first request that was new to
 * both says how far their numbers are apart. (probe/step_mark.h) */
static int64_t numbers_apart(const struct pm_process *sched, unsigned sched_instance,
                             const struct pm_process *worker, unsigned worker_instance)
{
    uint64_t sched_step, worker_step;
    const char *sched_digest, *worker_digest;
    for (unsigned i = 0; i < PM_ATTR_MARKS && read_mark(sched, PM_ATTR_MARK_SCHED, sched_instance,
                                                        i, &sched_step, &sched_digest);
         i++)
        for (unsigned k = 0;
             k < PM_ATTR_MARKS && read_mark(worker, PM_ATTR_MARK_WORKER, worker_instance, k,
                                            &worker_step, &worker_digest);
             k++)
            if (strcmp(sched_digest, worker_digest) == 0)
                return (int64_t)sched_step - (int64_t)worker_step;
    return 0;
}

int pm_steps_open(struct pm_steps **ret_steps, const struct pm_session *session, size_t engine,
                  unsigned n)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    const struct pm_process *worker_process = NULL;
    int rank;

    if (which == NULL || (n > 0 && n >= which->n_ranks))
        return -PM_ENOTFOUND;
    struct pm_steps *steps = calloc(1, sizeof(*steps));
    if (steps == NULL)
        return -PM_ENOMEM;
    steps->sched.instance = which->instance;
    if (pm_engine_worker(session, engine, n, &worker_process, &steps->worker.instance, &rank) != 0)
        worker_process = NULL;
    if (worker_process != NULL && which->process != NULL)
        steps->worker.ahead =
            numbers_apart(which->process, which->instance, worker_process, steps->worker.instance);
    int rc = open_sources(steps, which->process, worker_process);
    if (rc != 0) {
        pm_steps_close(steps);
        return rc;
    }
    *ret_steps = steps;
    return 0;
}

void pm_steps_skip(struct pm_steps *steps, uint64_t from_ns)
{
    /* Two segments early, so that the halves of the first steps, and the worker's step before them,
     * are met, whichever of the two sides was first to begin a new segment. */
    for (unsigned i = 0; i < 2; i++) {
        if (steps->sources[i].cursor == NULL)
            continue;
        pm_cursor_skip(steps->sources[i].cursor, from_ns, UINT64_MAX);
        pm_cursor_back(steps->sources[i].cursor, 2);
    }
}

static void take_sched(struct sched_side *side, const uint8_t *payload)
{
    struct ahead *ahead = &side->ring[(side->first + side->count) % AHEAD];

    pm_fact_take(&side->map, payload, &ahead->fact);
    if (ahead->fact.instance != side->instance)
        return;
    ahead->in_order = ahead->fact.step >= side->last && ahead->fact.step != UINT64_MAX;
    if (ahead->in_order)
        side->last = ahead->fact.step + 1;
    side->count++;
}

static void take_worker(struct worker_side *side, const uint8_t *payload)
{
    struct pending *pending = &side->ring[(side->first + side->count) % PENDING];

    pm_fact_take(&side->map, payload, &pending->fact);
    if (pending->fact.instance != side->instance)
        return;
    if (side->ahead < 0 && pending->fact.step < (uint64_t)-side->ahead)
        return; /* the scheduler's half was before recording began there */
    pending->fact.step += (uint64_t)side->ahead;
    pending->sync_at_ns = 0;
    pending->has_device = false;
    pending->in_order = pending->fact.step >= side->last && pending->fact.step != UINT64_MAX;
    if (pending->in_order)
        side->last = pending->fact.step + 1;
    side->count++;
}

static void take_sync(struct worker_side *side, const uint8_t *payload)
{
    struct pm_worker_sync sync;

    pm_fact_take(&side->sync_map, payload, &sync);
    if (sync.instance != side->instance)
        return;
    sync.step += (uint64_t)side->ahead;
    /* The newest step of that number: after a new beginning an older one may still wait. */
    for (unsigned i = side->count; i-- > 0;) {
        struct pending *pending = &side->ring[(side->first + i) % PENDING];
        if (pending->fact.step == sync.step) {
            if (pending->sync_at_ns == 0)
                pending->sync_at_ns = sync.sync_at_ns;
            return;
        }
    }
}

/* The newest of the worker's steps with this number; NULL: it has none. They are numbered one after
 * another but where some were lost, so the place is mostly known at once. */
static struct pending *find_pending(struct worker_side *side, uint64_t step)
{
    if (side->count == 0)
        return NULL;
    const uint64_t newest = side->ring[(side->first + side->count - 1) % PENDING].fact.step;
    unsigned i = newest >= step && newest - step < side->count
                     ? side->count - 1 - (unsigned)(newest - step)
                     : side->count;
    if (i < side->count && side->ring[(side->first + i) % PENDING].fact.step == step)
        return &side->ring[(side->first + i) % PENDING];
    for (i = side->count; i-- > 0;)
        if (side->ring[(side->first + i) % PENDING].fact.step == step)
            return &side->ring[(side->first + i) % PENDING];
    return NULL;
}

static void take_device(struct worker_side *side, const uint8_t *payload)
{
    struct pm_device_step fact;

    pm_fact_take(&side->device_map, payload, &fact);
    struct pending *pending = fact.instance == side->instance
                                  ? find_pending(side, fact.step + (uint64_t)side->ahead)
                                  : NULL;
    if (pending == NULL || pending->has_device || fact.gpu_ns == 0)
        return;
    pending->device = fact;
    pending->has_device = true;
}

/* Reads one record into whichever side it belongs to; both rings have room. */
static int pump(struct pm_steps *steps, struct source *source)
{
    struct pm_record record;
    int rc = pm_cursor_next(source->cursor, &record);

    if (rc < 0)
        return rc;
    if (rc == 0)
        source->at_end = true;
    else if (record.keyframe)
        return 0;
    else if ((int)record.schema == source->sched)
        take_sched(&steps->sched, record.payload);
    else if ((int)record.schema == source->worker)
        take_worker(&steps->worker, record.payload);
    else if ((int)record.schema == source->sync)
        take_sync(&steps->worker, record.payload);
    else if ((int)record.schema == source->device)
        take_device(&steps->worker, record.payload);
    return 0;
}

/* Whether a step's time is known only once its worker_sync, or its device_step, has come. */
static bool waits(const struct pending *pending)
{
    const struct pm_worker_step *fact = &pending->fact;
    if (fact->gpu_ns != 0 || pending->has_device || (fact->flags & PM_WORKER_DEVICE) == 0)
        return false;
    if ((fact->flags & PM_WORKER_EVENTS) != 0)
        return true;
    return (fact->flags & PM_WORKER_ASYNC) != 0 && fact->sync_ns == 0 && pending->sync_at_ns == 0;
}

/* Reads on until both sides have their oldest step complete, or cannot have it: at the end, or
 * where the other side's ring is full (a process that lost so many steps of one side in a row). */
static int fill(struct pm_steps *steps)
{
    struct sched_side *sched = &steps->sched;
    struct worker_side *worker = &steps->worker;
    const bool shared = sched->source == worker->source;
    int rc = 0;

    while (rc == 0 && sched->count == 0 && sched->source->cursor != NULL &&
           !sched->source->at_end && !(shared && worker->count == PENDING))
        rc = pump(steps, sched->source);
    while (rc == 0 && (worker->count == 0 || waits(&worker->ring[worker->first])) &&
           worker->count < PENDING && worker->source->cursor != NULL && !worker->source->at_end &&
           !(shared && sched->count == AHEAD))
        rc = pump(steps, worker->source);
    return rc;
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
    if (step->has_device || fact->gpu_ns != 0) {
        step->forward_ns = step->has_device ? step->device_model_ns : fact->gpu_ns;
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

static void put_device(struct pm_step *step, const struct pm_device_step *fact)
{
    step->has_device = true;
    step->device = fact->device;
    step->device_model_ns = fact->gpu_ns;
    step->has_device_wait = (fact->flags & PM_DEVICE_HAS_WAIT) != 0;
    step->device_wait_ns = step->has_device_wait ? fact->wait_ns : 0;
    step->has_device_sample = (fact->flags & PM_DEVICE_HAS_SAMPLE) != 0;
    step->device_after_ns = step->has_device_sample ? fact->after_ns : 0;
    step->device_sample_ns = step->has_device_sample ? fact->sample_ns : 0;
}

static void put_worker(struct pm_step *step, const struct pending *pending)
{
    const struct pm_worker_step *fact = &pending->fact;

    if (pending->has_device)
        put_device(step, &pending->device);
    step->has_worker = true;
    step->time_ns = fact->model_ns_at != 0 ? fact->model_ns_at : fact->start_ns;
    step->worker_start_ns = fact->start_ns;
    step->pre_ns = fact->pre_ns;
    step->model_ns = fact->model_ns;
    step->post_ns = fact->post_ns;
    step->sample_ns = fact->sample_ns;
    step->total_ns = fact->total_ns;
    step->sampler_at_ns = fact->sampler_at_ns;
    step->sampler_ns = fact->sampler_ns;
    step->bookkeep_at_ns = fact->bookkeep_at_ns;
    step->bookkeep_ns = fact->bookkeep_ns;
    step->draft_at_ns = fact->draft_at_ns;
    step->draft_ns = fact->draft_ns;
    step->runner = fact->runner;
    step->failed = (fact->flags & PM_WORKER_FAILED) != 0;
    put_forward(step, fact, pending->sync_at_ns);
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
    int rc = fill(steps);

    if (rc < 0)
        return rc;
    const struct ahead *ahead = sched->count > 0 ? &sched->ring[sched->first] : NULL;
    const struct pending *pending = worker->count > 0 ? &worker->ring[worker->first] : NULL;
    bool use_sched = ahead != NULL, use_worker = pending != NULL;
    if (!use_sched && !use_worker)
        return 0;
    if (use_sched && use_worker) {
        if (!ahead->in_order)
            use_worker = false;
        else if (!pending->in_order)
            use_sched = false;
        else if (ahead->fact.step < pending->fact.step)
            use_worker = false;
        else if (ahead->fact.step > pending->fact.step)
            use_sched = false;
    }
    memset(ret_step, 0, sizeof(*ret_step));
    if (use_sched && use_worker) {
        ret_step->matched = ahead->fact.requests == pending->fact.requests &&
                            ahead->fact.tokens == pending->fact.tokens;
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
        put_sched(ret_step, &ahead->fact);
        sched->first = (sched->first + 1) % AHEAD;
        sched->count--;
    }
    if (use_worker) {
        put_worker(ret_step, pending);
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
