/*
 * What a device's own events told, joined with the steps by the reader: late, out of order, in
 * part, for one of several workers; and what the views and the findings make of it, with work that
 * produced nothing. Sessions through the real recorder.
 */
#include "explain_world.h"

#include "base/settings.h"
#include "session/graph_facts.h"
#include "view/common.h"
#include "view/device_report.h"
#include "view/wasted.h"

#define DECODES 4u

/* A decode step of four requests on a device, whose events were recorded; 10 ms each. */
static void step_on_device(struct world *w, uint32_t flags, uint32_t sync_us)
{
    const struct pm_sched_step sched = {
        .step = w->step,
        .start_ns = w->now_ns,
        .dur_ns = 1000000,
        .phase = PM_PHASE_DECODE,
        .requests = DECODES,
        .tokens = DECODES,
        .decode_requests = DECODES,
        .decode_tokens = DECODES,
        .running = DECODES,
    };
    const struct pm_worker_step worker = {
        .step = w->step,
        .start_ns = w->now_ns + 1000000,
        .model_ns_at = w->now_ns + 2000000,
        .pre_ns = 1000000,
        .model_ns = 500000,
        .post_ns = 500000,
        .sample_ns = 1000000,
        .total_ns = 3000000,
        .sync_ns = sync_us * 1000,
        .requests = DECODES,
        .tokens = DECODES,
        .phase = PM_PHASE_DECODE,
        .runner = 1,
        .flags = PM_WORKER_HAS_MODEL | PM_WORKER_HAS_SAMPLE | PM_WORKER_DEVICE | flags,
    };
    mk_put(&w->mk, W_SCHED, &sched, sizeof sched);
    mk_put(&w->mk, W_WORKER, &worker, sizeof worker);
    w->now_ns += 10 * MK_MS;
    w->step++;
}

/* The device's word on a step: times that no other step has. */
static void tell(struct world *w, uint64_t step, unsigned flags)
{
    const struct pm_device_step fact = {
        .step = step,
        .at_ns = w->now_ns,
        .gpu_ns = 4000000 + step,
        .wait_ns = 3000000,
        .after_ns = 500000,
        .sample_ns = 2500000,
        .device = 1,
        .phase = PM_PHASE_DECODE,
        .flags = (uint8_t)flags,
    };
    mk_put(&w->mk, W_DEVICE, &fact, sizeof fact);
}

#define ALL (PM_DEVICE_HAS_WAIT | PM_DEVICE_HAS_SAMPLE)

static struct pm_session *opened(struct world *w)
{
    if (w->mk.rec != NULL)
        world_close(w, 77);
    return mk_session(w->dir);
}

static void times_land_in_their_step(void **state)
{
    (void)state;
    struct world w;
    struct pm_steps *steps;
    struct pm_step step;
    world_begin(&w);
    /* 1,000 steps are under way before the first of them is told, the rest from the last to the
     * first; 7, 8 and 9 never. */
    for (unsigned i = 0; i < 1000; i++)
        step_on_device(&w, PM_WORKER_EVENTS, 6000);
    for (unsigned i = 0; i < 3; i++)
        tell(&w, i, ALL);
    for (unsigned i = 1000; i-- > 3;)
        if (i < 7 || i > 9)
            tell(&w, i, i == 500 ? PM_DEVICE_HAS_SAMPLE : i == 501 ? 0 : ALL);
    tell(&w, 77, ALL);     /* twice: the first counts */
    tell(&w, 123456, ALL); /* of no step */
    struct pm_session *session = opened(&w);
    assert_int_equal(pm_steps_open(&steps, session, 0, 0), 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(pm_steps_next(steps, &step), 1);
        assert_int_equal(step.step, i);
        assert_true(step.matched);
        const bool told = i < 7 || i > 9;
        assert_int_equal(step.has_device, told);
        assert_int_equal(step.forward_clock, told ? 3 : 2);
        assert_int_equal(step.forward_ns, told ? 4000000 + i : 6000000);
        assert_int_equal(step.model_ns, 500000); /* the host's is kept */
        if (!told)
            continue;
        assert_int_equal(step.device, 1);
        assert_int_equal(step.has_device_wait, i != 500 && i != 501);
        assert_int_equal(step.device_wait_ns, step.has_device_wait ? 3000000 : 0);
        assert_int_equal(step.has_device_sample, i != 501);
        assert_int_equal(step.device_sample_ns, i != 501 ? 2500000 : 0);
    }
    assert_int_equal(pm_steps_next(steps, &step), 0);
    pm_steps_close(steps);
    pm_session_close(session);
    mk_remove(w.dir);
}

/* More steps without a word than the reader holds back: they go on by the other clock, and later
 * ones find theirs. */
static void what_never_comes_is_not_waited_for_for_ever(void **state)
{
    (void)state;
    struct world w;
    struct pm_steps *steps;
    struct pm_step step;
    unsigned events = 0;
    world_begin(&w);
    for (unsigned i = 0; i < 6000; i++) {
        step_on_device(&w, PM_WORKER_EVENTS, 6000);
        if (i >= 5000)
            tell(&w, i - 20, ALL);
    }
    struct pm_session *session = opened(&w);
    assert_int_equal(pm_steps_open(&steps, session, 0, 0), 0);
    for (unsigned i = 0; i < 6000; i++) {
        assert_int_equal(pm_steps_next(steps, &step), 1);
        assert_int_equal(step.step, i);
        assert_true(step.matched);
        assert_int_equal(step.forward_clock, i >= 4980 && i < 5980 ? 3 : 2);
        events += step.has_device;
    }
    assert_int_equal(pm_steps_next(steps, &step), 0);
    assert_int_equal(events, 1000);
    pm_steps_close(steps);
    pm_session_close(session);
    mk_remove(w.dir);
}

static void summaries_say_which_clock(void **state)
{
    (void)state;
    struct world w;
    struct pm_forward forward;
    struct pm_stats stats[PM_FORWARD_PHASES];
    const char *source;
    world_begin(&w);
    for (unsigned i = 0; i < 10; i++) {
        step_on_device(&w, i < 8 ? PM_WORKER_EVENTS : 0, 6000);
        if (i < 8)
            tell(&w, i, ALL);
    }
    struct pm_session *session = opened(&w);
    pm_forward_init(&forward);
    assert_int_equal(pm_forward_walk(session, 0, 0, PM_PRESET_FULL, NULL, &forward), 0);
    assert_int_equal(forward.clocks[3], 8);
    assert_int_equal(forward.clocks[2], 2);
    assert_string_equal(pm_forward_clock(&forward), "events");
    assert_int_equal(pm_forward_stats(session, 0, 0, &forward, stats, &source), 0);
    assert_true(stats[PM_PHASE_DECODE].min == 4000000 && stats[PM_PHASE_DECODE].max == 6000000);
    pm_forward_release(&forward);
    pm_session_close(session);
    mk_remove(w.dir);
}

static void the_host_keeps_the_device_waiting(void **state)
{
    (void)state;
    struct world w;
    /* Of 10 ms the device waits 3, works 7: 4 the model, 0.5 logits, 2.5 sampling. By the host's
     * clock the model would have run for 6 of 10. */
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    for (unsigned i = 0; i < 401; i++) {
        step_on_device(&w, PM_WORKER_EVENTS, 6000);
        tell(&w, i, ALL);
    }
    {
        TRIGGER("host_bound");
        world_expect(f, "by_device_events", 400);
        assert_true(fabs(world_number(f, "idle_pct") - 30) < 0.01);
        world_expect(f, "idle_s", 400 * 0.003);
        assert_non_null(strstr(f->title, "The device works for only 70 %"));
        assert_non_null(strstr(f->evidence[0], "device events"));
        world_end(&w, session, &findings);
    }
}

/* ---- work that produced nothing ---- */

static void wasted_work(void **state)
{
    (void)state;
    struct world w;
    struct pm_wasted wasted;
    world_begin(&w);
    /* 8 tokens of 16 computed are padding, 12 drafts, of which 9 were rejected. */
    for (unsigned i = 0; i < 5; i++) {
        const struct pm_graph_pass pass = {.step = w.step,
                                           .at_ns = w.now_ns,
                                           .tokens = 8,
                                           .padding = 8,
                                           .desc = {.num_tokens = 16, .mode = PM_GRAPH_MODE_FULL},
                                           .outcome = i < 3    ? PM_GRAPH_FULL
                                                      : i == 3 ? PM_GRAPH_ASIDE
                                                               : PM_GRAPH_TOO_LARGE};
        mk_put(&w.mk, W_PASS, &pass, sizeof pass);
        world_beat(&w,
                   &(struct beat){
                       .decodes = 8, .model_us = 16000, .drafted = i < 2 ? 4 : 0, .accepted = 1});
    }
    /* 100 of 400 tokens are computed again. */
    world_beat(&w, &(struct beat){
                       .prefills = 1, .prefill_tokens = 300, .recomputed = 100, .model_us = 40000});
    struct pm_session *session = opened(&w);
    assert_int_equal(pm_wasted_walk(session, 0, 0, NULL, &wasted), 0);
    assert_int_equal(wasted.passes, 6);
    assert_int_equal(wasted.tokens, 5 * 8 + 3 * 8 + 400);
    assert_int_equal(wasted.drafted, 8);
    assert_int_equal(wasted.accepted, 2);
    assert_int_equal(wasted.spec_steps, 2);
    assert_int_equal(wasted.cause_tokens[PM_WASTED_DRAFTS], 6);
    assert_int_equal(wasted.cause_tokens[PM_WASTED_PADDING], 24);
    assert_int_equal(wasted.cause_tokens[PM_WASTED_RECOMPUTED], 100);
    assert_true(fabs(wasted.cause_ns[PM_WASTED_DRAFTS] - 2 * 3 * 1e6) < 1); /* 3 of 16 in 16 ms */
    assert_true(fabs(wasted.cause_ns[PM_WASTED_PADDING] - 3 * 8 * 1e6) < 1);
    assert_true(fabs(wasted.cause_ns[PM_WASTED_RECOMPUTED] - 10e6) < 1);
    pm_session_close(session);
    mk_remove(w.dir);
}

static void nothing_was_wasted(void **state)
{
    (void)state;
    struct world w;
    struct pm_buf buf;
    world_begin(&w);
    world_beats(&w, (struct beat){.decodes = 2}, 3);
    struct pm_session *session = opened(&w);
    pm_buf_init(&buf, 1 << 16);
    assert_int_equal(pm_wasted_report_text(session, 0, 0, false, &buf), 0);
    assert_int_equal(buf.used, 0);
    pm_buf_release(&buf);
    pm_session_close(session);
    mk_remove(w.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_land_in_their_step),
        cmocka_unit_test(what_never_comes_is_not_waited_for_for_ever),
        cmocka_unit_test(summaries_say_which_clock),
        cmocka_unit_test(the_host_keeps_the_device_waiting),
        cmocka_unit_test(wasted_work),
        cmocka_unit_test(nothing_was_wasted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
