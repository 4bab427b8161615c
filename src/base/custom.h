/*
 * The setting VLLM_PROFILING_CUSTOM: hooks of the user's own, `pkg.mod:Class.method,pkg.mod:func`.
 * Read by the extension, which puts them in place, and by `doctor`. Pure C; total on any bytes.
 */
#ifndef PM_BASE_CUSTOM_H
#define PM_BASE_CUSTOM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/settings.h"

#define PM_CUSTOM_MAX 64       /* hooks in one setting */
#define PM_CUSTOM_NAME_MAX 240 /* bytes of `module:qualname` */

struct pm_custom_hook {
    char name[PM_CUSTOM_NAME_MAX + 1]; /* "pkg.mod:Class.method" */
    char module[PM_CUSTOM_NAME_MAX + 1];
    char qualname[PM_CUSTOM_NAME_MAX + 1];
    bool allowed;        /* named in custom.def as one that is not traced */
    const char *refused; /* why it must not be put in place, a clause; NULL: it may be */
};

struct pm_custom {
    size_t count;
    struct pm_custom_hook hooks[PM_CUSTOM_MAX];
};

/* Reads the setting: entries are separated by commas, blanks around them and empty ones are
 * ignored. An entry that is no name of a callable (letters, digits, underlines and what is beyond
 * ASCII, parts separated by points), that comes again, or that comes after the 64th is left out
 * with one sentence to warn (may be NULL). Refused ones stay in the list and warn as well. */
void pm_custom_parse(const char *text, struct pm_custom *ret_custom, pm_settings_warn_fn warn,
                     void *warn_arg);

#endif
