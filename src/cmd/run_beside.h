/*
 * What `run` does beside its command while that runs: windows of torch's profiler (torch_profile.h)
 * and request logs (request_log.h), both from following the session (follow.h). One thread, in the
 * pauses of the supervisor.
 */
#ifndef PM_CMD_RUN_BESIDE_H
#define PM_CMD_RUN_BESIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "cmd/environ.h"
#include "cmd/supervise.h"
#include "cmd/torch_profile.h"

struct pm_request_log;

struct pm_beside_options {
    struct pm_torch_options torch;
    const char *log_dir, *task, *log_size; /* NULL: not given */
    long log_keep;
};
#define PM_BESIDE_DEFAULTS                                                                         \
    {                                                                                              \
        .torch.steps = -1, .log_keep = 5                                                           \
    }

struct pm_beside {
    struct pm_follow *follow; /* NULL: nothing asks for it; the next two need it */
    struct pm_torch *torch;
    struct pm_request_log *log;
    char log_dir[4096];
    uint64_t flush_ms; /* when the log is flushed next */
    struct pm_supervisor_watch watch;
};

/* Whether no option stands without the one that gives it a meaning; told on stderr. */
bool pm_beside_options_fit(const struct pm_beside_options *options);

/* Before the command: makes folders, puts torch's profiler into its environment. dir and token: of
 * the session to come. PM_EXIT_OK, or the exit code, told on stderr. */
int pm_beside_begin(struct pm_beside *beside, const struct pm_beside_options *options,
                    struct pm_environ *env, char *const *command, const char *dir,
                    const uint8_t *token);

/* For pm_supervisor_wait; NULL: nothing to do meanwhile. */
const struct pm_supervisor_watch *pm_beside_watch(struct pm_beside *beside);

/* After the command: what was still to come, and what became of it. */
void pm_beside_end(struct pm_beside *beside, bool quiet);

#endif
