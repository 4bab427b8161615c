/*
 * Probe encoder_decoder: the time that a step's encoder took, of whichever model runner, and the
 * time of cross-attention inside the model; and what kind of model it is.
 *
 * Runs in the worker, under the GIL. Records one encoder_step for a step that had any of it, when
 * Worker.execute_model returns; calls outside of a step (warm-up, profiling) are left out. A
 * cross-attention layer is traced, its backend's forward is not: it runs inside an opaque
 * operation. That class is made at run time, so it is hooked when the first layer has been made. A
 * FULL graph replays it without Python: then there is nothing to see.
 */
#include "hook/compat.h"

#include <stdio.h>
#include <string.h>

#include "hook/read.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/attrs.h"
#include "session/encoder_facts.h"

extern const struct pm_probe pm_probe_encoder_decoder;

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_encoder_step, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, as worker_step has it"),
    F(encoder_start_ns, U64, "ns", TIME, PM_AGG_NONE, "the first call of the encoder began; 0: none"),
    F(encoder_ns, U64, "ns", DURATION, PM_AGG_HIST, "of all its calls, host clock; 0: none"),
    F(cross_start_ns, U64, "ns", TIME, PM_AGG_NONE, "the first cross-attention began; 0: none"),
    F(cross_ns, U64, "ns", DURATION, PM_AGG_HIST, "of all layers, host clock; 0: none"),
    F(encoder_calls, U32, "calls", COUNT, PM_AGG_SUM, "of the encoder"),
    F(items, U32, "inputs", COUNT, PM_AGG_SUM, "inputs encoded: images, pieces of audio"),
    F(cross_calls, U32, "calls", COUNT, PM_AGG_SUM, "of cross-attention"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(flags, U16, "", FLAGS, PM_AGG_NONE, "1 a call raised"),
};
#undef F
/* clang-format on */

static const struct pm_schema encoder_step_schema = {
    .name = "encoder_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_encoder_step),
    .classes = 1,
    .doc = "One per executed step with an encoder's call or cross-attention.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};

static const struct pm_schema *const schemas[] = {&encoder_step_schema};

static struct {
    struct pm_encoder_step step; /* of the step under way */
    uint16_t told; /* workers up to this one (n-th of the process) had their kind told */
    bool open;
    bool told_first; /* the kind of the process's first model was told */
} state;

static void tell_model_type(PyObject *config, unsigned instance);

static void reset(void)
{
    memset(&state, 0, sizeof state);
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* A process may have one worker after another, each with a model of its own: told at its first
 * step, when its number is known. */
static void tell_later_worker(PyObject *worker)
{
    static struct pm_name n_vllm_config = PM_NAME("vllm_config");
    struct pm_worker_now now;
    if (!pm_worker_now(&now) || now.instance <= state.told)
        return;
    state.told = now.instance;
    PyObject *config = pm_read_attr(worker, &n_vllm_config);
    if (config != NULL)
        tell_model_type(config, now.instance);
    Py_XDECREF(config);
}

static void execute_enter(struct pm_call *call)
{
    tell_later_worker(call->args[0]);
    memset(&state.step, 0, sizeof state.step);
    state.open = true;
}

static void execute_leave(struct pm_call *call)
{
    (void)call;
    struct pm_worker_now now;
    state.open = false;
    if (state.step.encoder_calls + state.step.cross_calls == 0 || !pm_worker_now(&now))
        return;
    state.step.step = now.step;
    state.step.instance = now.instance;
    struct pm_recorder *rec = pm_facts();
    struct pm_encoder_step *room =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&encoder_step_schema)) : NULL;
    if (room == NULL)
        return;
    *room = state.step;
    pm_recorder_commit(rec, room);
}

static void add_encoder(const struct pm_call *call, uint64_t items)
{
    struct pm_encoder_step *step = &state.step;
    if (step->encoder_calls++ == 0)
        step->encoder_start_ns = call->start_ns;
    step->encoder_ns += call->end_ns - call->start_ns;
    step->items += (uint32_t)(items < UINT16_MAX ? items : UINT16_MAX);
    if (call->result == NULL)
        step->flags |= PM_ENCODER_FAILED;
}

/* How many inputs a call of the encoder gave back; 0 where it does not tell. */
static uint64_t outputs(const struct pm_call *call)
{
    uint64_t count = 0;
    if (call->result != NULL && PyList_Check(call->result) && pm_len(call->result, &count))
        return count;
    return 0;
}

/* GPUModelRunner._execute_mm_encoder(self, scheduler_output): called in every step of a model with
 * an encoder, whether or not there is something to encode. */
static void batch_leave(struct pm_call *call)
{
    static struct pm_name n_scheduler_output = PM_NAME("scheduler_output");
    static struct pm_name n_inputs = PM_NAME("scheduled_encoder_inputs");
    PyObject *output = pm_call_arg(call, 1, &n_scheduler_output); /* borrowed */
    uint64_t requests = 0;
    if (state.open && output != NULL && pm_read_len(output, &n_inputs, &requests) && requests > 0)
        add_encoder(call, outputs(call));
}

/* EncoderRunner.execute_mm_encoder(self, …): called where there is something to encode. */
static void items_leave(struct pm_call *call)
{
    if (state.open)
        add_encoder(call, outputs(call));
}

/* ---- cross-attention --------------------------------------------------------------------------
 */

static void cross_forward_leave(struct pm_call *call)
{
    struct pm_encoder_step *step = &state.step;
    if (!state.open)
        return;
    if (step->cross_calls++ == 0)
        step->cross_start_ns = call->start_ns;
    step->cross_ns += call->end_ns - call->start_ns;
    if (call->result == NULL)
        step->flags |= PM_ENCODER_FAILED;
}

static const struct pm_target cross_forward = {
    .module = "vllm.model_executor.layers.attention.cross_attention",
    .qualname = "CrossAttentionImpl.forward",
    .kind = PM_TARGET_METHOD,
    .flags = PM_TARGET_OPTIONAL,
    .versions = "0.17.1+",
    .leave = cross_forward_leave,
};

/* CrossAttention.__init__(self, …): has given the layer its backend's implementation, of a class of
 * its own since 0.17. Where the layer calls it directly, and not by an opaque operation,
 * torch.compile would trace it. */
static void cross_leave(struct pm_call *call)
{
    static struct pm_name n_impl = PM_NAME("impl"), n_class = PM_NAME("__class__");
    static struct pm_name n_name = PM_NAME("__name__"), n_direct = PM_NAME("use_direct_call");
    char name[128];
    bool direct = false;
    if (call->result == NULL)
        return;
    PyObject *impl = pm_read_attr(call->args[0], &n_impl);
    PyObject *class = impl != NULL ? pm_read_attr(impl, &n_class) : NULL;
    const bool own = class != NULL && pm_read_text(class, &n_name, name, sizeof name, NULL) &&
                     strcmp(name, "CrossAttentionImpl") == 0;
    (void)pm_read_bool(call->args[0], &n_direct, &direct);
    if (!own)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "cross_attention",
                      "cross-attention has no implementation of its own in this vLLM: its time is "
                      "not told apart");
    else if (direct)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "cross_attention",
                      "attention is called directly on this platform, where torch.compile traces "
                      "it: the time of cross-attention is not seen");
    else
        (void)pm_facts_hook(class, &pm_probe_encoder_decoder, &cross_forward);
    Py_XDECREF(class);
    Py_XDECREF(impl);
}

/* ---- what kind of model ---------------------------------------------------------------------- */

static bool has(PyObject *object, struct pm_name *name)
{
    PyObject *value = object != NULL ? pm_read_attr(object, name) : NULL;
    const bool is = value != NULL && value != Py_None;
    Py_XDECREF(value);
    return is;
}

static const char *kind_of_multimodal(PyObject *model)
{
    static struct pm_name n_hf_config = PM_NAME("hf_config");
    static struct pm_name n_vision = PM_NAME("vision_config"), n_audio = PM_NAME("audio_config");
    PyObject *config = pm_read_attr(model, &n_hf_config);
    const bool vision = has(config, &n_vision), audio = has(config, &n_audio);
    Py_XDECREF(config);
    return vision == audio ? "multimodal" : vision ? "vision_language" : "audio_language";
}

static void tell_model_type(PyObject *config, unsigned instance)
{
    static struct pm_name n_model_config = PM_NAME("model_config");
    static struct pm_name n_encoder_decoder = PM_NAME("is_encoder_decoder");
    static struct pm_name n_multimodal = PM_NAME("is_multimodal_model");
    static struct pm_name n_attn_type = PM_NAME("attn_type");
    bool encoder_decoder = false, multimodal = false;
    char attention[32] = "";
    PyObject *model = pm_read_attr(config, &n_model_config);
    if (model == NULL || model == Py_None) {
        Py_XDECREF(model);
        return;
    }
    const bool known = pm_read_bool(model, &n_encoder_decoder, &encoder_decoder);
    (void)pm_read_bool(model, &n_multimodal, &multimodal);
    (void)pm_read_text(model, &n_attn_type, attention, sizeof attention, NULL);
    if (known) {
        char key[48];
        snprintf(key, sizeof key, instance > 0 ? PM_ATTR_MODEL_TYPE ".%u" : PM_ATTR_MODEL_TYPE,
                 instance);
        pm_facts_attr(key, encoder_decoder                          ? "encoder_decoder"
                           : multimodal                             ? kind_of_multimodal(model)
                           : strcmp(attention, "encoder_only") == 0 ? "encoder_only"
                                                                    : "decoder_only");
    }
    Py_DECREF(model);
}

static void tell_first(PyObject *config)
{
    if (state.told_first)
        return;
    state.told_first = true;
    tell_model_type(config, 0);
}

/* EngineArgs.create_engine_config(self, …) -> VllmConfig */
static void config_leave(struct pm_call *call)
{
    if (call->result != NULL && call->result != Py_None)
        tell_first(call->result);
}

/* Worker.__init__(self, vllm_config, …) */
static void worker_enter(struct pm_call *call)
{
    static struct pm_name n_vllm_config = PM_NAME("vllm_config");
    PyObject *config = pm_call_arg(call, 1, &n_vllm_config); /* borrowed */
    if (config != NULL)
        tell_first(config);
}

#define config_enter NULL
#define worker_leave NULL
#define batch_enter NULL
#define items_enter NULL
#define cross_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/encoder_decoder.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->encoder_decoder && settings->preset != PM_PRESET_SIMPLE;
}

const struct pm_probe pm_probe_encoder_decoder = {
    .name = "encoder_decoder",
    .component = NULL, /* its first hook is there in every vLLM, encoder or not */
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
};
