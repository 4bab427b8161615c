/*
 * Everything that depends on the Python version, and the only place that includes Python.h.
 *
 * The extension is built against the limited API of 3.10 and runs on 3.10 to 3.14. What it needs
 * beyond that exists in every one of those interpreters as a plain symbol or a constant and is
 * declared here by hand. A symbol that some interpreter lacks is weak: it is NULL there, and the
 * inline function that uses it has another way. The ones newer than 3.8 are weak too, so that the
 * shared object can be loaded (and do nothing) on an older interpreter.
 */
#ifndef PM_HOOK_COMPAT_H
#define PM_HOOK_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h> /* T_PYSSIZET, READONLY: the names that every version has */

#include <stddef.h>
#include <string.h>

/* Type flags (Include/object.h; the limited API shows them only in later versions). */
#define PM_TPFLAGS_DISALLOW_INSTANTIATION (1ul << 7) /* 3.10 */
#define PM_TPFLAGS_IMMUTABLETYPE (1ul << 8)          /* 3.10 */
#define PM_TPFLAGS_HAVE_VECTORCALL (1ul << 11)       /* 3.8 */
#define PM_TPFLAGS_METHOD_DESCRIPTOR (1ul << 17)     /* 3.8 */

/* A macro over PyCMethod_New from 3.9 on, which 3.8 lacks; the function is in every version. */
#undef PyCFunction_NewEx

/* Flag of a code object: `async def` (Include/cpython/code.h). */
#define PM_CO_COROUTINE 0x80

/* Vectorcall (PEP 590). In the limited API from 3.12; the layout is the same since 3.8. */
typedef PyObject *(*pm_vectorcall_fn)(PyObject *callable, PyObject *const *args, size_t nargsf,
                                      PyObject *kwnames);
#define PM_VECTORCALL_ARGUMENTS_OFFSET ((size_t)1 << (8 * sizeof(size_t) - 1))
#define PM_VECTORCALL_NARGS(nargsf) ((Py_ssize_t)((nargsf) & ~PM_VECTORCALL_ARGUMENTS_OFFSET))

#ifdef Py_LIMITED_API
extern PyObject *PyObject_Vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                                     PyObject *kwnames) __attribute__((weak));           /* 3.11 */
extern pm_vectorcall_fn PyVectorcall_Function(PyObject *callable) __attribute__((weak)); /* 3.11 */
extern PyObject *PyVectorcall_Call(PyObject *callable, PyObject *tuple, PyObject *dict)
    __attribute__((weak));
extern PyObject *PyMethod_New(PyObject *function, PyObject *self) __attribute__((weak));
extern PyTypeObject PyFunction_Type, PyStaticMethod_Type, PyClassMethod_Type;
/* Get an attribute without making an AttributeError: 1 found, 0 not there, -1 raised. */
extern int PyObject_GetOptionalAttr(PyObject *object, PyObject *name, PyObject **ret_value)
    __attribute__((weak)); /* 3.13 */
extern int _PyObject_LookupAttr(PyObject *object, PyObject *name, PyObject **ret_value)
    __attribute__((weak)); /* 3.7 to 3.12 */
#endif
#pragma weak PyCMethod_New
#pragma weak PyFrame_GetCode
#pragma weak PyType_FromModuleAndSpec
#pragma weak PyType_GetModule
#pragma weak PyType_GetModuleState
#pragma weak PyIter_Send
#pragma weak PyObject_GC_IsFinalized
#pragma weak PyInterpreterState_Get
#pragma weak PyObject_CallNoArgs

/* The vectorcall function of a callable, NULL if it has none. 3.10 has this only as an inline
 * function over the type object: tp_vectorcall_offset is its eighth word there, and that version's
 * layout is closed. */
static inline pm_vectorcall_fn pm_vectorcall_of(PyObject *callable)
{
    if (PyVectorcall_Function)
        return PyVectorcall_Function(callable);
    PyTypeObject *type = Py_TYPE(callable);
    if (!(PyType_GetFlags(type) & PM_TPFLAGS_HAVE_VECTORCALL))
        return NULL;
    Py_ssize_t offset;
    memcpy(&offset, (const char *)type + 7 * sizeof(void *), sizeof offset);
    pm_vectorcall_fn function = NULL;
    if (offset > 0)
        memcpy(&function, (const char *)callable + offset, sizeof function);
    return function;
}

/* Calls with vectorcall's arguments, whatever the interpreter and the callable. (wrapper.c) */
PyObject *pm_vectorcall_slow(PyObject *callable, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames);

static inline PyObject *pm_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf,
                                      PyObject *kwnames)
{
    if (PyObject_Vectorcall)
        return PyObject_Vectorcall(callable, args, nargsf, kwnames);
    return pm_vectorcall_slow(callable, args, nargsf, kwnames);
}

/* An attribute, new reference: 1 found, 0 not there (no exception set), -1 raised. */
static inline int pm_attr_optional(PyObject *object, PyObject *name, PyObject **ret_value)
{
    if (PyObject_GetOptionalAttr)
        return PyObject_GetOptionalAttr(object, name, ret_value);
    if (_PyObject_LookupAttr)
        return _PyObject_LookupAttr(object, name, ret_value);
    *ret_value = PyObject_GetAttr(object, name);
    if (*ret_value)
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* A profile function (Include/cpython/pystate.h, the same since 3.8), for interpreters without
 * sys.monitoring. None of this is in the limited API; all of it is exported by 3.9 to 3.12. */
typedef int (*pm_tracefunc)(PyObject *self, PyFrameObject *frame, int what, PyObject *arg);
enum { PM_TRACE_CALL = 0, PM_TRACE_RETURN = 3 };
#ifdef Py_LIMITED_API
extern void PyEval_SetProfile(pm_tracefunc function, PyObject *self) __attribute__((weak));
extern int _PyEval_SetProfile(PyThreadState *thread, pm_tracefunc function, PyObject *self)
    __attribute__((weak));
extern PyThreadState *PyInterpreterState_ThreadHead(PyInterpreterState *interpreter)
    __attribute__((weak));
extern PyThreadState *PyThreadState_Next(PyThreadState *thread) __attribute__((weak));
#endif

static inline int pm_profile_possible(void)
{
    return PyEval_SetProfile != NULL && PyFrame_GetCode != NULL;
}

/* Gives every other thread of this interpreter the profile function. */
static inline void pm_profile_others(pm_tracefunc function, PyObject *self)
{
    if (!_PyEval_SetProfile || !PyInterpreterState_ThreadHead || !PyThreadState_Next)
        return;
    PyThreadState *own = PyThreadState_Get();
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; thread; thread = PyThreadState_Next(thread))
        if (thread != own && _PyEval_SetProfile(thread, function, self) < 0)
            PyErr_Clear();
}

#endif
