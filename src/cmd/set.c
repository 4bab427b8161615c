/*
 * profilemate set: switches what the processes of a running server record, or has the next steps
 * recorded in detail. The command waits until each process has done it, and says which did not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/control.h"
#include "base/json.h"
#include "cmd/cmd.h"
#include "cmd/control.h"
#include "cmd/options.h"

static struct set_options {
    bool list, json;
    const char *wait, *dir;
} options;

static const struct pm_option option_table[] = {
    {'l', "list", PM_OPTION_FLAG, "", &options.list,
     "show what can be switched, and how it stands in each process"},
    {'j', "json", PM_OPTION_FLAG, "", &options.json, "one JSON document on stdout"},
    {'w', "wait", PM_OPTION_TEXT, "SEC", &options.wait,
     "wait so long for each process to answer (default 15)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look here (default: where sessions go)"},
};
static const char *const synopsis[] = {"[options] [SESSION|PID] SETTING=VALUE…",
                                       "[options] [SESSION|PID] detail=STEPS",
                                       "--list [--json] [SESSION|PID]", NULL};
static const char *const examples[] = {
    "profilemate set --list",
    "what can be switched in the newest server of yours, and how it stands",
    "profilemate set 4711 kv_cache=off verbose=1",
    "no more KV cache events, and lines on the server's standard error",
    "profilemate set detail=200",
    "everything that can be switched, for 200 steps; then as before",
    NULL,
};
static const struct pm_usage usage = {
    .command = "set",
    .synopsis = synopsis,
    .intro =
        "Switches what a running server records, without a restart, in all of its processes.\n"
        "Settings are those of `profilemate run`, by option or as kv_cache; on and off do for\n"
        "switches. Without SESSION or PID: the newest session of yours. Steps and requests\n"
        "are recorded as long as the session is; what must be in place at the start is\n"
        "refused, with the reason.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when a process did not do it; 2 for a misuse. A process that is idle\n"
        "does it with its next request, which is no failure.",
    .max_operands = 64,
};

/* ---- --list ---------------------------------------------------------------------------------- */

static void list_text(const struct pm_controls *controls)
{
    char value[64], role[64];
    printf("%s%-20s", pm_style(stdout, PM_BOLD), "SETTING");
    for (size_t i = 0; i < controls->count; i++)
        printf(" %8u", controls->rows[i].pid);
    printf("  WHAT%s\n", pm_style(stdout, PM_PLAIN));
    for (size_t row = 0; row < pm_setting_rows_count; row++) {
        char key[96];
        if (pm_setting_fixed(&pm_setting_rows[row]) != NULL)
            continue;
        snprintf(key, sizeof(key), "set %s", pm_setting_rows[row].field);
        bool any = false; /* what nothing follows is not listed */
        for (size_t i = 0; i < controls->count; i++)
            any = any || pm_control_value(&controls->rows[i], key, value, sizeof(value));
        if (!any)
            continue;
        printf("%-20s", pm_setting_rows[row].field);
        for (size_t i = 0; i < controls->count; i++) {
            if (!pm_control_value(&controls->rows[i], key, value, sizeof(value)))
                snprintf(value, sizeof(value), "-");
            printf(" %8s", value);
        }
        printf("  %s\n", pm_setting_rows[row].doc);
    }
    putchar('\n');
    for (size_t i = 0; i < controls->count; i++) {
        const struct pm_control_process *process = &controls->rows[i];
        pm_control_role(process, role, sizeof(role));
        printf("%u: %s, %s", process->pid, role,
               pm_control_records(process) ? "records" : "does not record");
        if (pm_control_value(process, "detail", value, sizeof(value)))
            printf(", in detail (%s steps were asked for)", value);
        putchar('\n');
    }
}

static int list_json(const struct pm_controls *controls)
{
    struct pm_buf buf;
    struct pm_json json;
    char value[64], role[64], path[4096];
    pm_buf_init(&buf, 16u << 20);
    pm_json_init(&json, &buf, 2);
    pm_json_object(&json);
    pm_json_key(&json, "processes");
    pm_json_array(&json);
    for (size_t i = 0; i < controls->count; i++) {
        const struct pm_control_process *process = &controls->rows[i];
        pm_control_role(process, role, sizeof(role));
        pm_json_object(&json);
        pm_json_key(&json, "pid"), pm_json_u64(&json, process->pid);
        pm_json_key(&json, "role"), pm_json_text(&json, role);
        pm_json_key(&json, "recording"), pm_json_bool(&json, pm_control_records(process));
        const bool born = pm_control_value(process, "session", path, sizeof(path));
        pm_json_key(&json, "session"), pm_json_text(&json, born ? path : NULL);
        pm_json_key(&json, "settings");
        pm_json_object(&json);
        for (size_t row = 0; row < pm_setting_rows_count; row++) {
            char key[96];
            snprintf(key, sizeof(key), "set %s", pm_setting_rows[row].field);
            if (!pm_control_value(process, key, value, sizeof(value)))
                continue;
            pm_json_key(&json, pm_setting_rows[row].field);
            pm_json_text(&json, value);
        }
        pm_json_end(&json);
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_key(&json, "fixed");
    pm_json_object(&json);
    for (size_t row = 0; row < pm_setting_rows_count; row++)
        if (pm_setting_fixed(&pm_setting_rows[row]) != NULL) {
            pm_json_key(&json, pm_setting_rows[row].field);
            pm_json_text(&json, pm_setting_fixed(&pm_setting_rows[row]));
        }
    pm_json_end(&json);
    pm_json_end(&json);
    const int error = pm_json_finish(&json);
    if (error == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return error != 0 ? pm_complain("cannot list the settings, %s", pm_strerror(error))
                      : pm_finish_stdout();
}

/* ---- setting --------------------------------------------------------------------------------- */

static int tell(const struct pm_controls *controls, bool detailed)
{
    const struct pm_control_ending words = {"done", "does it", !detailed};
    if (!options.json) {
        const int code = pm_control_tell(controls, &words);
        return pm_finish_stdout() == PM_EXIT_OK ? code : PM_EXIT_FAILED;
    }
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, 16u << 20);
    pm_json_init(&json, &buf, 2);
    pm_json_object(&json);
    const int code = pm_control_tell_json(controls, &words, &json);
    pm_json_end(&json);
    const int error = pm_json_finish(&json);
    if (error == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return error == 0 && pm_finish_stdout() == PM_EXIT_OK ? code : PM_EXIT_FAILED;
}

/* `detail=N`, alone. */
static int detail(const char *word, char *request, size_t size)
{
    const char *digits = strchr(word, '=') + 1;
    const size_t count = strspn(digits, "0123456789");
    if (count == 0 || count > 9 || digits[count] != '\0' || atol(digits) == 0)
        return pm_misuse("set", "%.60s is not valid, give a number of steps from 1 to 999999999",
                         word);
    snprintf(request, size, "detail\n%s\n", digits);
    return PM_EXIT_OK;
}

static int ask_all(const char *meant, const char *request, uint64_t limit_ns)
{
    struct pm_controls controls;
    size_t asked = 0;
    int code = pm_control_meant(meant, options.dir, &controls);
    if (code != PM_EXIT_OK)
        return code;
    for (size_t i = 0; i < controls.count; i++) {
        if (!pm_control_records(&controls.rows[i]))
            continue;
        const struct pm_control_process row = controls.rows[i];
        controls.rows[i] = controls.rows[asked];
        controls.rows[asked] = row;
        pm_control_ask(&controls.rows[asked++], request);
    }
    if (asked == 0) {
        code = pm_complain("process %s records nothing, profilemate start begins it",
                           meant != NULL ? meant : "");
    } else {
        struct pm_controls those = {.rows = controls.rows, .count = asked};
        pm_controls_wait(&those, limit_ns);
        code = tell(&those, strncmp(request, "detail", 6) == 0);
    }
    pm_controls_release(&controls);
    return code;
}

int pm_cmd_set(int argc, char **argv)
{
    int first;
    uint64_t limit_ns;
    char request[PM_CONTROL_REQUEST_MAX] = "set\n";
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed == PM_PARSED_HELP) {
        pm_control_help(false);
        return pm_finish_stdout();
    }
    if (parsed != PM_PARSED_OK)
        return PM_EXIT_MISUSE;
    const char *meant = first < argc && strchr(argv[first], '=') == NULL ? argv[first++] : NULL;
    int code = pm_control_limit("set", options.wait, &limit_ns);
    if (code != PM_EXIT_OK)
        return code;
    if (options.list) {
        struct pm_controls controls;
        if (first < argc)
            return pm_misuse("set", "--list sets nothing, leave %.60s out", argv[first]);
        code = pm_control_meant(meant, options.dir, &controls);
        if (code != PM_EXIT_OK)
            return code;
        if (options.json) {
            code = list_json(&controls);
        } else {
            list_text(&controls);
            code = pm_finish_stdout();
        }
        pm_controls_release(&controls);
        return code;
    }
    if (first == argc)
        return pm_misuse("set", "nothing is to be set, give SETTING=VALUE or --list");
    if (strncmp(argv[first], "detail=", 7) == 0) {
        if (argc - first > 1)
            return pm_misuse("set", "detail=STEPS stands alone, set the rest in another command");
        code = detail(argv[first], request, sizeof(request));
    } else {
        code = pm_control_words("set", false, argc - first, argv + first, request, sizeof(request));
    }
    return code == PM_EXIT_OK ? ask_all(meant, request, limit_ns) : code;
}
