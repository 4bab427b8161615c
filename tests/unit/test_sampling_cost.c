/* What a sampling setting costs (view/sampling_cost.h), by strata that are made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "view/sampling_cost.h"

#define BIT(name) (1u << PM_SAMPLING_##name)
enum { WALL, EVENTS };

static struct pm_sampling_costs *begin(void)
{
    struct pm_sampling_costs *costs;
    assert_int_equal(pm_sampling_costs_open(&costs), 0);
    return costs;
}

static void put(struct pm_sampling_costs *costs, uint32_t bits, uint32_t requests, unsigned clock,
                uint64_t dur_ns, unsigned times)
{
    while (times-- > 0)
        assert_int_equal(pm_sampling_costs_add(costs, bits, requests, clock, dur_ns), 0);
}

static struct pm_sampling_cost told(struct pm_sampling_costs *costs, unsigned setting)
{
    struct pm_sampling_cost cost;
    pm_sampling_costs_tell(costs, setting, &cost);
    return cost;
}

static void a_setting_is_held_against_steps_alike_in_the_rest(void **state)
{
    struct pm_sampling_costs *costs = begin();
    (void)state;
    /* By hand: +100 at 2 requests (30 and 60 steps: weight 20), +400 at 8 (20 and 20: weight 10);
     * a dear batch of 64 that has no partner does not count. (20 * 100 + 10 * 400) / 30 = 200. */
    put(costs, BIT(TEMPERATURE), 2, WALL, 1000, 60);
    put(costs, BIT(TEMPERATURE) | BIT(TOP_P), 2, WALL, 1100, 30);
    put(costs, BIT(TEMPERATURE), 8, WALL, 2000, 20);
    put(costs, BIT(TEMPERATURE) | BIT(TOP_P), 8, WALL, 2400, 20);
    put(costs, BIT(TEMPERATURE) | BIT(TOP_P), 64, WALL, 90000, 500);
    pm_sampling_costs_settle(costs);
    const struct pm_sampling_cost cost = told(costs, PM_SAMPLING_TOP_P);
    assert_int_equal(cost.verdict, PM_SAMPLING_TOLD);
    assert_true(fabs(cost.cost_ns - 200) < 1e-9);
    assert_true(cost.error_ns < 1e-9);
    assert_int_equal(cost.with, 550);
    assert_int_equal(cost.without, 80);
    assert_int_equal(cost.matched_with, 50);
    assert_int_equal(cost.matched_without, 80);
    assert_int_equal(cost.together, BIT(TOP_P));
    assert_int_equal(told(costs, PM_SAMPLING_TEMPERATURE).verdict, PM_SAMPLING_ALWAYS);
    assert_int_equal(told(costs, PM_SAMPLING_MIN_P).verdict, PM_SAMPLING_NEVER);
    assert_int_equal(told(costs, PM_SAMPLING_MIN_P).together, BIT(MIN_P));
    pm_sampling_costs_close(costs);
}

static void drawing_is_held_against_greedy(void **state)
{
    struct pm_sampling_costs *costs = begin();
    (void)state;
    put(costs, BIT(GREEDY), 4, WALL, 500, 40);
    put(costs, BIT(TEMPERATURE), 4, WALL, 800, 40);
    put(costs, BIT(GREEDY) | BIT(TEMPERATURE), 4, WALL, 900, 40); /* both in one batch */
    pm_sampling_costs_settle(costs);
    const struct pm_sampling_cost cost = told(costs, PM_SAMPLING_TEMPERATURE);
    assert_int_equal(cost.verdict, PM_SAMPLING_TOLD);
    assert_true(fabs(cost.cost_ns - 350) < 1e-9); /* (300 + 400) / 2 */
    assert_int_equal(cost.matched_with, 80);
    assert_int_equal(cost.matched_without, 40);
    pm_sampling_costs_close(costs);
}

static void what_comes_and_goes_together_is_one(void **state)
{
    struct pm_sampling_costs *costs = begin();
    const uint32_t both = BIT(TOP_P) | BIT(TOP_K);
    (void)state;
    put(costs, BIT(TEMPERATURE), 4, WALL, 500, 40);
    put(costs, BIT(TEMPERATURE) | both, 4, WALL, 700, 40);
    pm_sampling_costs_settle(costs);
    for (unsigned i = 0; i < 2; i++) {
        const struct pm_sampling_cost cost =
            told(costs, i == 0 ? PM_SAMPLING_TOP_P : PM_SAMPLING_TOP_K);
        assert_int_equal(cost.verdict, PM_SAMPLING_TOLD);
        assert_int_equal(cost.together, both);
        assert_true(fabs(cost.cost_ns - 200) < 1e-9);
    }
    pm_sampling_costs_close(costs);
}

static void what_cannot_be_told_is_said_to_be_so(void **state)
{
    struct pm_sampling_costs *costs = begin();
    (void)state;
    /* logprobs only with 2 requests, none without at 2; penalties on another clock; min_p too
     * seldom. */
    put(costs, BIT(GREEDY), 16, WALL, 500, 100);
    put(costs, BIT(GREEDY) | BIT(LOGPROBS), 2, WALL, 500, 100);
    put(costs, BIT(GREEDY) | BIT(PENALTIES), 16, EVENTS, 50, 100);
    put(costs, BIT(GREEDY) | BIT(STRUCTURED), 16, WALL, 900, PM_SAMPLING_LEAST - 1);
    pm_sampling_costs_settle(costs);
    assert_int_equal(told(costs, PM_SAMPLING_LOGPROBS).verdict, PM_SAMPLING_UNLIKE);
    assert_int_equal(told(costs, PM_SAMPLING_PENALTIES).verdict, PM_SAMPLING_UNLIKE);
    assert_int_equal(told(costs, PM_SAMPLING_STRUCTURED).verdict, PM_SAMPLING_TOO_FEW);
    pm_sampling_costs_close(costs);
    costs = begin();
    pm_sampling_costs_settle(costs); /* no step at all */
    assert_int_equal(told(costs, PM_SAMPLING_LOGPROBS).verdict, PM_SAMPLING_NEVER);
    pm_sampling_costs_close(costs);
}

static void noise_without_a_difference_is_none(void **state)
{
    unsigned wrong = 0, missed = 0;
    (void)state;
    srand(7);
    for (unsigned round = 0; round < 200; round++) {
        struct pm_sampling_costs *costs = begin();
        for (unsigned i = 0; i < 400; i++) {
            const unsigned noise = (unsigned)rand() % 1000u;
            put(costs, BIT(GREEDY), 4, WALL, 5000 + noise, 1);
            put(costs, BIT(GREEDY) | BIT(LOGPROBS), 4, WALL, 5000 + (unsigned)rand() % 1000u, 1);
            put(costs, BIT(GREEDY) | BIT(PENALTIES), 4, WALL, 5400 + (unsigned)rand() % 1000u, 1);
        }
        pm_sampling_costs_settle(costs);
        wrong += told(costs, PM_SAMPLING_LOGPROBS).verdict != PM_SAMPLING_SMALL;
        const struct pm_sampling_cost cost = told(costs, PM_SAMPLING_PENALTIES);
        missed += cost.verdict != PM_SAMPLING_TOLD || fabs(cost.cost_ns - 400) > 2 * cost.error_ns;
        pm_sampling_costs_close(costs);
    }
    assert_in_range(wrong, 0, 24); /* 5 % of 200 are expected */
    assert_int_equal(missed, 0);
}

static void many_steps_and_many_strata_stay_small(void **state)
{
    struct pm_sampling_costs *costs = begin();
    (void)state;
    /* Evenly over the session: the second half is dearer, and the median knows. */
    for (unsigned i = 0; i < 100000; i++) {
        put(costs, BIT(GREEDY), 4, WALL, 1000, 1);
        put(costs, BIT(GREEDY) | BIT(LOGPROBS), 4, WALL, i < 40000 ? 1000 : 3000, 1);
    }
    for (uint32_t bits = 0; bits < 2 * PM_SAMPLING_STRATA_MAX; bits++)
        put(costs, bits, 1 + bits, EVENTS, 1, 1);
    pm_sampling_costs_settle(costs);
    assert_true(fabs(told(costs, PM_SAMPLING_LOGPROBS).cost_ns - 2000) < 1e-9);
    pm_sampling_costs_close(costs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_setting_is_held_against_steps_alike_in_the_rest),
        cmocka_unit_test(drawing_is_held_against_greedy),
        cmocka_unit_test(what_comes_and_goes_together_is_one),
        cmocka_unit_test(what_cannot_be_told_is_said_to_be_so),
        cmocka_unit_test(noise_without_a_difference_is_none),
        cmocka_unit_test(many_steps_and_many_strata_stay_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
