/*
 * Why a server is dead or hangs, as far as can be told from outside: how each of its processes
 * ended, what it was in when its records stopped, and the one sentence that these lead to. For
 * `postmortem` and whoever shows the same; made from a followed session (live.h), one thread.
 *
 * What was asked for (prompts, token ids, texts of exceptions) is not in a session and so not here.
 */
#ifndef PM_LIVE_AUTOPSY_H
#define PM_LIVE_AUTOPSY_H

#include "live/live.h"

#define PM_KERNEL_LINES 8

/* What the kernel's log says of some processes. */
struct pm_kernel_log {
    bool readable;
    size_t n_lines;
    struct {
        uint32_t pid;
        bool oom; /* killed for want of memory; else a fault of its own */
        char text[240];
    } lines[PM_KERNEL_LINES];
};

/* Looks for these pids, since a moment of CLOCK_MONOTONIC. */
void pm_kernel_log_read(const uint32_t *pids, size_t n_pids, uint64_t since_ns,
                        struct pm_kernel_log *ret_log);

/* What `profilemate run` saw of the command's end (the file `ended` in the session's folder). */
struct pm_run_record {
    bool found;
    uint32_t pid;
    int status;       /* as of wait() */
    int asked;        /* signal that asked it to end, which went through `run`; 0: none */
    uint64_t real_ns; /* when it had ended */
};
PM_MUST_USE int pm_run_record_write(const char *path, const struct pm_run_record *record);
void pm_run_record_read(const char *path, struct pm_run_record *ret_record);

enum pm_cause {
    PM_CAUSE_ALIVE,   /* it runs, and nothing is wrong */
    PM_CAUSE_HANGS,   /* it runs, and does not get on */
    PM_CAUSE_BROKEN,  /* a part is gone, others run */
    PM_CAUSE_STOPPED, /* it was asked to end, or ended by itself with nothing left to do */
    PM_CAUSE_MEMORY,  /* the kernel killed a process for want of memory */
    PM_CAUSE_CRASHED, /* a process died of a fault of its own */
    PM_CAUSE_RAISED,  /* a step raised an exception */
    PM_CAUSE_KILLED,  /* killed from outside, by whom is not known */
    PM_CAUSES
};
const char *pm_cause_word(enum pm_cause cause);

struct pm_end {
    const struct pm_live_process *process;
    uint64_t last_sign_ns; /* newest of heartbeat, records, thread words */
    int status;            /* as of wait(); -1: not known */
    const char *status_by; /* who saw it: "run", "kernel"; NULL: nobody */
    const char *raised; /* "execute_model: RuntimeError at step 12" without the call's name … */
    const char *raised_in; /* … which is here; NULL: nothing raised */
};

struct pm_autopsy {
    const struct pm_live_view *view;
    enum pm_cause cause;
    char sentence[768];  /* what happened */
    char evidence[1024]; /* what speaks for it, a sentence or two; "" none */
    struct pm_end *ends; /* one per process of the view */
    struct pm_run_record run;
    struct pm_kernel_log kernel;
    struct pm_memory memory;   /* now */
    const char *cgroup;        /* of the server, NULL: not recorded */
    uint64_t oom_kills_before; /* in that group when the session was born; UINT64_MAX */
    size_t open_requests;      /* at the end */
};

/* Free with pm_autopsy_release. The view must outlive it. */
PM_MUST_USE int pm_autopsy_make(struct pm_autopsy *ret_autopsy, const struct pm_live_view *view);
void pm_autopsy_release(struct pm_autopsy *autopsy);

/* Names of things, for text and JSON. */
const char *pm_live_role_text(unsigned roles);

#endif
