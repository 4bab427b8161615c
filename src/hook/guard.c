/*
 * The guard (see guard.h): faults, budgets, what each thread is doing, and the counts for the live
 * header. Called with the GIL held; owns plain C statics only.
 */
#include "hook/guard.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

_Thread_local struct pm_guard_thread pm_guard_here;
uint32_t pm_guard_halves;

/* Why a probe was disarmed, kept so that every recorder of this process can say it. */
#define PM_GUARD_REASONS 32
struct reason {
    char key[64];
    char text[192];
};

static struct {
    struct pm_recorder *rec;
    pm_guard_fired_fn fired;
    struct pm_guard_totals pending; /* not in a header yet */
    struct pm_guard_totals flushed;
    struct reason reasons[PM_GUARD_REASONS];
    size_t n_reasons;
    struct {
        const struct pm_probe *probe;
        void (*enter)(struct pm_call *call);
        void (*leave)(struct pm_call *call);
    } groups[PM_GUARD_GROUPS];
    size_t n_groups;
} guard;

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* The parent's header is not mapped in a child, and what the parent counted is the parent's. */
static void after_fork_in_child(void)
{
    guard.rec = NULL;
    pm_guard_halves = pm_guard_here.inside != 0; /* other threads' are not here */
    memset(&guard.pending, 0, sizeof guard.pending);
    memset(&guard.flushed, 0, sizeof guard.flushed);
}

static void register_fork(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

static void flush(void)
{
    if (!guard.rec)
        return;
    struct pm_file_head *head = pm_recorder_head(guard.rec);
    if (!head)
        return;
    atomic_fetch_add_explicit(&head->hook_calls, guard.pending.calls, memory_order_relaxed);
    atomic_fetch_add_explicit(&head->hook_ns, guard.pending.ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&head->faults, guard.pending.faults, memory_order_relaxed);
    guard.flushed.calls += guard.pending.calls;
    guard.flushed.ns += guard.pending.ns;
    guard.flushed.faults += guard.pending.faults;
    memset(&guard.pending, 0, sizeof guard.pending);
}

void pm_guard_attach(struct pm_recorder *rec)
{
    pthread_once(&fork_once, register_fork);
    if (!rec)
        flush();
    bool changed = rec != guard.rec;
    guard.rec = rec;
    if (!rec || !changed)
        return;
    flush();
    for (size_t i = 0; i < guard.n_reasons; i++)
        pm_recorder_attr(rec, guard.reasons[i].key, guard.reasons[i].text);
}

void pm_guard_totals(struct pm_guard_totals *ret_totals)
{
    ret_totals->calls = guard.pending.calls + guard.flushed.calls;
    ret_totals->ns = guard.pending.ns + guard.flushed.ns;
    ret_totals->faults = guard.pending.faults + guard.flushed.faults;
}

void pm_guard_count(uint64_t calls, uint64_t ns)
{
    guard.pending.calls += calls;
    guard.pending.ns += ns;
    flush();
}

void pm_guard_on_fired(pm_guard_fired_fn fired)
{
    guard.fired = fired;
}

void pm_guard_fire(const struct pm_probe_state *state, const struct pm_target *target,
                   uint64_t start_ns)
{
    if (!guard.fired)
        return;
    pm_guard_here.inside++;
    guard.fired(state->probe, target, start_ns);
    pm_guard_here.inside--;
    if (PyErr_Occurred()) {
        pm_guard_here.inside++;
        pm_guard_discard();
        pm_guard_here.inside--;
        guard.pending.faults++;
        flush();
    }
}

/* Keeps the exception that is set for the caller of the hooked callable. The first one wins. */
static void keep(struct pm_guard_thread *here)
{
    if (here->interrupted) {
        PyErr_Clear();
        return;
    }
    PyErr_Fetch(&here->kept[0], &here->kept[1], &here->kept[2]);
    here->interrupted = 1;
}

void pm_guard_discard(void)
{
    if (!PyErr_Occurred())
        return;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return;
    }
    struct pm_guard_thread *here = &pm_guard_here;
    keep(here);
    if (here->inside)
        return;
    /* No hooked call to hand it to: have the interpreter raise it again at its next check. */
    PyObject *type = here->kept[0];
    PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), type);
    Py_CLEAR(here->kept[0]);
    Py_CLEAR(here->kept[1]);
    Py_CLEAR(here->kept[2]);
    here->interrupted = 0;
}

void pm_guard_deliver(struct pm_guard_thread *here)
{
    PyObject *type = here->kept[0], *value = here->kept[1], *traceback = here->kept[2];
    here->kept[0] = here->kept[1] = here->kept[2] = NULL;
    here->interrupted = 0;
    if (PyErr_Occurred()) {
        PyObject *old_type, *old_value, *old_traceback;
        PyErr_Fetch(&old_type, &old_value, &old_traceback);
        PyErr_NormalizeException(&old_type, &old_value, &old_traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (old_value && old_traceback)
            PyException_SetTraceback(old_value, old_traceback);
        if (value && old_value && value != old_value)
            PyException_SetContext(value, old_value);
        else
            Py_XDECREF(old_value);
        Py_XDECREF(old_type);
        Py_XDECREF(old_traceback);
    }
    PyErr_Restore(type, value, traceback);
}

void pm_guard_mute(void)
{
    pm_guard_here.inside++;
}

void pm_guard_unmute(void)
{
    struct pm_guard_thread *here = &pm_guard_here;
    if (--here->inside || !here->interrupted)
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    pm_guard_deliver(here);
    pm_guard_discard();
    PyErr_Restore(type, value, traceback);
}

uint8_t pm_guard_group(const struct pm_probe_state *state, const struct pm_target *target)
{
    if (!(target->flags & PM_TARGET_OUTERMOST))
        return PM_GUARD_NO_GROUP;
    size_t i = 0;
    while (i < guard.n_groups &&
           (guard.groups[i].probe != state->probe || guard.groups[i].enter != target->enter ||
            guard.groups[i].leave != target->leave))
        i++;
    if (i == PM_GUARD_GROUPS)
        return PM_GUARD_NO_GROUP;
    if (i == guard.n_groups) {
        guard.groups[i].probe = state->probe;
        guard.groups[i].enter = target->enter;
        guard.groups[i].leave = target->leave;
        guard.n_groups++;
    }
    return (uint8_t)i;
}

void pm_guard_disarm(struct pm_probe_state *state, const char *why)
{
    if (!atomic_exchange(&state->armed, false))
        return;
    struct reason spare, *reason = &spare;
    if (guard.n_reasons < PM_GUARD_REASONS)
        reason = &guard.reasons[guard.n_reasons++];
    snprintf(reason->key, sizeof reason->key, "probe.%s", state->probe->name);
    snprintf(reason->text, sizeof reason->text, "disarmed: %s", why);
    if (guard.rec)
        pm_recorder_attr(guard.rec, reason->key, reason->text);
}

/* The type's name, without its message: that may hold the program's data. */
static void type_name(PyObject *type, char *out, size_t size)
{
    snprintf(out, size, "an exception");
    PyObject *name = type ? PyObject_GetAttrString(type, "__name__") : NULL;
    const char *text = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    if (text)
        snprintf(out, size, "%s", text);
    Py_XDECREF(name);
    PyErr_Clear();
}

void pm_guard_fault(struct pm_probe_state *state, const struct pm_target *target, const char *half)
{
    struct pm_guard_thread *here = &pm_guard_here;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        keep(here);
        return;
    }
    here->inside++;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    guard.pending.faults++;
    flush();
    if (atomic_fetch_add(&state->faults, 1) + 1 >= PM_GUARD_BUDGET) {
        char name[48], why[160];
        type_name(type, name, sizeof name);
        snprintf(why, sizeof why, "%d faults, the last one %s in %s of %s:%s", PM_GUARD_BUDGET,
                 name, half, target->module, target->qualname);
        pm_guard_disarm(state, why);
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    /* Dropping it may have run a destructor of the program's: that cannot leave an exception. */
    here->inside--;
}
