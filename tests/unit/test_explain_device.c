/*
 * Findings of CUDA graphs, experts and ranks: sessions made to trigger each rule, with the figures
 * that they must give, and sessions made not to.
 */
#include "explain_world.h"

static struct beat steady(void)
{
    return (struct beat){
        .decodes = 4, .continued = 4, .sched_us = 1000, .update_us = 1000, .running = 4};
}

/* ---- graphs ---- */

static void captured(struct world *w, uint32_t size, enum pm_graph_when when)
{
    const struct pm_graph_capture fact = {.at_ns = w->now_ns,
                                          .dur_ns = 20 * MK_MS,
                                          .capture_ns = 10 * MK_MS,
                                          .desc = {.num_tokens = size,
                                                   .num_reqs = -1,
                                                   .mode = PM_GRAPH_MODE_PIECEWISE,
                                                   .holder = PM_GRAPH_HOLDER_WRAPPER},
                                          .pieces = 1,
                                          .when = (uint8_t)when};
    mk_put(&w->mk, W_CAPTURE, &fact, sizeof fact);
}

/* Steps of so many tokens from the graph of this size, or without one. */
static void passes(struct world *w, unsigned n, uint32_t size, uint32_t tokens,
                   enum pm_graph_outcome outcome)
{
    const bool eager = outcome >= PM_GRAPH_EAGER;
    for (unsigned i = 0; i < n; i++) {
        const struct pm_graph_pass fact = {
            .step = w->step,
            .at_ns = w->now_ns,
            .tokens = tokens,
            .padding = eager ? 0 : size - tokens,
            .desc = {.num_tokens = size,
                     .num_reqs = -1,
                     .mode = eager ? PM_GRAPH_MODE_NONE : PM_GRAPH_MODE_PIECEWISE,
                     .holder = PM_GRAPH_HOLDER_WRAPPER},
            .pieces = eager ? 0 : 1,
            .outcome = (uint8_t)outcome};
        mk_put(&w->mk, W_PASS, &fact, sizeof fact);
        world_beat(w, &(struct beat){.decodes = tokens, .continued = tokens, .running = 4});
    }
}

static void graphs(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    for (uint32_t size = 8; size <= 32; size += 8)
        captured(&w, size, PM_GRAPH_STARTUP);
    captured(&w, 40, PM_GRAPH_RUNTIME);
    passes(&w, 270, 8, 6, PM_GRAPH_PIECEWISE);
    passes(&w, 20, 16, 16, PM_GRAPH_PIECEWISE);
    passes(&w, 20, 0, 12, PM_GRAPH_NOT_UNIFORM);
    passes(&w, 10, 0, 90, PM_GRAPH_TOO_LARGE);
    {
        TRIGGER("graph_misses");
        world_expect(f, "eager_pct", 100 * 30 / 320.0);
        world_expect(f, "eager_tokens", 20 * 12 + 10 * 90);
        world_expect(f, "largest_graph", 40);
        assert_int_equal(f->severity, PM_SEVERITY_MEDIUM);
        assert_non_null(strstr(f->evidence[0], "too_large"));
        assert_true(world_turns(f, "--compilation-config", "set")); /* most were not uniform */
        pm_findings_release(&findings);
        pm_session_close(session);
    }
    {
        TRIGGER("graph_padding");
        world_expect(f, "padding_tokens", 540);
        world_expect(f, "padding_pct", 100 * 540 / (540 + 270 * 6 + 20 * 16.0));
        assert_true(f->has_cost_tokens && f->cost_tokens == 540);
        pm_findings_release(&findings);
        pm_session_close(session);
    }
    {
        TRIGGER("graph_captures");
        world_expect(f, "captures", 1);
        world_expect(f, "capture_s", 0.010);
        pm_findings_release(&findings);
        pm_session_close(session);
    }
    TRIGGER("descriptors");
    world_expect(f, "top_pct", 100 * 270 / 290.0);
    world_expect(f, "captured", 5);
    world_expect(f, "unused", 3);
    assert_non_null(strstr(f->title, "uniform"));
    world_end(&w, session, &findings);
}

static void graphs_fine(void **state)
{
    (void)state;
    struct world w;
    static const char *const rules[] = {"graph_misses", "graph_padding", "graph_captures",
                                        "descriptors"};
    for (unsigned i = 0; i < 4; i++) {
        world_begin(&w);
        pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
        captured(&w, 8, PM_GRAPH_STARTUP);
        captured(&w, 16, PM_GRAPH_STARTUP);
        passes(&w, 150, 8, 8, PM_GRAPH_PIECEWISE);
        passes(&w, 140, 16, 14, PM_GRAPH_PIECEWISE);
        passes(&w, 10, 0, 90, PM_GRAPH_TOO_LARGE);
        world_silent(&w, rules[i], PM_VERDICT_FINE);
        world_begin(&w);
        world_beats(&w, steady(), 400);
        world_silent(&w, rules[i], PM_VERDICT_NOT_HERE);
    }
    /* Twelve in use, none above a fifth. */
    world_begin(&w);
    for (uint32_t size = 1; size <= 12; size++) {
        captured(&w, size, PM_GRAPH_STARTUP);
        passes(&w, 30, size, size, PM_GRAPH_PIECEWISE);
    }
    TRIGGER("descriptors");
    assert_non_null(strstr(f->title, "diverse"));
    world_expect(f, "used", 12);
    world_end(&w, session, &findings);
}

static void graphs_off(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    pm_recorder_attr(w.mk.rec, "config.enforce_eager", "1");
    world_beats(&w, steady(), 400);
    {
        TRIGGER("graphs_off");
        world_expect(f, "decode_steps_pct", 100);
        assert_true(world_turns(f, "--enforce-eager", "unset"));
        world_end(&w, session, &findings);
    }
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, PM_ATTR_DEVICE, "cuda");
    pm_recorder_attr(w.mk.rec, "config.enforce_eager", "0");
    pm_recorder_attr(w.mk.rec, "config.cudagraph_mode", "FULL");
    world_beats(&w, steady(), 400);
    world_silent(&w, "graphs_off", PM_VERDICT_FINE);
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, "config.enforce_eager", "1"); /* a CPU */
    world_beats(&w, steady(), 400);
    world_silent(&w, "graphs_off", PM_VERDICT_NOT_HERE);
}

/* ---- experts ---- */

static void experts(struct world *w, uint16_t slot, const uint32_t n[4])
{
    const struct pm_moe_layer layer = {.at_ns = w->now_ns,
                                       .layer = slot + 3u,
                                       .experts = 4,
                                       .top_k = 1,
                                       .slot = slot,
                                       .seen = PM_MOE_HOST};
    struct pm_moe_counts counts = {.at_ns = w->now_ns, .slot = slot};
    for (unsigned i = 0; i < 4; i++)
        counts.n[i] = n[i];
    mk_put(&w->mk, W_LAYER, &layer, sizeof layer);
    mk_put(&w->mk, W_COUNTS, &counts, sizeof counts);
}

static void moe(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    pm_recorder_attr(w.mk.rec, "parallel.expert", "1");
    world_beats(&w, steady(), 400);
    experts(&w, 0, (const uint32_t[]){250, 250, 250, 250});
    experts(&w, 1, (const uint32_t[]){100, 700, 200, 0});
    {
        TRIGGER("expert_imbalance");
        world_expect(f, "worst_ratio", 2.8);
        world_expect(f, "mean_ratio", 1.9);
        world_expect(f, "uneven_layers", 1);
        assert_non_null(strstr(f->evidence[1], "layer 4, expert 1"));
        assert_true(world_turns(f, "--enable-eplb", "set"));
        assert_int_equal(f->severity, PM_SEVERITY_MEDIUM);
        pm_findings_release(&findings);
        pm_session_close(session);
    }
    {
        TRIGGER("dead_experts");
        world_expect(f, "dead", 1);
        world_expect(f, "experts", 8);
        assert_non_null(strstr(f->evidence[1], "layer 4 expert 3"));
        world_end(&w, session, &findings);
    }
    static const char *const rules[] = {"expert_imbalance", "dead_experts"};
    for (unsigned i = 0; i < 2; i++) {
        world_begin(&w);
        world_beats(&w, steady(), 400);
        experts(&w, 0, (const uint32_t[]){250, 350, 150, 250});
        world_silent(&w, rules[i], PM_VERDICT_FINE);
        world_begin(&w);
        world_beats(&w, steady(), 400);
        experts(&w, 0, (const uint32_t[]){0, 150, 10, 10}); /* too few to say */
        world_silent(&w, rules[i], PM_VERDICT_LITTLE);
        world_begin(&w);
        world_beats(&w, steady(), 400);
        world_silent(&w, rules[i], PM_VERDICT_NOT_HERE);
    }
}

/* ---- ranks ---- */

/* Two workers of one engine; the second begins late_us later and takes longer_us longer. */
static void ranks(struct world *w, uint32_t late_us, uint32_t longer_us)
{
    struct beat b = steady();
    world_begin(w);
    b.sched_only = true;
    world_beats(w, b, 400);
    world_close(w, 77);
    for (int rank = 0; rank < 2; rank++) {
        world_process(w, PM_ROLE_WORKER, 0, rank);
        b = steady();
        b.worker_only = true;
        b.sched_us += rank == 1 ? late_us : 0;
        b.model_us = 8000 + (rank == 1 ? longer_us : 0);
        b.update_us -= rank == 1 ? late_us + longer_us : 0;
        world_beats(w, b, 400);
        world_close(w, 100 + (uint32_t)rank);
    }
}

static void uneven_ranks(void **state)
{
    (void)state;
    struct world w;
    ranks(&w, 600, 0);
    {
        TRIGGER("uneven_ranks");
        world_expect(f, "late_pct", 7.5);
        world_expect(f, "late_s", 400 * 0.0006);
        world_expect(f, "often_pct", 100);
        assert_int_equal(f->rank, 1);
        world_end(&w, session, &findings);
    }
    ranks(&w, 0, 1000);
    world_silent(&w, "uneven_ranks", PM_VERDICT_FINE);
    world_begin(&w);
    world_beats(&w, steady(), 400);
    world_silent(&w, "uneven_ranks", PM_VERDICT_NOT_HERE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs), cmocka_unit_test(graphs_fine),  cmocka_unit_test(graphs_off),
        cmocka_unit_test(moe),    cmocka_unit_test(uneven_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
