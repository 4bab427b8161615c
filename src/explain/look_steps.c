/*
 * Steps and KV cache levels of an engine, in one walk: the scheduler's and the worker's halves
 * joined, with the KV cache's step of the same number. Called by explain.c.
 */
#include "explain/look.h"

#include <string.h>

#include "explain/rules.h"
#include "reader/kv_facts.h"
#include "reader/steps.h"

/* The step before, which is weighed when the next one is known. */
struct held {
    bool any;
    struct pm_step step;
    uint64_t start_ns;
    bool has_kv;
    struct pm_kv_step kv;
};

struct walk {
    struct pm_look *look;
    struct pm_kv_facts *kv_facts;
    struct pm_kv_step kv; /* read, not used yet */
    bool has_kv;
    struct held held;
};

static uint64_t start_of(const struct pm_step *step)
{
    return step->has_worker ? step->worker_start_ns : step->sched_start_ns;
}

static uint64_t own_time(const struct pm_step *step)
{
    return step->has_worker ? step->total_ns : step->sched_ns;
}

/* The KV cache's step of this number, if there is one. */
static int kv_of(struct walk *walk, uint64_t step, bool *ret_found, struct pm_kv_step *ret_kv)
{
    *ret_found = false;
    while (walk->kv_facts != NULL) {
        if (!walk->has_kv) {
            const int rc = pm_kv_steps_next(walk->kv_facts, &walk->kv);
            if (rc < 0)
                return rc;
            if (rc == 0) {
                pm_kv_facts_close(walk->kv_facts);
                walk->kv_facts = NULL;
                return 0;
            }
            walk->has_kv = true;
        }
        if (walk->kv.step > step)
            return 0;
        walk->has_kv = false;
        if (walk->kv.step == step) {
            *ret_kv = walk->kv;
            *ret_found = true;
            return 0;
        }
    }
    return 0;
}

static void add_kv(struct pm_look_kv *kv, const struct pm_kv_step *step, uint64_t weight_ns)
{
    const double pct = pm_pct(step->used, step->total);

    kv->steps++;
    kv->total = step->total;
    if (step->used > kv->peak) {
        kv->peak = step->used;
        kv->peak_ns = step->at_ns;
    }
    kv->used_sum += step->used;
    kv->total_sum += step->total;
    kv->of_ns += weight_ns;
    if (pct > pm_limits.kv_full) {
        kv->over_ns += weight_ns;
        kv->over_steps++;
        kv->over_from_ns = kv->over_from_ns != 0 ? kv->over_from_ns : step->at_ns;
        kv->over_to_ns = step->at_ns;
    }
    if (pct < pm_limits.kv_low)
        kv->under_ns += weight_ns;
    kv->allocated += step->allocated;
    kv->revived += step->revived;
    kv->freed += step->freed;
    kv->evicted += step->evicted;
    kv->dropped += step->dropped;
    kv->queried_tokens += step->queried_tokens;
    kv->hit_tokens += step->hit_tokens;
    kv->requeried_tokens += step->requeried_tokens;
    kv->rehit_tokens += step->rehit_tokens;
    kv->caching = (step->flags & PM_KV_CACHING) != 0;
}

static enum pm_wait_cause cause_of(const struct pm_look_steps *sums, const struct held *held)
{
    const struct pm_step *step = &held->step;
    if (sums->max_seqs != 0 && step->running >= sums->max_seqs)
        return PM_WAIT_SEQS;
    if (held->has_kv && pm_pct(held->kv.used, held->kv.total) > pm_limits.kv_full)
        return PM_WAIT_KV;
    if (sums->max_tokens != 0 && pm_pct(step->tokens, sums->max_tokens) >= pm_limits.token_full)
        return PM_WAIT_TOKENS;
    return PM_WAIT_OTHER;
}

/* Weighs the step that is held; next: the one that followed, NULL at the end. */
static void weigh(struct pm_look *look, const struct held *held, const struct pm_step *next)
{
    struct pm_look_steps *sums = &look->steps;
    const struct pm_step *step = &held->step;
    uint64_t weight_ns = own_time(step);
    /* Requests that decode now, are computed again, or were waiting, were there in between. */
    const bool loaded = next != NULL && start_of(next) > held->start_ns &&
                        (next->decode_requests > 0 || next->recompute_requests > 0 ||
                         step->waiting > 0 || next->spec_requests > 0);

    if (loaded) {
        weight_ns = start_of(next) - held->start_ns;
        if (step->has_worker && step->forward_ns != 0) {
            sums->loaded++;
            if (step->has_device && step->has_device_sample && next->has_device_wait) {
                const uint64_t work_ns =
                    step->device_model_ns + step->device_after_ns + step->device_sample_ns;
                sums->by_device++;
                sums->loaded_ns += work_ns + next->device_wait_ns;
                sums->forward_ns += work_ns;
                sums->idle_ns += next->device_wait_ns;
            } else {
                sums->loaded_ns += weight_ns;
                sums->forward_ns += step->forward_ns < weight_ns ? step->forward_ns : weight_ns;
                sums->idle_ns += step->forward_ns < weight_ns ? weight_ns - step->forward_ns : 0;
            }
            sums->part_ns[PM_HOST_SCHEDULE] += step->sched_ns;
            sums->part_ns[PM_HOST_PREPARE] += step->pre_ns;
            sums->part_ns[PM_HOST_POST] += step->post_ns;
            sums->part_ns[PM_HOST_SAMPLE] += step->sample_ns;
        }
    }
    sums->busy_ns += weight_ns;
    if (held->has_kv)
        add_kv(&look->kv, &held->kv, weight_ns);
    if (sums->max_tokens != 0 && step->prefill_tokens + step->recompute_tokens > 0 &&
        pm_pct(step->tokens, sums->max_tokens) >= pm_limits.token_full) {
        sums->full_tokens_ns += weight_ns;
        if (step->waiting > 0 ||
            (next != NULL && next->prefill_tokens + next->recompute_tokens > 0))
            sums->full_tokens_wait_ns += weight_ns;
    }
    if (step->waiting > 0) {
        const enum pm_wait_cause cause = cause_of(sums, held);
        sums->waiting_steps++;
        sums->waiting_ns += weight_ns;
        sums->cause_ns[cause] += weight_ns;
        sums->wait_s[cause] += (double)step->waiting * (double)weight_ns / 1e9;
    }
    if (step->recompute_tokens > 0 && step->tokens > 0)
        sums->recompute_ns += (uint64_t)((double)weight_ns * step->recompute_tokens / step->tokens);
}

static void add_step(struct pm_look_steps *sums, const struct pm_step *step)
{
    const uint64_t start_ns = start_of(step), end_ns = start_ns + own_time(step);

    if (sums->n == 0) {
        sums->first = step->step;
        sums->from_ns = step->has_sched ? step->sched_start_ns : start_ns;
    }
    sums->last = step->step;
    sums->to_ns = end_ns > sums->to_ns ? end_ns : sums->to_ns;
    sums->n++;
    sums->prefill += step->phase == PM_PHASE_PREFILL;
    sums->decode += step->phase == PM_PHASE_DECODE;
    sums->mixed += step->mixed;
    sums->tokens += step->tokens;
    sums->requests += step->requests;
    sums->prefill_tokens += step->prefill_tokens;
    sums->decode_tokens += step->decode_tokens;
    sums->recompute_tokens += step->recompute_tokens;
    sums->max_running = step->running > sums->max_running ? step->running : sums->max_running;
    sums->clocks[step->forward_clock & 3u]++;
    sums->sample_all_ns += step->sample_ns;
    sums->sampler_ns += step->sampler_ns;
    sums->bookkeep_ns += step->bookkeep_ns;
    sums->draft_ns += step->draft_ns;
    sums->device_sampled += step->has_device_sample;
    sums->device_sample_ns += step->device_sample_ns;
}

static int take(struct walk *walk, const struct pm_step *step)
{
    struct held now = {.any = true, .step = *step, .start_ns = start_of(step)};
    int rc = kv_of(walk, step->step, &now.has_kv, &now.kv);

    if (rc != 0)
        return rc;
    if (walk->held.any)
        weigh(walk->look, &walk->held, step);
    if (step->phase == PM_PHASE_EMPTY || step->failed || step->tokens == 0) {
        /* No row of its own; what it moved in the KV cache counts. */
        if (now.has_kv)
            add_kv(&walk->look->kv, &now.kv, 0);
        walk->held.any = false;
        return 0;
    }
    add_step(&walk->look->steps, step);
    walk->held = now;
    return 0;
}

int pm_look_take_steps(struct pm_look *look)
{
    struct walk walk = {.look = look};
    struct pm_steps *steps;
    struct pm_step step;
    int rc = pm_steps_open(&steps, look->session, look->engine, look->sampler);

    if (rc != 0)
        return rc == -PM_ENOTFOUND ? 0 : rc;
    rc = pm_kv_steps_open(&walk.kv_facts, look->session, look->engine);
    if (rc != 0) {
        pm_steps_close(steps);
        return rc;
    }
    while ((rc = pm_steps_next(steps, &step)) == 1 && (rc = take(&walk, &step)) == 0)
        ;
    if (rc == 0 && walk.held.any)
        weigh(look, &walk.held, NULL);
    pm_kv_facts_close(walk.kv_facts);
    pm_steps_close(steps);
    return rc;
}

int pm_look_take_evictions(struct pm_look *look)
{
    struct pm_look_kv *kv = &look->kv;
    struct pm_kv_facts *facts;
    struct pm_kv_eviction eviction;
    int rc = pm_kv_evictions_open(&facts, look->session, look->engine);

    if (rc != 0)
        return rc;
    while ((rc = pm_kv_evictions_next(facts, &eviction)) == 1) {
        kv->evictions++;
        kv->reused += eviction.reuses > 0;
        kv->reuses += eviction.reuses;
        if (eviction.lifetime_ns == 0)
            continue;
        pm_times_add(&kv->lifetime, eviction.lifetime_ns);
        pm_times_add(&kv->idle, eviction.idle_ns);
        if (eviction.reuses > 0)
            pm_times_add(&kv->reused_idle, eviction.idle_ns);
    }
    pm_kv_facts_close(facts);
    return rc;
}
