/*
 * `run --torch-profile`: vLLM's torch profiler on for a stretch of a server's life, by the server's
 * own /start_profile and /stop_profile. Called by `run` on its one thread, which also waits for
 * signals: everything here is a step of a machine that never waits.
 *
 *   server there ──► its requests ──► starting ──► profiling ──► stopping ──► (every: pause) ──┐
 *        ▲ session and /health   ▲ --requests A:        │ --steps, --requests :B, quiet        │
 *        │                       └──────────────────────┼──────────────────────────────────────┘
 *        └ lost: the server ended                       └ a signal, the end of the run
 *
 * What the profiler records is told to vLLM by its own variables (VLLM_TORCH_PROFILER_…), which the
 * extension makes true on every version (probe/torch_profiler.c), so that no version, interpreter
 * or command line need be known here.
 */
#ifndef PM_CMD_TORCH_PROFILE_H
#define PM_CMD_TORCH_PROFILE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cmd/environ.h"
#include "cmd/follow.h"
#include "cmd/http.h"

/* As the options say; NULL and 0 where they are not given. */
struct pm_torch_options {
    const char *mode;     /* light, detailed, deep; NULL: no profiling */
    const char *dir;      /* where the traces go */
    const char *requests; /* A:B */
    const char *every, *size_limit, *server, *flush_timeout;
    long steps; /* -1: not given */
};

/* One window, and how often. */
struct pm_torch_plan {
    const char *mode;
    char dir[PATH_MAX];   /* absolute */
    uint64_t from, to;    /* requests that have ended; to 0: they do not end it */
    uint64_t steps;       /* at most so many in a window */
    bool ends_when_quiet; /* neither steps nor requests were named: a server that has fallen quiet
                             ends the window, so that a first try leaves a trace */
    uint64_t every_ms;    /* from start to start; 0: once */
    uint64_t size_limit;  /* bytes of this run's traces; 0: none */
    uint64_t flush_ms;    /* /stop_profile may take so long */
    struct pm_server server;
};

/* Checks the options against each other and the command, makes the folder. 0, or -PM_E… with a
 * sentence that says what to do. */
PM_MUST_USE int pm_torch_plan(struct pm_torch_plan *ret_plan,
                              const struct pm_torch_options *options, const struct pm_environ *env,
                              char *const *command, struct pm_error *err);

/* The variables for the server; one that the user has set already is kept. */
void pm_torch_environment(const struct pm_torch_plan *plan, struct pm_environ *env);

struct pm_torch;

/* follow is borrowed. NULL: no memory. */
struct pm_torch *pm_torch_new(const struct pm_torch_plan *plan, struct pm_follow *follow);
void pm_torch_free(struct pm_torch *torch);

/* One look at everything. Returns in how many ms the next one is due. */
int pm_torch_step(struct pm_torch *torch);

/* Asks for the end: a window that is open is closed, none begins any more. With a limit for the
 * flush, for somebody waits for the server to go. */
void pm_torch_end(struct pm_torch *torch, uint64_t limit_ms);
/* Whether the profiler may be on, or is being written. */
bool pm_torch_busy(const struct pm_torch *torch);

/* The server is gone: tells what became of it all, on stderr. */
void pm_torch_report(struct pm_torch *torch);

#endif
