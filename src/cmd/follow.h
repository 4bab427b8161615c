/*
 * Follows the session of a run while it is written: which requests have ended, how many steps there
 * were. Reads the records as any view does; the server knows nothing of it. Used by `run` for
 * request logs and for the windows of torch's profiler. One thread.
 */
#ifndef PM_CMD_FOLLOW_H
#define PM_CMD_FOLLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "reader/reader.h"
#include "reader/requests.h"

struct pm_follow;

/* A request that has ended. */
typedef void (*pm_follow_fn)(const struct pm_session *session, unsigned engine,
                             const struct pm_request *request, void *arg);

/* The session with this token (PM_TOKEN_BYTES), which need not be there yet; dir: where sessions go
 * by its settings. Both are copied. fn may be NULL. NULL: no memory. */
struct pm_follow *pm_follow_new(const char *dir, const uint8_t *token, pm_follow_fn fn, void *arg);
void pm_follow_free(struct pm_follow *follow);

/* Reads what has come. Cheap where nothing has; looks for the session, and for engines that came
 * later, every half a second until there is one, every five afterwards. With last, everything is
 * looked for at once, whatever the time: the server has ended. */
void pm_follow_poll(struct pm_follow *follow, bool last);

/* Requests that have ended, of all engines; steps of the engine that had most. */
uint64_t pm_follow_requests(const struct pm_follow *follow);
uint64_t pm_follow_steps(const struct pm_follow *follow);

/* An attribute of the session (session/attrs.h) as of now, NULL where there is none. Valid until
 * the next call. */
const char *pm_follow_attr(struct pm_follow *follow, const char *key);

#endif
