/* The rule of prefills that hold up decodes, and the one for a single request. */
#include "explain/rules.h"

#include <stdio.h>
#include <string.h>

#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

static void turn_stall(const struct pm_look *look, struct pm_finding *finding)
{
    const char *chunked = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "enable_chunked_prefill");
    const uint64_t limit = look->steps.max_tokens, seqs = look->steps.max_seqs;
    char now[32] = "";

    if (limit != 0)
        snprintf(now, sizeof(now), "%llu", LL(limit));
    if (chunked != NULL && strcmp(chunked, "0") == 0)
        pm_turn(finding, "--enable-chunked-prefill", "set", "off", NULL);
    if (limit / 2 > seqs && limit / 2 >= 64)
        pm_turn(finding, "--max-num-batched-tokens", "lower", now, "%llu", LL(limit / 2));
    else
        pm_turn(finding, "--max-num-batched-tokens", "lower", now, NULL);
    pm_turn(finding, "--long-prefill-token-threshold", "set", NULL, NULL);
}

enum pm_verdict pm_rule_prefill_stall(const struct pm_look *look, struct pm_finding *finding,
                                      char *why)
{
    const struct pm_look_stall *stall = &look->stall;
    const double share = stall->gaps_s > 0 ? stall->delay_s / stall->gaps_s : 0;
    const double base_s = stall->base_all_s, gap_s = pm_times_mean_s(&stall->gap);
    const double ratio = base_s > 0 ? gap_s / base_s : 0;
    char a[32], b[32];

    if (stall->gaps_s <= 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "no time between two outputs was recorded");
    if (!pm_enough(look, why))
        return PM_VERDICT_LITTLE;
    if (base_s <= 0)
        return pm_because(why, PM_VERDICT_LITTLE, "no step without a prefill to compare with");
    if ((double)stall->mixed < pm_limits.min_stalls)
        return pm_because(why, PM_VERDICT_FINE, "%llu steps mixed prefills with decodes",
                          LL(stall->mixed));
    if (share * 100 < pm_limits.stall_share || ratio < pm_limits.stall_ratio)
        return pm_because(why, PM_VERDICT_FINE,
                          "steps with prefills last %.2f times as long, %.1f %% of all waiting",
                          ratio, share * 100);
    pm_title(finding, "Prefills hold up decodes: %.0f %% of all waiting between tokens",
             share * 100);
    pm_say(finding,
           "%llu steps with prefills lasted %s on average, %s without: %llu tokens came late by "
           "them",
           LL(stall->mixed), pm_for_seconds(gap_s, a), pm_for_seconds(base_s, b),
           LL(stall->stalled_outputs));
    pm_say(finding, "%s of waiting in all, at most %s at a time (step %llu)",
           pm_for_seconds(stall->delay_s, a), pm_for_seconds((double)stall->max_delay_ns / 1e9, b),
           LL(stall->max_step));
    for (unsigned i = 0; i < stall->culprits.n && i < 3; i++)
        pm_say(finding, "the prefill of %.110s (%llu tokens, %llu step%s) held others up for %s",
               stall->culprits.rows[i].id, LL(stall->culprits.rows[i].a),
               LL(stall->culprits.rows[i].b), stall->culprits.rows[i].b == 1 ? "" : "s",
               pm_for_seconds(stall->culprits.rows[i].weight, a));
    for (unsigned i = 0; i < stall->victims.n && i < 2; i++)
        pm_say(finding, "%.110s waited %s longer for its tokens, in %llu steps",
               stall->victims.rows[i].id, pm_for_seconds(stall->victims.rows[i].weight, a),
               LL(stall->victims.rows[i].a));
    pm_figure(finding, "stall_share_pct", "%", share * 100);
    pm_figure(finding, "ratio", "", ratio);
    pm_figure(finding, "stalling_steps", "steps", (double)stall->mixed);
    pm_figure(finding, "delayed_tokens", "tokens", (double)stall->stalled_outputs);
    pm_figure(finding, "delay_s", "s", stall->delay_s);
    pm_figure(finding, "max_delay_s", "s", (double)stall->max_delay_ns / 1e9);
    pm_figure(finding, "base_s", "s", base_s);
    pm_figure(finding, "mixed_mean_s", "s", gap_s);
    pm_figure(finding, "max_prefill_tokens", "tokens", (double)stall->tokens_max);
    finding->severity = pm_severity_of(share);
    finding->confidence = 0.95;
    pm_cost(finding, stall->delay_s, "waiting of requests between tokens", share);
    finding->from_ns = stall->from_ns;
    finding->to_ns = stall->to_ns;
    finding->n_requests = stall->n_victims;
    pm_name_worst(finding, &stall->culprits);
    turn_stall(look, finding);
    pm_recommend(finding,
                 "Let a step prefill fewer tokens, all in all or of one long prompt. The time "
                 "to the first token grows, the time between tokens evens out.");
    return PM_VERDICT_FOUND;
}

/* ---- one request ---- */

static double span_s(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns != 0 && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

enum pm_verdict pm_rule_request_time(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_request *request = &look->life.one;
    const struct pm_request_fact *fact = &request->fact;
    char a[32], b[32], c[32], d[32];

    if (look->window == NULL || look->window->request[0] == '\0')
        return pm_because(why, PM_VERDICT_NOT_HERE, "no request was asked for");
    if (!look->life.asked)
        return pm_because(why, PM_VERDICT_NOT_HERE, "it is another engine's");
    const double front_s = span_s(fact->arrived_ns, fact->queued_ns);
    const double queue_s = (double)fact->queue_ns / 1e9;
    const double prefill_s = span_s(fact->started_ns, fact->first_token_ns);
    const double decode_s = span_s(fact->first_token_ns, fact->last_token_ns);
    const double away_s = (double)fact->away_ns / 1e9;
    const char *end = fact->finished_ns != 0 ? pm_finish_reason_text(fact->reason) : "not over";
    pm_title(finding, "Request %.120s", request->id);
    pm_say(finding, "%u prompt tokens (%u from the prefix cache), %u output tokens; %s",
           fact->prompt_tokens, fact->cached_tokens, fact->output_tokens, end);
    pm_say(finding, "before the scheduler %s, in the queue %s, prefill %s, decoding %s",
           pm_for_seconds(front_s, a), pm_for_seconds(queue_s, b), pm_for_seconds(prefill_s, c),
           pm_for_seconds(decode_s, d));
    if (fact->first_token_ns != 0)
        pm_say(finding, "first token after %s, then %s a token, %s at the longest",
               pm_for_seconds((double)fact->ttft_ns / 1e9, a),
               pm_for_seconds((double)fact->tpot_ns / 1e9, b),
               pm_for_seconds((double)fact->longest_gap_ns / 1e9, c));
    if (fact->preemptions > 0)
        pm_say(finding, "preempted %u times: %s away, %u tokens lost, %u computed again",
               fact->preemptions, pm_for_seconds(away_s, a), fact->lost_tokens,
               fact->recomputed_tokens);
    if (look->stall.one_s > 0)
        pm_say(finding, "prefills of others held up its tokens for %s",
               pm_for_seconds(look->stall.one_s, a));
    for (unsigned i = 0, told = 0; look->stall.one_s > 0 && i < look->stall.culprits.n; i++) {
        if (strcmp(look->stall.culprits.rows[i].id, request->id) == 0 || told++ == 3)
            continue;
        pm_say(finding, "in that time the prefill of %.110s (%llu tokens) held up others for %s",
               look->stall.culprits.rows[i].id, LL(look->stall.culprits.rows[i].a),
               pm_for_seconds(look->stall.culprits.rows[i].weight, a));
    }
    pm_figure(finding, "front_s", "s", front_s);
    pm_figure(finding, "queue_s", "s", queue_s);
    pm_figure(finding, "prefill_s", "s", prefill_s);
    pm_figure(finding, "decode_s", "s", decode_s);
    pm_figure(finding, "ttft_s", "s", (double)fact->ttft_ns / 1e9);
    pm_figure(finding, "tpot_s", "s", (double)fact->tpot_ns / 1e9);
    pm_figure(finding, "longest_gap_s", "s", (double)fact->longest_gap_ns / 1e9);
    pm_figure(finding, "preempted_s", "s", away_s);
    pm_figure(finding, "stalled_s", "s", look->stall.one_s);
    pm_figure(finding, "prompt_tokens", "tokens", fact->prompt_tokens);
    pm_figure(finding, "output_tokens", "tokens", fact->output_tokens);
    finding->severity = PM_SEVERITY_INFO;
    finding->from_ns = fact->arrived_ns != 0 ? fact->arrived_ns : fact->queued_ns;
    finding->to_ns = fact->finished_ns != 0 ? fact->finished_ns : fact->last_token_ns;
    finding->n_requests = 1;
    pm_name_request(finding, request->id);
    return PM_VERDICT_FOUND;
}
