/*
 * The guard: what keeps our halves of a hooked call harmless. The wrapper (wrapper.c) uses it on
 * whatever thread calls a hooked callable, with the GIL held; the installer and the session tell it
 * which recorder is in force.
 *
 *   - A half (a target's enter or leave) runs with no exception set. If it leaves one, that is
 *     discarded and counted, in the recorder's live header and in its probe's budget; a probe that
 *     has used its budget up is disarmed: its targets are skipped from then on, and one attribute
 *     `probe.<name>` = "disarmed: …" says so.
 *   - KeyboardInterrupt, SystemExit and the like are not ours: a signal handler ran while a half
 *     called Python. The caller of the hooked callable gets them, as if the signal had come just
 *     before or just after the call.
 *   - Hooked callables that are called by a half itself are passed through, unseen.
 *   - Nested calls of an OUTERMOST target on one thread are seen once.
 *   - Counts of calls and of our own time are gathered here and added to the live header.
 *
 * There is no lock: the GIL is one. Hooks belong to one interpreter of the process.
 */
#ifndef PM_HOOK_GUARD_H
#define PM_HOOK_GUARD_H

#include "hook/compat.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "probe/probe.h"
#include "recorder/recorder.h"

#define PM_GUARD_BUDGET 16      /* faults after which a probe is disarmed */
#define PM_GUARD_SAMPLE 64      /* every 64th call of a wrapper is timed and flushes its counts */
#define PM_GUARD_GROUPS 32      /* different OUTERMOST hooks in a process */
#define PM_GUARD_NO_GROUP 0xffu /* not OUTERMOST */

/* One probe in this process. Owned by the installer, in memory that lives as long as the process.
 * Begin with PM_PROBE_STATE(probe). */
struct pm_probe_state {
    const struct pm_probe *probe;
    _Atomic bool armed;      /* its targets are called */
    _Atomic uint32_t faults; /* of its halves, so far */
};
#define PM_PROBE_STATE(probe_)                                                                     \
    {                                                                                              \
        .probe = (probe_), .armed = true                                                           \
    }

/* The recorder in force, or NULL. What was counted before is added to its header. A child of fork()
 * has none until it is told (the parent's header is not mapped there). Call it with NULL before the
 * recorder is closed. */
void pm_guard_attach(struct pm_recorder *rec);

/* Called once per target, at the end of its first seen call, with no exception set and the hooks of
 * this thread off. May be NULL. */
typedef void (*pm_guard_fired_fn)(const struct pm_probe *probe, const struct pm_target *target,
                                  uint64_t start_ns);
void pm_guard_on_fired(pm_guard_fired_fn fired);

/* Instead of PyErr_Clear() in a half: drops the exception that is set, if any, but keeps one that
 * belongs to the program (KeyboardInterrupt, SystemExit) for the caller of the hooked callable. */
void pm_guard_discard(void);

/* Switches a probe off for good and records why: probe.<name> = "disarmed: <why>". Only the first
 * call for a probe has an effect. */
void pm_guard_disarm(struct pm_probe_state *state, const char *why);

/* Totals since the process began, including what is not in a header yet. */
struct pm_guard_totals {
    uint64_t calls;
    uint64_t ns;
    uint64_t faults;
};
void pm_guard_totals(struct pm_guard_totals *ret_totals);

/* For installer code outside of a hooked call that must not be seen by the hooks: nests. */
void pm_guard_mute(void);
void pm_guard_unmute(void);

/* ---- the wrapper's own ---- */

/* Of each thread. */
struct pm_guard_thread {
    uint32_t inside;                /* > 0: a half of ours runs: hooked calls pass through */
    uint32_t interrupted;           /* an exception of the program is kept in `kept` */
    PyObject *kept[3];              /* type, value, traceback; owned */
    uint8_t depth[PM_GUARD_GROUPS]; /* calls under way of each OUTERMOST group */
};
extern _Thread_local struct pm_guard_thread pm_guard_here;

/* Halves under way in all threads: one that calls Python may have let another thread run. While
 * there are any the recorder must stay. */
extern uint32_t pm_guard_halves;

/* The OUTERMOST group of a target: those of one probe with the same enter and leave share one, so
 * that an override and the method it calls by super() are one. PM_GUARD_NO_GROUP if the table is
 * full. */
uint8_t pm_guard_group(const struct pm_probe_state *state, const struct pm_target *target);

/* After a half that left an exception set: counts the fault, or keeps what is not ours. */
void pm_guard_fault(struct pm_probe_state *state, const struct pm_target *target, const char *half);

/* Takes a kept exception and sets it; if the program had one set itself (the call raised), that
 * becomes the context. */
void pm_guard_deliver(struct pm_guard_thread *thread);

/* Adds to the counts: calls seen, and ns of our own time. */
void pm_guard_count(uint64_t calls, uint64_t ns);

/* Tells about a first call. */
void pm_guard_fire(const struct pm_probe_state *state, const struct pm_target *target,
                   uint64_t start_ns);

#endif
