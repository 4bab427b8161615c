/*
 * Runs and calls moe_graph.py (see moe_graph.h).
 */
#include "probe/moe_graph.h"

#include "hook/guard.h"
#include "hook/read.h"
#include "probe/moe_capture.h"

#define MODULE "_profilemate_moe"

/* src/probe/moe_graph.py as bytes, NUL at the end, made by the build. */
static const char source[] = {
#include "probe/moe_graph.inc"
};

/* The module, run on first use. Borrowed; NULL with an exception. */
static PyObject *module(void)
{
    PyObject *module = PyImport_AddModule(MODULE); /* borrowed from sys.modules */
    PyObject *names = module != NULL ? PyModule_GetDict(module) : NULL;
    if (names == NULL || PyDict_GetItemString(names, "make_device") != NULL)
        return module;
    if (PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) < 0)
        return NULL;
    /* This name of a file tells vLLM's check of traced sources that there is none. */
    PyObject *code = Py_CompileString(source, "<string>", Py_file_input);
    PyObject *result = code != NULL ? PyEval_EvalCode(code, names, names) : NULL;
    Py_XDECREF(code);
    Py_XDECREF(result);
    return result != NULL ? module : NULL;
}

/* A name of the module, new reference; NULL with an exception. */
static PyObject *name_of(const char *name)
{
    PyObject *from = module();
    return from != NULL ? PyObject_GetAttrString(from, name) : NULL;
}

PyObject *pm_moe_graph_traced(uint32_t handle, PyObject *previous)
{
    PyObject *function = name_of("traced");
    PyObject *count = function != NULL ? pm_moe_operation_new() : NULL;
    PyObject *result = count != NULL
                           ? PyObject_CallFunction(function, "OkO", count, (unsigned long)handle,
                                                   previous != NULL ? previous : Py_None)
                           : NULL;
    Py_XDECREF(count);
    Py_XDECREF(function);
    if (result == NULL)
        pm_guard_discard();
    return result;
}

/* [(experts, top_k, pairs), …] of the layers that count on the device. */
static PyObject *layers_of(uint16_t instance)
{
    PyObject *list = PyList_New(0);
    struct pm_moe_slot *slot;
    uint32_t nth = 0;
    for (unsigned n = 0; list != NULL && (slot = pm_moe_at(instance, n)) != NULL; n++) {
        if (slot->fact.seen != PM_MOE_DEVICE)
            continue;
        slot->device_nth = ++nth;
        PyObject *row = Py_BuildValue("(IIO)", slot->fact.experts, slot->fact.top_k,
                                      slot->fact.pairs ? Py_True : Py_False);
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

bool pm_moe_graph_device(uint16_t instance, PyObject *device, uint64_t most_rows)
{
    PyObject *function = name_of("make_device");
    PyObject *layers = function != NULL ? layers_of(instance) : NULL;
    PyObject *result = layers != NULL
                           ? PyObject_CallFunction(function, "IOOK", (unsigned)instance, device,
                                                   layers, (unsigned long long)most_rows)
                           : NULL;
    const bool good = result != NULL;
    Py_XDECREF(layers);
    Py_XDECREF(function);
    Py_XDECREF(result);
    if (!good)
        pm_guard_discard();
    return good;
}

PyObject *pm_moe_graph_capture(const struct pm_moe_slot *slot, PyObject *previous)
{
    PyObject *models = name_of("models");
    PyObject *key = models != NULL ? PyLong_FromLong(slot->fact.instance) : NULL;
    PyObject *model = key != NULL ? PyObject_GetItem(models, key) : NULL;
    PyObject *result = model != NULL
                           ? PyObject_CallMethod(model, "capture", "IO", slot->device_nth - 1,
                                                 previous != NULL ? previous : Py_None)
                           : NULL;
    Py_XDECREF(model);
    Py_XDECREF(key);
    Py_XDECREF(models);
    if (result == NULL)
        pm_guard_discard();
    return result;
}

bool pm_moe_graph_begin(uint16_t instance, uint32_t tokens)
{
    PyObject *function = name_of("begin");
    PyObject *result =
        function != NULL ? PyObject_CallFunction(function, "II", (unsigned)instance, tokens) : NULL;
    const bool good = result != NULL;
    Py_XDECREF(function);
    Py_XDECREF(result);
    if (!good)
        pm_guard_discard();
    return good;
}

/* Cells of one layer as Device lays them out; returns how many there were. */
static size_t take_layer(struct pm_moe_slot *slot, const int64_t *from)
{
    const uint32_t experts = slot->fact.experts;
    size_t used = (size_t)experts + 1;
    for (uint32_t expert = 0; expert < experts; expert++)
        slot->cells[PM_MOE_SELECTIONS].n[expert] = (uint64_t)from[expert];
    if (!slot->fact.pairs)
        return used;
    for (uint32_t a = 0; a < experts; a++) {
        for (uint32_t b = a + 1; b < experts; b++)
            slot->cells[PM_MOE_PAIRS].n[pm_moe_pair(experts, a, b)] =
                (uint64_t)from[used + (size_t)a * experts + b];
    }
    return used + (size_t)experts * experts + 1;
}

bool pm_moe_graph_end(uint16_t instance, bool read_back, bool last)
{
    PyObject *function = name_of("end");
    PyObject *result = function != NULL ? PyObject_CallFunction(function, "IOO", (unsigned)instance,
                                                                read_back ? Py_True : Py_False,
                                                                last ? Py_True : Py_False)
                                        : NULL;
    uint64_t address = 0;
    const bool good = pm_u64(result, &address);
    if (good && address != 0) {
        const int64_t *cells = (const int64_t *)(uintptr_t)address;
        struct pm_moe_slot *slot;
        for (unsigned n = 0; (slot = pm_moe_at(instance, n)) != NULL; n++) {
            if (slot->device_nth != 0)
                cells += take_layer(slot, cells);
        }
    }
    Py_XDECREF(function);
    Py_XDECREF(result);
    if (!good)
        pm_guard_discard();
    return good;
}
