/*
 * Findings of the scheduler: prefills that hold up decodes (to whom, by whom, by how much), limits
 * that bind, queues, one request's time, uneven engines. Sessions made to trigger each rule, with
 * the figures that they must give, and sessions made not to.
 */
#include "explain_world.h"

static struct beat steady(void)
{
    return (struct beat){
        .decodes = 4, .continued = 4, .sched_us = 1000, .update_us = 1000, .running = 4};
}

/* Four requests decode at 10 ms a token; `n` prefills of `tokens` tokens come, every tenth step,
 * each making its step last model_us + 2 ms. */
static void with_prefills(struct world *w, unsigned n, uint32_t tokens, uint32_t model_us)
{
    static const char *const ids[] = {"d0", "d1", "d2", "d3"};
    char id[32];

    world_begin(w);
    for (unsigned i = 0; i < 4; i++)
        world_member(w, ids[i], PM_REQUEST_STARTED, PM_PHASE_PREFILL, 10, true);
    struct beat first = steady();
    first.decodes = first.continued = 0;
    first.prefills = 4;
    first.prefill_tokens = 40;
    world_beat(w, &first);
    world_beats(w, steady(), 300 - n);
    for (unsigned i = 0; i < n; i++) {
        struct beat b = steady();
        b.prefills = 1;
        b.prefill_tokens = tokens;
        b.model_us = model_us;
        snprintf(id, sizeof id, "p%u", i);
        world_member(w, id, PM_REQUEST_STARTED, PM_PHASE_PREFILL, tokens, true);
        world_beat(w, &b);
        world_member(w, id, PM_REQUEST_LEFT, 0, 0, false);
        world_beats(w, steady(), 9);
    }
    world_member(w, "d3", PM_REQUEST_LEFT, 0, 0, false);
    world_request(w, "d0", 500, 1, 1, 10, 0, 0, 0);
}

static void stalls(void **state)
{
    (void)state;
    struct world w;
    with_prefills(&w, 20, 500, 48000); /* 50 ms instead of 10 */
    /* Two more prefills share one step: three quarters of its 30 ms x 4 are big's. */
    struct beat b = steady();
    b.prefills = 2;
    b.prefill_tokens = 400;
    b.model_us = 38000;
    world_member(&w, "big", PM_REQUEST_STARTED, PM_PHASE_PREFILL, 300, true);
    world_member(&w, "small", PM_REQUEST_STARTED, PM_PHASE_PREFILL, 100, true);
    world_beat(&w, &b);
    world_beats(&w, steady(), 5);
    TRIGGER("prefill_stall");
    const double delay_s = 20 * 4 * 0.040 + 4 * 0.030;
    /* Gaps: 280 + 180 + 5 decode steps, 20 of 50 ms, one of 40 ms; 4 requests each. */
    const double gaps_s = 4 * (465 * 0.010 + 20 * 0.050 + 0.040);
    world_expect(f, "base_s", 0.010);
    world_expect(f, "stalling_steps", 21);
    world_expect(f, "delayed_tokens", 84);
    world_expect(f, "delay_s", delay_s);
    world_expect(f, "max_delay_s", 0.040);
    world_expect(f, "mixed_mean_s", (20 * 0.050 + 0.040) / 21);
    world_expect(f, "stall_share_pct", 100 * delay_s / gaps_s);
    world_expect(f, "max_prefill_tokens", 500);
    assert_true(f->has_cost_s && fabs(f->cost_s - delay_s) < 1e-9);
    /* Each p held four up for 40 ms; big's part is 90 ms. */
    assert_int_equal(f->n_named, PM_FINDING_REQUESTS);
    assert_int_equal(f->requests[0][0], 'p');
    bool culprit = false, victim = false;
    for (unsigned i = 0; i < f->n_evidence; i++) {
        culprit = culprit || strstr(f->evidence[i], "held others up for 160 ms") != NULL;
        /* Twenty prefills at 40 ms; the last two came after it had ended. */
        victim = victim || strstr(f->evidence[i], "waited 800 ms longer") != NULL;
    }
    assert_true(culprit);
    assert_true(victim);
    assert_true(world_turns(f, "--max-num-batched-tokens", "lower"));
    assert_string_equal(f->changes[0].value, "500");
    assert_true(world_turns(f, "--long-prefill-token-threshold", "set"));
    world_end(&w, session, &findings);
}

static void stalls_without_chunks(void **state)
{
    (void)state;
    struct world w;
    with_prefills(&w, 25, 900, 98000);
    pm_recorder_attr(w.mk.rec, "config.enable_chunked_prefill", "0");
    TRIGGER("prefill_stall");
    assert_true(world_turns(f, "--enable-chunked-prefill", "set"));
    assert_int_equal(f->severity, PM_SEVERITY_HIGH);
    world_end(&w, session, &findings);
}

static void no_stalls(void **state)
{
    (void)state;
    struct world w;
    with_prefills(&w, 25, 50, 9000); /* 11 ms */
    world_silent(&w, "prefill_stall", PM_VERDICT_FINE);
    with_prefills(&w, 10, 500, 48000); /* too few */
    world_silent(&w, "prefill_stall", PM_VERDICT_FINE);
    /* Prefills with nobody beside them hold nobody up. */
    world_begin(&w);
    for (unsigned i = 0; i < 50; i++) {
        world_beats(&w, steady(), 9);
        struct beat b = steady();
        b.decodes = b.continued = 0;
        b.prefills = 1;
        b.prefill_tokens = 900;
        b.model_us = 98000;
        world_beat(&w, &b);
    }
    world_silent(&w, "prefill_stall", PM_VERDICT_FINE);
}

/* ---- limits ---- */

static void batch_limit(void **state)
{
    (void)state;
    struct world w;
    struct beat b = steady();
    b.total = 1000;
    b.used = 500;
    world_begin(&w);
    world_beats(&w, b, 200);
    b.running = 8;
    b.waiting = 3;
    world_beats(&w, b, 200);
    b.waiting = 0;
    world_beat(&w, &b);
    {
        TRIGGER("batch_limit");
        world_expect(f, "max_num_seqs", 8);
        /* the last of 401 steps has no follower and lasts 8 ms */
        world_expect(f, "limit_time_pct", 100 * 2.0 / (4.0 + 0.008));
        world_expect(f, "waited_s", 200 * 0.010 * 3);
        world_expect(f, "kv_peak_pct", 50);
        assert_int_equal(f->severity, PM_SEVERITY_HIGH);
        assert_true(f->confidence > 0.8);
        assert_true(world_turns(f, "--max-num-seqs", "raise"));
        assert_string_equal(f->changes[0].value, "16");
        world_end(&w, session, &findings);
    }
    /* The KV cache is full as well: that comes first. */
    b.waiting = 3;
    b.used = 990;
    world_begin(&w);
    world_beats(&w, b, 400);
    {
        TRIGGER("batch_limit");
        assert_true(f->confidence < 0.6);
        assert_true(world_turns(f, "VLLM_CPU_KVCACHE_SPACE", "raise"));
        world_end(&w, session, &findings);
    }
    /* All places taken, nobody waits; somebody waits, places free. */
    b.waiting = 0;
    world_begin(&w);
    world_beats(&w, b, 400);
    world_silent(&w, "batch_limit", PM_VERDICT_FINE);
    b.waiting = 3;
    b.running = 7;
    world_begin(&w);
    world_beats(&w, b, 400);
    world_silent(&w, "batch_limit", PM_VERDICT_FINE);
}

static void token_limit(void **state)
{
    (void)state;
    struct world w;
    struct beat b = steady(), full = steady();
    full.decodes = full.continued = 0;
    full.prefills = 2;
    full.prefill_tokens = 1000;
    full.waiting = 2;
    world_begin(&w);
    world_beats(&w, b, 300);
    world_beats(&w, full, 100);
    world_beat(&w, &b);
    {
        TRIGGER("token_limit");
        /* Nobody was there between the last decode and the first prefill: that step lasts 8 ms. */
        world_expect(f, "limit_time_pct", 100 * 1.0 / (4.0 - 0.002 + 0.008));
        world_expect(f, "waited_s", 100 * 0.010 * 2);
        world_expect(f, "max_num_batched_tokens", 1000);
        assert_true(world_turns(f, "--max-num-batched-tokens", "raise"));
        assert_string_equal(f->changes[0].value, "2000");
        world_end(&w, session, &findings);
    }
    /* A full step now and then, with nothing left over, is a good fit. */
    full.waiting = 0;
    world_begin(&w);
    for (unsigned i = 0; i < 100; i++) {
        world_beats(&w, b, 3);
        world_beat(&w, &full);
    }
    world_silent(&w, "token_limit", PM_VERDICT_FINE);
    full.prefill_tokens = 970;
    full.waiting = 2;
    world_begin(&w);
    world_beats(&w, b, 300);
    world_beats(&w, full, 100);
    world_silent(&w, "token_limit", PM_VERDICT_FINE);
}

/* ---- queues ---- */

static void requests(struct world *w, unsigned n, uint64_t queue_ms, uint64_t prefill_ms)
{
    char id[32];
    for (unsigned i = 0; i < n; i++) {
        snprintf(id, sizeof id, "r%u", i);
        world_request(w, id, 2000, 0, queue_ms, prefill_ms, 0, 0, 0);
    }
}

static void queueing(void **state)
{
    (void)state;
    struct world w;
    struct beat b = steady();
    world_begin(&w);
    world_beats(&w, b, 300);
    b.running = 8;
    b.waiting = 5;
    world_beats(&w, b, 90);
    b.running = 4;
    world_beats(&w, b, 10);
    b.waiting = 0;
    world_beat(&w, &b);
    requests(&w, 19, 500, 500);
    world_request(&w, "late", 2000, 0, 900, 100, 0, 0, 0);
    {
        TRIGGER("queueing");
        world_expect(f, "queue_sum_s", 19 * 0.5 + 0.9);
        world_expect(f, "queue_share_pct", 100 * (19 * 0.5 + 0.9) / 20.0);
        world_expect(f, "by_seqs_pct", 90);
        world_expect(f, "by_other_pct", 10);
        assert_true(fabs(world_number(f, "queue_p50_s") / 0.5 - 1) < 0.05);
        assert_string_equal(f->requests[0], "late");
        assert_true(world_turns(f, "--max-num-seqs", "raise"));
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, b, 400);
    requests(&w, 40, 200, 800); /* 20 % of the time to the first token */
    world_silent(&w, "queueing", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, b, 400);
    requests(&w, 40, 50, 10); /* a short wait */
    world_silent(&w, "queueing", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, b, 400);
    requests(&w, 19, 500, 10);
    world_silent(&w, "queueing", PM_VERDICT_LITTLE);
}

static void one_request(void **state)
{
    (void)state;
    struct world w;
    struct pm_window window;
    struct pm_findings findings;
    struct pm_error err = {""};
    with_prefills(&w, 20, 500, 48000);
    world_request(&w, "mine-7", 1000, 30, 100, 200, 2, 150, 77);
    world_close(&w, 77);
    struct pm_session *session = mk_session(w.dir);
    const struct pm_window_options none = {.request = "nobody"}, twice = {.request = "d"};
    const struct pm_window_options mine = {.request = "mine"};
    assert_int_equal(pm_window_parse(session, &none, &window, &err), -PM_ENOTFOUND);
    assert_int_equal(pm_window_parse(session, &twice, &window, &err), -PM_EINVALID);
    assert_non_null(strstr(err.text, "give more of it"));
    assert_int_equal(pm_window_parse(session, &mine, &window, &err), 0);
    assert_string_equal(window.request, "mine-7");
    assert_int_equal(pm_explain_rule(session, &window, "request_time", &findings, &err), 0);
    assert_int_equal(findings.count, 1);
    const struct pm_finding *f = &findings.rows[0];
    world_expect(f, "front_s", 0.030);
    world_expect(f, "queue_s", 0.100);
    world_expect(f, "prefill_s", 0.200);
    world_expect(f, "decode_s", 0.700);
    world_expect(f, "ttft_s", 0.330);
    world_expect(f, "preempted_s", 0.150);
    assert_true(f->to_ns - f->from_ns == 1030 * MK_MS);
    world_end(&w, session, &findings);
}

/* ---- engines ---- */

static void engines(struct world *w, unsigned busy, unsigned other)
{
    world_begin(w);
    world_beats(w, steady(), busy);
    world_close(w, 77);
    world_process(w, PM_ROLE_ENGINE | PM_ROLE_WORKER, 1, 0);
    world_beats(w, steady(), other);
    world_close(w, 78);
}

static void uneven_engines(void **state)
{
    (void)state;
    struct world w;
    engines(&w, 600, 200);
    {
        TRIGGER("uneven_engines");
        world_expect(f, "ratio", 1.5);
        world_expect(f, "engines", 2);
        assert_int_equal(f->engine, 0);
        world_end(&w, session, &findings);
    }
    engines(&w, 400, 360);
    world_silent(&w, "uneven_engines", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, steady(), 400);
    world_silent(&w, "uneven_engines", PM_VERDICT_NOT_HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalls),      cmocka_unit_test(stalls_without_chunks),
        cmocka_unit_test(no_stalls),   cmocka_unit_test(batch_limit),
        cmocka_unit_test(token_limit), cmocka_unit_test(queueing),
        cmocka_unit_test(one_request), cmocka_unit_test(uneven_engines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
