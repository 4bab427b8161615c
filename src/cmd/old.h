/*
 * Sessions of old where a session is expected: a folder with the CSV files of the Python profiler
 * is made into a session in a temporary folder, opened, and the folder is removed again. Used by
 * complete.c, for every command that reads a session.
 */
#ifndef PM_CMD_OLD_H
#define PM_CMD_OLD_H

#include "base/error.h"
#include "cmd/place.h"
#include "reader/reader.h"

/* Fills the place of such a folder. 0, or -PM_EFORMAT where it is none. */
PM_MUST_USE int pm_old_place(const char *path, struct pm_place *ret_place);

/* Opens it. The session then has the folder's own name and path. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_old_open(const struct pm_place *place, struct pm_session **ret_session,
                            struct pm_error *err);

#endif
