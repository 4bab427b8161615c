/*
 * Sessions that run on this host, wherever their folders lie: found by the record files that
 * processes have mapped, through /proc/<pid>/root where a process lives in another mount namespace.
 * For `top` and whoever shows the whole host; one thread. Owns a memory of the processes that it
 * has looked at, so that a round costs little.
 */
#ifndef PM_LIVE_DISCOVER_H
#define PM_LIVE_DISCOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct pm_found {
    char path[4096]; /* of the session's folder, as it can be opened from here */
    uint32_t pid;    /* a process of it, as we see it */
    dev_t device;    /* of the folder */
    ino_t inode;
};

struct pm_discover;
PM_MUST_USE int pm_discover_open(struct pm_discover **ret_discover);
/* All that are there now; *ret_found lives until the next round. */
PM_MUST_USE int pm_discover_round(struct pm_discover *discover, const struct pm_found **ret_found,
                                  size_t *ret_count);
void pm_discover_close(struct pm_discover *discover);

/* The session of one process, or of the nearest of its descendants. 0, or -PM_ENOTFOUND,
 * -PM_EPERMISSION where its maps may not be read. */
PM_MUST_USE int pm_discover_pid(uint32_t pid, struct pm_found *ret_found);

#endif
