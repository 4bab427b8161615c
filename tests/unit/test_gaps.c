/* Suffix maxima (base/gaps.h) against a walk over everything that was pushed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/gaps.h"

static uint64_t by_walk(const uint64_t *gaps, size_t n, size_t after)
{
    uint64_t most = 0;
    for (size_t at = after + 1; at < n; at++)
        most = gaps[at] > most ? gaps[at] : most;
    return most;
}

static void every_question_at_every_moment(void **state)
{
    static uint64_t pushed[400];
    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) {
        struct pm_gaps gaps = {0};
        srand(seed);
        for (size_t at = 0; at < 400; at++) {
            /* Few values, so that equal ones meet; now and then a large one. */
            pushed[at] =
                rand() % 50 == 0 ? 1000u + (unsigned)rand() % 9000u : (unsigned)rand() % 20u;
            pm_gaps_push(&gaps, at, pushed[at]);
            for (size_t after = 0; after <= at; after += 1 + (size_t)rand() % 7u)
                assert_int_equal(pm_gaps_since(&gaps, after), by_walk(pushed, at + 1, after));
        }
    }
}

static void nothing_pushed_is_nothing(void **state)
{
    const struct pm_gaps gaps = {0};
    (void)state;
    assert_int_equal(pm_gaps_since(&gaps, 0), 0);
}

static void more_falling_gaps_than_are_held(void **state)
{
    struct pm_gaps gaps = {0};
    (void)state;
    for (uint64_t at = 1; at <= 3 * PM_GAPS_MAX; at++)
        pm_gaps_push(&gaps, at, 1000000 - at);
    assert_int_equal(gaps.n, PM_GAPS_MAX);
    assert_int_equal(pm_gaps_since(&gaps, 0), 999999); /* the largest are never let go */
    assert_int_equal(pm_gaps_since(&gaps, 50), 999949);
    assert_int_equal(pm_gaps_since(&gaps, 3 * PM_GAPS_MAX - 1), 1000000 - 3 * PM_GAPS_MAX);
    pm_gaps_push(&gaps, 5000, 2000000);
    assert_int_equal(gaps.n, 1);
    assert_int_equal(pm_gaps_since(&gaps, 0), 2000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_question_at_every_moment),
        cmocka_unit_test(nothing_pushed_is_nothing),
        cmocka_unit_test(more_falling_gaps_than_are_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
