/* The rule of sampling: its share of the time, and the setting that is dear. Formulas:
 * docs/FINDINGS.md. */
#include "explain/rules.h"

#include <string.h>

#define LL(value) ((unsigned long long)(value))

/* What to do about a setting; on_cpu: there is no other sampler to choose. */
struct remedy {
    unsigned setting;
    const char *flag, *direction, *value; /* NULL: nothing to turn */
    const char *advice;
};
static const struct remedy remedies[] = {
    {PM_SAMPLING_TEMPERATURE, "--override-generation-config", "set", "{\"temperature\": 0}",
     "Drawing at random costs so much over taking the likeliest token: clients that do not need it "
     "can send temperature 0."},
    {PM_SAMPLING_TOP_P, "--override-generation-config", "set", "{\"top_p\": 1}",
     "One request with top_p has the logits of the whole batch sorted. Clients that can do with "
     "min_p, or with top_k alone, need no sort; a default may come from the model's "
     "generation_config.json."},
    {PM_SAMPLING_TOP_K, "--override-generation-config", "set", "{\"top_k\": 0}",
     "One request with top_k has the whole batch searched for its k likeliest tokens. A default "
     "may come from the model's generation_config.json."},
    {PM_SAMPLING_MIN_P, "--override-generation-config", "set", "{\"min_p\": 0}",
     "One request with min_p has the probabilities of the whole batch computed once more. A "
     "default may come from the model's generation_config.json."},
    {PM_SAMPLING_SEED, NULL, NULL, NULL,
     "Each request with a seed draws by itself, one after another: leave seeds to requests whose "
     "answers have to be the same again."},
    {PM_SAMPLING_PENALTIES, "--override-generation-config", "set", "{\"repetition_penalty\": 1}",
     "Penalties count the tokens so far of every request of the batch anew in each step. A "
     "default repetition_penalty may come from the model's generation_config.json."},
    {PM_SAMPLING_LOGPROBS, "--max-logprobs", "lower", NULL,
     "Log probabilities are computed for the whole vocabulary and every request of the batch: ask "
     "for them only where they are read."},
    {PM_SAMPLING_PROMPT_LOGPROBS, "--max-logprobs", "lower", NULL,
     "Log probabilities of prompts need the logits of every token of them, and such a prompt does "
     "not use the prefix cache: score prompts apart from the traffic that somebody waits for."},
    {PM_SAMPLING_STRUCTURED, NULL, NULL, NULL,
     "The masks of grammars are applied to the logits in each step: see the grammar_bitmasks of "
     "sampling_summary.json for what filling them takes, and whether every such request needs its "
     "schema."},
    {PM_SAMPLING_TOKEN_RULES, NULL, NULL, NULL,
     "logit_bias, allowed_token_ids, bad_words and min_tokens change the logits request by "
     "request: shorter lists, and fewer such requests at a time, cost less."},
    {PM_SAMPLING_SPEC, NULL, NULL, NULL,
     "Verifying drafts takes that; the tokens that are accepted save whole steps. See the report's "
     "wasted work for what speculation gains."},
};

/* The lower end of what a setting adds, of the time with work. */
static double share_of(const struct pm_look *look, unsigned i)
{
    const double least_s = look->sampling.settings[i].cost_s - look->sampling.settings[i].error_s;
    return look->sampling.settings[i].sure && look->steps.busy_ns != 0
               ? least_s * (double)look->sampling.settings[i].with /
                     ((double)look->steps.busy_ns / 1e9)
               : 0;
}

/* The setting that costs most of the time; PM_SAMPLING_ALL: none is dear. */
static unsigned dearest(const struct pm_look *look, unsigned but)
{
    unsigned found = PM_SAMPLING_ALL;
    for (unsigned i = 0; i < PM_SAMPLING_ALL; i++)
        if (i != but && share_of(look, i) * 100 >= pm_limits.setting_share &&
            (found == PM_SAMPLING_ALL || share_of(look, i) > share_of(look, found)))
            found = i;
    return found;
}

/* "top_p", "top_p (always with top_k)". */
static const char *name_of(const struct pm_look *look, unsigned i, char *out, size_t size)
{
    const char *together = look->sampling.settings[i].together;
    snprintf(out, size, "%s%s%s%s", pm_sampling_name(i),
             together[0] != '\0' ? " (always with " : "", together, together[0] != '\0' ? ")" : "");
    return out;
}

/* A step with the setting: its own time on the host; where the device took the time, the mean of
 * all, since the host's own then says little. */
static double step_of(const struct pm_look *look, unsigned i)
{
    return look->sampling.clock == PM_SAMPLING_EVENTS && look->steps.n > 0
               ? (double)look->steps.busy_ns / 1e9 / (double)look->steps.n
               : look->sampling.settings[i].step_s;
}

static void say_setting(const struct pm_look *look, struct pm_finding *finding, unsigned i)
{
    char a[32], b[32], c[32], d[32], name[PM_SAMPLING_WORDS + 48];
    const double cost_s = look->sampling.settings[i].cost_s;
    const double error_s = look->sampling.settings[i].error_s;
    const uint64_t with = look->sampling.settings[i].with;

    pm_say(finding, "%s costs %s (%s to %s) of a step of %s", name_of(look, i, name, sizeof(name)),
           pm_for_seconds(cost_s, a), pm_for_seconds(cost_s - error_s, b),
           pm_for_seconds(cost_s + error_s, c), pm_for_seconds(step_of(look, i), d));
    pm_say(finding, "%.0f %% of the steps have a request that asks for %s, %.1f on average",
           pm_pct((double)with, (double)look->sampling.steps), pm_sampling_name(i),
           with > 0 ? (double)look->sampling.settings[i].requests / (double)with : 0.0);
}

static void say_remedy(const struct pm_look *look, struct pm_finding *finding, unsigned i)
{
    for (size_t k = 0; k < sizeof(remedies) / sizeof(remedies[0]); k++) {
        if (remedies[k].setting != i)
            continue;
        if (!look->on_cpu && (i == PM_SAMPLING_TOP_P || i == PM_SAMPLING_TOP_K))
            pm_turn(finding, "VLLM_USE_FLASHINFER_SAMPLER", "set", NULL, "1");
        if (remedies[k].flag != NULL && remedies[k].value != NULL)
            pm_turn(finding, remedies[k].flag, remedies[k].direction, NULL, "%s",
                    remedies[k].value);
        else if (remedies[k].flag != NULL)
            pm_turn(finding, remedies[k].flag, remedies[k].direction, NULL, NULL);
        pm_recommend(finding, "%s", remedies[k].advice);
    }
}

static void say_all(const struct pm_look *look, struct pm_finding *finding)
{
    const struct pm_look_steps *steps = &look->steps;
    const double all_s = (double)steps->sample_all_ns / 1e9;
    char a[32], b[32];

    pm_say(finding, "%s in sample_tokens over %llu steps, %s a step", pm_for_seconds(all_s, a),
           LL(steps->n), pm_for_seconds(all_s / (double)steps->n, b));
    pm_say(finding,
           "logits to tokens %.0f %% of it, the runner's own state %.0f %%, drafts %.0f %%",
           pm_pct((double)steps->sampler_ns, (double)steps->sample_all_ns),
           pm_pct((double)steps->bookkeep_ns, (double)steps->sample_all_ns),
           pm_pct((double)steps->draft_ns, (double)steps->sample_all_ns));
    if (steps->device_sampled > 0)
        pm_say(finding,
               "that is the host's time; on the device itself it took %s a step (%llu steps)",
               pm_for_seconds((double)steps->device_sample_ns / 1e9 / (double)steps->device_sampled,
                              a),
               LL(steps->device_sampled));
    else if (!look->on_cpu && look->device[0] != '\0')
        pm_say(finding, "on a device this is the host's time, with what it waits for in it");
}

enum pm_verdict pm_rule_sampling_cost(const struct pm_look *look, struct pm_finding *finding,
                                      char *why)
{
    const struct pm_look_steps *steps = &look->steps;
    const double all_s = (double)steps->sample_all_ns / 1e9;
    const double share =
        (double)steps->sample_all_ns / (double)(steps->busy_ns != 0 ? steps->busy_ns : 1);
    const bool much = share * 100 >= pm_limits.sample_share;
    char a[32], b[32], c[32], d[32];

    if (!pm_enough(look, why))
        return PM_VERDICT_LITTLE;
    if (steps->sample_all_ns == 0)
        return pm_because(why, PM_VERDICT_UNSEEN, "sampling was not recorded apart");
    const unsigned dear = dearest(look, PM_SAMPLING_ALL);
    const unsigned second = dear < PM_SAMPLING_ALL ? dearest(look, dear) : PM_SAMPLING_ALL;
    if (!much && dear == PM_SAMPLING_ALL)
        return pm_because(
            why, PM_VERDICT_FINE,
            "sampling takes %.1f %% of the time with work, and no setting adds %.0f %%",
            share * 100, pm_limits.setting_share);
    const double of = dear < PM_SAMPLING_ALL ? share_of(look, dear) : share;
    if (dear < PM_SAMPLING_ALL) {
        const double cost_s = look->sampling.settings[dear].cost_s;
        const double error_s = look->sampling.settings[dear].error_s;
        pm_title(finding, "%s costs %s of a %s step (%s to %s)", pm_sampling_name(dear),
                 pm_for_seconds(cost_s, a), pm_for_seconds(step_of(look, dear), b),
                 pm_for_seconds(cost_s - error_s, c), pm_for_seconds(cost_s + error_s, d));
        say_setting(look, finding, dear);
        if (second < PM_SAMPLING_ALL)
            say_setting(look, finding, second);
    } else {
        pm_title(finding, "Sampling takes %.0f %% of the time with work", share * 100);
    }
    say_all(look, finding);
    if (dear == PM_SAMPLING_ALL && look->sampling.steps > 0)
        pm_say(finding, "no setting stands out: see the report's section on sampling for what can "
                        "be told of each");
    pm_figure(finding, "sample_pct", "%", share * 100);
    pm_figure(finding, "sample_s", "s", all_s);
    pm_figure(finding, "sampler_s", "s", (double)steps->sampler_ns / 1e9);
    pm_figure(finding, "bookkeep_s", "s", (double)steps->bookkeep_ns / 1e9);
    pm_figure(finding, "draft_s", "s", (double)steps->draft_ns / 1e9);
    if (dear < PM_SAMPLING_ALL) {
        const double with = (double)look->sampling.settings[dear].with;
        pm_figure(finding, "setting_ms", "ms", look->sampling.settings[dear].cost_s * 1e3);
        pm_figure(finding, "setting_error_ms", "ms", look->sampling.settings[dear].error_s * 1e3);
        pm_figure(finding, "setting_step_ms", "ms", step_of(look, dear) * 1e3);
        pm_figure(finding, "setting_steps", "steps", with);
        pm_figure(finding, "setting_pct", "%", of * 100);
        pm_cost(finding, look->sampling.settings[dear].cost_s * with, "time of the engine", of);
    } else {
        pm_cost(finding, all_s, "time of the engine", share);
    }
    finding->severity = share * 100 >= pm_limits.share_high || of * 100 >= pm_limits.share_high
                            ? PM_SEVERITY_MEDIUM
                            : PM_SEVERITY_LOW;
    /* Costs are observed, not tried; launches are not the device's time. */
    finding->confidence = look->sampling.clock == PM_SAMPLING_LAUNCH ? 0.5
                          : dear < PM_SAMPLING_ALL                   ? 0.8
                          : look->on_cpu                             ? 0.9
                                                                     : 0.6;
    finding->from_ns = steps->from_ns;
    finding->to_ns = steps->to_ns;
    if (dear < PM_SAMPLING_ALL) {
        say_remedy(look, finding, dear);
        return PM_VERDICT_FOUND;
    }
    if (!look->on_cpu)
        pm_turn(finding, "VLLM_USE_FLASHINFER_SAMPLER", "set", NULL, "1");
    pm_turn(finding, "--max-logprobs", "lower", NULL, NULL);
    pm_recommend(finding,
                 "See what clients ask for: logprobs, penalties, top-k and top-p, grammars "
                 "and large vocabularies are what sampling spends its time on.");
    return PM_VERDICT_FOUND;
}
