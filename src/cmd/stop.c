/*
 * profilemate stop: ends recording in a running server, which serves on, and writes the files of
 * the session that was recorded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/control.h"
#include "cmd/options.h"
#include "view/view.h"

static struct stop_options {
    bool json, no_export;
    const char *wait, *dir;
} options;

static const struct pm_option option_table[] = {
    {0, "no-export", PM_OPTION_FLAG, "", &options.no_export, "write no files"},
    {'j', "json", PM_OPTION_FLAG, "", &options.json, "one JSON document on stdout"},
    {'w', "wait", PM_OPTION_TEXT, "SEC", &options.wait,
     "wait so long for each process to answer (default 15)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look here (default: where sessions go)"},
};
static const char *const synopsis[] = {"[options] SESSION|PID|all", NULL};
static const char *const examples[] = {
    "profilemate stop 4711",
    "the server of process 4711 serves on without recording; the session's files are written",
    "profilemate stop all --no-export",
    "end every recording of yours on this host; profilemate export writes the files later",
    NULL,
};
static const struct pm_usage usage = {
    .command = "stop",
    .synopsis = synopsis,
    .intro =
        "Ends recording in a running server, however it was begun: hooks are taken out, record\n"
        "files are closed, the server serves on. Then the session's CSV and JSON files are\n"
        "written. profilemate start begins another session.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when a process did not do it, or the files could not be written; 2 for\n"
        "a misuse. A process that is idle ends its file with its next request.",
    .min_operands = 1,
    .max_operands = 1,
};

/* The files, as `profilemate run` writes them at its end. */
static int write_files(const char *path)
{
    struct pm_place place;
    struct pm_session *session;
    struct pm_error err = {""};
    struct pm_export_options export = {.preset = -1};
    struct pm_export_result result;
    const char *again = "the records are kept, `profilemate export` writes the files";
    if (pm_place_read(path, &place) != 0)
        return pm_complain("%s cannot be read from here, %s", path, again);
    if (pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s, %s", err.text, again);
    int code = PM_EXIT_OK;
    if (pm_export_seed(session, &export, &result, &err) != 0)
        code = pm_complain("%s, %s", err.text, again);
    pm_session_close(session);
    return code;
}

static void each_session(const struct pm_controls *controls, size_t i, char *out, size_t size)
{
    char other[4096];
    out[0] = '\0';
    if (!pm_control_line(controls->rows[i].answer, "session", 0, out, size) &&
        !(controls->rows[i].state == PM_CONTROL_QUEUED &&
          pm_control_value(&controls->rows[i], "session", out, size)))
        out[0] = '\0';
    for (size_t k = 0; k < i && out[0] != '\0'; k++)
        if ((pm_control_line(controls->rows[k].answer, "session", 0, other, sizeof(other)) ||
             pm_control_value(&controls->rows[k], "session", other, sizeof(other))) &&
            strcmp(other, out) == 0)
            out[0] = '\0';
}

static int tell(const struct pm_controls *controls)
{
    static const struct pm_control_ending words = {"recording ended", "ends its recording", false};
    struct pm_buf buf;
    struct pm_json json;
    char path[4096];
    int code;
    pm_buf_init(&buf, 16u << 20);
    pm_json_init(&json, &buf, 2);
    pm_json_object(&json);
    if (!options.json)
        code = pm_control_tell(controls, &words);
    else
        code = pm_control_tell_json(controls, &words, &json);
    pm_json_key(&json, "sessions");
    pm_json_array(&json);
    for (size_t i = 0; i < controls->count; i++) {
        each_session(controls, i, path, sizeof(path));
        if (path[0] == '\0')
            continue;
        if (!options.no_export && write_files(path) != PM_EXIT_OK)
            code = PM_EXIT_FAILED;
        pm_json_text(&json, path);
        if (options.json)
            continue;
        printf("Session: ");
        pm_print_clean(stdout, path);
        putchar('\n');
    }
    pm_json_end(&json);
    pm_json_end(&json);
    if (options.json && pm_json_finish(&json) == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return code;
}

int pm_cmd_stop(int argc, char **argv)
{
    int first;
    uint64_t limit_ns;
    struct pm_controls controls;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    int code = pm_control_limit("stop", options.wait, &limit_ns);
    if (code != PM_EXIT_OK)
        return code;
    const bool all = strcmp(argv[first], "all") == 0;
    if (all && (code = pm_controls_find(&controls)) != 0)
        return pm_complain("cannot look at the processes of this host, %s", pm_strerror(code));
    if (!all && (code = pm_control_meant(argv[first], options.dir, &controls)) != PM_EXIT_OK)
        return code;
    size_t asked = 0;
    for (size_t i = 0; i < controls.count; i++) {
        if (!pm_control_records(&controls.rows[i]))
            continue;
        const struct pm_control_process row = controls.rows[i];
        controls.rows[i] = controls.rows[asked];
        controls.rows[asked] = row;
        pm_control_ask(&controls.rows[asked++], "stop\n");
    }
    struct pm_controls those = {.rows = controls.rows, .count = asked};
    if (asked == 0) {
        code =
            pm_complain("%s records nothing", all ? "no server that we may control" : argv[first]);
    } else {
        pm_controls_wait(&those, limit_ns);
        code = tell(&those);
        code = pm_finish_stdout() == PM_EXIT_OK ? code : PM_EXIT_FAILED;
    }
    pm_controls_release(&controls);
    return code;
}
