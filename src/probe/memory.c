/*
 * Probe memory: what the worker's process holds, after each phase of its start and every
 * LOG_INTERVAL steps. Runs in the worker, under the GIL.
 *
 * On a device torch's allocator is asked (torch._C._cuda_memoryStats, which reads counters of the
 * host's and makes no call of the device); on a CPU the kernel is. A step in between pays a
 * comparison.
 */
#include "hook/compat.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "hook/read.h"
#include "probe/probe.h"
#include "probe/worker_now.h"
#include "session/memory_facts.h"

extern const struct pm_probe pm_probe_memory;

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_memory_sample, member, type, unit, kind, agg, doc)
static const struct pm_field fields[] = {
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "when it was read: after the phase, or the step"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_SUM, "the phase took; 0: serving"),
    F(step, U64, "", ID, PM_AGG_NONE, "serving: number of the step, as worker_step has it"),
    F(before_bytes, U64, "bytes", GAUGE, PM_AGG_NONE, "allocated when the phase began; 0: serving"),
    F(allocated_bytes, U64, "bytes", GAUGE, PM_AGG_NONE, "by torch's allocator; CPU: resident memory of the process"),
    F(reserved_bytes, U64, "bytes", GAUGE, PM_AGG_NONE, "by torch's allocator from the device; CPU: 0"),
    F(peak_bytes, U64, "bytes", GAUGE, PM_AGG_NONE, "greatest allocated so far; torch's is reset by vLLM at start-up"),
    F(device, I32, "", ID, PM_AGG_NONE, "its index; -1: CPU"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(phase, U8, "", ID, PM_AGG_CLASS, "0 serving, 1 weights, 2 profile_run, 3 kv_cache, 4 warm_up"),
};
#undef F
/* clang-format on */

static const struct pm_schema memory_sample_schema = {
    .name = "memory_sample",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_memory_sample),
    .classes = PM_MEMORY_PHASES_COUNT,
    .doc = "What a worker's process holds, after each phase of its start and every so many steps.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};

static const struct pm_schema *const schemas[] = {&memory_sample_schema};

static struct {
    uint64_t steps; /* since the newest sample */
    bool sampled;   /* one of serving is there */
} state;

static void reset(void)
{
    memset(&state, 0, sizeof state);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* The process's resident memory, by the kernel; false where /proc does not tell. */
static bool read_process(struct pm_memory_sample *sample)
{
    char text[128], *rest;
    struct rusage usage;
    const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const ssize_t got = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (got <= 0)
        return false;
    text[got] = '\0';
    (void)strtoull(text, &rest, 10); /* the first number is the address space */
    sample->allocated_bytes = strtoull(rest, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        sample->peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
    if (sample->peak_bytes < sample->allocated_bytes) /* the kernel brings it up to date later */
        sample->peak_bytes = sample->allocated_bytes;
    sample->device = PM_MEMORY_CPU;
    return true;
}

/* stats[what]["all"][value] */
static uint64_t statistic(PyObject *stats, struct pm_name *what, struct pm_name *value)
{
    static struct pm_name n_all = PM_NAME("all");
    uint64_t bytes = 0;
    PyObject *of = pm_dict_item(stats, pm_name_object(what)); /* borrowed, all of them */
    of = of != NULL ? pm_dict_item(of, pm_name_object(&n_all)) : NULL;
    of = of != NULL ? pm_dict_item(of, pm_name_object(value)) : NULL;
    return of != NULL && pm_u64(of, &bytes) ? bytes : 0;
}

/* Torch's statistics of the worker's device; NULL where there are none. */
static PyObject *ask_torch(uint64_t device)
{
    static struct pm_name n_torch = PM_NAME("torch"), n_c = PM_NAME("_C");
    static struct pm_name n_stats = PM_NAME("_cuda_memoryStats");
    PyObject *name = pm_name_object(&n_torch), *stats = NULL;
    PyObject *torch = name != NULL ? PyImport_GetModule(name) : NULL;
    PyObject *c = torch != NULL ? pm_read_attr(torch, &n_c) : NULL;
    PyObject *function = c != NULL ? pm_read_attr(c, &n_stats) : NULL;
    PyObject *index = function != NULL ? PyLong_FromUnsignedLongLong(device) : NULL;
    if (index != NULL)
        stats = PyObject_CallFunctionObjArgs(function, index, NULL);
    PyErr_Clear(); /* a torch without CUDA, a device not begun: no statistics */
    Py_XDECREF(index);
    Py_XDECREF(function);
    Py_XDECREF(c);
    Py_XDECREF(torch);
    return stats;
}

/* Whether the worker's device is the CPU is known by its type; its index is 0 where it has none. */
static bool read_memory(PyObject *worker, struct pm_memory_sample *sample)
{
    static struct pm_name n_device = PM_NAME("device"), n_index = PM_NAME("index");
    static struct pm_name n_type = PM_NAME("type");
    static struct pm_name n_allocated = PM_NAME("allocated_bytes");
    static struct pm_name n_reserved = PM_NAME("reserved_bytes");
    static struct pm_name n_current = PM_NAME("current"), n_peak = PM_NAME("peak");
    char type[16] = "";
    uint64_t index = 0;
    PyObject *device = pm_read_attr(worker, &n_device);
    if (device != NULL) {
        (void)pm_read_text(device, &n_type, type, sizeof type, NULL);
        (void)pm_read_u64(device, &n_index, &index);
    }
    Py_XDECREF(device);
    if (strcmp(type, "cpu") == 0)
        return read_process(sample);
    PyObject *stats = strcmp(type, "cuda") == 0 && index < INT32_MAX ? ask_torch(index) : NULL;
    if (stats == NULL)
        return false;
    sample->allocated_bytes = statistic(stats, &n_allocated, &n_current);
    sample->peak_bytes = statistic(stats, &n_allocated, &n_peak);
    sample->reserved_bytes = statistic(stats, &n_reserved, &n_current);
    sample->device = (int32_t)index;
    Py_DECREF(stats);
    return true;
}

static void record(const struct pm_memory_sample *sample)
{
    struct pm_recorder *rec = pm_facts();
    struct pm_memory_sample *room =
        rec != NULL ? pm_recorder_reserve(rec, pm_facts_schema(&memory_sample_schema)) : NULL;
    if (room == NULL)
        return;
    *room = *sample;
    pm_recorder_commit(rec, room);
}

/* ---- phases of the start --------------------------------------------------------------------- */

static void phase_enter(struct pm_call *call)
{
    struct pm_memory_sample before = {0};
    if (read_memory(call->args[0], &before))
        call->scratch[0] = before.allocated_bytes;
}

static void phase_leave(const struct pm_call *call, enum pm_memory_phase phase)
{
    struct pm_memory_sample sample = {
        .at_ns = call->end_ns,
        .dur_ns = call->end_ns - call->start_ns,
        .before_bytes = call->scratch[0],
        .instance = pm_worker_newest(),
        .phase = (uint8_t)phase,
    };
    if (call->result != NULL && read_memory(call->args[0], &sample))
        record(&sample);
}

#define PHASE(hook, NAME)                                                                          \
    static void hook##_leave(struct pm_call *call)                                                 \
    {                                                                                              \
        phase_leave(call, PM_MEMORY_##NAME);                                                       \
    }
PHASE(weights, WEIGHTS)
PHASE(profile_run, PROFILE_RUN)
PHASE(kv_cache, KV_CACHE)
PHASE(warm_up, WARM_UP)
#undef PHASE

/* ---- steps ----------------------------------------------------------------------------------- */

static void execute_leave(struct pm_call *call)
{
    struct pm_memory_sample sample = {.at_ns = call->end_ns, .phase = PM_MEMORY_SERVING};
    struct pm_worker_now now;
    if (state.sampled && ++state.steps < (uint64_t)pm_facts_settings()->log_interval)
        return;
    if (!pm_worker_now(&now) || now.tokens == 0)
        return;
    state.sampled = true;
    state.steps = 0;
    sample.step = now.step;
    sample.instance = now.instance;
    if (read_memory(call->args[0], &sample))
        record(&sample);
}

#define weights_enter phase_enter
#define profile_run_enter phase_enter
#define kv_cache_enter phase_enter
#define warm_up_enter phase_enter
#define execute_enter NULL
#define T PM_TARGET_ROW
/* clang-format off */
static const struct pm_target targets[] = {
#include "probe/memory.def"
    /* Also hooked by worker_step, whose rows tell doctor of it. */
    T(execute, "vllm.v1.worker.gpu_worker", "Worker.execute_model", METHOD, PM_TARGET_OUTERMOST, "0.11.0+", NULL)
};
/* clang-format on */
#undef T

static bool enabled(const struct pm_settings *settings)
{
    return settings->memory && settings->preset != PM_PRESET_SIMPLE;
}

const struct pm_probe pm_probe_memory = {
    .name = "memory",
    .component = NULL,
    .enabled = enabled,
    .schemas = schemas,
    .n_schemas = sizeof schemas / sizeof *schemas,
    .targets = targets,
    .n_targets = sizeof targets / sizeof *targets,
    .reset = reset,
};
