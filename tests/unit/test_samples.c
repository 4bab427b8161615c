/*
 * Statistics of durations against a plain computation over the sorted values, as NumPy defines
 * them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "session/hist.h"
#include "view/samples.h"

static int by_value(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static double plain_percentile(const uint64_t *sorted, size_t n, double q)
{
    const double rank = q * (double)(n - 1);
    const size_t low = (size_t)floor(rank);
    const size_t high = low + 1 < n ? low + 1 : low;
    return (double)sorted[low] +
           ((double)sorted[high] - (double)sorted[low]) * (rank - (double)low);
}

static void close_to(double a, double b, double share)
{
    if (fabs(a - b) > share * fabs(b) + 1e-9)
        fail_msg("%.17g is not %.17g", a, b);
}

static uint64_t draw(unsigned kind, uint64_t i, uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    const uint64_t r = *seed >> 33;
    switch (kind) {
    case 0:
        return r % 1000000;
    case 1:
        return i; /* sorted */
    case 2:
        return 1000000 - i; /* sorted backwards */
    case 3:
        return 42; /* all alike */
    case 4:
        return r % 3; /* few values */
    default:
        return 1ull << (r % 40);
    }
}

static void percentiles_are_numpys(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 10, 16, 17, 18, 100, 101, 1000, 20011};
    uint64_t seed = 1;
    (void)state;

    for (unsigned kind = 0; kind < 6; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            const size_t n = sizes[s];
            uint64_t *values = malloc(n * sizeof *values);
            struct pm_samples samples;
            struct pm_stats stats;
            double mean = 0, spread = 0;
            pm_samples_init(&samples);
            for (size_t i = 0; i < n; i++) {
                values[i] = draw(kind, i, &seed);
                mean += (double)values[i] / (double)n;
                assert_int_equal(pm_samples_add(&samples, values[i]), 0);
            }
            for (size_t i = 0; i < n; i++)
                spread += ((double)values[i] - mean) * ((double)values[i] - mean) / (double)n;
            qsort(values, n, sizeof *values, by_value);
            pm_samples_stats(&samples, &stats);
            assert_true(stats.exact);
            assert_int_equal(stats.count, n);
            close_to(stats.mean, mean, 1e-9);
            close_to(stats.std, sqrt(spread), 1e-6);
            assert_true(stats.min == (double)values[0] && stats.max == (double)values[n - 1]);
            close_to(stats.p50, plain_percentile(values, n, 0.50), 1e-12);
            close_to(stats.p90, plain_percentile(values, n, 0.90), 1e-12);
            close_to(stats.p95, plain_percentile(values, n, 0.95), 1e-12);
            close_to(stats.p99, plain_percentile(values, n, 0.99), 1e-12);
            pm_samples_release(&samples);
            free(values);
        }
}

/* np.percentile([15, 20, 35, 40, 50], [50, 90, 95, 99]) and np.std of them. */
static void a_known_case(void **state)
{
    static const uint64_t values[] = {35, 15, 50, 20, 40};
    struct pm_samples samples;
    struct pm_stats stats;
    (void)state;

    pm_samples_init(&samples);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(pm_samples_add(&samples, values[i]), 0);
    pm_samples_stats(&samples, &stats);
    close_to(stats.p50, 35.0, 1e-12);
    close_to(stats.p90, 46.0, 1e-12);
    close_to(stats.p95, 48.0, 1e-12);
    close_to(stats.p99, 49.6, 1e-12);
    close_to(stats.mean, 32.0, 1e-12);
    close_to(stats.std, 12.884098726725126, 1e-12);
    pm_samples_release(&samples);
}

static void beyond_the_ceiling_by_buckets(void **state)
{
    struct pm_samples some, all;
    struct pm_stats by_buckets, exact;
    uint64_t seed = 7;
    (void)state;

    pm_samples_init(&some);
    pm_samples_init(&all);
    some.ceiling = 1000;
    for (size_t i = 0; i < 50000; i++) {
        const uint64_t value = 1000000 + draw(0, i, &seed);
        assert_int_equal(pm_samples_add(&some, value), 0);
        assert_int_equal(pm_samples_add(&all, value), 0);
    }
    pm_samples_stats(&some, &by_buckets);
    pm_samples_stats(&all, &exact);
    assert_false(by_buckets.exact);
    assert_int_equal(by_buckets.count, exact.count);
    close_to(by_buckets.mean, exact.mean, 1e-12);
    close_to(by_buckets.std, exact.std, 1e-6);
    assert_true(by_buckets.min == exact.min && by_buckets.max == exact.max);
    close_to(by_buckets.p50, exact.p50, PM_HIST_QUANTILE_ERROR);
    close_to(by_buckets.p99, exact.p99, PM_HIST_QUANTILE_ERROR);
    pm_samples_release(&some);
    pm_samples_release(&all);
}

static void a_histogram_leaves_zeros_out(void **state)
{
    struct pm_hist hist = {.buckets = {0}};
    struct pm_stats stats;
    uint64_t sum = 0;
    (void)state;

    pm_stats_from_hist(&hist, 0, &stats);
    assert_int_equal(stats.count, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        pm_hist_add(&hist, i % 2 == 0 ? 0 : 1000 + i);
        sum += i % 2 == 0 ? 0 : 1000 + i;
    }
    pm_stats_from_hist(&hist, sum, &stats);
    assert_int_equal(stats.count, 500);
    close_to(stats.mean, 1500.0, 1e-12);
    close_to(stats.min, 1001.0, PM_HIST_QUANTILE_ERROR);
    close_to(stats.max, 1999.0, PM_HIST_QUANTILE_ERROR);
    close_to(stats.p50, 1500.0, PM_HIST_QUANTILE_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_numpys),
        cmocka_unit_test(a_known_case),
        cmocka_unit_test(beyond_the_ceiling_by_buckets),
        cmocka_unit_test(a_histogram_leaves_zeros_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
