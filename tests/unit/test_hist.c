/* Histogram buckets: every boundary against exact integer roots, quantiles against sorted samples.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "session/hist.h"

/* Whether value <= 2^(k/8), by value^8 <= 2^k in 512-bit arithmetic: an oracle that shares nothing
 * with the code under test. */
static bool at_most(uint64_t value, unsigned k)
{
    uint32_t product[17] = {1};
    for (int times = 0; times < 8; times++) {
        uint64_t low = value & 0xffffffffu, high = value >> 32;
        uint32_t next[19] = {0};
        for (int i = 0; i < 17; i++) {
            unsigned __int128 sum = (unsigned __int128)product[i] * low + next[i];
            next[i] = (uint32_t)sum;
            uint64_t carry = (uint64_t)(sum >> 32);
            for (int j = i + 1; carry != 0 && j < 19; j++) {
                carry += next[j];
                next[j] = (uint32_t)carry;
                carry >>= 32;
            }
            sum = (unsigned __int128)product[i] * high + next[i + 1];
            next[i + 1] = (uint32_t)sum;
            carry = (uint64_t)(sum >> 32);
            for (int j = i + 2; carry != 0 && j < 19; j++) {
                carry += next[j];
                next[j] = (uint32_t)carry;
                carry >>= 32;
            }
        }
        memcpy(product, next, sizeof product);
    }
    /* product <= 2^k */
    uint32_t limit[17] = {0};
    limit[k / 32] = 1u << k % 32;
    for (int i = 16; i >= 0; i--)
        if (product[i] != limit[i])
            return product[i] < limit[i];
    return true;
}

static unsigned slow_bucket(uint64_t value)
{
    if (value == 0)
        return 0;
    unsigned low = 0, high = 512;
    while (low < high) { /* smallest k with value <= 2^(k/8) */
        unsigned middle = (low + high) / 2;
        if (at_most(value, middle))
            high = middle;
        else
            low = middle + 1;
    }
    return low + 1 < PM_HIST_BUCKETS ? low + 1 : PM_HIST_BUCKETS - 1;
}

static void boundaries(void **state)
{
    (void)state;
    assert_int_equal(pm_hist_bucket(0), 0);
    assert_int_equal(pm_hist_bucket(1), 1);
    assert_int_equal(pm_hist_bucket(2), 9);
    assert_int_equal(pm_hist_bucket(3), 14);
    for (unsigned bucket = 1; bucket < PM_HIST_BUCKETS - 1; bucket++) {
        uint64_t upper = pm_hist_upper(bucket);
        assert_true(at_most(upper, bucket - 1));
        assert_false(at_most(upper + 1, bucket - 1));
        if (pm_hist_lower(bucket) > upper)
            continue; /* no whole number in it */
        assert_int_equal(pm_hist_bucket(upper), bucket);
        assert_int_equal(pm_hist_bucket(pm_hist_lower(bucket)), bucket);
        assert_true(pm_hist_bucket(upper + 1) > bucket);
        assert_true(pm_hist_lower(bucket) == pm_hist_upper(bucket - 1) + 1);
    }
    unsigned last = PM_HIST_BUCKETS - 1;
    assert_int_equal(pm_hist_bucket(pm_hist_upper(last - 1)), last - 1);
    assert_int_equal(pm_hist_bucket(pm_hist_upper(last - 1) + 1), last);
    assert_int_equal(pm_hist_bucket(UINT64_MAX), last);
    assert_true(pm_hist_upper(last) == UINT64_MAX && pm_hist_upper(last + 5) == UINT64_MAX);
    assert_true(pm_hist_lower(last + 5) == pm_hist_lower(last));
}

static uint64_t random_state = 88172645463325252u;
static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void against_oracle(void **state)
{
    (void)state;
    for (uint64_t value = 0; value < 3000; value++)
        assert_int_equal(pm_hist_bucket(value), slow_bucket(value));
    for (int shift = 0; shift < 64; shift++)
        for (int i = 0; i < 60; i++) {
            uint64_t value = random64() >> shift;
            assert_int_equal(pm_hist_bucket(value), slow_bucket(value));
        }
    for (int shift = 0; shift < 64; shift++)
        for (int64_t near = -2; near <= 2; near++) {
            uint64_t value = (1ull << shift) + (uint64_t)near;
            assert_int_equal(pm_hist_bucket(value), slow_bucket(value));
        }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void quantiles(void **state)
{
    (void)state;
    static const double qs[] = {0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
    static uint64_t values[2000];
    for (int round = 0; round < 40; round++) {
        struct pm_hist hist = {{0}};
        size_t n = 1 + random64() % 2000;
        for (size_t i = 0; i < n; i++) {
            values[i] = random64() >> (24 + random64() % 40);
            pm_hist_add(&hist, values[i]);
        }
        qsort(values, n, sizeof values[0], compare);
        assert_true(pm_hist_count(&hist) == n);
        for (size_t i = 0; i < sizeof qs / sizeof qs[0]; i++) {
            double position = qs[i] * (double)(n - 1), got = -1;
            size_t rank = (size_t)position;
            double share = position - (double)rank;
            double exact = (double)values[rank];
            if (share > 0)
                exact += ((double)values[rank + 1] - exact) * share;
            assert_true(pm_hist_quantile(&hist, qs[i], &got));
            double error = got > exact ? got - exact : exact - got;
            assert_true(error <= exact * PM_HIST_QUANTILE_ERROR * (1 + 1e-9));
        }
    }
}

static void quantile_edges(void **state)
{
    (void)state;
    struct pm_hist hist = {{0}};
    double value = 42;
    assert_false(pm_hist_quantile(&hist, 0.5, &value));
    assert_true(value == 42);
    pm_hist_add(&hist, 0);
    assert_true(pm_hist_quantile(&hist, 0.5, &value) && value == 0);
    pm_hist_add(&hist, 1);
    assert_true(pm_hist_quantile(&hist, 1, &value) && value == 1); /* whole numbers stay exact */
    assert_true(pm_hist_quantile(&hist, 0.5, &value) && value == 0.5);
    assert_true(pm_hist_quantile(&hist, -3, &value) && value == 0);
    assert_true(pm_hist_quantile(&hist, 7, &value) && value == 1);
    assert_true(pm_hist_quantile(&hist, __builtin_nan(""), &value) && value == 0);
    memset(&hist, 0, sizeof hist);
    pm_hist_add(&hist, UINT64_MAX);
    assert_true(pm_hist_quantile(&hist, 0.5, &value));
    assert_true(value == (double)pm_hist_lower(PM_HIST_BUCKETS - 1));
    hist.buckets[3] = UINT64_MAX; /* a damaged file: the count saturates, nothing breaks */
    assert_true(pm_hist_count(&hist) == UINT64_MAX);
    for (double q = 0; q <= 1; q += 0.125)
        assert_true(pm_hist_quantile(&hist, q, &value));
    /* so many that the last one's number is rounded up beyond them: the largest, all the same */
    memset(&hist, 0, sizeof hist);
    hist.buckets[1] = (1ull << 62) - 1;
    hist.buckets[5] = 1;
    assert_true(pm_hist_quantile(&hist, 1, &value) && value == (double)pm_hist_lower(5));
}

static void merging(void **state)
{
    (void)state;
    struct pm_hist a = {{0}}, b = {{0}}, both = {{0}};
    for (int i = 0; i < 1000; i++) {
        uint64_t value = random64() >> (random64() % 64);
        pm_hist_add(i % 3 ? &a : &b, value);
        pm_hist_add(&both, value);
    }
    pm_hist_merge(&a, &b);
    assert_memory_equal(&a, &both, sizeof a);
    a.buckets[7] = UINT64_MAX - 1;
    b.buckets[7] = 5;
    pm_hist_merge(&a, &b);
    assert_true(a.buckets[7] == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boundaries), cmocka_unit_test(against_oracle),
        cmocka_unit_test(quantiles),  cmocka_unit_test(quantile_edges),
        cmocka_unit_test(merging),
    };
    return cmocka_run_group_tests_name("hist", tests, NULL, NULL);
}
