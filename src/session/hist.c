/*
 * Histograms (see hist.h). Pure; no libm, since the extension links libc only.
 */
#include "session/hist.h"

const uint64_t pm_hist_thresholds[9] = PM_HIST_THRESHOLDS;

const uint8_t pm_hist_first[32] = {0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5,
                                   5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8};

uint64_t pm_hist_upper(unsigned bucket)
{
    if (bucket == 0)
        return 0;
    if (bucket >= PM_HIST_BUCKETS - 1)
        return UINT64_MAX;
    unsigned k = bucket - 1;
    return pm_hist_thresholds[k % PM_HIST_SUB] >> (63u - k / PM_HIST_SUB);
}

uint64_t pm_hist_lower(unsigned bucket)
{
    if (bucket == 0)
        return 0;
    if (bucket >= PM_HIST_BUCKETS)
        bucket = PM_HIST_BUCKETS - 1;
    return pm_hist_upper(bucket - 1) + 1;
}

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

uint64_t pm_hist_count(const struct pm_hist *hist)
{
    uint64_t count = 0;
    for (size_t i = 0; i < PM_HIST_BUCKETS; i++)
        count = add_saturating(count, hist->buckets[i]);
    return count;
}

void pm_hist_merge(struct pm_hist *into, const struct pm_hist *from)
{
    for (size_t i = 0; i < PM_HIST_BUCKETS; i++)
        into->buckets[i] = add_saturating(into->buckets[i], from->buckets[i]);
}

/* 2^((k - 1/2)/8), kept within the whole numbers of the bucket. */
static double middle(unsigned bucket)
{
    static const double eighths[PM_HIST_SUB] = {0.95760328069857364694, 1.0442737824274138403,
                                                1.1387886347566916537,  1.2418578120734840486,
                                                1.3542555469368927283,  1.4768261459394993114,
                                                1.6104903319492543082,  1.7562521603732994831};
    if (bucket == 0)
        return 0.0;
    double lower = (double)pm_hist_lower(bucket), upper = (double)pm_hist_upper(bucket);
    if (bucket == PM_HIST_BUCKETS - 1)
        return lower;
    unsigned k = bucket - 1;
    double value = eighths[k % PM_HIST_SUB] * (double)(1ull << k / PM_HIST_SUB);
    return value < lower ? lower : value > upper ? upper : value;
}

/* The middle of the bucket in which the value of this rank (from 0) lies. */
static double ranked(const struct pm_hist *hist, uint64_t rank)
{
    uint64_t below = 0;
    unsigned last = 0;
    for (unsigned i = 0; i < PM_HIST_BUCKETS; i++) {
        if (hist->buckets[i] == 0)
            continue;
        last = i;
        below = add_saturating(below, hist->buckets[i]);
        if (rank < below)
            break;
    }
    return middle(last);
}

bool pm_hist_quantile(const struct pm_hist *hist, double q, double *ret_value)
{
    uint64_t count = pm_hist_count(hist);
    if (count == 0)
        return false;
    if (!(q > 0.0)) /* also what is no number */
        q = 0.0;
    if (q > 1.0)
        q = 1.0;
    double position = q * (double)(count - 1);
    /* (double)(count - 1) may round up to 2^64 */
    uint64_t rank = position >= 0x1p63 ? count - 1 : (uint64_t)position;
    if (rank > count - 1)
        rank = count - 1;
    double share = position >= 0x1p53 ? 0.0 : position - (double)rank;
    double low = ranked(hist, rank);
    double high = share > 0.0 ? ranked(hist, rank + 1) : low;
    *ret_value = low + (high - low) * share;
    return true;
}
