/* Rules of the scheduler's limits and queues. Formulas: docs/FINDINGS.md. */
#include "explain/rules.h"

#include <stdio.h>
#include <string.h>

#include "explain/turns.h"
#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

static const char *const cause_words[PM_WAIT_CAUSES] = {
    [PM_WAIT_SEQS] = "max_num_seqs requests were running",
    [PM_WAIT_KV] = "the KV cache was full",
    [PM_WAIT_TOKENS] = "steps had all the tokens that they may have",
    [PM_WAIT_OTHER] = "no limit was reached (new arrivals, or one that is not seen)",
};

enum pm_verdict pm_rule_batch_limit(const struct pm_look *look, struct pm_finding *finding,
                                    char *why)
{
    const struct pm_look_steps *steps = &look->steps;
    const double share =
        (double)steps->cause_ns[PM_WAIT_SEQS] / (double)(steps->busy_ns != 0 ? steps->busy_ns : 1);
    const double peak = pm_pct((double)look->kv.peak, (double)look->kv.total);
    const bool room = look->kv.steps == 0 || peak < pm_limits.kv_full;
    char a[32], now[32];

    if (steps->max_seqs == 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "max_num_seqs is not known");
    if (!pm_enough(look, why))
        return PM_VERDICT_LITTLE;
    if (share * 100 < pm_limits.limit_time)
        return pm_because(why, PM_VERDICT_FINE,
                          "requests waited at the limit of %u for %.1f %% of the time",
                          steps->max_seqs, share * 100);
    pm_title(finding, "Requests wait because max_num_seqs = %u run already", steps->max_seqs);
    pm_say(finding, "all %u places were taken with others waiting for %.1f %% of the time",
           steps->max_seqs, share * 100);
    pm_say(finding, "requests waited %s in all for a place",
           pm_for_seconds(steps->wait_s[PM_WAIT_SEQS], a));
    if (look->kv.steps > 0)
        pm_say(finding, "the KV cache had %s: %.1f %% in use at the peak",
               room ? "room" : "no room either", peak);
    pm_figure(finding, "limit_time_pct", "%", share * 100);
    pm_figure(finding, "waited_s", "s", steps->wait_s[PM_WAIT_SEQS]);
    pm_figure(finding, "max_num_seqs", "requests", steps->max_seqs);
    if (look->kv.steps > 0)
        pm_figure(finding, "kv_peak_pct", "%", peak);
    finding->severity = pm_severity_of(share);
    finding->confidence = room ? 0.9 : 0.5;
    pm_cost(finding, steps->wait_s[PM_WAIT_SEQS], "waiting of requests", share);
    finding->from_ns = steps->from_ns;
    finding->to_ns = steps->to_ns;
    finding->n_requests = look->life.started;
    pm_name_worst(finding, &look->life.queued);
    snprintf(now, sizeof(now), "%u", steps->max_seqs);
    pm_turn(finding, "--max-num-seqs", "raise", now, "%llu", LL(steps->max_seqs) * 2);
    if (!room)
        pm_turn_kv_up(finding, look);
    pm_recommend(finding, "%s",
                 room ? "Let more requests run at a time. Each step then serves more of them, and "
                        "takes longer: watch the time between tokens."
                      : "More requests at a time need more room in the KV cache first.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_token_limit(const struct pm_look *look, struct pm_finding *finding,
                                    char *why)
{
    const struct pm_look_steps *steps = &look->steps;
    const double share =
        (double)steps->full_tokens_wait_ns / (double)(steps->busy_ns != 0 ? steps->busy_ns : 1);
    const double stall =
        look->stall.gaps_s > 0 ? 100 * look->stall.delay_s / look->stall.gaps_s : 0;
    const bool stalls = stall >= pm_limits.stall_share;
    char a[32], now[32];

    if (steps->max_tokens == 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "max_num_batched_tokens is not known");
    if (!pm_enough(look, why))
        return PM_VERDICT_LITTLE;
    if (share * 100 < pm_limits.limit_time)
        return pm_because(why, PM_VERDICT_FINE,
                          "steps were full (%u tokens) with more to come for %.1f %% of the time",
                          steps->max_tokens, share * 100);
    pm_title(finding, "Steps are as large as max_num_batched_tokens = %u lets them be",
             steps->max_tokens);
    pm_say(finding,
           "full steps, with prefills left over for the next one, took %.1f %% of the time",
           share * 100);
    if (steps->wait_s[PM_WAIT_TOKENS] > 0)
        pm_say(finding, "requests waited %s in all while steps were full",
               pm_for_seconds(steps->wait_s[PM_WAIT_TOKENS], a));
    if (stalls)
        pm_say(finding,
               "but prefills hold up decodes already: %.1f %% of all waiting between tokens",
               stall);
    pm_figure(finding, "limit_time_pct", "%", share * 100);
    pm_figure(finding, "waited_s", "s", steps->wait_s[PM_WAIT_TOKENS]);
    pm_figure(finding, "max_num_batched_tokens", "tokens", steps->max_tokens);
    pm_figure(finding, "stall_pct", "%", stall);
    finding->severity = stalls ? PM_SEVERITY_INFO : pm_severity_of(share);
    finding->confidence = stalls ? 0.4 : 0.7;
    pm_cost(finding, steps->wait_s[PM_WAIT_TOKENS], "waiting of requests", share);
    finding->from_ns = steps->from_ns;
    finding->to_ns = steps->to_ns;
    snprintf(now, sizeof(now), "%u", steps->max_tokens);
    pm_turn(finding, "--max-num-batched-tokens", "raise", now, "%llu", LL(steps->max_tokens) * 2);
    pm_recommend(finding, "%s",
                 stalls
                     ? "Raising it would shorten the time to the first token and lengthen the "
                       "stalls of decodes: choose what matters more, or send prefills elsewhere."
                     : "Raise it for a shorter time to the first token; decodes beside a prefill "
                       "then wait longer for their next token.");
    return PM_VERDICT_FOUND;
}

static void turn_for_cause(struct pm_finding *finding, const struct pm_look *look,
                           enum pm_wait_cause cause)
{
    const char *seqs = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "max_num_seqs");
    const char *tokens = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "max_num_batched_tokens");

    if (cause == PM_WAIT_SEQS)
        pm_turn(finding, "--max-num-seqs", "raise", seqs, NULL);
    else if (cause == PM_WAIT_KV)
        pm_turn_kv_up(finding, look);
    else if (cause == PM_WAIT_TOKENS)
        pm_turn(finding, "--max-num-batched-tokens", "raise", tokens, NULL);
    pm_turn(finding, "--data-parallel-size", "raise",
            pm_look_config(look, PM_ATTR_PARALLEL_PREFIX "data"), NULL);
}

enum pm_verdict pm_rule_queueing(const struct pm_look *look, struct pm_finding *finding, char *why)
{
    const struct pm_look_life *life = &look->life;
    const struct pm_look_steps *steps = &look->steps;
    const double share =
        life->ttft.sum_ns != 0 ? (double)life->queue.sum_ns / (double)life->ttft.sum_ns : 0;
    const double p50_s = pm_times_quantile_s(&life->queue, 0.5);
    const double p90_s = pm_times_quantile_s(&life->queue, 0.9);
    enum pm_wait_cause main_cause = PM_WAIT_SEQS;
    uint64_t all_ns = 0;
    char a[32], b[32], c[32];

    if (life->requests == 0)
        return pm_because(why, steps->n > 0 ? PM_VERDICT_UNSEEN : PM_VERDICT_LITTLE,
                          "no requests were recorded");
    if ((double)life->queue.count < pm_limits.min_requests)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu requests were scheduled",
                          LL(life->queue.count));
    if (share * 100 < pm_limits.queue_share || p90_s < pm_limits.queue_p90_s)
        return pm_because(why, PM_VERDICT_FINE,
                          "%s in the queue at p90, %.1f %% of the time to the first token",
                          pm_for_seconds(p90_s, a), share * 100);
    for (unsigned i = 0; i < PM_WAIT_CAUSES; i++) {
        all_ns += steps->cause_ns[i];
        if (steps->cause_ns[i] > steps->cause_ns[main_cause])
            main_cause = i;
    }
    pm_title(finding, "Requests spend %.0f %% of their time to the first token in the queue",
             share * 100 < 100 ? share * 100 : 100);
    pm_say(finding, "queue time %s at p50, %s at p90, %s at most, over %llu requests",
           pm_for_seconds(p50_s, a), pm_for_seconds(p90_s, b),
           pm_for_seconds((double)life->queue.max_ns / 1e9, c), LL(life->queue.count));
    pm_say(finding, "requests were waiting for %.1f %% of the time with work",
           pm_pct((double)steps->waiting_ns, (double)steps->busy_ns));
    if (all_ns > 0)
        pm_say(finding, "for %.0f %% of that, %s",
               pm_pct((double)steps->cause_ns[main_cause], (double)all_ns),
               cause_words[main_cause]);
    pm_figure(finding, "queue_share_pct", "%", share * 100);
    pm_figure(finding, "queue_p50_s", "s", p50_s);
    pm_figure(finding, "queue_p90_s", "s", p90_s);
    pm_figure(finding, "queue_sum_s", "s", (double)life->queue.sum_ns / 1e9);
    static const char *const names[PM_WAIT_CAUSES] = {"by_seqs_pct", "by_kv_pct", "by_tokens_pct",
                                                      "by_other_pct"};
    for (unsigned i = 0; i < PM_WAIT_CAUSES; i++)
        pm_figure(finding, names[i], "%", pm_pct((double)steps->cause_ns[i], (double)all_ns));
    finding->severity = p90_s >= 1 && share * 100 >= 2 * pm_limits.queue_share ? PM_SEVERITY_HIGH
                                                                               : PM_SEVERITY_MEDIUM;
    finding->confidence = 0.95;
    pm_cost(finding, (double)life->queue.sum_ns / 1e9, "waiting of requests",
            pm_pct((double)steps->waiting_ns, (double)steps->busy_ns) / 100);
    finding->from_ns = steps->from_ns;
    finding->to_ns = steps->to_ns;
    finding->n_requests = life->queue.count;
    pm_name_worst(finding, &life->queued);
    turn_for_cause(finding, look, main_cause);
    pm_recommend(finding,
                 "More comes in than the engine takes on. Lift the limit that binds, or add "
                 "engines.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_uneven_engines(const struct pm_looks *looks, struct pm_finding *finding,
                                       char *why)
{
    uint64_t sum = 0, most = 0, steps = 0;
    size_t busiest = 0;

    if (looks->n < 2)
        return pm_because(why, PM_VERDICT_NOT_HERE, "one engine");
    for (size_t e = 0; e < looks->n; e++) {
        const uint64_t tokens = looks->engines[e]->steps.tokens;
        const uint64_t others = looks->engines[busiest]->steps.to_ns;
        /* Engines made one after another are no deployment. */
        if (e > 0 && looks->engines[e]->steps.from_ns > others)
            return pm_because(why, PM_VERDICT_NOT_HERE, "engines ran one after another");
        sum += tokens;
        steps += looks->engines[e]->steps.n;
        if (tokens > most) {
            most = tokens;
            busiest = e;
        }
    }
    const double mean = (double)sum / (double)looks->n;
    const double ratio = mean > 0 ? (double)most / mean : 0;
    if ((double)steps < pm_limits.min_steps * (double)looks->n)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu steps", LL(steps));
    if (ratio < pm_limits.engine_ratio)
        return pm_because(why, PM_VERDICT_FINE,
                          "the busiest of %zu engines has %.2f times the mean", looks->n, ratio);
    pm_title(finding, "Engine %u has %.2f times the mean load", looks->engines[busiest]->number,
             ratio);
    for (size_t e = 0; e < looks->n && e < 6; e++)
        pm_say(finding, "engine %u: %llu tokens in %llu steps, at most %llu requests at a time",
               looks->engines[e]->number, LL(looks->engines[e]->steps.tokens),
               LL(looks->engines[e]->steps.n), LL(looks->engines[e]->steps.max_running));
    pm_figure(finding, "ratio", "", ratio);
    pm_figure(finding, "engines", "", (double)looks->n);
    finding->engine = (int)looks->engines[busiest]->number;
    finding->severity = ratio >= 2 ? PM_SEVERITY_MEDIUM : PM_SEVERITY_LOW;
    finding->confidence = 0.7;
    pm_recommend(finding,
                 "See how requests are spread over the engines: a few long ones, or clients "
                 "that stick to one.");
    return PM_VERDICT_FOUND;
}
