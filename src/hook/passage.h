/*
 * One passage through a hooked callable: the hot path, shared by the plain call (wrapper.c), the
 * bound call (bound.c) and the coroutine (awaitable.c). Internal to these.
 *
 * GIL held; the passage lies on the C stack of the call, or in the awaitable.
 */
#ifndef PM_HOOK_PASSAGE_H
#define PM_HOOK_PASSAGE_H

#include "hook/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "hook/guard.h"
#include "hook/wrapper.h"
#include "probe/probe.h"

#define pm_unlikely(condition) __builtin_expect(!!(condition), 0)

/* One target on a wrapper. A slot keeps its place and its target for good, since calls under way
 * know it by its number. */
struct pm_slot {
    struct pm_probe_state *state;
    void (*enter)(struct pm_call *call);
    void (*leave)(struct pm_call *call);
    const struct pm_target *target;
    uint8_t group; /* of OUTERMOST targets, else PM_GUARD_NO_GROUP */
    bool removed;
    bool fired;
};

struct pm_wrapper {
    PyObject_HEAD pm_vectorcall_fn vectorcall; /* ours: see __vectorcalloffset__ */
    pm_vectorcall_fn direct;             /* the original's, where it never changes; else NULL */
    PyObject *original;                  /* what is called, and `__wrapped__` */
    uint32_t n_slots;                    /* in use, removed ones included */
    uint32_t n_live;                     /* not removed */
    uint32_t countdown;                  /* seen calls until pm_passage_after is due */
    bool coroutine;                      /* the original is an `async def` function … */
    bool coroutine_sure;                 /* … and not somebody's wrapper of one */
    bool (*quick)(const PyObject *self); /* of the only target, where it has one; else NULL */
    uint64_t quick_calls;                /* that it counted */
    uint64_t quick_counted;              /* of these, told to the guard */
    uint64_t calls;                      /* seen */
    uint64_t counted;                    /* of these, told to the guard */
    uint64_t first_ns;
    struct pm_slot slots[PM_WRAPPER_TARGETS];
    PyObject *raw; /* the attribute as it was: the original, or its static or class method */
    PyObject *bound_type;
    PyObject *awaitable_type;
    PyObject *weakrefs;
};

struct pm_passage {
    struct pm_call call;
    uint32_t entered;                        /* slots whose leave is due, a bit each */
    uint32_t grouped;                        /* slots that hold their OUTERMOST group */
    bool several;                            /* scratch is in use */
    uint64_t scratch[PM_WRAPPER_TARGETS][2]; /* of each slot, where there are several */
};

/* The parts of pm_passage_leave that are seldom run. (wrapper.c) */
PyObject *pm_passage_leave_failed(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                                  struct pm_passage *passage);
void pm_passage_after(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                      const struct pm_passage *passage);

/* Calls of bound and coroutine wrappers. (bound.c, awaitable.c) */
PyObject *pm_bound_new(struct pm_wrapper *wrapper, PyObject *inner, PyObject *self);
PyObject *pm_awaitable_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf,
                                  PyObject *kwnames);
/* The coroutine that a seen call returned (stolen), as one whose end is the call's. Where it cannot
 * be had the call ends now and the coroutine is returned as it is. */
PyObject *pm_awaitable_new(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                           struct pm_passage *passage, PyObject *inner);
/* Whether an object can be driven as a coroutine. */
bool pm_is_coroutine(PyObject *object);
extern PyType_Spec pm_bound_spec, pm_awaitable_spec;

/* object.name, a new reference or NULL with an exception. The name is interned first: a fresh str
 * each time would fill the interpreter's method cache. (stand_in.c) */
PyObject *pm_attr(PyObject *object, const char *name);

/* Attribute access of a stand-in: its type's own, then those of what it stands for. (wrapper.c) */
PyObject *pm_stand_in_getattr(PyObject *self, PyObject *name, PyObject *inner);

static inline PyObject *pm_call_original(const struct pm_wrapper *wrapper, PyObject *const *args,
                                         size_t nargsf, PyObject *kwnames)
{
    if (wrapper->direct)
        return wrapper->direct(wrapper->original, args, nargsf, kwnames);
    return pm_vectorcall(wrapper->original, args, nargsf, kwnames);
}

/* This thread's part of the guard. The compiler is kept from finding the address again at every
 * use, which is a function call in a shared object. */
static inline struct pm_guard_thread *pm_passage_here(void)
{
    struct pm_guard_thread *here = &pm_guard_here;
    __asm__("" : "+r"(here));
    return here;
}

/* Whether calls of this wrapper on this thread are to be passed through, unseen. */
static inline bool pm_passage_closed(const struct pm_wrapper *wrapper,
                                     const struct pm_guard_thread *here)
{
    return wrapper->n_live == 0 || here->inside != 0;
}

/* A call that its probe counts by a look at the object it is made on. */
static inline bool pm_passage_quick(struct pm_wrapper *wrapper, PyObject *const *args,
                                    size_t nargsf)
{
    if (!wrapper->quick || PM_VECTORCALL_NARGS(nargsf) == 0 || !wrapper->quick(args[0]))
        return false;
    wrapper->quick_calls++;
    return true;
}

/* Runs the enter of one slot. single: the wrapper has no other. */
static inline __attribute__((always_inline)) void
pm_passage_enter_slot(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                      struct pm_passage *passage, uint32_t i, bool single)
{
    struct pm_call *call = &passage->call;
    const struct pm_slot *slot = &wrapper->slots[i];
    struct pm_probe_state *state = slot->state;
    if (slot->removed || !atomic_load_explicit(&state->armed, memory_order_relaxed))
        return;
    if (slot->group != PM_GUARD_NO_GROUP) {
        if (here->depth[slot->group])
            return;
        here->depth[slot->group] = 1;
        passage->grouped |= 1u << i;
    }
    call->scratch[0] = call->scratch[1] = 0;
    if (slot->enter) {
        here->inside = 1;
        pm_guard_halves++;
        slot->enter(call);
        pm_guard_halves--;
        here->inside = 0;
        call->start_ns = 0;
        if (pm_unlikely(PyErr_Occurred() != NULL)) {
            pm_guard_fault(state, slot->target, "enter");
            return;
        }
    }
    if (!single) {
        passage->scratch[i][0] = call->scratch[0];
        passage->scratch[i][1] = call->scratch[1];
    }
    passage->entered |= 1u << i;
}

/* Runs the enters. The caller has filled args, nargs and kwnames. Afterwards: if here->interrupted,
 * the original must not be called and pm_passage_leave be given NULL; if nothing was entered, the
 * call is not seen and only pm_passage_ungroup is due. */
static inline __attribute__((always_inline)) void pm_passage_enter(struct pm_wrapper *wrapper,
                                                                   struct pm_guard_thread *here,
                                                                   struct pm_passage *passage)
{
    struct pm_call *call = &passage->call;
    uint32_t n_slots = wrapper->n_slots;
    passage->entered = passage->grouped = 0;
    passage->several = n_slots > 1;
    call->result = NULL;
    call->enter_ns = call->start_ns = pm_clock_now_ns();
    call->end_ns = 0;
    if (n_slots == 1)
        pm_passage_enter_slot(wrapper, here, passage, 0, true);
    else
        for (uint32_t i = 0; i < n_slots; i++)
            pm_passage_enter_slot(wrapper, here, passage, i, false);
    if (call->start_ns == 0)
        call->start_ns = pm_clock_now_ns();
}

/* Gives the OUTERMOST groups back that this passage took. */
static inline void pm_passage_ungroup(const struct pm_wrapper *wrapper,
                                      struct pm_guard_thread *here,
                                      const struct pm_passage *passage)
{
    for (uint32_t left = passage->grouped; left; left &= left - 1)
        here->depth[wrapper->slots[__builtin_ctz(left)].group] = 0;
}

static inline __attribute__((always_inline)) void
pm_passage_leave_slot(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                      struct pm_passage *passage, uint32_t i)
{
    const struct pm_slot *slot = &wrapper->slots[i];
    struct pm_probe_state *state = slot->state;
    if (!slot->leave || !atomic_load_explicit(&state->armed, memory_order_relaxed))
        return;
    passage->call.target = slot->target;
    here->inside = 1;
    pm_guard_halves++;
    slot->leave(&passage->call);
    pm_guard_halves--;
    here->inside = 0;
    if (pm_unlikely(PyErr_Occurred() != NULL))
        pm_guard_fault(state, slot->target, "leave");
}

/* Runs the leaves, with no exception set. */
static inline __attribute__((always_inline)) void pm_passage_halves(struct pm_wrapper *wrapper,
                                                                    struct pm_guard_thread *here,
                                                                    struct pm_passage *passage)
{
    if (!passage->several) {
        if (passage->entered)
            pm_passage_leave_slot(wrapper, here, passage, 0);
        return;
    }
    for (uint32_t left = passage->entered; left;) {
        uint32_t i = 31u - (uint32_t)__builtin_clz(left);
        left &= ~(1u << i);
        passage->call.scratch[0] = passage->scratch[i][0];
        passage->call.scratch[1] = passage->scratch[i][1];
        pm_passage_leave_slot(wrapper, here, passage, i);
    }
}

/* Ends a seen call: result is what the original returned, NULL if it raised (or was not called).
 * Returns what the caller is to get. */
static inline __attribute__((always_inline)) PyObject *
pm_passage_leave(struct pm_wrapper *wrapper, struct pm_guard_thread *here,
                 struct pm_passage *passage, PyObject *result)
{
    passage->call.end_ns = pm_clock_now_ns();
    pm_passage_ungroup(wrapper, here, passage);
    if (pm_unlikely(!result))
        return pm_passage_leave_failed(wrapper, here, passage);
    passage->call.result = result;
    pm_passage_halves(wrapper, here, passage);
    wrapper->calls++;
    if (pm_unlikely(--wrapper->countdown == 0))
        pm_passage_after(wrapper, here, passage);
    if (pm_unlikely(here->interrupted)) {
        Py_DECREF(result);
        pm_guard_deliver(here);
        return NULL;
    }
    return result;
}

#endif
