/* See made_server.h. One thread; the recorder has no helper thread of its own here. */
#include "made_server.h"

#include "made_moe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/kv_facts.h"
#include "session/kv_schema.h"
#include "session/moe_schema.h"
#include "session/request_facts.h"
#include "session/request_schema.h"
#include "session/step_facts.h"
#include "session/step_schema.h"

enum { SCHED, MEMBER, WORKER, UPDATE, QUEUED, REQUEST, KV, LAYER, COUNTS };
const struct pm_schema *const made_schemas[] = {[SCHED] = &pm_sched_step_schema,
                                                [MEMBER] = &pm_step_request_schema,
                                                [WORKER] = &pm_worker_step_schema,
                                                [UPDATE] = &pm_update_step_schema,
                                                [QUEUED] = &pm_request_queued_schema,
                                                [REQUEST] = &pm_request_schema,
                                                [KV] = &pm_kv_step_schema,
                                                [LAYER] = &pm_moe_layer_schema,
                                                [COUNTS] = &pm_moe_counts_schema};
const size_t made_n_schemas = sizeof made_schemas / sizeof *made_schemas;

#define BLOCK 16
#define JOBS_MAX 65536  /* running and waiting */
#define FRONT_NS 250000 /* from the front end to the engine */

struct job {
    struct pm_request_fact fact;
    uint32_t known;      /* prompt and output tokens */
    uint32_t computed;   /* of them, in the cache */
    uint32_t lost_until; /* computed once already */
    uint32_t outputs, blocks, scheduled;
    bool was_in, prefilled;
};

struct server {
    struct pm_recorder *rec;
    const struct made_options *options;
    struct job **running, **waiting;
    uint32_t n_running, n_waiting;
    uint64_t now_ns, start_ns, next_arrival_ns, last_update_ns;
    uint64_t step, names, rng;
    uint32_t used, peak, freed;
    double noise; /* AR(1): steps that follow each other are alike */
    struct pm_sched_step sched;
    struct pm_kv_step kv;
    struct made_moe *moe; /* NULL: a dense model */
    struct made_counts counts;
};

/* ---- chance ---- */

static double uniform(struct server *s)
{
    s->rng ^= s->rng << 13, s->rng ^= s->rng >> 7, s->rng ^= s->rng << 17;
    return ((double)(s->rng >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(struct server *s)
{
    return sqrt(-2 * log(uniform(s))) * cos(6.283185307179586 * uniform(s));
}

/* Log-normal with this mean, at least 1. */
static uint32_t tokens(struct server *s, double mean)
{
    const double sigma = 0.8, value = mean * exp(sigma * normal(s) - sigma * sigma / 2);
    return value < 1 ? 1 : value > 8 * mean ? (uint32_t)(8 * mean) : (uint32_t)value;
}

static uint64_t next_arrival(struct server *s, uint64_t after_ns)
{
    const double hours = (double)(after_ns - s->start_ns) / 3.6e12;
    const double rate = s->options->requests_per_s *
                        (1 + s->options->wave * sin(6.283185307179586 * (hours - 8) / 24));
    return after_ns + (uint64_t)(-log(uniform(s)) / (rate > 0.001 ? rate : 0.001) * 1e9);
}

/* ---- recording ---- */

static void put(struct server *s, unsigned schema, const void *fact, size_t bytes)
{
    void *payload = pm_recorder_reserve(s->rec, schema);
    for (int i = 0; payload == NULL && i < 3; i++) {
        pm_recorder_round(s->rec);
        payload = pm_recorder_reserve(s->rec, schema);
    }
    if (payload == NULL)
        return; /* the ceiling: the recorder has counted it */
    memcpy(payload, fact, bytes);
    pm_recorder_commit(s->rec, payload);
    s->counts.records++;
}

static void member(struct server *s, const struct job *job, enum pm_request_event event,
                   uint8_t phase, uint32_t n, uint8_t flags)
{
    const struct pm_step_request fact = {
        .step = s->step,
        .at_ns = s->sched.start_ns + s->sched.dur_ns,
        .request = job->fact.request,
        .tokens = n,
        .computed = job->computed,
        .event = (uint8_t)event,
        .phase = phase,
        .blocks = event == PM_REQUEST_PREEMPTED ? job->blocks : 0,
        .reason = event == PM_REQUEST_PREEMPTED ? PM_PREEMPT_EXHAUSTED : 0,
        .flags = flags,
    };
    put(s, MEMBER, &fact, sizeof fact);
}

/* ---- requests ---- */

static void arrive(struct server *s)
{
    while (s->next_arrival_ns + FRONT_NS <= s->now_ns && s->n_waiting < JOBS_MAX) {
        struct job *job = calloc(1, sizeof *job);
        char name[64];
        if (job == NULL)
            abort();
        snprintf(name, sizeof name, "chatcmpl-%08llx%08llx",
                 (unsigned long long)(s->options->seed & 0xffffffff),
                 (unsigned long long)++s->names);
        struct pm_request_fact *fact = &job->fact;
        fact->arrived_ns = s->next_arrival_ns;
        fact->queued_ns = s->next_arrival_ns + FRONT_NS;
        fact->request = pm_recorder_string(s->rec, PM_STREAM_CORE, name, strlen(name));
        fact->prompt_tokens = tokens(s, s->options->prompt_mean);
        fact->max_tokens = tokens(s, s->options->output_mean);
        fact->state = PM_REQUEST_STATE_WAITING;
        fact->turns = 1;
        job->known = fact->prompt_tokens;
        const struct pm_request_queued queued = {.at_ns = fact->queued_ns,
                                                 .arrived_ns = fact->arrived_ns,
                                                 .request = fact->request,
                                                 .prompt_tokens = fact->prompt_tokens,
                                                 .max_tokens = fact->max_tokens,
                                                 .turn = 1};
        put(s, QUEUED, &queued, sizeof queued);
        s->waiting[s->n_waiting++] = job;
        s->next_arrival_ns = next_arrival(s, s->next_arrival_ns);
        s->counts.requests++;
    }
}

static void give_back(struct server *s, struct job *job)
{
    s->used -= job->blocks;
    s->freed += job->blocks;
    job->blocks = 0;
}

static bool take(struct server *s, struct job *job, uint32_t n)
{
    const uint32_t need = (job->computed + n + BLOCK - 1) / BLOCK;
    const uint32_t more = need > job->blocks ? need - job->blocks : 0;
    if (s->used + more > s->options->kv_blocks)
        return false;
    s->used += more;
    s->kv.allocated += more;
    job->blocks += more;
    return true;
}

static void preempt(struct server *s)
{
    struct job *job = s->running[--s->n_running];
    struct pm_request_fact *fact = &job->fact;
    member(s, job, PM_REQUEST_PREEMPTED, 0, 0, 0);
    if (job->was_in) {
        member(s, job, PM_REQUEST_LEFT, 0, 0, 0);
        s->sched.left++;
    }
    fact->preempted_ns = s->sched.start_ns;
    if (fact->first_preempted_ns == 0)
        fact->first_preempted_ns = fact->preempted_ns;
    fact->preemptions++;
    fact->lost_tokens += job->computed;
    fact->lost_blocks += job->blocks;
    fact->state = PM_REQUEST_STATE_AWAY;
    if (job->computed > job->lost_until)
        job->lost_until = job->computed;
    give_back(s, job);
    job->computed = 0;
    job->was_in = job->prefilled = false;
    memmove(s->waiting + 1, s->waiting, s->n_waiting++ * sizeof *s->waiting);
    s->waiting[0] = job;
    s->counts.preemptions++;
}

/* ---- a step ---- */

/* Counts n tokens of a job into the step and tells what has changed about it. */
static void schedule_one(struct server *s, struct job *job, uint32_t n)
{
    struct pm_sched_step *sched = &s->sched;
    const uint32_t before = job->computed;
    const uint32_t prompt = job->fact.prompt_tokens;
    uint32_t again = job->lost_until > before ? job->lost_until - before : 0;
    again = again > n ? n : again;
    uint32_t fresh = prompt > before + again ? prompt - before - again : 0;
    fresh = fresh > n - again ? n - again : fresh;
    const bool prefills = again > 0 || fresh > 0, gives = before + n == job->known;
    const uint8_t phase = prefills ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
    const uint8_t flags = gives ? PM_REQUEST_GIVES : 0;
    sched->requests++;
    sched->tokens += n;
    if (prefills) {
        sched->recompute_requests += again > 0;
        sched->prefill_requests += again == 0;
        sched->recompute_tokens += again;
        sched->prefill_tokens += fresh;
        sched->decode_tokens += n - again - fresh;
    } else {
        sched->decode_requests++;
        sched->decode_tokens += n;
    }
    job->fact.recomputed_tokens += again;
    if (job->fact.state == PM_REQUEST_STATE_WAITING) {
        job->fact.started_ns = sched->start_ns + sched->dur_ns;
        job->fact.queue_ns = job->fact.started_ns - job->fact.queued_ns;
        member(s, job, PM_REQUEST_STARTED, phase, n, flags);
    } else if (job->fact.state == PM_REQUEST_STATE_AWAY) {
        job->fact.resumed_ns = sched->start_ns + sched->dur_ns;
        job->fact.away_ns += job->fact.resumed_ns - job->fact.preempted_ns;
        member(s, job, PM_REQUEST_RESUMED, phase, n, flags);
    } else if (prefills) {
        member(s, job, PM_REQUEST_CHUNK, phase, n, flags);
    } else if (!job->prefilled) {
        member(s, job, PM_REQUEST_DECODING, phase, n, flags);
    }
    job->prefilled = !prefills;
    sched->joined += !job->was_in;
    job->fact.state = PM_REQUEST_STATE_RUNNING;
    job->was_in = true;
    job->scheduled = n;
}

static void schedule(struct server *s)
{
    const struct made_options *o = s->options;
    uint32_t budget = o->max_tokens;
    bool preempted = false;
    s->sched = (struct pm_sched_step){.step = s->step,
                                      .start_ns = s->now_ns,
                                      .max_requests = o->max_requests,
                                      .max_tokens = o->max_tokens};
    s->sched.dur_ns =
        (uint32_t)((60e3 + 300.0 * s->n_running) * o->factors.schedule * exp(0.1 * normal(s)));
    s->kv = (struct pm_kv_step){.step = s->step, .total = o->kv_blocks};
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct job *job = s->running[i];
        const uint32_t need = job->known - job->computed, n = need < budget ? need : budget;
        job->scheduled = 0;
        if (n == 0)
            continue;
        while (i < s->n_running && !take(s, job, n)) {
            preempt(s);
            preempted = true;
        }
        if (i >= s->n_running)
            break; /* it was its own victim */
        schedule_one(s, job, n);
        budget -= n;
    }
    uint32_t taken = 0;
    while (!preempted && taken < s->n_waiting && s->n_running < o->max_requests && budget > 0) {
        struct job *job = s->waiting[taken];
        const uint32_t need = job->known - job->computed, n = need < budget ? need : budget;
        if (!take(s, job, n))
            break;
        taken++;
        s->running[s->n_running++] = job;
        schedule_one(s, job, n);
        budget -= n;
    }
    s->n_waiting -= taken;
    memmove(s->waiting, s->waiting + taken, s->n_waiting * sizeof *s->waiting);
    struct pm_sched_step *sched = &s->sched;
    const bool prefill = sched->prefill_requests + sched->recompute_requests > 0;
    sched->phase = prefill                ? PM_PHASE_PREFILL
                   : sched->requests != 0 ? PM_PHASE_DECODE
                                          : PM_PHASE_EMPTY;
    sched->flags = prefill && sched->decode_requests > 0 ? PM_SCHED_MIXED : 0;
    sched->running = s->n_running;
    sched->waiting = s->n_waiting;
    put(s, SCHED, sched, sizeof *sched);
    s->kv.at_ns = sched->start_ns + sched->dur_ns;
    s->kv.used = s->used;
    s->kv.freed = s->freed;
    s->freed = 0;
    s->peak = s->used > s->peak ? s->used : s->peak;
    s->kv.peak = s->peak;
    put(s, KV, &s->kv, sizeof s->kv);
    s->now_ns = s->kv.at_ns;
}

static void execute(struct server *s)
{
    const struct pm_sched_step *sched = &s->sched;
    const struct made_factors *f = &s->options->factors;
    s->noise = 0.9 * s->noise + 0.02 * normal(s);
    double model = 3.2e6 + 35e3 * sched->decode_requests +
                   11e3 * (sched->prefill_tokens + sched->recompute_tokens);
    model *= f->model * exp(s->noise);
    if (uniform(s) < 1e-5)
        model += 50e6; /* a stall, now and then */
    struct pm_worker_step fact = {.step = s->step,
                                  .start_ns = s->now_ns + 20000,
                                  .requests = sched->requests,
                                  .tokens = sched->tokens,
                                  .phase = sched->phase,
                                  .runner = 1,
                                  .flags = PM_WORKER_HAS_MODEL | PM_WORKER_HAS_SAMPLE};
    const double jitter = exp(0.05 * normal(s));
    fact.pre_ns = (uint32_t)((250e3 + 1e3 * sched->requests) * f->pre * jitter);
    fact.model_ns_at = fact.start_ns + fact.pre_ns;
    fact.model_ns = (uint32_t)model;
    fact.post_ns = 15000;
    fact.sample_ns = (uint32_t)((180e3 + 2e3 * sched->requests) * f->sample * jitter);
    fact.sampler_at_ns = fact.pre_ns + fact.model_ns + fact.post_ns + 5000;
    fact.sampler_ns = fact.sample_ns / 2;
    fact.total_ns = fact.pre_ns + fact.model_ns + fact.post_ns + fact.sample_ns + 5000;
    put(s, WORKER, &fact, sizeof fact);
    if (s->moe != NULL)
        made_moe_step(s->moe, sched->tokens);
    s->now_ns = fact.start_ns + fact.total_ns;
}

static void finish(struct server *s, struct job *job)
{
    struct pm_request_fact *fact = &job->fact;
    fact->finished_ns = s->now_ns;
    fact->output_tokens = job->outputs;
    fact->ttft_ns = fact->first_token_ns - fact->arrived_ns;
    fact->tpot_ns =
        job->outputs > 1 ? (fact->last_token_ns - fact->first_token_ns) / (job->outputs - 1) : 0;
    fact->e2e_ns = fact->finished_ns - fact->arrived_ns;
    fact->step = s->step;
    fact->state = PM_REQUEST_STATE_FINISHED;
    fact->reason = job->outputs % 7 == 0 ? PM_FINISH_STOP : PM_FINISH_LENGTH;
    put(s, REQUEST, fact, sizeof *fact);
}

/* Outputs go to their requests; what is over leaves. Members that leave are told in the next step
 * by vLLM's hooks; here at once, with the next step's number. */
static void update(struct server *s)
{
    struct pm_update_step fact = {
        .step = s->step, .start_ns = s->now_ns + 10000, .flags = PM_UPDATE_LIVES};
    fact.dur_ns =
        (uint32_t)((60e3 + 1e3 * s->n_running) * s->options->factors.update * exp(0.1 * normal(s)));
    s->now_ns = fact.start_ns + fact.dur_ns;
    fact.gap_ns = s->last_update_ns != 0 ? s->now_ns - s->last_update_ns : 0;
    s->last_update_ns = s->now_ns;
    uint32_t kept = 0;
    struct job *over[1024];
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct job *job = s->running[i];
        job->computed += job->scheduled;
        const bool gives = job->scheduled > 0 && job->computed == job->known;
        job->scheduled = 0;
        if (gives) {
            fact.outputs++;
            fact.output_tokens++;
            if (job->outputs++ == 0)
                job->fact.first_token_ns = s->now_ns;
            else if (s->now_ns - job->fact.last_token_ns > job->fact.longest_gap_ns)
                job->fact.longest_gap_ns = s->now_ns - job->fact.last_token_ns;
            fact.continued += job->fact.last_token_ns + fact.gap_ns == s->now_ns;
            job->fact.last_token_ns = s->now_ns;
            job->known++;
        }
        if (job->outputs >= job->fact.max_tokens && fact.finished < 1024)
            over[fact.finished++] = job;
        else
            s->running[kept++] = job;
    }
    s->n_running = kept;
    s->counts.output_tokens += fact.output_tokens;
    put(s, UPDATE, &fact, sizeof fact);
    s->step++;
    for (uint32_t i = 0; i < fact.finished; i++) {
        finish(s, over[i]);
        give_back(s, over[i]);
        s->sched = (struct pm_sched_step){.start_ns = s->now_ns};
        member(s, over[i], PM_REQUEST_LEFT, 0, 0, 0);
        pm_recorder_string_drop(s->rec, PM_STREAM_CORE, over[i]->fact.request);
        free(over[i]);
    }
    s->now_ns += 30000;
}

void made_serve(struct pm_recorder *rec, const struct made_options *options, uint64_t start_ns,
                struct made_counts *ret_counts)
{
    struct server s = {.rec = rec,
                       .options = options,
                       .start_ns = start_ns,
                       .now_ns = start_ns,
                       .rng = options->seed * 0x9E3779B97F4A7C15ull | 1};
    const uint64_t end_ns = start_ns + (uint64_t)(options->hours * 3.6e12);
    s.running = calloc(options->max_requests + 1, sizeof *s.running);
    s.waiting = calloc(JOBS_MAX + options->max_requests, sizeof *s.waiting);
    if (s.running == NULL || s.waiting == NULL)
        abort();
    s.next_arrival_ns = next_arrival(&s, start_ns);
    if (options->moe_layers > 0)
        s.moe = made_moe_begin(rec, LAYER, COUNTS, options, start_ns);
    while (s.now_ns < end_ns) {
        if (s.n_running + s.n_waiting == 0 && s.next_arrival_ns > s.now_ns)
            s.now_ns = s.next_arrival_ns + 300000;
        if (s.now_ns >= end_ns)
            break;
        arrive(&s);
        schedule(&s);
        if (s.sched.requests > 0)
            execute(&s);
        update(&s);
        if (s.moe != NULL)
            s.counts.records += made_moe_flush(s.moe, s.now_ns, false);
        if (s.step % 4096 == 0)
            pm_recorder_round(rec);
    }
    if (s.moe != NULL)
        s.counts.records += made_moe_flush(s.moe, s.now_ns, true);
    made_moe_free(s.moe);
    for (uint32_t i = 0; i < s.n_running; i++)
        free(s.running[i]);
    for (uint32_t i = 0; i < s.n_waiting; i++)
        free(s.waiting[i]);
    free(s.running);
    free(s.waiting);
    s.counts.steps = s.step;
    s.counts.end_ns = s.now_ns;
    *ret_counts = s.counts;
}
