/*
 * The wrapper: the object that stands in a class or module in place of a hooked callable, calls the
 * original with the very arguments it was given, and the halves of the probes around it.
 *
 * The installer makes one per hooked attribute and puts it in place; anybody's thread calls it,
 * with the GIL held. It behaves as the original in every way that Python code can see, short of
 * identity and type(): binding, attributes (read and written through to the original), signature,
 * source, pickling by name, isinstance by __class__. `__wrapped__` is the original.
 *
 *   original in the __dict__          what pm_wrapper_new returns
 *   function                          wrapper that binds as a function
 *   builtin, method descriptor, any   wrapper that binds as the original does (another profiler's
 *   other callable                    descriptor keeps its own binding)
 *   staticmethod, classmethod         a descriptor of the same type around a wrapper of the
 * function class, property, not callable     NULL with TypeError
 *
 * A call of an `async def` function ends when its awaitable does: leave runs when the coroutine
 * returns, raises, is closed or is dropped, and the arguments are held until then. A call of a
 * generator or async generator function ends when it returns the generator.
 *
 * The clock is read before enter (enter_ns), after it if there was any (start_ns), and when the
 * original has returned (end_ns); these are shared by all targets of the wrapper. Enters run in the
 * order in which the targets were added, leaves in the reverse order.
 */
#ifndef PM_HOOK_WRAPPER_H
#define PM_HOOK_WRAPPER_H

#include "hook/compat.h"

#include <stdbool.h>
#include <stdint.h>

#include "hook/guard.h"
#include "probe/probe.h"

#define PM_WRAPPER_TARGETS 12

/* The types, part of the module's state: made by m_exec, visited and cleared with it. */
struct pm_wrapper_types {
    PyObject *method;    /* binds as a function */
    PyObject *callable;  /* binds as the original does */
    PyObject *bound;     /* what a `callable` binds to */
    PyObject *awaitable; /* a hooked coroutine under way */
};

/* 0, or -1 with an exception. */
PM_MUST_USE int pm_wrapper_types_init(PyObject *module, struct pm_wrapper_types *ret_types);
int pm_wrapper_types_visit(struct pm_wrapper_types *types, visitproc visit, void *arg);
void pm_wrapper_types_clear(struct pm_wrapper_types *types);

/* A stand-in for the attribute `original`, given raw as in the __dict__. New reference, or NULL
 * with an exception. Until pm_wrapper_add it only passes calls through. */
PyObject *pm_wrapper_new(struct pm_wrapper_types *types, PyObject *original);

/* Whether object is what pm_wrapper_new returned: a wrapper, or a static or class method of one. */
bool pm_wrapper_check(const struct pm_wrapper_types *types, PyObject *object);

/* The raw attribute that it stands for, to be put back: borrowed. NULL (no exception) if object is
 * not ours. */
PyObject *pm_wrapper_original(const struct pm_wrapper_types *types, PyObject *object);

/* One more target; state and target must outlive the wrapper. 0, or -1 with an exception (not ours,
 * PM_WRAPPER_TARGETS reached, a PM_TARGET_MODULE). Adding the same pair again has no effect. */
PM_MUST_USE int pm_wrapper_add(const struct pm_wrapper_types *types, PyObject *object,
                               struct pm_probe_state *state, const struct pm_target *target);

/* Takes all targets of one probe (NULL: of all) out; calls under way are still left. Returns how
 * many targets remain. */
size_t pm_wrapper_remove(const struct pm_wrapper_types *types, PyObject *object,
                         const struct pm_probe_state *state);

struct pm_wrapper_counts {
    uint64_t calls;    /* seen by at least one target */
    uint64_t first_ns; /* when the first of them began, 0: none */
    size_t targets;    /* in force */
};
void pm_wrapper_counts(const struct pm_wrapper_types *types, PyObject *object,
                       struct pm_wrapper_counts *ret_counts);

#endif
