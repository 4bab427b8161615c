/*
 * The environment that a profiled command gets. Used by `run` (for its child) and by `env` (which
 * prints the difference).
 */
#ifndef PM_CMD_ENVIRON_H
#define PM_CMD_ENVIRON_H

#include <stdbool.h>
#include <stddef.h>

#include "cmd/options.h"

/* A copy of an environment: "NAME=value" words, NULL at the end. */
struct pm_environ {
    char **words;
    size_t count, room;
    bool failed; /* memory ran out: some change is missing */
};

void pm_environ_init(struct pm_environ *env, char *const *from);
void pm_environ_release(struct pm_environ *env);
const char *pm_environ_get(const struct pm_environ *env, const char *name);
/* pm_settings_get_fn with a struct pm_environ as its argument. */
const char *pm_environ_lookup(const char *name, void *env);
void pm_environ_set(struct pm_environ *env, const char *name, const char *value);
void pm_environ_unset(struct pm_environ *env, const char *name);

/* What pm_environ_profile changed, by name, in order. */
struct pm_environ_changes {
    char set[72][96];
    size_t n_set;
    char unset[72][96];
    size_t n_unset;
    bool off; /* the environment says VLLM_ENABLE_PROFILING=0 (or PROFILEMATE_ENABLE=0): off beats
                 on, nothing was changed */
};

/* Turns profiling on in env: VLLM_ENABLE_PROFILING=1, each given setting under its VLLM_PROFILING_
 * name (its PROFILEMATE_ twin is removed, so that the given value counts), a relative --dir made
 * absolute, and site_dir put first in PYTHONPATH unless it is NULL. */
void pm_environ_profile(struct pm_environ *env, const struct pm_setting_values *settings,
                        const char *site_dir, struct pm_environ_changes *ret_changes);

#endif
