/* One worker of an engine, followed (see follow.h). */
#include "live/follow.h"

#include "session/graph_facts.h"

#include <stdlib.h>
#include <string.h>

static const struct pm_field *field_of(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; schema != NULL && i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

int pm_follow_rank_open(struct pm_follow_rank *rank, uint64_t from_ns)
{
    pm_fact_map_worker(&rank->worker, rank->process);
    pm_fact_map_sync(&rank->sync, rank->process);
    pm_fact_map_device(&rank->device, rank->process);
    if (rank->device.schema >= 0) {
        rank->counted = calloc(PM_LIVE_COUNTED, sizeof(*rank->counted));
        if (rank->counted == NULL)
            return -PM_ENOMEM;
    }
    rank->graph = pm_process_schema_find(rank->process, "graph_pass");
    if (rank->graph >= 0) {
        const struct pm_schema *schema = pm_process_schema(rank->process, (size_t)rank->graph);
        rank->graph_outcome = field_of(schema, "outcome");
        rank->graph_at = field_of(schema, "at_ns");
        rank->graph_instance = field_of(schema, "instance");
    }
    if (rank->shares) {
        rank->totals = rank->engine->totals;
        return 0;
    }
    rank->totals = calloc(1, sizeof(*rank->totals));
    if (rank->totals == NULL)
        return -PM_ENOMEM;
    int rc = pm_live_totals_open(rank->totals, rank->process);
    if (rc == 0)
        rc = pm_cursor_open(&rank->cursor, rank->process, PM_STREAM_CORE);
    if (rc == 0)
        pm_cursor_skip(rank->cursor, from_ns, rank->totals->covers);
    return rc;
}

void pm_follow_rank_close(struct pm_follow_rank *rank)
{
    pm_cursor_close(rank->cursor);
    if (!rank->shares && rank->totals != NULL) {
        pm_live_totals_close(rank->totals);
        free(rank->totals);
    }
    pm_live_samples_free(&rank->steps);
    free(rank->counted);
    rank->counted = NULL;
}

static struct pm_live_rank_sums *sums_at(struct pm_follow_rank *rank, uint64_t at_ns)
{
    const uint64_t number = at_ns / PM_LIVE_BUCKET_NS;
    struct pm_live_rank_bucket *bucket = &rank->buckets[number % PM_LIVE_BUCKETS];
    if (bucket->number < number)
        *bucket = (struct pm_live_rank_bucket){.number = number};
    return bucket->number == number ? &bucket->sums : NULL;
}

/* How long the model took, as the reader's join has it (reader/steps.c), but for the device's own
 * events, which come later (on_device). */
static uint64_t forward_of(const struct pm_worker_step *fact, uint64_t sync_at_ns)
{
    if (fact->gpu_ns != 0)
        return fact->gpu_ns;
    if ((fact->flags & PM_WORKER_DEVICE) == 0)
        return (fact->flags & PM_WORKER_HAS_MODEL) != 0 ? fact->model_ns : 0;
    if (fact->sync_ns != 0)
        return fact->sync_ns;
    return fact->model_ns_at != 0 && sync_at_ns > fact->model_ns_at ? sync_at_ns - fact->model_ns_at
                                                                    : 0;
}

/* By which clock that is. */
static uint8_t clock_of(const struct pm_worker_step *fact)
{
    return fact->gpu_ns != 0 ? 3 : (fact->flags & PM_WORKER_DEVICE) != 0 ? 2 : 1;
}

static void add_forward(struct pm_follow_rank *rank, uint64_t step, uint64_t at_ns,
                        uint64_t forward_ns, uint8_t clock)
{
    struct pm_live_rank_sums *sums = sums_at(rank, at_ns);
    rank->forward_ns += forward_ns;
    /* Newer steps wait for the device's word; long without it, that is over. */
    if (forward_ns != 0 && (rank->told_step == 0 || step > rank->told_step + PM_LIVE_COUNTED))
        rank->forward_clock = clock;
    if (sums != NULL)
        sums->forward_ns += forward_ns;
    if (rank->counted != NULL)
        rank->counted[step % PM_LIVE_COUNTED] =
            (struct pm_live_counted){.step = step, .end_ns = at_ns, .forward_ns = forward_ns};
}

/* The device's own word, some steps later: it takes the place of what the step was counted with. */
static void on_device(struct pm_follow_rank *rank, const uint8_t *payload)
{
    struct pm_device_step fact;
    pm_fact_take(&rank->device, payload, &fact);
    struct pm_live_counted *counted = &rank->counted[fact.step % PM_LIVE_COUNTED];
    if (fact.instance != rank->instance || counted->step != fact.step || counted->end_ns == 0)
        return;
    struct pm_live_rank_sums *sums = sums_at(rank, counted->end_ns);
    rank->forward_ns += fact.gpu_ns - counted->forward_ns;
    rank->forward_clock = 3;
    rank->told_step = fact.step + 1;
    if (sums != NULL)
        sums->forward_ns += fact.gpu_ns - counted->forward_ns;
    counted->end_ns = 0;
}

/* The engine's newest steps get what the worker measured. */
static void tell_engine(struct pm_follow_rank *rank, const struct pm_worker_step *fact)
{
    struct pm_follow_engine *engine = rank->engine;
    if (engine == NULL)
        return;
    for (uint64_t i = 0; i < PM_LIVE_STEPS && i < engine->n_steps; i++) {
        struct pm_live_step *step = &engine->steps[(engine->n_steps - 1 - i) % PM_LIVE_STEPS];
        if (step->step != fact->step)
            continue;
        step->has_worker = true;
        step->failed = (fact->flags & PM_WORKER_FAILED) != 0;
        step->model_ns = fact->model_ns;
        step->worker_ns = fact->total_ns;
        return;
    }
}

static void on_worker(struct pm_follow_rank *rank, const uint8_t *payload)
{
    struct pm_worker_step fact;
    pm_fact_take(&rank->worker, payload, &fact);
    if (fact.instance != rank->instance)
        return;
    const uint64_t end_ns = fact.start_ns + fact.total_ns;
    struct pm_live_rank_sums *sums = sums_at(rank, end_ns);
    if (sums != NULL) {
        sums->steps += fact.phase != PM_PHASE_EMPTY;
        sums->total_ns += fact.total_ns;
        sums->pre_ns += fact.pre_ns;
        sums->model_ns += fact.model_ns;
        sums->post_ns += fact.post_ns;
        sums->sample_ns += fact.sample_ns;
    }
    rank->last_ns = end_ns > rank->last_ns ? end_ns : rank->last_ns;
    rank->last_step = fact.step;
    if (fact.phase != PM_PHASE_EMPTY)
        pm_live_samples_add(&rank->steps, end_ns, fact.total_ns, 1);
    tell_engine(rank, &fact);
    const uint64_t forward_ns = forward_of(&fact, 0);
    if (forward_ns != 0 || (fact.flags & PM_WORKER_EVENTS) != 0)
        add_forward(rank, fact.step, end_ns, forward_ns, clock_of(&fact));
    if (forward_ns == 0 && (fact.flags & PM_WORKER_ASYNC) != 0)
        rank->pending[fact.step % PM_LIVE_PENDING] = fact;
}

static void on_sync(struct pm_follow_rank *rank, const uint8_t *payload)
{
    struct pm_worker_sync fact;
    pm_fact_take(&rank->sync, payload, &fact);
    struct pm_worker_step *step = &rank->pending[fact.step % PM_LIVE_PENDING];
    if (fact.instance != rank->instance || step->step != fact.step || step->start_ns == 0)
        return;
    struct pm_live_counted *counted =
        rank->counted != NULL ? &rank->counted[fact.step % PM_LIVE_COUNTED] : NULL;
    const bool told = (step->flags & PM_WORKER_EVENTS) != 0 && counted != NULL &&
                      (counted->step != fact.step || counted->end_ns == 0);
    if (!told) /* by the device's own events */
        add_forward(rank, fact.step, step->start_ns + step->total_ns,
                    forward_of(step, fact.sync_at_ns), clock_of(step));
    step->start_ns = 0;
}

static void on_graph(struct pm_follow_rank *rank, const uint8_t *payload)
{
    if (rank->graph_outcome == NULL || rank->graph_at == NULL ||
        (rank->graph_instance != NULL &&
         pm_field_get(rank->graph_instance, payload) != rank->instance))
        return;
    const uint64_t outcome = pm_field_get(rank->graph_outcome, payload);
    if (outcome == PM_GRAPH_ASIDE)
        return;
    const bool replayed = outcome == PM_GRAPH_PIECEWISE || outcome == PM_GRAPH_FULL;
    struct pm_live_rank_sums *sums = sums_at(rank, pm_field_get(rank->graph_at, payload));
    rank->replayed += replayed;
    rank->eager += !replayed;
    if (sums == NULL)
        return;
    sums->replayed += replayed;
    sums->eager += !replayed;
}

void pm_follow_rank_record(struct pm_follow_rank *rank, const struct pm_record *record)
{
    const int schema = (int)record->schema;
    if (schema == rank->worker.schema)
        on_worker(rank, record->payload);
    else if (schema == rank->sync.schema)
        on_sync(rank, record->payload);
    else if (schema == rank->device.schema)
        on_device(rank, record->payload);
    else if (schema == rank->graph)
        on_graph(rank, record->payload);
}

int pm_follow_rank_poll(struct pm_follow_rank *rank)
{
    struct pm_record record;
    int rc = 0;
    while (rank->cursor != NULL && (rc = pm_cursor_next(rank->cursor, &record)) == 1) {
        rc = pm_live_totals_add(rank->totals, &record);
        if (rc != 0)
            return rc;
        if (!record.keyframe)
            pm_follow_rank_record(rank, &record);
    }
    return rc;
}

static void add_rank_sums(struct pm_live_rank_sums *into, const struct pm_live_rank_sums *from)
{
#define X(name, schema, field, classes) into->name += from->name;
    PM_LIVE_RANK_SUMS(X)
#undef X
    into->forward_ns += from->forward_ns;
    into->replayed += from->replayed;
    into->eager += from->eager;
}

void pm_follow_rank_show(const struct pm_follow_rank *rank, uint64_t from_ns, uint64_t now_ns,
                         struct pm_live_rank *ret_rank)
{
    struct pm_live_rank out = {
        .rank = rank->rank,
        .last_ns = rank->last_ns,
        .last_step = rank->last_step,
        .forward_clock = rank->forward_clock,
    };
    for (size_t i = 0; i < PM_LIVE_BUCKETS; i++) {
        const struct pm_live_rank_bucket *bucket = &rank->buckets[i];
        if (bucket->number >= from_ns / PM_LIVE_BUCKET_NS &&
            bucket->number <= now_ns / PM_LIVE_BUCKET_NS)
            add_rank_sums(&out.window, &bucket->sums);
    }
#define X(name, schema, field, classes)                                                            \
    out.total.name = pm_live_total(rank->totals, schema, field, (classes)-1);
    PM_LIVE_RANK_SUMS(X)
#undef X
    out.total.forward_ns = rank->forward_ns;
    for (unsigned outcome = 0; outcome < PM_GRAPH_OUTCOMES_COUNT; outcome++) {
        const uint64_t count = pm_live_total_class(rank->totals, "graph_pass", outcome);
        if (outcome == PM_GRAPH_PIECEWISE || outcome == PM_GRAPH_FULL)
            out.total.replayed += count;
        else if (outcome != PM_GRAPH_ASIDE)
            out.total.eager += count;
    }
    *ret_rank = out;
}
