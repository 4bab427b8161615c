/*
 * What a probe is: a const struct of the facts it records and the places it hooks. probes.def lists
 * them all; the hooks below run inside vLLM's processes, under the GIL, and must never raise,
 * block, print or change anything.
 *
 * The wrapper (hook/wrapper.c) calls enter before and leave after the original callable, with the
 * clock read for both. It guards them: an exception that they raise is discarded and counted, a
 * probe over its fault budget is disarmed, and a hook that is entered again from within itself on
 * the same thread is passed through for the inner call only if the target says so
 * (PM_TARGET_OUTERMOST).
 */
#ifndef PM_PROBE_PROBE_H
#define PM_PROBE_PROBE_H

#include "hook/compat.h" /* Python.h, limited API */

#include <stdbool.h>
#include <stdint.h>

#include "base/settings.h"
#include "recorder/recorder.h"
#include "session/schema.h"

/* One call of a hooked callable, on the wrapper's C stack. args[0] is self for a method. */
struct pm_call {
    PyObject *const *args; /* positional, then keyword values (as vectorcall) */
    Py_ssize_t nargs;      /* positional ones */
    PyObject *kwnames;     /* tuple of names or NULL */
    PyObject *result;      /* leave only, borrowed; NULL if the call raised */
    PyObject *raised;      /* leave with result NULL only, borrowed: the type of what it raised;
                              NULL: not known */
    uint64_t enter_ns;     /* CLOCK_MONOTONIC, when our enter began */
    uint64_t start_ns;     /* when the original was called (after our enter) */
    uint64_t end_ns;       /* leave only: when the original returned */
    uint64_t scratch[2];   /* from enter to leave of the same target */
    const struct pm_target *target; /* leave only: whose leave this is */
};

enum pm_target_kind {
    PM_TARGET_METHOD,   /* function in a class's own __dict__: "Class.method" (also static and class
                           methods) */
    PM_TARGET_FUNCTION, /* function in a module: "function" */
    PM_TARGET_MODULE,   /* no callable: `ready` is called once with the module when it has been
                           imported */
};

enum pm_target_flags {
    PM_TARGET_OPTIONAL = 1, /* may be missing in a vLLM that we support: not a fault */
    PM_TARGET_OUTERMOST =
        2, /* a nested call on the same thread (an override calling super) is not seen */
    PM_TARGET_QUICK = 4, /* the probe's `quick` is asked first */
};

struct pm_target {
    const char *module;   /* "vllm.v1.core.sched.scheduler" */
    const char *qualname; /* "Scheduler.schedule"; for PM_TARGET_MODULE the attribute used, for
                             doctor's sake */
    enum pm_target_kind kind;
    unsigned flags;         /* enum pm_target_flags */
    const char *versions;   /* vLLM releases that have it: "0.11.0+", "0.28.0+" */
    const char *quiet_when; /* why it may have been found and never fired, a sentence for doctor;
                               NULL: no such case */
    void (*enter)(struct pm_call *call); /* may be NULL */
    void (*leave)(struct pm_call *call); /* may be NULL; not called if enter failed */
    void (*ready)(PyObject *module);     /* PM_TARGET_MODULE only */
};

/* A T row of a probe's .def as its struct pm_target: the functions are <hook>_enter and
 * <hook>_leave. */
#define PM_TARGET_ROW(hook, module_, qualname_, kind_, flags_, versions_, quiet_when_)             \
    {.module = module_,                                                                            \
     .qualname = qualname_,                                                                        \
     .kind = PM_TARGET_##kind_,                                                                    \
     .flags = flags_,                                                                              \
     .versions = versions_,                                                                        \
     .quiet_when = quiet_when_,                                                                    \
     .enter = hook##_enter,                                                                        \
     .leave = hook##_leave},

/* How a probe takes part when a running process is switched (`profilemate set`, `start`, `stop`).
 */
enum pm_probe_control {
    PM_PROBE_SPINE = 1, /* goes with the session: on from its beginning to its end */
    PM_PROBE_EARLY =
        2, /* can be on only where it was on when vLLM was imported: `early` says why */
    PM_PROBE_STAYS = 4, /* cannot be taken out again */
};

struct pm_probe {
    const char *name;      /* one word: file, option, test, manual and page use it */
    const char *component; /* console: "Successfully patched <component>", NULL: silent */
    bool (*enabled)(const struct pm_settings *settings); /* NULL: on even when switched off */
    const struct pm_schema *const *schemas;
    size_t n_schemas;
    const struct pm_target *targets;
    size_t n_targets;
    /* Further targets, made from the settings: asked once, by the installer, where the probe is on;
     * they live as long as the process. May be NULL. */
    const struct pm_target *(*more)(const struct pm_settings *settings, size_t *ret_n);
    /* Asked before a target is hooked: the module or class that its name led to, and the raw
     * attribute there, NULL where there is none. False: it is not to be hooked, and the probe has
     * said why. May be NULL: always. */
    bool (*accepts)(const struct pm_target *target, PyObject *owner, PyObject *original);
    /* Of targets with PM_TARGET_QUICK, where nothing else is hooked on the callable: asked before
     * all else with the first argument. True: the probe has counted the call, which is passed on
     * without enter, leave and clock. Must not touch the object nor call Python. May be NULL. */
    bool (*quick)(const PyObject *self);
    unsigned control;        /* enum pm_probe_control bits */
    const char *early;       /* PM_PROBE_EARLY: why, a sentence without its full stop */
    void (*pause)(void);     /* switched off while the process runs: takes out what it put into
                                vLLM's objects itself; may be NULL */
    void (*resume)(void);    /* on again after a pause: what was missed is forgotten, numbers go on;
                                NULL: reset where the probe has that */
    void (*reset)(void);     /* forget what was learned: after fork, and for tests; may be NULL */
    pm_keyframe_fn keyframe; /* re-records what a new segment must know; may be NULL */
    void (*finish)(struct pm_recorder *rec, uint64_t now_ns); /* records what it still holds, at the
                        process's own end: Python has gone; may be NULL */
};

/* The process's recorder, opened on first use: this is what gives a session its directory and its
 * banner. NULL when it cannot be had (then facts are dropped) or in a muted process. Cheap after
 * the first call. (hook/session.c) */
struct pm_recorder *pm_facts(void);

/* The recorder's schema number (for pm_recorder_reserve) of one of the probe's own schemas. */
unsigned pm_facts_schema(const struct pm_schema *schema);

/* The settings in force. */
const struct pm_settings *pm_facts_settings(void);

/* Gives birth to the session where that has not happened, and says what this process is (enum
 * pm_role bits; engine and rank -1: not known). An engine's or worker's recorder has its helper
 * thread, a front end's does without. False where there is no session to be had. (hook/session.c)
 */
bool pm_facts_identify(unsigned roles, int engine, int rank);

/* Says what the calling thread does from a moment on (enum pm_doing), for whoever looks at a
 * process that hangs or has died. A few nanoseconds; nothing where the session has not been born.
 * (hook/session.c) */
void pm_facts_doing(unsigned doing, uint64_t since_ns);

/* A hooked call raised: the thread's word says so, and the attribute raised.<what> names the type
 * of the exception (never its text, which may hold what was asked) and the step. (hook/session.c)
 */
void pm_facts_raised(const char *what, unsigned doing, uint64_t step, const struct pm_call *call);

/* A fact about the process as a whole: written into its recorder, and again into one that is opened
 * later. Values longer than 4 KiB are cut. (hook/session.c) */
void pm_facts_attr(const char *key, const char *value) __attribute__((nonnull));

/* Puts a target on a class that came about while the server ran, on the attribute that the last
 * part of its qualname names; once is enough. For a half of the same probe. False where it cannot
 * be: nothing has changed then. (hook/install.c) */
bool pm_facts_hook(PyObject *owner, const struct pm_probe *probe, const struct pm_target *target);

/* Whether recording was begun while the server ran: its engines and workers were made before. */
bool pm_facts_late(void);

/* Records what was switched while the session went on (session/switch_facts.h); texts may be "".
 * (session.c) */
void pm_facts_switched(unsigned kind, const char *what, const char *value);

/* Where recording began late: tells what the making of an engine core's scheduler or of a worker
 * would have told, from the object itself. (session.c) */
void pm_session_late(PyObject *self, unsigned role);

/* A step is over, seen by a scheduler, a worker or a front end (enum pm_role): what was asked for
 * so many steps may be due. (hook/control_do.c) */
extern uint64_t pm_detail_left;
void pm_detail_stepped(unsigned role);
static inline void pm_facts_stepped(unsigned role)
{
    if (__builtin_expect(pm_detail_left != 0, 0))
        pm_detail_stepped(role);
}

/* A line on stderr under the seeds' console rules, only with VERBOSE (hook/console.c); never
 * raises. */
void pm_facts_say(const char *format, ...) PM_PRINTF(1, 2);

#endif
