/*
 * The settings, read from the environment (settings.def is the one table of them). Used by the
 * extension, by `profilemate run` and `profilemate env`. Pure C.
 */
#ifndef PM_BASE_SETTINGS_H
#define PM_BASE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

enum pm_preset { PM_PRESET_SIMPLE, PM_PRESET_FULL };
enum pm_request_ids { PM_REQUEST_IDS_PLAIN, PM_REQUEST_IDS_HASH };

#define PM_SETTING_TEXT_MAX 4096

#define PM_SETTING_TYPE_BOOL int
#define PM_SETTING_TYPE_INT int
#define PM_SETTING_TYPE_TRISTATE int
#define PM_SETTING_TYPE_PRESET int
#define PM_SETTING_TYPE_MODE int
#define PM_SETTING_TYPE_REQUEST_IDS int
#define PM_SETTING_TYPE_TEXT PM_SETTING_TYPE_TEXT_
typedef char PM_SETTING_TYPE_TEXT_[PM_SETTING_TEXT_MAX];

struct pm_settings {
#define X(field, type, env, option, def, min, max, metavar, doc) PM_SETTING_TYPE_##type field;
#include "base/settings.def"
#undef X
};

/* Called once per malformed value, with one sentence: the variable, the bad value, the value used.
 */
typedef void (*pm_settings_warn_fn)(const char *sentence, void *arg);

/* Looks a variable up; getenv-like. NULL for get means getenv. */
typedef const char *(*pm_settings_get_fn)(const char *name, void *arg);

/* Defaults, then the environment: VLLM_PROFILING_X, else PROFILEMATE_X (for a switch, off in either
 * wins). An empty or blank value counts as unset. A malformed value warns and counts as unset too,
 * so that the other name or the default decides. Switches also take true/false, yes/no, on/off.
 * Never fails. */
void pm_settings_read(struct pm_settings *ret_settings, pm_settings_get_fn get, void *get_arg,
                      pm_settings_warn_fn warn, void *warn_arg);

/* The master switch: 1 on, 0 off, -1 unset. VLLM_ENABLE_PROFILING and PROFILEMATE_ENABLE; off beats
 * on. Malformed counts as unset, with a warning. */
int pm_settings_enable(pm_settings_get_fn get, void *get_arg, pm_settings_warn_fn warn,
                       void *warn_arg);

/* One row of the table, for `run`, `env`, help and tests. */
struct pm_setting_row {
    const char *field, *type, *env, *option, *def, *metavar, *doc;
    long min, max;
};
extern const struct pm_setting_row pm_setting_rows[];
extern const size_t pm_setting_rows_count;

/* Whether value is well-formed for that row; if not, *ret_expected says what would be ("a whole
 * number from 1 to 9"). */
bool pm_setting_check(const struct pm_setting_row *row, const char *value, char *expected,
                      size_t size);

/* Whether an environment name is one of ours: both names of each setting, VLLM_ENABLE_PROFILING,
 * PROFILEMATE_ENABLE, VLLM_PROFILING_SESSION. A misspelt VLLM_PROFILING_… is nobody's: vLLM may
 * warn of it. */
bool pm_settings_owns(const char *env_name);

#endif
