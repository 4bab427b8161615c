/* See layer_sums.h. */
#include "probe/layer_sums.h"

#include <stdlib.h>
#include <string.h>

#include "session/step_facts.h"

/* clang-format off */
#define PHASES "1 prefill, 2 decode, as the worker can tell"
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_layer_time, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field time_fields[] = {
    F(at_ns, U64, "ns", TIME, "when it was told: all values are of everything up to then"),
    F(ns, U64, "ns", DURATION, "without modules inside that are told apart; host clock, on a device the launches"),
    F(device_ns, U64, "ns", DURATION, "by the device's events; 0: none"),
    F(calls, U64, "calls", COUNT, "of such modules"),
    F(device_calls, U64, "calls", COUNT, "of these, those that device_ns is of"),
    F(layer, I32, "", ID, "its number; -1: of no layer"),
    F(instance, U16, "", ID, "n-th worker of the process"),
    F(kind, U8, "", ID, "0 other, 1 attention, 2 mlp, 3 moe, 4 norm"),
    F(phase, U8, "", ID, PHASES),
};
#undef F
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_layer_pass, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field pass_fields[] = {
    F(at_ns, U64, "ns", TIME, "when it was told: all values are of everything up to then"),
    F(ns, U64, "ns", DURATION, "the model's calls took, host clock"),
    F(device_ns, U64, "ns", DURATION, "by the device's events; 0: none"),
    F(passes, U64, "passes", COUNT, "calls of the model in steps with tokens"),
    F(device_passes, U64, "passes", COUNT, "of these, those that device_ns is of"),
    F(unseen, U64, "steps", COUNT, "steps with tokens without a call of the model by Python: replays of a CUDA graph"),
    F(instance, U16, "", ID, "n-th worker of the process"),
    F(phase, U8, "", ID, PHASES),
    F(on_device, U8, "", ID, "1: the worker runs on a device"),
};
#undef F
/* clang-format on */

const struct pm_schema pm_layer_time_schema = {
    .name = "layer_time",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_layer_time),
    .classes = 1,
    .doc = "What the modules of a layer took so far, by kind and phase; the newest of each counts.",
    .fields = time_fields,
    .n_fields = sizeof time_fields / sizeof *time_fields,
};

const struct pm_schema pm_layer_pass_schema = {
    .name = "layer_pass",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_layer_pass),
    .classes = 1,
    .doc =
        "Passes of the model whose layers are timed, so far, by phase; the newest of each counts.",
    .fields = pass_fields,
    .n_fields = sizeof pass_fields / sizeof *pass_fields,
};

struct cell {
    struct pm_layer_time sums[PM_LAYER_PHASES];
    bool grown[PM_LAYER_PHASES];
};

struct pm_layer_now pm_layer_now = {.epoch = 1};
void (*pm_layer_border)(uint32_t cell, bool begins);

/* Microbatches run in threads of their own, in turns: only the pass that began first is timed. */
static _Thread_local char this_thread;

static struct {
    const char *thread; /* of the pass under way */
    struct cell *cells;
    uint32_t n_cells, room;
    struct pm_layer_pass passes[PM_LAYER_PHASES];
    bool passes_grown[PM_LAYER_PHASES];
    uint16_t instance;
    unsigned phase;                     /* of the step: 0 prefill, 1 decode */
    bool called;                        /* the model was, in this step */
    uint32_t stack[PM_LAYER_DEPTH_MAX]; /* cells of the modules under way */
    uint64_t border_ns, pass_ns;        /* the last border; the pass began */
} state;

uint32_t pm_layer_cell(int32_t layer, enum pm_layer_kind kind)
{
    for (uint32_t i = state.n_cells; i-- > 0;)
        if (state.cells[i].sums[0].layer == layer && state.cells[i].sums[0].kind == kind)
            return i;
    if (state.n_cells == state.room) {
        const uint32_t room = state.room > 0 ? 2 * state.room : 64;
        struct cell *cells =
            room <= PM_LAYER_CELLS_MAX ? realloc(state.cells, room * sizeof *cells) : NULL;
        if (cells == NULL)
            return PM_LAYER_NONE;
        state.cells = cells;
        state.room = room;
    }
    struct cell *cell = &state.cells[state.n_cells];
    memset(cell, 0, sizeof *cell);
    for (unsigned p = 0; p < PM_LAYER_PHASES; p++) {
        cell->sums[p].layer = layer;
        cell->sums[p].kind = (uint8_t)kind;
        cell->sums[p].phase = (uint8_t)(PM_PHASE_PREFILL + p);
    }
    return state.n_cells++;
}

/* ---- a step ---------------------------------------------------------------------------------- */

void pm_layer_step_begin(uint16_t instance, unsigned phase, bool on_device)
{
    if (instance != state.instance) /* another worker of this process: its layers are others */
        for (uint32_t i = 0; i < state.n_cells; i++)
            for (unsigned p = 0; p < PM_LAYER_PHASES; p++) {
                struct pm_layer_time *sums = &state.cells[i].sums[p];
                sums->ns = sums->device_ns = sums->calls = sums->device_calls = 0;
                state.cells[i].grown[p] = false;
            }
    if (instance != state.instance)
        memset(state.passes, 0, sizeof state.passes);
    state.instance = instance;
    state.phase = phase == PM_PHASE_DECODE ? 1 : 0;
    state.called = false;
    for (unsigned p = 0; p < PM_LAYER_PHASES; p++)
        state.passes[p].on_device = on_device;
    pm_layer_now.in_step = true;
    pm_layer_now.depth = 0;
}

void pm_layer_step_end(void)
{
    if (!pm_layer_now.in_step)
        return;
    pm_layer_now.in_step = false;
    if (!state.called) {
        state.passes[state.phase].unseen++;
        state.passes_grown[state.phase] = true;
    }
}

unsigned pm_layer_phase(void)
{
    return state.phase;
}

/* The time since the last border goes to the innermost module that runs. */
static void add_until(uint64_t now_ns)
{
    const uint32_t top =
        pm_layer_now.depth < PM_LAYER_DEPTH_MAX ? pm_layer_now.depth : PM_LAYER_DEPTH_MAX;
    if (top == 0) /* nothing runs */
        return;
    struct cell *cell = &state.cells[state.stack[top - 1]];
    cell->sums[state.phase].ns += now_ns - state.border_ns;
    state.border_ns = now_ns;
}

bool pm_layer_enter(uint32_t number, bool root, uint64_t now_ns)
{
    if (number >= state.n_cells || (root != (pm_layer_now.depth == 0)) || !pm_layer_now.in_step)
        return false;
    if (!root && state.thread != &this_thread)
        return false;
    if (root) {
        state.thread = &this_thread;
        state.called = true;
        state.border_ns = state.pass_ns = now_ns;
    } else {
        add_until(now_ns);
    }
    if (pm_layer_now.depth < PM_LAYER_DEPTH_MAX) {
        struct cell *cell = &state.cells[number];
        state.stack[pm_layer_now.depth] = number;
        cell->sums[state.phase].calls++;
        cell->grown[state.phase] = true;
    }
    pm_layer_now.depth++;
    if (pm_layer_border != NULL && pm_layer_now.depth <= PM_LAYER_DEPTH_MAX)
        pm_layer_border(number, true);
    return true;
}

void pm_layer_leave(uint64_t now_ns)
{
    if (pm_layer_now.depth == 0)
        return;
    add_until(now_ns);
    pm_layer_now.depth--;
    if (pm_layer_now.depth == 0) {
        struct pm_layer_pass *pass = &state.passes[state.phase];
        pass->passes++;
        pass->ns += now_ns - state.pass_ns;
        state.passes_grown[state.phase] = true;
    }
    if (pm_layer_border != NULL && pm_layer_now.depth < PM_LAYER_DEPTH_MAX)
        pm_layer_border(
            pm_layer_now.depth > 0 ? state.stack[pm_layer_now.depth - 1] : PM_LAYER_NONE, false);
}

/* ---- the device's times ---------------------------------------------------------------------- */

void pm_layer_device(uint32_t number, unsigned phase, uint64_t calls, uint64_t ns)
{
    if (number >= state.n_cells || phase >= PM_LAYER_PHASES)
        return;
    struct cell *cell = &state.cells[number];
    cell->sums[phase].device_calls += calls;
    cell->sums[phase].device_ns += ns;
    cell->grown[phase] = true;
}

void pm_layer_device_pass(unsigned phase, uint64_t ns)
{
    if (phase >= PM_LAYER_PHASES)
        return;
    state.passes[phase].device_passes++;
    state.passes[phase].device_ns += ns;
    state.passes_grown[phase] = true;
}

/* ---- recording ------------------------------------------------------------------------------- */

static bool record_cell(struct pm_recorder *rec, unsigned schema, const struct pm_layer_time *sums,
                        uint64_t now_ns)
{
    struct pm_layer_time *room = pm_recorder_reserve(rec, schema);
    if (room == NULL)
        return false;
    *room = *sums;
    room->at_ns = now_ns;
    room->instance = state.instance;
    pm_recorder_commit(rec, room);
    return true;
}

static bool record_pass(struct pm_recorder *rec, unsigned schema, unsigned p, uint64_t now_ns)
{
    struct pm_layer_pass *room = pm_recorder_reserve(rec, schema);
    if (room == NULL)
        return false;
    *room = state.passes[p];
    room->at_ns = now_ns;
    room->instance = state.instance;
    room->phase = (uint8_t)(PM_PHASE_PREFILL + p);
    pm_recorder_commit(rec, room);
    return true;
}

void pm_layer_flush(struct pm_recorder *rec, uint64_t now_ns, bool all,
                    unsigned (*schema)(const struct pm_schema *schema))
{
    for (unsigned p = 0; p < PM_LAYER_PHASES; p++) {
        const bool any = state.passes[p].passes + state.passes[p].unseen > 0;
        if (state.passes_grown[p] || (all && any))
            state.passes_grown[p] = !record_pass(rec, schema(&pm_layer_pass_schema), p, now_ns);
    }
    for (uint32_t i = 0; i < state.n_cells; i++)
        for (unsigned p = 0; p < PM_LAYER_PHASES; p++) {
            struct cell *cell = &state.cells[i];
            if (cell->grown[p] || (all && cell->sums[p].calls > 0))
                cell->grown[p] =
                    !record_cell(rec, schema(&pm_layer_time_schema), &cell->sums[p], now_ns);
        }
}

/* ---- life ------------------------------------------------------------------------------------ */

void pm_layer_next_epoch(void)
{
    pm_layer_now.epoch++;
    pm_layer_now.depth = 0;
    pm_layer_now.in_step = false;
}

void pm_layer_sums_reset(void)
{
    free(state.cells);
    memset(&state, 0, sizeof state);
    pm_layer_border = NULL;
    pm_layer_next_epoch();
}
