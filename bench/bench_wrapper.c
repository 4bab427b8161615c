/*
 * _pmbench: the wrapper (src/hook) with a probe that records 48 bytes per call through the real
 * recorder, for bench/bench_wrapper.py.
 */
#include <string.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/wrapper.h"
#include "recorder/recorder.h"

struct row {
    uint64_t start_ns, end_ns, count, a, b, c;
};

static const struct pm_field fields[] = {
    PM_FIELD(struct row, start_ns, U64, "ns", TIME, PM_AGG_NONE, "Start."),
    PM_FIELD(struct row, end_ns, U64, "ns", TIME, PM_AGG_NONE, "End."),
    PM_FIELD(struct row, count, U64, "", COUNT, PM_AGG_SUM, "Arguments."),
};
static const struct pm_schema schema = {
    .name = "bench",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct row),
    .classes = 1,
    .doc = "One hooked call.",
    .fields = fields,
    .n_fields = sizeof fields / sizeof *fields,
};

static struct pm_recorder *recorder;
static uint64_t written;

static void enter(struct pm_call *call)
{
    call->scratch[0] = (uint64_t)call->nargs;
}

static void leave(struct pm_call *call)
{
    struct row *row = pm_recorder_reserve(recorder, 0);
    if (!row)
        return;
    row->start_ns = call->start_ns;
    row->end_ns = call->end_ns;
    row->count = (uint64_t)call->nargs;
    row->a = row->b = row->c = call->scratch[0];
    pm_recorder_commit(recorder, row);
    written++;
}

static void leave_idle(struct pm_call *call)
{
    call->scratch[1] = call->end_ns;
}

static const struct pm_probe probe = {.name = "bench"};
static struct pm_probe_state state = PM_PROBE_STATE(&probe);
static const struct pm_target targets[] = {
    {.module = "bench", .qualname = "leave", .leave = leave},
    {.module = "bench", .qualname = "both", .enter = enter, .leave = leave},
    {.module = "bench", .qualname = "outer", .flags = PM_TARGET_OUTERMOST, .leave = leave},
    {.module = "bench", .qualname = "idle", .leave = leave_idle},
};

/* wrap(callable, *targets) */
static PyObject *b_wrap(PyObject *module, PyObject *args)
{
    struct pm_wrapper_types *types = PyModule_GetState(module);
    PyObject *wrapper = pm_wrapper_new(types, PyTuple_GetItem(args, 0));
    for (Py_ssize_t i = 1; wrapper && i < PyTuple_Size(args); i++) {
        size_t n = PyLong_AsSize_t(PyTuple_GetItem(args, i));
        if (pm_wrapper_add(types, wrapper, &state, &targets[n]) < 0)
            Py_CLEAR(wrapper);
    }
    return wrapper;
}

/* open(session_dir): the recorder, with its thread. */
static PyObject *b_open(PyObject *module, PyObject *path)
{
    (void)module;
    static const uint8_t token[PM_TOKEN_BYTES];
    static const struct pm_schema *const schemas[] = {&schema};
    const char *dir = PyUnicode_AsUTF8AndSize(path, NULL);
    if (!dir)
        return NULL;
    struct pm_recorder_options options = {
        .session_dir = dir,
        .token = token,
        .schemas = schemas,
        .n_schemas = 1,
        .ceiling_bytes = 256u << 20,
        .segment_bytes = 4u << 20,
        .file_mode = 0600,
        .thread = true,
    };
    struct pm_error err = {.text = ""};
    if (pm_recorder_open(&recorder, &options, &err) != 0) {
        PyErr_SetString(PyExc_OSError, err.text);
        return NULL;
    }
    pm_guard_attach(recorder);
    Py_RETURN_NONE;
}

/* done(): (records written, calls counted, our own ns as sampled, faults, clock) */
static PyObject *b_done(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pm_guard_totals totals;
    pm_guard_totals(&totals);
    pm_guard_attach(NULL);
    pm_recorder_close(recorder);
    recorder = NULL;
    return Py_BuildValue("(KKKKs)", (unsigned long long)written, (unsigned long long)totals.calls,
                         (unsigned long long)totals.ns, (unsigned long long)totals.faults,
                         pm_clock_name());
}

/* clock_ns(n): what one reading of the clock takes, in ns, over n of them. */
static PyObject *b_clock(PyObject *module, PyObject *arg)
{
    (void)module;
    unsigned long n = PyLong_AsUnsignedLong(arg);
    uint64_t begin = pm_clock_vdso_ns(), sum = 0;
    for (unsigned long i = 0; i < n; i++)
        sum += pm_clock_now_ns();
    uint64_t end = pm_clock_vdso_ns();
    return Py_BuildValue("(dK)", (double)(end - begin) / (double)n, (unsigned long long)sum);
}

/* records_ns(n): what one record takes. */
static PyObject *b_records(PyObject *module, PyObject *arg)
{
    (void)module;
    unsigned long n = PyLong_AsUnsignedLong(arg);
    struct pm_call call = {.nargs = 1};
    uint64_t begin = pm_clock_vdso_ns();
    for (unsigned long i = 0; i < n; i++)
        leave(&call);
    return PyFloat_FromDouble((double)(pm_clock_vdso_ns() - begin) / (double)n);
}

static PyMethodDef functions[] = {
    {"wrap", b_wrap, METH_VARARGS, NULL},    {"open", b_open, METH_O, NULL},
    {"done", b_done, METH_NOARGS, NULL},     {"clock_ns", b_clock, METH_O, NULL},
    {"records_ns", b_records, METH_O, NULL}, {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module)
{
    pm_clock_init();
    return pm_wrapper_types_init(module, PyModule_GetState(module));
}

static int traverse_module(PyObject *module, visitproc visit, void *arg)
{
    return pm_wrapper_types_visit(PyModule_GetState(module), visit, arg);
}

static int clear_module(PyObject *module)
{
    pm_wrapper_types_clear(PyModule_GetState(module));
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)exec_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,   .m_name = "_pmbench",    .m_size = sizeof(struct pm_wrapper_types),
    .m_methods = functions,  .m_slots = module_slots, .m_traverse = traverse_module,
    .m_clear = clear_module,
};

PyMODINIT_FUNC PyInit__pmbench(void);
PyMODINIT_FUNC PyInit__pmbench(void)
{
    return PyModuleDef_Init(&definition);
}
