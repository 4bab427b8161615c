/* Rules of the KV cache's size and of preemptions. Formulas: docs/FINDINGS.md. */
#include "explain/rules.h"

#include <stdlib.h>
#include <string.h>

#include "explain/turns.h"
#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

void pm_turn_kv_up(struct pm_finding *finding, const struct pm_look *look)
{
    const char *share = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "gpu_memory_utilization");
    const char *dtype = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "kv_cache_dtype");
    const double now = share != NULL ? strtod(share, NULL) : 0;

    if (look->on_cpu)
        pm_turn(finding, "VLLM_CPU_KVCACHE_SPACE", "raise", NULL, NULL);
    else if (now > 0 && now < 0.95)
        pm_turn(finding, "--gpu-memory-utilization", "raise", share, "%.2f",
                now + 0.05 < 0.95 ? now + 0.05 : 0.95);
    else
        pm_turn(finding, "--gpu-memory-utilization", "raise", share, NULL);
    if (!look->on_cpu && dtype != NULL && strncmp(dtype, "fp8", 3) != 0)
        pm_turn(finding, "--kv-cache-dtype", "set", dtype, "fp8");
}

/* No KV cache, or too little seen of it: 0 where the rule may go on. */
static bool judged(const struct pm_look *look, char *why, enum pm_verdict *ret_verdict)
{
    if (look->kv.steps == 0 || look->kv.total == 0) {
        *ret_verdict = pm_because(why, PM_VERDICT_UNSEEN, "the KV cache was not recorded");
        return false;
    }
    *ret_verdict = PM_VERDICT_LITTLE;
    return pm_enough(look, why);
}

enum pm_verdict pm_rule_kv_too_small(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_look_kv *kv = &look->kv;
    const struct pm_look_life *life = &look->life;
    const double wait_s = look->steps.wait_s[PM_WAIT_KV];
    enum pm_verdict verdict;
    char cell[32];

    if (!judged(look, why, &verdict))
        return verdict;
    const double peak = pm_pct((double)kv->peak, (double)kv->total);
    const double mean = pm_pct(kv->used_sum, kv->total_sum);
    const double over = pm_pct((double)kv->over_ns, (double)kv->of_ns);
    const double hit = pm_pct((double)life->preempted_requests, (double)life->requests);
    const bool harm = (double)life->preemptions >= pm_limits.min_preemptions || wait_s > 0;
    if (peak <= pm_limits.kv_full)
        return pm_because(why, PM_VERDICT_FINE, "at most %.1f %% of %llu blocks in use: %s", peak,
                          LL(kv->total), pm_kv_verdict(peak));
    if (over < pm_limits.kv_full_time && !harm)
        return pm_because(why, PM_VERDICT_FINE, "above %.0f %% for %.1f %% of the time only",
                          pm_limits.kv_full, over);
    pm_title(finding, "The KV cache is too small: up to %.0f %% of its blocks are in use", peak);
    pm_say(finding,
           "%.1f %% of %llu blocks in use at the peak, %.1f %% on average; above %.0f %% for %.1f "
           "%% of the time (%llu steps)",
           peak, LL(kv->total), mean, pm_limits.kv_full, over, LL(kv->over_steps));
    if (life->preemptions > 0)
        pm_say(finding, "%llu preemptions of %llu requests for want of blocks",
               LL(life->preemptions), LL(life->preempted_requests));
    if (wait_s > 0)
        pm_say(finding, "requests waited %s in all while it was full",
               pm_for_seconds(wait_s, cell));
    pm_figure(finding, "peak_pct", "%", peak);
    pm_figure(finding, "mean_pct", "%", mean);
    pm_figure(finding, "over_time_pct", "%", over);
    pm_figure(finding, "total_blocks", "blocks", (double)kv->total);
    pm_figure(finding, "preemptions", "", (double)life->preemptions);
    pm_figure(finding, "waited_s", "s", wait_s);
    finding->severity = hit >= pm_limits.preempted_requests ? PM_SEVERITY_HIGH
                        : harm                              ? PM_SEVERITY_MEDIUM
                                                            : PM_SEVERITY_LOW;
    finding->confidence = harm ? 0.95 : 0.6;
    pm_cost(finding, wait_s, "waiting of requests", over / 100);
    finding->from_ns = kv->over_from_ns;
    finding->to_ns = kv->over_to_ns;
    finding->n_requests = life->preempted_requests;
    pm_name_worst(finding, &life->preempted);
    pm_turn_kv_up(finding, look);
    pm_turn(finding, "--max-num-seqs", "lower",
            pm_look_config(look, PM_ATTR_CONFIG_PREFIX "max_num_seqs"), NULL);
    pm_recommend(finding, "Give the KV cache more memory, store it in fewer bytes, or let fewer "
                          "requests run at a time. A --num-gpu-blocks-override stands above all of "
                          "these: raise it, or leave it out.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_kv_too_large(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_look_kv *kv = &look->kv;
    const uint64_t most = look->steps.max_running, limit = look->steps.max_seqs;
    enum pm_verdict verdict;

    if (!judged(look, why, &verdict))
        return verdict;
    const double peak = pm_pct((double)kv->peak, (double)kv->total);
    const double hits = pm_pct((double)kv->hit_tokens, (double)kv->queried_tokens);
    if (peak >= pm_limits.kv_low)
        return pm_because(why, PM_VERDICT_FINE, "at most %.1f %% of %llu blocks in use: %s", peak,
                          LL(kv->total), pm_kv_verdict(peak));
    if (limit == 0 || pm_pct((double)most, (double)limit) < pm_limits.kv_load)
        return pm_because(
            why, PM_VERDICT_LITTLE,
            "%.1f %% in use at the peak, but only %llu of %llu requests ran at a time", peak,
            LL(most), LL(limit));
    const bool cache = kv->caching && hits >= pm_limits.cache_hits;
    pm_title(finding, "Much of the KV cache is never used: %.0f %% at the peak", peak);
    pm_say(finding, "%llu of %llu blocks in use at the peak, with %llu of %llu requests running",
           LL(kv->peak), LL(kv->total), LL(most), LL(limit));
    if (cache)
        pm_say(finding,
               "free blocks hold the prefix cache, which finds %.1f %% of what is looked up", hits);
    pm_figure(finding, "peak_pct", "%", peak);
    pm_figure(finding, "mean_pct", "%", pm_pct(kv->used_sum, kv->total_sum));
    pm_figure(finding, "total_blocks", "blocks", (double)kv->total);
    pm_figure(finding, "max_running", "requests", (double)most);
    finding->severity = cache ? PM_SEVERITY_INFO : PM_SEVERITY_LOW;
    finding->confidence = cache ? 0.4 : 0.7;
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    char now[32];
    snprintf(now, sizeof(now), "%llu", LL(limit));
    pm_turn(finding, "--max-num-seqs", "raise", now, "%llu", LL(limit * 2));
    if (look->on_cpu)
        pm_turn(finding, "VLLM_CPU_KVCACHE_SPACE", "lower", NULL, NULL);
    else
        pm_turn(finding, "--gpu-memory-utilization", "lower",
                pm_look_config(look, PM_ATTR_CONFIG_PREFIX "gpu_memory_utilization"), NULL);
    pm_recommend(finding, "There is room for more requests at a time, or for longer ones; or the "
                          "memory can go to something else.");
    return PM_VERDICT_FOUND;
}

/* Evictions of blocks whose age is known, enough of them. */
static bool evicted(const struct pm_look *look, char *why, enum pm_verdict *ret_verdict)
{
    if (!judged(look, why, ret_verdict))
        return false;
    if ((double)look->kv.lifetime.count >= pm_limits.min_evictions)
        return true;
    *ret_verdict = pm_because(why, PM_VERDICT_LITTLE, "%llu evictions of cached blocks",
                              LL(look->kv.lifetime.count));
    return false;
}

static void put_lives(const struct pm_look *look, struct pm_finding *finding)
{
    const struct pm_look_kv *kv = &look->kv;
    pm_say(finding,
           "%llu evicted blocks lived %.2f s on average (median %.2f s), and were idle for %.2f s "
           "before",
           LL(kv->lifetime.count), pm_times_mean_s(&kv->lifetime),
           pm_times_quantile_s(&kv->lifetime, 0.5), pm_times_mean_s(&kv->idle));
    pm_say(finding, "%llu of them (%.1f %%) had been found again by another request",
           LL(kv->reused), pm_pct((double)kv->reused, (double)kv->evictions));
    pm_figure(finding, "mean_lifetime_s", "s", pm_times_mean_s(&kv->lifetime));
    pm_figure(finding, "mean_idle_s", "s", pm_times_mean_s(&kv->idle));
    pm_figure(finding, "evictions", "blocks", (double)kv->evictions);
    pm_figure(finding, "reused_pct", "%", pm_pct((double)kv->reused, (double)kv->evictions));
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
}

enum pm_verdict pm_rule_kv_short_life(const struct pm_look *look, struct pm_finding *finding,
                                      char *why)
{
    enum pm_verdict verdict;

    if (!evicted(look, why, &verdict))
        return verdict;
    const double mean_s = pm_times_mean_s(&look->kv.lifetime);
    if (mean_s >= pm_limits.kv_short_life_s)
        return pm_because(why, PM_VERDICT_FINE, "evicted blocks lived %.1f s on average", mean_s);
    pm_title(finding, "Cached blocks live %.1f s before they are evicted", mean_s);
    put_lives(look, finding);
    finding->severity = PM_SEVERITY_LOW;
    finding->confidence = 0.6;
    pm_turn_kv_up(finding, look);
    pm_recommend(finding, "A prefix that comes again later than this is computed again. It matters "
                          "only where requests share prefixes.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_kv_long_idle(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    enum pm_verdict verdict;

    if (!evicted(look, why, &verdict))
        return verdict;
    const double mean_s = pm_times_mean_s(&look->kv.idle);
    if (mean_s <= pm_limits.kv_idle_s)
        return pm_because(why, PM_VERDICT_FINE, "evicted blocks were idle for %.1f s on average",
                          mean_s);
    pm_title(finding, "Cached blocks lie idle for %.1f s before they are evicted", mean_s);
    put_lives(look, finding);
    finding->severity = PM_SEVERITY_INFO;
    finding->confidence = 0.6;
    if (!look->on_cpu)
        pm_turn(finding, "--gpu-memory-utilization", "lower",
                pm_look_config(look, PM_ATTR_CONFIG_PREFIX "gpu_memory_utilization"), NULL);
    pm_recommend(finding,
                 "The cache keeps what nobody asks for again. That does no harm; the memory "
                 "is there if something else needs it.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_preemption(const struct pm_look *look, struct pm_finding *finding,
                                   char *why)
{
    const struct pm_look_life *life = &look->life;
    const struct pm_look_steps *steps = &look->steps;
    char a[32], b[32];

    if (life->requests == 0 && steps->n > 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "requests were not recorded");
    if ((double)life->preemptions < pm_limits.min_preemptions)
        return pm_because(why, PM_VERDICT_FINE, "%llu preemptions of %llu requests",
                          LL(life->preemptions), LL(life->requests));
    const double hit = pm_pct((double)life->preempted_requests, (double)life->requests);
    const double away_s = (double)life->away_ns / 1e9;
    const double again_s = (double)steps->recompute_ns / 1e9;
    const uint64_t tokens =
        steps->recompute_tokens > 0 ? steps->recompute_tokens : life->recomputed_tokens;
    const double share =
        steps->busy_ns != 0 ? (double)steps->recompute_ns / (double)steps->busy_ns : 0;
    pm_title(finding, "%llu preemptions made %llu tokens be computed again", LL(life->preemptions),
             LL(tokens));
    pm_say(finding, "%llu of %llu requests (%.1f %%) were preempted for want of KV blocks",
           LL(life->preempted_requests), LL(life->requests), hit);
    pm_say(finding, "they were away for %s in all, %s at most at a time", pm_for_seconds(away_s, a),
           pm_for_seconds((double)life->longest_away_ns / 1e9, b));
    pm_say(finding,
           "%llu tokens were computed again (%.1f %% of all): about %s of the engine's time",
           LL(tokens), pm_pct((double)tokens, (double)steps->tokens), pm_for_seconds(again_s, a));
    if (life->preempted.n > 0)
        pm_say(finding, "hit most: %.120s, away %s, %llu tokens lost in %llu preemption%s",
               life->preempted.rows[0].id, pm_for_seconds(life->preempted.rows[0].weight, a),
               LL(life->preempted.rows[0].a), LL(life->preempted.rows[0].b),
               life->preempted.rows[0].b == 1 ? "" : "s");
    pm_figure(finding, "preemptions", "", (double)life->preemptions);
    pm_figure(finding, "preempted_requests", "requests", (double)life->preempted_requests);
    pm_figure(finding, "preempted_pct", "%", hit);
    pm_figure(finding, "recomputed_tokens", "tokens", (double)tokens);
    pm_figure(finding, "lost_tokens", "tokens", (double)life->lost_tokens);
    pm_figure(finding, "away_s", "s", away_s);
    pm_figure(finding, "recompute_s", "s", again_s);
    finding->severity = hit >= pm_limits.preempted_requests ? PM_SEVERITY_HIGH : PM_SEVERITY_MEDIUM;
    pm_cost(finding, away_s, "waiting of preempted requests", share);
    finding->has_cost_tokens = true;
    finding->cost_tokens = (double)tokens;
    finding->confidence = 1;
    finding->from_ns = life->first_preempted_ns;
    finding->to_ns = life->last_preempted_ns;
    finding->n_requests = life->preempted_requests;
    pm_name_worst(finding, &life->preempted);
    pm_turn_kv_up(finding, look);
    pm_turn(finding, "--max-num-seqs", "lower",
            pm_look_config(look, PM_ATTR_CONFIG_PREFIX "max_num_seqs"), NULL);
    pm_recommend(finding,
                 "More room in the KV cache, or fewer requests at a time, so that those that "
                 "run keep their blocks.");
    return PM_VERDICT_FOUND;
}
