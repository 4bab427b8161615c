/*
 * Captures of CUDA graphs (see graph_capture.h): which graph object is a piece of which
 * descriptor's graph, how long its capture took, and whether that was at start-up or while a
 * request waited.
 *
 * Runs in the worker, under the GIL. Owns the table of graphs and what is known of the captures
 * under way.
 */
#include "probe/graph_capture.h"

#include <stdlib.h>
#include <string.h>

#include "hook/read.h"
#include "probe/graph_read.h"
#include "probe/graph_schema.h"
#include "probe/worker_now.h"

#define CAPTURES_MAX 4       /* under way at a time; vLLM has one */
#define UNLABELLED_MAX 65536 /* of one manager's capture() */

/* A capture under way: begun and not ended. */
struct capture {
    const void *graph; /* NULL: free */
    uint64_t begun_ns;
    struct pm_graph_desc desc;
    enum { KEPT, THROWN_AWAY, UNLABELLED } fate;
    bool fresh; /* the first piece of a graph that is not to be taken for one already there */
};

/* A graph that its manager will name. */
struct unlabelled {
    const void *graph;
    uint64_t begun_ns, ended_ns;
};

struct pm_graphs pm_graphs;

static struct {
    struct capture captures[CAPTURES_MAX];
    struct unlabelled *unlabelled;
    uint32_t n_unlabelled, unlabelled_room;
    uint32_t round;
    uint32_t gathering; /* place + 1 of the entry whose pieces are being captured; 0: none */
    uint32_t of_step;
    uint16_t profiling, capturing, managing; /* depths */
    uint16_t step_instance;
    bool step, step_round; /* a step is under way; it has its own round of capturing */
    bool stepped;          /* some step was run by … */
    uint16_t stepped_instance;
    /* What a method that captures one graph said about it. */
    struct pm_graph_desc label;
    bool labelled, label_fresh;
} state;

void pm_captures_reset(void)
{
    pm_graphs_clear(&pm_graphs);
    free(state.unlabelled);
    memset(&state, 0, sizeof state);
}

void pm_captures_step(bool under_way, uint16_t instance)
{
    state.step = under_way;
    state.step_round = false;
    state.step_instance = instance;
    state.of_step = 0;
    if (under_way) {
        state.stepped = true;
        state.stepped_instance = instance;
    }
}

uint32_t pm_captures_of_step(void)
{
    return state.of_step;
}

static uint16_t instance_now(void)
{
    return state.step ? state.step_instance : pm_worker_newest();
}

static uint8_t when_now(void)
{
    const bool stepped = state.stepped && state.stepped_instance == instance_now();
    if (state.step || (state.capturing == 0 && stepped))
        return PM_GRAPH_RUNTIME;
    return stepped ? PM_GRAPH_AGAIN : PM_GRAPH_STARTUP;
}

void pm_captures_flush(void)
{
    if (state.gathering == 0)
        return;
    struct pm_graph_entry *entry = &pm_graphs.entries[state.gathering - 1];
    state.gathering = 0;
    if (entry->told)
        return;
    entry->told = true;
    struct pm_recorder *rec = pm_facts();
    struct pm_graph_capture *fact =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_graph_capture_schema)) : NULL;
    if (fact == NULL)
        return;
    *fact = (struct pm_graph_capture){
        .at_ns = entry->begun_ns,
        .dur_ns = entry->ended_ns - entry->begun_ns,
        .capture_ns = entry->capture_ns,
        .desc = entry->desc,
        .pieces = entry->pieces,
        .instance = entry->instance,
        .when = entry->when,
    };
    pm_recorder_commit(rec, fact);
}

/* Whether all that is captured under one descriptor is one graph. Elsewhere a second capture under
 * a descriptor of the same round is another graph. */
static bool has_pieces(const struct pm_graph_desc *desc)
{
    return desc->mode == PM_GRAPH_MODE_PIECEWISE || desc->holder == PM_GRAPH_HOLDER_BREAKABLE ||
           desc->holder == PM_GRAPH_HOLDER_UNKNOWN;
}

/* The entry that a captured graph belongs to; its descriptor gets the next variant where the one
 * at hand has its graph already. */
static uint32_t entry_for(struct pm_graph_desc *desc, bool fresh)
{
    uint32_t place = pm_graphs_entry(&pm_graphs, desc, instance_now());
    while (place != PM_GRAPH_NONE && fresh && desc->variant < UINT16_MAX &&
           pm_graphs.entries[place].pieces > 0 && pm_graphs.entries[place].round == state.round) {
        desc->variant++;
        place = pm_graphs_entry(&pm_graphs, desc, instance_now());
    }
    return place;
}

/* A graph that is to be kept has been captured. */
static void keep(const void *graph, struct pm_graph_desc *desc, bool fresh, uint64_t begun_ns,
                 uint64_t ended_ns)
{
    const uint32_t place = entry_for(desc, fresh);
    state.label.variant = desc->variant; /* its next pieces belong to the same graph */
    if (place == PM_GRAPH_NONE) {
        pm_graphs_learn(&pm_graphs, graph, PM_GRAPH_NONE, 0);
        return;
    }
    if (state.gathering != place + 1)
        pm_captures_flush();
    struct pm_graph_entry *entry = &pm_graphs.entries[place];
    if (entry->round != state.round || entry->pieces == 0) {
        entry->round = state.round;
        entry->pieces = 0;
        entry->capture_ns = 0;
        entry->begun_ns = begun_ns;
        entry->when = when_now();
    }
    entry->told = false;
    entry->ended_ns = ended_ns;
    entry->capture_ns += ended_ns - begun_ns;
    pm_graphs_learn(&pm_graphs, graph, place, entry->pieces++);
    state.gathering = place + 1;
    state.of_step++;
    if (!has_pieces(&entry->desc))
        pm_captures_flush();
}

static struct capture *capture_of(const void *graph)
{
    for (size_t i = 0; i < CAPTURES_MAX; i++)
        if (state.captures[i].graph == graph)
            return &state.captures[i];
    return NULL;
}

/* Whose graph it will be, as far as that can be known before its capture. */
static void label(struct capture *capture)
{
    struct pm_graph_dispatch dispatch;
    capture->fate = KEPT;
    if (state.profiling > 0) {
        capture->fate = THROWN_AWAY;
    } else if (state.labelled) {
        capture->desc = state.label;
        capture->fresh = state.label_fresh;
        state.label_fresh = false;
    } else if (pm_graph_read_context(&dispatch) && dispatch.desc.mode != PM_GRAPH_MODE_NONE) {
        capture->desc = dispatch.desc;
        capture->desc.holder = PM_GRAPH_HOLDER_WRAPPER;
        capture->fresh = !has_pieces(&capture->desc);
    } else if (state.managing > 0) {
        capture->fate = UNLABELLED;
    } else {
        capture->desc = (struct pm_graph_desc){.num_reqs = -1};
    }
}

void pm_capture_begin_enter(struct pm_call *call)
{
    struct capture *capture = capture_of(call->args[0]);
    if (capture == NULL)
        capture = capture_of(NULL);
    if (capture == NULL) /* captures that never ended */
        capture = &state.captures[0];
    *capture = (struct capture){.graph = call->args[0], .begun_ns = call->enter_ns};
    if (state.step && !state.step_round) { /* what a step captures is newer than what is there */
        state.step_round = true;
        state.round++;
    }
    label(capture);
}

static void keep_for_manager(const struct capture *capture, uint64_t ended_ns)
{
    if (state.n_unlabelled == state.unlabelled_room) {
        const uint32_t room = state.unlabelled_room > 0 ? 2 * state.unlabelled_room : 64;
        struct unlabelled *more =
            room <= UNLABELLED_MAX ? realloc(state.unlabelled, room * sizeof *more) : NULL;
        if (more == NULL)
            return;
        state.unlabelled = more;
        state.unlabelled_room = room;
    }
    state.unlabelled[state.n_unlabelled++] =
        (struct unlabelled){capture->graph, capture->begun_ns, ended_ns};
}

void pm_capture_end_leave(struct pm_call *call)
{
    struct capture *capture = capture_of(call->args[0]);
    if (capture == NULL)
        return; /* begun before the hooks were in place */
    struct capture ended = *capture;
    capture->graph = NULL;
    if (call->result == NULL) /* the capture failed: there is no graph */
        return;
    if (ended.fate == KEPT) {
        keep(ended.graph, &ended.desc, ended.fresh, ended.begun_ns, call->end_ns);
        return;
    }
    pm_graphs_learn(&pm_graphs, ended.graph, PM_GRAPH_NONE, 0);
    if (ended.fate == UNLABELLED)
        keep_for_manager(&ended, call->end_ns);
}

/* ---- who captures -----------------------------------------------------------------------------
 */

/* profile_cudagraph_memory(): what is captured inside is thrown away. */
void pm_capture_profile_enter(struct pm_call *call)
{
    (void)call;
    state.profiling++;
}

void pm_capture_profile_leave(struct pm_call *call)
{
    (void)call;
    if (state.profiling > 0)
        state.profiling--;
}

/* capture_model(): each call captures everything anew. */
void pm_capture_model_enter(struct pm_call *call)
{
    (void)call;
    pm_captures_flush();
    state.capturing++;
    state.round++;
}

void pm_capture_model_leave(struct pm_call *call)
{
    (void)call;
    pm_captures_flush();
    if (state.capturing > 0)
        state.capturing--;
}

void pm_capture_manager_enter(struct pm_call *call)
{
    (void)call;
    if (state.managing++ == 0)
        state.n_unlabelled = 0;
}

static const struct unlabelled *unlabelled_of(const void *graph)
{
    for (uint32_t i = 0; i < state.n_unlabelled; i++)
        if (state.unlabelled[i].graph == graph)
            return &state.unlabelled[i];
    return NULL;
}

/* CudaGraphManager.capture(self, …) has filled self.graphs: descriptor -> graph. Subclasses call it
 * by super(); the model's own manager is ModelCudaGraphManager, others are drafters'. */
void pm_capture_manager_leave(struct pm_call *call)
{
    static struct pm_name n_graphs = PM_NAME("graphs");
    char name[64];
    if (state.managing == 0 || --state.managing > 0 || state.n_unlabelled == 0)
        return;
    const bool known = pm_graph_class_name(call->args[0], name, sizeof name);
    const bool models = known && (strcmp(name, "ModelCudaGraphManager") == 0 ||
                                  strcmp(name, "CudaGraphManager") == 0);
    PyObject *graphs = pm_read_attr(call->args[0], &n_graphs);
    PyObject *key, *graph;
    Py_ssize_t at = 0;
    while (graphs != NULL && PyDict_Check(graphs) && PyDict_Next(graphs, &at, &key, &graph)) {
        const struct unlabelled *captured = unlabelled_of(graph);
        struct pm_graph_desc desc;
        if (captured == NULL)
            continue;
        Py_INCREF(key); /* reading it may run Python, which may change the dictionary */
        if (pm_graph_read_key(key, &desc)) {
            desc.holder = models ? PM_GRAPH_HOLDER_MANAGER : PM_GRAPH_HOLDER_SPECULATOR;
            keep(captured->graph, &desc, true, captured->begun_ns, captured->ended_ns);
        }
        Py_DECREF(key);
    }
    Py_XDECREF(graphs);
    state.n_unlabelled = 0;
}

static void set_label(const struct pm_graph_desc *desc, enum pm_graph_holder holder)
{
    pm_captures_flush();
    state.label = *desc;
    state.label.holder = (uint8_t)holder;
    state.labelled = state.label_fresh = true;
}

/* BreakableCUDAGraphWrapper._capture(self, entry, args, kwargs): one graph in segments. */
void pm_capture_breakable_enter(struct pm_call *call)
{
    struct pm_graph_dispatch dispatch;
    (void)call;
    if (pm_graph_read_context(&dispatch))
        set_label(&dispatch.desc, PM_GRAPH_HOLDER_BREAKABLE);
}

/* UBatchWrapper._capture_ubatches(self, ubatch_metadata, model): takes the context away inside. */
void pm_capture_ubatch_enter(struct pm_call *call)
{
    struct pm_graph_dispatch dispatch;
    (void)call;
    if (pm_graph_read_context(&dispatch))
        set_label(&dispatch.desc, PM_GRAPH_HOLDER_UBATCH);
}

/* EncoderCudaGraphManager._capture_budget_graph(self, token_budget, …) */
void pm_capture_encoder_enter(struct pm_call *call)
{
    static struct pm_name n_token_budget = PM_NAME("token_budget");
    static struct pm_name n_max_batch_size = PM_NAME("max_batch_size");
    uint64_t budget = 0, items = 0;
    PyObject *argument = pm_call_arg(call, 1, &n_token_budget);
    struct pm_graph_desc desc = {.num_reqs = -1, .mode = PM_GRAPH_MODE_ENCODER};
    if (argument != NULL && pm_u64(argument, &budget) && budget <= UINT32_MAX)
        desc.num_tokens = (uint32_t)budget;
    if (pm_read_u64(call->args[0], &n_max_batch_size, &items) && items <= INT32_MAX)
        desc.num_reqs = (int32_t)items;
    set_label(&desc, PM_GRAPH_HOLDER_ENCODER);
}

void pm_capture_labelled_leave(struct pm_call *call)
{
    (void)call;
    pm_captures_flush();
    state.labelled = false;
}
