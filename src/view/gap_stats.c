/*
 * Statistics of times that many samples share: every request of a batch has the same time between
 * two outputs (see life.h). Pure.
 */
#include "view/life.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_BITS 16
#define COUNT_MAX ((1u << COUNT_BITS) - 1)
#define GAP_MAX (UINT64_MAX >> COUNT_BITS) /* 78 hours */

static uint64_t gap_of(uint64_t held)
{
    return held >> COUNT_BITS;
}

static uint64_t count_of(uint64_t held)
{
    return held & COUNT_MAX;
}

static int add(struct pm_gap_samples *gaps, uint64_t gap_ns, uint64_t count)
{
    if (gaps->n == gaps->capacity) {
        const size_t want = gaps->capacity != 0 ? gaps->capacity * 2 : 1024;
        void *more = realloc(gaps->held, want * sizeof(*gaps->held));
        if (more == NULL)
            return -PM_ENOMEM;
        gaps->held = more;
        gaps->capacity = want;
    }
    gaps->held[gaps->n++] = (gap_ns < GAP_MAX ? gap_ns : GAP_MAX) << COUNT_BITS | count;
    gaps->count += count;
    return 0;
}

int pm_gap_add(struct pm_gap_samples *gaps, uint64_t gap_ns, uint64_t count)
{
    int rc = 0;
    for (; count > COUNT_MAX && rc == 0; count -= COUNT_MAX)
        rc = add(gaps, gap_ns, COUNT_MAX);
    return rc == 0 && count > 0 ? add(gaps, gap_ns, count) : rc;
}

static int by_gap(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* The sample of a rank from 0; held is sorted. */
static double at_rank(const struct pm_gap_samples *gaps, uint64_t rank)
{
    uint64_t before = 0;
    for (size_t i = 0; i < gaps->n; i++) {
        before += count_of(gaps->held[i]);
        if (rank < before)
            return (double)gap_of(gaps->held[i]);
    }
    return (double)gap_of(gaps->held[gaps->n - 1]);
}

static double percentile(const struct pm_gap_samples *gaps, double q)
{
    const double rank = q * (double)(gaps->count - 1);
    const uint64_t low = (uint64_t)rank;
    const double value = at_rank(gaps, low);
    if (low + 1 >= gaps->count)
        return value;
    return value + (at_rank(gaps, low + 1) - value) * (rank - (double)low);
}

void pm_gap_stats(struct pm_gap_samples *gaps, struct pm_stats *ret_stats)
{
    struct pm_stats stats = {.count = gaps->count, .exact = true};
    double sum = 0.0, squares = 0.0;

    if (gaps->count > 0) {
        qsort(gaps->held, gaps->n, sizeof(*gaps->held), by_gap);
        for (size_t i = 0; i < gaps->n; i++)
            sum += (double)gap_of(gaps->held[i]) * (double)count_of(gaps->held[i]);
        stats.mean = sum / (double)gaps->count;
        for (size_t i = 0; i < gaps->n; i++) {
            const double apart = (double)gap_of(gaps->held[i]) - stats.mean;
            squares += apart * apart * (double)count_of(gaps->held[i]);
        }
        stats.std = sqrt(squares / (double)gaps->count);
        stats.min = (double)gap_of(gaps->held[0]);
        stats.max = (double)gap_of(gaps->held[gaps->n - 1]);
        stats.p50 = percentile(gaps, 0.50);
        stats.p90 = percentile(gaps, 0.90);
        stats.p95 = percentile(gaps, 0.95);
        stats.p99 = percentile(gaps, 0.99);
    }
    *ret_stats = stats;
}
