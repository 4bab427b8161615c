/*
 * What the page of a report is told of long sessions: rows that become buckets without losing an
 * extreme, percentiles, and which requests are kept. Room html.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "html/chosen.h"
#include "html/spread.h"
#include "html/thin.h"

static uint64_t state = 88172645463325252ull;
static uint64_t noise(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- thin ---- */

enum { TOOK, COUNT, COLUMNS };
static const struct pm_thin_column columns[COLUMNS] = {
    [TOOK] = {"took", PM_THIN_ROW | PM_THIN_SUM | PM_THIN_MIN | PM_THIN_MAX | PM_THIN_NS},
    [COUNT] = {"count", PM_THIN_ROW | PM_THIN_SUM},
};

static char *json_of(const struct pm_thin *thin)
{
    struct pm_json json;
    struct pm_buf buf;
    pm_buf_init(&buf, 16u << 20);
    pm_json_init(&json, &buf, 0);
    pm_thin_json(&json, thin);
    assert_int_equal(pm_json_finish(&json), 0);
    char *text = strdup(pm_buf_text(&buf));
    pm_buf_release(&buf);
    return text;
}

static void test_few_rows_stay_rows(void **unused)
{
    struct pm_thin thin;
    (void)unused;
    pm_thin_init(&thin, columns, COLUMNS, TOOK, 1000000, 10);
    assert_int_equal(pm_thin_add(&thin, 6000000, (uint64_t[]){2500, 3}), 0);
    assert_int_equal(pm_thin_add(&thin, 5000000, (uint64_t[]){1499, 4}), 0); /* out of order */
    char *text = json_of(&thin);
    assert_string_equal(text,
                        "{\"exact\":true,\"rows\":2,\"t\":[4000,1000],\"cols\":{\"took\":[1,3],"
                        "\"count\":[4,3]}}\n");
    free(text);
    pm_thin_release(&thin);
}

/* Sums, the least and the greatest of all rows are those of all buckets; the greatest are held as
 * they were. */
static void test_many_rows_lose_no_extreme(void **unused)
{
    const uint64_t rows = 300000;
    uint64_t sum = 0, counted = 0, min = UINT64_MAX, max = 0, at = 5000000000ull, second = 0;
    struct pm_thin thin;
    (void)unused;
    pm_thin_init(&thin, columns, COLUMNS, TOOK, 0, 1000);
    for (uint64_t i = 0; i < rows; i++) {
        const uint64_t took = i == 123456 ? 999999999 : i == 200000 ? 7 : 1000 + noise() % 100000;
        at += i == 250000 ? 3600000000000ull : noise() % 10000000; /* an hour of nothing */
        assert_int_equal(pm_thin_add(&thin, at, (uint64_t[]){took, i}), 0);
        sum += took;
        min = took < min ? took : min;
        if (took > max) {
            second = max;
            max = took;
        } else if (took > second) {
            second = took;
        }
    }
    assert_null(thin.held);
    assert_true(thin.used <= PM_THIN_BUCKETS);
    uint64_t found = 0, least = UINT64_MAX, greatest = 0, n = 0;
    for (size_t i = 0; i < thin.used; i++) {
        const struct pm_thin_bucket *bucket = &thin.buckets[i];
        if (bucket->count == 0)
            continue;
        n += bucket->count;
        found += bucket->sum[TOOK];
        counted += bucket->sum[COUNT];
        least = bucket->min[TOOK] < least ? bucket->min[TOOK] : least;
        greatest = bucket->max[TOOK] > greatest ? bucket->max[TOOK] : greatest;
    }
    assert_int_equal(n, rows);
    assert_int_equal(found, sum);
    assert_int_equal(counted, rows * (rows - 1) / 2);
    assert_int_equal(least, min);
    assert_int_equal(greatest, max);
    assert_int_equal(thin.n_top, PM_THIN_TOP);
    uint64_t top = 0, next = 0;
    for (size_t i = 0; i < thin.n_top; i++) {
        if (thin.top[i].values[TOOK] > top) {
            next = top;
            top = thin.top[i].values[TOOK];
        } else if (thin.top[i].values[TOOK] > next) {
            next = thin.top[i].values[TOOK];
        }
    }
    assert_int_equal(top, max);
    assert_int_equal(next, second);
    char *text = json_of(&thin);
    assert_non_null(strstr(text, "\"exact\":false,\"rows\":300000,"));
    assert_non_null(strstr(text, "\"top\":{\"t\":["));
    free(text);
    pm_thin_release(&thin);
}

/* A time before the first one, as clocks of two processes may give, is not lost. */
static void test_a_row_before_the_first_bucket(void **unused)
{
    struct pm_thin thin;
    (void)unused;
    pm_thin_init(&thin, columns, COLUMNS, -1, 0, 2);
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(pm_thin_add(&thin, 1000000 * (i + 2), (uint64_t[]){1, 1}), 0);
    assert_int_equal(pm_thin_add(&thin, 1, (uint64_t[]){1, 1}), 0);
    uint64_t n = 0;
    for (size_t i = 0; i < thin.used; i++)
        n += thin.buckets[i].count;
    assert_int_equal(n, 6);
    assert_null(thin.top);
    pm_thin_release(&thin);
}

/* ---- spread ---- */

static void near(double value, double wanted, double slack)
{
    if (!(fabs(value - wanted) <= slack))
        fail_msg("%.17g is not %.17g", value, wanted);
}

static double member(const char *text, const char *key)
{
    const char *found = strstr(text, key);
    assert_non_null(found);
    return strtod(found + strlen(key), NULL);
}

static char *spread_json(struct pm_spread *spread)
{
    struct pm_json json;
    struct pm_buf buf;
    pm_buf_init(&buf, 1u << 20);
    pm_json_init(&json, &buf, 0);
    pm_spread_json(&json, spread);
    assert_int_equal(pm_json_finish(&json), 0);
    char *text = strdup(pm_buf_text(&buf));
    pm_buf_release(&buf);
    return text;
}

static void test_percentiles_of_what_fits_are_exact(void **unused)
{
    struct pm_spread spread;
    (void)unused;
    pm_spread_init(&spread);
    char *text = spread_json(&spread);
    assert_string_equal(text, "null\n");
    free(text);
    for (uint64_t i = 1000; i > 0; i--) /* 1 to 1000 us, each thrice */
        assert_int_equal(pm_spread_add(&spread, i * 1000, 3), 0);
    text = spread_json(&spread);
    /* NumPy: percentile(repeat(arange(1, 1001), 3), [50, 90, 99, 99.9]) */
    near(member(text, "\"p50\":"), 500.5, 0.06);
    near(member(text, "\"p90\":"), 900.1, 0.1001);
    near(member(text, "\"p99\":"), 990.0, 1.0);
    near(member(text, "\"max\":"), 1000, 0.01);
    near(member(text, "\"mean\":"), 500.5, 0.06);
    assert_non_null(strstr(text, "\"count\":3000,\"exact\":true"));
    free(text);
    pm_spread_release(&spread);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_percentiles_of_many_are_near(void **unused)
{
    const size_t n = PM_SPREAD_HELD + 50000;
    uint64_t *all = malloc(n * sizeof(*all));
    struct pm_spread spread;
    (void)unused;
    assert_non_null(all);
    pm_spread_init(&spread);
    for (size_t i = 0; i < n; i++) {
        all[i] = 1ull << noise() % 34; /* from a nanosecond to 17 s */
        all[i] += noise() % all[i];
        assert_int_equal(pm_spread_add(&spread, all[i], 1), 0);
    }
    qsort(all, n, sizeof(*all), by_value);
    char *text = spread_json(&spread);
    assert_non_null(strstr(text, "\"exact\":false"));
    static const struct {
        const char *key;
        double q;
    } wanted[] = {{"\"p50\":", .5}, {"\"p90\":", .9}, {"\"p99\":", .99}, {"\"p999\":", .999}};
    for (size_t i = 0; i < 4; i++) {
        const double exact = (double)all[(size_t)(wanted[i].q * (double)(n - 1))] / 1e3;
        near(member(text, wanted[i].key), exact, exact * 0.004 + 0.06);
    }
    near(member(text, "\"max\":"), (double)all[n - 1] / 1e3, 0.06);
    free(text);
    free(all);
    pm_spread_release(&spread);
}

/* ---- chosen ---- */

static struct pm_request request_of(uint64_t i)
{
    struct pm_request request = {.fact = {.state = PM_REQUEST_STATE_FINISHED}};
    snprintf(request.id, sizeof(request.id), "r%llu", (unsigned long long)i);
    request.fact.output_tokens = 10;
    request.fact.ttft_ns = 1000 + noise() % 1000;
    request.fact.tpot_ns = 1000 + noise() % 1000;
    request.fact.longest_gap_ns = 1000 + noise() % 1000;
    request.fact.e2e_ns = 1000 + noise() % 1000;
    return request;
}

static void test_few_requests_are_all_kept(void **unused)
{
    const struct pm_away away[] = {{5, 9}, {12, 0}};
    struct pm_chosen chosen = {0};
    struct pm_chosen_row **rows;
    size_t n;
    (void)unused;
    for (uint64_t i = 0; i < PM_CHOSEN_ALL; i++) {
        const struct pm_request request = request_of(i);
        assert_int_equal(pm_chosen_add(&chosen, &request, away, i == 7 ? 2 : 0), 0);
    }
    assert_int_equal(pm_chosen_list(&chosen, &rows, &n), 0);
    assert_int_equal(n, PM_CHOSEN_ALL);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(strtoull(rows[i]->id + 1, NULL, 10), i);
    assert_int_equal(rows[7]->n_away, 2);
    assert_int_equal(rows[7]->away[1].from_ns, 12);
    free(rows);
    pm_chosen_release(&chosen);
}

static void test_of_many_requests_the_worst_are_kept(void **unused)
{
    struct pm_chosen chosen = {0};
    struct pm_chosen_row **rows;
    size_t n, worst = 0;
    (void)unused;
    for (uint64_t i = 0; i < 200000; i++) {
        struct pm_request request = request_of(i);
        if (i % 1000 == 3) /* 200 that stand out, one by each measure in turn */
            *(uint64_t *[]){&request.fact.ttft_ns, &request.fact.tpot_ns,
                            &request.fact.longest_gap_ns, &request.fact.e2e_ns}[i / 1000 % 4] =
                1000000 + i;
        assert_int_equal(pm_chosen_add(&chosen, &request, NULL, 0), 0);
    }
    assert_int_equal(pm_chosen_list(&chosen, &rows, &n), 0);
    assert_true(n <= PM_CHOSEN_SAMPLE + PM_CHOSEN_MEASURES * PM_CHOSEN_WORST);
    assert_true(chosen.n_sample >= PM_CHOSEN_SAMPLE / 2);
    for (size_t i = 0; i < n; i++) {
        const uint64_t number = strtoull(rows[i]->id + 1, NULL, 10);
        worst += number % 1000 == 3;
        assert_int_equal(number, rows[i]->ordinal);
        assert_true(i == 0 || rows[i - 1]->ordinal < rows[i]->ordinal);
    }
    assert_int_equal(worst, 200);
    free(rows);
    pm_chosen_release(&chosen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_rows_stay_rows),
        cmocka_unit_test(test_many_rows_lose_no_extreme),
        cmocka_unit_test(test_a_row_before_the_first_bucket),
        cmocka_unit_test(test_percentiles_of_what_fits_are_exact),
        cmocka_unit_test(test_percentiles_of_many_are_near),
        cmocka_unit_test(test_few_requests_are_all_kept),
        cmocka_unit_test(test_of_many_requests_the_worst_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
