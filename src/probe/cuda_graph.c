/*
 * Probe cuda_graph: from which CUDA graph each step's model was run, how much of it was padding,
 * and which steps fell back to eager execution and why; captures are in graph_capture.c.
 *
 * Runs in the worker, under the GIL. Records one graph_pass per executed step with tokens where
 * graphs are configured, one more per replay beside the step's model, and a graph_usage per graph
 * at the head of each segment.
 *
 *   Worker.execute_model   opens the step (its number is the probe worker_step's)
 *     an encoder's graph replays               → graph_pass, aside
 *     _model_forward | pre_forward             the dispatcher's choice, read from the context
 *       CUDAGraph.replay × pieces              the first one begins a pass, the others prolong it
 *   … returns              → graph_pass: replayed, or eager and why
 *   Worker.sample_tokens   replays of drafters → graph_pass, aside; closes the step
 *
 * A graph in pieces is counted by its first piece. The pieces between the first and the last one
 * are counted by their address alone (replay_quick), but for every sixteenth replay, of which each
 * piece is timed. CUDAGraphWrapper.__call__ itself is not hooked: it runs for every piece of every
 * step, passes through as often as not, and decides by the same context and by the graph that
 * capture_begin has been seen of.
 */
#include "hook/compat.h"

#include <string.h>

#include "hook/read.h"
#include "probe/graph_capture.h"
#include "probe/graph_read.h"
#include "probe/graph_schema.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/attrs.h"

static const struct pm_schema *const schemas[] = {&pm_graph_capture_schema, &pm_graph_pass_schema,
                                                  &pm_graph_usage_schema};

/* A replay that is under way: its first piece has been seen. */
struct replay {
    uint64_t begun_ns, ended_ns, launch_ns;
    uint32_t entry, pieces;
    bool open;
    bool seen;  /* the graph's capture was */
    bool quick; /* pieces were counted without a look at the clock */
};

#define TIMED_EVERY 16 /* replays of a graph in pieces, of which one is timed piece by piece */

static struct {
    struct pm_worker_now now; /* of the open step */
    struct pm_graph_dispatch dispatch;
    struct replay replay;
    const void *expected; /* the next piece's object, if it is neither the first nor the last … */
    const void *const *next;         /* … where that stands in the entry's chain … */
    const void *const *last;         /* … and the last piece */
    uint64_t model_ns;               /* the model began; 0: not seen */
    uint32_t largest, largest_mixed; /* captured sizes, of … */
    uint32_t sized_entries;          /* … this many entries of … */
    uint16_t sized_instance;         /* … this worker */
    uint16_t configured;             /* worker + 1 whose configuration was read; 0: none */
    bool off;                        /* it has graphs switched off */
    bool step_open, dispatched, model_done;
} state;

static uint32_t span(uint64_t from_ns, uint64_t to_ns)
{
    if (from_ns == 0 || to_ns <= from_ns)
        return 0;
    return to_ns - from_ns < UINT32_MAX ? (uint32_t)(to_ns - from_ns) : UINT32_MAX;
}

static void record(const struct pm_graph_pass *fact)
{
    struct pm_recorder *rec = pm_facts();
    struct pm_graph_pass *room =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_graph_pass_schema)) : NULL;
    if (room == NULL)
        return;
    *room = *fact;
    pm_recorder_commit(rec, room);
}

/* The replay that is under way has had its last piece. */
static void finish_replay(void)
{
    const struct replay *replay = &state.replay;
    state.expected = NULL;
    if (!replay->open)
        return;
    state.replay.open = false;
    struct pm_graph_entry *entry = &pm_graphs.entries[replay->entry];
    const bool models = !state.model_done && pm_graph_is_models(&entry->desc);
    struct pm_graph_pass fact = {
        .step = state.now.step,
        .at_ns = replay->begun_ns,
        .dur_ns = span(replay->begun_ns, replay->ended_ns),
        .launch_ns = replay->quick                    ? 0
                     : replay->launch_ns < UINT32_MAX ? (uint32_t)replay->launch_ns
                                                      : UINT32_MAX,
        .desc = entry->desc,
        .pieces = replay->pieces < UINT16_MAX ? (uint16_t)replay->pieces : UINT16_MAX,
        .instance = state.now.instance,
        .outcome = PM_GRAPH_ASIDE,
    };
    if (models) {
        state.model_done = true;
        fact.outcome = entry->desc.mode == PM_GRAPH_MODE_FULL ? PM_GRAPH_FULL : PM_GRAPH_PIECEWISE;
        fact.tokens = state.now.tokens;
        if (entry->desc.num_tokens > fact.tokens)
            fact.padding = entry->desc.num_tokens - fact.tokens;
    }
    record(&fact); /* counted afterwards: a keyframe made by it tells what was before it */
    entry->replays++;
}

/* Why a step was run without a graph. */
static enum pm_graph_outcome reason(void)
{
    const struct pm_graph_dispatch *dispatch = &state.dispatch;
    if (pm_captures_of_step() > 0)
        return PM_GRAPH_CAPTURED;
    if (state.dispatched) {
        if (dispatch->skip_compiled)
            return PM_GRAPH_SKIP_COMPILED;
        if (dispatch->desc.mode != PM_GRAPH_MODE_NONE)
            return PM_GRAPH_NOT_REPLAYED;
        if (!dispatch->has_desc)
            return PM_GRAPH_NO_DESCRIPTOR;
    }
    if (state.sized_entries != pm_graphs.n_entries || state.sized_instance != state.now.instance) {
        pm_graphs_largest(&pm_graphs, state.now.instance, &state.largest, &state.largest_mixed);
        state.sized_entries = pm_graphs.n_entries;
        state.sized_instance = state.now.instance;
    }
    if (state.largest == 0)
        return PM_GRAPH_EAGER;
    if (state.now.tokens > state.largest)
        return PM_GRAPH_TOO_LARGE;
    if (state.now.tokens > state.largest_mixed)
        return PM_GRAPH_NOT_UNIFORM;
    return state.dispatched ? PM_GRAPH_DISPATCHED : PM_GRAPH_EAGER;
}

/* The step's model has been run, and no graph of its own was replayed. */
static void record_eager(void)
{
    const struct pm_graph_desc none = {.num_tokens = state.now.tokens, .num_reqs = -1};
    struct pm_graph_pass fact = {
        .step = state.now.step,
        .at_ns = state.model_ns,
        .tokens = state.now.tokens,
        .desc = state.dispatched && state.dispatch.has_desc ? state.dispatch.desc : none,
        .instance = state.now.instance,
        .outcome = (uint8_t)reason(),
    };
    if (fact.desc.num_tokens > fact.tokens)
        fact.padding = fact.desc.num_tokens - fact.tokens;
    record(&fact);
}

static void close_step(void)
{
    finish_replay();
    if (state.step_open)
        pm_captures_flush();
    pm_captures_step(false, state.now.instance);
    state.step_open = false;
}

/* What the worker's engine is configured for, read when its first step comes: by then vLLM has
 * settled on a mode that the attention backends can do. */
static void read_config(PyObject *worker, uint16_t instance)
{
    char mode[32];
    state.configured = (uint16_t)(instance + 1);
    state.off = false;
    if (!pm_graph_read_config(worker, mode, sizeof mode))
        return;
    pm_facts_attr(PM_ATTR_CONFIG_PREFIX "cudagraph_mode", mode);
    state.off = strcmp(mode, "NONE") == 0;
}

static void step_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    if (state.step_open) /* a rank whose steps end without sample_tokens */
        close_step();
    if (!pm_worker_now(&now))
        return;
    if (state.configured != now.instance + 1)
        read_config(call->args[0], now.instance);
    if (state.off || now.tokens == 0)
        return;
    state.now = now;
    state.model_ns = 0;
    state.step_open = true;
    state.dispatched = state.model_done = false;
    pm_captures_step(true, now.instance);
}

static void step_leave(struct pm_call *call)
{
    if (!state.step_open)
        return;
    finish_replay();
    pm_captures_flush();
    if (!state.model_done && call->result != NULL) {
        if (state.model_ns == 0)
            state.model_ns = call->start_ns;
        record_eager();
    }
    state.model_done = true;
    if (call->result != Py_None) /* else sample_tokens ends the step */
        close_step();
}

static void sample_leave(struct pm_call *call)
{
    (void)call;
    if (state.step_open)
        close_step();
}

/* A dummy step of a data-parallel rank without requests: its replays are nobody's. */
static void dummy_enter(struct pm_call *call)
{
    (void)call;
    if (state.step_open)
        close_step();
}

/* GPUModelRunner._model_forward is entered inside the forward context, KVConnector.pre_forward too
 * but for FULL graphs. */
static void read_dispatch(uint64_t at_ns)
{
    if (!state.step_open || state.model_done)
        return;
    if (state.model_ns == 0)
        state.model_ns = at_ns;
    if (!state.dispatched)
        state.dispatched = pm_graph_read_context(&state.dispatch);
}

static void model_enter(struct pm_call *call)
{
    read_dispatch(call->enter_ns);
}

static void connector_leave(struct pm_call *call)
{
    read_dispatch(call->end_ns);
}

/* A replay of a graph whose capture was not seen, by the context in force. */
static uint32_t unseen_entry(void)
{
    struct pm_graph_desc desc = state.dispatch.desc;
    if (!state.dispatched || desc.mode == PM_GRAPH_MODE_NONE || state.model_done)
        return PM_GRAPH_NONE;
    desc.holder = PM_GRAPH_HOLDER_WRAPPER;
    return pm_graphs_entry(&pm_graphs, &desc, state.now.instance);
}

/* The first piece of a graph begins a pass. */
static void begin_replay(const struct pm_call *call, uint32_t entry, bool seen)
{
    finish_replay();
    state.replay = (struct replay){
        .begun_ns = call->start_ns,
        .ended_ns = call->end_ns,
        .launch_ns = call->end_ns - call->start_ns,
        .entry = entry,
        .pieces = 1,
        .open = true,
        .seen = seen,
    };
    const struct pm_graph_entry *graph = &pm_graphs.entries[entry];
    if (seen && graph->chained == graph->pieces && graph->pieces > 2 &&
        graph->replays % TIMED_EVERY != 0) {
        state.next = graph->chain + 1;
        state.last = graph->chain + graph->pieces - 1;
        state.expected = *state.next;
    }
}

/* A piece in the middle of the replay under way: counted, and nothing else. */
static bool replay_quick(const PyObject *self)
{
    if (self != state.expected)
        return false;
    state.replay.pieces++;
    state.replay.quick = true;
    state.expected = ++state.next < state.last ? *state.next : NULL;
    return true;
}

/* Chains may move. */
static void begin_enter(struct pm_call *call)
{
    state.expected = NULL;
    pm_capture_begin_enter(call);
}

static void replay_leave(struct pm_call *call)
{
    struct replay *replay = &state.replay;
    if (!state.step_open || call->result == NULL)
        return;
    const struct pm_graph_object *object = pm_graphs_object(&pm_graphs, call->args[0]);
    const bool seen = object != NULL;
    if (seen && object->piece == 0 && object->entry != PM_GRAPH_NONE) {
        begin_replay(call, object->entry, true);
    } else if (replay->open && replay->seen == seen && (!seen || object->entry == replay->entry)) {
        replay->pieces++;
        replay->ended_ns = call->end_ns;
        replay->launch_ns += call->end_ns - call->start_ns;
    } else if (!seen && !replay->open) {
        const uint32_t entry = unseen_entry();
        if (entry != PM_GRAPH_NONE)
            begin_replay(call, entry, false);
    }
}

#define begin_leave NULL
#define end_enter NULL
#define end_leave pm_capture_end_leave
#define replay_enter NULL
#define profile_enter pm_capture_profile_enter
#define profile_leave pm_capture_profile_leave
#define capture_enter pm_capture_model_enter
#define capture_leave pm_capture_model_leave
#define manager_enter pm_capture_manager_enter
#define manager_leave pm_capture_manager_leave
#define breakable_enter pm_capture_breakable_enter
#define breakable_leave pm_capture_labelled_leave
#define ubatch_enter pm_capture_ubatch_enter
#define ubatch_leave pm_capture_labelled_leave
#define encoder_enter pm_capture_encoder_enter
#define encoder_leave pm_capture_labelled_leave
#define dummy_leave NULL
#define sample_enter NULL
#define model_leave NULL
#define connector_enter NULL
#define T PM_TARGET_ROW
/* clang-format off */
static const struct pm_target targets[] = {
#include "probe/cuda_graph.def"
    /* Also hooked by worker_step, whose rows tell doctor of them. */
    T(step,      "vllm.v1.worker.gpu_worker",       "Worker.execute_model",          METHOD, PM_TARGET_OUTERMOST, "0.11.0+", NULL)
    T(sample,    "vllm.v1.worker.gpu_worker",       "Worker.sample_tokens",          METHOD, PM_TARGET_OUTERMOST | PM_TARGET_OPTIONAL, "0.11.2+", NULL)
    T(model,     "vllm.v1.worker.gpu_model_runner", "GPUModelRunner._model_forward", METHOD, PM_TARGET_OPTIONAL, "0.11.2+", NULL)
    T(connector, "vllm.v1.worker.gpu.kv_connector", "KVConnector.pre_forward",       METHOD, PM_TARGET_OPTIONAL, "0.15.1+", NULL)
    T(connector, "vllm.v1.worker.gpu.kv_connector", "ActiveKVConnector.pre_forward", METHOD, PM_TARGET_OPTIONAL, "0.15.1+", NULL)
};
/* clang-format on */
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->cuda_graph;
}

static void reset(void)
{
    memset(&state, 0, sizeof state);
    pm_captures_reset();
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    for (uint32_t i = 0; stream == PM_STREAM_CORE && i < pm_graphs.n_entries; i++) {
        const struct pm_graph_entry *entry = &pm_graphs.entries[i];
        struct pm_graph_usage *fact =
            entry->replays > 0 ? pm_recorder_reserve(rec, pm_facts_schema(&pm_graph_usage_schema))
                               : NULL;
        if (fact == NULL)
            continue;
        fact->replays = entry->replays;
        fact->desc = entry->desc;
        fact->instance = entry->instance;
        pm_recorder_commit(rec, fact);
    }
}

const struct pm_probe pm_probe_cuda_graph = {
    .name = "cuda_graph",
    .control = PM_PROBE_EARLY,
    .early = "graphs are known by what was seen at their capture, which is over",
    .component = "torch.cuda.CUDAGraph",
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .quick = replay_quick,
    .reset = reset,
    .keyframe = keyframe,
};
