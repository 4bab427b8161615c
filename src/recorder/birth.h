/*
 * A session's birth: its name and token are reserved in memory at activation, its directory is made
 * when the first fact comes, by whichever process of the server comes first.
 */
#ifndef PM_RECORDER_BIRTH_H
#define PM_RECORDER_BIRTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "session/layout.h"

#define PM_SESSION_ENV "VLLM_PROFILING_SESSION"

/* What every process of one server agrees on without touching the disk. */
struct pm_birth {
    char name[64]; /* session_YYYYMMDD_HHMMSS, local time */
    uint8_t token[PM_TOKEN_BYTES];
    uint64_t start_mono_ns;
    uint64_t start_real_ns;
    uint32_t root_pid;
    bool root;          /* this process made it up, rather than found it in its environment */
    uint32_t file_mode; /* of the session's files, 0600; the caller may set what settings say. The
                           directory's mode follows: who may read a file may enter. */
};

/* A new session's name, token and start. Never fails (a weaker token if the kernel has no random
 * bytes). */
void pm_birth_reserve(struct pm_birth *ret_birth);

/* The value of PM_SESSION_ENV for children, and back:
 * `name:token-hex:start_mono:start_real:root_pid`. parse: 0 or -PM_EINVALID on anything else than
 * what format wrote. */
void pm_birth_format(const struct pm_birth *birth, char *out, size_t size);
PM_MUST_USE int pm_birth_parse(const char *text, struct pm_birth *ret_birth);

/*
 * Finds or makes the session's directory under base_dir and writes its full path to ret_path.
 * base_dir is made with mode 1777 where it does not exist (and is a child of an existing
 * directory); symbolic links planted by others are not followed, a base that another user (not
 * root) made in a place open to all is not trusted unless it is sticky. A base that cannot be used
 * falls back to $XDG_STATE_HOME/profilemate, then ~/.local/state/profilemate, then base_dir with
 * -<uid> appended: *ret_fallback is then true, *ret_path says where, and err says why. A directory
 * of the same name with another token: name_2, name_3, … is taken. *ret_made: this call made it.
 * The directory appears complete (file `session`, `records/`, `records/budget`) by one rename.
 *
 * On a network file system the record files go to a spool on a local disk (see
 * pm_birth_records_dir), which this call makes too, on each host that joins.
 */
PM_MUST_USE int pm_birth_directory(const struct pm_birth *birth, const char *base_dir,
                                   char *ret_path, size_t size, bool *ret_made, bool *ret_fallback,
                                   struct pm_error *err);

/* The folder of the session's record files on this machine: session_dir/records, or its spool
 * (/var/tmp/profilemate-spool-<uid>/<session>-<token8>) where the session has one and it exists.
 * Finished files may have come home to records/ already: a reader of a spooled session looks in
 * both. Returns -PM_EFORMAT where session_dir has no readable `session` file. */
PM_MUST_USE int pm_birth_records_dir(const char *session_dir, char *out, size_t size);

/* Moves the record files of ended processes from the spool to session_dir/records (copy, fsync,
 * rename, unlink) and removes the spool once it is empty. Safe to repeat and to run twice at once;
 * nothing to do is success. *ret_left (may be NULL): files whose processes still run, left where
 * they are. Not for a process that records: looking at its own file would drop the file's lock. */
PM_MUST_USE int pm_birth_unspool(const char *session_dir, unsigned *ret_left, struct pm_error *err);

/* Writes a file of the session so that it appears whole or not at all, in the place of an older one
 * (metadata.json). name has no slash. */
PM_MUST_USE int pm_birth_write_file(const char *session_dir, const char *name, const void *bytes,
                                    size_t n, uint32_t mode);

/* What the file `session` says. spool: "" where there is none. */
struct pm_birth_file {
    struct pm_birth birth; /* root is false; name is that reserved, the directory's may have _2 */
    uint32_t version;      /* of the format */
    uint32_t uid;          /* who made it */
    char boot_id[40];      /* of the machine's boot: mono times of two boots do not compare */
    char host[256];
    char spool[512];
};

/* Reads it. 0, -PM_EFORMAT (none, or no such file), -PM_EVERSION, -PM_ECORRUPT, or the system's. */
PM_MUST_USE int pm_birth_read(const char *session_dir, struct pm_birth_file *ret_file);

#endif
