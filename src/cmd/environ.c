/*
 * The environment that a profiled command gets. One thread, no state of its own.
 */
#include "cmd/environ.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool append(struct pm_environ *env, char *word)
{
    if (env->count + 1 >= env->room) {
        size_t room = env->room * 2 + 64;
        char **words = realloc(env->words, room * sizeof(words[0]));
        if (words == NULL)
            return false;
        env->words = words;
        env->room = room;
    }
    env->words[env->count++] = word;
    env->words[env->count] = NULL;
    return true;
}

void pm_environ_init(struct pm_environ *env, char *const *from)
{
    *env = (struct pm_environ){0};
    for (; *from != NULL; from++) {
        char *word = strdup(*from);
        if (word == NULL || !append(env, word)) {
            free(word);
            env->failed = true;
            return;
        }
    }
}

void pm_environ_release(struct pm_environ *env)
{
    for (size_t i = 0; i < env->count; i++)
        free(env->words[i]);
    free(env->words);
    *env = (struct pm_environ){0};
}

static size_t find(const struct pm_environ *env, const char *name)
{
    size_t bytes = strlen(name);
    size_t i = 0;
    while (i < env->count &&
           (strncmp(env->words[i], name, bytes) != 0 || env->words[i][bytes] != '='))
        i++;
    return i;
}

const char *pm_environ_get(const struct pm_environ *env, const char *name)
{
    size_t i = find(env, name);
    return i < env->count ? env->words[i] + strlen(name) + 1 : NULL;
}

const char *pm_environ_lookup(const char *name, void *env)
{
    return pm_environ_get(env, name);
}

void pm_environ_unset(struct pm_environ *env, const char *name)
{
    size_t i;
    while ((i = find(env, name)) < env->count) {
        free(env->words[i]);
        memmove(&env->words[i], &env->words[i + 1], (env->count - i) * sizeof(env->words[0]));
        env->count--;
    }
}

void pm_environ_set(struct pm_environ *env, const char *name, const char *value)
{
    size_t bytes = strlen(name) + strlen(value) + 2;
    char *word = malloc(bytes);
    if (word == NULL) {
        env->failed = true;
        return;
    }
    snprintf(word, bytes, "%s=%s", name, value);
    pm_environ_unset(env, name);
    if (!append(env, word)) {
        free(word);
        env->failed = true;
    }
}

static void change(struct pm_environ *env, struct pm_environ_changes *changes, const char *name,
                   const char *value)
{
    if (changes->n_set < sizeof(changes->set) / sizeof(changes->set[0]))
        snprintf(changes->set[changes->n_set++], sizeof(changes->set[0]), "%s", name);
    pm_environ_set(env, name, value);
}

/* A setting by its option, written as VLLM_PROFILING_X; the twin PROFILEMATE_X goes. */
static void give(struct pm_environ *env, struct pm_environ_changes *changes,
                 const struct pm_setting_row *row, const char *value)
{
    char name[96], twin[96], absolute[PATH_MAX + PM_SETTING_TEXT_MAX], here[PATH_MAX];
    snprintf(name, sizeof(name), "VLLM_PROFILING_%s", row->env);
    snprintf(twin, sizeof(twin), "PROFILEMATE_%s", row->env);
    if (strcmp(row->field, "dir") == 0 && value[0] != '/' && value[0] != '\0' &&
        getcwd(here, sizeof(here)) != NULL) {
        snprintf(absolute, sizeof(absolute), "%s/%s", strcmp(here, "/") == 0 ? "" : here, value);
        value = absolute;
    }
    change(env, changes, name, value);
    if (pm_environ_get(env, twin) != NULL) {
        snprintf(changes->unset[changes->n_unset++], sizeof(changes->unset[0]), "%s", twin);
        pm_environ_unset(env, twin);
    }
}

/* Puts dir first in PYTHONPATH; whatever else is there keeps its order. */
static void prepend_pythonpath(struct pm_environ *env, struct pm_environ_changes *changes,
                               const char *dir)
{
    const char *old = pm_environ_get(env, "PYTHONPATH");
    if (old == NULL || old[0] == '\0') {
        change(env, changes, "PYTHONPATH", dir);
        return;
    }
    size_t bytes = strlen(dir);
    if (strncmp(old, dir, bytes) == 0 && (old[bytes] == ':' || old[bytes] == '\0'))
        return;
    size_t room = bytes + strlen(old) + 2;
    char *joined = malloc(room);
    if (joined == NULL) {
        env->failed = true;
        return;
    }
    snprintf(joined, room, "%s:%s", dir, old);
    change(env, changes, "PYTHONPATH", joined);
    free(joined);
}

void pm_environ_profile(struct pm_environ *env, const struct pm_setting_values *settings,
                        const char *site_dir, struct pm_environ_changes *ret_changes)
{
    *ret_changes = (struct pm_environ_changes){0};
    if (pm_settings_enable(pm_environ_lookup, env, NULL, NULL) == 0) {
        ret_changes->off = true;
        return;
    }
    change(env, ret_changes, "VLLM_ENABLE_PROFILING", "1");
    for (size_t i = 0; i < pm_setting_rows_count; i++)
        if (settings->value[i] != NULL)
            give(env, ret_changes, &pm_setting_rows[i], settings->value[i]);
    if (site_dir != NULL)
        prepend_pythonpath(env, ret_changes, site_dir);
}
