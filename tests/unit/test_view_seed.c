/*
 * The seeds' files: golden bytes of a made-up session, presets, probes that are off, engines and
 * ranks, detail that had to go, failures of writing.
 */
#include "make_session.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/settings.h"
#include "view/view.h"

/* A session with every probe off but the one for forward passes. */
static void open_forward(struct mk *mk, const char *dir, uint64_t ceiling_bytes)
{
    static const struct {
        const char *field, *suffix;
    } settings[] = {
#define X(field, type, suffix, ...) {#field, suffix},
#include "base/settings.def"
#undef X
    };
    mk_open(mk, dir, ceiling_bytes, false);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char key[96];
        snprintf(key, sizeof key, "setting.%s", settings[i].field);
        if (strncmp(settings[i].suffix, "ENABLE_", 7) == 0 ||
            strcmp(settings[i].field, "custom") == 0)
            pm_recorder_attr(mk->rec, key,
                             strcmp(settings[i].field, "forward_pass") == 0 ? "1" : "0");
    }
}

/* One process that schedules and works: 2 prefills, 3 decodes, an empty step. */
static void make_small(struct mk *mk, const char *dir, const char *preset)
{
    static const uint32_t model_ns[] = {45230400, 20000000, 12450000, 12500500, 0, 13000000};
    open_forward(mk, dir, 64u << 20);
    pm_recorder_identify(mk->rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk->rec, "setting.preset", preset);
    pm_recorder_attr(mk->rec, "setting.forward_pass", "1");
    pm_recorder_attr(mk->rec, "model", "tiny \"model\"");
    pm_recorder_attr(mk->rec, "version.vllm", "0.32.0");
    pm_recorder_attr(mk->rec, "config.max_num_seqs", "256");
    pm_recorder_attr(mk->rec, "config.enforce_eager", "0");
    pm_recorder_attr(mk->rec, "config.cudagraph_mode", "PIECEWISE");
    pm_recorder_attr(mk->rec, "parallel.tensor", "1");
    pm_recorder_attr(mk->rec, "hook.a.b:C.d", "patched");
    pm_recorder_attr(mk->rec, "fired.a.b:C.d", "1500000000");
    pm_recorder_attr(mk->rec, "hook.a.b:C.e", "missing");
    for (uint64_t step = 0; step < 6; step++) {
        const uint32_t p = step < 2, d = step == 0 || step == 4 ? 0 : 2;
        mk_sched(mk, mk_sched_of(step, p, d));
        mk_worker(mk, mk_worker_of(step, p, d, model_ns[step]));
    }
    atomic_store(&pm_recorder_head(mk->rec)->hook_calls, 18);
    atomic_store(&pm_recorder_head(mk->rec)->hook_ns, 2500);
    mk_close(mk, 77, 1, MK_START_MONO + 1000, false);
}

static void export_ok(const char *dir, const char *out, int preset,
                      struct pm_export_result *ret_result)
{
    struct pm_session *session = mk_session(dir);
    struct pm_export_options options = {.out_dir = out, .preset = preset};
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

static void expect_inside(const char *dir, const char *name, const char *words)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = mk_read(path, NULL);
    assert_non_null(text);
    if (strstr(text, words) == NULL)
        fail_msg("%s does not hold %s: %s", name, words, text);
    free(text);
}

static unsigned count_entries(const char *dir)
{
    unsigned count = 0;
    DIR *open = opendir(dir);
    assert_non_null(open);
    while (readdir(open) != NULL)
        count++;
    closedir(open);
    return count - 2;
}

/* Step n: schedule() at (n + 1) 10 ms, the model 1.2 ms later. */
static const char full_csv[] =
    "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,throughput_tokens_per_sec\n"
    "0.011200,prefill,1,100,45.230,2210.9\n"
    "0.021200,prefill,3,102,20.000,5100.0\n"
    "0.031200,decode,2,2,12.450,160.6\n"
    "0.041200,decode,2,2,12.501,160.0\n"
    "0.061200,decode,2,2,13.000,153.8\n";
static const char simple_csv[] =
    "timestamp_sec,phase,batch_size,num_tokens,duration_ms,throughput_tokens_per_sec\n"
    "0.011,prefill,1,100,45.230,2210.9\n"
    "0.021,prefill,3,102,20.000,5100.0\n"
    "0.031,decode,2,2,12.450,160.6\n"
    "0.041,decode,2,2,12.501,160.0\n"
    "0.061,decode,2,2,13.000,153.8\n";

static void golden_full(void **state)
{
    char dir[300];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir, "full");
    for (int again = 0; again < 2; again++) {
        export_ok(dir, NULL, -1, &result);
        assert_int_equal(result.files, 5);
        assert_int_equal(result.rows, 5);
        assert_int_equal(result.preset, PM_PRESET_FULL);
        assert_int_equal(count_entries(dir), 7); /* session, records and the five */
        expect_file(dir, "forward_pass_timing.csv", full_csv);
        expect_file(dir, "forward_pass_summary.json",
                    "{\n"
                    "  \"prefill\": {\n"
                    "    \"count\": 2,\n"
                    "    \"mean_ms\": 32.615,\n"
                    "    \"std_ms\": 12.615,\n"
                    "    \"min_ms\": 20.000,\n"
                    "    \"max_ms\": 45.230,\n"
                    "    \"p50_ms\": 32.615,\n"
                    "    \"p95_ms\": 43.969,\n"
                    "    \"p99_ms\": 44.978\n"
                    "  },\n"
                    "  \"decode\": {\n"
                    "    \"count\": 3,\n"
                    "    \"mean_ms\": 12.650,\n"
                    "    \"std_ms\": 0.248,\n"
                    "    \"min_ms\": 12.450,\n"
                    "    \"max_ms\": 13.000,\n"
                    "    \"p50_ms\": 12.501,\n"
                    "    \"p95_ms\": 12.950,\n"
                    "    \"p99_ms\": 12.990\n"
                    "  }\n"
                    "}\n");
    }
    mk_remove(dir);
}

static void golden_simple(void **state)
{
    char dir[300], out[400];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir, "simple");
    snprintf(out, sizeof out, "%s/out", dir);
    export_ok(dir, out, -1, &result);
    assert_int_equal(result.files, 2);
    assert_int_equal(result.preset, PM_PRESET_SIMPLE);
    assert_string_equal(result.out_dir, out);
    expect_file(out, "forward_pass_timing.csv", simple_csv);
    expect_inside(out, "summary.json",
                  "\"prefill\": {\n    \"count\": 2,\n    \"mean_ms\": 32.615,\n    "
                  "\"min_ms\": 20.000,\n");
    expect_file(out, "metadata.json", NULL);
    /* The other preset on demand. */
    export_ok(dir, out, PM_PRESET_FULL, &result);
    expect_file(out, "forward_pass_timing.csv", full_csv);
    mk_remove(dir);
}

static void metadata_completes_what_was_there(void **state)
{
    char dir[300], path[400];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir, "full");
    snprintf(path, sizeof path, "%s/metadata.json", dir);
    static const char old[] =
        "{\"start\": \"old\", \"mine\": {\"a\": [1, 2.5e3, \"}\"]}, \"end\": null}";
    mk_write(path, old, strlen(old));
    for (int again = 0; again < 2; again++) {
        export_ok(dir, NULL, -1, &result);
        expect_inside(dir, "metadata.json", "\"mine\": {\"a\": [1, 2.5e3, \"}\"]}\n}\n");
        expect_inside(dir, "metadata.json", "\"state\": \"ended\",\n  \"start\": \"2026-11-");
        expect_inside(dir, "metadata.json", "\"duration_sec\": 10.000001,");
        expect_inside(dir, "metadata.json", "\"model\": \"tiny \\\"model\\\"\",");
        expect_inside(dir, "metadata.json", "\"vllm\": \"0.32.0\"");
        expect_inside(dir, "metadata.json",
                      "\"engine_config\": {\n    \"max_num_seqs\": 256,\n    \"enforce_eager\": "
                      "false,\n    \"cudagraph_mode\": \"PIECEWISE\"\n  },");
        expect_inside(dir, "metadata.json",
                      "\"role\": \"engine+worker\",\n      \"engine\": 0,\n"
                      "      \"rank\": 0,\n      \"pid\": 77,");
        expect_inside(dir, "metadata.json", "\"ended\": \"closed\"");
        expect_inside(dir, "metadata.json",
                      "\"a.b:C.d\": {\n      \"state\": \"patched\",\n      "
                      "\"fired\": true,\n      \"first_fired\": \"2026-11-");
        expect_inside(dir, "metadata.json",
                      "\"a.b:C.e\": {\n      \"state\": \"missing\",\n      "
                      "\"fired\": false,\n      \"first_fired\": null");
        expect_inside(dir, "metadata.json", "\"forward_pass\": true");
        expect_inside(dir, "metadata.json", "\"hook_calls\": 18,\n    \"hook_ms\": 0.003,");
        expect_inside(dir, "metadata.json", "\"percentiles\": \"exact\"");
        expect_inside(dir, "metadata.json", "\"matched\": 5,");
    }
    /* Half a file is not merged. */
    mk_write(path, old, strlen(old) - 9);
    export_ok(dir, NULL, -1, &result);
    char *text = mk_read(path, NULL);
    assert_null(strstr(text, "mine"));
    free(text);
    mk_remove(dir);
}

static void a_probe_that_is_off_has_no_files(void **state)
{
    char dir[300], path[400];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_forward(&mk, dir, 64u << 20);
    pm_recorder_attr(mk.rec, "setting.forward_pass", "0");
    mk_worker(&mk, mk_worker_of(0, 0, 1, 1000));
    mk_close(&mk, 77, 1, MK_START_MONO, true);
    snprintf(path, sizeof path, "%s/forward_pass_summary.json", dir);
    mk_write(path, "theirs", 6);
    export_ok(dir, NULL, -1, &result);
    expect_file(dir, "forward_pass_timing.csv", NULL);
    expect_file(dir, "forward_pass_summary.json", "theirs");
    expect_inside(dir, "metadata.json", "\"forward_pass\": false");
    mk_remove(dir);
}

static void nothing_seen_gives_headers(void **state)
{
    char dir[300];
    struct pm_export_result result;
    (void)state;

    mk_folder(dir, sizeof dir); /* not even a process */
    export_ok(dir, NULL, -1, &result);
    expect_file(dir, "forward_pass_timing.csv",
                "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,"
                "throughput_tokens_per_sec\n");
    expect_file(dir, "forward_pass_summary.json", "{}\n");
    expect_inside(dir, "metadata.json", "\"state\": \"empty\"");
    assert_int_equal(result.rows, 0);
    mk_remove(dir);
}

static void passes_without_a_time_have_empty_fields(void **state)
{
    char dir[300];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_forward(&mk, dir, 64u << 20);
    struct pm_worker_step fact = mk_worker_of(0, 0, 3, 90000);
    fact.flags |= PM_WORKER_DEVICE | PM_WORKER_ASYNC; /* its output never became known */
    mk_worker(&mk, fact);
    fact = mk_worker_of(1, 1, 0, 0);
    fact.flags = PM_WORKER_FAILED; /* raised before the model ran */
    fact.model_ns_at = 0;
    mk_worker(&mk, fact);
    mk_close(&mk, 77, 1, MK_START_MONO, true);
    export_ok(dir, NULL, -1, &result);
    expect_file(dir, "forward_pass_timing.csv",
                "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,"
                "throughput_tokens_per_sec\n"
                "0.011200,decode,3,3,,\n");
    expect_file(dir, "forward_pass_summary.json", "{}\n");
    expect_inside(dir, "metadata.json", "\"without_time\": 1,");
    mk_remove(dir);
}

static void other_ranks_have_their_own_folders(void **state)
{
    char dir[300], path[500];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    for (int engine = 0; engine < 2; engine++) {
        open_forward(&mk, dir, 64u << 20);
        pm_recorder_identify(mk.rec, PM_ROLE_ENGINE, engine, -1);
        pm_recorder_attr(mk.rec, "parallel.tensor", "1");
        pm_recorder_attr(mk.rec, "parallel.pipeline", "2"); /* rank 1 samples */
        mk_sched(&mk, mk_sched_of(0, 0, 1));
        mk_close(&mk, 20 + (uint32_t)engine, 1, MK_START_MONO + (uint64_t)engine, true);
        for (int rank = 0; rank < 2; rank++) {
            open_forward(&mk, dir, 64u << 20);
            pm_recorder_identify(mk.rec, PM_ROLE_WORKER, engine, rank);
            mk_worker(&mk, mk_worker_of(0, 0, 1, (uint32_t)(1000000 * (1 + 2 * engine + rank))));
            mk_close(&mk, (uint32_t)(30 + 2 * engine + rank), 20 + (uint32_t)engine,
                     MK_START_MONO + 5, true);
        }
    }
    export_ok(dir, NULL, -1, &result);
    assert_int_equal(result.files, 17);
    assert_int_equal(result.rows, 4);
    expect_inside(dir, "forward_pass_timing.csv", "0.011200,decode,1,1,2.000,500.0\n");
    snprintf(path, sizeof path, "%s/engine_0", dir);
    assert_int_equal(count_entries(path), 1);
    expect_inside(path, "rank_0/forward_pass_timing.csv", ",1.000,1000.0\n");
    snprintf(path, sizeof path, "%s/engine_1", dir);
    expect_inside(path, "rank_0/forward_pass_timing.csv", ",3.000,333.3\n");
    expect_inside(path, "rank_1/forward_pass_summary.json", "\"mean_ms\": 4.000");
    mk_remove(dir);
}

static void old_steps_that_went_are_in_the_summary(void **state)
{
    char dir[300], path[400];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_forward(&mk, dir, 1u << 20);
    pm_recorder_identify(mk.rec, PM_ROLE_WORKER, 0, 0);
    for (uint64_t step = 0; step < 20000; step++) {
        mk_worker(&mk, mk_worker_of(step, 0, 1, 1000000 + (uint32_t)step * 100));
        if (step % 100 == 0)
            pm_recorder_round(mk.rec);
    }
    mk_close(&mk, 77, 1, MK_START_MONO, false);
    export_ok(dir, NULL, -1, &result);
    assert_true(result.rows < 20000);
    expect_inside(dir, "forward_pass_summary.json", "\"count\": 20000,\n    \"mean_ms\": 2.000,");
    expect_inside(dir, "forward_pass_summary.json",
                  "\"percentiles\": \"histogram\",\n  \"percentiles_error_pct\": 4.43\n}\n");
    expect_inside(dir, "metadata.json", "\"percentiles\": \"histogram\"");
    snprintf(path, sizeof path, "%s/forward_pass_summary.json", dir);
    char *text = mk_read(path, NULL);
    const char *p50 = strstr(text, "\"p50_ms\": ");
    assert_non_null(p50);
    const double value = strtod(p50 + 10, NULL);
    assert_true(value > 2.0 * 0.9557 && value < 2.0 * 1.0443);
    free(text);
    mk_remove(dir);
}

/* The old file stays, nothing half-written is left, one sentence. */
static void a_failed_write_keeps_the_old_file(void **state)
{
    char dir[300], path[400];
    struct pm_export_options options = {.preset = -1};
    struct pm_error err = {""};
    struct rlimit none = {.rlim_cur = 20, .rlim_max = RLIM_INFINITY}, before;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir, "full");
    snprintf(path, sizeof path, "%s/forward_pass_timing.csv", dir);
    mk_write(path, "old", 3);
    struct pm_session *session = mk_session(dir);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    const int rc = pm_export_seed(session, &options, NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(rc < 0);
    assert_non_null(strstr(err.text, "forward_pass_timing.csv: cannot be written"));
    expect_file(dir, "forward_pass_timing.csv", "old");
    assert_int_equal(count_entries(dir), 3);
    pm_session_close(session);
    mk_remove(dir);
}

static void leftovers_of_a_killed_export_go(void **state)
{
    char dir[300], path[400];
    struct pm_export_result result;
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir, "full");
    snprintf(path, sizeof path, "%s/.pm-export-2147483646-summary.json", dir);
    mk_write(path, "half", 4);
    snprintf(path, sizeof path, "%s/.pm-export-%d-other.csv", dir, (int)getppid());
    mk_write(path, "at work", 7);
    export_ok(dir, NULL, -1, &result);
    assert_int_equal(count_entries(dir), 8);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_full),
        cmocka_unit_test(golden_simple),
        cmocka_unit_test(metadata_completes_what_was_there),
        cmocka_unit_test(a_probe_that_is_off_has_no_files),
        cmocka_unit_test(nothing_seen_gives_headers),
        cmocka_unit_test(passes_without_a_time_have_empty_fields),
        cmocka_unit_test(other_ranks_have_their_own_folders),
        cmocka_unit_test(old_steps_that_went_are_in_the_summary),
        cmocka_unit_test(a_failed_write_keeps_the_old_file),
        cmocka_unit_test(leftovers_of_a_killed_export_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
