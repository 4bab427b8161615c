/*
 * Probe kv_transfer: what a KV connector is asked to load and save, how often, and how long that
 * holds up the scheduler and the worker. In both processes, under the GIL.
 *
 * Each connector has methods of its own, so they are hooked on the class of the first one that is
 * made, where its own or an inherited method lies. Those of each layer run inside of attention's
 * opaque operation; where torch.compile would trace it (a CPU) they are left alone.
 *
 * Calls are added up per step and recorded when the first one of another step comes, so that a
 * server without a connector pays nothing.
 */
#include "hook/compat.h"

#include <stdio.h>
#include <string.h>

#include "hook/read.h"
#include "probe/probe.h"
#include "probe/scheduler.h"
#include "probe/worker_now.h"
#include "session/attrs.h"
#include "session/transfer_facts.h"

extern const struct pm_probe pm_probe_kv_transfer;

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_kv_transfer, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, as sched_step and worker_step have it"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "the first call began"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_HIST, "of all its calls, host clock"),
    F(tokens, U64, "tokens", COUNT, PM_AGG_SUM, "lookup: found elsewhere; load: to be loaded"),
    F(calls, U32, "calls", COUNT, PM_AGG_SUM, "of the method in this step; load: requests"),
    F(connector, STR, "", ID, PM_AGG_NONE, "the class of the connector"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler or worker of the process"),
    F(operation, U8, "", ID, PM_AGG_CLASS, "0 lookup, 1 load (scheduler), 2 start_load, 3 wait_load, 4 save, 5 wait_save, 6 finished (worker)"),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1 a call raised, 2 not in a step"),
};
#undef F
/* clang-format on */

static const struct pm_schema kv_transfer_schema = {
    .name = "kv_transfer",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_kv_transfer),
    .classes = PM_TRANSFERS_COUNT,
    .doc = "One per step, KV connector and operation: loading and saving KV cache elsewhere.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};

static const struct pm_schema *const schemas[] = {&kv_transfer_schema};

#define SLOTS_MAX 64u /* connectors times operations */

struct slot {
    const PyTypeObject *type; /* compared, never followed */
    uint32_t string;          /* its name in the recorder; 0: not yet */
    char name[96];
    struct pm_kv_transfer sums; /* operation: set */
};

static struct {
    struct slot slots[SLOTS_MAX];
    unsigned n_slots;
} state;

static void reset(void)
{
    memset(&state, 0, sizeof state);
}

/* ---- recording ------------------------------------------------------------------------------- */

static void record(struct pm_recorder *rec, struct slot *slot)
{
    if (slot->string == 0)
        slot->string = pm_recorder_string(rec, PM_STREAM_CORE, slot->name, strlen(slot->name));
    struct pm_kv_transfer *room = pm_recorder_reserve(rec, pm_facts_schema(&kv_transfer_schema));
    if (room != NULL) {
        *room = slot->sums;
        room->connector = slot->string;
        pm_recorder_commit(rec, room);
    }
    slot->sums = (struct pm_kv_transfer){.operation = slot->sums.operation};
}

/* What was counted, of all slots. */
static void flush(struct pm_recorder *rec)
{
    for (unsigned i = 0; i < state.n_slots && rec != NULL; i++)
        if (state.slots[i].sums.calls > 0)
            record(rec, &state.slots[i]);
}

/* The step that a call of the operation belongs to; outside of one: 0. */
static struct pm_kv_transfer place_of(enum pm_transfer_operation operation)
{
    struct pm_kv_transfer place = {.operation = (uint8_t)operation, .flags = PM_TRANSFER_OUTSIDE};
    const struct pm_scheduler *scheduler;
    struct pm_worker_now now;
    if (operation > PM_TRANSFER_LOAD) {
        if (!pm_worker_now(&now))
            return place;
        place.step = now.step;
        place.instance = now.instance;
        place.flags = 0;
        return place;
    }
    for (size_t i = 0; (scheduler = pm_scheduler_at(i)) != NULL; i++)
        if (scheduler->self != NULL && scheduler->scheduling) {
            place.step = scheduler->step;
            place.instance = scheduler->instance;
            place.flags = 0;
        }
    return place;
}

/* ---- a connector's calls --------------------------------------------------------------------- */

static struct slot *slot_of(PyObject *connector, enum pm_transfer_operation operation)
{
    static struct pm_name n_name = PM_NAME("__name__");
    const PyTypeObject *type = Py_TYPE(connector);
    for (unsigned i = 0; i < state.n_slots; i++)
        if (state.slots[i].type == type && state.slots[i].sums.operation == operation)
            return &state.slots[i];
    if (state.n_slots == SLOTS_MAX)
        return NULL;
    struct slot *slot = &state.slots[state.n_slots++];
    *slot = (struct slot){.type = type, .sums = {.operation = (uint8_t)operation}};
    if (!pm_read_text((PyObject *)Py_TYPE(connector), &n_name, slot->name, sizeof slot->name, NULL))
        memcpy(slot->name, "unknown", sizeof "unknown");
    return slot;
}

static void add(const struct pm_call *call, enum pm_transfer_operation operation, uint64_t tokens)
{
    struct slot *slot = slot_of(call->args[0], operation);
    const struct pm_kv_transfer place = place_of(operation);
    if (slot == NULL)
        return;
    struct pm_kv_transfer *sums = &slot->sums;
    /* The first call of another step: what was counted of all others is told with it. */
    if (sums->calls > 0 && (sums->step != place.step || sums->instance != place.instance ||
                            ((sums->flags ^ place.flags) & PM_TRANSFER_OUTSIDE)))
        flush(pm_facts());
    if (sums->calls == 0)
        *sums = place;
    if (sums->calls++ == 0)
        sums->start_ns = call->start_ns;
    sums->dur_ns += call->end_ns - call->start_ns;
    sums->tokens += tokens;
    if (call->result == NULL)
        sums->flags |= PM_TRANSFER_FAILED;
}

/* get_num_new_matched_tokens(self, request, num_computed_tokens) -> (tokens or None, bool) */
static void lookup_leave(struct pm_call *call)
{
    uint64_t tokens = 0;
    if (call->result != NULL && PyTuple_Check(call->result) && PyTuple_Size(call->result) > 0 &&
        PyTuple_GetItem(call->result, 0) != Py_None)
        (void)pm_u64(PyTuple_GetItem(call->result, 0), &tokens);
    add(call, PM_TRANSFER_LOOKUP, tokens);
}

/* update_state_after_alloc(self, request, blocks, num_external_tokens): called for every request
 * that begins, mostly with 0. */
static void load_leave(struct pm_call *call)
{
    static struct pm_name n_tokens = PM_NAME("num_external_tokens");
    uint64_t tokens = 0;
    PyObject *value = pm_call_arg(call, 3, &n_tokens); /* borrowed */
    if (value != NULL && pm_u64(value, &tokens) && tokens > 0)
        add(call, PM_TRANSFER_LOAD, tokens);
}

#define OPERATION(hook, NAME)                                                                      \
    static void hook##_leave(struct pm_call *call)                                                 \
    {                                                                                              \
        add(call, PM_TRANSFER_##NAME, 0);                                                          \
    }
OPERATION(start_load, START_LOAD)
OPERATION(wait_load, WAIT_LOAD)
OPERATION(save, SAVE)
OPERATION(wait_save, WAIT_SAVE)
OPERATION(finished, FINISHED)
#undef OPERATION

/* register_kv_caches(self, kv_caches): how much a token takes, of all layers. */
static void caches_leave(struct pm_call *call)
{
    static struct pm_name n_caches = PM_NAME("kv_caches"), n_nbytes = PM_NAME("nbytes");
    static struct pm_name n_config = PM_NAME("_vllm_config"), n_cache = PM_NAME("cache_config");
    static struct pm_name n_blocks = PM_NAME("num_gpu_blocks"), n_size = PM_NAME("block_size");
    PyObject *caches = pm_call_arg(call, 1, &n_caches); /* borrowed */
    PyObject *config = pm_read_attr(call->args[0], &n_config);
    PyObject *cache = config != NULL ? pm_read_attr(config, &n_cache) : NULL;
    PyObject *key, *value;
    uint64_t bytes = 0, blocks = 0, size = 0;
    Py_ssize_t at = 0;
    for (int i = 0; caches != NULL && PyDict_Check(caches) && i < 4096; i++) {
        uint64_t of = 0;
        if (!PyDict_Next(caches, &at, &key, &value))
            break;
        if (pm_read_u64(value, &n_nbytes, &of))
            bytes += of;
    }
    if (bytes > 0 && pm_read_u64(cache, &n_blocks, &blocks) && pm_read_u64(cache, &n_size, &size) &&
        blocks > 0 && size > 0 && blocks < UINT32_MAX && size < UINT32_MAX) {
        char text[32];
        snprintf(text, sizeof text, "%llu", (unsigned long long)(bytes / (blocks * size)));
        pm_facts_attr(PM_ATTR_KV_TOKEN_BYTES, text);
    }
    Py_XDECREF(cache);
    Py_XDECREF(config);
}

/* ---- hooking a connector's class ------------------------------------------------------------- */

#define M(hook, method, versions_)                                                                 \
    {                                                                                              \
        .module = "vllm.distributed.kv_transfer.kv_connector.v1.base",                             \
        .qualname = "KVConnector." method, .kind = PM_TARGET_METHOD,                               \
        .flags = PM_TARGET_OPTIONAL | PM_TARGET_OUTERMOST, .versions = versions_,                  \
        .leave = hook##_leave                                                                      \
    }
static const struct pm_target methods[] = {
    M(lookup, "get_num_new_matched_tokens", "0.11.0+"),
    M(load, "update_state_after_alloc", "0.11.0+"),
    M(start_load, "start_load_kv", "0.11.0+"),
    M(wait_save, "wait_for_save", "0.11.0+"),
    M(finished, "get_finished", "0.11.0+"),
    M(caches, "register_kv_caches", "0.11.0+"),
    M(wait_load, "wait_for_layer_load", "0.11.0+"), /* of each layer, from here on */
    M(save, "save_kv_layer", "0.11.0+"),
};
#undef M
#define METHODS (sizeof methods / sizeof *methods)
#define METHODS_OF_STEPS 6u /* of these, those that are no layer's */

/* The class in whose __dict__ the method lies, of the connector's classes; new reference or NULL.
 */
static PyObject *class_with(PyObject *connector, const char *method)
{
    static struct pm_name n_mro = PM_NAME("__mro__"), n_dict = PM_NAME("__dict__");
    PyObject *mro = pm_read_attr((PyObject *)Py_TYPE(connector), &n_mro), *found = NULL;
    const Py_ssize_t count = mro != NULL && PyTuple_Check(mro) ? PyTuple_Size(mro) : 0;
    for (Py_ssize_t i = 0; i < count && found == NULL; i++) {
        PyObject *base = PyTuple_GetItem(mro, i); /* borrowed */
        PyObject *dict = pm_read_attr(base, &n_dict);
        if (dict != NULL && PyMapping_HasKeyString(dict, method)) {
            found = base;
            Py_INCREF(found);
        }
        Py_XDECREF(dict);
    }
    Py_XDECREF(mro);
    return found;
}

/* Whether torch.compile traces attention here, and with it the calls of each layer. */
static bool layers_are_traced(const struct pm_call *call)
{
    static struct pm_name n_vllm_config = PM_NAME("vllm_config");
    static struct pm_name n_compilation = PM_NAME("compilation_config");
    static struct pm_name n_mode = PM_NAME("mode"), n_level = PM_NAME("level");
    static struct pm_name n_device = PM_NAME("device_config"), n_type = PM_NAME("device_type");
    PyObject *config = pm_call_arg(call, 1, &n_vllm_config); /* borrowed */
    PyObject *compilation = config != NULL ? pm_read_attr(config, &n_compilation) : NULL;
    PyObject *device = config != NULL ? pm_read_attr(config, &n_device) : NULL;
    uint64_t mode = 1;
    char type[16] = "cpu";
    if (compilation != NULL && !pm_read_u64(compilation, &n_mode, &mode))
        (void)pm_read_u64(compilation, &n_level, &mode);
    if (device != NULL)
        (void)pm_read_text(device, &n_type, type, sizeof type, NULL);
    Py_XDECREF(device);
    Py_XDECREF(compilation);
    return mode != 0 && strcmp(type, "cpu") == 0;
}

/* KVConnectorBase_V1.__init__(self, vllm_config, role, …) */
static void connector_leave(struct pm_call *call)
{
    const bool traced = layers_are_traced(call);
    if (call->result == NULL)
        return;
    for (size_t i = 0; i < (traced ? METHODS_OF_STEPS : METHODS); i++) {
        PyObject *class = class_with(call->args[0], strchr(methods[i].qualname, '.') + 1);
        if (class != NULL)
            (void)pm_facts_hook(class, &pm_probe_kv_transfer, &methods[i]);
        Py_XDECREF(class);
    }
    if (traced)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "kv_transfer",
                      "torch.compile traces attention on this platform: what the KV connector does "
                      "for each layer is not counted (with --enforce-eager it is)");
}

#define connector_enter NULL
#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/kv_transfer.def"
};
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->collective && settings->preset != PM_PRESET_SIMPLE;
}

static void finish(struct pm_recorder *rec, uint64_t now_ns)
{
    (void)now_ns;
    flush(rec);
}

const struct pm_probe pm_probe_kv_transfer = {
    .name = "kv_transfer",
    .control = PM_PROBE_EARLY,
    .early = "a KV connector's methods are met when it is made, which is over",
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
    .finish = finish,
};
