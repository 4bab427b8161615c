/*
 * doctor, a command whose workers are Ray's: what vLLM takes along to them, and what it does not.
 *
 * vLLM copies variables of the driver to its Ray workers when their Python runs already
 * (vllm/ray/ray_env.py): up to 0.16 those that vLLM itself knows, since 0.17 all that begin with
 * VLLM_ and a few other prefixes, those of VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY and
 * VLLM_RAY_EXTRA_ENV_VARS_TO_COPY, less those of ray_non_carry_over_env_vars.json. So `site` has
 * looked at PYTHONPATH before: the way in is vLLM's plug-in, of the installed package.
 */
#include "cmd/doctor.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/ask.h"

#define COPIES_SINCE "0.17.0"
#define LIST_MAX 65536

extern char **environ;

/* The value of `--name value` or `--name=value` in the command; NULL: not given. */
static const char *option(const struct pm_subject *subject, const char *name)
{
    const size_t bytes = strlen(name);
    const char *value = NULL;
    for (size_t i = 0; i < subject->count; i++) {
        const char *word = subject->command[i];
        if (strncmp(word, name, bytes) != 0)
            continue;
        if (word[bytes] == '=')
            value = word + bytes + 1;
        else if (word[bytes] == '\0' && i + 1 < subject->count)
            value = subject->command[i + 1];
    }
    return value;
}

static bool is_ray(const struct pm_subject *subject)
{
    static const char *const names[] = {"--distributed-executor-backend", "--data-parallel-backend",
                                        "-dpb"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = option(subject, names[i]);
        if (value != NULL && strcmp(value, "ray") == 0)
            return true;
    }
    return false;
}

/* Whether a list with commas has the word, blanks around it left out; begins: or the beginning of
 * it. */
static bool has_word(const char *list, const char *word, bool begins)
{
    for (; list != NULL && *list != '\0'; list += strcspn(list, ","), list += *list == ',') {
        list += strspn(list, " ");
        size_t bytes = strcspn(list, ",");
        while (bytes > 0 && list[bytes - 1] == ' ')
            bytes--;
        if (bytes > 0 && strncmp(list, word, bytes) == 0 && (begins || word[bytes] == '\0'))
            return true;
    }
    return false;
}

static bool is_copied(const char *name)
{
    return strncmp(name, "VLLM_", 5) == 0 ||
           has_word(getenv("VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY"), name, true) ||
           has_word(getenv("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"), name, false);
}

/* Whether the installed package's plug-in is there. */
static bool has_plugin(const struct pm_answers *answers)
{
    for (size_t i = 0; i < answers->count; i++)
        if (strcmp(answers->lines[i].key, "entry_point") == 0 &&
            strstr(answers->lines[i].value[1], "profilemate") != NULL)
            return true;
    return false;
}

/* The names of the JSON list that vLLM leaves out; "" where there is none. */
static void read_left_out(char *text, size_t size)
{
    const char *root = getenv("VLLM_CONFIG_ROOT"), *config = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    char path[PATH_MAX];
    int n = root != NULL     ? snprintf(path, sizeof(path), "%s", root)
            : config != NULL ? snprintf(path, sizeof(path), "%s/vllm", config)
            : home != NULL   ? snprintf(path, sizeof(path), "%s/.config/vllm", home)
                             : -1;
    text[0] = '\0';
    if (n < 0 || (size_t)n + sizeof("/ray_non_carry_over_env_vars.json") > sizeof(path))
        return;
    memcpy(path + n, "/ray_non_carry_over_env_vars.json",
           sizeof("/ray_non_carry_over_env_vars.json"));
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, size - 1) : -1;
    text[bytes > 0 ? bytes : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

static void check_names(struct pm_findings *findings)
{
    static char left_out[LIST_MAX];
    read_left_out(left_out, sizeof(left_out));
    for (char **word = environ; *word != NULL; word++) {
        char name[128], quoted[130];
        const size_t bytes = strcspn(*word, "=");
        if (bytes + 3 > sizeof(name) || (strncmp(*word, "PROFILEMATE_", 12) != 0 &&
                                         strncmp(*word, "VLLM_PROFILING_", 15) != 0 &&
                                         strncmp(*word, "VLLM_ENABLE_PROFILING", 21) != 0))
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)bytes, *word);
        snprintf(quoted, sizeof(quoted), "\"%s\"", name);
        if (!is_copied(name)) {
            pm_find(findings, PM_MARK_PROBLEM, "ray-variable", NULL,
                    "vLLM does not copy %s to Ray's workers, they would go by its default", name);
            pm_advise(findings,
                      "use the name that begins with VLLM_PROFILING_, or export "
                      "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY=%s",
                      name);
        } else if (strstr(left_out, quoted) != NULL) {
            pm_find(findings, PM_MARK_PROBLEM, "ray-left-out",
                    "take it out of ray_non_carry_over_env_vars.json in vLLM's configuration "
                    "folder",
                    "ray_non_carry_over_env_vars.json keeps vLLM from copying %s to Ray's workers",
                    name);
        }
    }
}

void pm_doctor_ray(struct pm_findings *findings, const struct pm_subject *subject,
                   const struct pm_answers *answers)
{
    const char *version = pm_answer(answers, "vllm.version");
    const size_t before = findings->problems;
    if (!is_ray(subject))
        return;
    findings->section = "Ray";
    if (!has_plugin(answers))
        pm_find(findings, PM_MARK_PROBLEM, "ray-package",
                "install the package (pip install profilemate) into vLLM's environment on every "
                "node: vLLM loads its plug-in in each worker",
                "Ray's workers have started before vLLM tells them their environment: PYTHONPATH "
                "does not bring the extension into them");
    if (version[0] != '\0' && pm_version_compare(version, COPIES_SINCE) < 0)
        pm_find(findings, PM_MARK_PROBLEM, "ray-release",
                "use vLLM " COPIES_SINCE " or newer, or set the variables where Ray is started on "
                "every node",
                "vLLM %s copies to Ray's workers only variables of its own, since " COPIES_SINCE
                " all that begin with VLLM_",
                version);
    else
        check_names(findings);
    if (findings->problems == before)
        pm_find(findings, PM_MARK_FINE, "ray", NULL,
                "Ray's workers are profiled too: vLLM copies the settings to them and loads the "
                "plug-in there; each node keeps its own part of the session");
}
