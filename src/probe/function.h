/*
 * What the files of function tracing share: the tracer of this process. GIL held everywhere; the
 * state lives as long as the process.
 *
 *   function.c          the probe: when tracing begins, where its table lies, what it says
 *   function_code.c     a code object's names, and whether the setting wants it
 *   function_monitor.c  the interpreter's events through sys.monitoring (3.12 and later)
 *   function_profile.c  … and through a profile function (3.10, 3.11)
 *   function_pause.c    … which torch's profiler takes away while it records stacks
 *   function_tree.c     what is counted; pure C
 */
#ifndef PM_PROBE_FUNCTION_H
#define PM_PROBE_FUNCTION_H

#include "probe/probe.h"

#include "base/function_filter.h"
#include "hook/guard.h"
#include "probe/function_tree.h"

struct pm_tracer {
    bool live;          /* calls are counted */
    uint32_t gap;       /* pauses that are over */
    uint64_t paused_ns; /* when the last one began */
    struct pm_calls calls;
    struct pm_function_filter filter;
    int32_t *fresh; /* by row: f_lasti of a generator's frame that has not run yet */
};
extern struct pm_tracer pm_tracer;
extern _Thread_local struct pm_calls_thread pm_tracer_here;

/* ---- function.c ---- */

/* Asks again for the name of a thread that was met before threading knew it. */
#define PM_TRACER_ASK 32
void pm_tracer_name(struct pm_calls_thread *here);

/* What tells threads apart, without a call: where the thread's own memory lies. */
static inline const void *pm_tracer_self(void)
{
    const void *self;
#if defined(__x86_64__)
    __asm__("mov %%fs:0, %0" : "=r"(self));
#elif defined(__aarch64__)
    __asm__("mrs %0, tpidr_el0" : "=r"(self));
#else
    self = &pm_tracer_here;
#endif
    return self;
}

/* The thread that was seen last, since in a shared object its own memory costs a call to find. A
 * thread that ends takes itself out, without the GIL. */
struct pm_tracer_last {
    _Atomic(const void *) self;
    struct pm_calls_thread *here;
    struct pm_guard_thread *guard;
};
extern struct pm_tracer_last pm_tracer_last;

/* Finds, and if need be meets, the calling thread; NULL: it cannot be counted on. */
struct pm_calls_thread *pm_tracer_find(uint64_t now_ns);

/* The thread's part, ready for use; NULL while nothing is to be counted on it. */
static inline struct pm_calls_thread *pm_tracer_thread(uint64_t now_ns)
{
    if (__builtin_expect(!pm_tracer.live, 0))
        return NULL;
    if (__builtin_expect(atomic_load_explicit(&pm_tracer_last.self, memory_order_relaxed) !=
                             pm_tracer_self(),
                         0))
        return pm_tracer_find(now_ns);
    return __builtin_expect(pm_tracer_last.guard->inside != 0, 0) ? NULL : pm_tracer_last.here;
}

/* ---- function_code.c ---- */

/* Learns a code object that runs now: its row, or PM_CALLS_SKIPPED. Leaves exceptions as they are.
 */
uint32_t pm_tracer_learn(PyObject *code);

static inline uint32_t pm_tracer_row(PyObject *code)
{
    uint32_t row = pm_calls_code(&pm_tracer.calls, code);
    return row == PM_CALLS_UNKNOWN ? pm_tracer_learn(code) : row;
}

/* The node of a call of code on this thread, 0 if it is not traced. */
static inline uint32_t pm_tracer_node(struct pm_calls_thread *here, PyObject *code)
{
    uint32_t node = pm_calls_last(&pm_tracer.calls, here, code);
    if (__builtin_expect(node != 0, 1))
        return node;
    uint32_t row = pm_tracer_row(code);
    if (__builtin_expect(!here->named, 0))
        pm_tracer_name(here);
    return row == PM_CALLS_SKIPPED ? 0 : pm_calls_path(&pm_tracer.calls, here, code, row);
}

/* ---- function_pause.c ---- */

/* The hooks on torch's profiler, where this interpreter needs them. */
const struct pm_target *pm_pause_targets(size_t *ret_n);
/* In a child of fork(): whatever was paused is the parent's. */
void pm_pause_forget(void);
/* At the process's own end, within a pause or not. */
void pm_pause_finish(uint64_t now_ns);

/* ---- function_monitor.c, function_profile.c ---- */

/* Whether this interpreter has sys.monitoring. */
bool pm_monitor_exists(void);

/* Asks the interpreter for its calls and returns. False with a clause in why ("another profiler …")
 * where that cannot be had; no exception is left. May be called again, in a child of fork(). */
bool pm_monitor_start(char *why, size_t size);
bool pm_profile_start(char *why, size_t size);

/* The calling thread's first event after a pause: finds out which of its calls still run. */
void pm_profile_after_pause(struct pm_calls_thread *here, uint64_t now_ns);

#endif
