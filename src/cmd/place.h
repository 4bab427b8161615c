/*
 * Where things lie: the folder of the extension, the folders of sessions, and which session a
 * person means. Nothing found in a sessions' folder is trusted: /tmp is open to everybody.
 */
#ifndef PM_CMD_PLACE_H
#define PM_CMD_PLACE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "session/layout.h"

/* File name of the extension in its folder. */
#define PM_EXTENSION_FILE "sitecustomize.abi3.so"

/* The folder that holds the extension, found from where this program lies (its build folder, an
 * installed tree, the wheel). false: there is none. */
bool pm_site_dir(char *out, size_t size);

/* A session as its file `session` tells, without opening its records. */
struct pm_place {
    char path[PATH_MAX];
    char name[256];
    uint8_t token[PM_TOKEN_BYTES];
    uint64_t start_mono_ns, start_real_ns;
    uint32_t root_pid;
    uid_t owner;
    bool old; /* a folder with the CSV files of the Python profiler: see cmd/old.h */
    dev_t device;
    ino_t inode;
};

/* Reads one folder. 0, -PM_ENOTFOUND (no such folder, or a link), -PM_EFORMAT (no session of ours).
 */
PM_MUST_USE int pm_place_read(const char *path, struct pm_place *ret_place);

/* The folders in which sessions may lie: dir, or the setting where it is NULL, then the ones that
 * the recorder falls back to. Returns how many, at most PM_BASES. */
#define PM_BASES 3
size_t pm_place_bases(const char *dir, char bases[PM_BASES][PATH_MAX]);

/* All sessions there, newest first; entries that are none, and those we may not read, are left out.
 * Free with free(). */
PM_MUST_USE int pm_places(const char *dir, struct pm_place **ret_places, size_t *ret_count);

/* The session that was made with this token. 0 or -PM_ENOTFOUND. */
PM_MUST_USE int pm_place_by_token(const char *dir, const uint8_t *token,
                                  struct pm_place *ret_place);

/* Which session is meant: a path (of the folder or of its metadata.json), a name, the start of
 * exactly one name, or, for NULL, the newest of the user's own. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_place_resolve(const char *dir, const char *meant, struct pm_place *ret_place,
                                 struct pm_error *err);

#endif
