/*
 * The inside of a session's birth: what birth.c (who the session is), birth_dir.c (its directory)
 * and spool.c (its records on a local disk) share, and the seams that tests use.
 */
#ifndef PM_RECORDER_BIRTH_INTERNAL_H
#define PM_RECORDER_BIRTH_INTERNAL_H

#include "recorder/birth.h"

#include <limits.h>
#include <sys/stat.h>

#define PM_BIRTH_FILE "session"
#define PM_BIRTH_RECORDS "records"
#define PM_BIRTH_BUDGET "budget"
#define PM_BIRTH_SUFFIX ".pmrec"
#define PM_BIRTH_TEXT_MAX 4096 /* bytes of the file `session` */
#define PM_BIRTH_HEX (2 * PM_TOKEN_BYTES + 1)

/* Tests put their own here. Whether a folder lies on a network file system (statfs); and the local
 * places that a spool may be made in, best first, NULL at the end. */
extern bool (*pm_birth_is_remote)(int dir_fd);
extern const char *pm_birth_spool_places[];

void pm_birth_token_hex(const uint8_t *token, char out[PM_BIRTH_HEX]);

/* Whether text is a name that pm_birth_reserve makes: session_YYYYMMDD_HHMMSS. */
bool pm_birth_name_ok(const char *text);

/* The text of the file `session` (session/layout.h); spool may be "". Returns its length, always
 * below PM_BIRTH_TEXT_MAX. */
size_t pm_birth_file_text(const struct pm_birth *birth, const char *spool,
                          char out[PM_BIRTH_TEXT_MAX]);

/* pm_birth_read, from an open folder. A newer version is read as far as it is understood. */
PM_MUST_USE int pm_birth_read_at(int dir_fd, struct pm_birth_file *ret_file);

/* A place where sessions may go (birth_base.c). */
struct pm_birth_base {
    char path[PATH_MAX]; /* absolute, no slash at its end */
    bool own;            /* this user's only: 0700, parents are made too */
    int fd;              /* -1: cannot be used (yet) */
    int status;          /* why not */
    uid_t owner;         /* who has it, where that is why; else this user */
};
#define PM_BIRTH_BASES_MAX 4

/* base_dir and its fallbacks, best first; returns how many. */
size_t pm_birth_bases_list(const char *base_dir, struct pm_birth_base bases[PM_BIRTH_BASES_MAX]);

/* Opens a base, makes it where asked for; base->fd or base->status says how it went. */
void pm_birth_base_open(struct pm_birth_base *base, bool make);

/* Whether what lies in a shared place is this user's own. Where root is mapped to nobody (NFS) the
 * owner says nothing: there the token alone decides. */
bool pm_birth_is_own(int fd, const struct stat *st);

/* An empty budget. -PM_EEXISTS if there is one. */
PM_MUST_USE int pm_birth_make_budget(int records_fd, uint32_t file_mode);

/* Makes the session's spool in the first local place that will have it and writes its path; joins
 * one that is there already. -PM_ENOTFOUND: no local place. */
PM_MUST_USE int pm_birth_spool_make(const struct pm_birth *birth, char *ret_path, size_t size);

/* Makes the spool that the file `session` names, on a host that has not got it yet. May fail: the
 * records then go to records/. */
int pm_birth_spool_join(const struct pm_birth_file *file, uint32_t file_mode);

#endif
