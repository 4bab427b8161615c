/*
 * What a wrapper of somebody's own descriptor binds to: that descriptor's bound object with the
 * hooks round its calls. Plain functions do not come here, they bind to method objects.
 *
 * The probes see the object that it is bound to as args[0], as they do for a method; the bound
 * object gets the arguments as they came.
 */
#include "hook/passage.h"

#define VIEW_MAX 16 /* arguments whose view fits the stack */

struct bound {
    PyObject_HEAD pm_vectorcall_fn vectorcall;
    struct pm_wrapper *wrapper;
    PyObject *inner; /* what the original's __get__ gave */
    PyObject *self;  /* the object, NULL if got from the class */
    PyObject *weakrefs;
};

static PyObject *bound_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    struct bound *bound = (struct bound *)callable;
    struct pm_wrapper *wrapper = bound->wrapper;
    struct pm_guard_thread *here = pm_passage_here();
    if (pm_passage_closed(wrapper, here))
        return pm_vectorcall(bound->inner, args, nargsf, kwnames);

    struct pm_passage passage;
    PyObject *small[VIEW_MAX], **view = small;
    Py_ssize_t nargs = PM_VECTORCALL_NARGS(nargsf);
    passage.call.args = args;
    passage.call.nargs = nargs;
    passage.call.kwnames = kwnames;
    if (bound->self) {
        size_t all = (size_t)(nargs + (kwnames ? PyTuple_Size(kwnames) : 0));
        if (all + 1 > VIEW_MAX)
            view = PyMem_Malloc((all + 1) * sizeof *view);
        if (!view)
            return pm_vectorcall(bound->inner, args, nargsf, kwnames);
        view[0] = bound->self;
        if (all)
            memcpy(view + 1, args, all * sizeof *view);
        passage.call.args = view;
        passage.call.nargs = nargs + 1;
    }
    PyObject *result = NULL;
    pm_passage_enter(wrapper, here, &passage);
    if (!here->interrupted)
        result = pm_vectorcall(bound->inner, args, nargsf, kwnames);
    if (!here->interrupted && !passage.entered)
        pm_passage_ungroup(wrapper, here, &passage);
    else if (result && wrapper->coroutine && pm_is_coroutine(result)) {
        pm_passage_ungroup(wrapper, here, &passage);
        result = pm_awaitable_new(wrapper, here, &passage, result);
    } else
        result = pm_passage_leave(wrapper, here, &passage, result);
    if (view != small)
        PyMem_Free(view);
    return result;
}

static PyObject *bound_getattr(PyObject *self, PyObject *name)
{
    return pm_stand_in_getattr(self, name, ((struct bound *)self)->inner);
}

static int bound_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(((struct bound *)self)->inner, name, value);
}

static PyObject *bound_get_class(PyObject *self, void *closure)
{
    (void)closure;
    return pm_attr(((struct bound *)self)->inner, "__class__");
}

static PyObject *bound_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<hooked %R>", ((struct bound *)self)->inner);
}

static Py_hash_t bound_hash(PyObject *self)
{
    return PyObject_Hash(((struct bound *)self)->inner);
}

static PyObject *bound_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(other) == Py_TYPE(self))
        other = ((struct bound *)other)->inner;
    return PyObject_RichCompare(((struct bound *)self)->inner, other, op);
}

static PyObject *bound_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyObject_CallMethod(((struct bound *)self)->inner, "__reduce_ex__", "i", 2);
}

/* Bound already: binding it again is the inner object's affair, which mostly gives itself. */
static PyObject *bound_get(PyObject *self, PyObject *obj, PyObject *type)
{
    PyObject *inner = ((struct bound *)self)->inner;
    descrgetfunc get = (descrgetfunc)PyType_GetSlot(Py_TYPE(inner), Py_tp_descr_get);
    PyObject *again = get ? get(inner, obj, type) : NULL;
    if (get && again != inner)
        return again;
    Py_XDECREF(again);
    Py_INCREF(self);
    return self;
}

static int bound_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct bound *bound = (struct bound *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(bound->wrapper);
    Py_VISIT(bound->inner);
    Py_VISIT(bound->self);
    return 0;
}

static void bound_dealloc(PyObject *self)
{
    struct bound *bound = (struct bound *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (bound->weakrefs)
        PyObject_ClearWeakRefs(self);
    Py_CLEAR(bound->wrapper);
    Py_CLEAR(bound->inner);
    Py_CLEAR(bound->self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

PyObject *pm_bound_new(struct pm_wrapper *wrapper, PyObject *inner, PyObject *self)
{
    struct bound *bound =
        (struct bound *)PyType_GenericAlloc((PyTypeObject *)wrapper->bound_type, 0);
    if (!bound)
        return NULL;
    Py_INCREF(wrapper);
    bound->wrapper = wrapper;
    Py_INCREF(inner);
    bound->inner = inner;
    Py_XINCREF(self);
    bound->self = self;
    bound->vectorcall = bound_vectorcall;
    return (PyObject *)bound;
}

static PyMemberDef bound_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct bound, vectorcall), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct bound, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef bound_getset[] = {
    {"__class__", bound_get_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef bound_methods[] = {
    {"__reduce__", bound_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot bound_slots[] = {
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_descr_get, (void *)bound_get},
    {Py_tp_getattro, (void *)bound_getattr},
    {Py_tp_setattro, (void *)bound_setattr},
    {Py_tp_repr, (void *)bound_repr},
    {Py_tp_hash, (void *)bound_hash},
    {Py_tp_richcompare, (void *)bound_compare},
    {Py_tp_traverse, (void *)bound_traverse},
    {Py_tp_dealloc, (void *)bound_dealloc},
    {Py_tp_members, bound_members},
    {Py_tp_getset, bound_getset},
    {Py_tp_methods, bound_methods},
    {0, NULL},
};

PyType_Spec pm_bound_spec = {
    .name = "profilemate.HookedBound",
    .basicsize = sizeof(struct bound),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_HAVE_VECTORCALL |
             PM_TPFLAGS_IMMUTABLETYPE | PM_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = bound_slots,
};
