/* Rules of the prefix cache and of draft tokens. Formulas: docs/FINDINGS.md. */
#include "explain/rules.h"

#include "explain/turns.h"
#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

enum pm_verdict pm_rule_prefix_cache_useless(const struct pm_look *look, struct pm_finding *finding,
                                             char *why)
{
    const struct pm_look_kv *kv = &look->kv;
    const double hits = pm_pct((double)kv->hit_tokens, (double)kv->queried_tokens);

    if (kv->steps == 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "the KV cache was not recorded");
    if (!kv->caching)
        return pm_because(why, PM_VERDICT_NOT_HERE, "prefix caching is off");
    if ((double)kv->queried_tokens < pm_limits.min_queried ||
        (double)look->life.requests < pm_limits.min_requests)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu tokens of %llu requests were looked up",
                          LL(kv->queried_tokens), LL(look->life.requests));
    if (hits >= pm_limits.cache_hits)
        return pm_because(why, PM_VERDICT_FINE, "%.1f %% of looked-up tokens were found", hits);
    pm_title(finding, "The prefix cache finds next to nothing: %.2f %% of looked-up tokens", hits);
    pm_say(finding, "%llu of %llu looked-up tokens were found, over %llu requests",
           LL(kv->hit_tokens), LL(kv->queried_tokens), LL(look->life.requests));
    pm_say(finding, "%llu cached blocks were evicted meanwhile", LL(kv->evicted));
    pm_figure(finding, "hit_pct", "%", hits);
    pm_figure(finding, "queried_tokens", "tokens", (double)kv->queried_tokens);
    pm_figure(finding, "hit_tokens", "tokens", (double)kv->hit_tokens);
    finding->severity = PM_SEVERITY_LOW;
    finding->confidence = 0.8;
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    finding->n_requests = look->life.requests;
    pm_turn(finding, "--no-enable-prefix-caching", "set", "prefix caching is on", NULL);
    pm_recommend(finding,
                 "Prompts of this load share no beginnings. Hashing their blocks costs the "
                 "scheduler a little; if they should share one (a system prompt), put what "
                 "differs behind it.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_prefix_cache_thrashing(const struct pm_look *look,
                                               struct pm_finding *finding, char *why)
{
    const struct pm_look_kv *kv = &look->kv;
    const double reused = pm_pct((double)kv->reused, (double)kv->evictions);
    const double idle_s = pm_times_mean_s(&kv->reused_idle);
    const uint64_t block = pm_look_config_u64(look, PM_ATTR_CONFIG_PREFIX "block_size");
    char cell[32];

    if (kv->steps == 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "the KV cache was not recorded");
    if (!kv->caching)
        return pm_because(why, PM_VERDICT_NOT_HERE, "prefix caching is off");
    if ((double)kv->evictions < pm_limits.min_evictions)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu evictions of cached blocks",
                          LL(kv->evictions));
    if (reused < pm_limits.cache_reused || kv->reused_idle.count == 0 ||
        idle_s >= pm_limits.kv_idle_s)
        return pm_because(why, PM_VERDICT_FINE,
                          "%.1f %% of %llu evicted blocks had been found again, idle for %.1f s",
                          reused, LL(kv->evictions), idle_s);
    pm_title(finding,
             "The prefix cache loses what it needs: %.0f %% of evicted blocks had been "
             "found again",
             reused);
    pm_say(finding, "%llu of %llu evicted blocks had been found again, %.1f times each",
           LL(kv->reused), LL(kv->evictions),
           kv->reused != 0 ? (double)kv->reuses / (double)kv->reused : 0);
    pm_say(finding, "they went %s after their last use on average", pm_for_seconds(idle_s, cell));
    pm_say(finding, "%.1f %% of looked-up tokens were found all the same",
           pm_pct((double)kv->hit_tokens, (double)kv->queried_tokens));
    pm_figure(finding, "reused_pct", "%", reused);
    pm_figure(finding, "reused_blocks", "blocks", (double)kv->reused);
    pm_figure(finding, "evictions", "blocks", (double)kv->evictions);
    pm_figure(finding, "reused_idle_s", "s", idle_s);
    finding->severity = PM_SEVERITY_MEDIUM;
    finding->confidence = 0.7;
    if (block != 0) {
        finding->has_cost_tokens = true;
        finding->cost_tokens = (double)(kv->reused * block);
        pm_say(finding, "at most %llu tokens are computed again if their prefixes return",
               LL(kv->reused * block));
    }
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    pm_turn_kv_up(finding, look);
    pm_turn(finding, "--kv-offloading-size", "set", NULL, NULL);
    pm_recommend(finding,
                 "The shared prefixes do not fit beside the running requests. More room in "
                 "the KV cache, or offloading to the host's memory, keeps them.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_draft_waste(const struct pm_look *look, struct pm_finding *finding,
                                    char *why)
{
    const uint64_t drafted = look->steps.drafted, accepted = look->steps.accepted;
    const double accept = pm_pct((double)accepted, (double)drafted);

    if (drafted == 0)
        return pm_because(why, PM_VERDICT_NOT_HERE, "no draft tokens");
    if ((double)drafted < pm_limits.min_drafted)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu draft tokens", LL(drafted));
    if (accept >= pm_limits.draft_accept)
        return pm_because(why, PM_VERDICT_FINE, "%.1f %% of %llu draft tokens were accepted",
                          accept, LL(drafted));
    pm_title(finding, "Most draft tokens are rejected: %.0f %% accepted", accept);
    pm_say(finding, "%llu of %llu verified draft tokens were accepted", LL(accepted), LL(drafted));
    if (look->steps.draft_ns > 0)
        pm_say(finding, "proposing them took %.2f s of the worker's time",
               (double)look->steps.draft_ns / 1e9);
    pm_figure(finding, "accepted_pct", "%", accept);
    pm_figure(finding, "drafted_tokens", "tokens", (double)drafted);
    pm_figure(finding, "accepted_tokens", "tokens", (double)accepted);
    finding->severity = accept < pm_limits.draft_accept / 2 ? PM_SEVERITY_MEDIUM : PM_SEVERITY_LOW;
    finding->confidence = 0.9;
    finding->has_cost_tokens = true;
    finding->cost_tokens = (double)(drafted - accepted);
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    pm_turn(finding, "--speculative-config", "lower", NULL, "fewer num_speculative_tokens");
    pm_recommend(finding,
                 "Fewer draft tokens a step, a drafter that knows the load better, or none.");
    return PM_VERDICT_FOUND;
}
