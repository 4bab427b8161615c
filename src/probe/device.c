/*
 * Probe device: how long the model, and sampling, took on the device itself, and how long the
 * device waited in between, by pairs of events (gpu/events.h) round the calls that worker_step
 * hooks as well.
 *
 * Runs in the worker, under the GIL. Records a device_step for each step, when its events are
 * complete: in a later step, when the device has just been given its model to run, and when an
 * empty step or the worker's shutdown comes. The step's own worker_step was recorded before; it
 * says by a flag that times follow.
 *
 *   Worker.execute_model
 *     _model_forward | pre_forward … finish_forward     ● model ●   then perhaps: read older steps
 *   Worker.sample_tokens                                          ● sampling ●
 *
 * No function of the driver is called that waits, none while a graph is being captured anywhere in
 * the process (a query alone would break the capture), and none in lightweight mode, where this
 * probe is off. The first error turns it off for good: vLLM's own synchronisation is the end of a
 * pass from there on.
 */
#include "hook/compat.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/events.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "probe/device.h"
#include "probe/device_chain.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/attrs.h"
#include "session/device_facts.h"
#include "session/step_facts.h"

static const struct pm_schema *const schemas[] = {&pm_device_step_schema, &pm_device_miss_schema};

static struct {
    struct pm_driver driver;
    struct pm_events *events; /* NULL: no device, or off */
    PyObject *stream_of;      /* torch's function; owned. NULL: streams are not asked for (tests) */
    PyObject *ordinal;        /* its argument: the device in use; owned */
    int device;               /* the same as a number */
    struct pm_worker_now now; /* of the open step */
    uint32_t described;       /* worker + 1 whose clock was told; 0: none */
    uint32_t captures;        /* begun, and not ended, in this process */
    bool tried;               /* to find a driver */
    bool step_open, in_sample;
    bool at_fork; /* the handler is registered */
} state;

static struct pm_name n_torch = PM_NAME("torch");
static struct pm_name n_c = PM_NAME("_C");
static struct pm_name n_stream_of = PM_NAME("_cuda_getCurrentRawStream");

const char *pm_device_stand_in(void)
{
    const char *path = getenv("PROFILEMATE_TEST_DRIVER");
    return path != NULL && path[0] != '\0' ? path : NULL;
}

/* ---- begin and end -------------------------------------------------------------------------- */

/* The events are the parent's, and its driver is not there: nothing is called. Interpreters' own
 * objects are left alone. */
static void forked(void)
{
    pm_events_abandon(state.events);
    pm_device_chains_abandon();
    memset(&state, 0, sizeof state);
    state.at_fork = true;
}

static void drop(void)
{
    PyObject *stream_of = state.stream_of, *ordinal = state.ordinal;
    state.stream_of = state.ordinal = NULL;
    state.events = NULL;
    state.step_open = false;
    Py_XDECREF(stream_of);
    Py_XDECREF(ordinal);
}

/* torch._C._cuda_getCurrentRawStream, which torch built for CUDA and for ROCm has. */
static PyObject *find_stream_of(void)
{
    PyObject *name = pm_name_object(&n_torch);
    PyObject *torch = name != NULL ? PyImport_GetModule(name) : NULL;
    PyObject *c = torch != NULL ? pm_read_attr(torch, &n_c) : NULL;
    PyObject *found = c != NULL ? pm_read_attr(c, &n_stream_of) : NULL;
    Py_XDECREF(c);
    Py_XDECREF(torch);
    return found;
}

static void start(void)
{
    const char *path = pm_device_stand_in();
    state.tried = true;
    if (!state.now.device)
        return;
    if (pm_driver_find(&state.driver, path) != 0) {
        pm_facts_attr(PM_ATTR_DEVICE_EVENTS, "off: no CUDA or HIP driver is in use");
        return;
    }
    state.stream_of = find_stream_of();
    if (state.stream_of == NULL && path == NULL) {
        pm_facts_attr(PM_ATTR_DEVICE_EVENTS, "off: torch does not tell its current stream");
        return;
    }
    if (pm_events_open(&state.events, &state.driver,
                       (unsigned)pm_facts_settings()->cuda_event_batch) != 0) {
        state.events = NULL;
        drop();
        return;
    }
    if (!state.at_fork)
        state.at_fork = pthread_atfork(NULL, NULL, forked) == 0;
    pm_facts_attr(PM_ATTR_DEVICE_EVENTS, state.driver.name);
}

void pm_device_turn_off(const char *what, uint64_t step)
{
    char text[320];
    if (state.events == NULL)
        return;
    snprintf(text, sizeof text, "off: %s at step %llu", what, (unsigned long long)step);
    pm_facts_attr(PM_ATTR_DEVICE_EVENTS, text);
    snprintf(
        text, sizeof text,
        "device events are off since step %llu, where %s: passes from there on, and those that "
        "were not read back, end at vLLM's own synchronisation",
        (unsigned long long)step, what);
    pm_facts_attr(PM_ATTR_NOTE_PREFIX "device_events", text);
    pm_events_abandon(state.events);
    pm_device_chains_abandon();
    drop();
}

/* The driver may have given an error: one sentence, and nothing of it is called again. */
static void turn_off(uint64_t step)
{
    char what[160];
    if (state.events != NULL && pm_events_failed(state.events, what, sizeof what))
        pm_device_turn_off(what, step);
}

/* ---- records -------------------------------------------------------------------------------- */

static uint32_t fit(uint64_t ns)
{
    return ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void record_step(const struct pm_event_times *times, void *arg)
{
    struct pm_recorder *rec = arg;
    struct pm_device_step *fact = pm_recorder_reserve(rec, pm_facts_schema(&pm_device_step_schema));
    if (fact == NULL)
        return;
    *fact = (struct pm_device_step){
        .step = times->step,
        .at_ns = times->begun_ns,
        .gpu_ns = times->model_ns,
        .wait_ns = times->wait_ns,
        .after_ns = fit(times->after_ns),
        .sample_ns = fit(times->sample_ns),
        .device = (uint16_t)times->device,
        .instance = times->instance,
        .phase = times->phase,
        .flags = (uint8_t)((times->has_wait ? PM_DEVICE_HAS_WAIT : 0) |
                           (times->has_sample ? PM_DEVICE_HAS_SAMPLE : 0)),
    };
    pm_recorder_commit(rec, fact);
}

/* The open step has no times of the device. */
static void miss(enum pm_device_miss_why why, uint64_t now_ns)
{
    struct pm_recorder *rec = pm_facts();
    struct pm_device_miss *fact =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&pm_device_miss_schema)) : NULL;
    state.step_open = false;
    pm_worker_flag(PM_WORKER_EVENTS, false);
    if (fact == NULL)
        return;
    fact->step = state.now.step;
    fact->at_ns = now_ns;
    fact->instance = state.now.instance;
    fact->why = (uint8_t)why;
    fact->what = PM_DEVICE_MISS_STEP;
    pm_recorder_commit(rec, fact);
}

static void read_back(bool all)
{
    struct pm_recorder *rec = pm_facts();
    if (rec == NULL || state.captures > 0)
        return;
    (void)pm_events_read(state.events, all, record_step, rec);
    turn_off(state.now.step);
}

/* ---- events --------------------------------------------------------------------------------- */

const struct pm_driver *pm_device_driver(void)
{
    return state.events != NULL ? &state.driver : NULL;
}

bool pm_device_captures(void)
{
    return state.captures > 0;
}

bool pm_device_stream(void **ret_stream)
{
    void *context;
    int device;
    *ret_stream = NULL;
    if (state.stream_of == NULL)
        return true;
    if (pm_driver_where(&state.driver, &context, &device) != PM_GPU_SUCCESS || context == NULL)
        return true; /* events.c is told the same, and says so */
    if (state.ordinal == NULL || device != state.device) {
        PyObject *ordinal = PyLong_FromLong(device), *old = state.ordinal;
        state.ordinal = ordinal;
        state.device = device;
        Py_XDECREF(old);
    }
    PyObject *number =
        state.ordinal != NULL
            ? PyObject_CallFunctionObjArgs(state.stream_of, state.ordinal, (PyObject *)NULL)
            : NULL;
    unsigned long long stream = number != NULL ? PyLong_AsUnsignedLongLong(number) : 0;
    const bool good = number != NULL && !PyErr_Occurred();
    Py_XDECREF(number);
    if (!good)
        pm_guard_discard();
    *ret_stream = (void *)(uintptr_t)stream;
    return good;
}

enum pm_device_miss_why pm_device_why(enum pm_event_outcome outcome)
{
    static const enum pm_device_miss_why whys[] = {
        [PM_EVENT_FULL] = PM_DEVICE_MISS_POOL,        [PM_EVENT_CAPTURE] = PM_DEVICE_MISS_CAPTURE,
        [PM_EVENT_NO_DEVICE] = PM_DEVICE_MISS_DEVICE, [PM_EVENT_MOVED] = PM_DEVICE_MISS_DEVICE,
        [PM_EVENT_FOREIGN] = PM_DEVICE_MISS_ERROR,    [PM_EVENT_OFF] = PM_DEVICE_MISS_ERROR,
    };
    return whys[outcome];
}

static void mark(enum pm_event_mark which, uint64_t now_ns)
{
    void *stream;
    if (!state.step_open)
        return;
    if (state.captures > 0 || !pm_device_stream(&stream)) {
        pm_events_lose(state.events);
        miss(state.captures > 0 ? PM_DEVICE_MISS_CAPTURE : PM_DEVICE_MISS_DEVICE, now_ns);
        return;
    }
    const enum pm_event_outcome outcome = pm_events_mark(state.events, which, stream, now_ns);
    if (outcome == PM_EVENT_RECORDED) {
        if (which == PM_MARK_MODEL_END)
            pm_worker_flag(PM_WORKER_EVENTS, true);
        return;
    }
    if (outcome != PM_EVENT_NONE)
        miss(pm_device_why(outcome), now_ns);
    turn_off(state.now.step);
}

static void finish_step(void)
{
    if (!state.step_open || state.events == NULL)
        return;
    state.step_open = false;
    pm_events_end(state.events);
}

/* ---- hooks ---------------------------------------------------------------------------------- */

static void execute_enter(struct pm_call *call)
{
    (void)call;
    if (state.events == NULL && state.tried)
        return;
    if (state.events != NULL)
        finish_step(); /* a rank whose steps end without sample_tokens */
    if (!pm_worker_now(&state.now))
        return;
    if (!state.tried)
        start();
    if (state.events == NULL)
        return;
    if (state.described != state.now.instance + 1u) {
        state.described = state.now.instance + 1u;
        pm_facts_attr(PM_ATTR_FORWARD_CLOCK, "events");
    }
    if (state.now.tokens == 0) /* nothing is asked of the device: what there is may be read */
        return;
    state.in_sample = false;
    state.step_open = true;
    pm_events_begin(state.events, state.now.step, state.now.instance, state.now.phase);
}

static void read_if_due(const struct pm_call *call)
{
    if (state.events != NULL && pm_events_due(state.events, call->end_ns))
        read_back(false);
}

static void execute_leave(struct pm_call *call)
{
    if (state.events == NULL)
        return;
    if (!state.step_open) {
        if (state.now.tokens == 0)
            read_back(true);
        return;
    }
    if (call->result == NULL) {
        finish_step();
        return;
    }
    if (pm_events_has(state.events, PM_MARK_MODEL) &&
        !pm_events_has(state.events, PM_MARK_MODEL_END))
        mark(PM_MARK_MODEL_END, call->end_ns);
    read_if_due(call);
    if (call->result != Py_None) /* else sample_tokens ends the step */
        finish_step();
}

static void model_enter(struct pm_call *call)
{
    mark(PM_MARK_MODEL, call->enter_ns);
}

static void model_leave(struct pm_call *call)
{
    if (call->result != NULL)
        mark(PM_MARK_MODEL_END, call->end_ns);
}

/* The last of forward_start and pre_forward is what the model's call follows. */
static void model_start_leave(struct pm_call *call)
{
    if (call->result != NULL)
        mark(PM_MARK_MODEL, call->end_ns);
}

static void model_end_enter(struct pm_call *call)
{
    if (state.step_open && pm_events_has(state.events, PM_MARK_MODEL))
        mark(PM_MARK_MODEL_END, call->enter_ns);
}

static void sample_enter(struct pm_call *call)
{
    state.in_sample = true;
    mark(PM_MARK_SAMPLE, call->enter_ns);
}

static void sample_leave(struct pm_call *call)
{
    state.in_sample = false;
    if (state.events == NULL || !state.step_open)
        return;
    if (call->result != NULL)
        mark(PM_MARK_SAMPLE_END, call->end_ns);
    finish_step();
}

/* Releases of vLLM without sample_tokens sample inside execute_model. */
static void sampler_enter(struct pm_call *call)
{
    if (!state.in_sample)
        mark(PM_MARK_SAMPLE, call->enter_ns);
}

static void sampler_leave(struct pm_call *call)
{
    if (!state.in_sample && call->result != NULL)
        mark(PM_MARK_SAMPLE_END, call->end_ns);
}

static void begin_enter(struct pm_call *call)
{
    (void)call;
    state.captures++;
}

static void begin_leave(struct pm_call *call)
{
    if (call->result == NULL && state.captures > 0)
        state.captures--;
}

static void end_leave(struct pm_call *call)
{
    (void)call;
    if (state.captures > 0)
        state.captures--;
}

/* The worker goes: its context may be gone with it. */
static void shutdown_enter(struct pm_call *call)
{
    (void)call;
    if (state.events == NULL || state.captures > 0)
        return;
    finish_step();
    read_back(true);
    pm_device_chains_finish();
    if (state.events == NULL)
        return;
    pm_events_close(state.events);
    drop();
    state.tried = false;
}

#define model_start_enter NULL
#define model_end_leave NULL
#define end_enter NULL
#define shutdown_leave NULL
#define T PM_TARGET_ROW
/* clang-format off */
static const struct pm_target targets[] = {
#include "probe/device.def"
    /* Also hooked by worker_step and cuda_graph, whose rows tell doctor of them. */
    T(execute,     "vllm.v1.worker.gpu_worker",       "Worker.execute_model",              METHOD, PM_TARGET_OUTERMOST, "0.11.0+", NULL)
    T(sample,      "vllm.v1.worker.gpu_worker",       "Worker.sample_tokens",              METHOD, PM_TARGET_OUTERMOST | PM_TARGET_OPTIONAL, "0.11.1+", NULL)
    T(model,       "vllm.v1.worker.gpu_model_runner", "GPUModelRunner._model_forward",     METHOD, PM_TARGET_OPTIONAL, "0.11.1+", NULL)
    T(sampler,     "vllm.v1.worker.gpu_model_runner", "GPUModelRunner._sample",            METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
    T(model_start, "vllm.v1.worker.gpu.async_utils",  "StepTimingCollector.forward_start", METHOD, PM_TARGET_OPTIONAL, "0.28.0+", NULL)
    T(model_start, "vllm.v1.worker.gpu.kv_connector", "KVConnector.pre_forward",           METHOD, PM_TARGET_OPTIONAL, "0.15.0+", NULL)
    T(model_start, "vllm.v1.worker.gpu.kv_connector", "ActiveKVConnector.pre_forward",     METHOD, PM_TARGET_OPTIONAL, "0.15.0+", NULL)
    T(model_end,   "vllm.v1.worker.gpu.kv_connector", "KVConnector.finish_forward",        METHOD, PM_TARGET_OPTIONAL, "0.30.0+", NULL)
    T(model_end,   "vllm.v1.worker.gpu.kv_connector", "ActiveKVConnector.finish_forward",  METHOD, PM_TARGET_OPTIONAL, "0.30.0+", NULL)
    T(begin,       "torch.cuda.graphs",               "CUDAGraph.capture_begin",           METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
    T(end,         "torch.cuda.graphs",               "CUDAGraph.capture_end",             METHOD, PM_TARGET_OPTIONAL, "0.11.0+", NULL)
};
/* clang-format on */
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->cuda_events && settings->forward_pass;
}

/* After a fork, where `forked` has been already, and where a session begins in a process that had
 * one before: what is under way belongs to that one. */
static void reset(void)
{
    const bool at_fork = state.at_fork;
    if (at_fork && state.captures == 0) {
        pm_device_chains_close();
        pm_events_close(state.events);
    } else {
        pm_device_chains_abandon();
        pm_events_abandon(state.events);
    }
    drop();
    memset(&state, 0, sizeof state);
    state.at_fork = at_fork;
}

const struct pm_probe pm_probe_device = {
    .name = "device",
    .control = PM_PROBE_SPINE, /* events under way are read back some steps later */
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
};
