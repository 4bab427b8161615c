/*
 * The sitecustomize that ours shadows: found on the rest of sys.path and run as `site` would have
 * run it. Called once, while our own `sitecustomize` is being imported, in every interpreter and on
 * every version of Python, also where we do nothing else: so it uses only what 3.8 has.
 *
 * While it runs it is sys.modules["sitecustomize"], as it would be without us; afterwards that is
 * ours again, which hands out its attributes too (module.c).
 */
#include "hook/hook.h"

#include <limits.h>
#include <stdlib.h>

static const char name[] = "sitecustomize";

/* The shadowed one may itself drop `sitecustomize` from sys.modules and import it again, to chain
 * to what *it* shadows: that finds ours once more, which must not begin anew. */
static _Thread_local bool running;

static bool same_folder(const char *entry, const char *folder)
{
    if (strcmp(entry, folder) == 0)
        return true;
    char real[PATH_MAX];
    return realpath(entry[0] ? entry : ".", real) && strcmp(real, folder) == 0;
}

/* Our own folder, as a real path; false if it is not known. */
static bool own_folder(char *out, size_t size)
{
    const char *file = pm_place_file();
    const char *slash = strrchr(file, '/');
    if (!slash || (size_t)(slash - file) >= size)
        return false;
    memcpy(out, file, (size_t)(slash - file));
    out[slash - file] = '\0';
    return true;
}

static bool is_folder(PyObject *entry, const char *folder)
{
    PyObject *bytes = PyUnicode_Check(entry) ? PyUnicode_EncodeFSDefault(entry) : NULL;
    bool same = bytes && same_folder(PyBytes_AsString(bytes), folder);
    Py_XDECREF(bytes);
    PyErr_Clear();
    return same;
}

/* The entries of sys.path after the one that holds our file, without others that lead to the same
 * place; NULL if ours is not on it. */
static PyObject *rest_of_path(void)
{
    char folder[PATH_MAX];
    PyObject *path = PySys_GetObject("path"); /* borrowed */
    if (!path || !PyList_Check(path) || !own_folder(folder, sizeof folder))
        return NULL;
    PyObject *rest = NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(path); i++) {
        PyObject *entry = PyList_GetItem(path, i); /* borrowed */
        if (is_folder(entry, folder)) {
            if (!rest && !(rest = PyList_New(0)))
                return NULL;
        } else if (rest && PyList_Append(rest, entry) < 0) {
            Py_DECREF(rest);
            return NULL;
        }
    }
    return rest;
}

/* The spec of the next sitecustomize; NULL with or without exception. */
static PyObject *find_spec(void)
{
    PyObject *path = rest_of_path();
    if (!path)
        return NULL;
    PyObject *spec = NULL;
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *bootstrap = PyDict_GetItemString(modules, "_frozen_importlib_external");
    PyObject *finder = bootstrap ? PyObject_GetAttrString(bootstrap, "PathFinder") : NULL;
    if (finder)
        spec = PyObject_CallMethod(finder, "find_spec", "sO", name, path);
    Py_XDECREF(finder);
    Py_DECREF(path);
    if (spec == Py_None) {
        Py_DECREF(spec);
        return NULL;
    }
    return spec;
}

/* Runs it under its own spec; ours is back in sys.modules whatever happens. */
static PyObject *load(PyObject *spec, PyObject *ours)
{
    PyObject *module = NULL, *result = NULL;
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *bootstrap = PyDict_GetItemString(modules, "_frozen_importlib");
    PyObject *loader = PyObject_GetAttrString(spec, "loader");
    if (!bootstrap || !loader || loader == Py_None)
        goto done;
    module = PyObject_CallMethod(bootstrap, "module_from_spec", "O", spec);
    if (!module || PyDict_SetItemString(modules, name, module) < 0)
        goto done;
    result = PyObject_CallMethod(loader, "exec_module", "O", module);
done:;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyDict_SetItemString(modules, name, ours) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    Py_XDECREF(loader);
    if (!result)
        Py_CLEAR(module);
    Py_XDECREF(result);
    return module;
}

/* exc.name == 'sitecustomize', as `site` asks; no exception set. */
static bool is_own_import_error(PyObject *type, PyObject *value)
{
    if (!value || !PyErr_GivenExceptionMatches(type, PyExc_ImportError))
        return false;
    PyObject *which = PyObject_GetAttrString(value, "name");
    bool own =
        which && PyUnicode_Check(which) && PyUnicode_CompareWithASCIIString(which, name) == 0;
    Py_XDECREF(which);
    PyErr_Clear();
    return own;
}

/* The words of site.execsitecustomize for an exception that it catches. */
static void print_error(PyObject *type, PyObject *value, PyObject *traceback)
{
    PyObject *flags = PySys_GetObject("flags"); /* borrowed, as the two below */
    PyObject *verbose = flags ? PyObject_GetAttrString(flags, "verbose") : NULL;
    bool full = verbose && PyObject_IsTrue(verbose) > 0;
    Py_XDECREF(verbose);
    PyErr_Clear();
    PyObject *hook = PySys_GetObject("excepthook"), *err = PySys_GetObject("stderr");
    PyObject *none = Py_None;
    if (full && hook) {
        PyObject *done = PyObject_CallFunctionObjArgs(hook, type, value ? value : none,
                                                      traceback ? traceback : none, NULL);
        Py_XDECREF(done);
    } else if (err && err != none) {
        PyObject *kind = PyObject_GetAttrString(type, "__name__");
        PyObject *text = kind
                             ? PyUnicode_FromFormat("Error in sitecustomize; set PYTHONVERBOSE for "
                                                    "traceback:\n%S: %S\n",
                                                    kind, value ? value : none)
                             : NULL;
        if (text)
            (void)PyFile_WriteObject(text, err, Py_PRINT_RAW);
        Py_XDECREF(kind);
        Py_XDECREF(text);
    }
    PyErr_Clear();
}

int pm_shadow_run(PyObject *module, PyObject **ret_shadowed)
{
    *ret_shadowed = NULL;
    if (running)
        return 0;
    running = true;
    PyObject *spec = find_spec();
    if (spec) {
        *ret_shadowed = load(spec, module);
        Py_DECREF(spec);
    }
    running = false;
    if (!PyErr_Occurred())
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback && value)
        (void)PyException_SetTraceback(value, traceback);
    if (!is_own_import_error(type, value))
        print_error(type, value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return 0;
}
