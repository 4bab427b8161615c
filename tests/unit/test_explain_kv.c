/*
 * Findings of the KV cache, preemptions and the prefix cache: sessions made to trigger each rule,
 * with the figures that they must give, and sessions made not to.
 */
#include "explain_world.h"

/* 400 steps of 10 ms, four decodes each. */
static struct beat steady(void)
{
    return (struct beat){.decodes = 4,
                         .continued = 4,
                         .sched_us = 1000,
                         .update_us = 1000,
                         .total = 1000,
                         .used = 700};
}

static void too_small(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    struct beat b = steady();
    world_beats(&w, b, 300);
    b.used = 950;
    b.waiting = 2;
    world_beats(&w, b, 100);
    TRIGGER("kv_too_small");
    world_expect(f, "peak_pct", 95);
    world_expect(f, "mean_pct", 76.25);
    world_expect(f, "total_blocks", 1000);
    /* 99 steps of 10 ms (the last one has no follower: 8 ms of its own), of 299 + … */
    world_expect(f, "over_time_pct", 100 * (99 * 10.0 + 8) / (399 * 10.0 + 8));
    world_expect(f, "waited_s", 2 * (99 * 0.010 + 0.008));
    assert_int_equal(f->severity, PM_SEVERITY_MEDIUM);
    assert_true(f->confidence > 0.9);
    assert_true(world_turns(f, "VLLM_CPU_KVCACHE_SPACE", "raise"));
    assert_true(world_turns(f, "--max-num-seqs", "lower"));
    world_end(&w, session, &findings);
}

static void too_small_on_a_device(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    pm_recorder_attr(w.mk.rec, "config.gpu_memory_utilization", "0.8");
    pm_recorder_attr(w.mk.rec, "config.kv_cache_dtype", "auto");
    struct beat b = steady();
    b.used = 950;
    world_beats(&w, b, 400);
    TRIGGER("kv_too_small");
    assert_int_equal(f->severity, PM_SEVERITY_LOW); /* nobody waited, nobody was preempted */
    assert_true(world_turns(f, "--gpu-memory-utilization", "raise"));
    assert_string_equal(f->changes[0].value, "0.85");
    assert_string_equal(f->changes[0].now, "0.8");
    assert_true(world_turns(f, "--kv-cache-dtype", "set"));
    world_end(&w, session, &findings);
}

/* A moment above 90 % is none, and neither is a short session. */
static void not_too_small(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    struct beat b = steady();
    world_beats(&w, b, 390);
    b.used = 950;
    world_beats(&w, b, 10);
    world_silent(&w, "kv_too_small", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, b, 150);
    world_silent(&w, "kv_too_small", PM_VERDICT_LITTLE);
    world_begin(&w);
    b.total = 0;
    world_beats(&w, b, 400);
    world_silent(&w, "kv_too_small", PM_VERDICT_UNSEEN);
}

static void too_large(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    struct beat b = steady();
    b.used = 390;
    b.running = 4;
    world_beats(&w, b, 400);
    TRIGGER("kv_too_large");
    world_expect(f, "peak_pct", 39);
    world_expect(f, "max_running", 4);
    assert_true(world_turns(f, "--max-num-seqs", "raise"));
    assert_string_equal(f->changes[0].value, "16");
    world_end(&w, session, &findings);
}

static void not_too_large(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    struct beat b = steady();
    b.used = 400;
    world_beats(&w, b, 400);
    world_silent(&w, "kv_too_large", PM_VERDICT_FINE);
    /* A light load says nothing of the size. */
    world_begin(&w);
    b.used = 100;
    b.running = 3;
    world_beats(&w, b, 400);
    world_silent(&w, "kv_too_large", PM_VERDICT_LITTLE);
}

static void evict(struct world *w, unsigned n, double life_s, double idle_s, uint32_t reuses)
{
    for (unsigned i = 0; i < n; i++) {
        const struct pm_kv_eviction fact = {.at_ns = w->now_ns,
                                            .step = w->step - 1,
                                            .lifetime_ns = (uint64_t)(life_s * 1e9),
                                            .idle_ns = (uint64_t)(idle_s * 1e9),
                                            .block = i,
                                            .reuses = reuses};
        mk_put(&w->mk, W_EVICT, &fact, sizeof fact);
    }
}

static void lives(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_beats(&w, steady(), 400);
    evict(&w, 90, 8, 4, 0);
    evict(&w, 10, 18, 9, 0);
    {
        TRIGGER("kv_short_life");
        world_expect(f, "mean_lifetime_s", 9);
        world_expect(f, "mean_idle_s", 4.5);
        world_expect(f, "evictions", 100);
        pm_findings_release(&findings);
        pm_session_close(session);
    }
    world_silent(&w, "kv_long_idle", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, steady(), 400);
    evict(&w, 100, 20, 6, 0);
    {
        TRIGGER("kv_long_idle");
        world_expect(f, "mean_idle_s", 6);
        assert_int_equal(f->severity, PM_SEVERITY_INFO);
        pm_findings_release(&findings);
        pm_session_close(session);
    }
    world_silent(&w, "kv_short_life", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, steady(), 400);
    evict(&w, 99, 1, 1, 0);
    world_silent(&w, "kv_short_life", PM_VERDICT_LITTLE);
}

static void preempt(struct world *w, const char *id)
{
    const struct pm_step_request fact = {.step = w->step,
                                         .at_ns = w->now_ns,
                                         .request = world_id(w, id),
                                         .computed = 50,
                                         .blocks = 4,
                                         .event = PM_REQUEST_PREEMPTED,
                                         .reason = PM_PREEMPT_EXHAUSTED};
    mk_put(&w->mk, W_MEMBER, &fact, sizeof fact);
}

static void preempted(void **state)
{
    (void)state;
    struct world w;
    char id[32];
    world_begin(&w);
    struct beat b = steady();
    for (unsigned i = 0; i < 4; i++) {
        snprintf(id, sizeof id, "r%u", i);
        world_member(&w, id, PM_REQUEST_STARTED, PM_PHASE_PREFILL, 60, true);
        world_beats(&w, b, 50);
        preempt(&w, id);
        world_beats(&w, b, 20);
        world_member(&w, id, PM_REQUEST_RESUMED, PM_PHASE_PREFILL, 50, true);
        struct beat again = b;
        again.recomputed = 46; /* with 4 decodes: 92 % of the step's tokens */
        world_beat(&w, &again);
        world_beats(&w, b, 10);
        world_request(&w, id, 900, 0, 5, 20, 1, 200, 50);
    }
    for (unsigned i = 0; i < 36; i++) {
        snprintf(id, sizeof id, "other%u", i);
        world_request(&w, id, 900, 0, 5, 20, 0, 0, 0);
    }
    TRIGGER("preemption");
    world_expect(f, "preemptions", 4);
    world_expect(f, "preempted_requests", 4);
    world_expect(f, "preempted_pct", 10);
    world_expect(f, "recomputed_tokens", 4 * 46);
    world_expect(f, "lost_tokens", 4 * 50);
    world_expect(f, "away_s", 4 * 0.2);
    world_expect(f, "recompute_s", 4 * 0.010 * 46 / 50);
    assert_int_equal(f->severity, PM_SEVERITY_HIGH);
    assert_true(f->has_cost_tokens && f->cost_tokens == 4 * 46);
    assert_int_equal(f->n_requests, 4);
    assert_int_equal(f->n_named, 4);
    world_end(&w, session, &findings);
}

static void not_preempted(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    preempt(&w, "a");
    world_beats(&w, steady(), 400);
    preempt(&w, "b");
    world_request(&w, "a", 100, 0, 1, 1, 1, 10, 10);
    world_request(&w, "b", 100, 0, 1, 1, 1, 10, 10);
    world_silent(&w, "preemption", PM_VERDICT_FINE);
}

/* 40 requests, 400 tokens looked up of each. */
static void ask_cache(struct world *w, uint32_t hit, bool uncached)
{
    char id[32];
    world_begin(w);
    struct beat b = steady();
    b.queried = 40;
    b.hit = hit;
    b.uncached = uncached;
    world_beats(w, b, 400);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(id, sizeof id, "r%u", i);
        world_request(w, id, 100, 0, 1, 1, 0, 0, 0);
    }
}

static void cache_useless(void **state)
{
    (void)state;
    struct world w;
    ask_cache(&w, 0, false);
    {
        TRIGGER("prefix_cache_useless");
        world_expect(f, "hit_pct", 0);
        world_expect(f, "queried_tokens", 16000);
        assert_true(world_turns(f, "--no-enable-prefix-caching", "set"));
        world_end(&w, session, &findings);
    }
    ask_cache(&w, 1, false); /* 2.5 % */
    world_silent(&w, "prefix_cache_useless", PM_VERDICT_FINE);
    ask_cache(&w, 0, true);
    world_silent(&w, "prefix_cache_useless", PM_VERDICT_NOT_HERE);
}

static void cache_thrashes(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, "config.block_size", "16");
    world_beats(&w, steady(), 400);
    evict(&w, 75, 20, 8, 0);
    evict(&w, 25, 20, 1.5, 3);
    {
        TRIGGER("prefix_cache_thrashing");
        world_expect(f, "reused_pct", 25);
        world_expect(f, "reused_blocks", 25);
        world_expect(f, "reused_idle_s", 1.5);
        assert_true(f->has_cost_tokens && f->cost_tokens == 25 * 16);
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    world_beats(&w, steady(), 400);
    evict(&w, 85, 20, 1, 0);
    evict(&w, 15, 20, 1, 2);
    world_silent(&w, "prefix_cache_thrashing", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, steady(), 400);
    evict(&w, 100, 20, 6, 2); /* found again once, long ago */
    world_silent(&w, "prefix_cache_thrashing", PM_VERDICT_FINE);
}

static void drafts(void **state)
{
    (void)state;
    struct world w;
    struct beat b = steady();
    b.drafted = 12;
    b.accepted = 3;
    world_begin(&w);
    world_beats(&w, b, 400);
    {
        TRIGGER("draft_waste");
        world_expect(f, "accepted_pct", 25);
        assert_true(f->has_cost_tokens && f->cost_tokens == 400 * 9);
        assert_true(world_turns(f, "--speculative-config", "lower"));
        world_end(&w, session, &findings);
    }
    b.accepted = 4;
    world_begin(&w);
    world_beats(&w, b, 400);
    world_silent(&w, "draft_waste", PM_VERDICT_FINE);
    b.drafted = b.accepted = 0;
    world_begin(&w);
    world_beats(&w, b, 400);
    world_silent(&w, "draft_waste", PM_VERDICT_NOT_HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_small),     cmocka_unit_test(too_small_on_a_device),
        cmocka_unit_test(not_too_small), cmocka_unit_test(too_large),
        cmocka_unit_test(not_too_large), cmocka_unit_test(lives),
        cmocka_unit_test(preempted),     cmocka_unit_test(not_preempted),
        cmocka_unit_test(cache_useless), cmocka_unit_test(cache_thrashes),
        cmocka_unit_test(drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
