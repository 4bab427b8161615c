/*
 * Chains of device events (gpu/chain.h) with a driver and a clock of the test's own: whose a time
 * is, when a batch is read, what keeps its place, where the pool ends. What layers and collectives
 * make of it is in tests/ext/test_device_chains.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "gpu/chain.h"

#define MS 1000000ull
#define NONE PM_CHAIN_NO_MARK

/* A driver whose events are complete up to a record that the test chooses; the k-th is at k ms. */
static struct {
    uint64_t order[8192]; /* of an event, by its handle; 0: not recorded */
    unsigned made, destroyed, queries, calls;
    uint64_t recorded, complete;
    int fails_record, fails_elapsed, capturing, errors;
    int device;
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
    if (fake.fails_record == 0)
        fake.order[(uintptr_t)event] = ++fake.recorded;
    return fake.fails_record;
}

static int fake_query(void *event)
{
    fake.queries++;
    fake.calls++;
    return fake.order[(uintptr_t)event] <= fake.complete ? 0 : PM_GPU_NOT_READY;
}

static int fake_elapsed(float *ms, void *from, void *to)
{
    fake.calls++;
    *ms = (float)fake.order[(uintptr_t)to] - (float)fake.order[(uintptr_t)from];
    return fake.fails_elapsed;
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
    *device = fake.device;
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

static struct {
    uint64_t step, ns;
    uint32_t tag;
} told[4096];
static unsigned n_told;

static void tell(const struct pm_chain_of *of, uint32_t tag, uint64_t ns, void *arg)
{
    (void)arg;
    assert_int_equal(of->instance, 3);
    told[n_told].step = of->step;
    told[n_told].tag = tag;
    told[n_told++].ns = ns;
}

static struct pm_chains *begin(unsigned marks, unsigned batch)
{
    struct pm_chains *chains;
    memset(&fake, 0, sizeof fake);
    n_told = 0;
    assert_int_equal(pm_chains_open(&chains, &hip, marks, batch), 0);
    return chains;
}

static void open_chain(struct pm_chains *chains, uint64_t step, uint64_t now_ns)
{
    pm_chains_begin(chains, &(struct pm_chain_of){.step = step, .begun_ns = now_ns, .instance = 3});
}

/* A chain of `marks` events, each time from the event before it. */
static void chain(struct pm_chains *chains, uint64_t step, unsigned marks, void *stream)
{
    uint32_t last = NONE;
    open_chain(chains, step, MS);
    for (unsigned i = 0; i < marks; i++)
        assert_int_equal(pm_chains_mark(chains, stream, last, 100 + i, &last), PM_EVENT_RECORDED);
    pm_chains_end(chains);
}

static void a_time_is_its_tags_also_of_pairs_inside_of_each_other(void **state)
{
    (void)state;
    struct pm_chains *chains = begin(64, 1);
    uint32_t outer, inner;
    open_chain(chains, 7, MS);
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, &outer), PM_EVENT_RECORDED);
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, &inner), PM_EVENT_RECORDED);
    assert_int_equal(pm_chains_mark(chains, NULL, inner, 5, NULL), PM_EVENT_RECORDED);
    assert_int_equal(pm_chains_mark(chains, NULL, outer, 6, NULL), PM_EVENT_RECORDED);
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 0); /* it is open */
    pm_chains_end(chains);
    fake.complete = 3; /* its last event is not there */
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 0);
    fake.complete = 4;
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 1);
    assert_int_equal(n_told, 3);
    assert_int_equal(told[0].tag, 5);
    assert_int_equal(told[0].ns, MS);
    assert_int_equal(told[1].tag, 6);
    assert_int_equal(told[1].ns, 3 * MS);
    assert_int_equal(told[2].tag, PM_CHAIN_WHOLE);
    assert_int_equal(told[2].ns, 4 * MS);
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 0); /* once */
    pm_chains_close(chains);
    assert_int_equal(fake.made, fake.destroyed);
}

static void a_batch_is_read_when_it_is_one_or_old(void **state)
{
    (void)state;
    struct pm_chains *chains = begin(1000, 12);
    fake.complete = UINT64_MAX;
    chain(chains, 0, 4, NULL);
    chain(chains, 1, 4, NULL);
    assert_false(pm_chains_due(chains, MS + PM_CHAIN_OLD_NS));
    assert_true(pm_chains_due(chains, MS + PM_CHAIN_OLD_NS + 1));
    chain(chains, 2, 4, NULL);
    assert_true(pm_chains_due(chains, MS));
    chain(chains, 3, 4, NULL);
    assert_int_equal(pm_chains_read(chains, false, tell, NULL), 3); /* and no more than it has to */
    assert_false(pm_chains_due(chains, MS));
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 1);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(told[4 * i].step, i);
    pm_chains_close(chains);
}

static void the_pool_ends_and_comes_round(void **state)
{
    (void)state;
    struct pm_chains *chains = begin(10, 1);
    uint32_t last = NONE;
    chain(chains, 0, 4, NULL);
    chain(chains, 1, 4, NULL);
    open_chain(chains, 2, MS);
    assert_int_equal(pm_chains_mark(chains, NULL, last, 1, &last), PM_EVENT_RECORDED);
    assert_int_equal(pm_chains_mark(chains, NULL, last, 1, &last), PM_EVENT_RECORDED);
    assert_int_equal(pm_chains_mark(chains, NULL, last, 1, &last), PM_EVENT_FULL);
    pm_chains_lose(chains);
    assert_int_equal(pm_chains_mark(chains, NULL, last, 1, &last), PM_EVENT_NONE);
    fake.complete = UINT64_MAX;
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 2);
    for (uint64_t step = 3; step < 500; step++) {
        chain(chains, step, 7, NULL);
        n_told = 0;
        assert_int_equal(pm_chains_read(chains, true, tell, NULL), 1);
        assert_int_equal(told[0].step, step);
        assert_int_equal(told[6].ns, 6 * MS);
    }
    assert_int_equal(fake.made, 10); /* made once, recorded again and again */
    pm_chains_close(chains);
    assert_int_equal(fake.destroyed, 10);
    /* Chains without a time take no place for good. */
    chains = begin(4, 1);
    for (unsigned i = 0; i < 2 * PM_CHAINS_MAX; i++)
        chain(chains, i, 1, NULL);
    chain(chains, 9999, 4, NULL);
    pm_chains_close(chains);
}

static void what_one_stream_keeps_another_does_not(void **state)
{
    (void)state;
    struct pm_chains *chains = begin(100, 1);
    void *one = (void *)8, *other = (void *)16;
    uint32_t last;
    chain(chains, 0, 2, one);
    fake.complete = 1;
    chain(chains, 1, 2, one);
    fake.recorded = 0; /* the other stream's are complete */
    chain(chains, 2, 1, other);
    open_chain(chains, 3, MS);
    fake.complete = 1;
    assert_false(pm_chains_is_elsewhere(chains, other));
    assert_int_equal(pm_chains_mark(chains, one, NONE, 0, &last), PM_EVENT_RECORDED);
    assert_true(pm_chains_is_elsewhere(chains, other));
    assert_int_equal(pm_chains_mark(chains, other, last, 9, &last), PM_EVENT_RECORDED);
    fake.order[(uintptr_t)fake.made] = 1;
    pm_chains_end(chains);
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 1); /* past those of stream one */
    assert_int_equal(told[0].tag, PM_CHAIN_WHOLE); /* from stream to stream there is no time */
    assert_int_equal(told[0].step, 3);
    struct pm_chains_counts counts;
    pm_chains_count(chains, &counts);
    assert_int_equal(counts.apart, 1);
    pm_chains_close(chains);
}

static void devices_have_rings_of_their_own(void **state)
{
    (void)state;
    struct pm_chains *chains = begin(8, 1);
    uint32_t last;
    fake.complete = UINT64_MAX;
    chain(chains, 0, 8, NULL);
    fake.device = 1;
    open_chain(chains, 1, MS);
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, &last), PM_EVENT_RECORDED);
    fake.device = 0;
    assert_int_equal(pm_chains_mark(chains, NULL, last, 0, &last), PM_EVENT_MOVED);
    pm_chains_lose(chains);
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 1);
    for (fake.device = 2; fake.device < PM_CHAIN_CONTEXTS; fake.device++)
        chain(chains, 2, 2, NULL);
    open_chain(chains, 3, MS);
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, &last), PM_EVENT_NO_DEVICE);
    pm_chains_close(chains);
    assert_int_equal(fake.made, fake.destroyed);
}

static void a_capture_and_anothers_error_keep_marks_out(void **state)
{
    (void)state;
    struct pm_chains *chains = begin(8, 1);
    uint32_t last;
    fake.complete = UINT64_MAX;
    open_chain(chains, 0, MS);
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, &last), PM_EVENT_RECORDED);
    fake.capturing = 1;
    fake.calls = 0;
    assert_int_equal(pm_chains_mark(chains, NULL, last, 0, NULL), PM_EVENT_CAPTURE);
    fake.capturing = 0;
    fake.errors = 719; /* a kernel failed; torch has not looked yet */
    assert_int_equal(pm_chains_mark(chains, NULL, last, 0, NULL), PM_EVENT_FOREIGN);
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 0);
    assert_int_equal(fake.calls, 0);
    fake.errors = 0;
    assert_int_equal(pm_chains_mark(chains, NULL, last, 4, NULL), PM_EVENT_RECORDED);
    pm_chains_end(chains); /* the chain is as good as it was */
    fake.capturing = 1;
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 0);
    fake.capturing = 0;
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 1);
    pm_chains_close(chains);
}

static void after_an_error_nothing_is_called_or_told(void **state)
{
    (void)state;
    char text[128];
    struct pm_chains *chains = begin(64, 1);
    fake.complete = UINT64_MAX;
    chain(chains, 0, 5, NULL);
    fake.fails_elapsed = 700;
    assert_false(pm_chains_failed(chains, text, sizeof text));
    assert_int_equal(pm_chains_read(chains, true, tell, NULL), 0);
    assert_int_equal(n_told, 0); /* a chain is told whole, or not at all */
    assert_true(pm_chains_failed(chains, text, sizeof text));
    assert_string_equal(text, "asking for the time between two events gave error 700");
    fake.calls = 0;
    open_chain(chains, 1, MS);
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, NULL), PM_EVENT_OFF);
    assert_false(pm_chains_due(chains, UINT64_MAX));
    pm_chains_close(chains);
    assert_int_equal(fake.calls + fake.destroyed, 0);
    chains = begin(64, 1);
    open_chain(chains, 0, MS);
    fake.fails_record = 700;
    assert_int_equal(pm_chains_mark(chains, NULL, NONE, 0, NULL), PM_EVENT_OFF);
    assert_true(pm_chains_failed(chains, text, sizeof text));
    pm_chains_abandon(chains);
    assert_int_equal(fake.destroyed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_is_its_tags_also_of_pairs_inside_of_each_other),
        cmocka_unit_test(a_batch_is_read_when_it_is_one_or_old),
        cmocka_unit_test(the_pool_ends_and_comes_round),
        cmocka_unit_test(what_one_stream_keeps_another_does_not),
        cmocka_unit_test(devices_have_rings_of_their_own),
        cmocka_unit_test(a_capture_and_anothers_error_keep_marks_out),
        cmocka_unit_test(after_an_error_nothing_is_called_or_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
