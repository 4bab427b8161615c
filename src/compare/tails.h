/*
 * How often a stretch of time saw each duration, for percentiles: counts by class of duration, 64
 * classes per doubling, sparse. Used by cells.c and the estimator, one thread; a block owns its
 * own.
 *
 * A percentile is read off the counts with a straight line within its class, so that it is within
 * 1.6 % of the duration at its rank (and mostly much nearer).
 */
#ifndef PM_COMPARE_TAILS_H
#define PM_COMPARE_TAILS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_TAIL_VALUES 10 /* as PM_CELL_VALUES */
/* Of durations in us: those below 64 by themselves, then 64 classes for each of 34 doublings. */
#define PM_TAIL_CLASSES (64 + 34 * 64)

struct pm_tail {
    uint32_t key; /* value * PM_TAIL_CLASSES + class */
    uint32_t n;
};
struct pm_tails {
    struct pm_tail *rows; /* by key, ascending */
    uint32_t n, capacity;
};

void pm_tails_release(struct pm_tails *tails);
PM_MUST_USE int pm_tails_add(struct pm_tails *tails, unsigned value, double ns);
/* Adds all of from to into. */
PM_MUST_USE int pm_tails_merge(struct pm_tails *into, const struct pm_tails *from);
/* Adds them so many times to a full table of PM_TAIL_VALUES * PM_TAIL_CLASSES. */
void pm_tails_spread(const struct pm_tails *tails, double times, double *table);
/* The duration, ns, that a share q of those counted in a value's PM_TAIL_CLASSES do not exceed;
 * NAN of none. ret_n: how many are counted. */
double pm_tails_quantile(const double *classes, double q, double *ret_n);

#endif
