/*
 * Function tracing: what a code object is called, and whether the setting wants it. Asked once per
 * code object, while a frame of it is the one that runs; GIL held.
 *
 * A code object does not know its module: the globals of the running frame do. Before 3.11 it does
 * not know its class either: then the module's classes are searched for it.
 */
#include "probe/function.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hook/read.h"

#define TEXT_MAX (PM_FUNCTION_TEXT_LONGEST + 1)
#define SEARCH_MAX 4000 /* values looked at for a class's name */
#define SEARCH_DEPTH 3  /* classes within classes */

enum { CO_IS_GENERATOR = 0x20 | 0x80 | 0x200 }; /* generator, coroutine, async generator */

/* ---- the class of a code object, for 3.10 ---- */

struct search {
    PyObject *code;
    const char *name; /* co_name, which is the attribute's as well but for odd cases */
    const char *module;
    unsigned left;
    char path[TEXT_MAX];
};

/* Whether a value of a namespace is the function, plainly or as a static method, property, …. */
static bool is_its_function(const struct search *search, PyObject *value)
{
    static struct pm_name n_code = PM_NAME("__code__"), n_func = PM_NAME("__func__");
    static struct pm_name n_get = PM_NAME("fget");
    static struct pm_name *const ways[] = {&n_func, &n_get};
    PyObject *function = value;
    bool found = false;
    Py_INCREF(function);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        /* only what C types offer: an attribute of Python's own making is not asked for */
        if (PyObject_TypeCheck(function, &PyFunction_Type) ||
            PyType_GetFlags(Py_TYPE(function)) & Py_TPFLAGS_HEAPTYPE)
            break;
        PyObject *inner = pm_read_attr(function, ways[i]);
        if (inner) {
            Py_DECREF(function);
            function = inner;
        }
    }
    if (PyObject_TypeCheck(function, &PyFunction_Type)) {
        PyObject *code = pm_read_attr(function, &n_code);
        found = code == search->code;
        Py_XDECREF(code);
    }
    Py_DECREF(function);
    return found;
}

/* Looks for it in a namespace by its name, and then in the classes there that are of the same
 * module; `path` is then the qualified name. */
static bool search_in(struct search *search, PyObject *dict, unsigned depth)
{
    static struct pm_name n_dict = PM_NAME("__dict__"), n_module = PM_NAME("__module__");
    const size_t used = strlen(search->path);
    const char *point = used != 0 ? "." : "";
    char text[256];
    PyObject *own = PyMapping_GetItemString(dict, search->name);
    bool found = own && is_its_function(search, own);
    Py_XDECREF(own);
    pm_guard_discard();
    if (found)
        snprintf(search->path + used, sizeof search->path - used, "%s%s", point, search->name);
    if (found || depth == SEARCH_DEPTH)
        return found;
    PyObject *items = PyMapping_Items(dict);
    const Py_ssize_t count = items ? PyList_Size(items) : 0;
    for (Py_ssize_t i = 0; i < count && !found && search->left > 0; i++, search->left--) {
        PyObject *item = PyList_GetItem(items, i), *key = PyTuple_GetItem(item, 0);
        PyObject *value = PyTuple_GetItem(item, 1), *inner = NULL;
        if (!PyType_Check(value) || !PyUnicode_Check(key))
            continue;
        if (pm_read_text(value, &n_module, text, sizeof text, NULL) &&
            strcmp(text, search->module) == 0 && pm_text(key, text, sizeof text, NULL))
            inner = pm_read_attr(value, &n_dict);
        if (inner) {
            snprintf(search->path + used, sizeof search->path - used, "%s%s", point, text);
            found = search_in(search, inner, depth + 1);
        }
        if (!found)
            search->path[used] = '\0';
        Py_XDECREF(inner);
    }
    Py_XDECREF(items);
    pm_guard_discard();
    return found;
}

/* ---- names ---- */

struct names {
    char module[TEXT_MAX], name[TEXT_MAX], file[TEXT_MAX];
    uint64_t line, flags;
};

static void read_names(PyObject *code, struct names *names)
{
    static struct pm_name n_qualname = PM_NAME("co_qualname"), n_name = PM_NAME("co_name");
    static struct pm_name n_file = PM_NAME("co_filename"), n_line = PM_NAME("co_firstlineno");
    static struct pm_name n_flags = PM_NAME("co_flags");
    PyObject *globals = PyEval_GetGlobals(); /* borrowed */
    PyObject *module = globals ? PyDict_GetItemString(globals, "__name__") : NULL;
    if (!module || !PyUnicode_Check(module) ||
        !pm_text(module, names->module, sizeof names->module, NULL))
        snprintf(names->module, sizeof names->module, "?");
    (void)pm_read_text(code, &n_file, names->file, sizeof names->file, NULL);
    (void)pm_read_u64(code, &n_line, &names->line);
    (void)pm_read_u64(code, &n_flags, &names->flags);
    if (pm_read_text(code, &n_qualname, names->name, sizeof names->name, NULL))
        return;
    char name[256];
    struct search search = {
        .code = code, .name = name, .module = names->module, .left = SEARCH_MAX};
    if (!pm_read_text(code, &n_name, name, sizeof name, NULL))
        return;
    const bool found = name[0] != '<' && globals && search_in(&search, globals, 0);
    snprintf(names->name, sizeof names->name, "%s", found ? search.path : name);
}

/* f_lasti of a frame of this code that has not run yet: that of RESUME 0 (3.11), or -1. */
static int32_t fresh_of(PyObject *code)
{
    static struct pm_name n_code = PM_NAME("co_code");
    enum { RESUME = 151 }; /* of 3.11, the only version that asks */
    PyObject *bytes = pm_read_attr(code, &n_code);
    int32_t fresh = -1;
    if (bytes && PyBytes_Check(bytes)) {
        const unsigned char *text = (const unsigned char *)PyBytes_AsString(bytes);
        const Py_ssize_t size = PyBytes_Size(bytes);
        for (Py_ssize_t i = 0; i + 1 < size && i < INT32_MAX && fresh < 0; i += 2)
            fresh = text[i] == RESUME && text[i + 1] == 0 ? (int32_t)i : -1;
    }
    Py_XDECREF(bytes);
    return fresh;
}

static uint32_t learn(PyObject *code)
{
    struct names names = {.line = 0};
    read_names(code, &names);
    if (!pm_function_filter_wants(&pm_tracer.filter, names.module, names.name)) {
        /* sys.monitoring is told to leave it alone, and does not ask again */
        if (!pm_monitor_exists() && pm_calls_skip(&pm_tracer.calls, code))
            Py_INCREF(code);
        return PM_CALLS_SKIPPED;
    }
    const bool generator = (names.flags & CO_IS_GENERATOR) != 0;
    bool kept;
    uint32_t row = pm_calls_add(&pm_tracer.calls, code, names.module, names.name, names.file,
                                names.line < UINT32_MAX ? (uint32_t)names.line : 0,
                                generator ? PM_FUNCTION_GENERATOR : 0, &kept);
    if (kept)
        Py_INCREF(code); /* its address is the key */
    if (kept && generator && pm_tracer.fresh)
        pm_tracer.fresh[row] = fresh_of(code);
    return row;
}

uint32_t pm_tracer_learn(PyObject *code)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_here.inside++;
    uint32_t row = learn(code);
    pm_guard_discard();
    pm_guard_here.inside--;
    PyErr_Restore(type, value, traceback);
    return row;
}
