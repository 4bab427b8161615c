/*
 * How a wrapper looks to Python code: as the original. Attributes are read from and written to the
 * original, binding is the original's, pickling is by name. (The calls are in wrapper.c.)
 *
 * Writing through keeps the program as it would be without hooks: an attribute set on a method is
 * seen by whoever holds the original, and stays when the hook goes.
 */
#include "hook/passage.h"

static bool is_name(PyObject *name, const char *text)
{
    return PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, text) == 0;
}

PyObject *pm_attr(PyObject *object, const char *name)
{
    PyObject *key = PyUnicode_InternFromString(name);
    PyObject *value = key ? PyObject_GetAttr(object, key) : NULL;
    Py_XDECREF(key);
    return value;
}

PyObject *pm_stand_in_getattr(PyObject *self, PyObject *name, PyObject *inner)
{
    /* Every type has these two in its own dict, where they speak of the type. */
    if (is_name(name, "__module__") || is_name(name, "__doc__"))
        return PyObject_GetAttr(inner, name);
    PyObject *value = PyObject_GenericGetAttr(self, name);
    if (value || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return value;
    PyErr_Clear();
    return PyObject_GetAttr(inner, name);
}

static PyObject *wrapper_getattr(PyObject *self, PyObject *name)
{
    return pm_stand_in_getattr(self, name, ((struct pm_wrapper *)self)->original);
}

static int wrapper_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    PyObject *original = ((struct pm_wrapper *)self)->original;
    /* functools.update_wrapper(wrapper, original) must not make the original its own __wrapped__,
     * which inspect.unwrap would follow for ever. */
    if (value == original && is_name(name, "__wrapped__"))
        return 0;
    return PyObject_SetAttr(original, name, value);
}

static PyObject *wrapper_get_wrapped(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *original = ((struct pm_wrapper *)self)->original;
    Py_INCREF(original);
    return original;
}

static PyObject *wrapper_get_class(PyObject *self, void *closure)
{
    (void)closure;
    return pm_attr(((struct pm_wrapper *)self)->original, "__class__");
}

static PyObject *wrapper_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<hooked %R>", ((struct pm_wrapper *)self)->original);
}

static PyObject *wrapper_dir(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *list = PyObject_Dir(((struct pm_wrapper *)self)->original);
    if (!list)
        return NULL;
    PyObject *name = PyUnicode_InternFromString("__wrapped__");
    if (name && PySequence_Contains(list, name) == 0)
        PyList_Append(list, name);
    Py_XDECREF(name);
    PyErr_Clear(); /* without memory the list is one short */
    return list;
}

/* A name, so that pickle looks it up; where there is none, whatever the original gives. */
static PyObject *wrapper_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *original = ((struct pm_wrapper *)self)->original, *name = NULL;
    PyObject *module = pm_attr(original, "__module__");
    if (module && PyUnicode_Check(module))
        name = pm_attr(original, "__qualname__");
    Py_XDECREF(module);
    if (name && PyUnicode_Check(name))
        return name;
    Py_XDECREF(name);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_AttributeError))
        return NULL;
    PyErr_Clear();
    return PyObject_CallMethod(original, "__reduce_ex__", "i", 2);
}

static PyObject *wrapper_itself(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_INCREF(self);
    return self;
}

/* obj.method: a method object whose __func__ is the wrapper. */
static PyObject *method_get(PyObject *self, PyObject *obj, PyObject *type)
{
    (void)type;
    if (obj && obj != Py_None)
        return PyMethod_New(self, obj);
    Py_INCREF(self);
    return self;
}

/* The original's own binding, with the hooks round what it gives. */
static PyObject *callable_get(PyObject *self, PyObject *obj, PyObject *type)
{
    struct pm_wrapper *wrapper = (struct pm_wrapper *)self;
    descrgetfunc get = (descrgetfunc)PyType_GetSlot(Py_TYPE(wrapper->original), Py_tp_descr_get);
    PyObject *inner = wrapper->original;
    if (get) {
        inner = get(wrapper->original, obj, type);
        if (!inner)
            return NULL;
    } else
        Py_INCREF(inner);
    if (inner != wrapper->original) {
        PyObject *bound = pm_bound_new(wrapper, inner, obj == Py_None ? NULL : obj);
        Py_DECREF(inner);
        return bound;
    }
    Py_DECREF(inner);
    Py_INCREF(self);
    return self;
}

/* There is no tp_clear: what a wrapper holds is older than itself, so that every cycle passes
 * through something that can be cleared, and a wrapper can be called to the end. */
static int wrapper_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pm_wrapper *wrapper = (struct pm_wrapper *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(wrapper->original);
    Py_VISIT(wrapper->raw);
    Py_VISIT(wrapper->bound_type);
    Py_VISIT(wrapper->awaitable_type);
    return 0;
}

static void wrapper_dealloc(PyObject *self)
{
    struct pm_wrapper *wrapper = (struct pm_wrapper *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (wrapper->weakrefs)
        PyObject_ClearWeakRefs(self);
    Py_CLEAR(wrapper->raw);
    Py_CLEAR(wrapper->original);
    Py_CLEAR(wrapper->bound_type);
    Py_CLEAR(wrapper->awaitable_type);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMemberDef wrapper_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct pm_wrapper, vectorcall), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct pm_wrapper, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef wrapper_getset[] = {
    {"__wrapped__", wrapper_get_wrapped, NULL, NULL, NULL},
    {"__class__", wrapper_get_class, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef wrapper_methods[] = {
    {"__dir__", wrapper_dir, METH_NOARGS, NULL},
    {"__reduce__", wrapper_reduce, METH_NOARGS, NULL},
    {"__copy__", wrapper_itself, METH_NOARGS, NULL},
    {"__deepcopy__", wrapper_itself, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#define WRAPPER_SLOTS(get)                                                                         \
    {Py_tp_call, (void *)PyVectorcall_Call}, {Py_tp_descr_get, (void *)(get)},                     \
        {Py_tp_getattro, (void *)wrapper_getattr}, {Py_tp_setattro, (void *)wrapper_setattr},      \
        {Py_tp_repr, (void *)wrapper_repr}, {Py_tp_traverse, (void *)wrapper_traverse},            \
        {Py_tp_dealloc, (void *)wrapper_dealloc}, {Py_tp_members, wrapper_members},                \
        {Py_tp_getset, wrapper_getset}, {Py_tp_methods, wrapper_methods},                          \
    {                                                                                              \
        0, NULL                                                                                    \
    }

static PyType_Slot method_slots[] = {WRAPPER_SLOTS(method_get)};
static PyType_Slot callable_slots[] = {WRAPPER_SLOTS(callable_get)};

#define WRAPPER_FLAGS                                                                              \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_HAVE_VECTORCALL |                        \
     PM_TPFLAGS_IMMUTABLETYPE | PM_TPFLAGS_DISALLOW_INSTANTIATION)

static PyType_Spec method_spec = {
    .name = "profilemate.HookedMethod",
    .basicsize = sizeof(struct pm_wrapper),
    .flags = WRAPPER_FLAGS | PM_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = method_slots,
};

static PyType_Spec callable_spec = {
    .name = "profilemate.HookedCallable",
    .basicsize = sizeof(struct pm_wrapper),
    .flags = WRAPPER_FLAGS,
    .slots = callable_slots,
};

int pm_wrapper_types_init(PyObject *module, struct pm_wrapper_types *ret_types)
{
    struct pm_wrapper_types types = {
        .method = PyType_FromModuleAndSpec(module, &method_spec, NULL),
        .callable = PyType_FromModuleAndSpec(module, &callable_spec, NULL),
        .bound = PyType_FromModuleAndSpec(module, &pm_bound_spec, NULL),
        .awaitable = PyType_FromModuleAndSpec(module, &pm_awaitable_spec, NULL),
    };
    if (!types.method || !types.callable || !types.bound || !types.awaitable) {
        pm_wrapper_types_clear(&types);
        return -1;
    }
    *ret_types = types;
    return 0;
}

int pm_wrapper_types_visit(struct pm_wrapper_types *types, visitproc visit, void *arg)
{
    Py_VISIT(types->method);
    Py_VISIT(types->callable);
    Py_VISIT(types->bound);
    Py_VISIT(types->awaitable);
    return 0;
}

void pm_wrapper_types_clear(struct pm_wrapper_types *types)
{
    Py_CLEAR(types->method);
    Py_CLEAR(types->callable);
    Py_CLEAR(types->bound);
    Py_CLEAR(types->awaitable);
}
