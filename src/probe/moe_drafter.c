/* A drafter's modules (see moe_drafter.h). Owns nothing. */
#include "probe/moe_drafter.h"

#include "hook/guard.h"
#include "hook/read.h"

static struct pm_name n_model_runner = PM_NAME("model_runner");
static struct pm_name n_drafter = PM_NAME("drafter");       /* the older runner's */
static struct pm_name n_speculator = PM_NAME("speculator"); /* the newer runner's */
static struct pm_name n_model = PM_NAME("model");
static struct pm_name n_modules = PM_NAME("modules");

/* torch.nn.Module.modules(): a generator over the module and all in it. */
static PyObject *modules_of(PyObject *model)
{
    PyObject *method = model != NULL ? pm_read_attr(model, &n_modules) : NULL;
    PyObject *each = method != NULL ? pm_vectorcall(method, NULL, 0, NULL) : NULL;
    PyObject *list = each != NULL ? PySequence_List(each) : NULL;
    Py_XDECREF(each);
    Py_XDECREF(method);
    if (PyErr_Occurred() != NULL)
        pm_guard_discard();
    return list;
}

PyObject *pm_moe_drafter_modules(PyObject *worker)
{
    struct pm_name *const names[] = {&n_drafter, &n_speculator};
    PyObject *runner = pm_read_attr(worker, &n_model_runner);
    PyObject *list = NULL;
    for (size_t i = 0; runner != NULL && list == NULL && i < 2; i++) {
        PyObject *drafter = pm_read_attr(runner, names[i]);
        PyObject *model = drafter != NULL ? pm_read_attr(drafter, &n_model) : NULL;
        list = modules_of(model);
        Py_XDECREF(model);
        Py_XDECREF(drafter);
    }
    Py_XDECREF(runner);
    return list;
}

bool pm_moe_drafter_has(PyObject *modules, const PyObject *layer)
{
    for (Py_ssize_t i = 0; modules != NULL && i < PyList_Size(modules); i++) {
        if (PyList_GetItem(modules, i) == layer)
            return true;
    }
    return false;
}
