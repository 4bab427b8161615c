/*
 * The tree of call paths that function tracing counts in (src/probe/function_tree.c), the setting
 * that says what is traced (base/function_filter.c), and the reader of the table on damaged bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../src/probe/function_tree.c" /* pure C, of a room that tests of C are not linked with */
#include "base/function_filter.h"

static struct pm_calls calls;
static void *table;
static struct {
    uint64_t n, dur_ns;
    uint32_t node, tid;
} recorded;

static void record(uint64_t start_ns, uint64_t dur_ns, uint32_t node, uint32_t tid)
{
    (void)start_ns;
    recorded.n++;
    recorded.dur_ns = dur_ns;
    recorded.node = node;
    recorded.tid = tid;
}

static int begin(void **state)
{
    (void)state;
    table = calloc(1, pm_calls_table_bytes());
    memset(&recorded, 0, sizeof recorded);
    return table != NULL && pm_calls_begin(&calls, table, record) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    pm_calls_release(&calls);
    free(table);
    return 0;
}

/* Codes are only keys: any addresses do. */
static char codes[40000];

static uint32_t row_of(const void *code)
{
    char name[32];
    bool kept;
    uint32_t row = pm_calls_code(&calls, code);
    if (row != PM_CALLS_UNKNOWN)
        return row;
    snprintf(name, sizeof name, "f%d", (int)((const char *)code - codes));
    return pm_calls_add(&calls, code, "m", name, "m.py", 1, 0, &kept);
}

static void call(struct pm_calls_thread *thread, const void *code, uint64_t now_ns)
{
    uint32_t node = pm_calls_last(&calls, thread, code);
    if (node == 0)
        node = pm_calls_path(&calls, thread, code, row_of(code));
    pm_calls_enter(&calls, thread, node, code, false, now_ns);
}

static void leave(struct pm_calls_thread *thread, const void *code, uint64_t now_ns)
{
    pm_calls_leave(&calls, thread, code, false, now_ns);
}

static void time_goes_to_whoever_ran(void **state)
{
    struct pm_calls_thread thread = {0};
    const char *a = &codes[1], *b = &codes[2];
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, "main", 100));
    call(&thread, a, 110);
    const uint32_t outer = thread.node;
    call(&thread, b, 130);
    const uint32_t inner = thread.node;
    leave(&thread, b, 135);
    call(&thread, b, 140);
    assert_int_equal(thread.node, inner);
    pm_calls_leave(&calls, &thread, b, true, 149);
    leave(&thread, a, 150);
    assert_int_equal(calls.nodes[outer].self_ns, 20 + 5 + 1);
    assert_int_equal(calls.nodes[inner].self_ns, 5 + 9);
    assert_int_equal(calls.nodes[thread.root].self_ns, 10);
    assert_int_equal(calls.nodes[inner].calls, 2);
    assert_int_equal(calls.nodes[inner].raised, 1);
    assert_int_equal(calls.nodes[inner].max_ns, 9);
    assert_int_equal(calls.nodes[outer].max_ns, 40);
    assert_int_equal(calls.nodes[inner].parent, outer);
    assert_int_equal(thread.depth, 0);
    assert_int_equal(recorded.n, 3);
    assert_int_equal(recorded.dur_ns, 40);
    assert_int_equal(recorded.node, outer);
    assert_int_equal(recorded.tid, 7);
    pm_calls_thread_release(&thread);
}

static void ends_that_belong_to_nobody_are_passed_over(void **state)
{
    struct pm_calls_thread thread = {0};
    const char *a = &codes[1], *b = &codes[2], *c = &codes[3];
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, NULL, 0));
    leave(&thread, a, 1); /* began before tracing did */
    call(&thread, a, 10);
    call(&thread, b, 20);
    call(&thread, c, 30);
    leave(&thread, &codes[9], 35);
    assert_int_equal(thread.depth, 3);
    leave(&thread, a, 40); /* the ends of b and c were not seen */
    assert_int_equal(thread.depth, 0);
    assert_int_equal(thread.node, thread.root);
    assert_int_equal(calls.head->unended, 2);
    pm_calls_thread_release(&thread);
}

static void recursion_is_a_path_of_its_own_up_to_a_depth(void **state)
{
    struct pm_calls_thread thread = {0};
    const char *a = &codes[1];
    const unsigned depth = PM_CALLS_PATH_DEPTH + 500;
    uint64_t now_ns = 0, sum = 0;
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, NULL, 0));
    for (unsigned i = 0; i < depth; i++)
        call(&thread, a, ++now_ns);
    for (unsigned i = 0; i < depth; i++)
        leave(&thread, a, ++now_ns);
    assert_int_equal(thread.depth, 0);
    assert_int_equal(calls.head->n_nodes, 1 + 1 + PM_CALLS_PATH_DEPTH);
    assert_int_equal(calls.head->n_flat, 1);
    assert_int_equal(calls.head->flat_calls, 500);
    for (uint32_t i = 0; i < NODES; i++)
        sum += calls.nodes[i].calls;
    assert_int_equal(sum, depth);
    pm_calls_thread_release(&thread);
}

static void frames_have_a_ceiling(void **state)
{
    struct pm_calls_thread thread = {0};
    const char *a = &codes[1];
    uint64_t now_ns = 0;
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, NULL, 0));
    for (unsigned i = 0; i < PM_CALLS_DEPTH + 10; i++)
        call(&thread, a, ++now_ns);
    assert_int_equal(thread.depth, PM_CALLS_DEPTH);
    assert_int_equal(thread.beyond, 10);
    for (unsigned i = 0; i < PM_CALLS_DEPTH + 10; i++)
        leave(&thread, a, ++now_ns);
    assert_int_equal(thread.depth, 0);
    assert_int_equal(thread.beyond, 0);
    pm_calls_thread_release(&thread);
}

static void functions_and_threads_have_ceilings(void **state)
{
    struct pm_calls_thread thread = {0}, threads[80] = {{0}};
    uint64_t now_ns = 0;
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, "main", 0));
    for (unsigned i = 1; i < 20000; i++) {
        call(&thread, &codes[i], ++now_ns);
        leave(&thread, &codes[i], ++now_ns);
    }
    assert_int_equal(calls.head->n_rows, PM_FUNCTION_ROWS);
    assert_int_equal(calls.head->lost_calls, 20000 - (PM_FUNCTION_ROWS - 2));
    assert_int_equal(pm_calls_code(&calls, &codes[1]), 3);
    assert_int_equal(pm_calls_code(&calls, &codes[19999]), PM_CALLS_UNKNOWN);
    for (unsigned i = 0; i < 80; i++) /* no rows are left: one for all of them, or none */
        assert_true(pm_calls_thread_begin(&calls, &threads[i], i, "more", 0));
    for (unsigned i = 0; i < 80; i++)
        pm_calls_thread_release(&threads[i]);
    pm_calls_thread_release(&thread);
}

static void the_longest_calls_are_recorded(void **state)
{
    struct pm_calls_thread thread = {0};
    const char *a = &codes[1];
    uint64_t now_ns = 0;
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, "main", 0));
    for (unsigned i = 0; i < 1000000; i++) { /* one second of calls of 0.9 us, each 100th of 9 us */
        call(&thread, a, now_ns);
        leave(&thread, a, now_ns + (i % 100 == 0 ? 9000 : 900));
        now_ns += 1000 + (i % 100 == 0 ? 9000 : 0);
    }
    assert_in_range(recorded.n, 8000, 16000);
    assert_in_range(calls.short_ns, 901, 9000);
    const uint64_t before = recorded.n;
    now_ns += 10000000000ull; /* quiet: all are recorded again, from the second on */
    for (unsigned i = 0; i < 3; i++) {
        call(&thread, a, now_ns);
        leave(&thread, a, now_ns + (i == 0 ? 10000 : 10));
        now_ns += 20000;
    }
    assert_int_equal(recorded.n, before + 3);
    assert_int_equal(calls.head->records, recorded.n);
    pm_calls_thread_release(&thread);
}

static void a_new_table_begins_from_nothing(void **state)
{
    struct pm_calls_thread thread = {0};
    const uint32_t epoch = calls.epoch;
    (void)state;
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, "main", 0));
    call(&thread, &codes[1], 1);
    assert_int_equal(thread.epoch, epoch);
    memset(table, 0, pm_calls_table_bytes());
    pm_calls_release(&calls);
    assert_true(pm_calls_begin(&calls, table, record));
    assert_int_not_equal(calls.epoch,
                         thread.epoch); /* so the tracer makes the thread known again */
    assert_int_equal(pm_calls_code(&calls, &codes[1]), PM_CALLS_UNKNOWN);
    assert_int_equal(calls.head->n_nodes, 1);
    assert_true(pm_calls_thread_begin(&calls, &thread, 7, "main", 5));
    assert_int_equal(thread.depth, 0);
    pm_calls_thread_release(&thread);
}

/* ---- the setting ---- */

static bool wants(const char *setting, const char *module, const char *name)
{
    static struct pm_function_filter filter;
    pm_function_filter_parse(setting, "pkg.mod:Hook.method", &filter);
    return pm_function_filter_wants(&filter, module, name);
}

static void the_setting_says_what_is_traced(void **state)
{
    (void)state;
    assert_true(wants("all", "a", "f"));
    assert_true(wants(" ALL ", "a", "f"));
    assert_false(wants("", "a", "f"));
    assert_false(wants("1", "a", "f"));
    assert_false(wants(" 0 ,-1", "a", "f"));
    assert_true(wants("vllm.v1", "vllm.v1.core", "f"));
    assert_true(wants("vllm.v1", "vllm.v1", "f"));
    assert_false(wants("vllm.v1", "vllm.v10", "f"));
    assert_false(wants("vllm.v1", "other.vllm.v1", "f"));
    assert_true(wants("m:C.f", "m", "C.f"));
    assert_true(wants("m:C", "m", "C.f"));
    assert_true(wants("m.C.f", "m", "C.f.<locals>.g"));
    assert_false(wants("m:C.f", "m", "C.ff"));
    assert_true(wants("C", "m", "C.f"));
    assert_true(wants("f", "m", "C.f"));
    assert_true(wants("C.f", "m", "Outer.C.f"));
    assert_false(wants("C.f", "m", "C.g"));
    assert_true(wants("x,\tf ,y", "m", "f"));
    assert_true(wants("*.forward", "a.b", "C.forward"));
    assert_false(wants("*.forward", "a.b", "C.forward_all"));
    assert_true(wants("vllm.*.execute_*", "vllm.v1.worker", "W.execute_model"));
    assert_true(wants("*", "m", "f"));
    assert_true(wants("m.f*", "m", "f")); /* none at all is any text, too */
    assert_true(wants("*f**", "m", "f"));
    assert_false(wants("m.f*g", "m", "f"));
    assert_true(wants("all,-torch", "vllm", "f"));
    assert_false(wants("all,-torch", "torch.nn", "f"));
    assert_false(wants("-torch", "torch", "f"));
    assert_true(wants("-torch", "m", "f"));
    assert_false(wants("-m.f,m", "m", "f"));
    assert_false(wants("m,-*f", "m", "f"));
    assert_true(wants("custom", "pkg.mod", "Hook.method"));
    assert_false(wants("custom", "vllm", "f"));
    assert_true(wants("custom,vllm", "vllm", "f"));
    assert_false(wants("-", "m", "f"));
    assert_false(wants(",,,", "m", "f"));
}

static void custom_without_hooks_is_vllm(void **state)
{
    static struct pm_function_filter filter;
    (void)state;
    pm_function_filter_parse("custom", "", &filter);
    assert_true(filter.custom);
    assert_true(pm_function_filter_wants(&filter, "vllm.v1", "f"));
    assert_false(pm_function_filter_wants(&filter, "torch", "f"));
}

static void a_setting_of_too_many_names_says_so(void **state)
{
    static struct pm_function_filter filter;
    static char text[4096];
    (void)state;
    for (unsigned i = 0; i < 200; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "n%u,", i);
    pm_function_filter_parse(text, "", &filter);
    assert_int_equal(filter.count, PM_FUNCTION_NAMES);
    assert_int_equal(filter.beyond, 200 - PM_FUNCTION_NAMES);
    assert_true(pm_function_filter_wants(&filter, "m", "n127"));
    assert_false(pm_function_filter_wants(&filter, "m", "n128"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(time_goes_to_whoever_ran, begin, end),
        cmocka_unit_test_setup_teardown(ends_that_belong_to_nobody_are_passed_over, begin, end),
        cmocka_unit_test_setup_teardown(recursion_is_a_path_of_its_own_up_to_a_depth, begin, end),
        cmocka_unit_test_setup_teardown(frames_have_a_ceiling, begin, end),
        cmocka_unit_test_setup_teardown(functions_and_threads_have_ceilings, begin, end),
        cmocka_unit_test_setup_teardown(the_longest_calls_are_recorded, begin, end),
        cmocka_unit_test_setup_teardown(a_new_table_begins_from_nothing, begin, end),
        cmocka_unit_test(the_setting_says_what_is_traced),
        cmocka_unit_test(custom_without_hooks_is_vllm),
        cmocka_unit_test(a_setting_of_too_many_names_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
