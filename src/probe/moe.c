/*
 * Probe moe: which experts the routers of a mixture-of-experts model choose, and how long its
 * layers take.
 *
 * Runs in the worker, under the GIL. Here: the hooks, what counts, and when it is recorded. What is
 * done when a model is loaded: moe_model.c; the layers and their records: moe_layers.c; what is
 * called inside the forward pass: moe_capture.c; counting inside graphs: moe_graph.c. What the
 * facts mean: session/moe_facts.h.
 *
 * How selections are seen, by what the router's Python meets:
 *
 *   run at each step, ids on the host (CPU, --enforce-eager)   a capture function that reads them
 *   compiled by Dynamo (CPU)                                   with MOE_EXPERT_TRACKING=1: an
 *                                                              operation that stays in the graph,
 *                                                              and a compile cache key of its own
 *   run eagerly or while a graph is captured, ids on a device  with MOE_EXPERT_TRACKING=1:
 *                                                              additions on the device
 */
#include "hook/compat.h"

#include <string.h>

#include "probe/moe_capture.h"
#include "probe/moe_graph.h"
#include "probe/moe_layers.h"
#include "probe/moe_model.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/attrs.h"

static const struct pm_schema *const schemas[] = {&pm_moe_layer_schema, &pm_moe_counts_schema,
                                                  &pm_moe_totals_schema, &pm_moe_time_schema};

/* The worker whose model was loaded last. */
static struct {
    struct pm_moe_model_state model;
    uint64_t flushed_ns, pairs_flushed_ns;
    uint64_t steps; /* since counts were asked for */
} state;

/* ---- the hooks ------------------------------------------------------------------------------- */

/* What the recorder does not have yet. */
static void flush(uint64_t now_ns, bool all)
{
    const bool pairs = all || now_ns - state.pairs_flushed_ns >= PM_MOE_FLUSH_PAIRS_NS;
    struct pm_recorder *rec = state.model.any ? pm_facts() : NULL;
    if (rec == NULL)
        return;
    pm_moe_flush(rec, now_ns, pairs);
    if (pm_moe_unread() > 0) /* told once: the text stays the same */
        pm_facts_attr(
            PM_ATTR_NOTE_PREFIX "moe_unread",
            "what some calls of MoE routers chose could not be read: those selections are "
            "not counted");
    state.flushed_ns = now_ns;
    if (pairs)
        state.pairs_flushed_ns = now_ns;
}

/* Worker.load_model(self, …): the layers are there and nothing is compiled yet. */
static void load_leave(struct pm_call *call)
{
    if (call->result == NULL)
        return;
    flush(call->end_ns, true);
    memset(&state, 0, sizeof state);
    memset(&pm_moe_now, 0, sizeof pm_moe_now);
    pm_moe_schema = pm_facts_schema;
    state.flushed_ns = state.pairs_flushed_ns = call->end_ns;
    pm_moe_model_loaded(call->args[0], pm_worker_newest(), call->end_ns, &state.model);
    const bool has_layers = pm_moe_at(state.model.instance, 0) != NULL;
    struct pm_recorder *rec = has_layers ? pm_facts() : NULL;
    if (rec != NULL)
        pm_moe_record_layers(rec, state.model.instance);
}

/* BaseRouter.set_capture_fn(self, fn): vLLM's own, most likely, for --enable-return-routed-experts.
 * Our own calls do not come here. */
static void bind_leave(struct pm_call *call)
{
    if (call->result != NULL)
        pm_moe_model_rebind(call->args[0]);
}

/* After worker_step's own half: a step that it does not see is none of ours (warm-up). */
static void execute_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    (void)call;
    pm_moe_now.counting =
        state.model.any && pm_worker_now(&now) && now.instance == state.model.instance;
    if (!pm_moe_now.counting)
        return;
    pm_moe_now.tokens = now.tokens;
    pm_moe_now.instance = now.instance;
    pm_moe_now.dp_size = state.model.dp_size;
    pm_moe_now.dp_rank = state.model.dp_rank;
    if (state.model.device && !pm_moe_graph_begin(state.model.instance, now.tokens))
        state.model.device = false;
}

static void execute_leave(struct pm_call *call)
{
    if (!pm_moe_now.counting)
        return;
    pm_moe_now.counting = false;
    /* vLLM runs a step without tokens when the last request has ended: nothing may follow for
     * long. */
    const bool drained = pm_moe_now.tokens == 0;
    const bool due = call->end_ns - state.flushed_ns >= PM_MOE_FLUSH_NS;
    if (state.model.device) {
        const bool read_back =
            drained || due || ++state.steps >= (uint64_t)pm_facts_settings()->log_interval;
        if (!pm_moe_graph_end(state.model.instance, read_back, drained))
            state.model.device = false;
        if (read_back)
            state.steps = 0;
    }
    if (due || drained)
        flush(call->end_ns, drained);
}

#define load_enter NULL
#define bind_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/moe.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->moe != 0 && settings->preset != PM_PRESET_SIMPLE;
}

static void reset(void)
{
    pm_moe_reset();
    memset(&state, 0, sizeof state);
    memset(&pm_moe_now, 0, sizeof pm_moe_now);
}

static void finish(struct pm_recorder *rec, uint64_t now_ns)
{
    pm_moe_flush(rec, now_ns, true);
}

const struct pm_probe pm_probe_moe = {
    .name = "moe",
    .control = PM_PROBE_EARLY,
    .early = "the routers of a model are met while it is loaded, which is over",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
    .keyframe = pm_moe_keyframe,
    .finish = finish,
};
