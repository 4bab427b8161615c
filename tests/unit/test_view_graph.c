/*
 * The CUDA graph files: golden bytes, nothing seen, a probe that was off, detail that had to go,
 * two workers in one process; and the section of the reports.
 */
#include "make_session.h"

#include "../../src/probe/graph_schema.c" /* the probe's own schemas: pure C */
#include "base/settings.h"
#include "view/graph.h"
#include "view/view.h"

enum { G_CAPTURE, G_PASS, G_USAGE, G_WORKER };
static const struct pm_schema *const schemas[] = {&pm_graph_capture_schema, &pm_graph_pass_schema,
                                                  &pm_graph_usage_schema, &mk_tables[MK_WORKER]};

static const struct pm_graph_desc full8 = {.num_tokens = 8,
                                           .num_reqs = 8,
                                           .mode = PM_GRAPH_MODE_FULL,
                                           .uniform = 1,
                                           .holder = PM_GRAPH_HOLDER_WRAPPER};
static const struct pm_graph_desc pieces16 = {.num_tokens = 16,
                                              .num_reqs = -1,
                                              .mode = PM_GRAPH_MODE_PIECEWISE,
                                              .has_lora = 1,
                                              .holder = PM_GRAPH_HOLDER_WRAPPER};
static const struct pm_graph_desc draft8 = {.num_tokens = 8,
                                            .num_reqs = 8,
                                            .mode = PM_GRAPH_MODE_FULL,
                                            .uniform = 1,
                                            .holder = PM_GRAPH_HOLDER_SPECULATOR};
static const struct pm_graph_desc foreign = {.num_reqs = -1};

/* Replays that a keyframe tells, as the probe does. */
static uint64_t replays_so_far;

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    struct pm_graph_usage *fact =
        stream == PM_STREAM_CORE && replays_so_far > 0 ? pm_recorder_reserve(rec, G_USAGE) : NULL;
    if (fact == NULL)
        return;
    *fact = (struct pm_graph_usage){.replays = replays_so_far, .desc = full8};
    pm_recorder_commit(rec, fact);
}

static void open_graphs(struct mk *mk, const char *dir, uint64_t ceiling_bytes)
{
    struct pm_recorder_options options = {.session_dir = dir,
                                          .token = mk_token,
                                          .schemas = schemas,
                                          .n_schemas = sizeof schemas / sizeof *schemas,
                                          .ceiling_bytes = ceiling_bytes,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600,
                                          .keyframe = keyframe};
    struct pm_error err = {""};
    replays_so_far = 0;
    snprintf(mk->dir, sizeof mk->dir, "%s", dir);
    if (pm_recorder_open(&mk->rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(mk);
    pm_recorder_identify(mk->rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk->rec, "setting.cuda_graph", "1");
    pm_recorder_attr(mk->rec, "config.cudagraph_mode", "FULL_AND_PIECEWISE");
}

static uint64_t at(uint64_t ms)
{
    return MK_START_MONO + ms * MK_MS;
}

static void capture(struct mk *mk, struct pm_graph_desc desc, uint64_t ms, enum pm_graph_when when,
                    uint16_t instance)
{
    const struct pm_graph_capture fact = {.at_ns = at(ms),
                                          .dur_ns = 3 * MK_MS,
                                          .capture_ns = 2 * MK_MS,
                                          .desc = desc,
                                          .pieces = desc.mode == PM_GRAPH_MODE_PIECEWISE ? 33 : 1,
                                          .instance = instance,
                                          .when = (uint8_t)when};
    mk_put(mk, G_CAPTURE, &fact, sizeof fact);
}

static void pass(struct mk *mk, uint64_t step, struct pm_graph_desc desc,
                 enum pm_graph_outcome outcome, uint32_t tokens, uint16_t instance)
{
    const bool eager = outcome >= PM_GRAPH_EAGER || outcome == PM_GRAPH_CAPTURED;
    const struct pm_graph_pass fact = {
        .step = step,
        .at_ns = at(100 + step),
        .dur_ns = eager ? 0 : 40000 + (uint32_t)step * 500,
        .tokens = tokens,
        .padding =
            desc.num_tokens > tokens && outcome != PM_GRAPH_ASIDE ? desc.num_tokens - tokens : 0,
        .desc = desc,
        .pieces = eager                                  ? 0
                  : desc.mode == PM_GRAPH_MODE_PIECEWISE ? 33
                                                         : 1,
        .instance = instance,
        .outcome = (uint8_t)outcome};
    struct pm_worker_step worker = mk_worker_of(step, 0, 1, 1000000);
    worker.instance = instance;
    mk_put(mk, G_PASS, &fact, sizeof fact);
    if (outcome != PM_GRAPH_ASIDE)
        mk_put(mk, G_WORKER, &worker, sizeof worker);
}

static void export_to(const char *dir, struct pm_export_result *ret_result)
{
    struct pm_session *session = mk_session(dir);
    const struct pm_export_options options = {.out_dir = NULL, .preset = PM_PRESET_FULL};
    struct pm_error err = {""};
    if (pm_export_seed(session, &options, ret_result, &err) != 0)
        fail_msg("%s", err.text);
    pm_session_close(session);
}

static void expect_file(const char *dir, const char *name, const char *expected)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = mk_read(path, NULL);
    if (expected == NULL) {
        assert_null(text);
        return;
    }
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

#define CAPTURES "runtime_mode,num_tokens,num_reqs,uniform,has_lora,capture_time_sec\n"
#define USAGE "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\n"
#define TIMELINE "timestamp_sec,descriptor,duration_ms\n"

static void golden(void **state)
{
    struct pm_export_result result;
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_graphs(&mk, dir, 64u << 20);
    capture(&mk, pieces16, 5, PM_GRAPH_STARTUP, 0);
    capture(&mk, full8, 9, PM_GRAPH_STARTUP, 0);
    capture(&mk, draft8, 10, PM_GRAPH_STARTUP, 0);
    capture(&mk, foreign, 11, PM_GRAPH_STARTUP, 0);
    for (uint64_t step = 0; step < 3; step++)
        pass(&mk, step, full8, PM_GRAPH_FULL, 7, 0);
    pass(&mk, 3, draft8, PM_GRAPH_ASIDE, 0, 0);
    pass(&mk, 3, (struct pm_graph_desc){.num_tokens = 40, .num_reqs = -1}, PM_GRAPH_TOO_LARGE, 40,
         0);
    capture(&mk, full8, 200, PM_GRAPH_AGAIN, 0);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export_to(dir, &result);
    expect_file(dir, "cuda_graph_captures.csv",
                CAPTURES "PIECEWISE,16,None,False,True,0.005000\n"
                         "FULL,8,8,True,False,0.009000\n"
                         "FULL,8,8,True,False,0.010000\n");
    expect_file(dir, "cuda_graph_usage.csv",
                USAGE "FULL,8,8,True,False,3\n"
                      "FULL,8,8,True,False,1\n"
                      "PIECEWISE,16,None,False,True,0\n");
    expect_file(dir, "cuda_graph_timeline.csv",
                TIMELINE "0.100000,FULL|8|8|True|False,0.040\n"
                         "0.101000,FULL|8|8|True|False,0.041\n"
                         "0.102000,FULL|8|8|True|False,0.041\n"
                         "0.103000,FULL|8|8|True|False,0.042\n");
    mk_remove(dir);
}

static void nothing_seen_gives_headers(void **state)
{
    struct pm_export_result result;
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_graphs(&mk, dir, 64u << 20);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export_to(dir, &result);
    expect_file(dir, "cuda_graph_captures.csv", CAPTURES);
    expect_file(dir, "cuda_graph_usage.csv", USAGE);
    expect_file(dir, "cuda_graph_timeline.csv", TIMELINE);

    struct pm_session *session = mk_session(dir);
    struct pm_buf buf;
    pm_buf_init(&buf, 1u << 20);
    assert_int_equal(pm_graph_report_text(session, 0, 0, false, &buf), 0);
    assert_int_equal(buf.used, 0);
    pm_buf_release(&buf);
    pm_session_close(session);
    mk_remove(dir);
}

static void off_has_no_files(void **state)
{
    struct pm_export_result result;
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_graphs(&mk, dir, 64u << 20);
    pm_recorder_attr(mk.rec, "setting.cuda_graph", "0");
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    export_to(dir, &result);
    expect_file(dir, "cuda_graph_captures.csv", NULL);
    expect_file(dir, "cuda_graph_usage.csv", NULL);
    expect_file(dir, "cuda_graph_timeline.csv", NULL);
    mk_remove(dir);
}

static void workers_of_one_process_are_kept_apart(void **state)
{
    struct pm_graph_sums sums;
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_graphs(&mk, dir, 64u << 20);
    capture(&mk, full8, 1, PM_GRAPH_STARTUP, 0);
    capture(&mk, full8, 2, PM_GRAPH_STARTUP, 1);
    capture(&mk, pieces16, 3, PM_GRAPH_RUNTIME, 1);
    pass(&mk, 0, full8, PM_GRAPH_FULL, 8, 0);
    pass(&mk, 1, full8, PM_GRAPH_FULL, 8, 0);
    pass(&mk, 0, pieces16, PM_GRAPH_PIECEWISE, 9, 1);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_session_engine_count(session), 1);
    assert_int_equal(pm_session_engine(session, 0)->n_ranks, 2);
    assert_int_equal(pm_graph_walk(session, 0, 0, NULL, NULL, &sums), 0);
    assert_int_equal(sums.n_rows, 1);
    assert_int_equal(sums.replays, 2);
    pm_graph_sums_release(&sums);
    assert_int_equal(pm_graph_walk(session, 0, 1, NULL, NULL, &sums), 0);
    assert_int_equal(sums.n_rows, 2);
    assert_int_equal(sums.replays, 1);
    assert_int_equal(sums.captures_at_runtime, 1);
    assert_int_equal(sums.padding[PM_GRAPH_PIECEWISE], 7);
    pm_graph_sums_release(&sums);
    assert_int_equal(pm_graph_walk(session, 5, 0, NULL, NULL, &sums), 0);
    assert_int_equal(sums.n_rows, 0);
    pm_graph_sums_release(&sums);
    pm_session_close(session);
    mk_remove(dir);
}

/* Counts stay exact where most steps had to go: captures are kept, each segment tells the replays
 * before it, and the totals know what became of every step. */
static void counts_are_exact_where_steps_had_to_go(void **state)
{
    const uint64_t steps = 20000;
    struct pm_graph_sums sums;
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_graphs(&mk, dir, 6 * PM_SEGMENT_BYTES_MIN);
    capture(&mk, full8, 1, PM_GRAPH_STARTUP, 0);
    for (uint64_t step = 0; step < steps; step++) {
        const bool eager = step % 4 == 3;
        pass(&mk, step, full8, eager ? PM_GRAPH_DISPATCHED : PM_GRAPH_FULL, 6, 0);
        replays_so_far += !eager;
    }
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_graph_walk(session, 0, 0, NULL, NULL, &sums), 0);
    assert_true(sums.recycled);
    assert_true(sums.held > 0 && sums.held < steps / 2);
    assert_int_equal(sums.n_rows, 1);
    assert_int_equal(sums.rows[0].replays, steps * 3 / 4);
    assert_int_equal(sums.replays, steps * 3 / 4);
    assert_true(sums.from_totals);
    assert_int_equal(sums.passes[PM_GRAPH_FULL], steps * 3 / 4);
    assert_int_equal(sums.passes[PM_GRAPH_DISPATCHED], steps / 4);
    assert_int_equal(sums.padding[PM_GRAPH_FULL], 2 * steps * 3 / 4);
    assert_int_equal(sums.captures, 1);
    pm_graph_sums_release(&sums);
    pm_session_close(session);
    mk_remove(dir);
}

static void the_report_names_what_dominates(void **state)
{
    char dir[300];
    struct mk mk;
    struct pm_buf buf;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_graphs(&mk, dir, 64u << 20);
    capture(&mk, full8, 1, PM_GRAPH_STARTUP, 0);
    capture(&mk, pieces16, 2, PM_GRAPH_RUNTIME, 0);
    for (uint64_t step = 0; step < 8; step++)
        pass(&mk, step, full8, PM_GRAPH_FULL, 6, 0);
    pass(&mk, 8, pieces16, PM_GRAPH_PIECEWISE, 16, 0);
    pass(&mk, 9, pieces16, PM_GRAPH_NOT_UNIFORM, 12, 0);
    mk_close(&mk, 77, 1, MK_START_MONO + 1000, false);
    struct pm_session *session = mk_session(dir);
    pm_buf_init(&buf, 1u << 20);
    assert_int_equal(pm_graph_report_text(session, 0, 0, false, &buf), 0);
    assert_string_equal(
        pm_buf_text(&buf),
        "\nCUDA graphs (FULL_AND_PIECEWISE)\n"
        "  captured    2 in 0.00 s, 1 of them at run time\n"
        "  steps       90.0 % of 10 from a graph: 8 whole, 1 in pieces\n"
        "  eager       1: graphs of this size take only uniform decode batches\n"
        "  padding     16 of 80 tokens in graphs for nothing (20.0 %)\n"
        "  graphs      2 of 2 were replayed; one has most of the replays\n"
        "              FULL|8|8|True|False                            8    88.9 %\n"
        "              PIECEWISE|16|None|False|True                   1    11.1 %\n");
    pm_buf_release(&buf);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(nothing_seen_gives_headers),
        cmocka_unit_test(off_has_no_files),
        cmocka_unit_test(workers_of_one_process_are_kept_apart),
        cmocka_unit_test(counts_are_exact_where_steps_had_to_go),
        cmocka_unit_test(the_report_names_what_dominates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
