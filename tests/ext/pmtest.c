/*
 * _pmtest: the wrapper (src/hook) with probes whose halves are Python callables, for
 * tests/ext/test_wrapper.py. A stand-in for the recorder keeps what the guard tells it.
 *
 * One interpreter only: it keeps objects in C statics, as the real probes keep facts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "hook/wrapper.h"

#define PROBES 14

/* ---- the recorder's stand-in ---- */

struct pm_recorder {
    struct pm_file_head head;
};
static struct pm_recorder recorder;
static PyObject *attrs; /* list of (key, value) */

struct pm_file_head *pm_recorder_head(struct pm_recorder *rec)
{
    return &rec->head;
}

void pm_recorder_attr(struct pm_recorder *rec, const char *key, const char *value)
{
    (void)rec;
    PyObject *pair = Py_BuildValue("(ss)", key, value);
    if (pair)
        PyList_Append(attrs, pair);
    Py_XDECREF(pair);
    PyErr_Clear();
}

/* ---- probes ---- */

static struct {
    PyObject *enter, *leave; /* callables or NULL */
    struct pm_probe probe;
    struct pm_probe_state state;
    struct pm_target target;
    char name[16];
} probes[PROBES];
static PyObject *fired; /* list of (probe number, start_ns) */
static struct pm_call *current;
static struct pm_wrapper_types *types;

/* callback(args, kwnames, results, (enter_ns, start_ns, end_ns), scratch): what it returns, if an
 * int, is the new scratch. What it raises is left set: that is the guard's to handle. */
static void half(PyObject *callback, struct pm_call *call)
{
    if (!callback) {
        call->scratch[1]++;
        return;
    }
    Py_ssize_t n = call->nargs + (call->kwnames ? PyTuple_Size(call->kwnames) : 0);
    PyObject *args = PyTuple_New(n);
    if (!args)
        return;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_INCREF(call->args[i]);
        PyTuple_SetItem(args, i, call->args[i]);
    }
    PyObject *results = call->result ? PyTuple_Pack(1, call->result) : PyTuple_New(0);
    if (!results) {
        Py_DECREF(args);
        return;
    }
    struct pm_call *outer = current;
    current = call;
    PyObject *answer = PyObject_CallFunction(
        callback, "NnON(KKK)K", args, call->nargs, call->kwnames ? call->kwnames : Py_None, results,
        (unsigned long long)call->enter_ns, (unsigned long long)call->start_ns,
        (unsigned long long)call->end_ns, (unsigned long long)call->scratch[0]);
    current = outer;
    if (answer && PyLong_Check(answer))
        call->scratch[0] = PyLong_AsUnsignedLongLong(answer);
    Py_XDECREF(answer);
}

#define HALVES(n)                                                                                  \
    static void enter_##n(struct pm_call *call)                                                    \
    {                                                                                              \
        half(probes[n].enter, call);                                                               \
    }                                                                                              \
    static void leave_##n(struct pm_call *call)                                                    \
    {                                                                                              \
        half(probes[n].leave, call);                                                               \
    }
/* clang-format off */
HALVES(0) HALVES(1) HALVES(2) HALVES(3) HALVES(4)
HALVES(5) HALVES(6) HALVES(7) HALVES(8) HALVES(9)
HALVES(10) HALVES(11) HALVES(12) HALVES(13)
    /* clang-format on */

    typedef void (*half_fn)(struct pm_call *call);
static const half_fn enters[PROBES] = {enter_0,  enter_1,  enter_2,  enter_3, enter_4,
                                       enter_5,  enter_6,  enter_7,  enter_8, enter_9,
                                       enter_10, enter_11, enter_12, enter_13};
static const half_fn leaves[PROBES] = {leave_0,  leave_1,  leave_2,  leave_3, leave_4,
                                       leave_5,  leave_6,  leave_7,  leave_8, leave_9,
                                       leave_10, leave_11, leave_12, leave_13};

static void on_fired(const struct pm_probe *probe, const struct pm_target *target,
                     uint64_t start_ns)
{
    (void)target;
    for (int i = 0; i < PROBES; i++)
        if (&probes[i].probe == probe) {
            PyObject *pair = Py_BuildValue("(iK)", i, (unsigned long long)start_ns);
            if (pair)
                PyList_Append(fired, pair);
            Py_XDECREF(pair);
        }
}

static const PyObject *expected; /* compared, never followed */

static bool is_expected(const PyObject *self)
{
    return self == expected;
}

/* expect(n, object): calls on the object are counted by the look of it, by probe n; before wrap. */
static PyObject *t_expect(PyObject *module, PyObject *args)
{
    int n;
    PyObject *object;
    (void)module;
    if (!PyArg_ParseTuple(args, "iO", &n, &object))
        return NULL;
    expected = object;
    probes[n].probe.quick = is_expected;
    probes[n].target.flags |= PM_TARGET_QUICK;
    Py_RETURN_NONE;
}

/* probe(n, enter, leave, outermost, with_enter): a fresh probe of that number. */
static PyObject *t_probe(PyObject *module, PyObject *args)
{
    int n, outermost, with_enter;
    PyObject *enter, *leave;
    (void)module;
    if (!PyArg_ParseTuple(args, "iOOpp", &n, &enter, &leave, &outermost, &with_enter))
        return NULL;
    if (n < 0 || n >= PROBES) {
        PyErr_SetString(PyExc_IndexError, "no such probe");
        return NULL;
    }
    Py_CLEAR(probes[n].enter);
    Py_CLEAR(probes[n].leave);
    if (enter != Py_None)
        probes[n].enter = Py_NewRef(enter);
    if (leave != Py_None)
        probes[n].leave = Py_NewRef(leave);
    snprintf(probes[n].name, sizeof probes[n].name, "probe%d", n);
    probes[n].probe.name = probes[n].name;
    probes[n].probe.quick = NULL;
    probes[n].state.probe = &probes[n].probe;
    atomic_store(&probes[n].state.armed, true);
    atomic_store(&probes[n].state.faults, 0);
    probes[n].target = (struct pm_target){
        .module = "test_wrapper",
        .qualname = probes[n].name,
        .flags = outermost ? PM_TARGET_OUTERMOST : 0,
        .enter = with_enter ? enters[n] : NULL,
        .leave = leaves[n],
    };
    Py_RETURN_NONE;
}

static PyObject *t_wrap(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *wrapper = pm_wrapper_new(types, PyTuple_GetItem(args, 0));
    for (Py_ssize_t i = 1; wrapper && i < PyTuple_Size(args); i++) {
        long n = PyLong_AsLong(PyTuple_GetItem(args, i));
        if (pm_wrapper_add(types, wrapper, &probes[n].state, &probes[n].target) < 0)
            Py_CLEAR(wrapper);
    }
    return wrapper;
}

static PyObject *t_add(PyObject *module, PyObject *args)
{
    PyObject *wrapper;
    int n;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oi", &wrapper, &n))
        return NULL;
    if (pm_wrapper_add(types, wrapper, &probes[n].state, &probes[n].target) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *t_remove(PyObject *module, PyObject *args)
{
    PyObject *wrapper;
    int n;
    (void)module;
    if (!PyArg_ParseTuple(args, "Oi", &wrapper, &n))
        return NULL;
    return PyLong_FromSize_t(pm_wrapper_remove(types, wrapper, n < 0 ? NULL : &probes[n].state));
}

static PyObject *t_check(PyObject *module, PyObject *object)
{
    (void)module;
    return PyBool_FromLong(pm_wrapper_check(types, object));
}

static PyObject *t_original(PyObject *module, PyObject *object)
{
    (void)module;
    PyObject *original = pm_wrapper_original(types, object);
    return Py_NewRef(original ? original : Py_None);
}

static PyObject *t_counts(PyObject *module, PyObject *object)
{
    (void)module;
    struct pm_wrapper_counts counts;
    pm_wrapper_counts(types, object, &counts);
    return Py_BuildValue("(KKn)", (unsigned long long)counts.calls,
                         (unsigned long long)counts.first_ns, (Py_ssize_t)counts.targets);
}

static PyObject *t_state(PyObject *module, PyObject *number)
{
    (void)module;
    long n = PyLong_AsLong(number);
    return Py_BuildValue("(OI)", atomic_load(&probes[n].state.armed) ? Py_True : Py_False,
                         (unsigned)atomic_load(&probes[n].state.faults));
}

static PyObject *t_disarm(PyObject *module, PyObject *args)
{
    const char *why;
    int n;
    (void)module;
    if (!PyArg_ParseTuple(args, "is", &n, &why))
        return NULL;
    pm_guard_disarm(&probes[n].state, why);
    Py_RETURN_NONE;
}

static PyObject *t_attach(PyObject *module, PyObject *on)
{
    (void)module;
    pm_guard_attach(PyObject_IsTrue(on) ? &recorder : NULL);
    Py_RETURN_NONE;
}

static PyObject *t_head(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("(KKK)", (unsigned long long)atomic_load(&recorder.head.faults),
                         (unsigned long long)atomic_load(&recorder.head.hook_calls),
                         (unsigned long long)atomic_load(&recorder.head.hook_ns));
}

static PyObject *t_totals(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct pm_guard_totals totals;
    pm_guard_totals(&totals);
    return Py_BuildValue("(KKK)", (unsigned long long)totals.faults,
                         (unsigned long long)totals.calls, (unsigned long long)totals.ns);
}

static PyObject *t_mute(PyObject *module, PyObject *on)
{
    (void)module;
    if (PyObject_IsTrue(on))
        pm_guard_mute();
    else
        pm_guard_unmute();
    Py_RETURN_NONE;
}

/* ---- read.h ---- */

static struct pm_name *name_of(const char *text)
{
    static struct {
        struct pm_name name;
        char text[32];
    } table[32];
    size_t i = 0;
    while (table[i].text[0] && strcmp(table[i].text, text) != 0)
        i++;
    snprintf(table[i].text, sizeof table[i].text, "%s", text);
    table[i].name.text = table[i].text;
    return &table[i].name;
}

/* read(how, object, name): the value, or None where the read answers false. */
static PyObject *t_read(PyObject *module, PyObject *args)
{
    const char *how, *name_text;
    PyObject *object;
    (void)module;
    if (!PyArg_ParseTuple(args, "sOs", &how, &object, &name_text))
        return NULL;
    struct pm_name *name = name_of(name_text);
    PyObject *answer = Py_None;
    uint64_t u64 = 0xdead;
    int64_t i64 = 0;
    bool flag = false;
    double number = 0;
    char text[16];
    size_t bytes;
    if (strcmp(how, "attr") == 0)
        answer = pm_read_attr(object, name);
    else if (strcmp(how, "u64") == 0 && pm_read_u64(object, name, &u64))
        answer = PyLong_FromUnsignedLongLong(u64);
    else if (strcmp(how, "i64") == 0 && pm_read_i64(object, name, &i64))
        answer = PyLong_FromLongLong(i64);
    else if (strcmp(how, "bool") == 0 && pm_read_bool(object, name, &flag))
        answer = PyBool_FromLong(flag);
    else if (strcmp(how, "f64") == 0 && pm_read_f64(object, name, &number))
        answer = PyFloat_FromDouble(number);
    else if (strcmp(how, "len") == 0 && pm_read_len(object, name, &u64))
        answer = PyLong_FromUnsignedLongLong(u64);
    else if (strcmp(how, "text") == 0 && pm_read_text(object, name, text, sizeof text, &bytes))
        answer = Py_BuildValue("(sn)", text, (Py_ssize_t)bytes);
    else if (strcmp(how, "item") == 0) {
        PyObject *key = pm_name_object(name);
        answer = pm_dict_item(object, key);
        Py_XINCREF(answer);
    } else
        Py_INCREF(answer);
    if (PyErr_Occurred())
        Py_FatalError("a read left an exception");
    return answer ? answer : Py_NewRef(Py_None);
}

/* arg(index, name), inside a half: (value,) or None. */
static PyObject *t_arg(PyObject *module, PyObject *args)
{
    int index;
    const char *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "iz", &index, &name))
        return NULL;
    PyObject *value = current ? pm_call_arg(current, index, name ? name_of(name) : NULL) : NULL;
    return value ? PyTuple_Pack(1, value) : Py_NewRef(Py_None);
}

static PyObject *t_names_reset(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    pm_names_reset();
    Py_RETURN_NONE;
}

/* ---- vectorcall, watched ---- */

static struct {
    PyObject *const *args;
    size_t nargsf;
    PyObject *kwnames;
} seen;

struct spy {
    PyObject_HEAD pm_vectorcall_fn vectorcall;
};

/* What a vectorcall callee may do: it borrows args[-1] when told that it may. */
static PyObject *spy_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf,
                                PyObject *kwnames)
{
    seen.args = args;
    seen.nargsf = nargsf;
    seen.kwnames = kwnames;
    if (nargsf & PM_VECTORCALL_ARGUMENTS_OFFSET) {
        PyObject **before = (PyObject **)(uintptr_t)(args - 1);
        PyObject *saved = *before;
        *before = self;
        *before = saved;
    }
    Py_RETURN_NONE;
}

static void spy_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *spy_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    struct spy *self = (struct spy *)PyType_GenericAlloc(type, 0);
    if (self)
        self->vectorcall = spy_vectorcall;
    return (PyObject *)self;
}

static PyMemberDef spy_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct spy, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot spy_slots[] = {
    {Py_tp_new, (void *)spy_new},
    {Py_tp_call, (void *)PyVectorcall_Call},
    {Py_tp_dealloc, (void *)spy_dealloc},
    {Py_tp_members, spy_members},
    {0, NULL},
};
static PyType_Spec spy_spec = {
    .name = "_pmtest.Spy",
    .basicsize = sizeof(struct spy),
    .flags = Py_TPFLAGS_DEFAULT | PM_TPFLAGS_HAVE_VECTORCALL,
    .slots = spy_slots,
};

/* vectorcall(callable, args, kwnames or None, offset): calls it raw. The answer says whether the
 * Spy, if one was reached, got the very same array, count, flag and names, and the array is as it
 * was. */
static PyObject *t_vectorcall(PyObject *module, PyObject *call)
{
    PyObject *callable, *tuple, *kwnames, *array[32] = {NULL}, *copy[32];
    int offset;
    (void)module;
    if (!PyArg_ParseTuple(call, "OO!Op", &callable, &PyTuple_Type, &tuple, &kwnames, &offset))
        return NULL;
    Py_ssize_t n = PyTuple_Size(tuple);
    for (Py_ssize_t i = 0; i < n; i++)
        array[i + 1] = PyTuple_GetItem(tuple, i);
    array[0] = Py_Ellipsis;
    memcpy(copy, array, sizeof copy);
    if (kwnames == Py_None)
        kwnames = NULL;
    size_t nargsf = (size_t)(n - (kwnames ? PyTuple_Size(kwnames) : 0));
    if (offset)
        nargsf |= PM_VECTORCALL_ARGUMENTS_OFFSET;
    memset(&seen, 0, sizeof seen);
    pm_vectorcall_fn function = pm_vectorcall_of(callable);
    PyObject *result = function ? function(callable, array + 1, nargsf, kwnames)
                                : pm_vectorcall(callable, array + 1, nargsf, kwnames);
    if (!result)
        return NULL;
    bool same = seen.args == array + 1 && seen.nargsf == nargsf && seen.kwnames == kwnames;
    bool intact = memcmp(copy, array, sizeof copy) == 0;
    return Py_BuildValue("(NOO)", result, same ? Py_True : Py_False, intact ? Py_True : Py_False);
}

static PyObject *t_clock(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromUnsignedLongLong(pm_clock_now_ns());
}

static PyMethodDef functions[] = {
    {"probe", t_probe, METH_VARARGS, NULL},
    {"wrap", t_wrap, METH_VARARGS, NULL},
    {"expect", t_expect, METH_VARARGS, NULL},
    {"add", t_add, METH_VARARGS, NULL},
    {"remove", t_remove, METH_VARARGS, NULL},
    {"check", t_check, METH_O, NULL},
    {"original", t_original, METH_O, NULL},
    {"counts", t_counts, METH_O, NULL},
    {"state", t_state, METH_O, NULL},
    {"disarm", t_disarm, METH_VARARGS, NULL},
    {"attach", t_attach, METH_O, NULL},
    {"head", t_head, METH_NOARGS, NULL},
    {"totals", t_totals, METH_NOARGS, NULL},
    {"mute", t_mute, METH_O, NULL},
    {"read", t_read, METH_VARARGS, NULL},
    {"arg", t_arg, METH_VARARGS, NULL},
    {"names_reset", t_names_reset, METH_NOARGS, NULL},
    {"vectorcall", t_vectorcall, METH_VARARGS, NULL},
    {"clock", t_clock, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module)
{
    types = PyModule_GetState(module);
    attrs = PyList_New(0);
    fired = PyList_New(0);
    PyObject *spy = PyType_FromSpec(&spy_spec);
    if (!attrs || !fired || !spy || PyModule_AddObjectRef(module, "attrs", attrs) < 0 ||
        PyModule_AddObjectRef(module, "fired", fired) < 0 ||
        PyModule_AddObjectRef(module, "Spy", spy) < 0)
        return -1;
    Py_DECREF(spy);
    pm_clock_init();
    pm_guard_on_fired(on_fired);
    return pm_wrapper_types_init(module, types);
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

static void free_module(void *module)
{
    clear_module(module);
    pm_names_reset();
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)exec_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,   .m_name = "_pmtest",     .m_size = sizeof(struct pm_wrapper_types),
    .m_methods = functions,  .m_slots = module_slots, .m_traverse = traverse_module,
    .m_clear = clear_module, .m_free = free_module,
};

PyMODINIT_FUNC PyInit__pmtest(void);
PyMODINIT_FUNC PyInit__pmtest(void)
{
    return PyModuleDef_Init(&definition);
}
