/*
 * The import hook: a finder at the head of sys.meta_path that lets everybody else find a module,
 * and sees to it that we hear when it has been executed. Called by the import system on whatever
 * thread imports, with the GIL and that module's import lock held. Owns nothing but its types.
 *
 * A name that is no target costs one comparison of lengths. For a target, the others are asked
 * (this one answers None meanwhile, on that thread and for that name, to anybody who comes back
 * through sys.meta_path), and the spec that they give is passed on as it is, with one of two
 * changes that are undone before the module's code runs:
 *
 *   a loader of this one module     gets an instance attribute `exec_module`
 *   (importlib's file loaders)
 *   any other loader (shared, or    spec.loader is a stand-in that passes everything on
 *   without a __dict__)
 *
 * So module, spec and loader are afterwards what they would have been without us. Whatever goes
 * wrong on our side, the import goes on as if we were not there.
 */
#include "hook/hook.h"

#include "hook/guard.h"

/* ---- the two that are called instead of loader.exec_module ----------------------------------- */

/* Both types have this layout. */
struct patcher {
    PyObject_HEAD PyObject *loader, *spec, *name;
};

static int patcher_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct patcher *patcher = (struct patcher *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(patcher->loader);
    Py_VISIT(patcher->spec);
    return 0;
}

static int patcher_clear(PyObject *self)
{
    struct patcher *patcher = (struct patcher *)self;
    Py_CLEAR(patcher->loader);
    Py_CLEAR(patcher->spec);
    return 0;
}

static void patcher_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)patcher_clear(self);
    Py_CLEAR(((struct patcher *)self)->name);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *patcher_new(PyObject *type, PyObject *loader, PyObject *spec, PyObject *name)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)type, Py_tp_alloc);
    struct patcher *patcher = (struct patcher *)alloc((PyTypeObject *)type, 0);
    if (!patcher)
        return NULL;
    Py_INCREF(loader);
    Py_INCREF(spec);
    Py_INCREF(name);
    patcher->loader = loader;
    patcher->spec = spec;
    patcher->name = name;
    return (PyObject *)patcher;
}

static void arm(PyObject *spec, PyObject *name);

/* The module's code has run. If that put another loader into the spec, it was put off
 * (importlib.util.LazyLoader): that loader will run it. */
static void executed(struct patcher *patcher, PyObject *module)
{
    PyObject *loader = PyObject_GetAttrString(patcher->spec, "loader");
    bool put_off = loader && loader != patcher->loader && !PyModule_CheckExact(module);
    Py_XDECREF(loader);
    PyErr_Clear();
    if (put_off) {
        arm(patcher->spec, patcher->name);
        return;
    }
    const char *name = PyUnicode_AsUTF8AndSize(patcher->name, NULL);
    /* A module may put something else into sys.modules in place of itself. */
    PyObject *there = PyDict_GetItemWithError(PyImport_GetModuleDict(), patcher->name);
    if (!there || !PyModule_Check(there))
        there = module;
    Py_INCREF(there);
    if (name && PyModule_Check(there))
        pm_install_module(there, name);
    Py_DECREF(there);
    PyErr_Clear();
}

/* loader.exec_module(module), or that of its class, and then ours; the caller holds patcher. */
static PyObject *execute(struct patcher *patcher, PyObject *module, bool of_class)
{
    PyObject *loader = patcher->loader;
    PyObject *result = of_class ? PyObject_CallMethod((PyObject *)Py_TYPE(loader), "exec_module",
                                                      "OO", loader, module)
                                : PyObject_CallMethod(loader, "exec_module", "O", module);
    if (result)
        executed(patcher, module);
    return result;
}

/* ---- an instance attribute of the loader ------------------------------------------------------
 */

/* exec_module(module): takes itself off the loader first. */
static PyObject *exec_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char module_word[] = "module";
    static char *words[] = {module_word, NULL};
    struct patcher *patcher = (struct patcher *)self;
    PyObject *module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:exec_module", words, &module))
        return NULL;
    Py_INCREF(self); /* the loader held us */
    PyObject *dict = PyObject_GetAttrString(patcher->loader, "__dict__");
    PyObject *there = dict && PyDict_Check(dict) ? PyDict_GetItemString(dict, "exec_module") : NULL;
    /* Another tool put its own there after us, which called us: the loader's would be that again.
     */
    bool others = there && there != self;
    if (there == self)
        (void)PyDict_DelItemString(dict, "exec_module");
    Py_XDECREF(dict);
    PyErr_Clear();
    PyObject *result = execute(patcher, module, others);
    Py_DECREF(self);
    return result;
}

/* Specs of one module compare equal, armed each, as they do without us (ModuleSpec compares the
 * loaders, and those their __dict__s). */
static PyObject *exec_compare(PyObject *self, PyObject *other, int operation)
{
    if (Py_TYPE(self) != Py_TYPE(other) || (operation != Py_EQ && operation != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    return PyObject_RichCompare(((struct patcher *)self)->name, ((struct patcher *)other)->name,
                                operation);
}

static PyType_Slot exec_slots[] = {
    {Py_tp_call, exec_call},
    {Py_tp_richcompare, exec_compare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_traverse, patcher_traverse},
    {Py_tp_clear, patcher_clear},
    {Py_tp_dealloc, patcher_dealloc},
    {0, NULL},
};
static PyType_Spec exec_spec = {
    .name = "profilemate.exec_module",
    .basicsize = sizeof(struct patcher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = exec_slots,
};

/* ---- a stand-in for the loader ----------------------------------------------------------------
 */

static PyObject *loader_create_module(PyObject *self, PyObject *spec)
{
    struct patcher *patcher = (struct patcher *)self;
    PyObject *create = PyObject_GetAttrString(patcher->loader, "create_module");
    if (!create) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return NULL;
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    PyObject *module = PyObject_CallFunctionObjArgs(create, spec, NULL);
    Py_DECREF(create);
    return module;
}

static PyObject *loader_exec_module(PyObject *self, PyObject *module)
{
    struct patcher *patcher = (struct patcher *)self;
    PyObject *in_spec = PyObject_GetAttrString(patcher->spec, "loader");
    if (in_spec == self && PyObject_SetAttrString(patcher->spec, "loader", patcher->loader) < 0)
        PyErr_Clear();
    Py_XDECREF(in_spec);
    PyErr_Clear();
    if (PyModule_Check(module)) {
        PyObject *dict = PyModule_GetDict(module); /* borrowed */
        if (PyDict_GetItemString(dict, "__loader__") == self)
            (void)PyDict_SetItemString(dict, "__loader__", patcher->loader);
        PyErr_Clear();
    }
    Py_INCREF(self);
    PyObject *result = execute(patcher, module, false);
    Py_DECREF(self);
    return result;
}

static PyObject *loader_getattro(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GenericGetAttr(self, name);
    if (value || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return value;
    PyErr_Clear();
    return PyObject_GetAttr(((struct patcher *)self)->loader, name);
}

static PyMethodDef loader_methods[] = {
    {"create_module", loader_create_module, METH_O, "As the loader does it."},
    {"exec_module", loader_exec_module, METH_O, "As the loader does it, after it was put back."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot loader_slots[] = {
    {Py_tp_methods, loader_methods},    {Py_tp_getattro, loader_getattro},
    {Py_tp_traverse, patcher_traverse}, {Py_tp_clear, patcher_clear},
    {Py_tp_dealloc, patcher_dealloc},   {0, NULL},
};
static PyType_Spec loader_spec = {
    .name = "profilemate.Loader",
    .basicsize = sizeof(struct patcher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = loader_slots,
};

/* ---- the finder -------------------------------------------------------------------------------
 */

/* Whether the loader was made for this one module, as importlib's file loaders are: they carry its
 * name. */
static bool is_of_module(PyObject *loader, PyObject *name)
{
    PyObject *dict = PyObject_GetAttrString(loader, "__dict__");
    PyObject *own = dict && PyDict_Check(dict) ? PyDict_GetItemString(dict, "name") : NULL;
    bool same = own && PyUnicode_Check(own) && PyUnicode_Compare(own, name) == 0;
    Py_XDECREF(dict);
    PyErr_Clear();
    return same;
}

/* The loader's exec_module becomes an attribute of the instance. */
static bool arm_instance(struct pm_hook *hook, PyObject *loader, PyObject *spec, PyObject *name)
{
    PyObject *call = patcher_new(hook->exec_type, loader, spec, name);
    bool set = call && PyObject_SetAttrString(loader, "exec_module", call) == 0;
    Py_XDECREF(call);
    PyErr_Clear();
    return set;
}

static void arm_stand_in(struct pm_hook *hook, PyObject *loader, PyObject *spec, PyObject *name)
{
    PyObject *stand_in = patcher_new(hook->loader_type, loader, spec, name);
    if (stand_in)
        (void)PyObject_SetAttrString(spec, "loader", stand_in);
    Py_XDECREF(stand_in);
}

/* Makes the spec's loader tell us. No exception afterwards. */
static void arm(PyObject *spec, PyObject *name)
{
    struct pm_hook *hook = pm_hook_current();
    PyObject *loader = PyObject_GetAttrString(spec, "loader");
    PyObject *exec = loader && loader != Py_None ? PyObject_GetAttrString(loader, "exec_module")
                                                 : NULL; /* none in a namespace package */
    /* Armed already: a finder that hands the same spec out twice. */
    bool armed = hook && exec &&
                 (Py_TYPE(exec) == (PyTypeObject *)hook->exec_type ||
                  Py_TYPE(loader) == (PyTypeObject *)hook->loader_type);
    if (hook && exec && !armed &&
        !(is_of_module(loader, name) && arm_instance(hook, loader, spec, name)))
        arm_stand_in(hook, loader, spec, name);
    Py_XDECREF(exec);
    Py_XDECREF(loader);
    PyErr_Clear();
}

/* Asks the finders of sys.meta_path but this one: the spec, or None if nobody knows the module or
 * somebody raised (the import system will then ask him itself and see it). */
static PyObject *ask_others(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    PyObject *spec = NULL;
    PyObject *meta_path = PySys_GetObject("meta_path"); /* borrowed */
    PyObject *finders = meta_path ? PySequence_Tuple(meta_path) : NULL;
    Py_ssize_t count = finders ? PyTuple_Size(finders) : 0;
    Py_ssize_t i = 0;
    while (i < count && PyTuple_GetItem(finders, i) != self)
        i++; /* those before us have said no */
    for (i = i < count ? i + 1 : 0; i < count && !spec && !PyErr_Occurred(); i++) {
        PyObject *find = PyObject_GetAttrString(PyTuple_GetItem(finders, i), "find_spec");
        if (!find) {
            PyErr_Clear(); /* importlib passes it over as well */
            continue;
        }
        spec = pm_vectorcall(find, args, (size_t)nargs, kwnames);
        Py_DECREF(find);
        if (spec == Py_None)
            Py_CLEAR(spec);
    }
    Py_XDECREF(finders);
    if (spec)
        return spec;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* The targets that are being looked for on this thread. */
struct search {
    const char *name;
    const struct search *outer;
};
static _Thread_local const struct search *searches;

static bool is_searched(const char *name)
{
    for (const struct search *search = searches; search; search = search->outer) {
        if (strcmp(search->name, name) == 0)
            return true;
    }
    return false;
}

/* Another hook that stands before us may have loaded a target without us. */
static void look_for_missed(PyObject *self)
{
    PyObject *meta_path = PySys_GetObject("meta_path"); /* borrowed */
    if (!meta_path || !PyList_Check(meta_path) || PyList_Size(meta_path) == 0)
        return;
    if (PyList_GetItem(meta_path, 0) != self)
        pm_install_loaded();
}

static PyObject *find_spec(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    PyObject *fullname = nargs > 0 ? args[0] : NULL;
    if (!fullname || !PyUnicode_Check(fullname) || !pm_hook_current())
        Py_RETURN_NONE;
    const char *name = PyUnicode_AsUTF8AndSize(fullname, NULL);
    if (!name) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    look_for_missed(self);
    if (!pm_install_wants(name) || is_searched(name))
        Py_RETURN_NONE;
    struct search search = {.name = name, .outer = searches};
    searches = &search;
    PyObject *spec = ask_others(self, args, nargs, kwnames);
    searches = search.outer;
    if (spec != Py_None)
        arm(spec, fullname);
    return spec;
}

static PyMethodDef finder_methods[] = {
    {"find_spec", (PyCFunction)(void (*)(void))find_spec, METH_FASTCALL | METH_KEYWORDS,
     "find_spec(fullname, path=None, target=None): what the other finders say."},
    {NULL, NULL, 0, NULL},
};

static int finder_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void finder_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyType_Slot finder_slots[] = {
    {Py_tp_methods, finder_methods},
    {Py_tp_traverse, finder_traverse},
    {Py_tp_dealloc, finder_dealloc},
    {0, NULL},
};
static PyType_Spec finder_spec = {
    .name = "profilemate.Finder",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | PM_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = finder_slots,
};

int pm_finder_install(PyObject *module, struct pm_hook *hook)
{
    hook->exec_type = PyType_FromModuleAndSpec(module, &exec_spec, NULL);
    hook->loader_type = PyType_FromModuleAndSpec(module, &loader_spec, NULL);
    hook->finder_type = PyType_FromModuleAndSpec(module, &finder_spec, NULL);
    if (!hook->exec_type || !hook->loader_type || !hook->finder_type)
        return -1;
    allocfunc alloc = (allocfunc)PyType_GetSlot((PyTypeObject *)hook->finder_type, Py_tp_alloc);
    hook->finder = alloc((PyTypeObject *)hook->finder_type, 0);
    PyObject *meta_path = PySys_GetObject("meta_path"); /* borrowed */
    if (!hook->finder || !meta_path || !PyList_Check(meta_path))
        return -1;
    return PyList_Insert(meta_path, 0, hook->finder);
}
