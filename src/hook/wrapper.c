/*
 * The wrapper's calls and its life (see wrapper.h): made and filled by the installer, called on any
 * thread with the GIL held. How it looks to Python code is in stand_in.c.
 */
#include "hook/wrapper.h"

#include "hook/passage.h"

/* What a call that a probe's `quick` counted is taken to have cost us: a clock would cost more.
 * (bench/bench_graph.py measures it.) */
#define QUICK_NS 5

/* The interpreter that hooks belong to: probes keep objects of it in C statics. */
static int64_t owner = -1;

PyObject *pm_vectorcall_slow(PyObject *callable, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames)
{
    pm_vectorcall_fn function = pm_vectorcall_of(callable);
    if (function)
        return function(callable, args, nargsf, kwnames);
    Py_ssize_t nargs = PM_VECTORCALL_NARGS(nargsf), nkw = kwnames ? PyTuple_Size(kwnames) : 0;
    PyObject *result = NULL, *dict = NULL, *tuple = PyTuple_New(nargs);
    if (!tuple)
        return NULL;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(tuple, i, args[i]);
    }
    if (nkw) {
        dict = PyDict_New();
        if (!dict)
            goto out;
        for (Py_ssize_t i = 0; i < nkw; i++)
            if (PyDict_SetItem(dict, PyTuple_GetItem(kwnames, i), args[nargs + i]) < 0)
                goto out;
    }
    result = PyObject_Call(callable, tuple, dict);
out:
    Py_XDECREF(dict);
    Py_DECREF(tuple);
    return result;
}

/* The call raised, or an enter was interrupted before it: the leaves run outside of that exception,
 * which then goes on just as it was. */
__attribute__((noinline, cold)) PyObject *pm_passage_leave_failed(struct pm_wrapper *wrapper,
                                                                  struct pm_guard_thread *here,
                                                                  struct pm_passage *passage)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    passage->call.result = NULL;
    passage->call.raised = type;
    pm_passage_halves(wrapper, here, passage);
    wrapper->calls++;
    if (--wrapper->countdown == 0)
        pm_passage_after(wrapper, here, passage);
    PyErr_Restore(type, value, traceback);
    if (here->interrupted)
        pm_guard_deliver(here);
    return NULL;
}

/* Due at the calls 1, 2, 4, … 64 of a wrapper and at every 64th, and at each one while some target
 * has not been seen to fire: adds to the counts, and measures our own time. */
__attribute__((noinline, cold)) void pm_passage_after(struct pm_wrapper *wrapper,
                                                      struct pm_guard_thread *here,
                                                      const struct pm_passage *passage)
{
    const struct pm_call *call = &passage->call;
    uint64_t calls = wrapper->calls, ns = 0;
    (void)here;
    if (calls % PM_GUARD_SAMPLE == 0) {
        uint64_t now_ns = pm_clock_now_ns();
        ns = call->start_ns - call->enter_ns + now_ns - call->end_ns;
    }
    bool due = (calls & (calls - 1)) == 0 || ns;
    if (due) {
        const uint64_t quick = wrapper->quick_calls - wrapper->quick_counted;
        pm_guard_count(calls - wrapper->counted + quick, ns * PM_GUARD_SAMPLE + quick * QUICK_NS);
        wrapper->counted = calls;
        wrapper->quick_counted = wrapper->quick_calls;
    }
    if (!wrapper->first_ns)
        wrapper->first_ns = call->enter_ns;
    bool waiting = false;
    for (uint32_t i = 0; i < wrapper->n_slots; i++) {
        struct pm_slot *slot = &wrapper->slots[i];
        if (slot->fired || slot->removed || !atomic_load(&slot->state->armed))
            continue;
        if (passage->entered & 1u << i) {
            slot->fired = true;
            pm_guard_fire(slot->state, slot->target, call->start_ns);
        } else
            waiting = true;
    }
    if (waiting)
        wrapper->countdown = 1;
    else
        wrapper->countdown = (uint32_t)(PM_GUARD_SAMPLE - calls % PM_GUARD_SAMPLE);
    if (!waiting && calls < PM_GUARD_SAMPLE) {
        uint64_t next = 1;
        while (next <= calls)
            next *= 2;
        wrapper->countdown = (uint32_t)(next - calls);
    }
}

static PyObject *wrapper_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf,
                                    PyObject *kwnames)
{
    struct pm_wrapper *wrapper = (struct pm_wrapper *)self;
    struct pm_guard_thread *here = pm_passage_here();
    if (pm_unlikely(pm_passage_closed(wrapper, here)))
        return pm_call_original(wrapper, args, nargsf, kwnames);
    if (pm_passage_quick(wrapper, args, nargsf))
        return pm_call_original(wrapper, args, nargsf, kwnames);

    struct pm_passage passage;
    passage.call.args = args;
    passage.call.nargs = PM_VECTORCALL_NARGS(nargsf);
    passage.call.kwnames = kwnames;
    pm_passage_enter(wrapper, here, &passage);
    if (pm_unlikely(here->interrupted))
        return pm_passage_leave(wrapper, here, &passage, NULL);
    PyObject *result = pm_call_original(wrapper, args, nargsf, kwnames);
    if (pm_unlikely(!passage.entered)) {
        pm_passage_ungroup(wrapper, here, &passage);
        return result;
    }
    return pm_passage_leave(wrapper, here, &passage, result);
}

/* Whether the callable is an `async def` function, or says so by its __code__. */
static bool is_coroutine_function(PyObject *callable)
{
    PyObject *code = NULL, *flags = NULL;
    long bits = 0;
    PyObject *name = PyUnicode_InternFromString("__code__");
    if (name && pm_attr_optional(callable, name, &code) > 0)
        flags = pm_attr(code, "co_flags");
    if (flags && PyLong_Check(flags))
        bits = PyLong_AsLong(flags);
    Py_XDECREF(flags);
    Py_XDECREF(code);
    Py_XDECREF(name);
    PyErr_Clear(); /* an exotic object: an ordinary callable then */
    return bits & PM_CO_COROUTINE;
}

static bool is_static_or_class_method(PyObject *object)
{
    return PyType_IsSubtype(Py_TYPE(object), &PyStaticMethod_Type) ||
           PyType_IsSubtype(Py_TYPE(object), &PyClassMethod_Type);
}

/* A wrapper of a callable; raw is the attribute that it stands for. */
static PyObject *new_wrapper(struct pm_wrapper_types *types, PyObject *original, PyObject *raw)
{
    if (PyType_Check(original) || !PyCallable_Check(original) ||
        PyType_GetSlot(Py_TYPE(original), Py_tp_descr_set)) {
        PyErr_Format(PyExc_TypeError, "cannot hook %R: not a function or method", original);
        return NULL;
    }
    bool function = Py_TYPE(original) == &PyFunction_Type;
    bool binds = function || (PyType_GetFlags(Py_TYPE(original)) & PM_TPFLAGS_METHOD_DESCRIPTOR);
    PyObject *type = binds ? types->method : types->callable;
    struct pm_wrapper *wrapper = (struct pm_wrapper *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (!wrapper)
        return NULL;
    Py_INCREF(original);
    wrapper->original = original;
    Py_INCREF(raw);
    wrapper->raw = raw;
    Py_INCREF(types->bound);
    wrapper->bound_type = types->bound;
    Py_INCREF(types->awaitable);
    wrapper->awaitable_type = types->awaitable;
    wrapper->countdown = 1;
    wrapper->coroutine = is_coroutine_function(original);
    wrapper->coroutine_sure = wrapper->coroutine && function;
    wrapper->vectorcall = wrapper->coroutine ? pm_awaitable_vectorcall : wrapper_vectorcall;
    if (function || Py_TYPE(original) == &PyCFunction_Type ||
        Py_TYPE(original) == &PyMethodDescr_Type)
        wrapper->direct = pm_vectorcall_of(original);
    return (PyObject *)wrapper;
}

/* What somebody set on a static or class method itself. */
static void copy_own_attributes(PyObject *from, PyObject *to)
{
    PyObject *source = pm_attr(from, "__dict__");
    PyObject *target = source ? pm_attr(to, "__dict__") : NULL;
    if (target)
        PyDict_Update(target, source);
    Py_XDECREF(target);
    Py_XDECREF(source);
    PyErr_Clear();
}

PyObject *pm_wrapper_new(struct pm_wrapper_types *types, PyObject *original)
{
    int64_t interpreter = PyInterpreterState_GetID(PyInterpreterState_Get());
    if (owner < 0)
        owner = interpreter;
    if (owner != interpreter) {
        PyErr_SetString(PyExc_RuntimeError, "hooks belong to another interpreter of this process");
        return NULL;
    }
    if (!types->method) {
        PyErr_SetString(PyExc_RuntimeError, "the module is being unloaded");
        return NULL;
    }
    if (!is_static_or_class_method(original))
        return new_wrapper(types, original, original);

    PyObject *function = pm_attr(original, "__func__"), *wrapper = NULL;
    PyObject *descriptor = NULL;
    if (function)
        wrapper = new_wrapper(types, function, original);
    if (wrapper)
        descriptor = PyObject_CallFunctionObjArgs((PyObject *)Py_TYPE(original), wrapper, NULL);
    if (descriptor)
        copy_own_attributes(original, descriptor);
    Py_XDECREF(wrapper);
    Py_XDECREF(function);
    return descriptor;
}

/* The wrapper that object is or, as a static or class method, holds: borrowed, NULL if none. */
static struct pm_wrapper *wrapper_of(const struct pm_wrapper_types *types, PyObject *object)
{
    if (!object || !types->method)
        return NULL;
    PyObject *type = (PyObject *)Py_TYPE(object);
    if (type == types->method || type == types->callable)
        return (struct pm_wrapper *)object;
    if (!is_static_or_class_method(object))
        return NULL;
    PyObject *function = pm_attr(object, "__func__");
    if (!function) {
        PyErr_Clear();
        return NULL;
    }
    type = (PyObject *)Py_TYPE(function);
    Py_DECREF(function); /* the descriptor holds it */
    bool ours = type == types->method || type == types->callable;
    return ours ? (struct pm_wrapper *)function : NULL;
}

bool pm_wrapper_check(const struct pm_wrapper_types *types, PyObject *object)
{
    return wrapper_of(types, object) != NULL;
}

PyObject *pm_wrapper_original(const struct pm_wrapper_types *types, PyObject *object)
{
    struct pm_wrapper *wrapper = wrapper_of(types, object);
    return wrapper ? wrapper->raw : NULL;
}

/* The quick way is only for a callable that nobody else looks at. */
static void set_quick(struct pm_wrapper *wrapper)
{
    wrapper->quick = NULL;
    for (uint32_t i = 0; wrapper->n_live == 1 && i < wrapper->n_slots; i++) {
        const struct pm_slot *slot = &wrapper->slots[i];
        if (!slot->removed && (slot->target->flags & PM_TARGET_QUICK))
            wrapper->quick = slot->state->probe->quick;
    }
}

int pm_wrapper_add(const struct pm_wrapper_types *types, PyObject *object,
                   struct pm_probe_state *state, const struct pm_target *target)
{
    struct pm_wrapper *wrapper = wrapper_of(types, object);
    if (!wrapper || target->kind == PM_TARGET_MODULE) {
        PyErr_SetString(PyExc_TypeError, "not a hooked callable");
        return -1;
    }
    uint32_t i = 0;
    while (i < wrapper->n_slots &&
           (wrapper->slots[i].state != state || wrapper->slots[i].target != target))
        i++;
    struct pm_slot *slot = &wrapper->slots[i];
    if (i < wrapper->n_slots && !slot->removed)
        return 0;
    if (i == PM_WRAPPER_TARGETS) {
        PyErr_Format(PyExc_RuntimeError, "%d targets on one callable are the most", i);
        return -1;
    }
    if (i == wrapper->n_slots) {
        slot->state = state;
        slot->target = target;
        slot->enter = target->enter;
        slot->leave = target->leave;
        slot->group = pm_guard_group(state, target);
        wrapper->n_slots++;
    }
    slot->removed = false;
    wrapper->n_live++;
    wrapper->countdown = 1;
    set_quick(wrapper);
    return 0;
}

size_t pm_wrapper_remove(const struct pm_wrapper_types *types, PyObject *object,
                         const struct pm_probe_state *state)
{
    struct pm_wrapper *wrapper = wrapper_of(types, object);
    if (!wrapper)
        return 0;
    for (uint32_t i = 0; i < wrapper->n_slots; i++) {
        struct pm_slot *slot = &wrapper->slots[i];
        if (slot->removed || (state && slot->state != state))
            continue;
        slot->removed = true;
        wrapper->n_live--;
    }
    set_quick(wrapper);
    return wrapper->n_live;
}

void pm_wrapper_counts(const struct pm_wrapper_types *types, PyObject *object,
                       struct pm_wrapper_counts *ret_counts)
{
    struct pm_wrapper *wrapper = wrapper_of(types, object);
    memset(ret_counts, 0, sizeof *ret_counts);
    if (!wrapper)
        return;
    ret_counts->calls = wrapper->calls;
    ret_counts->first_ns = wrapper->first_ns;
    ret_counts->targets = wrapper->n_live;
}
