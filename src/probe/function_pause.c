/*
 * Function tracing gives way to torch's profiler. Before CPython 3.12 a thread has one profile
 * function, and torch's profiler, where it records Python stacks (with_stack), puts its own on
 * every thread and takes it away at the end: ours would be gone for good. So tracing pauses for as
 * long: torch's trace has the functions of that time. With sys.monitoring both go on side by side.
 *
 * Hooks of the probe functions on torch.autograd.profiler.profile, through which each of torch's
 * interfaces starts and stops; a few calls in a process's life, GIL held.
 */
#include "probe/function.h"

#include <stdio.h>
#include <unistd.h>

#include "hook/read.h"
#include "session/attrs.h"

static struct {
    const void *holder; /* the profiler that tracing has given way to, never looked into */
    bool told;
} given;

static bool records_stacks(PyObject *profiler)
{
    static struct pm_name n_with_stack = PM_NAME("with_stack");
    PyObject *with = pm_read_attr(profiler, &n_with_stack);
    const bool records = with == Py_True;
    Py_XDECREF(with);
    return records;
}

static void resume(uint64_t now_ns)
{
    char why[640] = "", text[768];
    pm_tracer.calls.head->paused_ns += pm_clock_elapsed(pm_tracer.paused_ns, now_ns);
    given.holder = NULL;
    pm_tracer.gap++;
    atomic_store_explicit(&pm_tracer_last.self, NULL, memory_order_relaxed);
    pm_tracer.live = true;
    if (pm_profile_start(why, sizeof why))
        return;
    pm_tracer.live = false;
    snprintf(text, sizeof text, "functions are no longer traced after torch's profiler: %s", why);
    pm_facts_attr(PM_ATTR_NOTE_PREFIX "functions.pause", text);
}

static void start_enter(struct pm_call *call)
{
    if (!pm_tracer.live || given.holder || call->nargs < 1 || !records_stacks(call->args[0]))
        return;
    given.holder = call->args[0];
    pm_tracer.paused_ns = call->enter_ns;
    pm_tracer.live = false;
    __atomic_fetch_add(&pm_tracer.calls.head->pauses, 1, __ATOMIC_RELAXED);
    if (!given.told)
        pm_facts_attr(PM_ATTR_NOTE_PREFIX "functions.pause",
                      "functions are not traced while torch's profiler records Python stacks: "
                      "before CPython 3.12 a thread has one profile function, and torch's trace "
                      "has the functions of that time");
    given.told = true;
}

static void start_leave(struct pm_call *call)
{
    if (!call->result && given.holder && call->nargs >= 1 && call->args[0] == given.holder)
        resume(call->end_ns);
}

static void stop_leave(struct pm_call *call)
{
    if (given.holder && call->nargs >= 1 && call->args[0] == given.holder)
        resume(call->end_ns);
}

static const struct pm_target targets[] = {
    {.module = "torch.autograd.profiler",
     .qualname = "profile._start_trace",
     .kind = PM_TARGET_METHOD,
     .flags = PM_TARGET_OPTIONAL,
     .versions = "0.11.0+",
     .quiet_when = "torch's profiler was not started",
     .enter = start_enter,
     .leave = start_leave},
    {.module = "torch.autograd.profiler",
     .qualname = "profile.__exit__",
     .kind = PM_TARGET_METHOD,
     .flags = PM_TARGET_OPTIONAL,
     .versions = "0.11.0+",
     .quiet_when = "torch's profiler was not stopped",
     .leave = stop_leave},
};

const struct pm_target *pm_pause_targets(size_t *ret_n)
{
    *ret_n = pm_monitor_exists() ? 0 : sizeof targets / sizeof *targets;
    return targets;
}

void pm_pause_forget(void)
{
    given.holder = NULL;
}

void pm_pause_finish(uint64_t now_ns)
{
    if (given.holder && pm_tracer.calls.head)
        pm_tracer.calls.head->paused_ns += pm_clock_elapsed(pm_tracer.paused_ns, now_ns);
    given.holder = NULL;
}
