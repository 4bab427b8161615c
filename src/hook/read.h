/*
 * Reading vLLM's objects from a probe: quickly, and whatever they are. Every function returns false
 * (or NULL) where the attribute is missing, raises, or is of another type or size than asked for,
 * with no exception set and outputs untouched; none of them prints, keeps references or calls
 * methods other than the attribute's own getter and __len__. GIL held; for use inside a hook's
 * half.
 *
 * Names are interned once and kept:   static struct pm_name name_running = PM_NAME("running");
 */
#ifndef PM_HOOK_READ_H
#define PM_HOOK_READ_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "probe/probe.h"

struct pm_name {
    const char *text;
    PyObject *object; /* interned, made on first use */
    struct pm_name *next;
};
#define PM_NAME(text_)                                                                             \
    {                                                                                              \
        .text = (text_)                                                                            \
    }

/* The name as an interned str, borrowed; NULL (no exception) without memory. */
PyObject *pm_name_object(struct pm_name *name);

/* Drops all interned names: for the module's m_free. They come back on next use. */
void pm_names_reset(void);

/* The attribute, a new reference. */
PyObject *pm_read_attr(PyObject *object, struct pm_name *name);

/* An int from 0 to 2^64 - 1 (bool and other subclasses too; nothing that merely converts: a tensor
 * would synchronise its device). */
bool pm_read_u64(PyObject *object, struct pm_name *name, uint64_t *ret_value);
bool pm_read_i64(PyObject *object, struct pm_name *name, int64_t *ret_value);

/* True or False, or an int. */
bool pm_read_bool(PyObject *object, struct pm_name *name, bool *ret_value);

/* A float or an int. */
bool pm_read_f64(PyObject *object, struct pm_name *name, double *ret_value);

/* len(object.name), and len(object). */
bool pm_read_len(PyObject *object, struct pm_name *name, uint64_t *ret_len);
bool pm_len(PyObject *object, uint64_t *ret_len);

/* A str as UTF-8, NUL-terminated, cut to size at a character's boundary; *ret_bytes (may be NULL)
 * is its length. False and an empty text otherwise. */
bool pm_read_text(PyObject *object, struct pm_name *name, char *out, size_t size,
                  size_t *ret_bytes);
bool pm_text(PyObject *object, char *out, size_t size, size_t *ret_bytes);

/* The same for a value at hand. */
bool pm_u64(PyObject *object, uint64_t *ret_value);

/* dict[key] for an exact or derived dict, borrowed; NULL where it is missing or no dict. */
PyObject *pm_dict_item(PyObject *dict, PyObject *key);

/* An argument of a hooked call, by position (0 is self for a method) or else by keyword; borrowed,
 * NULL if it was not given. */
PyObject *pm_call_arg(const struct pm_call *call, Py_ssize_t index, struct pm_name *keyword);

#endif
