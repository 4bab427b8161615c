/*
 * Findings of the profile itself; windows over a session and what the reports make of them; how
 * findings are shown; sessions with nothing in them.
 */
#include "explain_world.h"

#include "base/json.h"
#include "view/common.h"

static struct beat steady(void)
{
    return (struct beat){.decodes = 4,
                         .continued = 4,
                         .sched_us = 1000,
                         .update_us = 1000,
                         .running = 4,
                         .total = 1000,
                         .used = 700};
}

/* ---- the profile itself ---- */

static void losses(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_beats(&w, steady(), 100);
    atomic_fetch_add(&pm_recorder_head(w.mk.rec)->lost[PM_STREAM_CORE], 25);
    {
        TRIGGER("record_losses");
        world_expect(f, "lost", 25);
        world_expect(f, "lost_pct", 100 * 25 / 425.0); /* 4 records a step */
        assert_int_equal(f->severity, PM_SEVERITY_HIGH);
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 100);
    world_silent(&w, "record_losses", PM_VERDICT_FINE);
}

static void coverage(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_beats(&w, steady(), 10);
    pm_recorder_attr(w.mk.rec, "probe.kv_cache", "disarmed: too many faults");
    {
        TRIGGER("record_coverage");
        world_expect(f, "disarmed", 1);
        assert_non_null(strstr(f->evidence[0], "probe kv_cache"));
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 10);
    atomic_fetch_add(&pm_recorder_head(w.mk.rec)->recycled[PM_STREAM_CORE], 1000);
    {
        TRIGGER("record_coverage");
        world_expect(f, "recycled", 1000);
        assert_true(world_turns(f, "VLLM_PROFILING_MAX_MB", "raise"));
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 10);
    world_silent(&w, "record_coverage", PM_VERDICT_FINE);
}

static void blocking(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    pm_recorder_attr(w.mk.rec, PM_ATTR_LAUNCH_BLOCKING, "1");
    world_beats(&w, steady(), 1);
    {
        TRIGGER("launch_blocking");
        assert_int_equal(f->severity, PM_SEVERITY_HIGH);
        assert_true(world_turns(f, "CUDA_LAUNCH_BLOCKING", "unset"));
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    pm_recorder_attr(w.mk.rec, PM_ATTR_LAUNCH_BLOCKING, "0");
    world_beats(&w, steady(), 1);
    world_silent(&w, "launch_blocking", PM_VERDICT_FINE);
}

/* ---- windows ---- */

/* 400 steps with 70 % of the KV cache in use, then 300 (3 s) with 95 %. */
static void halves(struct world *w)
{
    struct beat b = steady();
    world_begin(w);
    world_beats(w, b, 400);
    world_request(w, "early", 1000, 0, 10, 10, 0, 0, 0);
    b.used = 950;
    world_beats(w, b, 300);
    world_request(w, "late", 500, 0, 10, 10, 0, 0, 0);
    world_close(w, 77);
}

static struct pm_window window_of(const struct pm_session *session, const char *last,
                                  const char *steps)
{
    const struct pm_window_options options = {.last = last, .steps = steps};
    struct pm_window window;
    struct pm_error err = {""};
    if (pm_window_parse(session, &options, &window, &err) != 0)
        fail_msg("%s", err.text);
    return window;
}

static void windows(void **state)
{
    (void)state;
    struct world w;
    struct pm_findings findings;
    struct pm_error err = {""};
    struct pm_totals totals;
    struct pm_series series;
    uint64_t from, to;
    halves(&w);

    struct pm_session *session = mk_session(w.dir);
    struct pm_window window = window_of(session, NULL, "0:399");
    assert_int_equal(pm_explain_rule(session, &window, "kv_too_small", &findings, &err), 0);
    assert_int_equal(findings.count, 0);
    assert_int_equal(findings.steps, 400);
    assert_int_equal(findings.requests, 1); /* `late` came afterwards */
    pm_findings_release(&findings);
    /* The totals know the window alone. */
    assert_int_equal(pm_process_totals(pm_session_process(session, 0), &totals), 0);
    assert_true(pm_series_find(pm_session_process(session, 0), &totals, "worker_step", NULL,
                               PM_PHASE_DECODE, &series));
    assert_int_equal(series.count, 400);
    pm_totals_free(&totals);
    /* Another window over the same session is refused, the same one is not. */
    assert_int_equal(pm_window_apply(session, &window, &err), 0);
    window.to_step = 10;
    assert_int_equal(pm_window_apply(session, &window, &err), -PM_EINVALID);
    pm_session_close(session);

    session = mk_session(w.dir);
    /* The file was closed two seconds after the last step. */
    window = window_of(session, "4s", NULL);
    assert_string_equal(window.words, "the last 4 s");
    assert_int_equal(pm_window_apply(session, &window, &err), 0);
    assert_int_equal(pm_explain_rule(session, NULL, "kv_too_small", &findings, &err), 0);
    assert_int_equal(findings.steps, 199);
    assert_int_equal(findings.count, 0);
    assert_int_equal(findings.results[0].verdict, PM_VERDICT_LITTLE);
    pm_findings_release(&findings);
    pm_session_close(session);

    session = mk_session(w.dir);
    window = window_of(session, NULL, "450:");
    assert_int_equal(pm_explain_rule(session, &window, "kv_too_small", &findings, &err), 0);
    assert_int_equal(findings.count, 1);
    world_expect(&findings.rows[0], "mean_pct", 95);
    assert_true(pm_session_span_steps(session, 0, &from, &to));
    assert_int_equal(from, 450);
    assert_int_equal(to, 699);
    pm_findings_release(&findings);
    pm_session_close(session);
    mk_remove(w.dir);
}

static void bad_windows(void **state)
{
    (void)state;
    static const char *const lasts[] = {"", "x", "-3s", "3y", "0s", "1e400s", "nan", "5 s"};
    static const char *const steps[] = {
        "", ":", "5:3", "a:b", "1:2:3", "-1:4", "99999999999999999999:"};
    struct world w;
    struct pm_window window;
    struct pm_error err = {""};
    halves(&w);
    struct pm_session *session = mk_session(w.dir);
    for (unsigned i = 0; i < sizeof lasts / sizeof *lasts; i++)
        assert_int_equal(
            pm_window_parse(session, &(struct pm_window_options){.last = lasts[i]}, &window, &err),
            -PM_EINVALID);
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++)
        assert_int_equal(
            pm_window_parse(session, &(struct pm_window_options){.steps = steps[i]}, &window, &err),
            -PM_EINVALID);
    assert_int_equal(pm_window_parse(session,
                                     &(struct pm_window_options){.last = "3s", .steps = "1:2"},
                                     &window, &err),
                     -PM_EINVALID);
    window = window_of(session, "1.5m", NULL);
    assert_string_equal(window.words, "the last 90 s");
    window = window_of(session, NULL, "7");
    assert_true(window.from_step == 7 && window.to_step == 7);
    window = window_of(session, NULL, NULL);
    assert_true(window.whole);
    assert_int_equal(pm_window_apply(session, &window, &err), 0);
    assert_null(pm_session_span(session));
    window = window_of(session, NULL, "9000:");
    assert_int_equal(pm_window_apply(session, &window, &err), -PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "from step 9000 on"));
    pm_session_close(session);
    mk_remove(w.dir);
}

/* ---- showing ---- */

static char *print(const struct pm_session *session, const struct pm_report_options *options,
                   bool json)
{
    char *text = NULL;
    size_t bytes = 0;
    struct pm_error err = {""};
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    if ((json ? pm_explain_report_json(session, options, out, &err)
              : pm_explain_report_text(session, options, out, &err)) != 0)
        fail_msg("%s", err.text);
    fclose(out);
    return text;
}

static void expect(const char *text, const char *words)
{
    if (strstr(text, words) == NULL)
        fail_msg("no %s in: %s", words, text);
}

static void reports(void **state)
{
    (void)state;
    struct world w;
    halves(&w);
    struct pm_session *session = mk_session(w.dir);
    struct pm_window window = window_of(session, NULL, "450:");
    const struct pm_report_options options = {.window = &window};
    char *text = print(session, &options, false), *json = print(session, &options, true);
    expect(text, "shown       from step 450 on");
    expect(text, "Findings\n");
    expect(text, "The KV cache is too small");
    expect(text, "steps       250:");
    expect(json, "\"window\": \"from step 450 on\"");
    expect(json, "\"findings\": [");
    expect(json, "\"rule\": \"kv_too_small\"");
    expect(json, "\"steps\": 250");
    for (const char *line = text; *line != '\0';) {
        const size_t bytes = strcspn(line, "\n");
        if (bytes > 80 && strncmp(line, "  folder", 8) != 0)
            fail_msg("%zu columns: %.*s", bytes, (int)bytes, line);
        line += bytes + (line[bytes] != '\0');
    }
    free(text);
    free(json);
    text = print(session, &(struct pm_report_options){.brief = true}, false);
    expect(text, "The KV cache is too small");
    assert_null(strstr(text, "evidence"));
    free(text);
    pm_session_close(session);
    mk_remove(w.dir);
}

/* An id that would drive a terminal, and one that would break JSON. */
static void hostile_ids(void **state)
{
    (void)state;
    struct world w;
    struct pm_buf buf;
    struct pm_json json;
    struct beat b = steady();
    world_begin(&w);
    world_beats(&w, b, 300);
    b.running = 8;
    b.waiting = 1;
    world_beats(&w, b, 100);
    for (unsigned i = 0; i < 20; i++)
        world_request(&w, i == 0 ? "\033[31mred\"\n" : "r", 2000, 0, i == 0 ? 800 : 700, 100, 0, 0,
                      0);
    struct pm_session *session;
    struct pm_findings findings = world_ask(&w, NULL, &session);
    assert_true(findings.count >= 2);
    for (size_t i = 1; i < findings.count; i++) /* worst first */
        assert_true(findings.rows[i - 1].severity >= findings.rows[i].severity);
    pm_buf_init(&buf, 1 << 20);
    pm_findings_text(&buf, &findings, &(struct pm_findings_style){.rules = true}, MK_START_MONO);
    assert_null(memchr(buf.data, 0x1b, buf.used));
    pm_buf_clear(&buf);
    pm_json_init(&json, &buf, 0);
    pm_findings_json(&json, &findings, MK_START_MONO);
    assert_int_equal(pm_json_finish(&json), 0);
    assert_int_equal(pm_buf_add_char(&buf, '\0'), 0);
    expect(buf.data, "\\u001b[31mred\\\"\\n");
    pm_buf_release(&buf);
    world_end(&w, session, &findings);
}

/* ---- nothing to say ---- */

static void nothing(void **state)
{
    (void)state;
    struct world w;
    struct pm_session *session;
    struct pm_findings findings;
    struct pm_buf buf;
    struct pm_error err = {""};

    /* A healthy server: nothing at all. */
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, "config.async_scheduling", "1");
    world_beats(&w, steady(), 400);
    for (unsigned i = 0; i < 30; i++) {
        char id[32];
        snprintf(id, sizeof id, "r%u", i);
        world_request(&w, id, 2000, 1, 5, 30, 0, 0, 0);
    }
    findings = world_ask(&w, NULL, &session);
    for (size_t i = 0; i < findings.count; i++)
        fail_msg("%s: %s", findings.rows[i].rule, findings.rows[i].title);
    pm_buf_init(&buf, 1 << 20);
    pm_findings_text(&buf, &findings, &(struct pm_findings_style){0}, MK_START_MONO);
    assert_int_equal(pm_buf_add_char(&buf, '\0'), 0);
    expect(buf.data, "Nothing to say");
    pm_buf_release(&buf);
    assert_int_equal(pm_explain_rule(session, NULL, "no_such_rule", &findings, &err),
                     -PM_ENOTFOUND);
    world_end(&w, session, &findings);

    /* A server that did a handful of steps, badly: too little to say so. */
    world_begin(&w);
    struct beat b = steady();
    b.used = 990;
    b.pre_us = 50000;
    b.waiting = 9;
    b.running = 8;
    world_beats(&w, b, 15);
    world_request(&w, "r", 2000, 500, 900, 300, 1, 200, 100);
    findings = world_ask(&w, NULL, &session);
    for (size_t i = 0; i < findings.count; i++)
        fail_msg("%s: %s", findings.rows[i].rule, findings.rows[i].title);
    world_end(&w, session, &findings);

    /* No record at all. */
    mk_folder(w.dir, sizeof w.dir);
    w.mk.rec = NULL;
    session = mk_session(w.dir);
    assert_int_equal(pm_explain(session, NULL, &findings, &err), 0);
    assert_int_equal(findings.count, 0);
    assert_true(findings.n_results > 25);
    world_end(&w, session, &findings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses),      cmocka_unit_test(coverage),    cmocka_unit_test(blocking),
        cmocka_unit_test(windows),     cmocka_unit_test(bad_windows), cmocka_unit_test(reports),
        cmocka_unit_test(hostile_ids), cmocka_unit_test(nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
