/*
 * Probe layer: how long attention, MLP, experts and norms take in each layer of the model. Off
 * unless LAYER_TIMING asks for it. Runs in the worker, under the GIL.
 *
 * At the first step of a worker the modules of its model are looked at, and those that are told
 * apart get a timer in the place of their `forward` (layer_model.c, layer_timer.c); when the probe
 * is switched off they are taken out again. Where torch.compile traces the model nothing is put
 * anywhere, and a note says so. Times are gathered per layer and kind (layer_sums.c) and recorded
 * about once a second.
 */
#include "hook/compat.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "probe/layer_device.h"
#include "probe/layer_model.h"
#include "probe/layer_sums.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/attrs.h"

static const struct pm_schema *const schemas[] = {&pm_layer_time_schema, &pm_layer_pass_schema};

static struct {
    const void *model; /* whose modules were looked at; compared, never followed */
    uint64_t flushed_ns;
    uint32_t worker; /* instance + 1 of whose model that is; 0: none yet */
    bool installed;
    bool step;    /* under way */
    bool drained; /* … and it has no tokens */
} state;

/* ---- what is said of it ---------------------------------------------------------------------- */

static void say(enum pm_layer_install how, unsigned modules, unsigned layers)
{
    char text[160];
    if (how == PM_LAYER_INSTALLED) {
        snprintf(text, sizeof text, "modules: %u of %u layers", modules, layers);
        pm_facts_attr(PM_ATTR_LAYERS, text);
        return;
    }
    pm_facts_attr(PM_ATTR_LAYERS, how == PM_LAYER_COMPILED ? "off: the model is compiled"
                                                           : "off: the model was not found");
    pm_facts_attr(
        PM_ATTR_NOTE_PREFIX "layer",
        how == PM_LAYER_COMPILED
            ? "layers are not timed: torch.compile traces the model's modules, which are "
              "left alone; a torch trace of some steps tells kernels by class "
              "(profilemate run --torch-profile, then profilemate trace), or --enforce-eager "
              "times modules"
            : "layers are not timed: the worker's model was not found");
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void flush(uint64_t now_ns)
{
    struct pm_recorder *rec = state.installed ? pm_facts() : NULL;
    state.flushed_ns = now_ns;
    if (rec != NULL)
        pm_layer_flush(rec, now_ns, false, pm_facts_schema);
}

/* The worker runs another model than the one that was looked at, if any. */
static void look_at(PyObject *worker, const void *model, uint16_t instance, uint64_t now_ns)
{
    unsigned modules = 0, layers = 0;
    flush(now_ns);
    pm_layer_next_epoch();
    const enum pm_layer_install how = pm_layer_install(worker, &modules, &layers);
    state.model = model;
    state.worker = instance + 1u;
    state.installed = how == PM_LAYER_INSTALLED && modules > 0;
    say(how, modules, layers);
}

static void end_step(uint64_t now_ns)
{
    pm_layer_step_end();
    state.step = false;
    pm_layer_device_read(state.drained, now_ns);
    if (state.drained || now_ns - state.flushed_ns >= PM_LAYER_FLUSH_NS)
        flush(now_ns);
}

static void execute_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    if (state.step) /* a rank whose steps end without sample_tokens */
        end_step(call->enter_ns);
    if (!pm_worker_now(&now))
        return;
    const void *model = pm_layer_model_of(call->args[0]);
    if (model != state.model || state.worker != now.instance + 1u)
        look_at(call->args[0], model, now.instance, call->enter_ns);
    if (!state.installed)
        return;
    state.step = true;
    state.drained = now.tokens == 0;
    if (!state.drained) {
        pm_layer_step_begin(now.instance, now.phase, now.device);
        pm_layer_device_step(&now);
    }
}

/* The model is called inside of this call: what follows is sampling. */
static void execute_leave(struct pm_call *call)
{
    if (state.step)
        end_step(call->end_ns);
}

/* The worker goes: what is not recorded yet would be lost where its process is killed. */
static void shutdown_enter(struct pm_call *call)
{
    if (!state.installed)
        return;
    pm_layer_device_read(true, call->enter_ns);
    flush(call->enter_ns);
}

#define shutdown_leave NULL
#define T PM_TARGET_ROW
/* clang-format off */
static const struct pm_target targets[] = {
#include "probe/layer.def"
    /* Also hooked by worker_step, whose rows tell doctor of it. */
    T(execute, "vllm.v1.worker.gpu_worker", "Worker.execute_model", METHOD, PM_TARGET_OUTERMOST, "0.11.0+", NULL)
};
/* clang-format on */
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->layer && settings->preset != PM_PRESET_SIMPLE;
}

/* After a fork, and where a session begins in a process that had one before. */
static void reset(void)
{
    pm_layer_device_forget();
    pm_layer_sums_reset();
    pm_layer_forget();
    memset(&state, 0, sizeof state);
}

/* Switched off while the server runs. What was counted stays, for when it is switched on again. */
static void take_out(void)
{
    if (state.installed)
        flush(pm_clock_now_ns());
    pm_layer_device_stop();
    pm_layer_next_epoch();
    pm_layer_remove();
    state.model = NULL;
    state.worker = 0;
    state.installed = state.step = false;
}

static void resume(void)
{
    state.model = NULL;
    state.worker = 0;
}

static void keyframe(struct pm_recorder *rec, enum pm_stream stream, void *arg)
{
    (void)arg;
    if (stream == PM_STREAM_CORE)
        pm_layer_flush(rec, pm_clock_now_ns(), true, pm_facts_schema);
}

static void finish(struct pm_recorder *rec, uint64_t now_ns)
{
    pm_layer_flush(rec, now_ns, false, pm_facts_schema);
}

const struct pm_probe pm_probe_layer = {
    .name = "layer",
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
    .pause = take_out,
    .resume = resume,
    .keyframe = keyframe,
    .finish = finish,
};
