/*
 * Probe collective: how often the ranks of a group exchange tensors, how many bytes, and how long
 * that takes the host. Runs in the worker, under the GIL.
 *
 * Calls are counted per step, group and operation, and recorded once when the step ends: a step of
 * a large model has hundreds of them. GroupCoordinator's public all_reduce, all_gather and
 * reduce_scatter are traced by torch.compile and left alone; the methods behind them are hooked
 * where they are the bodies of opaque operations (use_custom_op_call), or where nothing is
 * compiled.
 *
 * What is captured into a CUDA graph is called once, and done again by each replay without Python:
 * it is recorded with the graph's descriptor, which the probe cuda_graph knows
 * (collective_graph.c).
 */
#include "hook/compat.h"

#include <string.h>

#include "hook/read.h"
#include "probe/collective.h"
#include "probe/collective_device.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/attrs.h"
#include "session/collective_schema.h"

extern const struct pm_probe pm_probe_collective;

static const struct pm_schema *const schemas[] = {
    &pm_collective_step_schema, &pm_collective_device_schema, &pm_collective_capture_schema};

#define SLOTS_MAX 64u  /* groups times operations; calls beyond them are not counted */
#define VALUES_MAX 256 /* of a list or dict that are looked at */

struct slot {
    const void *group; /* its address, never followed */
    uint32_t string;   /* its name in the recorder; 0: not yet */
    bool single;       /* a group of one rank: nothing is exchanged */
    char name[PM_COLLECTIVE_NAME_MAX];
    struct pm_collective_step sums; /* operation: set; calls 0: nothing to record */
};

static struct {
    struct slot slots[SLOTS_MAX];
    unsigned n_slots;
    uint64_t step; /* under way, or the last one's number */
    uint16_t instance;
    bool in_step;
    bool drained; /* … and it has no tokens */
    bool device;  /* the worker runs on one */
    bool eager;   /* nothing is compiled in this process's worker */
    bool direct;  /* the methods that might be traced are not */
} state;

/* The group whose call is under way on this thread: a call inside of it for the same group is part
 * of it (recv_tensor_dict calls irecv_tensor_dict). */
static _Thread_local const void *group_under_way;

static void reset(void)
{
    const bool eager = state.eager, direct = state.direct;
    memset(&state, 0, sizeof state);
    state.eager = eager;
    state.direct = direct;
    pm_collective_device_reset();
    pm_collective_graph_reset();
}

/* ---- what a call exchanges ------------------------------------------------------------------- */

/* Bytes of a tensor, or of those in a list, tuple or dict, and one level further down; 0 for
 * anything else. */
static uint64_t bytes_of(PyObject *object, unsigned depth)
{
    static struct pm_name n_nbytes = PM_NAME("nbytes");
    uint64_t bytes = 0;
    if (object == NULL || object == Py_None || PyBool_Check(object) || PyLong_Check(object) ||
        PyUnicode_Check(object))
        return 0;
    if (PyDict_Check(object)) {
        PyObject *key, *value;
        Py_ssize_t at = 0;
        for (int i = 0; depth > 0 && i < VALUES_MAX && PyDict_Next(object, &at, &key, &value); i++)
            bytes += bytes_of(value, depth - 1);
        return bytes;
    }
    const bool list = PyList_Check(object);
    if (list || PyTuple_Check(object)) {
        const Py_ssize_t count = list ? PyList_Size(object) : PyTuple_Size(object);
        for (Py_ssize_t i = 0; depth > 0 && i < count && i < VALUES_MAX; i++)
            bytes +=
                bytes_of(list ? PyList_GetItem(object, i) : PyTuple_GetItem(object, i), depth - 1);
        return bytes;
    }
    return pm_read_u64(object, &n_nbytes, &bytes) ? bytes : 0;
}

/* What was given, else what came back. */
static uint64_t bytes_of_call(const struct pm_call *call)
{
    const Py_ssize_t named = call->kwnames != NULL ? PyTuple_Size(call->kwnames) : 0;
    uint64_t bytes = 0;
    for (Py_ssize_t i = 1; i < call->nargs + named; i++)
        bytes += bytes_of(call->args[i], 2);
    return bytes != 0 ? bytes : bytes_of(call->result, 2);
}

/* ---- the slots ------------------------------------------------------------------------------- */

static struct slot *slot_of(PyObject *group, enum pm_collective_operation operation)
{
    static struct pm_name n_unique_name = PM_NAME("unique_name"), n_size = PM_NAME("world_size");
    uint64_t size = 0;
    for (unsigned i = 0; i < state.n_slots; i++)
        if (state.slots[i].group == group && state.slots[i].sums.operation == operation)
            return &state.slots[i];
    if (state.n_slots == SLOTS_MAX)
        return NULL;
    struct slot *slot = &state.slots[state.n_slots++];
    *slot = (struct slot){.group = group, .sums = {.operation = (uint8_t)operation}};
    if (!pm_read_text(group, &n_unique_name, slot->name, sizeof slot->name, NULL))
        memcpy(slot->name, "unknown", sizeof "unknown");
    slot->single = pm_read_u64(group, &n_size, &size) && size < 2;
    return slot;
}

static void record(struct pm_recorder *rec, struct slot *slot)
{
    if (slot->string == 0)
        slot->string = pm_recorder_string(rec, PM_STREAM_CORE, slot->name, strlen(slot->name));
    struct pm_collective_step *room =
        pm_recorder_reserve(rec, pm_facts_schema(&pm_collective_step_schema));
    if (room == NULL)
        return;
    *room = slot->sums;
    room->step = state.step;
    room->instance = state.instance;
    room->group = slot->string;
    if (!state.in_step)
        room->flags |= PM_COLLECTIVE_OUTSIDE;
    if (state.device)
        room->flags |= PM_COLLECTIVE_DEVICE;
    pm_recorder_commit(rec, room);
}

/* Records what was counted since the last time. */
static void flush(void)
{
    struct pm_recorder *rec = NULL;
    for (unsigned i = 0; i < state.n_slots; i++) {
        struct slot *slot = &state.slots[i];
        if (slot->sums.calls == 0)
            continue;
        if (rec == NULL && (rec = pm_facts()) == NULL)
            return;
        record(rec, slot);
        slot->sums = (struct pm_collective_step){.operation = slot->sums.operation};
    }
}

/* ---- a call ---------------------------------------------------------------------------------- */

/* Whether a group is known to be of one rank, where nothing is exchanged. */
static bool is_single(const void *group)
{
    for (unsigned i = 0; i < state.n_slots; i++)
        if (state.slots[i].group == group)
            return state.slots[i].single;
    return false;
}

/* scratch[1]: 0 part of another call, else its pair of events + 1. */
static void call_enter(struct pm_call *call)
{
    const bool part = group_under_way == call->args[0];
    call->scratch[0] = (uint64_t)(uintptr_t)group_under_way;
    group_under_way = call->args[0];
    call->scratch[1] = 0;
    if (!part)
        call->scratch[1] = 1 + (uint64_t)(!state.device || is_single(call->args[0])
                                              ? PM_COLLECTIVE_NO_PAIR
                                              : pm_collective_device_begin(call->enter_ns));
}

static void call_leave(const struct pm_call *call, enum pm_collective_operation operation)
{
    group_under_way = (const void *)(uintptr_t)call->scratch[0];
    struct slot *slot = call->scratch[1] != 0 ? slot_of(call->args[0], operation) : NULL;
    if (slot == NULL || slot->single)
        return;
    if (call->result != NULL)
        pm_collective_device_end((uint32_t)(call->scratch[1] - 1), operation, slot->name);
    const uint64_t bytes = bytes_of_call(call);
    if (pm_collective_graph_add(call, operation, slot->name, bytes))
        return;
    struct pm_collective_step *sums = &slot->sums;
    if (sums->calls++ == 0)
        sums->start_ns = call->start_ns;
    sums->dur_ns += call->end_ns - call->start_ns;
    sums->bytes += bytes;
    if (call->result == NULL)
        sums->flags |= PM_COLLECTIVE_FAILED;
}

#define OPERATION(hook, NAME)                                                                      \
    static void hook##_leave(struct pm_call *call)                                                 \
    {                                                                                              \
        call_leave(call, PM_COLLECTIVE_##NAME);                                                    \
    }
OPERATION(all_reduce, ALL_REDUCE)
OPERATION(all_gather, ALL_GATHER)
OPERATION(reduce_scatter, REDUCE_SCATTER)
OPERATION(gather, GATHER)
OPERATION(broadcast, BROADCAST)
OPERATION(send, SEND)
OPERATION(recv, RECV)
OPERATION(dispatch, DISPATCH)
OPERATION(combine, COMBINE)
#undef OPERATION

/* ---- a step ---------------------------------------------------------------------------------- */

static void end_step(uint64_t now_ns)
{
    flush();
    state.in_step = false;
    pm_collective_device_step_end(state.drained, now_ns);
}

/* What came since the last step is nobody's. */
static void execute_enter(struct pm_call *call)
{
    struct pm_worker_now now;
    if (state.in_step)
        end_step(call->enter_ns);
    pm_collective_graph_resolve();
    const bool known = pm_worker_now(&now);
    if (known) {
        state.step = now.step;
        state.instance = now.instance;
        state.device = now.device;
        state.drained = now.tokens == 0;
    }
    flush();
    state.in_step = known;
    if (known)
        pm_collective_device_step(&now);
}

static void execute_leave(struct pm_call *call)
{
    if (state.in_step && call->result != Py_None) /* else sample_tokens ends the step */
        end_step(call->end_ns);
}

static void sample_leave(struct pm_call *call)
{
    if (state.in_step)
        end_step(call->end_ns);
}

/* ---- which methods may be hooked ------------------------------------------------------------- */

static bool may_be_traced(const struct pm_target *target)
{
    const char *method = strchr(target->qualname, '.');
    static const char *const names[] = {"._all_reduce_out_place",
                                        "._all_gather_out_place",
                                        "._reduce_scatter_out_place",
                                        ".all_gatherv",
                                        ".reduce_scatterv",
                                        ".dispatch",
                                        ".combine"};
    for (size_t i = 0; method != NULL && i < sizeof names / sizeof *names; i++)
        if (strcmp(method, names[i]) == 0)
            return true;
    return false;
}

static bool accepts(const struct pm_target *target, PyObject *owner, PyObject *original)
{
    (void)owner;
    (void)original;
    return state.direct || !may_be_traced(target);
}

/* Worker.__init__(self, vllm_config, …): whether anything is compiled. */
static void worker_enter(struct pm_call *call)
{
    static struct pm_name n_vllm_config = PM_NAME("vllm_config");
    static struct pm_name n_compilation = PM_NAME("compilation_config");
    static struct pm_name n_mode = PM_NAME("mode"), n_level = PM_NAME("level");
    PyObject *config = pm_call_arg(call, 1, &n_vllm_config); /* borrowed */
    PyObject *compilation = config != NULL ? pm_read_attr(config, &n_compilation) : NULL;
    uint64_t mode = 1;
    if (compilation != NULL && !pm_read_u64(compilation, &n_mode, &mode))
        (void)pm_read_u64(compilation, &n_level, &mode);
    state.eager = mode == 0;
    Py_XDECREF(compilation);
}

/* GroupCoordinator itself, of whichever class the group is; a new reference or NULL. */
static PyObject *coordinator_class(PyObject *group)
{
    static struct pm_name n_mro = PM_NAME("__mro__"), n_name = PM_NAME("__name__");
    PyObject *type = (PyObject *)Py_TYPE(group), *found = NULL;
    PyObject *mro = pm_read_attr(type, &n_mro);
    const Py_ssize_t count = mro != NULL && PyTuple_Check(mro) ? PyTuple_Size(mro) : 0;
    for (Py_ssize_t i = 0; i < count && found == NULL; i++) {
        char name[32];
        PyObject *base = PyTuple_GetItem(mro, i); /* borrowed */
        if (pm_read_text(base, &n_name, name, sizeof name, NULL) &&
            strcmp(name, "GroupCoordinator") == 0) {
            found = base;
            Py_INCREF(found);
        }
    }
    Py_XDECREF(mro);
    return found;
}

static void hook_what_is_not_traced(PyObject *group)
{
    PyObject *class = coordinator_class(group);
    for (size_t i = 0; class != NULL && i < pm_probe_collective.n_targets; i++)
        if (may_be_traced(&pm_probe_collective.targets[i]))
            (void)pm_facts_hook(class, &pm_probe_collective, &pm_probe_collective.targets[i]);
    Py_XDECREF(class);
}

/* GroupCoordinator.__init__: a group was made, perhaps where an older one lay. */
static void group_leave(struct pm_call *call)
{
    static struct pm_name n_size = PM_NAME("world_size"), n_custom = PM_NAME("use_custom_op_call");
    PyObject *group = call->args[0];
    uint64_t size = 0;
    bool custom = false;
    flush();
    for (unsigned i = 0; i < state.n_slots; i++)
        if (state.slots[i].group == group)
            state.slots[i--] = state.slots[--state.n_slots];
    if (call->result == NULL || !pm_read_u64(group, &n_size, &size) || size < 2 || state.direct)
        return;
    (void)pm_read_bool(group, &n_custom, &custom);
    state.direct = custom || state.eager;
    if (state.direct)
        hook_what_is_not_traced(group);
    else
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "collective",
                      "torch.compile traces all_reduce, all_gather and reduce_scatter on this "
                      "platform: they are not counted (with --enforce-eager they are)");
}

#define worker_leave NULL
#define group_enter NULL
#define sample_enter NULL
#define begin_enter pm_collective_graph_begin
#define begin_leave NULL
#define end_enter NULL
#define end_leave pm_collective_graph_end
#define all_reduce_enter call_enter
#define all_gather_enter call_enter
#define reduce_scatter_enter call_enter
#define gather_enter call_enter
#define broadcast_enter call_enter
#define send_enter call_enter
#define recv_enter call_enter
#define dispatch_enter call_enter
#define combine_enter call_enter
#define T PM_TARGET_ROW
/* clang-format off */
static const struct pm_target targets[] = {
#include "probe/collective.def"
    /* Also hooked by worker_step and cuda_graph, whose rows tell doctor of them. */
    T(execute, "vllm.v1.worker.gpu_worker", "Worker.execute_model",    METHOD, PM_TARGET_OUTERMOST, "0.11.0+", NULL)
    T(sample,  "vllm.v1.worker.gpu_worker", "Worker.sample_tokens",    METHOD, PM_TARGET_OUTERMOST | PM_TARGET_OPTIONAL, "0.11.2+", NULL)
    T(begin,   "torch.cuda.graphs",         "CUDAGraph.capture_begin", METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
    T(end,     "torch.cuda.graphs",         "CUDAGraph.capture_end",   METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
    T(begin,   "torch.xpu.graphs",          "XPUGraph.capture_begin",  METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
    T(end,     "torch.xpu.graphs",          "XPUGraph.capture_end",    METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
};
/* clang-format on */
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->collective && settings->preset != PM_PRESET_SIMPLE;
}

const struct pm_probe pm_probe_collective = {
    .name = "collective",
    .control = PM_PROBE_EARLY,
    .early =
        "which of vLLM's collectives may be watched is known when the groups of ranks are made",
    .component = NULL, /* its hooks are there on one rank too */
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .accepts = accepts,
    .reset = reset,
};
