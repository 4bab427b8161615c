/*
 * Function tracing through sys.monitoring (PEP 669, 3.12 and later): callbacks of all threads, GIL
 * held. Other tools have ids of their own and are not disturbed; the ids that are meant for
 * debuggers, coverage, profilers and optimizers are left to them.
 *
 * A function that is not traced is left alone from its first call on: its events are disabled at
 * their places in its code and cost nothing. Unwinding has no such place: it is looked up.
 */
#include "probe/function.h"

#include <stdio.h>

#include "hook/read.h"

#define TOOL_IDS 2
static const long tool_ids[TOOL_IDS] = {4, 3}; /* the two that have no purpose */

static struct {
    PyObject *monitoring; /* the module, kept */
    PyObject *disable;    /* sys.monitoring.DISABLE */
    long tool;            /* -1: none yet */
    unsigned long events;
} monitor = {.tool = -1};

bool pm_monitor_exists(void)
{
    if (!monitor.monitoring) {
        monitor.monitoring = PySys_GetObject("monitoring"); /* borrowed */
        Py_XINCREF(monitor.monitoring);
    }
    return monitor.monitoring != NULL;
}

static PyObject *none(void)
{
    Py_INCREF(Py_None);
    return Py_None;
}

static PyObject *leave_alone(void)
{
    Py_INCREF(monitor.disable);
    return monitor.disable;
}

/* ---- events -----------------------------------------------------------------------------------
 */

/* A call of sys.monitoring; *ret_result (may be NULL) a new reference. */
static bool ask(const char *name, PyObject **ret_result, const char *format, ...)
{
    va_list args;
    PyObject *function = PyObject_GetAttrString(monitor.monitoring, name);
    va_start(args, format);
    PyObject *tuple = function ? Py_VaBuildValue(format, args) : NULL;
    va_end(args);
    PyObject *result = tuple ? PyObject_CallObject(function, tuple) : NULL;
    Py_XDECREF(tuple);
    Py_XDECREF(function);
    if (ret_result)
        *ret_result = result;
    else
        Py_XDECREF(result);
    return result != NULL;
}

/* A child of fork() that nobody has made an engine of: it is not asked again. */
static void rest(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_here.inside++;
    (void)ask("set_events", NULL, "(lk)", monitor.tool, 0ul);
    pm_guard_discard();
    pm_guard_here.inside--;
    PyErr_Restore(type, value, traceback);
}

static PyObject *closed(void)
{
    if (!pm_tracer.live && pm_guard_here.inside == 0)
        rest();
    return none();
}

static inline PyObject *begun(PyObject *const *args, bool resumed, bool local)
{
    const uint64_t now_ns = pm_clock_now_ns();
    struct pm_calls_thread *here = pm_tracer_thread(now_ns);
    if (!here)
        return closed();
    const uint32_t node = pm_tracer_node(here, args[0]);
    if (node == 0)
        return local ? leave_alone() : none();
    pm_calls_enter(&pm_tracer.calls, here, node, args[0], resumed, now_ns);
    return none();
}

static inline PyObject *ended(PyObject *const *args, bool raised)
{
    const uint64_t now_ns = pm_clock_now_ns();
    struct pm_calls_thread *here = pm_tracer_thread(now_ns);
    if (!here)
        return closed();
    if (__builtin_expect(!pm_calls_is_top(here, args[0]), 0)) {
        if (raised && pm_calls_code(&pm_tracer.calls, args[0]) == PM_CALLS_UNKNOWN)
            return none();
        if (pm_tracer_row(args[0]) == PM_CALLS_SKIPPED)
            return raised ? none() : leave_alone();
    }
    pm_calls_leave(&pm_tracer.calls, here, args[0], raised, now_ns);
    return none();
}

static PyObject *on_start(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    return nargs >= 1 ? begun(args, false, true) : none();
}

static PyObject *on_resume(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    return nargs >= 1 ? begun(args, true, true) : none();
}

static PyObject *on_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    return nargs >= 1 ? begun(args, true, false) : none();
}

static PyObject *on_end(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    return nargs >= 1 ? ended(args, false) : none();
}

static PyObject *on_unwind(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)self;
    return nargs >= 1 ? ended(args, true) : none();
}

#define CALLBACK(function)                                                                         \
    {                                                                                              \
        "profilemate", (PyCFunction)(void (*)(void))(function), METH_FASTCALL, NULL                \
    }
static struct {
    const char *event;
    PyMethodDef method;
} callbacks[] = {
    {"PY_START", CALLBACK(on_start)}, {"PY_RESUME", CALLBACK(on_resume)},
    {"PY_THROW", CALLBACK(on_throw)}, {"PY_RETURN", CALLBACK(on_end)},
    {"PY_YIELD", CALLBACK(on_end)},   {"PY_UNWIND", CALLBACK(on_unwind)},
};
#define CALLBACKS (sizeof callbacks / sizeof callbacks[0])

/* ---- start ------------------------------------------------------------------------------------
 */

/* Takes one of the free ids; who has them, where there is none. */
static bool take_tool(char *why, size_t size)
{
    char names[TOOL_IDS][64] = {"?", "?"};
    for (size_t i = 0; i < TOOL_IDS; i++) {
        if (ask("use_tool_id", NULL, "(ls)", tool_ids[i], "profilemate")) {
            monitor.tool = tool_ids[i];
            return true;
        }
        PyErr_Clear();
        PyObject *name = NULL;
        if (ask("get_tool", &name, "(l)", tool_ids[i]))
            (void)pm_text(name, names[i], sizeof names[i], NULL);
        Py_XDECREF(name);
        PyErr_Clear();
    }
    snprintf(why, size, "other tools (%s, %s) hold both free ids of sys.monitoring", names[0],
             names[1]);
    return false;
}

static bool register_callbacks(void)
{
    PyObject *events = PyObject_GetAttrString(monitor.monitoring, "events");
    bool done = events != NULL;
    for (size_t i = 0; i < CALLBACKS && done; i++) {
        PyObject *event = PyObject_GetAttrString(events, callbacks[i].event);
        PyObject *function = event ? PyCFunction_NewEx(&callbacks[i].method, NULL, NULL) : NULL;
        done = function && ask("register_callback", NULL, "(lOO)", monitor.tool, event, function);
        if (done)
            monitor.events |= PyLong_AsUnsignedLong(event);
        Py_XDECREF(function);
        Py_XDECREF(event);
    }
    Py_XDECREF(events);
    return done && !PyErr_Occurred();
}

bool pm_monitor_start(char *why, size_t size)
{
    if (!monitor.disable)
        monitor.disable = PyObject_GetAttrString(monitor.monitoring, "DISABLE");
    bool done = monitor.disable != NULL;
    if (done && monitor.tool < 0)
        done = take_tool(why, size) && register_callbacks();
    done = done && ask("set_events", NULL, "(lk)", monitor.tool, monitor.events);
    if (!done && why[0] == '\0')
        snprintf(why, size, "sys.monitoring refused");
    pm_guard_discard();
    return done;
}
