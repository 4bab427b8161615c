/*
 * What `set`, `start` and `stop` share (see control.h). Owns nothing.
 */
#include "cmd/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/control.h"
#include "base/json.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "recorder/birth.h"

#define LIMIT_DEFAULT_SEC 15
#define LOOKS 3

static const char *live_word(size_t i, void *arg)
{
    const bool begin = *(const bool *)arg;
    for (size_t row = 0; row < pm_setting_rows_count; row++)
        if ((begin || pm_setting_fixed(&pm_setting_rows[row]) == NULL) && i-- == 0)
            return pm_setting_rows[row].field;
    return NULL;
}

/* The first `name=value` of a word, cut in place; *ret_rest: what follows its comma. A text may
 * hold commas and goes to the end of the word. */
static int take_word(const char *command, bool begin, char *word, char **ret_rest, char *out,
                     size_t size)
{
    char expected[128];
    char *equals = strchr(word, '=');
    if (equals == NULL || equals == word)
        return pm_misuse(command,
                         "%.80s is not understood, write a setting and its value as in kv_cache=on",
                         word);
    *equals = '\0';
    const char *value = equals + 1;
    const struct pm_setting_row *row = pm_setting_named(word);
    if (row == NULL) {
        const char *near = pm_nearest(word, live_word, &begin);
        if (near != NULL)
            return pm_misuse(command, "there is no setting %.60s, is %s meant", word, near);
        return pm_misuse(command, "there is no setting %.60s, see profilemate set --list", word);
    }
    char *comma = strcmp(row->type, "TEXT") != 0 ? strchr(equals + 1, ',') : NULL;
    if (comma != NULL)
        *comma = '\0';
    *ret_rest = comma != NULL ? comma + 1 : equals + 1 + strlen(equals + 1);
    const char *fixed = begin ? NULL : pm_setting_fixed(row);
    if (fixed != NULL)
        return pm_misuse(command, "%s cannot be changed while a session is recorded, %s",
                         row->field, fixed);
    if (strcmp(row->type, "TRISTATE") == 0 &&
        (strcmp(value, "on") == 0 || strcmp(value, "true") == 0 || strcmp(value, "yes") == 0))
        value = "auto"; /* 1 is more than on */
    bool good = value[0] != '\0' && strchr(value, '\n') == NULL;
    if (!good)
        snprintf(expected, sizeof(expected), "a value of one line");
    good = good && pm_setting_check(row, value, expected, sizeof(expected));
    if (!good)
        return pm_misuse(command, "%s=%.60s is not valid, give %s", row->field, value, expected);
    const size_t used = strlen(out);
    if (snprintf(out + used, size - used, "%s %s\n", row->field, value) >= (int)(size - used))
        return pm_misuse(command, "too much is set at once, do it in two commands");
    return PM_EXIT_OK;
}

int pm_control_words(const char *command, bool begin, int count, char **words, char *out,
                     size_t size)
{
    for (int i = 0; i < count; i++) {
        /* Also `verbose=1,` and `kv_cache=off,verbose=1`. */
        for (char *rest = words[i]; rest[0] != '\0';) {
            const int code = take_word(command, begin, rest, &rest, out, size);
            if (code != PM_EXIT_OK)
                return code;
        }
    }
    return PM_EXIT_OK;
}

void pm_control_help(bool begin)
{
    printf("\nSettings:\n");
    if (!begin)
        printf("  %-20s %s\n", "detail=STEPS", "all that can be, on for so many steps");
    for (size_t i = 0; i < pm_setting_rows_count; i++) {
        const struct pm_setting_row *row = &pm_setting_rows[i];
        char name[64];
        if (!begin && pm_setting_fixed(row) != NULL)
            continue;
        snprintf(name, sizeof(name), "%s=%s", row->field,
                 strcmp(row->type, "BOOL") == 0 ? "on|off" : row->metavar);
        printf("  %-20s %s\n", name, row->doc);
    }
}

int pm_control_limit(const char *command, const char *text, uint64_t *ret_ns)
{
    char *end = NULL;
    const double sec = text != NULL ? strtod(text, &end) : LIMIT_DEFAULT_SEC;
    if (text != NULL && (end == text || *end != '\0' || !(sec >= 0.1 && sec <= 3600)))
        return pm_misuse(command, "--wait=%.40s is not valid, give seconds from 0.1 to 3600", text);
    *ret_ns = (uint64_t)(sec * 1e9);
    return PM_EXIT_OK;
}

uint32_t pm_control_pid(const char *word)
{
    const size_t digits = strspn(word, "0123456789");
    return digits > 0 && digits < 10 && word[digits] == '\0' ? (uint32_t)atol(word) : 0;
}

/* Whether a process records this session. */
static bool records(const struct pm_control_process *process, const uint8_t *token)
{
    struct pm_birth birth;
    char text[256];
    return pm_control_records(process) && pm_control_value(process, "birth", text, sizeof(text)) &&
           pm_birth_parse(text, &birth) == 0 && memcmp(birth.token, token, PM_TOKEN_BYTES) == 0;
}

static int of_session(const char *meant, const char *dir, struct pm_controls *controls)
{
    struct pm_place place;
    struct pm_error err = {{0}};
    if (pm_place_resolve(dir, meant, &place, &err) != 0)
        return pm_complain("%s", err.text);
    for (size_t i = 0; i < controls->count; i++)
        if (records(&controls->rows[i], place.token)) {
            pm_controls_keep_group(controls, &controls->rows[i]);
            return PM_EXIT_OK;
        }
    return pm_complain("no process that we may control records %s: it has ended, or is another "
                       "user's, or was started with VLLM_PROFILING_CONTROL=0",
                       place.name);
}

static int of_pid(uint32_t pid, struct pm_controls *controls)
{
    char why[256];
    const struct pm_control_process *process = pm_controls_of_pid(controls, pid);
    /* A process that was forked a moment ago makes its page between the look and the question. */
    for (unsigned again = 0; process == NULL; again++) {
        pm_control_explain(pid, why, sizeof(why));
        if (why[0] != '\0' || again == LOOKS)
            return pm_complain("%s", why[0] != '\0' ? why : "cannot reach it, try again");
        pm_controls_release(controls);
        const int rc = pm_controls_find(controls);
        if (rc != 0)
            return pm_complain("cannot look at the processes of this host, %s", pm_strerror(rc));
        process = pm_controls_of_pid(controls, pid);
    }
    pm_controls_keep_group(controls, process);
    return PM_EXIT_OK;
}

int pm_control_meant(const char *meant, const char *dir, struct pm_controls *ret_controls)
{
    struct pm_controls controls;
    const int rc = pm_controls_find(&controls);
    if (rc != 0)
        return pm_complain("cannot look at the processes of this host, %s", pm_strerror(rc));
    const uint32_t pid = meant != NULL ? pm_control_pid(meant) : 0;
    const int code = pid != 0 ? of_pid(pid, &controls) : of_session(meant, dir, &controls);
    if (code != PM_EXIT_OK)
        pm_controls_release(&controls);
    else
        *ret_controls = controls;
    return code;
}

void pm_control_role(const struct pm_control_process *process, char *out, size_t size)
{
    char text[32] = "0";
    (void)pm_control_value(process, "roles", text, sizeof(text));
    const unsigned roles = (unsigned)strtoul(text, NULL, 10);
    snprintf(
        out, size, "%s%s%s", roles & PM_ROLE_FRONTEND ? "front end" : "",
        roles & PM_ROLE_ENGINE ? (roles & PM_ROLE_FRONTEND ? ", engine core" : "engine core") : "",
        roles & PM_ROLE_WORKER ? (roles & ~(unsigned)PM_ROLE_WORKER ? ", worker" : "worker") : "");
    if (out[0] == '\0')
        snprintf(out, size, "%s", process->comm);
}

/* ---- what came of it ------------------------------------------------------------------------- */

/* An answer's `no`: the process did not do it. */
static bool declined(const struct pm_control_process *process, char *why, size_t size)
{
    return process->state == PM_CONTROL_DONE &&
           pm_control_line(process->answer, "no", 0, why, size);
}

static void tell_one(const struct pm_control_process *process,
                     const struct pm_control_ending *words, int *code)
{
    char role[64], line[512], hooks[64];
    pm_control_role(process, role, sizeof(role));
    printf("  %-8u %-22s ", process->pid, role);
    switch (process->state) {
    case PM_CONTROL_DONE:
        if (declined(process, line, sizeof(line))) {
            printf("not done: ");
            pm_print_clean(stdout, line);
            *code = PM_EXIT_FAILED;
            break;
        }
        if (words->refusal_fails &&
            pm_control_line(process->answer, "refused", 0, line, sizeof(line))) {
            *code = PM_EXIT_FAILED;
            if (!pm_control_line(process->answer, "done", 0, line, sizeof(line))) {
                printf("not done");
                break;
            }
        }
        printf("%s", words->done);
        if (pm_control_line(process->answer, "hooks", 0, hooks, sizeof(hooks)))
            printf(", %.*s hooks in place", (int)strcspn(hooks, " "), hooks);
        for (size_t n = 0; pm_control_line(process->answer, "note", n, line, sizeof(line)); n++) {
            printf("; ");
            pm_print_clean(stdout, line);
        }
        break;
    case PM_CONTROL_QUEUED:
        printf("idle: %s with its next request", words->queued);
        break;
    case PM_CONTROL_GONE:
        printf("not done: it has ended");
        *code = PM_EXIT_FAILED;
        break;
    default:
        printf("not done: ");
        pm_print_clean(stdout, process->why);
        *code = PM_EXIT_FAILED;
    }
    putchar('\n');
}

/* A line of the answers that no process before had. */
static bool is_new(const struct pm_controls *controls, size_t which, const char *key,
                   const char *line)
{
    char other[512];
    for (size_t i = 0; i < which; i++)
        for (size_t n = 0; pm_control_line(controls->rows[i].answer, key, n, other, sizeof(other));
             n++)
            if (strcmp(other, line) == 0)
                return false;
    return true;
}

int pm_control_tell(const struct pm_controls *controls, const struct pm_control_ending *words)
{
    int code = PM_EXIT_OK;
    char line[512];
    for (size_t i = 0; i < controls->count; i++)
        tell_one(&controls->rows[i], words, &code);
    for (size_t i = 0; i < controls->count; i++)
        for (size_t n = 0;
             pm_control_line(controls->rows[i].answer, "refused", n, line, sizeof(line)); n++) {
            if (!is_new(controls, i, "refused", line))
                continue;
            const int name = (int)strcspn(line, " ");
            printf("%snot to be had now:%s %.*s: ", pm_style(stdout, PM_YELLOW),
                   pm_style(stdout, PM_PLAIN), name, line);
            pm_print_clean(stdout, line + name + (line[name] == ' '));
            putchar('\n');
        }
    return code;
}

static const char *const state_words[] = {"asked", "done", "queued", "silent", "gone", "refused"};

int pm_control_tell_json(const struct pm_controls *controls, const struct pm_control_ending *words,
                         struct pm_json *json)
{
    int code = PM_EXIT_OK;
    char line[512], role[64];
    pm_json_key(json, "processes");
    pm_json_array(json);
    for (size_t i = 0; i < controls->count; i++) {
        const struct pm_control_process *process = &controls->rows[i];
        const bool no = declined(process, line, sizeof(line));
        const bool good =
            (process->state == PM_CONTROL_DONE && !no) || process->state == PM_CONTROL_QUEUED;
        if (!good || (words->refusal_fails &&
                      pm_control_line(process->answer, "refused", 0, role, sizeof(role))))
            code = PM_EXIT_FAILED;
        pm_control_role(process, role, sizeof(role));
        pm_json_object(json);
        pm_json_key(json, "pid"), pm_json_u64(json, process->pid);
        pm_json_key(json, "role"), pm_json_text(json, role);
        pm_json_key(json, "state"),
            pm_json_text(json, no ? "declined" : state_words[process->state]);
        if (!good)
            pm_json_key(json, "why"), pm_json_text(json, no ? line : process->why);
        static const char *const keys[] = {"done", "refused", "note", "hooks"};
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            pm_json_key(json, keys[k]);
            pm_json_array(json);
            for (size_t n = 0; pm_control_line(process->answer, keys[k], n, line, sizeof(line));
                 n++)
                pm_json_text(json, line);
            pm_json_end(json);
        }
        pm_json_end(json);
    }
    pm_json_end(json);
    return code;
}
