/*
 * A line on a terminal about work that takes more than a second: how far it is, for how long, and
 * how much was read. Drawn by a thread of its own from what the system counts for this process, so
 * that what works knows nothing of it. Nothing is drawn where stderr is no terminal, or TERM is
 * dumb.
 *
 *   struct pm_progress progress;
 *   pm_progress_begin(&progress, "export", bytes_to_read);   0: not known, then there is no bar
 *   …
 *   pm_progress_end(&progress);                              the line is gone
 */
#ifndef PM_CMD_PROGRESS_H
#define PM_CMD_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "reader/reader.h"

struct pm_progress {
    const char *what; /* borrowed */
    uint64_t total;   /* bytes to be read, an estimate */
    uint64_t begun_bytes, begun_ns;
    bool runs, over, drawn;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

void pm_progress_begin(struct pm_progress *progress, const char *what, uint64_t total);
void pm_progress_end(struct pm_progress *progress);

/* Bytes of a session's record files: what one walk through all of it reads. */
uint64_t pm_progress_session_bytes(const struct pm_session *session);

#endif
