/*
 * Layers without Python: what a module is by its name, where the time of nested modules goes, what
 * is recorded of it, and what a reader makes of that, in a window too.
 */
#include "make_session.h"

#include "probe/layer_sums.c"
#include "view/layer.h"
#include "view/view.h"

enum { T_WORKER, T_TIME, T_PASS, TABLES };
static const struct pm_schema *const tables[TABLES] = {[T_WORKER] = &mk_tables[MK_WORKER],
                                                       [T_TIME] = &pm_layer_time_schema,
                                                       [T_PASS] = &pm_layer_pass_schema};

static unsigned number_of(const struct pm_schema *schema)
{
    return schema == &pm_layer_time_schema ? T_TIME : T_PASS;
}

static uint64_t ns_of(uint32_t cell, unsigned phase)
{
    return state.cells[cell].sums[phase].ns;
}

static void test_each_moment_is_the_innermost_modules(void **arg)
{
    (void)arg;
    pm_layer_sums_reset();
    const uint32_t model = pm_layer_cell(PM_LAYER_OUTSIDE, PM_LAYER_OTHER);
    const uint32_t layer = pm_layer_cell(0, PM_LAYER_OTHER);
    const uint32_t attention = pm_layer_cell(0, PM_LAYER_ATTENTION);
    const uint32_t norm = pm_layer_cell(0, PM_LAYER_NORM);
    assert_int_equal(pm_layer_cell(0, PM_LAYER_NORM), norm);

    assert_false(pm_layer_enter(model, true, 5)); /* no step */
    pm_layer_step_begin(0, PM_PHASE_DECODE, false);
    assert_false(pm_layer_enter(norm, false, 5)); /* not inside of the model */
    assert_true(pm_layer_enter(model, true, 10));
    assert_false(pm_layer_enter(model, true, 11)); /* a pass is under way */
    assert_true(pm_layer_enter(layer, false, 20));
    assert_true(pm_layer_enter(attention, false, 25));
    assert_true(pm_layer_enter(norm, false, 30));
    pm_layer_leave(37);
    pm_layer_leave(50);
    pm_layer_leave(60);
    pm_layer_leave(100);
    pm_layer_step_end();
    pm_layer_leave(110); /* nothing is under way */
    assert_int_equal(ns_of(model, 1), 10 + 40);
    assert_int_equal(ns_of(layer, 1), 5 + 10);
    assert_int_equal(ns_of(attention, 1), 5 + 13);
    assert_int_equal(ns_of(norm, 1), 7);
    assert_int_equal(state.passes[1].ns, 90);
    assert_int_equal(state.passes[1].passes, 1);
    assert_int_equal(state.passes[1].unseen + state.passes[0].unseen, 0);

    pm_layer_step_begin(0, PM_PHASE_PREFILL, false);
    pm_layer_step_end();
    assert_int_equal(state.passes[0].unseen, 1);
}

static void test_depth_and_cells_have_an_end(void **arg)
{
    (void)arg;
    pm_layer_sums_reset();
    const uint32_t model = pm_layer_cell(PM_LAYER_OUTSIDE, PM_LAYER_OTHER);
    const uint32_t deep = pm_layer_cell(0, PM_LAYER_MLP);
    pm_layer_step_begin(0, PM_PHASE_DECODE, false);
    assert_true(pm_layer_enter(model, true, 0));
    for (uint64_t i = 1; i <= 2 * PM_LAYER_DEPTH_MAX; i++)
        assert_true(pm_layer_enter(deep, false, i));
    for (uint64_t i = 0; i <= 2 * PM_LAYER_DEPTH_MAX; i++)
        pm_layer_leave(100 + i);
    assert_int_equal(pm_layer_now.depth, 0);
    assert_int_equal(ns_of(model, 1) + ns_of(deep, 1), 100 + 2 * PM_LAYER_DEPTH_MAX);
    uint32_t last = 0;
    for (int32_t i = 0; i < (int32_t)PM_LAYER_CELLS_MAX && last != PM_LAYER_NONE; i += 97)
        last = pm_layer_cell(i, PM_LAYER_NORM);
    assert_false(pm_layer_enter(PM_LAYER_NONE, false, 1));
}

/* ---- to the files ---- */

static void step(struct mk *mk, uint64_t number)
{
    struct pm_worker_step *record = pm_recorder_reserve(mk->rec, T_WORKER);
    assert_non_null(record);
    *record = mk_worker_of(number, 1, 0, 1000000);
    pm_recorder_commit(mk->rec, record);
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    if (stream == PM_STREAM_CORE)
        pm_layer_flush(rec, MK_START_MONO, true, number_of);
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
                                          .keyframe = keyframe};
    struct pm_error err = {""};
    memset(mk, 0, sizeof *mk);
    snprintf(mk->dir, sizeof mk->dir, "%s", dir);
    if (pm_recorder_open(&mk->rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(mk);
    pm_recorder_identify(mk->rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk->rec, "setting.layer", "1");
}

static void pass(uint32_t model, uint32_t attention, uint64_t times)
{
    for (uint64_t i = 0; i < times; i++) {
        pm_layer_step_begin(0, PM_PHASE_DECODE, false);
        assert_true(pm_layer_enter(model, true, 0));
        assert_true(pm_layer_enter(attention, false, 400000));
        pm_layer_leave(1000000);
        pm_layer_leave(1000000);
        pm_layer_step_end();
    }
}

static void walk(const char *dir, struct pm_layers *ret_layers)
{
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_layer_walk(session, 0, 0, ret_layers), 0);
    ret_layers->hooks = NULL;
    pm_session_close(session);
}

static void test_the_newest_record_is_the_truth_also_where_older_ones_had_to_go(void **arg)
{
    (void)arg;
    char dir[256];
    struct mk mk;
    struct pm_layers layers;

    mk_folder(dir, sizeof dir);
    pm_layer_sums_reset();
    open_recorder(&mk, dir, 64 * PM_SEGMENT_BYTES_MIN);
    const uint32_t model = pm_layer_cell(PM_LAYER_OUTSIDE, PM_LAYER_OTHER);
    const uint32_t attention = pm_layer_cell(7, PM_LAYER_ATTENTION);
    pass(model, attention, 3);
    pm_layer_flush(mk.rec, MK_START_MONO, false, number_of);
    for (uint64_t i = 0; i < 400000; i++) /* the flush's segment has to go */
        step(&mk, i);
    pass(model, attention, 2);
    pm_layer_device(attention, 1, 4, 800);
    pm_layer_device_pass(1, 1000);
    pm_layer_flush(mk.rec, MK_START_MONO, false, number_of);
    pm_recorder_close(mk.rec);
    walk(dir, &layers);
    assert_int_equal(layers.n_rows, 2);
    assert_int_equal(layers.rows[0].layer, 7);
    assert_int_equal(layers.rows[1].layer, PM_LAYER_OUTSIDE);
    assert_int_equal(layers.all_passes, 5);
    assert_true(layers.device); /* the device's own times go before the host's */
    assert_int_equal(layers.passes[1], 1);
    assert_int_equal(layers.pass_ns[1], 1000);
    assert_int_equal(layers.rows[0].kinds[PM_LAYER_ATTENTION].calls[1], 4);
    assert_int_equal(layers.rows[0].kinds[PM_LAYER_ATTENTION].ns[1], 800);
    assert_int_equal(layers.kinds[PM_LAYER_ATTENTION].ns[1], 800);
    pm_layer_release(&layers);
    pm_layer_sums_reset();
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_moment_is_the_innermost_modules),
        cmocka_unit_test(test_depth_and_cells_have_an_end),
        cmocka_unit_test(test_the_newest_record_is_the_truth_also_where_older_ones_had_to_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
