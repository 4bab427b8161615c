/*
 * The pool of device events (gpu/events.h) with a driver and a clock of the test's own: when a
 * batch is read, what keeps a place, which numbers come out. What vLLM makes of it is in
 * tests/ext/test_device_events.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "gpu/events.h"

#define MS 1000000ull

/* A driver whose events are complete up to a record that the test chooses. */
static struct {
    uint64_t order[8192]; /* of an event, by its handle; 0: not recorded */
    unsigned made, destroyed, queries, calls;
    uint64_t recorded, complete;
    int fails; /* the next record gives this */
    int capturing, errors;
} fake;

static int fake_create(void **event, unsigned flags)
{
    assert_int_equal(flags, 0);
    *event = (void *)(uintptr_t)(++fake.made);
    fake.calls++;
    return 0;
}

static int fake_record(void *event, void *stream)
{
    (void)stream;
    fake.calls++;
    if (fake.fails != 0)
        return fake.fails;
    fake.order[(uintptr_t)event] = ++fake.recorded;
    return 0;
}

static int fake_query(void *event)
{
    fake.queries++;
    fake.calls++;
    if (fake.order[(uintptr_t)event] <= fake.complete)
        return 0;
    fake.errors = PM_GPU_NOT_READY; /* HIP leaves its answers behind */
    return PM_GPU_NOT_READY;
}

/* The k-th record is at k ms. */
static int fake_elapsed(float *ms, void *from, void *to)
{
    fake.calls++;
    *ms = (float)fake.order[(uintptr_t)to] - (float)fake.order[(uintptr_t)from];
    return 0;
}

static int fake_destroy(void *event)
{
    (void)event;
    fake.destroyed++;
    return 0;
}

static int fake_capturing(void *stream, int *status)
{
    (void)stream;
    *status = fake.capturing;
    return 0;
}

static int fake_device(int *device)
{
    *device = 3;
    return 0;
}

static int fake_peek(void)
{
    return fake.errors;
}

static int fake_take(void)
{
    const int taken = fake.errors;
    fake.errors = 0;
    return taken;
}

/* HIP's table: it has all that CUDA's has, but for contexts, and errors that stay. */
static const struct pm_driver hip = {
    .kind = PM_DRIVER_HIP,
    .name = "hip",
    .event_create = fake_create,
    .event_record = fake_record,
    .event_query = fake_query,
    .event_elapsed = fake_elapsed,
    .event_destroy = fake_destroy,
    .stream_capturing = fake_capturing,
    .current_device = fake_device,
    .peek_error = fake_peek,
    .take_error = fake_take,
};

static struct pm_event_times told[4096];
static unsigned n_told;

static void tell(const struct pm_event_times *times, void *arg)
{
    (void)arg;
    told[n_told++] = *times;
}

static struct pm_events *begin(unsigned batch)
{
    struct pm_events *events;
    memset(&fake, 0, sizeof fake);
    n_told = 0;
    assert_int_equal(pm_events_open(&events, &hip, batch), 0);
    return events;
}

static void step(struct pm_events *events, uint64_t number, uint64_t now_ns)
{
    pm_events_begin(events, number, 1, 2);
    for (int m = 0; m < PM_MARKS; m++)
        assert_int_equal(pm_events_mark(events, (enum pm_event_mark)m, NULL, now_ns),
                         PM_EVENT_RECORDED);
    pm_events_end(events);
}

static void a_batch_is_read_at_once_and_not_before(void **state)
{
    (void)state;
    struct pm_events *events = begin(50); /* pairs: 25 steps */
    fake.complete = UINT64_MAX;
    for (unsigned i = 0; i < 24; i++) {
        step(events, i, 1000 * MS);
        assert_false(pm_events_due(events, 1000 * MS));
    }
    step(events, 24, 1000 * MS);
    assert_true(pm_events_due(events, 1000 * MS));
    assert_int_equal(fake.queries, 0);
    assert_int_equal(pm_events_read(events, false, tell, NULL), 25);
    assert_int_equal(fake.queries, 25);
    assert_false(pm_events_due(events, 1000 * MS));
    for (unsigned i = 0; i < 25; i++) {
        assert_int_equal(told[i].step, i);
        assert_int_equal(told[i].instance, 1);
        assert_int_equal(told[i].device, 3);
        assert_int_equal(told[i].model_ns, MS);
        assert_int_equal(told[i].after_ns, MS);
        assert_int_equal(told[i].sample_ns, MS);
        assert_int_equal(told[i].has_wait, i > 0);
        assert_int_equal(told[i].wait_ns, i > 0 ? MS : 0);
    }
    /* What is no batch is read when it is a second old; its wait is known by the place kept. */
    step(events, 25, 2000 * MS);
    assert_false(pm_events_due(events, 3000 * MS));
    assert_true(pm_events_due(events, 3001 * MS));
    assert_int_equal(pm_events_read(events, false, tell, NULL), 1);
    assert_true(told[25].has_wait);
    pm_events_close(events);
    assert_int_equal(fake.made, fake.destroyed);
    assert_int_equal(fake.errors, 0);
}

static void what_is_not_complete_stays(void **state)
{
    (void)state;
    struct pm_events *events = begin(2);
    for (unsigned i = 0; i < 10; i++)
        step(events, i, MS);
    fake.complete = 4 * 3 + 2; /* three steps, and a half */
    assert_int_equal(pm_events_read(events, true, tell, NULL), 3);
    assert_int_equal(fake.queries, 4); /* nothing behind the first that is not complete */
    assert_int_equal(fake.errors, 0);  /* the answer was taken back */
    fake.complete = UINT64_MAX;
    assert_int_equal(pm_events_read(events, false, tell, NULL), 1); /* a batch is a step here */
    assert_int_equal(pm_events_read(events, true, tell, NULL), 6);
    assert_int_equal(told[9].step, 9);
    pm_events_close(events);
}

static void the_pool_ends_and_comes_round(void **state)
{
    (void)state;
    struct pm_events *events = begin(20);
    for (unsigned i = 0; i < 10 + PM_EVENTS_AHEAD; i++)
        step(events, i, MS);
    pm_events_begin(events, 999, 1, 2);
    assert_int_equal(pm_events_mark(events, PM_MARK_MODEL, NULL, MS), PM_EVENT_FULL);
    assert_int_equal(pm_events_mark(events, PM_MARK_MODEL_END, NULL, MS), PM_EVENT_NONE);
    pm_events_end(events);
    fake.complete = UINT64_MAX;
    assert_int_equal(pm_events_read(events, true, tell, NULL), 10 + PM_EVENTS_AHEAD);
    const unsigned made = fake.made;
    for (unsigned i = 0; i < 1000; i++) {
        step(events, 1000 + i, MS);
        assert_int_equal(pm_events_read(events, true, tell, NULL), 1);
        assert_int_equal(told[n_told - 1].has_wait, i > 0); /* one had no place before the first */
    }
    assert_int_equal(fake.made, made);
    struct pm_events_counts counts;
    pm_events_count(events, &counts);
    assert_int_equal(counts.made, made);
    assert_int_equal(counts.steps, 10 + PM_EVENTS_AHEAD + 1000);
    assert_int_equal(counts.read, counts.steps);
    assert_int_equal(counts.turns, 1001);
    pm_events_close(events);
    assert_int_equal(fake.made, fake.destroyed);
}

static void an_error_of_another_is_left_alone(void **state)
{
    (void)state;
    struct pm_events *events = begin(2);
    step(events, 0, MS);
    fake.errors = 719; /* a kernel failed; torch has not looked yet */
    fake.calls = 0;
    pm_events_begin(events, 1, 1, 2);
    assert_int_equal(pm_events_mark(events, PM_MARK_MODEL, NULL, MS), PM_EVENT_FOREIGN);
    pm_events_end(events);
    assert_int_equal(pm_events_read(events, true, tell, NULL), 0);
    assert_int_equal(fake.calls, 0);
    assert_int_equal(fake.errors, 719);
    fake.errors = 0;
    fake.complete = UINT64_MAX;
    step(events, 2, MS);
    assert_int_equal(pm_events_read(events, true, tell, NULL), 2);
    assert_false(told[1].has_wait); /* a step is missing before it */
    pm_events_close(events);
}

static void after_an_error_nothing_is_called(void **state)
{
    (void)state;
    char text[128];
    struct pm_events *events = begin(2);
    step(events, 0, MS);
    fake.fails = 700;
    fake.errors = 700;
    pm_events_begin(events, 1, 1, 2);
    fake.errors = 0;
    assert_false(pm_events_failed(events, text, sizeof text));
    assert_int_equal(pm_events_mark(events, PM_MARK_MODEL, NULL, MS), PM_EVENT_OFF);
    assert_true(pm_events_failed(events, text, sizeof text));
    assert_string_equal(text, "recording an event gave error 700");
    fake.calls = 0;
    pm_events_end(events);
    pm_events_begin(events, 2, 1, 2);
    assert_int_equal(pm_events_mark(events, PM_MARK_MODEL, NULL, MS), PM_EVENT_OFF);
    assert_false(pm_events_due(events, UINT64_MAX));
    assert_int_equal(pm_events_read(events, true, tell, NULL), 0);
    pm_events_close(events);
    assert_int_equal(fake.calls, 0);
    assert_int_equal(fake.destroyed, 0);
}

static void steps_without_a_model_or_sampling(void **state)
{
    (void)state;
    struct pm_events *events = begin(100);
    fake.complete = UINT64_MAX;
    pm_events_begin(events, 0, 0, 2); /* the model began and did not end */
    (void)pm_events_mark(events, PM_MARK_MODEL, NULL, MS);
    pm_events_end(events);
    pm_events_begin(events, 1, 0, 1); /* a pooling step: no sampling; the model is marked twice */
    (void)pm_events_mark(events, PM_MARK_MODEL, NULL, MS);
    (void)pm_events_mark(events, PM_MARK_MODEL, NULL, MS);
    assert_false(pm_events_has(events, PM_MARK_MODEL_END));
    (void)pm_events_mark(events, PM_MARK_MODEL_END, NULL, MS);
    assert_true(pm_events_has(events, PM_MARK_MODEL_END));
    step(events, 2, MS); /* closes it */
    assert_int_equal(pm_events_read(events, true, tell, NULL), 2);
    assert_int_equal(told[0].step, 1);
    assert_int_equal(told[0].model_ns, MS); /* from the last mark */
    assert_false(told[0].has_sample || told[0].has_wait);
    assert_true(told[1].has_sample && told[1].has_wait);
    pm_events_close(events);
}

static void a_driver_that_is_not_there(void **state)
{
    (void)state;
    struct pm_driver driver;
    assert_int_not_equal(pm_driver_find(&driver, "/no/such/library.so"), 0);
    assert_int_not_equal(pm_driver_find(&driver, NULL), 0); /* nothing of the kind is loaded */
}

static int cuda_name(int result, const char **ret_name)
{
    *ret_name = result == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : NULL;
    return result == 2 ? PM_GPU_SUCCESS : 1;
}

static const char *hip_name(int result)
{
    return result == 2 ? "hipErrorOutOfMemory" : NULL;
}

static void a_result_has_its_name(void **state)
{
    (void)state;
    struct pm_driver driver = hip;
    char text[64];
    pm_driver_result_text(&driver, 2, text, sizeof text); /* a library that cannot tell */
    assert_string_equal(text, "error 2");
    driver.hip_error_name = hip_name;
    pm_driver_result_text(&driver, 2, text, sizeof text);
    assert_string_equal(text, "hipErrorOutOfMemory (2)");
    pm_driver_result_text(&driver, 77, text, sizeof text);
    assert_string_equal(text, "error 77");
    driver.hip_error_name = NULL;
    driver.error_name = cuda_name;
    pm_driver_result_text(&driver, 2, text, sizeof text);
    assert_string_equal(text, "CUDA_ERROR_OUT_OF_MEMORY (2)");
    pm_driver_result_text(&driver, 77, text, sizeof text);
    assert_string_equal(text, "error 77");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_read_at_once_and_not_before),
        cmocka_unit_test(what_is_not_complete_stays),
        cmocka_unit_test(the_pool_ends_and_comes_round),
        cmocka_unit_test(an_error_of_another_is_left_alone),
        cmocka_unit_test(after_an_error_nothing_is_called),
        cmocka_unit_test(steps_without_a_model_or_sampling),
        cmocka_unit_test(a_driver_that_is_not_there),
        cmocka_unit_test(a_result_has_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
