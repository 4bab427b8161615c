/*
 * What each sampling setting costs: steps with it held against steps without it that are alike in
 * all the rest. Used by sampling.c, one thread; owns its memory.
 *
 * Steps are sorted into strata: one for each set of settings that a batch asked for, each batch
 * size (eight classes an octave) and each clock. A setting's cost is, over all pairs of strata that
 * differ in it alone, the mean of the differences of their medians, each weighted by
 * n1 n0 / (n1 + n0), n1 and n0 being their steps. Its error is half the width of a 95 % interval,
 * from the order statistics that enclose each median (a binomial interval, without an assumption
 * about the distribution; steps are taken as independent). Settings that came and went together
 * are judged as one, since nothing tells them apart. Whether a request is greedy is no setting of
 * its own here: it is what drawing at random (temperature) is held against.
 */
#ifndef PM_VIEW_SAMPLING_COST_H
#define PM_VIEW_SAMPLING_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "session/sampling_facts.h"

/* Verifying drafts is a step's, not a request's; for the rest it is a setting like others. */
#define PM_SAMPLING_SPEC PM_SAMPLING_COUNT
#define PM_SAMPLING_ALL (PM_SAMPLING_COUNT + 1)

#define PM_SAMPLING_STRATA_MAX 4096u /* further ones are not compared */
#define PM_SAMPLING_HELD 512u        /* durations held of each, evenly over the session */
#define PM_SAMPLING_LEAST 20u        /* matched steps on either side that a figure needs */

enum pm_sampling_verdict {
    PM_SAMPLING_TOLD,    /* the interval leaves 0 out */
    PM_SAMPLING_SMALL,   /* it does not: no difference that these steps could show */
    PM_SAMPLING_NEVER,   /* no step with it */
    PM_SAMPLING_ALWAYS,  /* no step without it */
    PM_SAMPLING_UNLIKE,  /* both, but never with as many requests and otherwise the same */
    PM_SAMPLING_TOO_FEW, /* fewer matched steps than it takes */
    PM_SAMPLING_VERDICTS
};

struct pm_sampling_cost {
    enum pm_sampling_verdict verdict;
    uint32_t together; /* bits of the settings that came and went as one, its own included */
    uint64_t with, without;
    uint64_t matched_with, matched_without; /* the steps behind the figure */
    double cost_ns, error_ns;               /* a step's; TOLD and SMALL */
};

struct pm_sampling_costs;

PM_MUST_USE int pm_sampling_costs_open(struct pm_sampling_costs **ret_costs);
/* One step: bits of its settings, its requests, its duration, and which clock took that. */
PM_MUST_USE int pm_sampling_costs_add(struct pm_sampling_costs *costs, uint32_t bits,
                                      uint32_t requests, unsigned clock, uint64_t dur_ns);
/* After the last step, once. */
void pm_sampling_costs_settle(struct pm_sampling_costs *costs);
/* A setting's, of settled costs. */
void pm_sampling_costs_tell(const struct pm_sampling_costs *costs, unsigned setting,
                            struct pm_sampling_cost *ret_cost);
void pm_sampling_costs_close(struct pm_sampling_costs *costs);

#endif
