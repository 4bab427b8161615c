/* Single values of the last seconds, for percentiles (see follow.h). */
#include "live/follow.h"

#include <stdlib.h>

/* The i-th, oldest first. */
static const struct pm_live_sample *at(const struct pm_live_samples *samples, size_t i)
{
    return &samples->rows[(samples->first + i) & (samples->capacity - 1)];
}

void pm_live_samples_add(struct pm_live_samples *samples, uint64_t at_ns, uint64_t value_ns,
                         uint32_t weight)
{
    if (weight == 0)
        return;
    if (samples->count == samples->capacity && samples->capacity < PM_LIVE_SAMPLES_MAX) {
        const size_t want = samples->capacity != 0 ? samples->capacity * 2 : 256;
        struct pm_live_sample *more = malloc(want * sizeof(*more));
        if (more != NULL) {
            for (size_t i = 0; i < samples->count; i++)
                more[i] = *at(samples, i);
            free(samples->rows);
            samples->rows = more;
            samples->capacity = want;
            samples->first = 0;
        }
    }
    if (samples->capacity == 0)
        return;
    if (samples->count == samples->capacity) { /* the oldest goes */
        samples->first = (samples->first + 1) & (samples->capacity - 1);
        samples->count--;
    }
    samples->rows[(samples->first + samples->count++) & (samples->capacity - 1)] =
        (struct pm_live_sample){.at_ns = at_ns, .value_ns = value_ns, .weight = weight};
}

void pm_live_samples_forget(struct pm_live_samples *samples, uint64_t before_ns)
{
    while (samples->count > 0 && at(samples, 0)->at_ns < before_ns) {
        samples->first = (samples->first + 1) & (samples->capacity - 1);
        samples->count--;
    }
}

void pm_live_samples_free(struct pm_live_samples *samples)
{
    free(samples->rows);
    *samples = (struct pm_live_samples){0};
}

static int by_value(const void *left, const void *right)
{
    const struct pm_live_sample *a = left, *b = right;
    return a->value_ns < b->value_ns ? -1 : a->value_ns > b->value_ns;
}

/* The value of rank n, from 0, each row standing for as many ranks as it weighs. */
static double value_of_rank(const struct pm_live_sample *rows, size_t count, uint64_t rank)
{
    uint64_t before = 0;
    for (size_t i = 0; i < count; i++) {
        before += rows[i].weight;
        if (rank < before)
            return (double)rows[i].value_ns;
    }
    return (double)rows[count - 1].value_ns;
}

static double quantile(const struct pm_live_sample *rows, size_t count, uint64_t total, double q)
{
    const double place = q * (double)(total - 1);
    const uint64_t below = (uint64_t)place;
    const double low = value_of_rank(rows, count, below);
    const double high = value_of_rank(rows, count, below + 1 < total ? below + 1 : below);
    return low + (high - low) * (place - (double)below);
}

void pm_live_samples_quantiles(const struct pm_live_samples *samples, uint64_t from_ns,
                               uint64_t to_ns, struct pm_live_quantiles *ret_quantiles)
{
    struct pm_live_sample *rows = malloc((samples->count + 1) * sizeof(*rows));
    size_t count = 0;
    uint64_t total = 0;
    double sum = 0;

    *ret_quantiles = (struct pm_live_quantiles){0};
    for (size_t i = 0; rows != NULL && i < samples->count; i++) {
        const struct pm_live_sample *row = at(samples, i);
        if (row->at_ns < from_ns || row->at_ns >= to_ns)
            continue;
        rows[count++] = *row;
        total += row->weight;
        sum += (double)row->value_ns * row->weight;
    }
    if (count > 0) {
        qsort(rows, count, sizeof(*rows), by_value);
        *ret_quantiles = (struct pm_live_quantiles){
            .count = total,
            .p50 = quantile(rows, count, total, 0.50),
            .p95 = quantile(rows, count, total, 0.95),
            .p99 = quantile(rows, count, total, 0.99),
            .mean = sum / (double)total,
        };
    }
    free(rows);
}
