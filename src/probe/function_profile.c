/*
 * Function tracing through a profile function (3.10 and 3.11): called by the interpreter at each
 * call and return of each thread that has one, GIL held. A thread has one such function: where
 * another profiler has set its own, it is left in place.
 *
 * Threads get it in three ways: the one that starts tracing, those that run already, and, by way of
 * threading's hook, those that begin later. Threads that other languages begin are not seen.
 */
#include "probe/function.h"

#include <stdio.h>
#include <string.h>

#include "hook/read.h"

static PyObject *profiler; /* what sys.getprofile() shows; a callable, for threading's hook */

static int on_event(PyObject *self, PyFrameObject *frame, int what, PyObject *arg);

/* ---- events -----------------------------------------------------------------------------------
 */

/* Whether a generator's frame goes on after a yield: not where it begins. */
static bool is_resumed(PyFrameObject *frame, uint32_t node)
{
    static struct pm_name n_lasti = PM_NAME("f_lasti");
    int64_t at = 0;
    if (!(pm_tracer.calls.spots[node].flags & PM_FUNCTION_GENERATOR))
        return false;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool known = pm_read_i64((PyObject *)frame, &n_lasti, &at);
    PyErr_Restore(type, value, traceback);
    return known && at != pm_tracer.fresh[pm_tracer.calls.nodes[node].row];
}

static inline void begun(PyFrameObject *frame)
{
    const uint64_t now_ns = pm_clock_now_ns();
    struct pm_calls_thread *here = pm_tracer_thread(now_ns);
    if (!here)
        return;
    PyObject *code = (PyObject *)PyFrame_GetCode(frame);
    const uint32_t node = pm_tracer_node(here, code);
    if (node != 0)
        pm_calls_enter(&pm_tracer.calls, here, node, frame, is_resumed(frame, node), now_ns);
    Py_DECREF(code);
}

static inline void ended(PyFrameObject *frame, bool raised)
{
    const uint64_t now_ns = pm_clock_now_ns();
    struct pm_calls_thread *here = pm_tracer_thread(now_ns);
    if (!here)
        return;
    if (__builtin_expect(pm_calls_is_top(here, frame), 1))
        here->beyond = 0; /* a frame is no other's: all above it have ended */
    else if (here->depth == 0 || here->beyond != 0)
        return;
    else {
        PyObject *code = (PyObject *)PyFrame_GetCode(frame);
        const uint32_t row = pm_calls_code(&pm_tracer.calls, code);
        Py_DECREF(code);
        if (row == PM_CALLS_SKIPPED || row == PM_CALLS_UNKNOWN)
            return;
    }
    pm_calls_leave(&pm_tracer.calls, here, frame, raised, now_ns);
}

static int on_event(PyObject *self, PyFrameObject *frame, int what, PyObject *arg)
{
    (void)self;
    if (what == PM_TRACE_CALL)
        begun(frame);
    else if (what == PM_TRACE_RETURN)
        ended(frame, arg == NULL);
    else
        return 0;
    if (__builtin_expect(!pm_tracer.live && pm_guard_here.inside == 0, 0))
        PyEval_SetProfile(NULL, NULL); /* a child of fork() that nobody has made an engine of */
    return 0;
}

/* The callable that threading hands to sys.setprofile in a new thread: puts the C function in its
 * own place at the first event. */
static PyObject *on_thread(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    if (pm_tracer.live)
        PyEval_SetProfile(on_event, profiler);
    else
        PyEval_SetProfile(NULL, NULL);
    Py_RETURN_NONE;
}

/* ---- after a pause ----------------------------------------------------------------------------
 */

#define LIVE_MAX 1024u /* frames of a thread that are looked at */

/* The frames that run, the innermost first; borrowed for the moment: they are running. */
static uint32_t running(const void **frames, uint32_t room)
{
    static struct pm_name n_back = PM_NAME("f_back");
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    uint32_t n = 0;
    Py_XINCREF(frame);
    while (frame && frame != Py_None && n < room) {
        frames[n++] = frame;
        PyObject *back = pm_read_attr(frame, &n_back);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    pm_guard_discard();
    return n;
}

void pm_profile_after_pause(struct pm_calls_thread *here, uint64_t now_ns)
{
    const void *frames[LIVE_MAX];
    uint32_t at = running(frames, LIVE_MAX), depth = 0;
    /* From the outermost on: our frames are some of those that ran, in the same order. */
    while (depth < here->depth) {
        while (at > 0 && frames[at - 1] != here->frames[depth].key)
            at--;
        if (at == 0)
            break;
        PyObject *code = (PyObject *)PyFrame_GetCode((PyFrameObject *)(uintptr_t)frames[--at]);
        const bool same = pm_tracer.calls.spots[here->frames[depth].node].code == code;
        Py_DECREF(code);
        if (!same) /* another call in the same place */
            break;
        depth++;
    }
    pm_calls_thread_after(&pm_tracer.calls, here, depth, pm_tracer.paused_ns, now_ns);
}

/* ---- start ------------------------------------------------------------------------------------
 */

/* What sys.getprofile() gives on this thread: NULL if that is nothing, or ours. New reference. */
static PyObject *foreign_profiler(const char *module, const char *function)
{
    PyObject *owner = PyDict_GetItemString(PyImport_GetModuleDict(), module); /* borrowed */
    PyObject *get = owner ? PyObject_GetAttrString(owner, function) : NULL;
    PyObject *found = get ? PyObject_CallObject(get, NULL) : NULL;
    Py_XDECREF(get);
    PyErr_Clear();
    if (found == Py_None || found == profiler)
        Py_CLEAR(found);
    return found;
}

static void tell_who(PyObject *other, const char *where, char *why, size_t size)
{
    static struct pm_name n_qualname = PM_NAME("__qualname__"), n_module = PM_NAME("__module__");
    PyObject *named = PyObject_HasAttrString(other, "__qualname__") ? other : PyObject_Type(other);
    char name[96] = "?", module[96] = "?";
    (void)pm_read_text(named, &n_qualname, name, sizeof name, NULL);
    (void)pm_read_text(named, &n_module, module, sizeof module, NULL);
    if (named != other)
        Py_DECREF(named);
    snprintf(why, size, "another profiler (%s.%s) holds %s", module, name, where);
}

/* Sets the hook for new threads, unless somebody else has. False: it was not set. */
static bool watch_new_threads(void)
{
    PyObject *other = foreign_profiler("threading", "getprofile");
    PyObject *threading = PyDict_GetItemString(PyImport_GetModuleDict(), "threading");
    PyObject *result = NULL;
    if (!other && threading)
        result = PyObject_CallMethod(threading, "setprofile", "O", profiler);
    bool done = result != NULL;
    Py_XDECREF(other);
    Py_XDECREF(result);
    PyErr_Clear();
    return done;
}

bool pm_profile_start(char *why, size_t size)
{
    static PyMethodDef method = {"profilemate", on_thread, METH_VARARGS,
                                 "Counts the calls of functions."};
    if (!pm_profile_possible()) {
        snprintf(why, size, "this interpreter has no PyEval_SetProfile");
        return false;
    }
    if (!profiler)
        profiler = PyCFunction_NewEx(&method, NULL, NULL);
    if (!profiler) {
        PyErr_Clear();
        snprintf(why, size, "no memory");
        return false;
    }
    PyObject *other = foreign_profiler("sys", "getprofile");
    if (other) {
        tell_who(other, "this thread's profile function (sys.setprofile)", why, size);
        Py_DECREF(other);
        return false;
    }
    if (watch_new_threads())
        pm_profile_others(on_event, profiler);
    PyEval_SetProfile(on_event, profiler);
    pm_guard_discard();
    return true;
}
