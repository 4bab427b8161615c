/*
 * Native tables and reports: what they hold of a made-up session, and that they follow schemas, not
 * probes.
 */
#include "make_session.h"

#include "view/view.h"

static struct img image;

/* What a view writes, as text; free it. */
static char *table_text(const struct pm_session *session, const char *table,
                        enum pm_native_format format, uint64_t *ret_rows)
{
    char *text = NULL;
    size_t bytes = 0;
    struct pm_error err = {""};
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    if (pm_view_native(session, table, format, out, ret_rows, &err) != 0)
        fail_msg("%s", err.text);
    fclose(out);
    return text;
}

static char *report_text(const struct pm_session *session, bool json, bool colour, bool brief)
{
    const struct pm_report_options options = {.colour = colour, .brief = brief};
    char *text = NULL;
    size_t bytes = 0;
    struct pm_error err = {""};
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    const int rc = json ? pm_view_report_json(session, &options, out, &err)
                        : pm_view_report_text(session, &options, out, &err);
    if (rc != 0)
        fail_msg("%s", err.text);
    fclose(out);
    return text;
}

static void expect(const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("no %s in: %s", words, text);
}

static int note_name(const char *name, const char *sentence, void *arg)
{
    char *names = arg;
    const size_t used = strlen(names);
    assert_true(strlen(sentence) > 0);
    snprintf(names + used, 200 - used, "%s ", name);
    return 0;
}

static void tables_follow_schemas(void **state)
{
    char dir[300], names[200] = "";
    uint64_t rows = 0;
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 2);
    img_string(&image, 7, "a,\"b\"\tc");
    img_facts(&image, 2, 3);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    struct pm_session *session = mk_session(dir);
    assert_int_equal(pm_native_tables(session, note_name, names), 0);
    assert_string_equal(names, "sched_step step_request worker_step worker_sync steps ");

    char *text = table_text(session, "step_request", PM_NATIVE_CSV, &rows);
    assert_int_equal(rows, 3);
    assert_string_equal(
        text,
        "timestamp_sec,engine,rank,pid,step,at_ns,request,tokens,computed,instance,event,phase\n"
        "0.010000,0,,77,0,1010000000,request-seven,0,0,0,0,0\n"
        "0.020000,0,,77,1,1020000000,request-seven,0,0,0,0,0\n"
        "0.030000,0,,77,2,1030000000,\"a,\"\"b\"\"\tc\",0,0,0,0,0\n");
    free(text);
    text = table_text(session, "step_request", PM_NATIVE_JSON, &rows);
    expect(text,
           "{\"table\":\"step_request\",\"timestamp_sec\":0.030000,\"engine\":0,\"rank\":null,"
           "\"pid\":77,\"step\":2,\"at_ns\":1030000000,\"request\":\"a,\\\"b\\\"\\tc\",");
    free(text);
    text = table_text(session, "worker_step", PM_NATIVE_JSON, &rows);
    expect(text, "\"engine\":0,\"rank\":0,\"pid\":77,\"step\":0,");
    free(text);
    text = table_text(session, "worker_sync", PM_NATIVE_CSV, &rows);
    assert_string_equal(text, "timestamp_sec,engine,rank,pid,step,sync_at_ns,instance\n");
    free(text);
    text = table_text(session, "steps", PM_NATIVE_JSON, &rows);
    assert_int_equal(rows, 3);
    expect(text,
           "{\"table\":\"steps\",\"timestamp_sec\":0.011200,\"engine\":0,\"rank\":0,\"step\":0,"
           "\"phase\":\"prefill\",\"phase_from_worker_only\":false,\"matched\":true,"
           "\"has_scheduler\":true,\"has_worker\":true,\"requests\":3,\"tokens\":102,"
           "\"forward_ns\":3000000,\"forward_clock\":\"wall\",\"prefill_requests\":1,");
    free(text);

    struct pm_error err = {""};
    assert_int_equal(pm_view_native(session, "nothing", PM_NATIVE_CSV, stdout, NULL, &err),
                     -PM_ENOTFOUND);
    assert_string_equal(err.text, "nothing: the session has no such table");
    assert_int_equal(pm_export_native(session, PM_NATIVE_CSV, NULL, stdout, NULL, &err),
                     -PM_EINVALID);
    pm_session_close(session);
    mk_remove(dir);
}

static void every_table_becomes_a_file(void **state)
{
    char dir[300], out[400], path[500];
    struct pm_export_result result;
    struct pm_error err = {""};
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 4);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    struct pm_session *session = mk_session(dir);
    snprintf(out, sizeof out, "%s/native", dir);
    assert_int_equal(pm_export_native(session, PM_NATIVE_JSON, out, NULL, &result, &err), 0);
    assert_int_equal(pm_export_native(session, PM_NATIVE_CSV, out, NULL, &result, &err), 0);
    assert_int_equal(result.files, 5);
    assert_int_equal(result.rows, 16);
    snprintf(path, sizeof path, "%s/steps.jsonl", out);
    char *text = mk_read(path, NULL);
    assert_non_null(text);
    free(text);
    snprintf(path, sizeof path, "%s/steps.csv", out);
    text = mk_read(path, NULL);
    /* Each row has the header's columns. */
    unsigned columns = 0, seen = 0;
    for (const char *c = text; *c != '\n'; c++)
        columns += *c == ',';
    for (const char *c = text; *c != '\0'; c++) {
        seen += *c == ',';
        if (*c == '\n') {
            assert_int_equal(seen, columns);
            seen = 0;
        }
    }
    free(text);
    pm_session_close(session);
    mk_remove(dir);
}

static void a_report_is_80_columns_wide(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    pm_recorder_attr(mk.rec, "model", "evil\033[2Jmodel \xff");
    pm_recorder_attr(mk.rec, "hook.a:b", "patched");
    pm_recorder_attr(mk.rec, "fired.a:b", "12");
    for (uint64_t step = 0; step < 40; step++) {
        mk_sched(&mk, mk_sched_of(step, step % 8 == 0, step == 39 ? 0 : 5));
        mk_worker(&mk,
                  mk_worker_of(step, step % 8 == 0, step == 39 ? 0 : 5, step == 39 ? 0 : 4000000));
    }
    mk_close(&mk, 77, 1, MK_START_MONO, true);
    struct pm_session *session = mk_session(dir);
    char *text = report_text(session, false, false, false);
    for (const char *line = text; *line != '\0';) {
        const size_t bytes = strcspn(line, "\n");
        if (bytes > 80 && strncmp(line, "  folder", 8) != 0)
            fail_msg("a line of %zu: %.*s", bytes, (int)bytes, line);
        line += bytes + 1;
    }
    assert_null(strchr(text, '\033'));
    expect(text, "model       evil [2Jmodel ?\n");
    expect(text, "wall time of the model call");
    /* 5 prefills of 105 tokens, 34 decodes of 5, each 4 ms. */
    expect(text,
           "  prefill       5    4.000    4.000    4.000    4.000    4.000    4.000  26250.0\n");
    expect(text,
           "  decode       34    4.000    4.000    4.000    4.000    4.000    4.000   1250.0\n");
    expect(text, "40: 5 prefill (5 mixed), 34 decode, 1 without tokens");
    expect(text, "500 prompt, 195 decode, 0 computed again");
    expect(text, "1 in place, 1 fired, 0 not in this vLLM, 0 off");
    /* 4.33 of every 10 ms: 39 steps, 38 gaps of 5.67 ms. */
    /* schedule, pre, model, post, sample, other and idle are the whole. */
    expect(text, "  schedule           0.049      0.5 %");
    expect(text, "  idle               5.476     55.6 %");
    double shares = 0;
    const char *row = strstr(text, "  schedule  ");
    for (int i = 0; i < 7; i++, row = strchr(row, '\n') + 1) {
        double share;
        assert_int_equal(sscanf(row, "%*s %*f %lf", &share), 1);
        shares += share;
    }
    assert_true(shares > 99.6 && shares < 100.4);
    free(text);
    text = report_text(session, false, true, false);
    assert_non_null(strstr(text, "\033[1m"));
    free(text);
    text = report_text(session, false, false, true);
    assert_null(strstr(text, "Batches"));
    expect(text, "  decode       34");
    free(text);
    text = report_text(session, true, false, false);
    expect(text, "\"prefill_steps\": 5,");
    expect(text, "\"tokens_per_sec\": 1250.0");
    expect(text, "\"fired\": 1,");
    free(text);
    pm_session_close(session);
    mk_remove(dir);
}

static void an_empty_session_says_what_to_do(void **state)
{
    char dir[300];
    struct mk mk;
    (void)state;

    mk_folder(dir, sizeof dir);
    struct pm_session *session = mk_session(dir);
    char *text = report_text(session, false, false, false);
    expect(text, "(empty)");
    expect(text, "No engine step was recorded yet\n  No process has written a record.");
    free(text);
    text = report_text(session, true, false, false);
    expect(text, "\"engines\": [],");
    free(text);
    pm_session_close(session);

    mk_open(&mk, dir, 64u << 20, false);
    pm_recorder_identify(mk.rec, PM_ROLE_ENGINE, 0, -1);
    mk_close(&mk, 77, 1, MK_START_MONO, true);
    session = mk_session(dir);
    text = report_text(session, false, false, false);
    expect(text, "No engine step was recorded yet\n  Send the server a request");
    free(text);
    pm_session_close(session);
    mk_remove(dir);
}

static void damage_is_confessed(void **state)
{
    char dir[300];
    (void)state;

    mk_folder(dir, sizeof dir);
    img_example(&image, 3);

    const uint64_t bad = pm_record_head_make(PM_SCHEMA_FIRST, 3, 12345);
    memcpy(image.bytes + image.at, &bad, 8);
    img_save(&image, dir, "p77-0.pmrec", img_bytes(&image));
    struct pm_session *session = mk_session(dir);
    char *text = report_text(session, false, false, false);
    expect(text, "records/p77-0.pmrec: at byte ");
    expect(text, "expected the next record");
    free(text);
    pm_session_close(session);
    mk_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_follow_schemas),
        cmocka_unit_test(every_table_becomes_a_file),
        cmocka_unit_test(a_report_is_80_columns_wide),
        cmocka_unit_test(an_empty_session_says_what_to_do),
        cmocka_unit_test(damage_is_confessed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
