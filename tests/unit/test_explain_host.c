/*
 * Findings of the host and the front end: sessions made to trigger each rule, with the figures that
 * they must give, and sessions made not to.
 */
#include "explain_world.h"

static struct beat steady(void)
{
    return (struct beat){
        .decodes = 4, .continued = 4, .sched_us = 1000, .update_us = 1000, .running = 4};
}

/* ---- host ---- */

static void host_bound(void **state)
{
    (void)state;
    struct world w;
    /* 10 ms: 4 the model, 1 scheduling, 3 preparing, 0.5 leaving, 0.5 sampling, 1 outputs. */
    struct beat b = steady();
    b.model_us = 4000;
    b.pre_us = 3000;
    b.post_us = b.sample_us = 500;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, "config.async_scheduling", "0");
    world_beats(&w, b, 401);
    {
        TRIGGER("host_bound");
        world_expect(f, "idle_pct", 60);
        world_expect(f, "idle_s", 400 * 0.006);
        world_expect(f, "steps", 400);
        world_expect(f, "schedule_pct", 100 / 6.0);
        world_expect(f, "prepare_pct", 50);
        world_expect(f, "post_pct", 50 / 6.0);
        world_expect(f, "sample_pct", 50 / 6.0);
        world_expect(f, "update_pct", 100 / 6.0);
        world_expect(f, "other_pct", 0);
        assert_non_null(strstr(f->evidence[1], "preparing the batch"));
        assert_true(world_turns(f, "--async-scheduling", "set"));
        assert_int_equal(f->severity, PM_SEVERITY_MEDIUM); /* high on a device only */
        world_end(&w, session, &findings);
    }
    /* The same between processes: nobody's hook saw it. */
    b.pre_us = 0;
    b.idle_us = 3000;
    world_begin(&w);
    world_beats(&w, b, 401);
    {
        TRIGGER("host_bound");
        world_expect(f, "idle_pct", 60);
        world_expect(f, "other_pct", 50);
        assert_non_null(strstr(f->evidence[1], "between processes"));
        world_end(&w, session, &findings);
    }
}

static void not_host_bound(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_beats(&w, steady(), 400); /* 8 of 10 ms */
    world_silent(&w, "host_bound", PM_VERDICT_FINE);
    /* An idle server is not host-bound: each request comes alone, long after the one before. */
    struct beat b = steady();
    b.decodes = b.continued = 0;
    b.prefills = 1;
    b.prefill_tokens = 50;
    b.idle_us = 500000;
    world_begin(&w);
    world_beats(&w, b, 400);
    world_silent(&w, "host_bound", PM_VERDICT_LITTLE);
    /* On a device without events the wall time of a launch says nothing. */
    b = steady();
    b.model_us = 4000;
    b.pre_us = 4000;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    world_beats(&w, b, 400);
    world_silent(&w, "host_bound", PM_VERDICT_UNSEEN);
}

static void sampling(void **state)
{
    (void)state;
    struct world w;
    struct beat b = steady();
    b.sample_us = 2500; /* of 12.5 ms */
    world_begin(&w);
    world_beats(&w, b, 400);
    {
        TRIGGER("sampling_cost");
        world_expect(f, "sample_s", 1);
        world_expect(f, "sample_pct", 100 * 1.0 / (399 * 0.0125 + 0.0105));
        world_expect(f, "sampler_s", 0.8);
        world_end(&w, session, &findings);
    }
    b.sample_us = 1000;
    world_begin(&w);
    world_beats(&w, b, 400);
    world_silent(&w, "sampling_cost", PM_VERDICT_FINE);
}

/* Blocks of 20 steps, by turns without and with top_p (and with min_p: of its own blocks); what
 * logits to tokens take them in microseconds. Four requests a step, one of them with the setting.
 */
static void planted(struct world *w, uint32_t plain_us, uint32_t top_p_us, uint32_t min_p_us)
{
    struct beat b = steady();
    world_begin(w);
    for (unsigned block = 0; block < 30; block++) {
        const uint32_t us[] = {plain_us, top_p_us, min_p_us};
        world_mix(w, (struct pm_sampling_mix){.requests = b.decodes,
                                              .temperature = b.decodes,
                                              .top_p = block % 3 == 1,
                                              .min_p = block % 3 == 2});
        b.sample_us = us[block % 3] * 10 / 8; /* sampler_ns: 80 % of it */
        world_beats(w, b, 20);
    }
}

static void the_dear_setting_is_named(void **state)
{
    (void)state;
    struct world w;
    planted(&w, 400, 3600, 480); /* top_p: 3.2 ms in a third of the steps */
    {
        TRIGGER("sampling_cost");
        assert_int_equal(strncmp(f->title, "top_p costs 3.2 ms of a ", 24), 0);
        assert_non_null(strstr(f->title, "(3.2 ms to 3.2 ms)"));
        assert_non_null(strstr(f->evidence[0], "top_p costs 3.2 ms"));
        assert_non_null(strstr(f->evidence[1], "33 % of the steps"));
        world_expect(f, "setting_ms", 3.2);
        world_expect(f, "setting_steps", 200);
        world_expect(f, "setting_step_ms", 8 + 3.6 / 0.8);
        assert_true(world_turns(f, "--override-generation-config", "set"));
        assert_non_null(strstr(f->advice, "top_p"));
        assert_null(strstr(f->advice, "min_p has"));
        world_end(&w, session, &findings);
    }
    planted(&w, 400, 480, 3600); /* the other one */
    {
        TRIGGER("sampling_cost");
        assert_int_equal(strncmp(f->title, "min_p costs 3.2 ms of a ", 24), 0);
        world_end(&w, session, &findings);
    }
}

static void nothing_dear_is_not_named(void **state)
{
    (void)state;
    struct world w;
    planted(&w, 400, 480, 440); /* 0.08 ms in a third of the steps of 9 ms */
    world_silent(&w, "sampling_cost", PM_VERDICT_FINE);
    /* Sampling takes much, but of no setting's making. */
    planted(&w, 4000, 4080, 4040);
    {
        TRIGGER("sampling_cost");
        assert_int_equal(strncmp(f->title, "Sampling takes ", 15), 0);
        assert_non_null(strstr(f->evidence[2], "no setting stands out"));
        world_end(&w, session, &findings);
    }
    /* One that saves time is not dear. */
    planted(&w, 900, 100, 900);
    world_silent(&w, "sampling_cost", PM_VERDICT_FINE);
}

static void settings_that_come_together_are_named_together(void **state)
{
    (void)state;
    struct world w;
    struct beat b = steady();
    world_begin(&w);
    for (unsigned block = 0; block < 30; block++) {
        const uint32_t n = block % 2;
        world_mix(&w, (struct pm_sampling_mix){
                          .requests = 4, .greedy = 4, .logprobs = n, .penalties = n});
        b.sample_us = n != 0 ? 5000 : 1000;
        world_beats(&w, b, 20);
    }
    TRIGGER("sampling_cost");
    assert_int_equal(strncmp(f->title, "penalties costs 3.2 ms of a ", 28), 0);
    assert_non_null(strstr(f->evidence[0], "penalties (always with logprobs) costs 3.2 ms"));
    world_end(&w, session, &findings);
}

/* ---- front end ---- */

static void front(struct world *w, enum pm_frontend_kind op, unsigned n, double dur_ms,
                  double delay_ms, double every_ms)
{
    for (unsigned i = 0; i < n; i++) {
        const struct pm_frontend_op fact = {
            .start_ns = MK_START_MONO + (uint64_t)(i * every_ms * 1e6),
            .dur_ns = (uint64_t)(dur_ms * 1e6),
            .delay_ns = (uint64_t)(delay_ms * 1e6),
            .outputs = 4,
            .op = (uint8_t)op,
        };
        mk_put(&w->mk, W_FRONT, &fact, sizeof fact);
    }
}

static void requests(struct world *w, unsigned n, uint64_t front_ms)
{
    char id[32];
    for (unsigned i = 0; i < n; i++) {
        snprintf(id, sizeof id, "r%u", i);
        world_request(w, id, 2000, front_ms, 100, 300, 0, 0, 0);
    }
}

static void arrival(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_beats(&w, steady(), 400);
    front(&w, PM_FRONTEND_TOKENIZATION, 30, 80, 0, 10);
    requests(&w, 30, 100);
    {
        TRIGGER("slow_arrival");
        world_expect(f, "front_mean_s", 0.1);
        world_expect(f, "front_share_pct", 20); /* 100 of 500 ms */
        world_expect(f, "front_sum_s", 3);
        world_expect(f, "tokenization_mean_s", 0.08);
        assert_non_null(strstr(f->advice, "Tokenization is most of it"));
        assert_true(world_turns(f, "--api-server-count", "raise"));
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 400);
    requests(&w, 30, 40);
    world_silent(&w, "slow_arrival", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, steady(), 400);
    requests(&w, 15, 400);
    world_silent(&w, "slow_arrival", PM_VERDICT_LITTLE);
}

static void outputs(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_beats(&w, steady(), 400);
    front(&w, PM_FRONTEND_DETOKENIZATION, 400, 7, 1, 10);
    {
        TRIGGER("slow_output"); /* busy */
        world_expect(f, "busy_pct", 100 * 400 * 7 / (399 * 10.0 + 7));
        world_expect(f, "delay_mean_s", 0.001);
        assert_true(world_turns(f, "--stream-interval", "raise"));
        assert_int_equal(f->severity, PM_SEVERITY_MEDIUM);
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 400);
    front(&w, PM_FRONTEND_DETOKENIZATION, 400, 1, 30, 10);
    {
        TRIGGER("slow_output"); /* late */
        world_expect(f, "delay_mean_s", 0.030);
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 400);
    front(&w, PM_FRONTEND_DETOKENIZATION, 400, 1, 1, 10);
    world_silent(&w, "slow_output", PM_VERDICT_FINE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_bound),
        cmocka_unit_test(not_host_bound),
        cmocka_unit_test(sampling),
        cmocka_unit_test(the_dear_setting_is_named),
        cmocka_unit_test(nothing_dear_is_not_named),
        cmocka_unit_test(settings_that_come_together_are_named_together),
        cmocka_unit_test(arrival),
        cmocka_unit_test(outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
