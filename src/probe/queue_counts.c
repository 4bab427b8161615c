/*
 * Lengths of a scheduler's queues (see queue_counts.h). Owns what is known of the type of its
 * queues; called by the probe sched_step, under the GIL.
 *
 * get_request_counts: (running, waiting) 0.11.0 to 0.17.1; waiting and skipped_waiting 0.18.0 to
 * 0.30.0; waiting and kv_holding_waiting 0.31.0+. The queues that wait are of class
 * FCFSRequestQueue, a deque whose __len__ is Python code that asks the deque, or
 * PriorityRequestQueue, which is asked.
 */
#include "probe/queue_counts.h"

#include <string.h>

#include "hook/guard.h"
#include "hook/read.h"

enum pm_queue_how { UNKNOWN, READ, ASK };

static struct pm_name n_counts = PM_NAME("get_request_counts");
static struct pm_name n_running = PM_NAME("running");
static struct pm_name n_func = PM_NAME("__func__");
static struct pm_name n_name = PM_NAME("__name__");
static struct pm_name waits[] = {
    PM_NAME("waiting"),
    PM_NAME("skipped_waiting"),
    PM_NAME("kv_holding_waiting"),
};
#define QUEUES (sizeof waits / sizeof *waits)

/* The stand-in's lengths: no sum of some of them is one of others, or a multiple of one. */
static const uint16_t lengths[QUEUES] = {101, 257, 1031};

/* The queue that was seen last; type is compared, never followed. */
static struct {
    const PyTypeObject *type;
    lenfunc length; /* the deque's own, where the type only asks it; else NULL */
} seen;

/* ---- what get_request_counts counts ---------------------------------------------------------- */

/* Two numbers out of what it returned; false where it is something else. */
static bool two_numbers(PyObject *counts, uint32_t *ret_running, uint32_t *ret_waiting)
{
    uint64_t running, waiting;
    if (counts == NULL || !PyTuple_Check(counts) || PyTuple_Size(counts) < 2 ||
        !pm_u64(PyTuple_GetItem(counts, 0), &running) ||
        !pm_u64(PyTuple_GetItem(counts, 1), &waiting))
        return false;
    *ret_running = (uint32_t)running;
    *ret_waiting = (uint32_t)waiting;
    return true;
}

static bool put_list(PyObject *dict, struct pm_name *name, Py_ssize_t length)
{
    PyObject *list = PyList_New(length), *key = pm_name_object(name);
    bool good = list != NULL && key != NULL;
    for (Py_ssize_t i = 0; good && i < length; i++)
        good = PyList_SetItem(list, i, Py_NewRef(Py_None)) == 0;
    good = good && PyDict_SetItem(dict, key, list) == 0;
    Py_XDECREF(list);
    return good;
}

/* An object with one request that runs, and so many in the queues: NULL without memory. */
static PyObject *stand_in(void)
{
    PyObject *types = PyImport_ImportModule("types");
    PyObject *space = types != NULL ? PyObject_GetAttrString(types, "SimpleNamespace") : NULL;
    PyObject *none = PyTuple_New(0), *has = PyDict_New(), *made = NULL;
    bool good = space != NULL && none != NULL && has != NULL && put_list(has, &n_running, 1);
    for (size_t i = 0; i < QUEUES && good; i++)
        good = put_list(has, &waits[i], lengths[i]);
    if (good)
        made = PyObject_Call(space, none, has);
    Py_XDECREF(has);
    Py_XDECREF(none);
    Py_XDECREF(space);
    Py_XDECREF(types);
    return made;
}

/* The queues whose lengths add up to this, a bit each; 0: none do. */
static uint8_t queues_of(uint32_t waiting)
{
    for (uint32_t queues = 1; queues < 1u << QUEUES; queues++) {
        uint32_t sum = 0;
        for (size_t i = 0; i < QUEUES; i++)
            sum += (queues & 1u << i) != 0 ? lengths[i] : 0;
        if (sum == waiting)
            return (uint8_t)queues;
    }
    return 0;
}

/* A function of Python's alone: what is bound otherwise, or to the instance, is called as it is. */
static __attribute__((noinline, cold)) void learn(PyObject *scheduler,
                                                  struct pm_queue_counts *known)
{
    uint32_t running = 0, waiting = 0;
    PyObject *method = pm_read_attr(scheduler, &n_counts);
    PyObject *function = method != NULL ? pm_read_attr(method, &n_func) : NULL;
    PyObject *object =
        function != NULL && Py_TYPE(function) == &PyFunction_Type ? stand_in() : NULL;
    PyObject *counts = object != NULL ? PyObject_CallFunctionObjArgs(function, object, NULL) : NULL;
    pm_guard_discard();
    known->how = ASK;
    if (two_numbers(counts, &running, &waiting) && running == 1)
        known->queues = queues_of(waiting);
    if (known->queues != 0)
        known->how = READ;
    Py_XDECREF(counts);
    Py_XDECREF(object);
    Py_XDECREF(function);
    Py_XDECREF(method);
}

/* ---- lengths --------------------------------------------------------------------------------- */

/* The deque's own length, for vLLM's first-come queue. */
static __attribute__((noinline, cold)) void learn_type(PyTypeObject *type)
{
    char name[32];
    PyObject *collections = PyImport_ImportModule("collections");
    PyObject *deque = collections != NULL ? PyObject_GetAttrString(collections, "deque") : NULL;
    seen.type = type;
    seen.length = NULL;
    if (deque != NULL && PyType_Check(deque) && PyType_IsSubtype(type, (PyTypeObject *)deque) &&
        pm_read_text((PyObject *)type, &n_name, name, sizeof name, NULL) &&
        strcmp(name, "FCFSRequestQueue") == 0)
        seen.length = (lenfunc)PyType_GetSlot((PyTypeObject *)deque, Py_sq_length);
    pm_guard_discard();
    Py_XDECREF(deque);
    Py_XDECREF(collections);
}

static bool length(PyObject *queue, uint64_t *ret_n)
{
    if (queue == NULL)
        return false;
    if (PyList_Check(queue)) {
        *ret_n = (uint64_t)PyList_Size(queue);
        return true;
    }
    if (Py_TYPE(queue) != seen.type)
        learn_type(Py_TYPE(queue));
    if (seen.length == NULL)
        return pm_len(queue, ret_n);
    *ret_n = (uint64_t)seen.length(queue);
    return true;
}

static bool length_of(PyObject *scheduler, struct pm_name *name, uint64_t *ret_n)
{
    PyObject *queue = pm_read_attr(scheduler, name);
    const bool good = length(queue, ret_n);
    Py_XDECREF(queue);
    return good;
}

static bool read_lengths(PyObject *scheduler, uint8_t queues, uint32_t *ret_running,
                         uint32_t *ret_waiting)
{
    uint64_t running, waiting = 0, n;
    if (!length_of(scheduler, &n_running, &running))
        return false;
    for (size_t i = 0; i < QUEUES; i++) {
        if ((queues & 1u << i) == 0)
            continue;
        if (!length_of(scheduler, &waits[i], &n))
            return false;
        waiting += n;
    }
    *ret_running = (uint32_t)running;
    *ret_waiting = (uint32_t)waiting;
    return true;
}

static __attribute__((noinline, cold)) void ask(PyObject *scheduler, uint32_t *ret_running,
                                                uint32_t *ret_waiting)
{
    uint64_t n;
    PyObject *method = pm_read_attr(scheduler, &n_counts);
    PyObject *counts = method != NULL ? PyObject_CallNoArgs(method) : NULL;
    pm_guard_discard();
    if (!two_numbers(counts, ret_running, ret_waiting)) {
        *ret_running = pm_read_len(scheduler, &n_running, &n) ? (uint32_t)n : 0;
        *ret_waiting = pm_read_len(scheduler, &waits[0], &n) ? (uint32_t)n : 0;
    }
    Py_XDECREF(counts);
    Py_XDECREF(method);
}

void pm_queue_counts(PyObject *scheduler, struct pm_queue_counts *known, uint32_t *ret_running,
                     uint32_t *ret_waiting)
{
    if (__builtin_expect(known->how == UNKNOWN, 0))
        learn(scheduler, known);
    if (known->how != READ || !read_lengths(scheduler, known->queues, ret_running, ret_waiting))
        ask(scheduler, ret_running, ret_waiting);
}
