/*
 * The comparison of two sessions: no alarm where nothing changed, the right one where something
 * did, and none for a changed load.
 */
#include "compare_world.h"

#define LONG 120000u /* steps of the long session */
#define BLOCK 400u   /* resampled at a time: far longer than most of the noise */
#define BLOCKS 12u   /* of a session: 4800 steps, half a minute */
#define PAIRS 100u

static const struct pm_compare_options quick = {.min_change = 0.01, .resamples = 200, .seed = 7};

static struct world_step *make_long(uint64_t seed, double load, size_t n)
{
    struct world world;
    struct world_step *steps = malloc(n * sizeof(*steps));
    assert_non_null(steps);
    world_init(&world, seed, load);
    for (size_t i = 0; i < n; i++)
        world_next(&world, &steps[i].step, &steps[i].beside);
    return steps;
}

static void pick(uint64_t *rng, size_t order[BLOCKS])
{
    for (unsigned i = 0; i < BLOCKS; i++)
        order[i] = pm_random(rng) % (LONG - BLOCK);
}

/* Compares two resampled sessions; slow changes those after. */
static void compare_pair(const struct world_step *before, const struct world_step *after,
                         uint64_t *rng, void (*slow)(struct pm_step *step),
                         const struct pm_compare_options *how, struct pm_comparison *ret)
{
    struct pm_compare_input *input;
    size_t order[BLOCKS];

    assert_int_equal(pm_compare_begin(&input), 0);
    pick(rng, order);
    world_session(input, 0, "before", before, order, BLOCKS, BLOCK, NULL);
    pick(rng, order);
    world_session(input, 1, "after", after, order, BLOCKS, BLOCK, slow);
    assert_int_equal(pm_compare_end(input, how, ret), 0);
    pm_compare_free(input);
}

static void test_same_load_gives_no_alarm(void **state)
{
    struct world_step *steps = make_long(1, 12, LONG);
    uint64_t rng = 42;
    unsigned alarms = 0, misses[PM_WORK_KINDS] = {0};

    (void)state;
    for (unsigned pair = 0; pair < PAIRS; pair++) {
        struct pm_comparison all;
        compare_pair(steps, steps, &rng, NULL, &quick, &all);
        assert_true(all.comparable);
        assert_true(all.matched_share[0] > 0.9 && all.matched_share[1] > 0.9);
        alarms += all.slower > 0;
        for (unsigned k = 0; k < PM_WORK_KINDS; k++) {
            const struct pm_change *change = &all.steps[k][PM_STEP_STEP];
            assert_true(change->known);
            misses[k] += change->low > 0 || change->high < 0;
        }
        pm_comparison_release(&all);
    }
    print_message("false alarms: %u of %u; intervals that miss: decode %u, prefill %u, mixed %u\n",
                  alarms, PAIRS, misses[0], misses[1], misses[2]);
    assert_true(alarms <= 5);
    for (unsigned k = 0; k < PM_WORK_KINDS; k++)
        assert_true(misses[k] <= 12);
    free(steps);
}

/* Without the smallest change that is ever named, it is the intervals alone that hold. */
static void test_intervals_alone_hold(void **state)
{
    const struct pm_compare_options bare = {.min_change = 0, .resamples = 200, .seed = 7};
    struct world_step *steps = make_long(2, 12, LONG);
    uint64_t rng = 43;
    unsigned alarms = 0;

    (void)state;
    for (unsigned pair = 0; pair < PAIRS; pair++) {
        struct pm_comparison all;
        compare_pair(steps, steps, &rng, NULL, &bare, &all);
        alarms += all.slower > 0 || all.faster > 0;
        pm_comparison_release(&all);
    }
    print_message("without a least change: %u of %u\n", alarms, PAIRS);
    assert_true(alarms <= 15);
    free(steps);
}

static void slow_sample(struct pm_step *step)
{
    step->sample_ns += step->sample_ns / 20;
}

static void slow_model(struct pm_step *step)
{
    step->model_ns += step->model_ns / 20;
    step->forward_ns = step->model_ns;
}

static void slow_schedule(struct pm_step *step)
{
    step->sched_ns *= 3;
}

/* The parts called slower, as bits. */
static unsigned called(const struct pm_comparison *all, enum pm_change_verdict verdict)
{
    unsigned bits = 0;
    for (unsigned k = 0; k < PM_WORK_KINDS; k++)
        for (unsigned v = 1; v < PM_STEP_VALUES; v++)
            if (all->steps[k][v].verdict == verdict)
                bits |= 1u << v;
    return bits;
}

static void test_a_slower_part_is_named_and_no_other(void **state)
{
    static const struct {
        void (*slow)(struct pm_step *step);
        unsigned part;
        double by;
    } cases[] = {
        {slow_model, PM_STEP_MODEL, 0.05},
        {slow_sample, PM_STEP_SAMPLE, 0.05},
        {slow_schedule, PM_STEP_SCHEDULE, 2.0},
    };
    struct world_step *steps = make_long(3, 12, LONG);
    uint64_t rng = 44;

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
        unsigned named = 0, others = 0;
        for (unsigned pair = 0; pair < 20; pair++) {
            struct pm_comparison all;
            /* 5 % of the sampling is 0.35 % of a step: too little for a name, so it is a share of
             * a faster model here. */
            compare_pair(steps, steps, &rng, cases[c].slow, &quick, &all);
            const struct pm_change *change = &all.steps[PM_WORK_DECODE][cases[c].part];
            const unsigned bits = called(&all, PM_CHANGE_SLOWER) | called(&all, PM_CHANGE_SLIGHT);
            assert_true(fabs(change->change - cases[c].by) < 0.03);
            named += change->certain;
            others += (bits & ~(1u << cases[c].part)) != 0;
            if (cases[c].part != PM_STEP_SAMPLE && change->certain)
                assert_int_equal(change->verdict, PM_CHANGE_SLOWER);
            pm_comparison_release(&all);
        }
        print_message("slower %zu: named %u of 20, others in %u\n", c, named, others);
        assert_true(named >= 18);
        assert_true(others <= 2);
    }
    free(steps);
}

static void test_the_named_come_costliest_first(void **state)
{
    struct world_step *steps = make_long(3, 12, LONG);
    struct pm_named_change named[PM_NAMED_MAX];
    struct pm_comparison all;
    uint64_t rng = 45;

    (void)state;
    compare_pair(steps, steps, &rng, slow_model, &quick, &all);
    const unsigned n = pm_compare_named(&all, PM_CHANGE_SLOWER, named);
    assert_true(n >= 1);
    assert_string_equal(named[0].key, "model");
    assert_int_equal(named[0].kind, PM_WORK_DECODE);
    for (unsigned i = 1; i < n; i++)
        assert_true(named[i].change->cost_ns <= named[i - 1].change->cost_ns);
    assert_true(pm_compare_worst(&all) > 0.035 && pm_compare_worst(&all) < 0.08);
    pm_comparison_release(&all);
    free(steps);
}

static void test_another_load_is_not_another_speed(void **state)
{
    struct world_step *few = make_long(4, 10, LONG), *many = make_long(5, 16, LONG);
    uint64_t rng = 46;
    unsigned alarms = 0;

    (void)state;
    for (unsigned pair = 0; pair < 20; pair++) {
        struct pm_comparison all;
        compare_pair(few, many, &rng, NULL, &quick, &all);
        /* The load has grown, and its steps take longer … */
        assert_true(all.ratios[PM_RATIO_BATCH].low > 0);
        assert_true(all.matched_share[1] < 0.9);
        alarms += all.slower > 0;
        pm_comparison_release(&all);
    }
    print_message("changed load: %u alarms of 20\n", alarms);
    assert_true(alarms <= 1);
    free(few);
    free(many);
}

static void test_loads_without_overlap_cannot_be_compared(void **state)
{
    struct world_step *few = make_long(4, 2, LONG), *many = make_long(5, 60, LONG);
    struct pm_comparison all;
    uint64_t rng = 47;
    char words[512];

    (void)state;
    compare_pair(few, many, &rng, NULL, &quick, &all);
    assert_int_equal(all.slower, 0);
    assert_false(all.steps[PM_WORK_DECODE][PM_STEP_STEP].known);
    assert_true(all.n_unmatched[0] > 0 && all.n_unmatched[1] > 0);
    pm_composition_words(all.unmatched[1][0].class_number, words, sizeof(words));
    assert_non_null(strstr(words, "decode of "));
    pm_comparison_release(&all);
    free(few);
    free(many);
}

static void test_groups(void **state)
{
    struct world_step *steps = make_long(6, 12, LONG);
    uint64_t rng = 48;
    unsigned alarms = 0, found = 0;

    (void)state;
    for (unsigned pair = 0; pair < 40; pair++) {
        struct pm_compare_input *input;
        struct pm_comparison all;
        size_t order[BLOCKS];
        assert_int_equal(pm_compare_begin(&input), 0);
        for (unsigned i = 0; i < 8; i++) {
            pick(&rng, order);
            world_session(input, i / 4, "run", steps, order, BLOCKS, BLOCK,
                          pair >= 20 && i >= 4 ? slow_model : NULL);
        }
        assert_int_equal(pm_compare_end(input, &quick, &all), 0);
        pm_compare_free(input);
        assert_int_equal(all.n_sessions[0], 4);
        assert_true(all.degrees == 6);
        if (pair < 20)
            alarms += all.slower > 0;
        else
            found += all.steps[PM_WORK_DECODE][PM_STEP_MODEL].verdict == PM_CHANGE_SLOWER;
        pm_comparison_release(&all);
    }
    print_message("groups: %u alarms, %u found, of 20\n", alarms, found);
    assert_true(alarms <= 1);
    assert_true(found >= 18);
    free(steps);
}

static void test_too_little_says_so(void **state)
{
    struct world_step *steps = make_long(7, 12, 400);
    struct pm_compare_input *input;
    struct pm_comparison all;
    const size_t order[1] = {0};
    char words[512];

    (void)state;
    assert_int_equal(pm_compare_begin(&input), 0);
    assert_int_equal(pm_compare_end(input, &quick, &all), 0);
    pm_compare_free(input);
    assert_false(all.comparable);
    pm_compare_verdict(&all, words, sizeof(words));
    assert_non_null(strstr(words, "Nothing to compare"));
    pm_comparison_release(&all);

    assert_int_equal(pm_compare_begin(&input), 0);
    world_session(input, 0, "a", steps, order, 1, 4, NULL);
    world_session(input, 1, "b", steps, order, 1, 4, slow_schedule);
    assert_int_equal(pm_compare_end(input, &quick, &all), 0);
    pm_compare_free(input);
    assert_false(all.comparable);
    assert_int_equal(all.slower, 0);
    assert_int_equal(all.steps[PM_WORK_DECODE][PM_STEP_STEP].verdict, PM_CHANGE_LITTLE);
    pm_comparison_release(&all);
    free(steps);
}

static void test_the_same_input_gives_the_same_output(void **state)
{
    struct world_step *steps = make_long(8, 12, LONG);
    struct pm_comparison all[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t rng = 50;
        compare_pair(steps, steps, &rng, slow_model, &quick, &all[i]);
    }
    assert_memory_equal(all[0].steps, all[1].steps, sizeof(all[0].steps));
    pm_comparison_release(&all[0]);
    pm_comparison_release(&all[1]);
    free(steps);
}

/* ---- the parts ---- */

static void test_size_classes(void **state)
{
    (void)state;
    for (uint64_t v = 0; v < 5000; v++) {
        const unsigned c = pm_size_class(v, 32, 3);
        assert_true(pm_size_class_lower(c, 32, 3) <= v);
        assert_true(pm_size_class_lower(c + 1, 32, 3) > v);
        assert_true(v < 32 ? c == v : c >= 32);
    }
    assert_true(pm_size_class(UINT64_MAX, 2, 1) < 1024);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Durations of 0 to 100 s, counted in parts that are merged: percentiles are those of the sorted
 * ones, but for the width of a class. */
static void test_percentiles(void **state)
{
    enum { N = 20000, PARTS = 7 };
    static double values[N];
    static double table[PM_TAIL_VALUES * PM_TAIL_CLASSES];
    struct pm_tails parts[PARTS] = {{0}}, all = {0};
    uint64_t rng = 77;
    double n;

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        values[i] = pow(10, (double)(pm_random(&rng) % 8000) / 1000 + 3);
        assert_int_equal(pm_tails_add(&parts[i % PARTS], 3, values[i]), 0);
        assert_int_equal(pm_tails_add(&parts[i % PARTS], 4, 500 * i), 0);
    }
    for (unsigned p = 0; p < PARTS; p++) {
        assert_int_equal(pm_tails_merge(&all, &parts[p]), 0);
        for (uint32_t i = 1; i < all.n; i++)
            assert_true(all.rows[i - 1].key < all.rows[i].key);
        pm_tails_release(&parts[p]);
    }
    assert_int_equal(pm_tails_merge(&all, &parts[0]), 0);
    pm_tails_spread(&all, 2, table);
    qsort(values, N, sizeof(*values), by_value);
    for (unsigned percent = 1; percent < 100; percent++) {
        const double exact = values[N / 100 * percent - 1];
        const double got =
            pm_tails_quantile(table + 3 * PM_TAIL_CLASSES, (double)percent / 100, &n);
        assert_true(n == 2 * N);
        assert_true(fabs(got - exact) <= 0.016 * exact + 1000);
        const double line =
            pm_tails_quantile(table + 4 * PM_TAIL_CLASSES, (double)percent / 100, &n);
        assert_true(fabs(line - 500.0 * N / 100 * percent) <= 0.002 * line + 1000);
    }
    assert_true(isnan(pm_tails_quantile(table, 0.5, &n)) && n == 0);
    assert_int_equal(pm_tails_add(&all, 0, 1e30), 0); /* beyond all classes: in the last */
    assert_int_equal(all.rows[0].key, PM_TAIL_CLASSES - 1);
    pm_tails_release(&all);
}

static void test_a_long_session_stays_small(void **state)
{
    struct pm_strata strata = {0};
    struct pm_tally tally;
    struct world world;
    double steps = 0, tokens = 0;

    (void)state;
    world_init(&world, 9, 20);
    assert_int_equal(pm_tally_init(&tally, &strata), 0);
    for (unsigned i = 0; i < 300001; i++) {
        struct pm_observation seen = {.key = pm_random(&world.rng) % 3000};
        seen.values[0] = 5;
        seen.present[0] = true;
        seen.sums[0] = 1;
        seen.sums[1] = 3;
        seen.tails = true;
        assert_int_equal(pm_tally_add(&tally, &seen), 0);
    }
    assert_true(tally.n_blocks <= PM_TALLY_BLOCKS);
    assert_true(tally.n_cells <= 2 * PM_TALLY_BLOCKS_MIN * 3000 + PM_TALLY_CELLS);
    uint64_t n = 0, cells = 0;
    for (uint32_t b = 0; b < tally.n_blocks; b++) {
        steps += tally.blocks[b].sums[0];
        tokens += tally.blocks[b].sums[1];
        cells += tally.blocks[b].n;
        if (b + 1 < tally.n_blocks)
            assert_int_equal(tally.blocks[b].observations, tally.per_block);
        for (uint32_t c = 0; c < tally.blocks[b].n; c++) {
            n += tally.blocks[b].cells[c].n;
            assert_true(tally.blocks[b].cells[c].values[0] == 5.0 * tally.blocks[b].cells[c].n);
        }
    }
    assert_int_equal(n, 300001);
    assert_int_equal(cells, tally.n_cells);
    assert_true(steps == 300001 && tokens == 3 * 300001.0);
    pm_tally_release(&tally);
    pm_strata_release(&strata);
}

static void test_block_length(void **state)
{
    double values[512], x = 0;
    struct world world;

    (void)state;
    world_init(&world, 10, 1);
    for (unsigned i = 0; i < 512; i++)
        values[i] = world_normal(&world);
    assert_true(pm_block_length(values, 512) < 4);
    for (unsigned i = 0; i < 512; i++)
        values[i] = x = 0.9 * x + world_normal(&world);
    /* For an autoregression of 0.9 the rule gives about 21 of 512 (2 phi / (1 - phi^2) squared,
     * times 1.5 n, to the third). */
    const double length = pm_block_length(values, 512);
    assert_true(length > 10 && length < 45);
    for (unsigned i = 0; i < 512; i++)
        values[i] = 1;
    assert_true(pm_block_length(values, 512) == 1);
}

static void test_students_t(void **state)
{
    (void)state;
    assert_true(fabs(pm_student_95(2) - 4.303) < 0.001);
    assert_true(fabs(pm_student_95(10) - 2.228) < 0.005);
    assert_true(fabs(pm_student_95(30) - 2.042) < 0.002);
    assert_true(fabs(pm_student_95(1e6) - 1.96) < 0.001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size_classes),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_a_long_session_stays_small),
        cmocka_unit_test(test_block_length),
        cmocka_unit_test(test_students_t),
        cmocka_unit_test(test_too_little_says_so),
        cmocka_unit_test(test_same_load_gives_no_alarm),
        cmocka_unit_test(test_intervals_alone_hold),
        cmocka_unit_test(test_a_slower_part_is_named_and_no_other),
        cmocka_unit_test(test_the_named_come_costliest_first),
        cmocka_unit_test(test_another_load_is_not_another_speed),
        cmocka_unit_test(test_loads_without_overlap_cannot_be_compared),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_the_same_input_gives_the_same_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
