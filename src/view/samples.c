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
    pm_samples_init(samples);
}

/* What is held goes into the running figures; the deviation's squares stay exact far beyond any
 * duration (2^60 ns squared, 2^8 of them, then cut at the top, never wrapped). */
static void fold(struct pm_samples *samples)
{
    const unsigned __int128 most = ~(unsigned __int128)0;

    for (size_t i = 0; i < samples->n_held; i++) {
        const uint64_t value = samples->held[i];
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
    samples->n_held = 0;
}

int pm_samples_add_slow(struct pm_samples *samples, uint64_t value_ns)
{
    if (samples->capacity < samples->ceiling) {
        size_t want = samples->capacity != 0 ? samples->capacity * 2 : 4096;
        if (want > samples->ceiling)
            want = samples->ceiling;
        uint64_t *more = realloc(samples->held, want * sizeof(*more));
        if (more != NULL) {
            samples->held = more;
            samples->capacity = want;
        } else if (samples->capacity == 0) {
            return -PM_ENOMEM;
        } else {
            samples->ceiling = samples->capacity; /* as many as there was memory for */
        }
    }
    if (samples->n_held == samples->capacity) {
        fold(samples);
        samples->exact = false;
    }
    samples->held[samples->n_held++] = value_ns;
    return 0;
}

/* Puts the k-th smallest in its place, everything smaller before it (Hoare's selection, with the
 * median of three; falls back on sorting where that goes badly). */
static int by_value(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t t = *a;
    *a = *b;
    *b = t;
}

static void select_rank(uint64_t *values, size_t from, size_t to, size_t k)
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
        const uint64_t pivot = values[middle];
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

/* NumPy's default: rank q (n - 1), linear between its neighbours. done: ranks below are in place.
 */
static double percentile(uint64_t *values, size_t n, double q, size_t *done)
{
    const double rank = q * (double)(n - 1);
    const size_t low = (size_t)rank;
    const double share = rank - (double)low;

    select_rank(values, *done, n, low);
    *done = low;
    if (low + 1 >= n || share <= 0.0)
        return (double)values[low];
    /* The next one up is the least of what lies above. */
    uint64_t next = values[low + 1];
    size_t at = low + 1;
    for (size_t i = low + 2; i < n; i++)
        if (values[i] < next) {
            next = values[i];
            at = i;
        }
    swap(&values[low + 1], &values[at]);
    return (double)values[low] + ((double)next - (double)values[low]) * share;
}

static void stats_held(struct pm_samples *samples, struct pm_stats *stats)
{
    uint64_t *values = samples->held;
    const size_t n = samples->n_held;
    unsigned __int128 sum = 0;
    uint64_t min = values[0], max = values[0];
    double squares = 0.0;
    size_t done = 0;

    for (size_t i = 0; i < n; i++) {
        sum += values[i];
        if (values[i] < min)
            min = values[i];
        if (values[i] > max)
            max = values[i];
    }
    stats->count = n;
    stats->mean = (double)sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        const double apart = (double)values[i] - stats->mean;
        squares += apart * apart;
    }
    stats->std = sqrt(squares / (double)n);
    stats->min = (double)min;
    stats->max = (double)max;
    stats->p50 = percentile(values, n, 0.50, &done);
    stats->p90 = percentile(values, n, 0.90, &done);
    stats->p95 = percentile(values, n, 0.95, &done);
    stats->p99 = percentile(values, n, 0.99, &done);
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
        if (samples->n_held > 0)
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
