/*
 * Histograms with base-2 exponential buckets (struct pm_hist): where a value goes, what a bucket
 * covers, quantiles, merging. Pure, any thread. All bounds are exact integers: bucket [1 + k] holds
 * the whole numbers v with 2^((k-1)/8) < v <= 2^(k/8), which are the buckets of a Prometheus native
 * histogram of schema 3.
 */
#ifndef PM_SESSION_HIST_H
#define PM_SESSION_HIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "session/layout.h"

/* floor(2^(63 + j/8)) for j = 0..7, and an end mark. */
#define PM_HIST_THRESHOLDS                                                                         \
    {                                                                                              \
        0x8000000000000000u, 0x8b95c1e3ea8bd6e6u, 0x9837f0518db8a96fu, 0xa5fed6a9b15138eau,        \
            0xb504f333f9de6484u, 0xc5672a115506daddu, 0xd744fccad69d6af4u, 0xeac0c6e7dd24392eu,    \
            UINT64_MAX                                                                             \
    }
extern const uint64_t pm_hist_thresholds[9];
/* For each 32nd of an octave, the first threshold at or above its beginning; no 32nd holds two. */
extern const uint8_t pm_hist_first[32];

/* The bucket of a value. */
static inline unsigned pm_hist_bucket(uint64_t value)
{
    if (value == 0)
        return 0;
    unsigned octave = 63u - (unsigned)__builtin_clzll(value);
    uint64_t scaled = value << (63u - octave);
    unsigned step = pm_hist_first[scaled >> 58 & 31u];
    step += scaled > pm_hist_thresholds[step];
    unsigned bucket = 1u + PM_HIST_SUB * octave + step;
    return bucket < PM_HIST_BUCKETS ? bucket : PM_HIST_BUCKETS - 1;
}

static inline void pm_hist_add(struct pm_hist *hist, uint64_t value)
{
    hist->buckets[pm_hist_bucket(value)]++;
}

/* The smallest and the largest whole number of a bucket, both inclusive. The last bucket's largest
 * is UINT64_MAX. A bucket of the first octaves that holds no whole number has lower > upper. */
uint64_t pm_hist_lower(unsigned bucket);
uint64_t pm_hist_upper(unsigned bucket);

/* How many values there are (saturating). */
uint64_t pm_hist_count(const struct pm_hist *hist);

/* Adds from's buckets to into's. */
void pm_hist_merge(struct pm_hist *into, const struct pm_hist *from);

/* No value of a quantile is further from the exact one than this share of it (2^(1/16) - 1), unless
 * it lies in the last bucket: that one has no upper end and gives its lower one. */
#define PM_HIST_QUANTILE_ERROR 0.04427378242741385

/* The q-quantile (0..1) by linear interpolation between the two nearest ranks, as NumPy's default,
 * each rank's value taken as the geometric middle of its bucket (kept to whole numbers where the
 * bucket is narrower than one). false and nothing written where the histogram is empty. */
bool pm_hist_quantile(const struct pm_hist *hist, double q, double *ret_value);

#endif
