/*
 * One step as an observation: its composition, what it took, and what it adds to the load. See
 * metrics.h for the words.
 */
#include "compare/collect.h"

#include <string.h>

#include "session/step_facts.h"

/* Of [from, to), what [start, start + dur) covers. */
static uint64_t overlap(uint64_t from, uint64_t to, uint64_t start, uint64_t dur)
{
    const uint64_t end = start + dur;
    if (start > from)
        from = start;
    if (end < to)
        to = end;
    return to > from ? to - from : 0;
}

static void put(struct pm_observation *seen, enum pm_step_value value, uint64_t ns)
{
    seen->values[value] = (double)ns;
    seen->present[value] = true;
}

static void compose(const struct pm_known *known, const struct pm_step *step,
                    const struct pm_step_beside *beside, struct pm_observation *seen)
{
    struct pm_composition what = {.kind = PM_WORK_DECODE};
    const uint64_t kv = known->kv && beside->has_kv ? beside->kv_used * beside->block_tokens : 0;

    if (known->sched && known->detail && step->has_sched) {
        what.prefill_tokens = (uint64_t)step->prefill_tokens + step->recompute_tokens;
        what.prefill_requests = (uint64_t)step->prefill_requests + step->recompute_requests;
        what.decode_requests = step->decode_requests;
        if (what.prefill_tokens > 0)
            what.kind = what.decode_requests > 0 ? PM_WORK_MIXED : PM_WORK_PREFILL;
        if (step->decode_requests > 0)
            what.drafts_per_request =
                (step->spec_tokens + step->decode_requests - 1) / step->decode_requests;
    } else if (step->phase == PM_PHASE_PREFILL) {
        what.kind = PM_WORK_PREFILL;
        what.prefill_tokens = step->tokens;
        what.prefill_requests = step->requests;
    } else {
        what.decode_requests = step->requests;
        what.prefill_tokens = step->tokens != step->requests ? step->tokens : 0;
    }
    what.kv_tokens = kv;
    seen->key = pm_composition_key(&what);
    seen->covariates[0] = (double)what.prefill_tokens;
    seen->covariates[1] = (double)what.decode_requests;
    seen->covariates[2] = (double)kv;
}

/* What it took. Returns the time without work before it. */
static uint64_t measure(const struct pm_step_walk *walk, const struct pm_known *known,
                        const struct pm_step *step, const struct pm_step_beside *beside,
                        struct pm_observation *seen)
{
    const uint64_t start = step->worker_start_ns, last = walk->last_end_ns;
    const uint64_t parts =
        (uint64_t)step->pre_ns + step->model_ns + step->post_ns + step->sample_ns;
    const uint64_t gap = last != 0 && start > last ? start - last : 0;
    uint64_t whole = step->total_ns, no_work = gap;

    if (step->has_sched)
        put(seen, PM_STEP_SCHEDULE, step->sched_ns);
    if (step->pre_ns != 0)
        put(seen, PM_STEP_PRE, step->pre_ns);
    if (step->post_ns != 0)
        put(seen, PM_STEP_POST, step->post_ns);
    if (step->sample_ns != 0)
        put(seen, PM_STEP_SAMPLE, step->sample_ns);
    if (step->model_ns != 0 && known->detail)
        put(seen, PM_STEP_OTHER, whole > parts ? whole - parts : 0);
    if (step->forward_ns != 0) {
        put(seen, PM_STEP_MODEL, step->forward_ns);
        if (step->forward_clock > 1 && step->model_ns != 0 && known->detail)
            put(seen, PM_STEP_LAUNCH, step->model_ns);
    }
    if (beside->has_update && beside->update_ns != 0)
        put(seen, PM_STEP_OUTPUT, beside->update_ns);
    /* Requests that were there before the step were there in the gap: those that decode in it, or
     * that the step before left waiting or with a part of their prompt. Without the scheduler's
     * account nothing is known of it. */
    const bool there = known->detail ? step->decode_requests > 0 : step->phase == PM_PHASE_DECODE;
    if (!known->detail) /* what files of old have of a step on its own */
        whole = (uint64_t)step->pre_ns + step->model_ns;
    if (last != 0 && step->has_sched && (walk->left || there)) {
        uint64_t busy = overlap(last, start, step->sched_start_ns, step->sched_ns);
        if (beside->has_update_before)
            busy += overlap(last, start, beside->before_start_ns, beside->before_ns);
        if (known->detail)
            put(seen, PM_STEP_IDLE, gap > busy ? gap - busy : 0);
        if (start + step->total_ns > last)
            whole = start + step->total_ns - last;
        no_work = 0;
    }
    put(seen, PM_STEP_STEP, whole);
    return no_work;
}

static void weigh(const struct pm_known *known, const struct pm_step *step,
                  const struct pm_step_beside *beside, uint64_t span_ns, uint64_t no_work_ns,
                  double *sums)
{
    sums[PM_SUM_STEPS] = 1;
    sums[PM_SUM_TOKENS] = step->tokens;
    sums[PM_SUM_REQUESTS] = step->requests;
    sums[PM_SUM_SPAN] = (double)span_ns;
    sums[PM_SUM_NO_WORK] = (double)no_work_ns;
    if (step->has_sched && known->detail) {
        sums[PM_SUM_PREFILL] = step->prefill_tokens;
        sums[PM_SUM_OF_PREFILL] = step->tokens;
    }
    if (step->has_sched) {
        sums[PM_SUM_RECOMPUTED] = step->recompute_tokens;
        sums[PM_SUM_WAITING] = step->waiting;
    }
    if (beside->has_update) {
        sums[PM_SUM_OUTPUTS] = (double)beside->outputs;
        sums[PM_SUM_OUTPUT_SPAN] = known->detail ? (double)span_ns : 0;
        sums[PM_SUM_GAP_NS] = (double)beside->gap_ns * (double)beside->continued;
        sums[PM_SUM_GAPS] = (double)beside->continued;
        sums[PM_SUM_DRAFTED] = (double)beside->drafted;
        sums[PM_SUM_ACCEPTED] = (double)beside->accepted;
    }
    if (beside->has_kv) {
        sums[PM_SUM_KV_USED] = (double)beside->kv_used;
        sums[PM_SUM_KV_TOTAL] = (double)beside->kv_total;
        sums[PM_SUM_QUERIED] = (double)beside->kv_queried;
        sums[PM_SUM_HITS] = (double)beside->kv_hits;
    }
    if (beside->has_pass) {
        sums[PM_SUM_PASSES] = 1;
        sums[PM_SUM_EAGER] = beside->eager;
        if (!beside->eager) {
            sums[PM_SUM_PADDING] = (double)beside->padding;
            sums[PM_SUM_COMPUTED] = (double)(beside->graph_tokens + beside->padding);
        }
    }
}

void pm_step_observe(struct pm_step_walk *walk, const struct pm_known *known,
                     const struct pm_step *step, const struct pm_step_beside *beside,
                     struct pm_observation *ret_seen)
{
    const uint64_t end = step->worker_start_ns + step->total_ns, last = walk->last_end_ns;
    const uint64_t span = last == 0 ? step->total_ns : end > last ? end - last : 0;

    memset(ret_seen, 0, sizeof(*ret_seen));
    compose(known, step, beside, ret_seen);
    const uint64_t no_work = measure(walk, known, step, beside, ret_seen);
    weigh(known, step, beside, span, no_work, ret_seen->sums);
    if (end > last)
        walk->last_end_ns = end;
    walk->left = step->has_sched && (step->waiting > 0 || (known->detail && beside->has_update &&
                                                           beside->outputs < step->requests));
}
