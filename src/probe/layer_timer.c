/* See layer_timer.h. */
#include "probe/layer_timer.h"

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "probe/layer_sums.h"

struct timer {
    PyObject_HEAD pm_vectorcall_fn vectorcall; /* see __vectorcalloffset__ */
    PyObject *method;                          /* what is called */
    PyObject *before; /* what lay in the instance's __dict__; NULL: nothing */
    PyObject *weakrefs;
    uint32_t cell, epoch;
    bool root;
};

static struct pm_name n_forward = PM_NAME("forward");
static struct pm_name n_dict = PM_NAME("__dict__");

static PyObject *timer_type; /* made on first use; owned */

/* ---- a call ---------------------------------------------------------------------------------- */

/* Every PM_GUARD_SAMPLE-th call is measured, and stands for the others: what both borders took
 * beyond the reading of the clock that the time ends with. */
static void tell_cost(uint64_t entered_ns, uint64_t begun_ns, uint64_t ended_ns)
{
    pm_guard_count(PM_GUARD_SAMPLE,
                   (begun_ns - entered_ns + pm_clock_now_ns() - ended_ns) * PM_GUARD_SAMPLE);
}

static PyObject *timed_call(struct timer *timer, PyObject *const *args, size_t nargsf,
                            PyObject *kwnames)
{
    static uint32_t n_calls;
    const uint64_t entered_ns = pm_clock_now_ns();
    if (!pm_layer_enter(timer->cell, timer->root, entered_ns))
        return pm_vectorcall(timer->method, args, nargsf, kwnames);
    const bool sampled = ++n_calls % PM_GUARD_SAMPLE == 0;
    const uint64_t begun_ns = sampled ? pm_clock_now_ns() : 0;
    const uint32_t epoch = pm_layer_now.epoch;
    PyObject *self = (PyObject *)timer;
    Py_INCREF(self); /* it may be taken out meanwhile */
    PyObject *result = pm_vectorcall(timer->method, args, nargsf, kwnames);
    if (epoch == pm_layer_now.epoch) {
        const uint64_t ended_ns = pm_clock_now_ns();
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        pm_layer_leave(ended_ns);
        PyErr_Restore(type, value, traceback);
        if (sampled)
            tell_cost(entered_ns, begun_ns, ended_ns);
    }
    Py_DECREF(self);
    return result;
}

static PyObject *timer_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames)
{
    struct timer *timer = (struct timer *)self;
    if (timer->epoch != pm_layer_now.epoch || !pm_layer_now.in_step || pm_guard_here.inside != 0)
        return pm_vectorcall(timer->method, args, nargsf, kwnames);
    return timed_call(timer, args, nargsf, kwnames);
}

/* ---- how it looks ---------------------------------------------------------------------------- */

/* Its own are only the way to the method and what makes copies; all else is the method's. */
static PyObject *timer_getattr(PyObject *self, PyObject *name)
{
    static const char *const own[] = {"__wrapped__", "__deepcopy__", "__reduce_ex__"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (PyUnicode_CompareWithASCIIString(name, own[i]) == 0)
            return PyObject_GenericGetAttr(self, name);
    return PyObject_GetAttr(((struct timer *)self)->method, name);
}

static int timer_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    return PyObject_SetAttr(((struct timer *)self)->method, name, value);
}

static PyObject *timer_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<timed %R>", ((struct timer *)self)->method);
}

static PyObject *timer_wrapped(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *method = ((struct timer *)self)->method;
    Py_INCREF(method);
    return method;
}

static PyObject *timer_reduce(PyObject *self, PyObject *protocol)
{
    return PyObject_CallMethod(((struct timer *)self)->method, "__reduce_ex__", "O", protocol);
}

/* copy.deepcopy(method, memo): the method of the copied module. */
static PyObject *timer_deepcopy(PyObject *self, PyObject *memo)
{
    PyObject *copy = PyImport_ImportModule("copy"), *made = NULL;
    if (copy != NULL)
        made = PyObject_CallMethod(copy, "deepcopy", "OO", ((struct timer *)self)->method, memo);
    Py_XDECREF(copy);
    return made;
}

static int timer_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct timer *timer = (struct timer *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(timer->method);
    Py_VISIT(timer->before);
    return 0;
}

static int timer_clear(PyObject *self)
{
    struct timer *timer = (struct timer *)self;
    /* The method stays: a call may be under way. The cycle goes through the module's __dict__. */
    Py_CLEAR(timer->before);
    return 0;
}

static void timer_dealloc(PyObject *self)
{
    struct timer *timer = (struct timer *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (timer->weakrefs != NULL)
        PyObject_ClearWeakRefs(self);
    Py_CLEAR(timer->method);
    Py_CLEAR(timer->before);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMemberDef timer_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct timer, vectorcall), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct timer, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef timer_getset[] = {
    {"__wrapped__", timer_wrapped, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef timer_methods[] = {
    {"__reduce_ex__", timer_reduce, METH_O, NULL},
    {"__deepcopy__", timer_deepcopy, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_getattro, (void *)timer_getattr},
    {Py_tp_setattro, (void *)timer_setattr},
    {Py_tp_repr, (void *)timer_repr},
    {Py_tp_traverse, (void *)timer_traverse},
    {Py_tp_clear, (void *)timer_clear},
    {Py_tp_dealloc, (void *)timer_dealloc},
    {Py_tp_members, timer_members},
    {Py_tp_getset, timer_getset},
    {Py_tp_methods, timer_methods},
    {0, NULL},
};

static PyType_Spec timer_spec = {
    .name = "profilemate.TimedForward",
    .basicsize = sizeof(struct timer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_HAVE_VECTORCALL |
             PM_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_slots,
};

/* ---- in and out ------------------------------------------------------------------------------ */

/* The instance's own __dict__, a new reference; NULL where it has none. */
static PyObject *own_dict(PyObject *module)
{
    PyObject *dict = pm_read_attr(module, &n_dict);
    if (dict != NULL && !PyDict_Check(dict)) {
        Py_DECREF(dict);
        dict = NULL;
    }
    return dict;
}

bool pm_layer_timer_put(PyObject *module, uint32_t cell, bool root)
{
    PyObject *name = pm_name_object(&n_forward), *dict = own_dict(module);
    PyObject *method = pm_read_attr(module, &n_forward);
    struct timer *timer = NULL;
    bool done = false;

    if (timer_type == NULL)
        timer_type = PyType_FromSpec(&timer_spec);
    if (name == NULL || dict == NULL || method == NULL || timer_type == NULL ||
        !PyCallable_Check(method) || (PyObject *)Py_TYPE(method) == timer_type)
        goto out;
    timer = (struct timer *)PyType_GenericAlloc((PyTypeObject *)timer_type, 0);
    if (timer == NULL)
        goto out;
    timer->before = PyDict_GetItemWithError(dict, name);
    Py_XINCREF(timer->before);
    timer->method = method;
    method = NULL;
    timer->vectorcall = timer_vectorcall;
    timer->cell = cell;
    timer->epoch = pm_layer_now.epoch;
    timer->root = root;
    done = PyDict_SetItem(dict, name, (PyObject *)timer) == 0;
out:
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    Py_XDECREF((PyObject *)timer);
    Py_XDECREF(method);
    Py_XDECREF(dict);
    return done;
}

bool pm_layer_timer_take(PyObject *module)
{
    PyObject *name = pm_name_object(&n_forward), *dict = own_dict(module);
    PyObject *lies = name != NULL && dict != NULL ? PyDict_GetItemWithError(dict, name) : NULL;
    const bool ours = lies != NULL && (PyObject *)Py_TYPE(lies) == timer_type;

    if (ours) {
        PyObject *before = ((struct timer *)lies)->before;
        Py_XINCREF(before);
        if (before != NULL ? PyDict_SetItem(dict, name, before) : PyDict_DelItem(dict, name))
            pm_guard_discard();
        Py_XDECREF(before);
    }
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    Py_XDECREF(dict);
    return ours;
}
