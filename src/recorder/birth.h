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
    bool root; /* this process made it up, rather than found it in its environment */
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
 * directory); symbolic links planted by others are not followed; a base that cannot be written
 * falls back to $XDG_STATE_HOME/profilemate, then
 * ~/.local/state/profilemate, then base_dir with -<uid> appended: *ret_fallback is then true, and
 * *ret_path says where. A directory of the same name with another token: name_2, name_3, … is
 * taken. *ret_made: this call made it. The directory appears complete (file `session`, `records/`,
 * `records/budget`) by one rename.
 */
PM_MUST_USE int pm_birth_directory(const struct pm_birth *birth, const char *base_dir,
                                   char *ret_path, size_t size, bool *ret_made, bool *ret_fallback,
                                   struct pm_error *err);

#endif
