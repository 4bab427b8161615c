/*
 * Finds a loaded model's MoE layers, decides how each can be seen, and installs that (see
 * moe_model.h). Keeps nothing but the table of layers; references are dropped before it returns.
 */
#include "probe/moe_model.h"

#include <stdio.h>
#include <string.h>

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/moe_capture.h"
#include "probe/moe_drafter.h"
#include "probe/moe_graph.h"
#include "probe/moe_layers.h"
#include "probe/probe.h"
#include "session/attrs.h"

static struct pm_name n_vllm_config = PM_NAME("vllm_config");
static struct pm_name n_compilation_config = PM_NAME("compilation_config");
static struct pm_name n_parallel_config = PM_NAME("parallel_config");
static struct pm_name n_scheduler_config = PM_NAME("scheduler_config");
static struct pm_name n_device_config = PM_NAME("device_config");
static struct pm_name n_model_config = PM_NAME("model_config");
static struct pm_name n_device_type = PM_NAME("device_type");
static struct pm_name n_device = PM_NAME("device");
static struct pm_name n_mode = PM_NAME("mode");
static struct pm_name n_level = PM_NAME("level");
static struct pm_name n_dp_size = PM_NAME("data_parallel_size");
static struct pm_name n_dp_rank = PM_NAME("data_parallel_rank");
static struct pm_name n_enable_dbo = PM_NAME("enable_dbo");
static struct pm_name n_max_tokens = PM_NAME("max_num_batched_tokens");
static struct pm_name n_additional = PM_NAME("additional_config");
static struct pm_name n_layers = PM_NAME("static_forward_context");
static struct pm_name n_router = PM_NAME("router");
static struct pm_name n_runner = PM_NAME("runner");
static struct pm_name n_set_capture_fn = PM_NAME("set_capture_fn");
static struct pm_name n_capture_fn = PM_NAME("capture_fn");
static struct pm_name n_is_monolithic = PM_NAME("is_monolithic");
static struct pm_name n_moe_config = PM_NAME("moe_config");
static struct pm_name n_logical = PM_NAME("num_logical_experts");
static struct pm_name n_logical_old = PM_NAME("logical_num_experts");
static struct pm_name n_num_experts = PM_NAME("num_experts");
static struct pm_name n_global = PM_NAME("global_num_experts");
static struct pm_name n_top_k = PM_NAME("top_k");
static struct pm_name n_per_token = PM_NAME("experts_per_token");
static struct pm_name n_forward_impl = PM_NAME("_forward_impl");
static struct pm_name n_forward_impl_old = PM_NAME("forward_impl");
static struct pm_name n_get_num_experts = PM_NAME("get_num_experts");

/* ---- what a worker is ------------------------------------------------------------------------ */

#define PADDING_ROWS 1024 /* a step may be padded beyond the most tokens that it may have */

/* What the loaded model's surroundings are. */
struct place {
    PyObject *config; /* vllm_config, owned */
    PyObject *drafts; /* the drafter's modules, owned; NULL: none */
    bool on_device;
    bool compiled; /* Dynamo compiles the model */
    bool ubatch;
    bool asked; /* MOE_EXPERT_TRACKING=1 */
    uint64_t most_rows;
    struct pm_moe_model_state *state;
};

static uint64_t config_u64(PyObject *config, struct pm_name *part, struct pm_name *name,
                           uint64_t missing)
{
    PyObject *from = pm_read_attr(config, part);
    uint64_t value = missing;
    if (!pm_read_u64(from, name, &value))
        value = missing;
    Py_XDECREF(from);
    return value;
}

static bool look_around(PyObject *worker, struct pm_moe_model_state *state, struct place *ret_place)
{
    char type[32];
    uint64_t mode = 0;
    PyObject *config = pm_read_attr(worker, &n_vllm_config);
    if (config == NULL)
        return false;
    PyObject *device = pm_read_attr(config, &n_device_config);
    PyObject *compilation = pm_read_attr(config, &n_compilation_config);
    PyObject *parallel = pm_read_attr(config, &n_parallel_config);
    memset(ret_place, 0, sizeof *ret_place);
    ret_place->config = config;
    ret_place->drafts = pm_moe_drafter_modules(worker);
    ret_place->state = state;
    ret_place->on_device = device == NULL ||
                           !pm_read_text(device, &n_device_type, type, sizeof type, NULL) ||
                           strcmp(type, "cpu") != 0;
    if (!pm_read_u64(compilation, &n_mode, &mode))
        (void)pm_read_u64(compilation, &n_level, &mode);
    ret_place->compiled = mode != 0;
    (void)pm_read_bool(parallel, &n_enable_dbo, &ret_place->ubatch);
    ret_place->asked = pm_facts_settings()->moe == 1;
    ret_place->most_rows = config_u64(config, &n_scheduler_config, &n_max_tokens, 0);
    ret_place->state->dp_size = (uint32_t)config_u64(config, &n_parallel_config, &n_dp_size, 1);
    ret_place->state->dp_rank = (uint32_t)config_u64(config, &n_parallel_config, &n_dp_rank, 0);
    Py_XDECREF(parallel);
    Py_XDECREF(compilation);
    Py_XDECREF(device);
    return true;
}

/* ---- what a layer is ------------------------------------------------------------------------- */

static uint32_t first_u32(PyObject *const objects[], struct pm_name *const names[], size_t n)
{
    uint64_t value;
    for (size_t i = 0; i < n; i++) {
        if (objects[i] != NULL && pm_read_u64(objects[i], names[i], &value) && value > 0 &&
            value <= PM_MOE_EXPERTS_MAX)
            return (uint32_t)value;
    }
    return 0;
}

/* The number in "model.layers.7.mlp.experts". */
static uint32_t number_in(const char *name)
{
    for (const char *at = name; *at != '\0';) {
        const size_t digits = strspn(at, "0123456789"), length = strcspn(at, ".");
        if (digits > 0 && digits == length && digits < 9) {
            uint32_t value = 0;
            for (size_t i = 0; i < digits; i++)
                value = value * 10 + (uint32_t)(at[i] - '0');
            return value;
        }
        at += length + (at[length] == '.');
    }
    return 0;
}

static void decide(const struct place *place, PyObject *layer, PyObject *router,
                   struct pm_moe_layer *fact)
{
    PyObject *set = pm_read_attr(router, &n_set_capture_fn);
    bool monolithic = false;
    (void)pm_read_bool(layer, &n_is_monolithic, &monolithic);
    if (pm_moe_drafter_has(place->drafts, layer))
        fact->why = PM_MOE_WHY_DRAFTER;
    else if (monolithic)
        fact->why = PM_MOE_WHY_MONOLITHIC;
    else if (set == NULL || fact->experts == 0)
        fact->why = PM_MOE_WHY_NO_HOOK;
    else if (place->on_device && !place->asked)
        fact->why = PM_MOE_WHY_DEVICE;
    else if (place->on_device && (place->ubatch || place->state->dp_size > 1))
        fact->why = PM_MOE_WHY_ROWS;
    else if (place->on_device)
        fact->seen = PM_MOE_DEVICE;
    else if (place->compiled && !place->asked)
        fact->why = PM_MOE_WHY_COMPILED;
    else
        fact->seen = place->compiled ? PM_MOE_TRACED : PM_MOE_HOST;
    Py_XDECREF(set);
}

/* A layer of experts joins the table; what is none is passed over. */
static void add_layer(const struct place *place, PyObject *key, PyObject *layer, uint64_t now_ns)
{
    char name[192];
    PyObject *router = pm_read_attr(layer, &n_router);
    if (router == NULL || !pm_text(key, name, sizeof name, NULL)) {
        Py_XDECREF(router);
        return;
    }
    PyObject *config = pm_read_attr(layer, &n_moe_config);
    PyObject *const sized[] = {config, layer, config, router, layer};
    struct pm_name *const sizes[] = {&n_logical, &n_logical_old, &n_num_experts, &n_global,
                                     &n_global};
    PyObject *const choosing[] = {router, config, layer};
    struct pm_name *const choices[] = {&n_top_k, &n_per_token, &n_top_k};
    struct pm_moe_layer fact = {
        .at_ns = now_ns,
        .layer = number_in(name),
        .experts = first_u32(sized, sizes, 5),
        .top_k = first_u32(choosing, choices, 3),
        .instance = place->state->instance,
    };
    decide(place, layer, router, &fact);
    (void)pm_moe_add(&fact, name, router);
    Py_XDECREF(config);
    Py_DECREF(router);
}

/* ---- installing ------------------------------------------------------------------------------ */

static bool set_capture(PyObject *router, PyObject *function)
{
    PyObject *set = pm_read_attr(router, &n_set_capture_fn);
    PyObject *result =
        set != NULL && function != NULL ? pm_vectorcall(set, &function, 1, NULL) : NULL;
    const bool good = result != NULL;
    Py_XDECREF(result);
    Py_XDECREF(set);
    if (!good)
        pm_guard_discard();
    return good;
}

/* The capture function that suits the layer, before which `previous` is called. */
static PyObject *capture_of(const struct pm_moe_slot *slot, PyObject *previous)
{
    PyObject *function = NULL;
    if (previous == Py_None)
        previous = NULL;
    if (slot->fact.seen == PM_MOE_HOST)
        function = pm_moe_capture_new(slot->handle, previous);
    else if (slot->fact.seen == PM_MOE_TRACED)
        function = pm_moe_graph_traced(slot->handle, previous);
    else if (slot->fact.seen == PM_MOE_DEVICE)
        function = pm_moe_graph_capture(slot, previous);
    if (function == NULL)
        pm_guard_discard();
    return function;
}

static bool install_capture(const struct pm_moe_slot *slot, PyObject *router, PyObject *previous)
{
    PyObject *function = capture_of(slot, previous);
    const bool good = function != NULL && set_capture(router, function);
    Py_XDECREF(function);
    return good;
}

/* In the instance, before the method of its class: vLLM looks it up at each call. */
static bool install_timer(const struct pm_moe_slot *slot, PyObject *layer)
{
    PyObject *runner = pm_read_attr(layer, &n_runner);
    PyObject *const holders[] = {layer, runner, layer};
    struct pm_name *const names[] = {&n_forward_impl, &n_forward_impl, &n_forward_impl_old};
    bool good = false;
    for (size_t i = 0; i < 3 && !good; i++) {
        PyObject *original = holders[i] != NULL ? pm_read_attr(holders[i], names[i]) : NULL;
        PyObject *timer = original != NULL ? pm_moe_timer_new(slot->handle, original) : NULL;
        good = timer != NULL && PyObject_SetAttr(holders[i], pm_name_object(names[i]), timer) == 0;
        Py_XDECREF(timer);
        Py_XDECREF(original);
    }
    Py_XDECREF(runner);
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    return good;
}

/* What our operation is compiled into must never be used without us, nor the reverse: vLLM's own
 * field for what a plug-in adds to the key of its compile cache. */
static bool set_compile_key(PyObject *config)
{
    PyObject *additional = pm_read_attr(config, &n_additional);
    PyObject *value = PyUnicode_FromString("MoE counting 1");
    const bool good = additional != NULL && value != NULL && PyDict_CheckExact(additional) &&
                      PyDict_SetItemString(additional, "profilemate", value) == 0;
    Py_XDECREF(value);
    Py_XDECREF(additional);
    if (!good)
        pm_guard_discard();
    return good;
}

static void give_up_layer(struct pm_moe_slot *slot)
{
    slot->fact.seen = PM_MOE_UNSEEN;
    slot->fact.why = PM_MOE_WHY_FAILED;
}

static void install(const struct place *place, PyObject *worker, PyObject *layers)
{
    PyObject *device = pm_read_attr(worker, &n_device);
    struct pm_moe_slot *slot;
    bool keyed = false, counters = false;

    for (unsigned n = 0; (slot = pm_moe_at(place->state->instance, n)) != NULL; n++) {
        if (slot->fact.seen == PM_MOE_TRACED && !keyed && !(keyed = set_compile_key(place->config)))
            give_up_layer(slot);
        if (slot->fact.seen == PM_MOE_DEVICE && !counters &&
            !(counters = device != NULL && pm_moe_graph_device(place->state->instance, device,
                                                               place->most_rows + PADDING_ROWS)))
            give_up_layer(slot);
        PyObject *key = PyUnicode_FromString(slot->name);
        PyObject *layer = key != NULL ? pm_dict_item(layers, key) : NULL; /* borrowed */
        PyObject *router = layer != NULL ? pm_read_attr(layer, &n_router) : NULL;
        PyObject *previous = router != NULL ? pm_read_attr(router, &n_capture_fn) : NULL;
        if (slot->fact.seen != PM_MOE_UNSEEN &&
            (router == NULL || !install_capture(slot, router, previous)))
            give_up_layer(slot);
        slot->fact.timed = layer != NULL && slot->fact.why != PM_MOE_WHY_DRAFTER &&
                           !place->on_device && !place->compiled && install_timer(slot, layer);
        place->state->any =
            place->state->any || slot->fact.seen != PM_MOE_UNSEEN || slot->fact.timed;
        place->state->device = place->state->device || slot->fact.seen == PM_MOE_DEVICE;
        Py_XDECREF(previous);
        Py_XDECREF(router);
        Py_XDECREF(key);
    }
    Py_XDECREF(device);
}

/* ---- what is said of it ---------------------------------------------------------------------- */

#define SETTING "VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING=1"
static const char *const reasons[] = {
    [PM_MOE_WHY_COMPILED] = "their routers run inside a compiled graph; " SETTING
                            " counts there, and with --enforce-eager they can be seen",
    [PM_MOE_WHY_DEVICE] = "the chosen experts are known on the device only; " SETTING
                          " adds them up there, inside captured graphs too",
    [PM_MOE_WHY_MONOLITHIC] = "their kernel routes by itself and bypasses vLLM's router",
    [PM_MOE_WHY_NO_HOOK] = "their routers offer no capture function (vLLM has it in 0.16.0+)",
    [PM_MOE_WHY_ROWS] = "which rows are this rank's tokens cannot be told on a device with "
                        "microbatches or several data-parallel ranks",
    [PM_MOE_WHY_FAILED] = "the counter could not be set up",
    [PM_MOE_WHY_DRAFTER] = "they are the drafter's, whose passes are not the tokens of steps",
};

static void say(const struct place *place)
{
    char text[512];
    const struct pm_moe_slot *slot;
    unsigned layers = 0, unseen = 0, inside = 0;
    uint8_t why = PM_MOE_WHY_NONE;

    for (; (slot = pm_moe_at(place->state->instance, layers)) != NULL; layers++) {
        unseen += slot->fact.seen == PM_MOE_UNSEEN;
        inside += slot->fact.seen == PM_MOE_TRACED || slot->fact.seen == PM_MOE_DEVICE;
        if (slot->fact.seen == PM_MOE_UNSEEN && why == PM_MOE_WHY_NONE)
            why = slot->fact.why;
    }
    if (layers == 0) {
        PyObject *config = pm_read_attr(place->config, &n_model_config);
        PyObject *method = config != NULL ? pm_read_attr(config, &n_get_num_experts) : NULL;
        PyObject *result = method != NULL ? pm_vectorcall(method, NULL, 0, NULL) : NULL;
        uint64_t experts = 0;
        if (pm_u64(result, &experts) && experts > 0)
            pm_facts_attr(PM_ATTR_NOTE_PREFIX "moe",
                          "expert selections are not observable: the model has experts, but none "
                          "of vLLM's own MoE layers with a router");
        Py_XDECREF(result);
        Py_XDECREF(method);
        Py_XDECREF(config);
        pm_guard_discard();
        return;
    }
    if (unseen > 0) {
        (void)snprintf(text, sizeof text,
                       "expert selections of %u of %u MoE layers are not observable: %s", unseen,
                       layers, reasons[why]);
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "moe", text);
    }
    if (inside > 0) {
        (void)snprintf(text, sizeof text,
                       "asked for: experts are counted inside the graphs of %u MoE layers%s",
                       inside,
                       place->on_device ? ", by additions on the device"
                                        : ", by an operation of ProfileMate's; vLLM's compile "
                                          "cache has a key of its own for that");
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "moe_graph", text);
    }
}

/* ---- a model is there ------------------------------------------------------------------------ */

void pm_moe_model_loaded(PyObject *worker, uint16_t instance, uint64_t now_ns,
                         struct pm_moe_model_state *ret_state)
{
    struct place place;
    PyObject *items = NULL;

    memset(ret_state, 0, sizeof *ret_state);
    ret_state->instance = instance;
    pm_moe_model(instance);
    if (!look_around(worker, ret_state, &place))
        return;
    PyObject *compilation = pm_read_attr(place.config, &n_compilation_config);
    PyObject *layers = compilation != NULL ? pm_read_attr(compilation, &n_layers) : NULL;
    if (layers != NULL && PyDict_Check(layers))
        items = PyDict_Items(layers);
    for (Py_ssize_t i = 0; items != NULL && i < PyList_Size(items); i++) {
        PyObject *item = PyList_GetItem(items, i);
        add_layer(&place, PyTuple_GetItem(item, 0), PyTuple_GetItem(item, 1), now_ns);
    }
    if (items != NULL)
        install(&place, worker, layers);
    say(&place);
    Py_XDECREF(items);
    Py_XDECREF(layers);
    Py_XDECREF(compilation);
    Py_XDECREF(place.drafts);
    Py_DECREF(place.config);
}

void pm_moe_model_rebind(PyObject *router)
{
    const struct pm_moe_slot *slot = pm_moe_of_router(router);
    if (slot == NULL || slot->fact.seen == PM_MOE_UNSEEN)
        return;
    PyObject *theirs = pm_read_attr(router, &n_capture_fn);
    (void)install_capture(slot, router, theirs);
    Py_XDECREF(theirs);
}
