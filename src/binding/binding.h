/*
 * What the two files of profilemate._reader share: module.c, which has the module and its tables,
 * and parts.c, which has their parts. The only files beside hook/compat.h that include Python.
 */
#ifndef PM_BINDING_BINDING_H
#define PM_BINDING_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "view/arrow_view.h"

/* Raises what a code of ours means, with the sentence; returns NULL. */
PyObject *pm_binding_raise(int code, const struct pm_error *err);

/* A converter of PyArg_ParseTuple: an argument that is bytes, or None: NULL. */
int pm_binding_take(PyObject *object, void *ret_text);

/* Puts a value into a dict, or at the end of a list, and gives up the reference; value NULL: the
 * exception that is set. -1 with an exception. */
int pm_binding_put(PyObject *dict, const char *key, PyObject *value);
int pm_binding_add(PyObject *list, PyObject *item);

/* Text of a file or of the system, of whatever bytes. */
PyObject *pm_binding_text(const char *bytes);

/* NULL with an exception. Other threads run meanwhile. */
struct pm_session *pm_binding_session(const char *path);

/* What is told of a process of a session: a new dict; NULL with an exception. */
PyObject *pm_binding_process(const struct pm_process *process);

/* A capsule that owns the stream, which is from calloc. */
PyObject *pm_binding_stream(struct ArrowArrayStream *made);

/* Of parts.c. */
PyObject *pm_binding_survey(PyObject *module, PyObject *args);
PyObject *pm_binding_notes(PyObject *module, PyObject *args);
PyObject *pm_binding_settled(PyObject *module, PyObject *args);
PyObject *pm_binding_part(PyObject *module, PyObject *args);

#endif
