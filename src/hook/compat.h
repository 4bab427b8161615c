/* Everything that depends on the Python version, and the only place that includes Python.h. */
#ifndef PM_HOOK_COMPAT_H
#define PM_HOOK_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#endif
