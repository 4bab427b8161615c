/*
 * The probe's table of graphs: entries by descriptor, objects by address, growth, ceilings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/probe/graph_table.c" /* pure C, of a room that tests of C are not linked with */

static struct pm_graph_desc desc_of(uint32_t tokens, uint8_t mode, uint8_t holder)
{
    return (struct pm_graph_desc){
        .num_tokens = tokens, .num_reqs = -1, .mode = mode, .holder = holder};
}

static void a_descriptor_has_one_entry_in_each_worker(void **state)
{
    struct pm_graphs graphs = {0};
    struct pm_graph_desc desc = desc_of(8, PM_GRAPH_MODE_FULL, PM_GRAPH_HOLDER_WRAPPER);
    (void)state;

    const uint32_t first = pm_graphs_entry(&graphs, &desc, 0);
    assert_int_equal(pm_graphs_entry(&graphs, &desc, 0), first);
    assert_int_not_equal(pm_graphs_entry(&graphs, &desc, 1), first);
    desc.variant = 1;
    assert_int_not_equal(pm_graphs_entry(&graphs, &desc, 0), first);
    desc.variant = 0;
    desc.num_reqs = 8;
    assert_int_not_equal(pm_graphs_entry(&graphs, &desc, 0), first);
    assert_int_equal(graphs.n_entries, 4);
    assert_memory_equal(&graphs.entries[3].desc, &desc, sizeof desc);
    pm_graphs_clear(&graphs);
    assert_int_equal(graphs.n_entries, 0);
}

static void entries_are_found_again_after_growth(void **state)
{
    struct pm_graphs graphs = {0};
    (void)state;
    for (uint32_t i = 0; i < PM_GRAPHS_MAX; i++) {
        const struct pm_graph_desc desc = desc_of(i + 1, (uint8_t)(i % 3), PM_GRAPH_HOLDER_WRAPPER);
        assert_int_equal(pm_graphs_entry(&graphs, &desc, 0), i);
    }
    for (uint32_t i = 0; i < PM_GRAPHS_MAX; i += 7) {
        const struct pm_graph_desc desc = desc_of(i + 1, (uint8_t)(i % 3), PM_GRAPH_HOLDER_WRAPPER);
        assert_int_equal(pm_graphs_entry(&graphs, &desc, 0), i);
    }
    const struct pm_graph_desc more = desc_of(1, PM_GRAPH_MODE_FULL, PM_GRAPH_HOLDER_UBATCH);
    assert_int_equal(pm_graphs_entry(&graphs, &more, 0), PM_GRAPH_NONE);
    pm_graphs_clear(&graphs);
}

static const void *address(uint64_t n)
{
    return (const void *)(uintptr_t)(0x7f0000000000ull + n * 48);
}

static void an_address_is_what_was_said_of_it_last(void **state)
{
    struct pm_graphs graphs = {0};
    (void)state;
    assert_null(pm_graphs_object(&graphs, address(1)));
    pm_graphs_learn(&graphs, NULL, 0, 0);
    assert_int_equal(graphs.n_objects, 0);
    for (uint32_t i = 0; i < 5000; i++)
        pm_graphs_learn(&graphs, address(i), i / 40, i % 40);
    for (uint32_t i = 0; i < 5000; i++) {
        const struct pm_graph_object *object = pm_graphs_object(&graphs, address(i));
        assert_non_null(object);
        assert_int_equal(object->entry, i / 40);
        assert_int_equal(object->piece, i % 40);
    }
    assert_null(pm_graphs_object(&graphs, address(5000)));
    pm_graphs_learn(&graphs, address(7), PM_GRAPH_NONE, 0);
    assert_int_equal(pm_graphs_object(&graphs, address(7))->entry, PM_GRAPH_NONE);
    assert_int_equal(graphs.n_objects, 5000);
    pm_graphs_clear(&graphs);
}

static void an_entry_has_its_pieces_in_order(void **state)
{
    struct pm_graphs graphs = {0};
    const struct pm_graph_desc desc = desc_of(8, PM_GRAPH_MODE_PIECEWISE, PM_GRAPH_HOLDER_WRAPPER);
    const uint32_t place = pm_graphs_entry(&graphs, &desc, 0);
    (void)state;

    for (uint32_t round = 0; round < 2; round++) { /* the second time they are captured anew */
        for (uint32_t i = 0; i < 100; i++) {
            pm_graphs_learn(&graphs, address(1000 * round + i), place, i);
            assert_int_equal(graphs.entries[place].chained, i + 1);
        }
        for (uint32_t i = 0; i < 100; i++)
            assert_ptr_equal(graphs.entries[place].chain[i], address(1000 * round + i));
    }
    pm_graphs_learn(&graphs, address(5000), place, 102); /* one is missing before it */
    assert_int_equal(graphs.entries[place].chained, 100);
    pm_graphs_clear(&graphs);
}

static void objects_have_a_ceiling(void **state)
{
    struct pm_graphs graphs = {0};
    (void)state;
    for (uint32_t i = 0; i < PM_GRAPH_OBJECTS_MAX + 100; i++)
        pm_graphs_learn(&graphs, address(i), 0, i);
    assert_int_equal(graphs.n_objects, PM_GRAPH_OBJECTS_MAX);
    assert_non_null(pm_graphs_object(&graphs, address(PM_GRAPH_OBJECTS_MAX - 1)));
    assert_null(pm_graphs_object(&graphs, address(PM_GRAPH_OBJECTS_MAX)));
    pm_graphs_learn(&graphs, address(3), 9, 1); /* those that are there can still change */
    assert_int_equal(pm_graphs_object(&graphs, address(3))->entry, 9);
    pm_graphs_clear(&graphs);
}

static void the_largest_sizes_are_those_of_the_model(void **state)
{
    struct pm_graphs graphs = {0};
    uint32_t any, mixed;
    struct pm_graph_desc desc = desc_of(64, PM_GRAPH_MODE_FULL, PM_GRAPH_HOLDER_WRAPPER);
    (void)state;

    pm_graphs_largest(&graphs, 0, &any, &mixed);
    assert_int_equal(any, 0);
    desc.uniform = 1;
    (void)pm_graphs_entry(&graphs, &desc, 0);
    desc = desc_of(32, PM_GRAPH_MODE_PIECEWISE, PM_GRAPH_HOLDER_WRAPPER);
    (void)pm_graphs_entry(&graphs, &desc, 0);
    desc = desc_of(512, PM_GRAPH_MODE_FULL, PM_GRAPH_HOLDER_SPECULATOR);
    (void)pm_graphs_entry(&graphs, &desc, 0);
    desc = desc_of(4096, PM_GRAPH_MODE_ENCODER, PM_GRAPH_HOLDER_ENCODER);
    (void)pm_graphs_entry(&graphs, &desc, 0);
    desc = desc_of(1024, PM_GRAPH_MODE_FULL, PM_GRAPH_HOLDER_WRAPPER);
    (void)pm_graphs_entry(&graphs, &desc, 1);
    pm_graphs_largest(&graphs, 0, &any, &mixed);
    assert_int_equal(any, 64);
    assert_int_equal(mixed, 32);
    pm_graphs_clear(&graphs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_descriptor_has_one_entry_in_each_worker),
        cmocka_unit_test(entries_are_found_again_after_growth),
        cmocka_unit_test(an_address_is_what_was_said_of_it_last),
        cmocka_unit_test(an_entry_has_its_pieces_in_order),
        cmocka_unit_test(objects_have_a_ceiling),
        cmocka_unit_test(the_largest_sizes_are_those_of_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
