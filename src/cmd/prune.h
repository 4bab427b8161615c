/*
 * Removing old sessions. Used by `sessions --prune` and, by the setting KEEP_MB, by `run`.
 *
 * What may go: a folder that is ours by owner and by its file `session`, in which no process holds
 * a lock, and which is not so young that a process may be about to write its first record. Folders
 * are opened without following links and emptied through their descriptors; a folder that changes
 * into something else meanwhile is left alone.
 */
#ifndef PM_CMD_PRUNE_H
#define PM_CMD_PRUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "cmd/place.h"

struct pm_prune_options {
    const char *dir;         /* NULL: by the settings */
    uint64_t keep_bytes;     /* oldest finished ones go until all together take no more than this */
    uint64_t older_than_sec; /* only those that ended at least this long ago may go; 0: any */
    bool by_age_alone;       /* all that old go, whatever they take */
    bool dry_run;
    uint8_t spare[PM_TOKEN_BYTES]; /* a session that stays in any case; zeros: none */
    /* Told of each one that goes (or would). May be NULL. */
    void (*tell)(const struct pm_place *place, uint64_t bytes, void *arg);
    void *tell_arg;
};

struct pm_prune_result {
    size_t removed, kept;
    uint64_t removed_bytes, kept_bytes;
    size_t failed; /* could not be removed completely */
    struct pm_error first_failure;
};

PM_MUST_USE int pm_prune(const struct pm_prune_options *options,
                         struct pm_prune_result *ret_result);

/* Bytes on disk of a session's folder, links not followed. */
uint64_t pm_place_bytes(const struct pm_place *place);

#endif
