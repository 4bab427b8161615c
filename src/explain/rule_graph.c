/* Rules of CUDA graphs. Formulas: docs/FINDINGS.md. */
#include "explain/rules.h"

#include <stdio.h>
#include <string.h>

#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

static const char *const outcome_sentences[PM_GRAPH_OUTCOMES_COUNT] = {
#define X(name, word, sentence) sentence,
    PM_GRAPH_OUTCOMES(X)
#undef X
};
static const char *const outcome_words[PM_GRAPH_OUTCOMES_COUNT] = {
#define X(name, word, sentence) word,
    PM_GRAPH_OUTCOMES(X)
#undef X
};

/* Steps with tokens: all, and those without a graph. */
static void count_passes(const struct pm_look_graphs *graphs, uint64_t *ret_all,
                         uint64_t *ret_eager)
{
    *ret_all = *ret_eager = 0;
    for (unsigned i = 0; i < PM_GRAPH_OUTCOMES_COUNT; i++) {
        if (i == PM_GRAPH_ASIDE)
            continue;
        *ret_all += graphs->passes[i];
        *ret_eager += i >= PM_GRAPH_EAGER ? graphs->passes[i] : 0;
    }
}

static bool has_graphs(const struct pm_look *look, char *why, enum pm_verdict *ret_verdict)
{
    uint64_t all, eager;
    count_passes(&look->graphs, &all, &eager);
    if (all == 0 || look->graphs.captured + look->graphs.replays == 0) {
        *ret_verdict = pm_because(why, PM_VERDICT_NOT_HERE, "no CUDA graphs");
        return false;
    }
    if ((double)all >= pm_limits.min_steps)
        return true;
    *ret_verdict = pm_because(why, PM_VERDICT_LITTLE, "%llu steps", LL(all));
    return false;
}

static void put_span(const struct pm_look *look, struct pm_finding *finding)
{
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
}

enum pm_verdict pm_rule_graphs_off(const struct pm_look *look, struct pm_finding *finding,
                                   char *why)
{
    const char *eager = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "enforce_eager");
    const char *mode = pm_look_config(look, PM_ATTR_CONFIG_PREFIX "cudagraph_mode");
    const bool forced = eager != NULL && strcmp(eager, "1") == 0;

    if (look->on_cpu || look->device[0] == '\0')
        return pm_because(why, PM_VERDICT_NOT_HERE, "no device that has graphs");
    if (!forced && (mode == NULL || strcmp(mode, "NONE") != 0))
        return pm_because(why, mode == NULL ? PM_VERDICT_UNSEEN : PM_VERDICT_FINE,
                          "graph mode %.40s", mode != NULL ? mode : "not known");
    if (!pm_enough(look, why))
        return PM_VERDICT_LITTLE;
    const double share = pm_pct((double)look->steps.decode, (double)look->steps.n);
    pm_title(finding, "CUDA graphs are off%s", forced ? " (--enforce-eager)" : "");
    pm_say(finding, "%llu of %llu steps (%.0f %%) only decode: each launches every kernel anew",
           LL(look->steps.decode), LL(look->steps.n), share);
    pm_figure(finding, "decode_steps_pct", "%", share);
    pm_figure(finding, "steps", "steps", (double)look->steps.n);
    finding->severity = share >= 50 ? PM_SEVERITY_MEDIUM : PM_SEVERITY_LOW;
    finding->confidence = 0.7;
    put_span(look, finding);
    if (forced)
        pm_turn(finding, "--enforce-eager", "unset", "on", NULL);
    else
        pm_turn(finding, "--compilation-config", "set", mode, "{\"cudagraph_mode\": ...}");
    pm_recommend(finding,
                 "Graphs replay a decode step with one launch. They take memory and time at "
                 "start-up, which is why they may have been turned off.");
    return PM_VERDICT_FOUND;
}

static void turn_miss(const struct pm_look *look, struct pm_finding *finding, unsigned reason)
{
    char now[32];

    snprintf(now, sizeof(now), "%llu", LL(look->graphs.largest));
    if (reason == PM_GRAPH_TOO_LARGE)
        pm_turn(finding, "--max-cudagraph-capture-size", "raise", now, NULL);
    else if (reason == PM_GRAPH_NOT_UNIFORM)
        pm_turn(finding, "--compilation-config", "set",
                pm_look_config(look, PM_ATTR_CONFIG_PREFIX "cudagraph_mode"),
                "{\"cudagraph_mode\": \"FULL_AND_PIECEWISE\"}");
    else
        pm_turn(finding, "--cudagraph-capture-sizes", "set", NULL, NULL);
}

enum pm_verdict pm_rule_graph_misses(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_look_graphs *graphs = &look->graphs;
    uint64_t all, eager, tokens = 0;
    unsigned reason = PM_GRAPH_EAGER;
    enum pm_verdict verdict;

    if (!has_graphs(look, why, &verdict))
        return verdict;
    count_passes(graphs, &all, &eager);
    const double share = pm_pct((double)eager, (double)all);
    if (share < pm_limits.graph_miss)
        return pm_because(why, PM_VERDICT_FINE, "%.1f %% of %llu steps ran eagerly", share,
                          LL(all));
    for (unsigned i = PM_GRAPH_EAGER; i < PM_GRAPH_OUTCOMES_COUNT; i++) {
        reason = graphs->passes[i] > graphs->passes[reason] ? i : reason;
        tokens += graphs->tokens[i];
    }
    pm_title(finding, "%.0f %% of steps run eagerly though graphs are on", share);
    for (unsigned i = PM_GRAPH_EAGER; i < PM_GRAPH_OUTCOMES_COUNT; i++)
        if (graphs->passes[i] > 0)
            pm_say(finding, "%llu steps (%s): %s", LL(graphs->passes[i]), outcome_words[i],
                   outcome_sentences[i]);
    if (graphs->largest > 0)
        pm_say(finding,
               "the largest captured graph is for %llu tokens, eager steps had %.0f on "
               "average",
               LL(graphs->largest), (double)tokens / (double)eager);
    pm_figure(finding, "eager_pct", "%", share);
    pm_figure(finding, "eager_steps", "steps", (double)eager);
    pm_figure(finding, "steps", "steps", (double)all);
    pm_figure(finding, "eager_tokens", "tokens", (double)tokens);
    pm_figure(finding, "largest_graph", "tokens", (double)graphs->largest);
    /* Large prefills gain little from a graph. */
    finding->severity =
        reason == PM_GRAPH_TOO_LARGE ? PM_SEVERITY_LOW : pm_severity_of(share / 100);
    finding->confidence = reason == PM_GRAPH_TOO_LARGE ? 0.5 : 0.8;
    finding->share = share / 100;
    put_span(look, finding);
    turn_miss(look, finding, reason);
    pm_recommend(
        finding, "%s",
        reason == PM_GRAPH_TOO_LARGE
            ? "Steps of many tokens gain little from a graph. Raise the largest size only if "
              "batches of decodes are that large."
            : "Each of these steps launches its kernels one by one: see the reasons.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_graph_padding(const struct pm_look *look, struct pm_finding *finding,
                                      char *why)
{
    const struct pm_look_graphs *graphs = &look->graphs;
    const uint64_t padding = graphs->padding[PM_GRAPH_PIECEWISE] + graphs->padding[PM_GRAPH_FULL];
    const uint64_t tokens = graphs->tokens[PM_GRAPH_PIECEWISE] + graphs->tokens[PM_GRAPH_FULL];
    const double share = pm_pct((double)padding, (double)(padding + tokens));
    enum pm_verdict verdict;

    if (!has_graphs(look, why, &verdict))
        return verdict;
    if (share < pm_limits.graph_padding)
        return pm_because(why, PM_VERDICT_FINE, "%.1f %% of computed tokens are padding", share);
    pm_title(finding, "%.0f %% of the tokens that graphs compute are padding", share);
    pm_say(finding, "%llu tokens scheduled, %llu more computed to fill the captured sizes",
           LL(tokens), LL(padding));
    for (unsigned i = 0; i < graphs->n_top && i < 4; i++)
        pm_say(finding, "%s replayed %llu times", graphs->top[i], LL(graphs->top_n[i]));
    pm_figure(finding, "padding_pct", "%", share);
    pm_figure(finding, "padding_tokens", "tokens", (double)padding);
    pm_figure(finding, "tokens", "tokens", (double)tokens);
    finding->severity = share >= 2 * pm_limits.graph_padding ? PM_SEVERITY_MEDIUM : PM_SEVERITY_LOW;
    finding->confidence = 0.7;
    finding->share = share / 100;
    finding->has_cost_tokens = true;
    finding->cost_tokens = (double)padding;
    put_span(look, finding);
    pm_turn(finding, "--cudagraph-capture-sizes", "set", NULL, "sizes nearer to the batches");
    pm_recommend(finding, "Capture the sizes that batches have. Small decode batches are bound by "
                          "memory: there padding costs little time.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_graph_captures(const struct pm_look *look, struct pm_finding *finding,
                                       char *why)
{
    const struct pm_look_graphs *graphs = &look->graphs;
    char cell[32];

    if (graphs->captured == 0)
        return pm_because(why, PM_VERDICT_NOT_HERE, "no CUDA graphs");
    if (graphs->at_runtime == 0)
        return pm_because(why, PM_VERDICT_FINE, "all %llu graphs were captured at start-up",
                          LL(graphs->captured));
    const double took_s = (double)graphs->at_runtime_ns / 1e9;
    pm_title(finding, "%llu graphs were captured while requests waited", LL(graphs->at_runtime));
    pm_say(finding, "captures outside of vLLM's own start-up took %s",
           pm_for_seconds(took_s, cell));
    pm_figure(finding, "captures", "", (double)graphs->at_runtime);
    pm_figure(finding, "capture_s", "s", took_s);
    finding->severity = PM_SEVERITY_LOW;
    finding->confidence = 0.9;
    pm_cost(finding, took_s, "time of the engine", -1);
    put_span(look, finding);
    pm_turn(finding, "--cudagraph-capture-sizes", "set", NULL, NULL);
    pm_recommend(finding, "Name these sizes, so that they are captured before the first request.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_descriptors(const struct pm_look *look, struct pm_finding *finding,
                                    char *why)
{
    const struct pm_look_graphs *graphs = &look->graphs;
    const double top = pm_pct((double)graphs->top_replays, (double)graphs->replays);
    enum pm_verdict verdict;
    char cell[32];

    if (!has_graphs(look, why, &verdict))
        return verdict;
    if ((double)graphs->replays < pm_limits.min_steps)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu replays", LL(graphs->replays));
    const bool uniform = top >= pm_limits.graph_dominant;
    const bool diverse = top < pm_limits.graph_diverse && graphs->used >= 10;
    if (!uniform && !diverse)
        return pm_because(why, PM_VERDICT_FINE,
                          "%llu descriptors in use, the first has %.1f %% of replays",
                          LL(graphs->used), top);
    if (uniform)
        pm_title(finding, "A uniform load: one descriptor has %.0f %% of all replays", top);
    else
        pm_title(finding, "A diverse load: %llu descriptors are in use, none above %.0f %%",
                 LL(graphs->used), top);
    for (unsigned i = 0; i < graphs->n_top && i < 4; i++)
        pm_say(finding, "%s: %llu of %llu replays (%.1f %%)", graphs->top[i], LL(graphs->top_n[i]),
               LL(graphs->replays), pm_pct((double)graphs->top_n[i], (double)graphs->replays));
    if (graphs->unused > 0)
        pm_say(finding, "%llu of %llu captured graphs were never replayed: %s of start-up",
               LL(graphs->unused), LL(graphs->captured),
               pm_for_seconds((double)graphs->unused_capture_ns / 1e9, cell));
    pm_figure(finding, "top_pct", "%", top);
    pm_figure(finding, "used", "", (double)graphs->used);
    pm_figure(finding, "captured", "", (double)graphs->captured);
    pm_figure(finding, "unused", "", (double)graphs->unused);
    pm_figure(finding, "replays", "", (double)graphs->replays);
    finding->severity = PM_SEVERITY_INFO;
    finding->confidence = 1;
    put_span(look, finding);
    if (uniform)
        pm_turn(finding, "--cudagraph-capture-sizes", "set", NULL, "the sizes in use");
    pm_recommend(finding, "%s",
                 uniform
                     ? "Fewer captured sizes give a faster start and more memory for the KV cache."
                     : "Captured sizes close to each other keep padding low for such a load.");
    return PM_VERDICT_FOUND;
}
