/*
 * MoE layers from the counters to the files: ids as they lie in memory, pairs, what is told of them
 * and when, sums that outlive recycled segments, models that come and go, golden files, and what a
 * reader makes of layers that cannot be seen.
 */
#include "make_session.h"

#include "base/settings.h"
#include "probe/moe_layers.c"
#include "view/moe.h"
#include "view/view.h"

enum { T_WORKER, T_LAYER, T_COUNTS, T_TOTALS, T_TIME, TABLES };
static const struct pm_schema *const tables[TABLES] = {[T_WORKER] = &mk_tables[MK_WORKER],
                                                       [T_LAYER] = &pm_moe_layer_schema,
                                                       [T_COUNTS] = &pm_moe_counts_schema,
                                                       [T_TOTALS] = &pm_moe_totals_schema,
                                                       [T_TIME] = &pm_moe_time_schema};

static unsigned number_of(const struct pm_schema *schema)
{
    unsigned i = 0;
    while (i < TABLES && tables[i] != schema)
        i++;
    return i;
}

static void open_recorder(struct mk *mk, const char *dir, uint64_t ceiling_bytes)
{
    struct pm_recorder_options options = {.session_dir = dir,
                                          .token = mk_token,
                                          .schemas = tables,
                                          .n_schemas = TABLES,
                                          .ceiling_bytes = ceiling_bytes,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600,
                                          .keyframe = pm_moe_keyframe};
    struct pm_error err = {""};
    memset(mk, 0, sizeof *mk);
    snprintf(mk->dir, sizeof mk->dir, "%s", dir);
    if (pm_recorder_open(&mk->rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(mk);
    pm_recorder_identify(mk->rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk->rec, "setting.preset", "full");
    pm_recorder_attr(mk->rec, "setting.forward_pass", "0");
}

static void step(struct mk *mk, uint64_t number)
{
    struct pm_worker_step *record = pm_recorder_reserve(mk->rec, T_WORKER);
    assert_non_null(record);
    *record = mk_worker_of(number, 1, 0, 1000000);
    pm_recorder_commit(mk->rec, record);
}

static struct pm_moe_slot *add(uint16_t instance, uint32_t layer, uint32_t experts, uint32_t top_k,
                               uint8_t seen)
{
    char name[64];
    const struct pm_moe_layer fact = {.at_ns = MK_START_MONO,
                                      .layer = layer,
                                      .experts = experts,
                                      .top_k = top_k,
                                      .instance = instance,
                                      .seen = seen,
                                      .why = seen == PM_MOE_UNSEEN ? PM_MOE_WHY_COMPILED : 0};
    snprintf(name, sizeof name, "model.layers.%u.mlp.experts", layer);
    struct pm_moe_slot *slot = pm_moe_add(&fact, name, (const void *)(uintptr_t)(layer + 1));
    assert_non_null(slot);
    return slot;
}

static int fresh(void **state)
{
    (void)state;
    pm_moe_reset();
    pm_moe_schema = number_of;
    return 0;
}

static struct pm_moe_ids ids32(const int32_t *data, int64_t rows, int64_t columns)
{
    return (struct pm_moe_ids){data, rows, columns, columns, 1, 4};
}

/* ---- counting ---- */

static void test_ids_of_every_width_and_stride(void **state)
{
    (void)state;
    pm_moe_model(0);
    struct pm_moe_slot *slot = add(0, 3, 4, 2, PM_MOE_HOST);
    uint64_t *n = slot->cells[PM_MOE_SELECTIONS].n;
    const int32_t four[] = {0, 1, 2, 3};
    const int64_t eight[] = {0, 1, 2, 3};
    const int16_t two[] = {0, 1, 2, 3};
    const uint8_t one[] = {0, 1, 2, 3};
    const struct pm_moe_ids by_rows = ids32(four, 2, 2);
    /* The same memory by columns: rows (0, 2) and (1, 3). */
    const struct pm_moe_ids by_columns = {four, 2, 2, 1, 2, 4};
    const struct pm_moe_ids others[] = {
        {eight, 2, 2, 2, 1, 8}, {two, 2, 2, 2, 1, 2}, {one, 2, 2, 2, 1, 1}};

    pm_moe_count(slot, &by_rows, 0, 1);
    assert_int_equal(n[0] + n[1], 2);
    assert_int_equal(n[2] + n[3], 0); /* the second row is padding */
    pm_moe_count(slot, &by_rows, 1, 1);
    for (size_t i = 0; i < 3; i++)
        pm_moe_count(slot, &others[i], 0, 2);
    for (unsigned e = 0; e < 4; e++)
        assert_int_equal(n[e], 4);
    const uint64_t *pairs = slot->cells[PM_MOE_PAIRS].n;
    assert_int_equal(pairs[pm_moe_pair(4, 0, 1)], 4);
    assert_int_equal(pairs[pm_moe_pair(4, 2, 3)], 4);
    pm_moe_count(slot, &by_columns, 0, 2);
    assert_int_equal(pairs[pm_moe_pair(4, 0, 2)], 1);
    assert_int_equal(pairs[pm_moe_pair(4, 1, 3)], 1);
    assert_int_equal(pairs[pm_moe_pair(4, 0, 3)] + pairs[pm_moe_pair(4, 1, 2)], 0);
}

static void test_ids_that_are_no_expert_are_passed_over(void **state)
{
    (void)state;
    pm_moe_model(0);
    struct pm_moe_slot *slot = add(0, 0, 4, 3, PM_MOE_HOST);
    const int32_t data[] = {-1, 2, 4, 2, 2147483647, -2147483647 - 1};
    const struct pm_moe_ids ids = ids32(data, 2, 3);
    pm_moe_count(slot, &ids, 0, 2);
    assert_int_equal(slot->cells[PM_MOE_SELECTIONS].n[2], 2);
    for (uint32_t i = 0; i < pm_moe_pairs(4); i++)
        assert_int_equal(slot->cells[PM_MOE_PAIRS].n[i], 0);
}

static void test_every_pair_has_a_cell_of_its_own(void **state)
{
    (void)state;
    for (uint32_t experts = 2; experts <= PM_MOE_PAIR_EXPERTS; experts++) {
        uint32_t expected = 0;
        for (uint32_t a = 0; a < experts; a++)
            for (uint32_t b = a + 1; b < experts; b++)
                assert_int_equal(pm_moe_pair(experts, a, b), expected++);
        assert_int_equal(pm_moe_pairs(experts), expected);
    }
}

static void test_pairs_have_a_ceiling(void **state)
{
    (void)state;
    uint32_t cells = 0;
    pm_moe_model(0);
    assert_int_equal(add(0, 0, 65, 8, PM_MOE_HOST)->fact.pairs, 0); /* too many experts */
    assert_int_equal(add(0, 1, 8, 1, PM_MOE_HOST)->fact.pairs, 0);  /* one a token: no pairs */
    assert_int_equal(add(0, 2, 8, 2, PM_MOE_UNSEEN)->fact.pairs, 0);
    for (uint32_t layer = 3; layer < 40; layer++)
        cells += add(0, layer, 64, 8, PM_MOE_HOST)->cells[PM_MOE_PAIRS].count;
    assert_in_range(cells, PM_MOE_PAIR_CELLS - pm_moe_pairs(64), PM_MOE_PAIR_CELLS);
}

/* ---- models come and go ---- */

static void test_handles_of_models_that_are_gone_lead_nowhere(void **state)
{
    (void)state;
    pm_moe_model(0);
    const uint32_t first = add(0, 0, 8, 2, PM_MOE_HOST)->handle;
    pm_moe_model(0); /* the same worker loads again */
    const uint32_t again = add(0, 0, 8, 2, PM_MOE_HOST)->handle;
    assert_null(pm_moe_find(first));
    assert_non_null(pm_moe_find(again));
    assert_null(pm_moe_find(0));
    assert_null(pm_moe_find(UINT64_MAX));
    for (uint16_t instance = 1; instance <= PM_MOE_MODELS_MAX; instance++) {
        pm_moe_model(instance);
        add(instance, 0, 8, 2, PM_MOE_HOST);
    }
    assert_null(pm_moe_find(again)); /* the oldest made room */
    assert_non_null(pm_moe_at(PM_MOE_MODELS_MAX, 0));
}

static void test_the_table_is_bounded(void **state)
{
    (void)state;
    const struct pm_moe_layer fact = {.experts = 2, .top_k = 1, .seen = PM_MOE_HOST};
    unsigned made = 0;
    assert_null(pm_moe_add(&fact, "before its model", NULL));
    pm_moe_model(0);
    while (made <= PM_MOE_LAYERS_MAX && pm_moe_add(&fact, "layer", NULL) != NULL)
        made++;
    assert_int_equal(made, PM_MOE_LAYERS_MAX);
}

/* ---- what is told, and read back ---- */

static void make_small(struct mk *mk, const char *dir)
{
    static const int32_t first[] = {0, 1, 0, 2, 0, 1}, second[] = {3, 0};
    open_recorder(mk, dir, 64u << 20);
    pm_moe_model(0);
    struct pm_moe_slot *seen = add(0, 1, 4, 2, PM_MOE_HOST);
    add(0, 2, 4, 2, PM_MOE_HOST);
    pm_moe_record_layers(mk->rec, 0);
    const struct pm_moe_ids three = ids32(first, 3, 2), one = ids32(second, 1, 2);
    step(mk, 0);
    pm_moe_count(seen, &three, 0, 3);
    pm_moe_flush(mk->rec, MK_START_MONO + 1000000000u, false);
    pm_moe_flush(mk->rec, MK_START_MONO + 1500000000u, false); /* nothing new: no record */
    step(mk, 1);
    pm_moe_count(seen, &one, 0, 1);
    pm_moe_count(pm_moe_at(0, 1), &one, 0, 1);
    pm_moe_flush(mk->rec, MK_START_MONO + 2000000000u, true);
    struct pm_moe_time *time = pm_recorder_reserve(mk->rec, T_TIME);
    assert_non_null(time);
    *time = (struct pm_moe_time){
        .at_ns = MK_START_MONO + 1234567000u, .dur_ns = 2345600, .tokens = 3, .slot = 1};
    pm_recorder_commit(mk->rec, time);
}

static void expect_file(const char *dir, const char *name, const char *expected)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = mk_read(path, NULL);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void export(const char *dir)
{
    struct pm_session *session = mk_session(dir);
    const struct pm_export_options options = {.preset = -1};
    struct pm_error err = {""};
    if (pm_export_seed(session, &options, NULL, &err) != 0)
        fail_msg("%s", err.text);
    pm_session_close(session);
}

static void test_golden_files(void **state)
{
    char dir[600];
    struct mk mk;
    (void)state;
    mk_folder(dir, sizeof dir);
    make_small(&mk, dir);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export(dir);
    expect_file(dir, "moe_expert_selection.csv",
                "layer_idx,expert_id,selection_count,percentage\n"
                "1,0,4,50.00\n1,1,2,25.00\n1,2,1,12.50\n1,3,1,12.50\n"
                "2,0,1,50.00\n2,1,0,0.00\n2,2,0,0.00\n2,3,1,50.00\n");
    expect_file(dir, "moe_expert_coselection.csv",
                "layer_idx,expert_id_1,expert_id_2,coselection_count\n"
                "1,0,1,2\n1,0,2,1\n1,0,3,1\n2,0,3,1\n");
    /* 3, 2, 1, 0 of four experts: mean 1.5, deviation sqrt(1.25); then 1, 0, 0, 1 twice. */
    expect_file(dir, "moe_load_imbalance.csv",
                "layer_idx,timestamp_sec,std_dev,max_min_ratio\n"
                "1,1.000000,1.118,3.000\n1,2.000000,0.500,1.000\n2,2.000000,0.500,1.000\n");
    expect_file(dir, "moe_expert_timing.csv",
                "timestamp_sec,layer_idx,num_tokens,duration_ms\n"
                "1.234567,2,3,2.346\n");
    mk_remove(dir);
}

static void test_summary_and_report(void **state)
{
    char dir[600], path[700];
    struct mk mk;
    struct pm_buf buf;
    (void)state;
    mk_folder(dir, sizeof dir);
    make_small(&mk, dir);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export(dir);
    snprintf(path, sizeof path, "%s/moe_summary.json", dir);
    char *text = mk_read(path, NULL);
    assert_non_null(text);
    assert_non_null(strstr(text, "\"observable\": true"));
    assert_non_null(strstr(text,
                           "\"selections\": 8,\n      \"coverage_pct\": 100.00,\n"
                           "      \"mean\": 2.000,\n      \"std\": 1.225,\n      \"min\": 1,\n"
                           "      \"max\": 4,\n      \"load_balance_ratio\": 0.5000"));
    assert_non_null(strstr(text, "\"coverage_pct\": 50.00"));
    free(text);
    struct pm_session *session = mk_session(dir);
    pm_buf_init(&buf, 1 << 20);
    assert_int_equal(pm_moe_report_text(session, 0, 0, false, &buf), 0);
    assert_int_equal(pm_buf_add_char(&buf, '\0'), 0);
    assert_non_null(strstr(buf.data, "Experts (2 MoE layers)"));
    assert_non_null(strstr(buf.data, "2 of 8 experts were never chosen: layer/expert 2/1 2/2"));
    pm_buf_release(&buf);
    pm_session_close(session);
    mk_remove(dir);
}

static void test_no_file_where_the_profiler_is_off(void **state)
{
    char dir[600], path[700];
    struct mk mk;
    (void)state;
    mk_folder(dir, sizeof dir);
    make_small(&mk, dir);
    pm_recorder_attr(mk.rec, "setting.moe", "0");
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export(dir);
    snprintf(path, sizeof path, "%s/moe_summary.json", dir);
    assert_int_not_equal(access(path, F_OK), 0);
    mk_remove(dir);
}

/* Sums stay exact where the segments that held the first counts were taken again, because each
 * segment tells the sums so far; so does a record that found no room. */
static void test_sums_outlive_recycled_segments(void **state)
{
    enum { EXPERTS = 40, FLUSHES = 3000 };
    char dir[600];
    struct mk mk;
    struct pm_moe_sums sums;
    static int32_t row[EXPERTS];
    (void)state;
    mk_folder(dir, sizeof dir);
    open_recorder(&mk, dir, 8 * PM_SEGMENT_BYTES_MIN);
    pm_moe_model(0);
    struct pm_moe_slot *slot = add(0, 0, EXPERTS, 3, PM_MOE_HOST);
    pm_moe_record_layers(mk.rec, 0);
    for (unsigned i = 0; i < FLUSHES; i++) {
        row[0] = (int32_t)(i % EXPERTS), row[1] = (int32_t)((i + 7) % EXPERTS), row[2] = 5;
        const struct pm_moe_ids ids = ids32(row, 1, 3);
        pm_moe_count(slot, &ids, 0, 1);
        step(&mk, i);
        pm_moe_flush(mk.rec, MK_START_MONO + (uint64_t)(i + 1) * 1000000u, true);
        pm_recorder_round(mk.rec);
    }
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, true);
    struct pm_session *session = mk_session(dir);
    assert_true(pm_process_info(pm_session_process(session, 0))->recycled[PM_STREAM_CORE] > 0);
    assert_int_equal(pm_moe_walk(session, 0, 0, NULL, &sums), 0);
    assert_int_equal(sums.n_layers, 1);
    assert_int_equal(sums.layers[0].selections, 3 * FLUSHES);
    for (unsigned e = 0; e < EXPERTS; e++)
        assert_int_equal(sums.layers[0].n[e], slot->cells[PM_MOE_SELECTIONS].n[e]);
    for (uint32_t i = 0; i < pm_moe_pairs(EXPERTS); i++)
        assert_int_equal(sums.layers[0].pairs[i], slot->cells[PM_MOE_PAIRS].n[i]);
    pm_moe_sums_release(&sums);
    pm_session_close(session);
    mk_remove(dir);
}

static void test_layers_that_cannot_be_seen_are_never_empty(void **state)
{
    char dir[600];
    struct mk mk;
    struct pm_moe_sums sums;
    const char *why;
    (void)state;
    mk_folder(dir, sizeof dir);
    open_recorder(&mk, dir, 64u << 20);
    pm_moe_model(0);
    add(0, 0, 8, 2, PM_MOE_UNSEEN);
    pm_moe_record_layers(mk.rec, 0);
    pm_recorder_attr(mk.rec, "note.moe", "not observable: of a reason");
    step(&mk, 0);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_moe_walk(session, 0, 0, NULL, &sums), 0);
    assert_int_equal(pm_moe_observable(&sums, &why), 0);
    assert_string_equal(why, "not observable: of a reason");
    pm_moe_sums_release(&sums);
    pm_session_close(session);
    export(dir);
    expect_file(dir, "moe_expert_selection.csv",
                "layer_idx,expert_id,selection_count,percentage\n");
    mk_remove(dir);
}

/* The routers are there and steps ran, but nobody asked them: a kernel went round them. */
static void test_routers_that_were_never_asked(void **state)
{
    char dir[600];
    struct mk mk;
    struct pm_moe_sums sums;
    const char *why;
    (void)state;
    mk_folder(dir, sizeof dir);
    open_recorder(&mk, dir, 64u << 20);
    pm_moe_model(0);
    add(0, 0, 8, 2, PM_MOE_HOST);
    pm_moe_record_layers(mk.rec, 0);
    step(&mk, 0);
    pm_moe_flush(mk.rec, MK_START_MONO + 5, true);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_moe_walk(session, 0, 0, NULL, &sums), 0);
    assert_int_equal(pm_moe_observable(&sums, &why), 0);
    assert_non_null(strstr(why, "bypasses"));
    pm_moe_sums_release(&sums);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_ids_of_every_width_and_stride, fresh),
        cmocka_unit_test_setup(test_ids_that_are_no_expert_are_passed_over, fresh),
        cmocka_unit_test_setup(test_every_pair_has_a_cell_of_its_own, fresh),
        cmocka_unit_test_setup(test_pairs_have_a_ceiling, fresh),
        cmocka_unit_test_setup(test_handles_of_models_that_are_gone_lead_nowhere, fresh),
        cmocka_unit_test_setup(test_the_table_is_bounded, fresh),
        cmocka_unit_test_setup(test_golden_files, fresh),
        cmocka_unit_test_setup(test_summary_and_report, fresh),
        cmocka_unit_test_setup(test_no_file_where_the_profiler_is_off, fresh),
        cmocka_unit_test_setup(test_sums_outlive_recycled_segments, fresh),
        cmocka_unit_test_setup(test_layers_that_cannot_be_seen_are_never_empty, fresh),
        cmocka_unit_test_setup(test_routers_that_were_never_asked, fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
