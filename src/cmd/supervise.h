/*
 * Runs one command the way an init or a shell would: signals go through, orphans are reaped, the
 * exit status comes back. Used by `run`, which is single-threaded: signals are taken with
 * sigtimedwait, nothing runs in a handler.
 */
#ifndef PM_CMD_SUPERVISE_H
#define PM_CMD_SUPERVISE_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct pm_supervisor {
    pid_t child;
    bool ended;            /* the child was reaped: status is its */
    int status;            /* as of waitpid */
    sigset_t taken;        /* signals that we wait for */
    sigset_t mask_before;  /* what the child gets, and we again at the end */
    struct sigaction chld; /* SIGCHLD's action before */
    int asked;             /* the signal that asked the child to end; 0: none did */
    bool interrupted;      /* a signal asked for the end while orphans were waited for */
};

/* Starts argv in the same process group. In the child environment(arg) is called first, which gives
 * what execvpe gets and may use the child's own pid. 0, or the errno value of what failed (ENOENT,
 * EACCES, … of execvpe come back too); the signals are then as before. */
int pm_supervisor_start(struct pm_supervisor *sup, char *const *argv,
                        char *const *(*environment)(void *arg), void *arg);

/* What else is done while the child runs, on the same thread. */
struct pm_supervisor_watch {
    /* Called again and again; returns in how many ms next, above 0. */
    int (*tick)(void *arg);
    /* Whether a signal that is to be passed on waits for a while: asked when it comes, and after
     * each tick until it says no. A second signal is not asked about: both are passed on then. */
    bool (*hold)(int signal, void *arg);
    void *arg;
};

/* Waits until the child has ended, passing signals on. watch may be NULL. */
void pm_supervisor_wait(struct pm_supervisor *sup, const struct pm_supervisor_watch *watch);

/* Waits for processes that the child left behind, at most limit_ms: as PID 1 until none is left,
 * else while wanted(arg) says so. A signal that asks for the end is passed on (PID 1) and ends the
 * waiting (otherwise). */
void pm_supervisor_settle(struct pm_supervisor *sup, int limit_ms, bool (*wanted)(void *arg),
                          void *arg);

/* Puts the signals back as they were, those that still wait are dropped. */
void pm_supervisor_finish(struct pm_supervisor *sup);

/* The exit code as a shell tells it: 128 + n for a signal. */
int pm_supervisor_exit_code(const struct pm_supervisor *sup);

#endif
