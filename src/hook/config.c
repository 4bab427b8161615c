/*
 * ProfilingConfig: the seeds' class, made from the environment when somebody asks for it, whether
 * the gate is open or not. Called under the GIL; owns nothing.
 *
 * Attribute names are those of the settings (the part of VLLM_PROFILING_<X>), and OUTPUT_DIR for
 * DIR. Neither the class nor its attributes can be changed: the settings are the environment's.
 */
#include "hook/hook.h"

#include <stdlib.h>

#include "hook/session.h"

static int refuse(PyObject *self, PyObject *name, PyObject *value)
{
    (void)self, (void)value;
    PyErr_Format(PyExc_AttributeError,
                 "ProfilingConfig.%U is read-only: set VLLM_PROFILING_%U in the environment", name,
                 name);
    return -1;
}

static PyType_Slot meta_slots[] = {{Py_tp_setattro, refuse}, {0, NULL}};
static PyType_Spec meta_spec = {
    .name = "profilemate.ReadOnly",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = meta_slots,
};

static PyObject *value_of(const struct pm_setting_row *row, const void *field)
{
    int number = 0;
    if (strcmp(row->type, "TEXT") == 0)
        return PyUnicode_DecodeFSDefault(field);
    memcpy(&number, field, sizeof number);
    if (strcmp(row->type, "BOOL") == 0)
        return PyBool_FromLong(number);
    if (strcmp(row->type, "TRISTATE") == 0)
        return number < 0 ? PyUnicode_FromString("auto") : PyBool_FromLong(number);
    if (strcmp(row->type, "PRESET") == 0)
        return PyUnicode_FromString(number == PM_PRESET_SIMPLE ? "simple" : "full");
    if (strcmp(row->type, "REQUEST_IDS") == 0)
        return PyUnicode_FromString(number == PM_REQUEST_IDS_HASH ? "hash" : "plain");
    return PyLong_FromLong(number);
}

static int fill(PyObject *dict, const struct pm_settings *settings)
{
    const void *const fields[] = {
#define X(field, type, env, option, def, min, max, metavar, doc) &settings->field,
#include "base/settings.def"
#undef X
    };
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        const struct pm_setting_row *row = &pm_setting_rows[i];
        PyObject *value = value_of(row, fields[i]);
        int status = value ? PyDict_SetItemString(dict, row->env, value) : -1;
        if (status == 0 && strcmp(row->env, "DIR") == 0)
            status = PyDict_SetItemString(dict, "OUTPUT_DIR", value);
        Py_XDECREF(value);
        if (status < 0)
            return -1;
    }
    return 0;
}

PyObject *pm_config_new(void)
{
    PyObject *meta = NULL, *dict = NULL, *made = NULL, *doc = NULL;
    PyObject *bases = PyTuple_Pack(1, (PyObject *)&PyType_Type);
    struct pm_settings *settings = malloc(sizeof *settings);
    if (!bases || !settings)
        goto done;
    /* While the gate is open these are the settings in force. */
    if (pm_hook_current())
        memcpy(settings, pm_facts_settings(), sizeof *settings);
    else
        pm_session_settings(settings, NULL);
    meta = PyType_FromSpecWithBases(&meta_spec, bases);
    dict = PyDict_New();
    doc = PyUnicode_FromString("The settings of ProfileMate, as the environment gives them.");
    if (!meta || !dict || !doc || PyDict_SetItemString(dict, "__doc__", doc) < 0 ||
        fill(dict, settings) < 0)
        goto done;
    made = PyObject_CallFunction(meta, "s()O", "ProfilingConfig", dict);
done:
    free(settings);
    Py_XDECREF(doc);
    Py_XDECREF(bases);
    Py_XDECREF(meta);
    Py_XDECREF(dict);
    if (!made && !PyErr_Occurred())
        PyErr_NoMemory();
    return made;
}
