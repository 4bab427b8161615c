/*
 * A hooked coroutine under way: stands for the coroutine that an `async def` function returned, and
 * ends the call when that does: when it returns or raises, is closed, or is dropped.
 *
 * Made by the wrapper's call; driven by whoever awaits it, on any thread, with the GIL held. While
 * it is driven it holds the OUTERMOST groups that its call took, and not in between: other tasks of
 * the same thread are no nested calls.
 */
#include "hook/passage.h"

struct awaitable {
    PyObject_HEAD PyObject *inner; /* the coroutine */
    struct pm_wrapper *wrapper;
    bool open;       /* the leaves are due */
    PyObject **args; /* copies, owned: what passage.call.args points to */
    size_t n_args;   /* keyword values included */
    struct pm_passage passage;
    PyObject *weakrefs;
};

bool pm_is_coroutine(PyObject *object)
{
    if (!PyType_GetSlot(Py_TYPE(object), Py_am_await))
        return false;
    static const char *const needed[] = {"send", "throw", "close"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        PyObject *method = pm_attr(object, needed[i]);
        Py_XDECREF(method);
        if (!method) {
            PyErr_Clear();
            return false;
        }
    }
    return true;
}

static void drop_args(struct awaitable *self)
{
    size_t n_args = self->n_args;
    PyObject **args = self->args;
    self->args = NULL;
    self->n_args = 0;
    for (size_t i = 0; i < n_args; i++)
        Py_DECREF(args[i]);
    PyMem_Free(args);
    Py_CLEAR(self->passage.call.kwnames);
}

/* Ends the call. Returns what the awaiting one is to get: result, or NULL with an exception. */
static PyObject *finish(struct awaitable *self, PyObject *result)
{
    if (!self->open)
        return result;
    self->open = false;
    struct pm_guard_thread *here = pm_passage_here();
    self->passage.grouped = 0;
    if (!here->inside) /* it may be dropped, by the collector, within a half */
        result = pm_passage_leave(self->wrapper, here, &self->passage, result);
    drop_args(self);
    return result;
}

/* Whether the coroutine is over, after it raised: it may have refused only (it runs already). */
static bool is_over(struct awaitable *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *running = pm_attr(self->inner, "cr_running");
    bool over = running != Py_True;
    Py_XDECREF(running);
    PyErr_Restore(type, value, traceback);
    return over;
}

/* Holds the call's groups while the coroutine runs; returns those that this took. */
static uint32_t hold(struct awaitable *self, struct pm_guard_thread *here)
{
    uint32_t taken = 0;
    for (uint32_t left = self->passage.grouped; left; left &= left - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(left);
        uint8_t group = self->wrapper->slots[i].group;
        if (here->depth[group])
            continue;
        here->depth[group] = 1;
        taken |= 1u << i;
    }
    return taken;
}

static void let_go(struct awaitable *self, struct pm_guard_thread *here, uint32_t taken)
{
    for (; taken; taken &= taken - 1)
        here->depth[self->wrapper->slots[__builtin_ctz(taken)].group] = 0;
}

static PySendResult awaitable_am_send(PyObject *object, PyObject *arg, PyObject **ret_result)
{
    struct awaitable *self = (struct awaitable *)object;
    struct pm_guard_thread *here = pm_passage_here();
    uint32_t taken = hold(self, here);
    PySendResult sent = PyIter_Send(self->inner, arg, ret_result);
    let_go(self, here, taken);
    if (sent == PYGEN_RETURN) {
        *ret_result = finish(self, *ret_result);
        return *ret_result ? PYGEN_RETURN : PYGEN_ERROR;
    }
    if (sent == PYGEN_ERROR && is_over(self))
        finish(self, NULL);
    return sent;
}

/* The result of send() and __next__: a value, or StopIteration with what the coroutine returned. */
static PyObject *send(PyObject *self, PyObject *arg)
{
    PyObject *value = NULL;
    PySendResult sent = awaitable_am_send(self, arg, &value);
    if (sent != PYGEN_RETURN)
        return sent == PYGEN_NEXT ? value : NULL;
    /* Made by a call: PyErr_SetObject would take a tuple apart and an exception for itself. */
    PyObject *stop = value == Py_None
                         ? PyObject_CallFunctionObjArgs(PyExc_StopIteration, NULL)
                         : PyObject_CallFunctionObjArgs(PyExc_StopIteration, value, NULL);
    Py_DECREF(value);
    if (stop)
        PyErr_SetObject(PyExc_StopIteration, stop);
    Py_XDECREF(stop);
    return NULL;
}

static PyObject *awaitable_next(PyObject *self)
{
    return send(self, Py_None);
}

/* throw(…) and close() may end the coroutine by returning (close), by StopIteration with its value,
 * or by raising. */
static PyObject *awaitable_throw(PyObject *object, PyObject *args)
{
    struct awaitable *self = (struct awaitable *)object;
    struct pm_guard_thread *here = pm_passage_here();
    PyObject *throw = pm_attr(self->inner, "throw");
    if (!throw)
        return NULL;
    uint32_t taken = hold(self, here);
    PyObject *result = PyObject_CallObject(throw, args);
    let_go(self, here, taken);
    Py_DECREF(throw);
    if (result || !self->open || !is_over(self))
        return result;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        finish(self, NULL);
        return NULL;
    }
    PyObject *type, *stop, *traceback, *value = NULL;
    PyErr_Fetch(&type, &stop, &traceback);
    PyErr_NormalizeException(&type, &stop, &traceback);
    value = stop ? pm_attr(stop, "value") : NULL;
    if (!value) {
        PyErr_Clear();
        Py_INCREF(Py_None);
        value = Py_None;
    }
    value = finish(self, value);
    if (value) {
        Py_DECREF(value);
        PyErr_Restore(type, stop, traceback);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(stop);
        Py_XDECREF(traceback);
    }
    return NULL;
}

static PyObject *awaitable_close(PyObject *object, PyObject *unused)
{
    struct awaitable *self = (struct awaitable *)object;
    struct pm_guard_thread *here = pm_passage_here();
    (void)unused;
    uint32_t taken = hold(self, here);
    PyObject *close = pm_attr(self->inner, "close");
    PyObject *result = close ? PyObject_CallFunctionObjArgs(close, NULL) : NULL;
    Py_XDECREF(close);
    let_go(self, here, taken);
    if (!self->open || (!result && !is_over(self)))
        return result;
    /* Closed: the call has no result. finish() with an exception set leaves it as it is. */
    finish(self, NULL);
    if (PyErr_Occurred())
        Py_CLEAR(result);
    return result;
}

/* `await`: the interpreter refuses a coroutine that somebody else is awaiting, before it sends. */
static PyObject *awaitable_await(PyObject *object)
{
    struct awaitable *self = (struct awaitable *)object;
    PyObject *awaits = pm_attr(self->inner, "cr_await");
    if (awaits && awaits != Py_None)
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
    else if (!awaits && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear(); /* somebody's own kind of coroutine */
    Py_XDECREF(awaits);
    if (PyErr_Occurred())
        return NULL;
    Py_INCREF(object);
    return object;
}

static PyObject *awaitable_itself(PyObject *self)
{
    Py_INCREF(self);
    return self;
}

static PyObject *awaitable_getattr(PyObject *self, PyObject *name)
{
    return pm_stand_in_getattr(self, name, ((struct awaitable *)self)->inner);
}

static int awaitable_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(((struct awaitable *)self)->inner, name, value);
}

static PyObject *awaitable_get_class(PyObject *self, void *closure)
{
    (void)closure;
    return pm_attr(((struct awaitable *)self)->inner, "__class__");
}

static PyObject *awaitable_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<hooked %R>", ((struct awaitable *)self)->inner);
}

static int awaitable_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct awaitable *self = (struct awaitable *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->inner);
    Py_VISIT(self->wrapper);
    Py_VISIT(self->passage.call.kwnames);
    for (size_t i = 0; i < self->n_args; i++)
        Py_VISIT(self->args[i]);
    return 0;
}

/* Dropped before its end: the call has no result. */
static void awaitable_finalize(PyObject *object)
{
    struct awaitable *self = (struct awaitable *)object;
    if (!self->open)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    finish(self, NULL);
    pm_guard_discard();
    PyErr_Restore(type, value, traceback);
}

static int awaitable_clear(PyObject *object)
{
    struct awaitable *self = (struct awaitable *)object;
    self->open = false;
    drop_args(self);
    return 0;
}

static void awaitable_dealloc(PyObject *object)
{
    struct awaitable *self = (struct awaitable *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    awaitable_finalize(object); /* nobody sees the object in it, so that it cannot come back */
    if (self->weakrefs)
        PyObject_ClearWeakRefs(object);
    awaitable_clear(object);
    Py_CLEAR(self->inner);
    Py_CLEAR(self->wrapper);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

PyObject *pm_awaitable_new(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                           struct pm_passage *passage, PyObject *inner)
{
    const struct pm_call *call = &passage->call;
    size_t n_args = (size_t)(call->nargs + (call->kwnames ? PyTuple_Size(call->kwnames) : 0));
    PyObject **args = PyMem_Malloc((n_args + 1) * sizeof *args);
    struct awaitable *self = NULL;
    if (args)
        self = (struct awaitable *)PyType_GenericAlloc((PyTypeObject *)wrapper->awaitable_type, 0);
    if (!self) {
        PyMem_Free(args);
        PyErr_Clear();
        return pm_passage_leave(wrapper, here, passage, inner);
    }
    self->inner = inner;
    Py_INCREF(wrapper);
    self->wrapper = wrapper;
    for (size_t i = 0; i < n_args; i++) {
        Py_INCREF(call->args[i]);
        args[i] = call->args[i];
    }
    self->args = args;
    self->n_args = n_args;
    self->passage = *passage;
    self->passage.call.args = args;
    Py_XINCREF(call->kwnames);
    self->open = true;
    return (PyObject *)self;
}

PyObject *pm_awaitable_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    struct pm_wrapper *wrapper = (struct pm_wrapper *)self;
    struct pm_guard_thread *here = pm_passage_here();
    if (pm_passage_closed(wrapper, here))
        return pm_call_original(wrapper, args, nargsf, kwnames);

    struct pm_passage passage;
    memset(&passage, 0, sizeof passage); /* it is copied whole */
    passage.call.args = args;
    passage.call.nargs = PM_VECTORCALL_NARGS(nargsf);
    passage.call.kwnames = kwnames;
    pm_passage_enter(wrapper, here, &passage);
    if (here->interrupted)
        return pm_passage_leave(wrapper, here, &passage, NULL);
    PyObject *result = pm_call_original(wrapper, args, nargsf, kwnames);
    if (passage.entered && result && (wrapper->coroutine_sure || pm_is_coroutine(result))) {
        pm_passage_ungroup(wrapper, here, &passage);
        return pm_awaitable_new(wrapper, here, &passage, result);
    }
    if (passage.entered)
        return pm_passage_leave(wrapper, here, &passage, result);
    pm_passage_ungroup(wrapper, here, &passage);
    return result;
}

static PyMemberDef awaitable_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct awaitable, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef awaitable_getset[] = {
    {"__class__", awaitable_get_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef awaitable_methods[] = {
    {"send", send, METH_O, NULL},
    {"throw", awaitable_throw, METH_VARARGS, NULL},
    {"close", awaitable_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_am_await, (void *)awaitable_await},
    {Py_am_send, (void *)awaitable_am_send},
    {Py_tp_iter, (void *)awaitable_itself},
    {Py_tp_iternext, (void *)awaitable_next},
    {Py_tp_getattro, (void *)awaitable_getattr},
    {Py_tp_setattro, (void *)awaitable_setattr},
    {Py_tp_repr, (void *)awaitable_repr},
    {Py_tp_traverse, (void *)awaitable_traverse},
    {Py_tp_clear, (void *)awaitable_clear},
    {Py_tp_finalize, (void *)awaitable_finalize},
    {Py_tp_dealloc, (void *)awaitable_dealloc},
    {Py_tp_members, awaitable_members},
    {Py_tp_getset, awaitable_getset},
    {Py_tp_methods, awaitable_methods},
    {0, NULL},
};

PyType_Spec pm_awaitable_spec = {
    .name = "profilemate.HookedCoroutine",
    .basicsize = sizeof(struct awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_IMMUTABLETYPE |
             PM_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaitable_slots,
};
