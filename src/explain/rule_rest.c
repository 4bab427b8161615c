/* Rules of experts and ranks. Formulas: docs/FINDINGS.md. */
#include "explain/rules.h"

#include <string.h>

#include "session/attrs.h"

#define LL(value) ((unsigned long long)(value))

static bool has_experts(const struct pm_look *look, char *why, enum pm_verdict *ret_verdict)
{
    if (!look->moe.seen) {
        *ret_verdict = pm_because(why, PM_VERDICT_NOT_HERE, "no experts");
        return false;
    }
    if (look->moe.enough)
        return true;
    *ret_verdict = pm_because(
        why, look->moe.selections == 0 ? PM_VERDICT_UNSEEN : PM_VERDICT_LITTLE,
        "%llu selections in %llu layers", LL(look->moe.selections), LL(look->moe.layers));
    return false;
}

enum pm_verdict pm_rule_expert_imbalance(const struct pm_look *look, struct pm_finding *finding,
                                         char *why)
{
    const struct pm_look_moe *moe = &look->moe;
    const char *expert = pm_look_config(look, PM_ATTR_PARALLEL_PREFIX "expert");
    const bool parallel = expert != NULL && strcmp(expert, "1") == 0;
    enum pm_verdict verdict;

    if (!has_experts(look, why, &verdict))
        return verdict;
    if (moe->uneven == 0)
        return pm_because(why, PM_VERDICT_FINE,
                          "the busiest expert of any layer has %.2f times the mean",
                          moe->worst_max_mean);
    pm_title(finding, "Experts are uneven: the busiest of layer %u has %.1f times the mean",
             moe->worst_layer, moe->worst_max_mean);
    pm_say(finding, "%llu of %llu layers have an expert with more than %.1f times the mean",
           LL(moe->uneven), LL(moe->layers_seen), pm_limits.expert_ratio);
    pm_say(finding, "worst: layer %u, expert %u; over the layers %.2f times on average",
           moe->worst_layer, moe->worst_expert, moe->mean_max_mean);
    pm_figure(finding, "worst_ratio", "", moe->worst_max_mean);
    pm_figure(finding, "mean_ratio", "", moe->mean_max_mean);
    pm_figure(finding, "uneven_layers", "layers", (double)moe->uneven);
    pm_figure(finding, "layers", "layers", (double)moe->layers_seen);
    pm_figure(finding, "selections", "", (double)moe->selections);
    finding->severity = parallel ? PM_SEVERITY_MEDIUM : PM_SEVERITY_INFO;
    finding->confidence = parallel ? 0.8 : 0.6;
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    if (parallel) {
        /* The rank with the busiest expert is the last to end a layer. */
        const double lost = 1 - 1 / moe->mean_max_mean;
        if (moe->time_ns > 0)
            pm_cost(finding, lost * (double)moe->time_ns / 1e9, "time of the layers, at most", -1);
        pm_turn(finding, "--enable-eplb", "set", NULL, NULL);
    }
    pm_recommend(finding, "%s",
                 parallel ? "With expert parallelism the ranks wait for the busiest one: let vLLM "
                            "balance the experts anew."
                          : "Without expert parallelism this costs little: each rank has a part of "
                            "every expert.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_dead_experts(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_look_moe *moe = &look->moe;
    enum pm_verdict verdict;

    if (!has_experts(look, why, &verdict))
        return verdict;
    if (moe->dead == 0)
        return pm_because(why, PM_VERDICT_FINE, "all %llu experts were chosen", LL(moe->experts));
    pm_title(finding, "%llu of %llu experts were never chosen", LL(moe->dead), LL(moe->experts));
    pm_say(finding, "in %llu of %llu layers, each with at least %.0f selections per expert",
           LL(moe->dead_layers), LL(moe->layers_seen), pm_limits.expert_selections);
    pm_say(finding, "%s%s", moe->dead_text, moe->dead > 12 ? ", ..." : "");
    pm_figure(finding, "dead", "experts", (double)moe->dead);
    pm_figure(finding, "experts", "experts", (double)moe->experts);
    pm_figure(finding, "layers", "layers", (double)moe->dead_layers);
    finding->severity = PM_SEVERITY_INFO;
    finding->confidence = 0.6;
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    pm_recommend(finding,
                 "This load does not use them; another one may. Of a model's own making, it "
                 "is memory that does nothing.");
    return PM_VERDICT_FOUND;
}

enum pm_verdict pm_rule_uneven_ranks(const struct pm_look *look, struct pm_finding *finding,
                                     char *why)
{
    const struct pm_look_ranks *ranks = &look->ranks;
    unsigned last = 0, longest = 0;
    char a[32], b[32];

    if (ranks->n < 2)
        return pm_because(why, PM_VERDICT_NOT_HERE, "one rank");
    if (ranks->pipeline)
        return pm_because(why, PM_VERDICT_NOT_HERE, "pipeline stages differ by nature");
    if ((double)ranks->steps < pm_limits.min_steps || ranks->forward_ns == 0)
        return pm_because(why, PM_VERDICT_LITTLE, "%llu steps of all ranks", LL(ranks->steps));
    const double late = pm_pct((double)ranks->late_ns, (double)ranks->forward_ns);
    const double spread = pm_pct((double)ranks->spread_ns, (double)ranks->forward_ns);
    for (unsigned n = 0; n < ranks->n; n++) {
        last = ranks->last[n] > ranks->last[last] ? n : last;
        longest = ranks->longest[n] > ranks->longest[longest] ? n : longest;
    }
    if (late < pm_limits.rank_late && spread < pm_limits.rank_spread)
        return pm_because(why, PM_VERDICT_FINE,
                          "ranks begin within %.1f %% of a step and differ by %.1f %%", late,
                          spread);
    const bool begins = late >= pm_limits.rank_late;
    const unsigned which = begins ? last : longest;
    const double often =
        pm_pct((double)(begins ? ranks->last[which] : ranks->longest[which]), (double)ranks->steps);
    const double lost_s = (double)(begins ? ranks->late_ns : ranks->spread_ns) / 1e9;
    pm_title(finding, begins ? "Rank %d begins its steps late" : "Rank %d takes longer than others",
             ranks->rank[which]);
    pm_say(finding, "the last rank begins %s after the middle one on average (%.1f %% of a step)",
           pm_for_seconds((double)ranks->late_ns / 1e9 / (double)ranks->steps, a), late);
    pm_say(finding, "longest and shortest differ by %s on average (%.1f %% of a step)",
           pm_for_seconds((double)ranks->spread_ns / 1e9 / (double)ranks->steps, b), spread);
    pm_say(finding, "rank %d is the %s one in %.0f %% of %llu steps", ranks->rank[which],
           begins ? "last" : "longest", often, LL(ranks->steps));
    for (unsigned n = 0; n < ranks->n && n < 4; n++)
        pm_say(finding, "rank %d: %s a step on average", ranks->rank[n],
               pm_for_seconds((double)ranks->sum_ns[n] / 1e9 / (double)ranks->steps, a));
    pm_figure(finding, "late_pct", "%", late);
    pm_figure(finding, "spread_pct", "%", spread);
    pm_figure(finding, "often_pct", "%", often);
    pm_figure(finding, "late_s", "s", (double)ranks->late_ns / 1e9);
    pm_figure(finding, "spread_s", "s", (double)ranks->spread_ns / 1e9);
    finding->rank = ranks->rank[which];
    finding->severity = pm_severity_of((begins ? late : spread) / 100);
    finding->confidence = often >= 60 ? 0.8 : 0.5;
    pm_cost(finding, lost_s, "time of the other ranks", (begins ? late : spread) / 100);
    finding->from_ns = look->steps.from_ns;
    finding->to_ns = look->steps.to_ns;
    pm_recommend(finding, "%s",
                 begins
                     ? "See what else runs on that rank's host cores, and which cores it may use "
                       "(NUMA binding, container limits)."
                     : "See that device's clocks, temperature and neighbours. With a collective "
                       "in each layer a slow device shows as the one that waits least.");
    return PM_VERDICT_FOUND;
}
