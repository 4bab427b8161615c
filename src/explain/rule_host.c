/* Rules of the host: time in which the model does not run, the front end. */
#include "explain/rules.h"

#include <string.h>

#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

static const char *const part_words[PM_HOST_PARTS + 1] = {
    [PM_HOST_SCHEDULE] = "scheduling",
    [PM_HOST_PREPARE] = "preparing the batch",
    [PM_HOST_POST] = "leaving the model",
    [PM_HOST_SAMPLE] = "sampling",
    [PM_HOST_UPDATE] = "processing outputs",
    [PM_HOST_PARTS] = "between processes, and what no hook sees",
};
static const char *const part_names[PM_HOST_PARTS + 1] = {
    [PM_HOST_SCHEDULE] = "schedule_pct", [PM_HOST_PREPARE] = "prepare_pct",
    [PM_HOST_POST] = "post_pct",         [PM_HOST_SAMPLE] = "sample_pct",
    [PM_HOST_UPDATE] = "update_pct",     [PM_HOST_PARTS] = "other_pct",
};

static void turn_host(const struct pm_look *look, struct pm_finding *finding, unsigned blame)
{
    const char *async = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "async_scheduling");
    const char *eager = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "enforce_eager");

    if (async == NULL || strcmp(async, "1") != 0)
        pm_turn(finding, "--async-scheduling", "set", async != NULL ? "off" : NULL, NULL);
    if (!look->on_cpu && eager != NULL && strcmp(eager, "1") == 0)
        pm_turn(finding, "--enforce-eager", "unset", "on", NULL);
    if (blame == PM_HOST_UPDATE || blame == PM_HOST_PARTS)
        pm_turn(finding, "--stream-interval", "raise", NULL, NULL);
    if (blame == PM_HOST_SAMPLE && !look->on_cpu)
        pm_turn(finding, "VLLM_USE_FLASHINFER_SAMPLER", "set", NULL, "1");
    /* Larger batches only where requests wait for a place, and the KV cache has room for them. */
    if (pm_pct((double)look->steps.cause_ns[PM_WAIT_SEQS], (double)look->steps.busy_ns) >=
            pm_limits.limit_time &&
        pm_pct((double)look->kv.peak, (double)look->kv.total) <= pm_limits.kv_full)
        pm_turn(finding, "--max-num-seqs", "raise",
                pm_look_config(look, PM_ATTR_CONFIG_PREFIX "max_num_seqs"), NULL);
}

enum pm_verdict pm_rule_host_bound(const struct pm_look *look, struct pm_finding *finding,
                                   char *why)
{
    const struct pm_look_steps *steps = &look->steps;
    const double share =
        steps->loaded_ns != 0 ? (double)steps->idle_ns / (double)steps->loaded_ns : 0;
    const double idle_s = (double)steps->idle_ns / 1e9;
    const bool launches =
        !look->on_cpu && look->device[0] != '\0' && steps->clocks[2] == 0 && steps->clocks[3] == 0;
    const bool device = 2 * steps->by_device > steps->loaded;
    double parts[PM_HOST_PARTS + 1], spent_ns[PM_HOST_PARTS], known = 0;
    unsigned blame = PM_HOST_PARTS;
    char a[32], b[32];

    if (!pm_enough(look, why))
        return PM_VERDICT_LITTLE;
    if (launches || steps->clocks[1] + steps->clocks[2] + steps->clocks[3] == 0)
        return pm_because(why, PM_VERDICT_UNSEEN,
                          "how long the device took is not known, only when it was told to");
    if ((double)steps->loaded < pm_limits.min_steps)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu steps followed each other with requests",
                          LL(steps->loaded));
    if (share * 100 < pm_limits.host_share)
        return pm_because(why, PM_VERDICT_FINE, "%s for %.1f %% of the time with requests",
                          device ? "the device worked" : "the model ran", 100 - share * 100);
    /* Under asynchronous scheduling the parts overlap the model: they are told as what they are,
     * never as more than the gap. */
    for (unsigned i = 0; i < PM_HOST_PARTS; i++) {
        spent_ns[i] = (double)steps->part_ns[i];
        if (i == PM_HOST_UPDATE && steps->updates > steps->loaded)
            spent_ns[i] *= (double)steps->loaded / (double)steps->updates;
        known += spent_ns[i];
    }
    const double scale = known > (double)steps->idle_ns ? (double)steps->idle_ns / known : 1;
    for (unsigned i = 0; i < PM_HOST_PARTS; i++)
        parts[i] = scale * pm_pct(spent_ns[i], (double)steps->idle_ns);
    parts[PM_HOST_PARTS] = 100 - scale * pm_pct(known, (double)steps->idle_ns);
    for (unsigned i = 0; i < PM_HOST_PARTS; i++)
        blame = parts[i] > parts[blame] ? i : blame;
    pm_title(finding, "The %s for only %.0f %% of the time with requests: host-bound",
             device ? "device works" : "model runs", 100 - share * 100);
    if (device)
        pm_say(
            finding,
            "%s of %s with requests in %llu steps the device waited for the host (device events)",
            pm_for_seconds(idle_s, a), pm_for_seconds((double)steps->loaded_ns / 1e9, b),
            LL(steps->loaded));
    else
        pm_say(finding, "%s of %s with requests in %llu steps passed outside the model%s",
               pm_for_seconds(idle_s, a), pm_for_seconds((double)steps->loaded_ns / 1e9, b),
               LL(steps->loaded),
               steps->clocks[2] > steps->clocks[1] ? " (its end: vLLM's synchronisation)" : "");
    pm_say(finding, "most of it: %s, %.0f %% (%s a step)", part_words[blame], parts[blame],
           pm_for_seconds(parts[blame] / 100 * idle_s / (double)steps->loaded, a));
    pm_say(finding,
           "scheduling %.0f %%, preparing %.0f %%, leaving %.0f %%, sampling %.0f %%, outputs "
           "%.0f %%, other %.0f %%",
           parts[PM_HOST_SCHEDULE], parts[PM_HOST_PREPARE], parts[PM_HOST_POST],
           parts[PM_HOST_SAMPLE], parts[PM_HOST_UPDATE], parts[PM_HOST_PARTS]);
    if (scale < 1)
        pm_say(finding, "the parts overlap the model (asynchronous scheduling), so shares are of "
                        "all of them");
    pm_say(finding, "%.1f requests a step on average", (double)steps->requests / (double)steps->n);
    pm_figure(finding, "idle_pct", "%", share * 100);
    pm_figure(finding, "idle_s", "s", idle_s);
    pm_figure(finding, "steps", "steps", (double)steps->loaded);
    pm_figure(finding, "by_device_events", "steps", (double)steps->by_device);
    for (unsigned i = 0; i <= PM_HOST_PARTS; i++)
        pm_figure(finding, part_names[i], "%", parts[i]);
    pm_figure(finding, "mean_batch", "requests", (double)steps->requests / (double)steps->n);
    finding->severity = share * 100 < pm_limits.host_high ? PM_SEVERITY_LOW
                        : look->on_cpu                    ? PM_SEVERITY_MEDIUM
                                                          : PM_SEVERITY_HIGH;
    finding->confidence = scale < 1 ? 0.7 : 0.9;
    pm_cost(finding, idle_s, "time of the engine", share);
    finding->from_ns = steps->from_ns;
    finding->to_ns = steps->to_ns;
    turn_host(look, finding, blame);
    pm_recommend(finding,
                 "Larger batches and asynchronous scheduling hide the host's work; a small "
                 "model or a small batch leaves it in sight.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_slow_arrival(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_look_life *life = &look->life;
    const struct pm_times *tokens = &look->front.op[PM_FRONTEND_TOKENIZATION];
    const double p90_s = pm_times_quantile_s(&life->front, 0.9);
    const double share = life->front_of_ttft_ns != 0
                             ? (double)life->front.sum_ns / (double)life->front_of_ttft_ns
                             : 0;
    char a[32], b[32], c[32];

    if ((double)life->front.count < pm_limits.min_requests)
        return pm_because(why,
                          life->requests > 0 && life->front.count == 0 ? PM_VERDICT_UNSEEN
                                                                       : PM_VERDICT_LITTLE,
                          "%llu requests with a known arrival", LL(life->front.count));
    if (p90_s < pm_limits.front_p90_s || share * 100 < pm_limits.front_share)
        return pm_because(why, PM_VERDICT_FINE,
                          "%s from arrival to the scheduler at p90, %.1f %% of the first token's",
                          pm_for_seconds(p90_s, a), share * 100);
    pm_title(finding, "Requests reach the scheduler late: %s at p90", pm_for_seconds(p90_s, a));
    pm_say(finding, "from arrival to the scheduler %s on average, %s at p90, %s at most",
           pm_for_seconds(pm_times_mean_s(&life->front), a), pm_for_seconds(p90_s, b),
           pm_for_seconds((double)life->front.max_ns / 1e9, c));
    pm_say(finding, "that is %.0f %% of the time to the first token, over %llu requests",
           share * 100, LL(life->front.count));
    if (tokens->count > 0)
        pm_say(finding, "tokenization took %s on average (%llu prompts), %s at p90",
               pm_for_seconds(pm_times_mean_s(tokens), a), LL(tokens->count),
               pm_for_seconds(pm_times_quantile_s(tokens, 0.9), b));
    pm_figure(finding, "front_mean_s", "s", pm_times_mean_s(&life->front));
    pm_figure(finding, "front_p90_s", "s", p90_s);
    pm_figure(finding, "front_share_pct", "%", share * 100);
    pm_figure(finding, "front_sum_s", "s", (double)life->front.sum_ns / 1e9);
    pm_figure(finding, "tokenization_mean_s", "s", pm_times_mean_s(tokens));
    finding->severity = pm_severity_of(share);
    finding->confidence = 0.85;
    pm_cost(finding, (double)life->front.sum_ns / 1e9, "waiting of requests", -1);
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    finding->n_requests = life->front.count;
    pm_turn(finding, "--api-server-count", "raise", NULL, NULL);
    pm_turn(finding, "--renderer-num-workers", "raise", NULL, NULL);
    pm_recommend(finding, "%s",
                 tokens->count > 0 && pm_times_mean_s(tokens) > pm_times_mean_s(&life->front) / 2
                     ? "Tokenization is most of it: a fast tokenizer, more workers for it, or more "
                       "API servers."
                     : "The front end is busy with other things (validation, multimodal inputs, "
                       "streams): more API servers share them.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_slow_output(const struct pm_look *look, struct pm_finding *finding,
                                    char *why)
{
    const struct pm_look_front *front = &look->front;
    const struct pm_times *texts = &front->op[PM_FRONTEND_DETOKENIZATION];
    const double p90_s = pm_times_quantile_s(&front->delay, 0.9);
    const double seen_s = front->to_ns > front->from_ns
                              ? (double)(front->to_ns - front->from_ns) / 1e9 *
                                    (double)(front->processes != 0 ? front->processes : 1)
                              : 0;
    const double busy = pm_pct((double)front->busy_ns / 1e9, seen_s);
    char a[32], b[32];

    if (texts->count == 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "no front end recorded its outputs");
    if ((double)texts->count < pm_limits.min_steps || seen_s < pm_limits.min_busy_s)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu rounds of outputs", LL(texts->count));
    if (p90_s < pm_limits.output_p90_s && busy < pm_limits.output_busy)
        return pm_because(why, PM_VERDICT_FINE,
                          "outputs wait %s at p90, the front end is busy for "
                          "%.1f %%",
                          pm_for_seconds(p90_s, a), busy);
    pm_title(finding, "Outputs wait in the front end: %s at p90", pm_for_seconds(p90_s, a));
    pm_say(finding, "sent by the engine core, outputs waited %s on average, %s at p90",
           pm_for_seconds(pm_times_mean_s(&front->delay), a), pm_for_seconds(p90_s, b));
    pm_say(finding, "turning them into text took %s a round, %.0f %% of the front end's time",
           pm_for_seconds(pm_times_mean_s(texts), a), busy);
    pm_figure(finding, "delay_p90_s", "s", p90_s);
    pm_figure(finding, "delay_mean_s", "s", pm_times_mean_s(&front->delay));
    pm_figure(finding, "busy_pct", "%", busy);
    pm_figure(finding, "detokenization_mean_s", "s", pm_times_mean_s(texts));
    finding->severity = busy >= pm_limits.output_busy ? PM_SEVERITY_MEDIUM : PM_SEVERITY_LOW;
    finding->confidence = 0.8;
    pm_cost(finding, (double)front->delay.sum_ns / 1e9, "waiting of outputs", -1);
    finding->from_ns = front->from_ns;
    finding->to_ns = front->to_ns;
    pm_turn(finding, "--stream-interval", "raise", NULL, NULL);
    pm_turn(finding, "--api-server-count", "raise", NULL, NULL);
    pm_recommend(finding, "Send several tokens at a time to clients, or let more API servers share "
                          "the streams.");
    return PM_VERDICT_FOUND;
}
