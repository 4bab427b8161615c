/*
 * The KV cache's files: golden bytes, nothing seen, detail that had to go, several schedulers in
 * one process, files with fewer fields; and the section of the reports.
 */
#include "make_session.h"

#include "base/settings.h"
#include "session/kv_facts.h"
#include "session/kv_schema.h"
#include "view/kv.h"
#include "view/view.h"

enum { KV_STEP, KV_EVICTION };

static void open_with(struct mk *mk, const char *dir, const struct pm_schema *const *schemas,
                      size_t n_schemas, uint64_t ceiling_bytes)
{
    struct pm_recorder_options options = {.session_dir = dir,
                                          .token = mk_token,
                                          .schemas = schemas,
                                          .n_schemas = n_schemas,
                                          .ceiling_bytes = ceiling_bytes,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600};
    struct pm_error err = {""};
    snprintf(mk->dir, sizeof mk->dir, "%s", dir);
    if (pm_recorder_open(&mk->rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(mk);
    pm_recorder_identify(mk->rec, PM_ROLE_ENGINE, 0, 0);
    pm_recorder_attr(mk->rec, "setting.kv_cache", "1");
    pm_recorder_attr(mk->rec, "setting.forward_pass", "0");
}

static void open_kv(struct mk *mk, const char *dir, uint64_t ceiling_bytes)
{
    static const struct pm_schema *const schemas[] = {&pm_kv_step_schema, &pm_kv_eviction_schema};
    open_with(mk, dir, schemas, 2, ceiling_bytes);
}

/* Step n, at (n + 1) 10 ms. */
static struct pm_kv_step step_of(uint64_t n, uint32_t used, uint32_t peak, uint16_t instance)
{
    return (struct pm_kv_step){.step = n,
                               .at_ns = MK_START_MONO + (n + 1) * 10 * MK_MS,
                               .total = 39,
                               .used = used,
                               .evictable = 3,
                               .peak = peak,
                               .allocated = 5,
                               .revived = 1,
                               .freed = 4,
                               .evicted = 2,
                               .queried_tokens = 100,
                               .hit_tokens = 25,
                               .requeried_tokens = 7,
                               .rehit_tokens = 6,
                               .instance = instance,
                               .flags = PM_KV_CACHING};
}

static void put_step(struct mk *mk, struct pm_kv_step step)
{
    mk_put(mk, KV_STEP, &step, sizeof step);
}

static void put_eviction(struct mk *mk, uint64_t at_ms, uint64_t lifetime_ns, uint64_t idle_ns)
{
    struct pm_kv_eviction eviction = {.at_ns = MK_START_MONO + at_ms * MK_MS,
                                      .lifetime_ns = lifetime_ns,
                                      .idle_ns = idle_ns,
                                      .block = 7};
    mk_put(mk, KV_EVICTION, &eviction, sizeof eviction);
}

static void export_files(const char *dir, int preset)
{
    struct pm_session *session = mk_session(dir);
    struct pm_export_options options = {.preset = preset};
    struct pm_error err = {""};
    if (pm_export_seed(session, &options, NULL, &err) != 0)
        fail_msg("%s", err.text);
    pm_session_close(session);
}

static char *read_file(const char *dir, const char *name)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return mk_read(path, NULL);
}

static void expect_file(const char *dir, const char *name, const char *expected)
{
    char *text = read_file(dir, name);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

static void expect_inside(const char *dir, const char *name, const char *words)
{
    char *text = read_file(dir, name);
    assert_non_null(text);
    if (strstr(text, words) == NULL)
        fail_msg("%s does not hold \"%s\":\n%s", name, words, text);
    free(text);
}

static void make_small(struct mk *mk, const char *dir)
{
    open_kv(mk, dir, 64u << 20);
    put_step(mk, step_of(0, 0, 0, 0));
    put_step(mk, step_of(1, 39, 39, 0));
    put_eviction(mk, 25, 2500000000u, 500000000u);
    put_eviction(mk, 26, 0, 0); /* its block was given out before the probe was there */
    put_step(mk, step_of(2, 13, 39, 0));
    mk_close(mk, 77, 1, MK_START_MONO, false);
}

static void golden(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir);
    for (int again = 0; again < 2; again++) {
        export_files(dir, PM_PRESET_FULL);
        expect_file(dir, "kv_cache_usage.csv",
                    "timestamp_sec,usage_pct,num_blocks,total_blocks\n"
                    "0.010000,0.00,0,39\n"
                    "0.020000,100.00,39,39\n"
                    "0.030000,33.33,13,39\n");
        expect_file(dir, "kv_cache_evictions.csv",
                    "timestamp_sec,lifetime_sec,idle_sec\n"
                    "0.025000,2.500000,0.500000\n"
                    "0.026000,,\n");
        expect_file(dir, "kv_cache_summary.txt",
                    "KV cache summary\n"
                    "================\n"
                    "\n"
                    "Blocks\n"
                    "  Total blocks:           39\n"
                    "  Allocations:            15\n"
                    "  Deallocations:          12\n"
                    "  Taken back by a hit:    3\n"
                    "  In use at the end:      13\n"
                    "  Free but cached then:   3\n"
                    "\n"
                    "Usage\n"
                    "  Steps:                  3\n"
                    "  Mean usage:             44.44 %\n"
                    "  Peak blocks:            39\n"
                    "  Peak usage:             100.00 %\n"
                    "\n"
                    "Evictions\n"
                    "  Evictions:              6\n"
                    "  Mean lifetime:          2.500000 s\n"
                    "  Mean idle time:         0.500000 s\n"
                    "  Dropped by resets:      0\n"
                    "\n"
                    "Prefix cache\n"
                    "  Prefix caching:         on\n"
                    "  Queried tokens:         300\n"
                    "  Hit tokens:             75\n"
                    "  Hit rate:               25.00 %\n"
                    "  Queried again:          21\n"
                    "  Hit again:              18\n"
                    "\n"
                    "4 evictions came too fast to be written one by one; their number is right, "
                    "the means are of the others.\n");
    }
    mk_remove(dir);
}

static void nothing_seen_has_headers_and_keys(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_kv(&mk, dir, 64u << 20);
    mk_close(&mk, 77, 1, MK_START_MONO, false);
    export_files(dir, PM_PRESET_FULL);
    expect_file(dir, "kv_cache_usage.csv", "timestamp_sec,usage_pct,num_blocks,total_blocks\n");
    expect_file(dir, "kv_cache_evictions.csv", "timestamp_sec,lifetime_sec,idle_sec\n");
    expect_inside(dir, "kv_cache_summary.txt", "Total blocks:           0\n");
    expect_inside(dir, "kv_cache_summary.txt", "Mean lifetime:          n/a\n");
    expect_inside(dir, "kv_cache_summary.txt", "Peak usage:             n/a\n");
    mk_remove(dir);
}

static void no_files_where_it_was_off_or_the_preset_is_simple(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    for (int off = 0; off < 2; off++) {
        mk_folder(dir, sizeof dir);
        open_kv(&mk, dir, 64u << 20);
        pm_recorder_attr(mk.rec, "setting.kv_cache", off ? "0" : "1");
        mk_close(&mk, 77, 1, MK_START_MONO, false);
        export_files(dir, off ? PM_PRESET_FULL : PM_PRESET_SIMPLE);
        assert_null(read_file(dir, "kv_cache_usage.csv"));
        assert_null(read_file(dir, "kv_cache_evictions.csv"));
        assert_null(read_file(dir, "kv_cache_summary.txt"));
        mk_remove(dir);
    }
}

#define MANY 30000

static void put_many(struct mk *mk, uint16_t instance)
{
    for (uint64_t n = 0; n < MANY; n++) {
        put_step(mk, step_of(n, n % 2 ? 30 : 10, n < 5 ? 10 : 30, instance));
        put_eviction(mk, n * 10, 4000000000u, 1000000000u);
        put_eviction(mk, n * 10, 2000000000u, 1000000000u);
        if (n % 100 == 0)
            pm_recorder_round(mk->rec);
    }
}

static void the_summary_counts_what_had_to_go(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_kv(&mk, dir, 1u << 20);
    put_many(&mk, 0);
    mk_close(&mk, 77, 1, MK_START_MONO, false);

    struct pm_session *session = mk_session(dir);
    struct pm_kv_sums sums;
    assert_int_equal(pm_kv_walk(session, 0, NULL, NULL, &sums), 0);
    assert_true(sums.recycled && sums.from_totals);
    assert_true(sums.rows > 0 && sums.rows < MANY);
    assert_true(sums.eviction_rows > 0 && sums.eviction_rows < 2 * MANY);
    assert_int_equal(sums.steps, MANY);
    assert_int_equal(sums.allocated, 5 * MANY);
    assert_int_equal(sums.freed, 4 * MANY);
    assert_int_equal(sums.evicted, 2 * MANY);
    assert_int_equal(sums.hit_tokens, 25 * MANY);
    assert_int_equal(sums.peak, 30);
    assert_int_equal(sums.timed, 2 * MANY);
    assert_true((uint64_t)(sums.lifetime_ns / sums.timed) == 3000000000u);
    assert_true((uint64_t)(sums.idle_ns / sums.timed) == 1000000000u);
    assert_true(pm_kv_mean_pct(&sums) > 51.28 && pm_kv_mean_pct(&sums) < 51.29); /* 20 of 39 */
    pm_session_close(session);
    export_files(dir, PM_PRESET_FULL);
    expect_inside(dir, "kv_cache_summary.txt", "These figures are of the whole run.\n");
    expect_inside(dir, "kv_cache_summary.txt", "Mean lifetime:          3.000000 s\n");
    mk_remove(dir);
}

static void totals_of_two_schedulers_stand_for_neither(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_kv(&mk, dir, 1u << 20);
    put_many(&mk, 0);
    put_many(&mk, 1);
    for (uint64_t n = 0; n < 10; n++) /* the first one is still in use */
        put_step(&mk, step_of(MANY + n, 20, 30, 0));
    mk_close(&mk, 77, 1, MK_START_MONO, false);

    struct pm_session *session = mk_session(dir);
    struct pm_kv_sums sums;
    assert_int_equal(pm_session_engine_count(session), 2);
    for (size_t e = 0; e < 2; e++) {
        assert_int_equal(pm_kv_walk(session, e, NULL, NULL, &sums), 0);
        assert_true(sums.recycled && !sums.from_totals);
        assert_int_equal(sums.steps, sums.rows);
        assert_int_equal(sums.allocated, 5 * sums.rows);
    }
    pm_session_close(session);
    export_files(dir, PM_PRESET_FULL);
    expect_inside(dir, "kv_cache_summary.txt", "These figures are of what is held.\n");
    mk_remove(dir);
}

/* Fewer fields, in another order and of other sizes: read by name, the rest is 0. */
struct other_step {
    uint16_t used;
    uint16_t instance;
    uint32_t total;
    uint64_t at_ns;
};
#define O(member, type) PM_FIELD(struct other_step, member, type, "", ID, PM_AGG_NONE, "")

static void fields_are_found_by_name(void **state)
{
    static const struct pm_field fields[] = {O(used, U16), O(instance, U16), O(total, U32),
                                             O(at_ns, U64)};
    static const struct pm_schema schema = {.name = "kv_step",
                                            .stream = PM_STREAM_CORE,
                                            .payload_bytes = sizeof(struct other_step),
                                            .classes = 1,
                                            .doc = "test table",
                                            .fields = fields,
                                            .n_fields = 4};
    static const struct pm_schema *const schemas[] = {&schema};
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    open_with(&mk, dir, schemas, 1, 64u << 20);
    const struct other_step step = {.used = 8, .total = 10, .at_ns = MK_START_MONO + MK_MS};
    mk_put(&mk, KV_STEP, &step, sizeof step);
    mk_close(&mk, 77, 1, MK_START_MONO, false);
    export_files(dir, PM_PRESET_FULL);
    expect_file(dir, "kv_cache_usage.csv",
                "timestamp_sec,usage_pct,num_blocks,total_blocks\n0.001000,80.00,8,10\n");
    expect_inside(dir, "kv_cache_summary.txt", "Hit rate:               n/a\n");
    mk_remove(dir);
}

static char *report_of(const struct pm_session *session, bool json)
{
    char *text = NULL;
    size_t bytes = 0;
    struct pm_error err = {""};
    struct pm_report_options options = {0};
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    int rc = json ? pm_view_report_json(session, &options, out, &err)
                  : pm_view_report_text(session, &options, out, &err);
    assert_int_equal(rc, 0);
    fclose(out);
    return text;
}

static void reports_have_a_section(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    make_small(&mk, dir);
    struct pm_session *session = mk_session(dir);
    char *json = report_of(session, true);
    assert_non_null(strstr(json, "\"peak_usage_pct\": 100.00"));
    assert_non_null(strstr(json, "\"hit_rate_pct\": 25.00"));
    free(json);
    struct pm_kv_sums sums;
    struct pm_buf buf;
    assert_int_equal(pm_kv_walk(session, 0, NULL, NULL, &sums), 0);
    pm_buf_init(&buf, 1u << 20);
    pm_kv_report_text(&buf, &sums);
    const char *text = pm_buf_text(&buf);
    assert_non_null(strstr(text, "mean 44.4 %, peak 100.0 % of 39 blocks: under-provisioned\n"));
    assert_non_null(strstr(text, "evictions   6, mean life 2.500 s, idle 0.500 s\n"));
    for (const char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1)
        assert_true(end - line <= 80);
    pm_buf_release(&buf);
    pm_session_close(session);
    mk_remove(dir);
}

static void verdicts_follow_the_rule_of_thumb(void **state)
{
    (void)state;
    assert_string_equal(pm_kv_verdict(0.0), "over-provisioned");
    assert_string_equal(pm_kv_verdict(39.9), "over-provisioned");
    assert_string_equal(pm_kv_verdict(40.0), "roomy");
    assert_string_equal(pm_kv_verdict(60.0), "good");
    assert_string_equal(pm_kv_verdict(80.0), "good");
    assert_string_equal(pm_kv_verdict(90.0), "nearly full");
    assert_string_equal(pm_kv_verdict(90.1), "under-provisioned");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(nothing_seen_has_headers_and_keys),
        cmocka_unit_test(no_files_where_it_was_off_or_the_preset_is_simple),
        cmocka_unit_test(the_summary_counts_what_had_to_go),
        cmocka_unit_test(totals_of_two_schedulers_stand_for_neither),
        cmocka_unit_test(fields_are_found_by_name),
        cmocka_unit_test(reports_have_a_section),
        cmocka_unit_test(verdicts_follow_the_rule_of_thumb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
