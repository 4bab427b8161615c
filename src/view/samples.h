/*
 * Durations of one phase: what a summary needs of them, exactly while they fit into memory, by
 * histogram beyond. Used by the views, one thread; owns its memory.
 */
#ifndef PM_VIEW_SAMPLES_H
#define PM_VIEW_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "session/layout.h"

#define PM_SAMPLES_MAX (32u << 20) /* held exactly: 128 MiB; more are only counted in buckets */

struct pm_samples {
    uint32_t *held; /* ns, those below 2^32, in order of arrival until pm_samples_stats */
    size_t n_held, capacity, ceiling;
    uint64_t *large; /* ns, the others */
    size_t n_large, large_capacity;
    bool exact; /* every sample is held */
    uint64_t count, min, max;
    unsigned __int128 sum, squares;
    struct pm_hist hist; /* of all, kept only when not exact */
};

/* What a summary shows, in ns. Undefined where count is 0. */
struct pm_stats {
    uint64_t count;
    double mean, std, min, max, p50, p90, p95, p99;
    bool exact; /* false: percentiles come from buckets, good to PM_HIST_QUANTILE_ERROR */
};

void pm_samples_init(struct pm_samples *ret_samples);
void pm_samples_release(struct pm_samples *samples);

PM_MUST_USE int pm_samples_add_slow(struct pm_samples *samples, uint64_t value_ns);

static inline int pm_samples_add(struct pm_samples *samples, uint64_t value_ns)
{
    if (__builtin_expect(samples->n_held == samples->capacity || value_ns > UINT32_MAX, 0))
        return pm_samples_add_slow(samples, value_ns);
    samples->held[samples->n_held++] = (uint32_t)value_ns;
    return 0;
}

/* Percentiles by linear interpolation between the two nearest ranks (NumPy's default), deviation
 * divided by n. Reorders what is held. */
void pm_samples_stats(struct pm_samples *samples, struct pm_stats *ret_stats);

/* The same from a histogram and an exact sum: mean exact, deviation, least, greatest and
 * percentiles by buckets. Values of 0 (the histogram's first bucket) count as not measured and are
 * left out. */
void pm_stats_from_hist(const struct pm_hist *hist, uint64_t sum, struct pm_stats *ret_stats);

#endif
