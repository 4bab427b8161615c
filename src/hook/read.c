/*
 * Attribute reads for probes (see read.h). GIL held; owns the interned names.
 */
#include "hook/read.h"

#include <string.h>

#include "hook/guard.h"

static struct pm_name *names; /* those that hold an object */

PyObject *pm_name_object(struct pm_name *name)
{
    if (name->object)
        return name->object;
    name->object = PyUnicode_InternFromString(name->text);
    if (!name->object) {
        pm_guard_discard();
        return NULL;
    }
    name->next = names;
    names = name;
    return name->object;
}

void pm_names_reset(void)
{
    while (names) {
        struct pm_name *name = names;
        names = name->next;
        name->next = NULL;
        Py_CLEAR(name->object);
    }
}

PyObject *pm_read_attr(PyObject *object, struct pm_name *name)
{
    PyObject *key = pm_name_object(name), *value = NULL;
    if (!object || !key)
        return NULL;
    if (pm_attr_optional(object, key, &value) < 0) {
        pm_guard_discard();
        return NULL;
    }
    return value;
}

bool pm_u64(PyObject *object, uint64_t *ret_value)
{
    if (!object || !PyLong_Check(object))
        return false;
    unsigned long long value = PyLong_AsUnsignedLongLong(object);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        pm_guard_discard();
        return false;
    }
    *ret_value = value;
    return true;
}

bool pm_read_u64(PyObject *object, struct pm_name *name, uint64_t *ret_value)
{
    PyObject *value = pm_read_attr(object, name);
    bool good = pm_u64(value, ret_value);
    Py_XDECREF(value);
    return good;
}

bool pm_read_i64(PyObject *object, struct pm_name *name, int64_t *ret_value)
{
    PyObject *value = pm_read_attr(object, name);
    bool good = false;
    if (value && PyLong_Check(value)) {
        long long number = PyLong_AsLongLong(value);
        good = number != -1 || !PyErr_Occurred();
        if (good)
            *ret_value = number;
        else
            pm_guard_discard();
    }
    Py_XDECREF(value);
    return good;
}

bool pm_read_bool(PyObject *object, struct pm_name *name, bool *ret_value)
{
    PyObject *value = pm_read_attr(object, name);
    bool good = true;
    if (value == Py_True)
        *ret_value = true;
    else if (value == Py_False)
        *ret_value = false;
    else {
        int overflow = 0;
        good = value && PyLong_Check(value);
        if (good) /* an overflow is not zero, and sets no exception */
            *ret_value = PyLong_AsLongLongAndOverflow(value, &overflow) != 0 || overflow;
    }
    Py_XDECREF(value);
    return good;
}

bool pm_read_f64(PyObject *object, struct pm_name *name, double *ret_value)
{
    PyObject *value = pm_read_attr(object, name);
    bool good = false;
    if (value && (PyFloat_Check(value) || PyLong_Check(value))) {
        double number = PyFloat_Check(value) ? PyFloat_AsDouble(value) : PyLong_AsDouble(value);
        good = number != -1.0 || !PyErr_Occurred();
        if (good)
            *ret_value = number;
        else
            pm_guard_discard();
    }
    Py_XDECREF(value);
    return good;
}

bool pm_len(PyObject *object, uint64_t *ret_len)
{
    if (!object)
        return false;
    Py_ssize_t len = PyObject_Size(object);
    if (len < 0) {
        pm_guard_discard();
        return false;
    }
    *ret_len = (uint64_t)len;
    return true;
}

bool pm_read_len(PyObject *object, struct pm_name *name, uint64_t *ret_len)
{
    PyObject *value = pm_read_attr(object, name);
    bool good = pm_len(value, ret_len);
    Py_XDECREF(value);
    return good;
}

bool pm_text(PyObject *object, char *out, size_t size, size_t *ret_bytes)
{
    if (size)
        out[0] = '\0';
    if (ret_bytes)
        *ret_bytes = 0;
    if (!object || !PyUnicode_Check(object) || size == 0)
        return false;
    Py_ssize_t len = 0;
    const char *text = PyUnicode_AsUTF8AndSize(object, &len);
    if (!text) { /* lone surrogates, or no memory */
        pm_guard_discard();
        return false;
    }
    size_t bytes = (size_t)len;
    if (bytes >= size) {
        bytes = size - 1;
        while (bytes && ((unsigned char)text[bytes] & 0xc0) == 0x80)
            bytes--; /* text[bytes] continues a character */
    }
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    if (ret_bytes)
        *ret_bytes = bytes;
    return true;
}

bool pm_read_text(PyObject *object, struct pm_name *name, char *out, size_t size, size_t *ret_bytes)
{
    PyObject *value = pm_read_attr(object, name);
    bool good = pm_text(value, out, size, ret_bytes);
    Py_XDECREF(value);
    return good;
}

PyObject *pm_dict_item(PyObject *dict, PyObject *key)
{
    if (!dict || !key || !PyDict_Check(dict))
        return NULL;
    PyObject *value = PyDict_GetItemWithError(dict, key);
    if (!value)
        pm_guard_discard();
    return value;
}

PyObject *pm_call_arg(const struct pm_call *call, Py_ssize_t index, struct pm_name *keyword)
{
    if (index >= 0 && index < call->nargs)
        return call->args[index];
    if (!call->kwnames || !keyword)
        return NULL;
    PyObject *key = pm_name_object(keyword);
    Py_ssize_t count = PyTuple_Size(call->kwnames);
    for (Py_ssize_t i = 0; i < count; i++)
        if (PyTuple_GetItem(call->kwnames, i) == key)
            return call->args[call->nargs + i];
    for (Py_ssize_t i = 0; i < count; i++) /* a name that is not interned */
        if (PyUnicode_CompareWithASCIIString(PyTuple_GetItem(call->kwnames, i), keyword->text) == 0)
            return call->args[call->nargs + i];
    return NULL;
}
