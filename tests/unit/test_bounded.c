/*
 * Tables and queues of bounded size at their bounds: levels over days (compare/levels.h), and what
 * waits for a collector that does not answer (otlp/queue.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "compare/levels.h"
#include "otlp/queue.h"

#define SECOND 1000000000ull
#define START (77 * SECOND)
#define MINUTES (7 * 1440u)

/* A level per minute of a week: many times the first slots' reach. */
static void test_levels_of_a_week(void **state)
{
    struct pm_levels levels;
    double level, beside;

    (void)state;
    assert_int_equal(pm_levels_init(&levels, START), 0);
    for (unsigned i = 0; i < MINUTES; i++)
        pm_levels_add(&levels, START + i * 60 * SECOND, i, 2.0 * i);
    pm_levels_seal(&levels);
    for (unsigned from = 0; from + 100 < MINUTES; from += 777) {
        pm_levels_mean(&levels, START + from * 60 * SECOND, START + (from + 100) * 60 * SECOND,
                       &level, &beside);
        assert_true(fabs(level - (from + 50)) <= 1); /* whole slots, shorter than a minute */
        assert_true(fabs(beside - 2 * level) < 1e-6);
    }
    /* Behind the end, and the wrong way round: what is nearest. Before the start: the first. */
    pm_levels_mean(&levels, UINT64_MAX - 1, UINT64_MAX, &level, &beside);
    assert_true(fabs(level - (MINUTES - 1)) <= 1);
    pm_levels_mean(&levels, START + 3000 * SECOND, START, &level, &beside);
    assert_true(fabs(level - 50) <= 1);
    pm_levels_mean(&levels, 0, 0, &level, &beside);
    assert_true(level <= 1);
    pm_levels_release(&levels);
}

static void test_levels_with_a_hole_or_nothing(void **state)
{
    struct pm_levels levels;
    double level = 9, beside = 9;

    (void)state;
    assert_int_equal(pm_levels_init(&levels, START), 0);
    pm_levels_seal(&levels);
    pm_levels_mean(&levels, START, START + SECOND, &level, &beside);
    assert_true(level == 0 && beside == 0);
    pm_levels_add(&levels, START + 2 * SECOND, 5, 1);
    pm_levels_add(&levels, UINT64_MAX, 7, 3); /* what a damaged record may say */
    pm_levels_add(&levels, START + 400 * 86400 * SECOND, 6, 2);
    pm_levels_seal(&levels);
    pm_levels_mean(&levels, START + 300 * 86400 * SECOND, START + 300 * 86400 * SECOND, &level,
                   &beside);
    assert_true(level == 5 && beside == 1); /* the last one before */
    pm_levels_mean(&levels, UINT64_MAX, UINT64_MAX, &level, &beside);
    assert_true(level == 7 && beside == 3);
    pm_levels_release(&levels);
}

static void put(struct pm_otlp_queue *queue, enum pm_otlp_kind kind, size_t bytes, uint64_t spans)
{
    struct pm_buf body;
    pm_buf_init(&body, 2 * PM_OTLP_QUEUE_BYTES);
    void *room = pm_buf_reserve(&body, bytes);
    assert_non_null(room);
    body.used = bytes;
    pm_otlp_queue_put(queue, kind, &body, spans);
}

static void test_the_queue_drops_the_oldest_and_counts_it(void **state)
{
    struct pm_otlp_queue queue;

    (void)state;
    assert_int_equal(pm_otlp_queue_init(&queue), 0);
    put(&queue, PM_OTLP_TRACES, PM_OTLP_QUEUE_BYTES / 2, 1);
    put(&queue, PM_OTLP_TRACES, PM_OTLP_QUEUE_BYTES / 2, 10);
    put(&queue, PM_OTLP_METRICS, 1000, 0); /* the oldest goes for it */
    assert_int_equal(queue.counts.dropped_spans, 1);
    put(&queue, PM_OTLP_METRICS, 500, 0); /* replaces, is no loss */
    assert_int_equal(queue.counts.dropped_pushes, 0);
    assert_int_equal(queue.bytes, PM_OTLP_QUEUE_BYTES / 2 + 500);
    put(&queue, PM_OTLP_TRACES, PM_OTLP_QUEUE_BYTES + 1, 100); /* larger than all */
    assert_int_equal(queue.counts.dropped_spans, 101);

    /* Taken for a try that failed: back to the front where there is room, dropped where not. */
    struct pm_otlp_batch *batch = pm_otlp_queue_take(&queue);
    assert_int_equal(batch->spans, 10);
    pm_otlp_queue_back(&queue, batch);
    assert_ptr_equal(queue.first, batch);
    batch = pm_otlp_queue_take(&queue);
    put(&queue, PM_OTLP_TRACES, PM_OTLP_QUEUE_BYTES - 500, 1000);
    pm_otlp_queue_back(&queue, batch);
    assert_int_equal(queue.counts.dropped_spans, 111);

    /* Metrics that were tried while newer ones came are stale, which is no loss either. */
    batch = pm_otlp_queue_take(&queue);
    assert_int_equal(batch->kind, PM_OTLP_METRICS);
    put(&queue, PM_OTLP_METRICS, 400, 0);
    pm_otlp_queue_back(&queue, batch);
    assert_int_equal(queue.counts.dropped_pushes, 0);
    assert_int_equal(queue.bytes, PM_OTLP_QUEUE_BYTES - 100);
    assert_int_equal(queue.counts.dropped_spans, 111);
    pm_otlp_queue_end(&queue);
    pm_otlp_queue_release(&queue); /* with what waits in it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels_of_a_week),
        cmocka_unit_test(test_levels_with_a_hole_or_nothing),
        cmocka_unit_test(test_the_queue_drops_the_oldest_and_counts_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
