/*
 * Keeps vLLM from warning of our environment variables. From 0.17.0 on, vllm.envs.validate_environ
 * (Platform.validate_environ since 0.31) goes through os.environ and warns of each VLLM_* name that
 * is not in vllm.envs' environment_variables, or refuses to start. For the time of that call the
 * module has a copy of the dictionary with our names in it: the environment and vLLM's own
 * dictionary stay as they are, another thread that walks that dictionary is not disturbed, and
 * names nobody knows still warn.
 *
 * Runs in the process that builds the engine's configuration, under the GIL.
 */
#include "probe/probe.h"

#include <string.h>

#include "base/settings.h"
#include "probe/torch_profiler.h"

static PyObject *shown;  /* vLLM's own dictionary while a copy stands in for it */
static unsigned running; /* calls under way */

static PyObject *envs_dict(void)
{
    PyObject *envs = PyDict_GetItemString(PyImport_GetModuleDict(), "vllm.envs"); /* borrowed */
    return envs && PyModule_Check(envs) ? PyModule_GetDict(envs) : NULL;
}

static const char key[] = "environment_variables";

/* Every VLLM_* name of ours that is set, with a callable as value, as the others have. */
static int add_own_names(PyObject *names, PyObject *variables)
{
    PyObject *iterator = PyObject_GetIter(variables);
    if (!iterator)
        return -1;
    PyObject *name;
    while ((name = PyIter_Next(iterator))) {
        const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
        if (!text)
            PyErr_Clear();
        int status = 0;
        if (text && strncmp(text, "VLLM_", 5) == 0 &&
            (pm_settings_owns(text) || pm_torch_profiler_honours(text)) &&
            !PyDict_GetItemWithError(names, name))
            status = PyDict_SetItem(names, name, (PyObject *)&PyUnicode_Type);
        Py_DECREF(name);
        if (status < 0)
            break;
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

static void validate_enter(struct pm_call *call)
{
    call->scratch[0] = 0;
    PyObject *module = envs_dict();
    PyObject *own = module ? PyDict_GetItemString(module, key) : NULL; /* borrowed */
    if (!own || !PyDict_Check(own))
        return;
    call->scratch[0] = 1;
    if (running++ > 0)
        return;
    PyObject *os = PyDict_GetItemString(PyImport_GetModuleDict(), "os"); /* borrowed */
    PyObject *variables = os ? PyObject_GetAttrString(os, "environ") : NULL;
    PyObject *copy = variables ? PyDict_Copy(own) : NULL;
    if (copy && add_own_names(copy, variables) == 0) {
        Py_INCREF(own);
        if (PyDict_SetItemString(module, key, copy) == 0)
            shown = own;
        else
            Py_DECREF(own);
    }
    Py_XDECREF(copy);
    Py_XDECREF(variables);
}

static void validate_leave(struct pm_call *call)
{
    if (!call->scratch[0] || --running > 0 || !shown)
        return;
    PyObject *module = envs_dict();
    if (module)
        (void)PyDict_SetItemString(module, key, shown);
    Py_CLEAR(shown);
}

#define T PM_TARGET_ROW
static const struct pm_target targets[] = {
#include "probe/environ.def"
};
#undef T

const struct pm_probe pm_probe_environ = {
    .name = "environ",
    .targets = targets,
    .n_targets = sizeof targets / sizeof targets[0],
};
