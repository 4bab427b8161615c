/*
 * The estimator: what took longer, of the same work. Used by compare.c and the tests, one thread;
 * owns its tables, borrows and changes the tallies.
 *
 * For each composition s found on both sides, with a and b observations, the means are compared
 * with the weight ab/(a+b), which is the one of least variance and is nothing where one side has
 * none:
 *
 *     before = sum w_s mean_before(s) / sum w_s        after = the same        change =
 * after/before
 *
 * Beforehand what the sizes explain within a composition is taken out: a linear fit of each value
 * over the covariates, within compositions and within sides, moves each observation to the mean
 * size of its composition.
 *
 * Intervals come from the circular block bootstrap (Politis and Romano 1992): blocks of consecutive
 * stretches are drawn with replacement, so that what is correlated in time stays together. The
 * length of a block is chosen by the rule of Politis and White (2004, corrected 2009). With several
 * sessions on a side the sessions are drawn first.
 */
#ifndef PM_COMPARE_MATCH_H
#define PM_COMPARE_MATCH_H

#include "compare/cells.h"

/* The tallies of one side, and which session each belongs to. */
struct pm_side {
    struct pm_tally **tallies;
    unsigned *sessions; /* 0, 1, … in order */
    unsigned n, n_sessions;
};

struct pm_match {
    struct pm_side sides[2];
    unsigned n_values;
    unsigned (*kind_of)(uint64_t key); /* classes of compositions, reported apart */
    const uint64_t *keys;              /* of the matched compositions */
    uint32_t n;                        /* of them */
    unsigned *kinds;
    /* Sums of the draw at hand, by side, composition and value. */
    double *sums[2], *counts[2];
    double block_sums[2][PM_BLOCK_SUMS];
    double *tails[2]; /* PM_TAIL_CLASSES of each value; NULL where percentiles are not counted */
    unsigned *lengths[2]; /* blocks' length of each tally, in its own blocks */
    double blocks[2];     /* independent blocks: of all tallies, blocks by length */
    uint64_t observations[2], matched[2];
    double matched_value[2]; /* of value 0, what the matched compositions took */
    double total_value[2];
    uint64_t *own_keys;
};

/* One quantity on both sides, of the draw at hand. */
struct pm_matched {
    double before, after; /* means; undefined where weight is 0 */
    double weight;        /* sum of the weights */
    double n[2];          /* matched observations */
};

#define PM_ALL_KINDS UINT32_MAX

/* Prepares: finds the common compositions, takes out what sizes explain, chooses block lengths and
 * makes the draw of everything once. The cells are changed. Release in any case. */
PM_MUST_USE int pm_match_make(struct pm_match *ret_match, const struct pm_side sides[2],
                              const struct pm_strata *strata, unsigned n_values,
                              unsigned (*kind_of)(uint64_t key));
void pm_match_release(struct pm_match *match);

/* Everything once; or a bootstrap draw. */
void pm_match_all(struct pm_match *match);
void pm_match_draw(struct pm_match *match, uint64_t *rng);

void pm_match_estimate(const struct pm_match *match, unsigned kind, unsigned value,
                       struct pm_matched *ret_matched);

/* A percentile of a value (q: 0.99) as it was on a side, all compositions together, ns; NAN where
 * none is counted. */
double pm_match_quantile(const struct pm_match *match, unsigned side, unsigned value, double q,
                         double *ret_n);

/* How many independent stretches of a side a quantity rests on: those blocks that have any of it,
 * by how much they have, divided by the draws' length. */
double pm_match_stretches(const struct pm_match *match, unsigned side, unsigned kind,
                          unsigned value);

/* Politis and White's length for the circular block bootstrap, at least 1 and at most n / 8. */
double pm_block_length(const double *values, unsigned n);

/* splitmix64: the same numbers on every machine. */
uint64_t pm_random(uint64_t *rng);
/* The two-sided 95 % point of Student's t. */
double pm_student_95(double degrees);

#endif
