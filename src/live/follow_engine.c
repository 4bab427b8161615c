/* One engine's scheduler, followed (see follow.h). */
#include "live/follow.h"

#include "session/kv_facts.h"

#include <stdlib.h>
#include <string.h>

#define K(member) PM_FACT_MEMBER(pm_kv_step, member)
static const struct pm_fact_member kv_members[] = {
    K(at_ns),   K(total),          K(used),       K(evictable), K(peak),
    K(evicted), K(queried_tokens), K(hit_tokens), K(instance),
};
#undef K

static struct pm_live_bucket *bucket_at(struct pm_follow_engine *engine, uint64_t at_ns)
{
    const uint64_t number = at_ns / PM_LIVE_BUCKET_NS;
    struct pm_live_bucket *bucket = &engine->buckets[number % PM_LIVE_BUCKETS];
    if (bucket->number < number)
        *bucket = (struct pm_live_bucket){.number = number};
    return bucket->number == number ? bucket : NULL;
}

static void saw(struct pm_follow_engine *engine, uint64_t at_ns)
{
    engine->last_ns = at_ns > engine->last_ns ? at_ns : engine->last_ns;
}

/* ---- whether it has work ---- */

/* The time without a request, over the buckets that it lies in. */
static void add_no_work(struct pm_follow_engine *engine, uint64_t from_ns, uint64_t to_ns)
{
    const uint64_t oldest_ns = to_ns > PM_LIVE_BUCKETS * PM_LIVE_BUCKET_NS
                                   ? to_ns - PM_LIVE_BUCKETS * PM_LIVE_BUCKET_NS
                                   : 0;
    if (from_ns < oldest_ns)
        from_ns = oldest_ns;
    while (from_ns < to_ns) {
        const uint64_t end_ns = (from_ns / PM_LIVE_BUCKET_NS + 1) * PM_LIVE_BUCKET_NS;
        const uint64_t until_ns = end_ns < to_ns ? end_ns : to_ns;
        struct pm_live_bucket *bucket = bucket_at(engine, from_ns);
        if (bucket != NULL)
            bucket->no_work_ns += until_ns - from_ns;
        from_ns = until_ns;
    }
}

static void one_more(struct pm_follow_engine *engine, uint64_t at_ns)
{
    engine->knows_requests = true;
    if (engine->open_now++ == 0 && engine->no_work_from_ns != 0) {
        add_no_work(engine, engine->no_work_from_ns, at_ns);
        engine->no_work_from_ns = 0;
    }
}

static void one_less(struct pm_follow_engine *engine, uint64_t at_ns)
{
    if (engine->open_now > 0 && --engine->open_now == 0)
        engine->no_work_from_ns = at_ns;
}

/* ---- records ---- */

static void on_sched(struct pm_follow_engine *engine, const uint8_t *payload)
{
    struct pm_sched_step fact;
    pm_fact_take(&engine->sched, payload, &fact);
    if (fact.instance != engine->which->instance)
        return;
    struct pm_live_bucket *bucket = bucket_at(engine, fact.start_ns);
    saw(engine, fact.start_ns + fact.dur_ns);
    if (bucket != NULL) {
        bucket->sums.sched_ns += fact.dur_ns;
        bucket->sums.steps += fact.phase != PM_PHASE_EMPTY;
        bucket->sums.step_requests += fact.requests;
        bucket->sums.step_tokens += fact.tokens;
        bucket->sums.prefill_tokens += fact.prefill_tokens;
        bucket->sums.recompute_tokens += fact.recompute_tokens;
        bucket->sums.decode_tokens += fact.decode_tokens;
        bucket->has_level = true;
        bucket->running = fact.running;
        bucket->waiting = fact.waiting;
    }
    if (fact.tokens > 0 || !engine->stepped)
        engine->newest = fact;
    engine->newest.running = fact.running;
    engine->newest.waiting = fact.waiting;
    engine->stepped = true;
    if (fact.tokens == 0)
        return;
    engine->steps[engine->n_steps++ % PM_LIVE_STEPS] = (struct pm_live_step){
        .step = fact.step,
        .start_ns = fact.start_ns,
        .sched_ns = fact.dur_ns,
        .requests = fact.requests,
        .tokens = fact.tokens,
        .running = fact.running,
        .waiting = fact.waiting,
        .phase = fact.phase,
    };
}

static void on_update(struct pm_follow_engine *engine, const uint8_t *payload)
{
    struct pm_update_step fact;
    pm_fact_take(&engine->update, payload, &fact);
    if (fact.instance != engine->which->instance)
        return;
    const uint64_t at_ns = fact.start_ns + fact.dur_ns;
    struct pm_live_bucket *bucket = bucket_at(engine, at_ns);
    saw(engine, at_ns);
    engine->newest_output_ns = at_ns;
    if (bucket != NULL) {
        bucket->sums.update_ns += fact.dur_ns;
        bucket->sums.outputs += fact.outputs;
        bucket->sums.output_tokens += fact.output_tokens;
        bucket->sums.drafted_tokens += fact.drafted;
        bucket->sums.accepted_tokens += fact.accepted;
    }
    for (uint64_t i = 0; i < PM_LIVE_STEPS && i < engine->n_steps; i++) {
        struct pm_live_step *step = &engine->steps[(engine->n_steps - 1 - i) % PM_LIVE_STEPS];
        if (step->step != fact.step)
            continue;
        step->end_ns = at_ns;
        step->update_ns = fact.dur_ns;
        step->outputs = fact.outputs;
        step->failed = step->failed || (fact.flags & PM_UPDATE_FAILED) != 0;
        break;
    }
}

static void on_kv(struct pm_follow_engine *engine, const uint8_t *payload)
{
    struct pm_kv_step fact;
    pm_fact_take(&engine->kv, payload, &fact);
    if (fact.instance != engine->which->instance)
        return;
    engine->has_kv = true;
    engine->kv_level = (struct pm_kv_step_levels){
        .used = fact.used, .total = fact.total, .evictable = fact.evictable, .peak = fact.peak};
    struct pm_live_bucket *bucket = bucket_at(engine, fact.at_ns);
    if (bucket == NULL)
        return;
    bucket->has_kv = true;
    bucket->kv_used = fact.used;
    bucket->kv_total = fact.total;
    bucket->sums.evicted_blocks += fact.evicted;
    bucket->sums.queried_tokens += fact.queried_tokens;
    bucket->sums.hit_tokens += fact.hit_tokens;
}

static void on_queued(struct pm_follow_engine *engine, const uint8_t *payload)
{
    struct pm_request_queued fact;
    pm_fact_take(&engine->queued, payload, &fact);
    if (fact.instance == engine->which->instance && fact.turn <= 1)
        one_more(engine, fact.at_ns);
}

/* Of the first segment's head: those that were there before. */
static void on_open(struct pm_follow_engine *engine, const uint8_t *payload)
{
    struct pm_request_fact fact;
    pm_fact_take(&engine->open, payload, &fact);
    if (fact.instance == engine->which->instance)
        one_more(engine, fact.queued_ns);
}

static int on_record(const struct pm_record *record, void *arg)
{
    struct pm_follow_engine *engine = arg;
    const int schema = (int)record->schema;
    int rc = pm_live_totals_add(engine->totals, record);
    if (rc != 0)
        return rc;
    if (record->keyframe) {
        if (!engine->past_head && schema == engine->open.schema)
            on_open(engine, record->payload);
        return 0;
    }
    engine->past_head = true;
    if (schema == engine->sched.schema)
        on_sched(engine, record->payload);
    else if (schema == engine->update.schema)
        on_update(engine, record->payload);
    else if (schema == engine->kv.schema)
        on_kv(engine, record->payload);
    else if (schema == engine->queued.schema)
        on_queued(engine, record->payload);
    else
        for (size_t i = 0; i < engine->n_own_ranks; i++)
            pm_follow_rank_record(engine->own_ranks[i], record);
    return 0;
}

/* ---- what the reader of requests tells ---- */

static int on_moment(const struct pm_request_moment *moment, void *arg)
{
    struct pm_follow_engine *engine = arg;
    struct pm_live_bucket *bucket;
    switch (moment->kind) {
    case PM_MOMENT_STARTED:
        if (moment->request->fact.queued_ns != 0 && moment->at_ns > moment->request->fact.queued_ns)
            pm_live_samples_add(&engine->samples[PM_LIVE_queue], moment->at_ns,
                                moment->at_ns - moment->request->fact.queued_ns, 1);
        break;
    case PM_MOMENT_PREEMPTED:
        bucket = bucket_at(engine, moment->at_ns);
        if (bucket != NULL)
            bucket->sums.preemptions++;
        break;
    default:
        break;
    }
    return 0;
}

static int on_gap(uint64_t gap_ns, uint32_t count, void *arg)
{
    struct pm_follow_engine *engine = arg;
    pm_live_samples_add(&engine->samples[PM_LIVE_itl], engine->newest_output_ns, gap_ns, count);
    return 0;
}

/* Its first output, if that came since the last poll. */
static void take_first_output(struct pm_follow_engine *engine, const struct pm_request *request)
{
    const struct pm_request_fact *fact = &request->fact;
    if (fact->first_token_ns > engine->outputs_until_ns && fact->ttft_ns != 0)
        pm_live_samples_add(&engine->samples[PM_LIVE_ttft], fact->first_token_ns, fact->ttft_ns, 1);
}

static bool each_open(const struct pm_request *request, void *arg)
{
    take_first_output(arg, request);
    return true;
}

static void on_ended(struct pm_follow_engine *engine, const struct pm_request *request)
{
    const struct pm_request_fact *fact = &request->fact;
    struct pm_live_bucket *bucket = bucket_at(engine, fact->finished_ns);
    take_first_output(engine, request);
    if (fact->tpot_ns != 0)
        pm_live_samples_add(&engine->samples[PM_LIVE_tpot], fact->finished_ns, fact->tpot_ns, 1);
    if (fact->e2e_ns != 0)
        pm_live_samples_add(&engine->samples[PM_LIVE_e2e], fact->finished_ns, fact->e2e_ns, 1);
    if (bucket != NULL) {
        bucket->sums.finished++;
        bucket->sums.prompt_tokens += fact->prompt_tokens;
        bucket->sums.cached_tokens += fact->cached_tokens;
        bucket->aborted += fact->reason == PM_FINISH_ABORT;
    }
    engine->ended[engine->n_ended++ % PM_LIVE_ENDED] = *request;
    one_less(engine, fact->finished_ns);
}

/* ---- life ---- */

int pm_follow_engine_open(struct pm_follow_engine *engine, const struct pm_session *session,
                          uint64_t from_ns)
{
    const struct pm_process *process = engine->which->process;
    const struct pm_request_watch watch = {
        .moment = on_moment, .gap = on_gap, .record = on_record, .arg = engine};
    int rc = pm_requests_open(&engine->requests, session, engine->place, &watch);
    if (rc != 0)
        return rc;
    engine->totals = calloc(1, sizeof(*engine->totals));
    if (engine->totals == NULL)
        return -PM_ENOMEM;
    engine->sched.schema = engine->update.schema = engine->queued.schema = -1;
    engine->open.schema = engine->kv.schema = -1;
    if (process == NULL)
        return 0;
    rc = pm_live_totals_open(engine->totals, process);
    if (rc != 0)
        return rc;
    pm_fact_map_sched(&engine->sched, process);
    pm_fact_map_update(&engine->update, process);
    pm_fact_map_queued(&engine->queued, process);
    pm_fact_map_open(&engine->open, process);
    pm_fact_map_make(&engine->kv, process, "kv_step", sizeof(struct pm_kv_step), kv_members,
                     sizeof(kv_members) / sizeof(kv_members[0]));
    pm_requests_skip(engine->requests, from_ns, engine->totals->covers);
    return 0;
}

void pm_follow_engine_close(struct pm_follow_engine *engine)
{
    pm_requests_close(engine->requests);
    if (engine->totals != NULL)
        pm_live_totals_close(engine->totals);
    free(engine->totals);
    free(engine->own_ranks);
    for (unsigned m = 0; m < PM_LIVE_METRIC_COUNT; m++)
        pm_live_samples_free(&engine->samples[m]);
}

int pm_follow_engine_poll(struct pm_follow_engine *engine, uint64_t now_ns)
{
    struct pm_request request;
    int rc;
    while ((rc = pm_requests_poll(engine->requests, &request)) == 1)
        on_ended(engine, &request);
    if (rc < 0)
        return rc;
    pm_requests_open_ones(engine->requests, each_open, engine);
    engine->outputs_until_ns = engine->newest_output_ns;
    for (unsigned m = 0; m < PM_LIVE_METRIC_COUNT; m++)
        if (now_ns > 2 * PM_LIVE_WINDOW_NS)
            pm_live_samples_forget(&engine->samples[m], now_ns - 2 * PM_LIVE_WINDOW_NS);
    return 0;
}

/* ---- the figures ---- */

static void show_second(const struct pm_follow_engine *engine, uint64_t first_bucket,
                        struct pm_live_second *out)
{
    *out = (struct pm_live_second){.running = -1, .waiting = -1, .kv = -1};
    for (uint64_t number = first_bucket; number < first_bucket + 4; number++) {
        const struct pm_live_bucket *bucket = &engine->buckets[number % PM_LIVE_BUCKETS];
        if (bucket->number != number)
            continue;
        out->in_tokens += (double)bucket->sums.prefill_tokens;
        out->out_tokens += (double)bucket->sums.output_tokens;
        out->steps += (double)bucket->sums.steps;
        if (bucket->has_level) {
            out->running = bucket->running;
            out->waiting = bucket->waiting;
        }
        if (bucket->has_kv && bucket->kv_total > 0)
            out->kv = (double)bucket->kv_used / bucket->kv_total;
    }
}

struct shown {
    struct pm_live_engine *out;
    uint64_t now_ns;
    int error;
};

static const char *phase_of(const struct pm_request_fact *fact)
{
    switch (fact->state) {
    case PM_REQUEST_STATE_WAITING:
        return "waiting";
    case PM_REQUEST_STATE_AWAY:
        return "preempted";
    default:
        return fact->first_token_ns != 0 ? "decode" : "prefill";
    }
}

static uint64_t since(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? to_ns - from_ns : 0;
}

static bool show_request(const struct pm_request *request, void *arg)
{
    struct shown *shown = arg;
    struct pm_live_engine *out = shown->out;
    const struct pm_request_fact *fact = &request->fact;
    if (out->n_requests == out->capacity_requests) {
        const size_t want = out->capacity_requests != 0 ? out->capacity_requests * 2 : 64;
        struct pm_live_request *more = realloc(out->requests, want * sizeof(*more));
        if (more == NULL) {
            shown->error = -PM_ENOMEM;
            return false;
        }
        out->requests = more;
        out->capacity_requests = want;
    }
    struct pm_live_request *row = &out->requests[out->n_requests++];
    *row = (struct pm_live_request){
        .phase = phase_of(fact),
        .age_ns = since(fact->arrived_ns != 0 ? fact->arrived_ns : fact->queued_ns, shown->now_ns),
        .gap_ns = since(fact->last_token_ns, shown->now_ns),
        .ttft_ns = fact->ttft_ns,
        .queue_ns = fact->started_ns != 0 ? fact->queue_ns : since(fact->queued_ns, shown->now_ns),
        .prompt_tokens = fact->prompt_tokens,
        .cached_tokens = fact->cached_tokens,
        /* One whose beginning was not walked: what it had then, and its outputs since. */
        .output_tokens = request->outputs_known ? fact->output_tokens
                                                : fact->output_tokens + (uint32_t)request->outputs,
        .max_tokens = fact->max_tokens,
        .preemptions = fact->preemptions,
    };
    memcpy(row->id, request->id, sizeof(row->id));
    return true;
}

static void add_sums(struct pm_live_sums *into, const struct pm_live_sums *from)
{
#define X(name, schema, field, classes) into->name += from->name;
    PM_LIVE_SUMS(X)
#undef X
}

static void show_window(const struct pm_follow_engine *engine, uint64_t from_ns, uint64_t now_ns,
                        struct pm_live_engine *out)
{
    for (size_t i = 0; i < PM_LIVE_BUCKETS; i++) {
        const struct pm_live_bucket *bucket = &engine->buckets[i];
        if (bucket->number < from_ns / PM_LIVE_BUCKET_NS ||
            bucket->number > now_ns / PM_LIVE_BUCKET_NS)
            continue;
        add_sums(&out->window, &bucket->sums);
        out->no_work_ns += bucket->no_work_ns;
        out->aborted += bucket->aborted;
    }
    if (engine->no_work_from_ns != 0 && engine->no_work_from_ns < now_ns)
        out->no_work_ns +=
            now_ns - (engine->no_work_from_ns > from_ns ? engine->no_work_from_ns : from_ns);
    for (unsigned m = 0; m < PM_LIVE_METRIC_COUNT; m++)
        pm_live_samples_quantiles(&engine->samples[m], from_ns, now_ns + 1,
                                  &out->window_quantiles[m]);
}

static void show_total(const struct pm_follow_engine *engine, struct pm_live_engine *out)
{
    static const char *const fields[PM_LIVE_METRIC_COUNT][2] = {
#define X(name, doc, schema, field) {schema, field},
        PM_LIVE_METRICS(X)
#undef X
    };
    if (engine->totals->process == NULL)
        return;
#define X(name, schema, field, classes)                                                            \
    out->total.name = pm_live_total(engine->totals, schema, field, (classes)-1);
    PM_LIVE_SUMS(X)
#undef X
    for (size_t i = 0; i < out->n_requests; i++) /* counted at the end of each */
        out->total.preemptions += out->requests[i].preemptions;
    for (unsigned m = 0; m < PM_LIVE_METRIC_COUNT; m++)
        if (fields[m][0] != NULL)
            pm_live_total_quantiles(engine->totals, fields[m][0], fields[m][1],
                                    &out->total_quantiles[m]);
}

int pm_follow_engine_show(const struct pm_follow_engine *engine, uint64_t from_ns, uint64_t now_ns,
                          struct pm_live_engine *ret_engine)
{
    struct pm_live_engine *out = ret_engine;
    struct shown shown = {.out = out, .now_ns = now_ns};
    struct pm_live_request *const requests = out->requests;
    const size_t capacity = out->capacity_requests;
    struct pm_live_rank *const ranks = out->ranks;
    const size_t n_ranks = out->n_ranks;
    const int process = out->process;

    *out = (struct pm_live_engine){
        .number = engine->which->number,
        .process = process,
        .requests = requests,
        .capacity_requests = capacity,
        .ranks = ranks,
        .n_ranks = n_ranks,
        .stepped = engine->stepped,
        .running = engine->newest.running,
        .waiting = engine->newest.waiting,
        .max_requests = engine->newest.max_requests,
        .max_tokens = engine->newest.max_tokens,
        .batch_requests = engine->newest.requests,
        .batch_tokens = engine->newest.tokens,
        .has_kv = engine->has_kv,
        .kv_used = engine->kv_level.used,
        .kv_total = engine->kv_level.total,
        .kv_evictable = engine->kv_level.evictable,
        .kv_peak = engine->kv_level.peak,
        .last_ns = engine->last_ns,
    };
    pm_requests_open_ones(engine->requests, show_request, &shown);
    if (out->n_requests == 0 && engine->knows_requests)
        out->running = out->waiting = 0; /* the last step's queues are over */
    show_window(engine, from_ns, now_ns, out);
    show_total(engine, out);
    const uint64_t last_bucket = now_ns / PM_LIVE_BUCKET_NS / 4 * 4; /* this second is not over */
    for (unsigned i = 0; i < PM_LIVE_HISTORY; i++)
        show_second(engine, last_bucket - 4ull * (PM_LIVE_HISTORY - i), &out->seconds[i]);
    for (uint64_t n = engine->n_steps < PM_LIVE_STEPS ? 0 : engine->n_steps - PM_LIVE_STEPS;
         n < engine->n_steps; n++)
        out->steps[out->n_steps++] = engine->steps[n % PM_LIVE_STEPS];
    for (uint64_t n = engine->n_ended < PM_LIVE_ENDED ? 0 : engine->n_ended - PM_LIVE_ENDED;
         n < engine->n_ended; n++)
        out->ended[out->n_ended++] = engine->ended[n % PM_LIVE_ENDED];
    return shown.error;
}
