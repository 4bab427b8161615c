/*
 * Statistics of durations (see samples.h).
 */
#include "view/samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "session/hist.h"

void pm_samples_init(struct pm_samples *ret_samples)
{
    memset(ret_samples, 0, sizeof(*ret_samples));
    ret_samples->exact = true;
    ret_samples->ceiling = PM_SAMPLES_MAX;
}

void pm_samples_release(struct pm_samples *samples)
{
    free(samples->held);
    free(samples->large);
    pm_samples_init(samples);
}

static void fold_one(struct pm_samples *samples, uint64_t value)
{
    const unsigned __int128 most = ~(unsigned __int128)0;
    const unsigned __int128 square = (unsigned __int128)value * value;
    if (samples->count == 0 || value < samples->min)
        samples->min = value;
    if (samples->count == 0 || value > samples->max)
        samples->max = value;
    samples->count++;
    samples->sum += value;
    samples->squares = samples->squares > most - square ? most : samples->squares + square;
    pm_hist_add(&samples->hist, value);
}

/* What is held goes into the running figures; the deviation's squares stay exact far beyond any
 * duration (2^60 ns squared, 2^8 of them, then cut at the top, never wrapped). */
static void fold(struct pm_samples *samples)
{
    for (size_t i = 0; i < samples->n_held; i++)
        fold_one(samples, samples->held[i]);
    for (size_t i = 0; i < samples->n_large; i++)
        fold_one(samples, samples->large[i]);
    samples->n_held = samples->n_large = 0;
    samples->exact = false;
}

/* Room for one more value of `bytes`, twice as many each time, up to `ceiling`. 0; 1: as many as
 * may be, or as there is memory for, are held; -PM_ENOMEM: there was none for the first. */
static int grow(void **values, size_t *capacity, size_t bytes, size_t ceiling)
{
    if (*capacity >= ceiling)
        return 1;
    size_t want = *capacity != 0 ? *capacity * 2 : 4096;
    if (want > ceiling)
        want = ceiling;
    void *more = realloc(*values, want * bytes);
    if (more == NULL)
        return *capacity == 0 ? -PM_ENOMEM : 1;
    *values = more;
    *capacity = want;
    return 0;
}

int pm_samples_add_slow(struct pm_samples *samples, uint64_t value_ns)
{
    const bool large = value_ns > UINT32_MAX;
    int rc = 0;
    if (large && samples->n_large == samples->large_capacity)
        rc = grow((void **)&samples->large, &samples->large_capacity, sizeof *samples->large,
                  samples->ceiling / 2);
    else if (!large && samples->n_held == samples->capacity)
        rc = grow((void **)&samples->held, &samples->capacity, sizeof *samples->held,
                  samples->ceiling);
    if (rc < 0)
        return rc;
    if (rc > 0)
        fold(samples);
    if (large)
        samples->large[samples->n_large++] = value_ns;
    else
        samples->held[samples->n_held++] = (uint32_t)value_ns;
    return 0;
}

/* Puts the k-th smallest in its place, everything smaller before it (Hoare's selection, with the
 * median of three; falls back on sorting where that goes badly). */
static int by_value(const void *left, const void *right)
{
    const uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static int by_large_value(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void swap(uint32_t *a, uint32_t *b)
{
    uint32_t t = *a;
    *a = *b;
    *b = t;
}

static void select_rank(uint32_t *values, size_t from, size_t to, size_t k)
{
    unsigned rounds = 0;
    while (to - from > 16) {
        if (++rounds > 100) {
            qsort(values + from, to - from, sizeof(*values), by_value);
            return;
        }
        size_t middle = from + (to - from) / 2;
        if (values[middle] < values[from])
            swap(&values[middle], &values[from]);
        if (values[to - 1] < values[from])
            swap(&values[to - 1], &values[from]);
        if (values[to - 1] < values[middle])
            swap(&values[to - 1], &values[middle]);
        const uint32_t pivot = values[middle];
        size_t i = from, j = to - 1;
        for (;;) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            swap(&values[i++], &values[j--]);
        }
        /* [from, j] <= pivot <= [j + 1, to); j + 1 > from and j + 1 < to, so both are smaller. */
        size_t cut = j + 1;
        if (cut >= to || cut <= from) {
            qsort(values + from, to - from, sizeof(*values), by_value);
            return;
        }
        if (k < cut)
            to = cut;
        else
            from = cut;
    }
    qsort(values + from, to - from, sizeof(*values), by_value);
}

/* The value of this rank, large ones being beyond all that are held. done: the ranks of `held`
 * below are in place. */
static double ranked(struct pm_samples *samples, size_t rank, size_t *done)
{
    if (rank >= samples->n_held)
        return (double)samples->large[rank - samples->n_held];
    select_rank(samples->held, *done, samples->n_held, rank);
    *done = rank;
    return samples->held[rank];
}

/* The next one up: the least of what lies above. */
static double next_up(struct pm_samples *samples, size_t rank)
{
    uint32_t *values = samples->held;
    if (rank >= samples->n_held)
        return (double)samples->large[rank - samples->n_held];
    size_t at = rank;
    for (size_t i = rank + 1; i < samples->n_held; i++)
        if (values[i] < values[at])
            at = i;
    swap(&values[rank], &values[at]);
    return values[rank];
}

/* NumPy's default: rank q (n - 1), linear between its neighbours. */
static double percentile(struct pm_samples *samples, double q, size_t *done)
{
    const size_t n = samples->n_held + samples->n_large;
    const double rank = q * (double)(n - 1);
    const size_t low = (size_t)rank;
    const double share = rank - (double)low, value = ranked(samples, low, done);

    if (low + 1 >= n || share <= 0.0)
        return value;
    return value + (next_up(samples, low + 1) - value) * share;
}

static void stats_held(struct pm_samples *samples, struct pm_stats *stats)
{
    const size_t n_held = samples->n_held, n_large = samples->n_large;
    unsigned __int128 sum = 0;
    uint64_t min = UINT64_MAX, max = 0;
    double squares = 0.0;
    size_t done = 0;

    if (n_large > 0)
        qsort(samples->large, n_large, sizeof *samples->large, by_large_value);
    for (size_t i = 0; i < n_held; i++) {
        const uint32_t value = samples->held[i];
        sum += value;
        min = value < min ? value : min;
        max = value > max ? value : max;
    }
    for (size_t i = 0; i < n_large; i++)
        sum += samples->large[i];
    if (n_large > 0) {
        max = samples->large[n_large - 1];
        min = n_held == 0 ? samples->large[0] : min;
    }
    stats->count = n_held + n_large;
    stats->mean = (double)sum / (double)stats->count;
    for (size_t i = 0; i < n_held; i++) {
        const double apart = (double)samples->held[i] - stats->mean;
        squares += apart * apart;
    }
    for (size_t i = 0; i < n_large; i++) {
        const double apart = (double)samples->large[i] - stats->mean;
        squares += apart * apart;
    }
    stats->std = sqrt(squares / (double)stats->count);
    stats->min = (double)min;
    stats->max = (double)max;
    stats->p50 = percentile(samples, 0.50, &done);
    stats->p90 = percentile(samples, 0.90, &done);
    stats->p95 = percentile(samples, 0.95, &done);
    stats->p99 = percentile(samples, 0.99, &done);
}

static void quantiles(const struct pm_hist *hist, struct pm_stats *stats)
{
    double value = 0.0;
    stats->p50 = pm_hist_quantile(hist, 0.50, &value) ? value : 0.0;
    stats->p90 = pm_hist_quantile(hist, 0.90, &value) ? value : 0.0;
    stats->p95 = pm_hist_quantile(hist, 0.95, &value) ? value : 0.0;
    stats->p99 = pm_hist_quantile(hist, 0.99, &value) ? value : 0.0;
}

void pm_samples_stats(struct pm_samples *samples, struct pm_stats *ret_stats)
{
    struct pm_stats stats = {.exact = samples->exact};

    if (samples->exact) {
        if (samples->n_held + samples->n_large > 0)
            stats_held(samples, &stats);
    } else {
        fold(samples);
        stats.count = samples->count;
        const double n = (double)samples->count;
        stats.mean = (double)samples->sum / n;
        const double spread = (double)samples->squares / n - stats.mean * stats.mean;
        stats.std = spread > 0.0 ? sqrt(spread) : 0.0;
        stats.min = (double)samples->min;
        stats.max = (double)samples->max;
        quantiles(&samples->hist, &stats);
    }
    *ret_stats = stats;
}

void pm_stats_from_hist(const struct pm_hist *hist, uint64_t sum, struct pm_stats *ret_stats)
{
    struct pm_stats stats = {.exact = false};
    struct pm_hist measured = *hist;
    double value = 0.0;

    measured.buckets[0] = 0;
    stats.count = pm_hist_count(&measured);
    if (stats.count > 0) {
        double squares = 0.0;
        stats.mean = (double)sum / (double)stats.count;
        for (unsigned i = 1; i < PM_HIST_BUCKETS; i++) {
            if (measured.buckets[i] == 0)
                continue;
            struct pm_hist one = {.buckets = {0}};
            one.buckets[i] = 1;
            const double middle = pm_hist_quantile(&one, 0.5, &value) ? value : 0.0;
            squares += (double)measured.buckets[i] * (middle - stats.mean) * (middle - stats.mean);
        }
        stats.std = sqrt(squares / (double)stats.count);
        stats.min = pm_hist_quantile(&measured, 0.0, &value) ? value : 0.0;
        stats.max = pm_hist_quantile(&measured, 1.0, &value) ? value : 0.0;
        quantiles(&measured, &stats);
    }
    *ret_stats = stats;
}
