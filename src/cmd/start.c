/*
 * profilemate start: begins recording in a server that runs without. The session is made up here,
 * so that all processes of the server record into one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cmd/cmd.h"
#include "cmd/control.h"
#include "cmd/options.h"
#include "recorder/birth.h"

static struct start_options {
    bool json;
    const char *wait;
} options;

static const struct pm_option option_table[] = {
    {'j', "json", PM_OPTION_FLAG, "", &options.json, "one JSON document on stdout"},
    {'w', "wait", PM_OPTION_TEXT, "SEC", &options.wait,
     "wait so long for each process to answer (default 15)"},
};
static const char *const synopsis[] = {"[options] PID|all [SETTING=VALUE…]", NULL};
static const char *const examples[] = {
    "profilemate start 4711",
    "record in the server that process 4711 belongs to, all of its processes",
    "profilemate start all preset=simple",
    "in every server of this host that does not record, the lean preset",
    "profilemate start 4711 kv_cache=off max_mb=512",
    "with settings of its own: those of profilemate run",
    NULL,
};
static const struct pm_usage usage = {
    .command = "start",
    .synopsis = synopsis,
    .intro = "Begins recording in a running vLLM server that was started without: with\n"
             "VLLM_ENABLE_PROFILING=0, or as a script of your own with the wheel installed. The\n"
             "server is not restarted and serves on. What has to be in place when a model is\n"
             "loaded, compiled or captured cannot be had, and is named. Only the server's own\n"
             "user, and root, may do it.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when a process did not do it; 2 for a misuse. A process that is idle\n"
        "begins with its next request, which is no failure.",
    .min_operands = 1,
    .max_operands = 64,
};

/* A session of its own for one server. */
static void make_request(const struct pm_control_process *process, const char *settings, char *out,
                         size_t size)
{
    struct pm_birth birth;
    char text[256];
    pm_birth_reserve(&birth);
    birth.root_pid = process->page->root_pid;
    pm_birth_format(&birth, text, sizeof(text));
    snprintf(out, size, "start\n%s\n%s", text, settings);
}

/* Where a process of the server records already: the others join. */
static void join_request(const struct pm_control_process *process, const char *settings, char *out,
                         size_t size)
{
    char text[256] = "";
    (void)pm_control_value(process, "birth", text, sizeof(text));
    snprintf(out, size, "start\n%s\n%s", text, settings);
}

static int tell(const struct pm_controls *controls)
{
    static const struct pm_control_ending words = {"records", "begins", false};
    char path[4096] = "";
    for (size_t i = 0; i < controls->count && path[0] == '\0'; i++)
        (void)pm_control_line(controls->rows[i].answer, "session", 0, path, sizeof(path));
    if (!options.json) {
        if (path[0] != '\0') {
            printf("Session: ");
            pm_print_clean(stdout, path);
            putchar('\n');
        }
        return pm_control_tell(controls, &words);
    }
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, 16u << 20);
    pm_json_init(&json, &buf, 2);
    pm_json_object(&json);
    pm_json_key(&json, "session"), pm_json_text(&json, path[0] != '\0' ? path : NULL);
    const int code = pm_control_tell_json(controls, &words, &json);
    pm_json_end(&json);
    const int error = pm_json_finish(&json);
    if (error == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return error == 0 ? code : pm_complain("cannot tell what came of it, %s", pm_strerror(error));
}

static int start_server(struct pm_controls *controls, const char *settings, uint64_t limit_ns)
{
    char request[PM_CONTROL_REQUEST_MAX];
    const struct pm_control_process *records = NULL;
    for (size_t i = 0; i < controls->count; i++)
        if (pm_control_records(&controls->rows[i]))
            records = &controls->rows[i];
    if (records != NULL)
        join_request(records, settings, request, sizeof(request));
    else
        make_request(&controls->rows[0], settings, request, sizeof(request));
    for (size_t i = 0; i < controls->count; i++)
        pm_control_ask(&controls->rows[i], request);
    pm_controls_wait(controls, limit_ns);
    return tell(controls);
}

/* Every server that does not record. */
static int start_all(const char *settings, uint64_t limit_ns)
{
    struct pm_controls all;
    int code = PM_EXIT_OK;
    size_t servers = 0;
    const int rc = pm_controls_find(&all);
    if (rc != 0)
        return pm_complain("cannot look at the processes of this host, %s", pm_strerror(rc));
    for (size_t i = 0; i < all.count; i++) {
        struct pm_controls one;
        bool first = !pm_control_records(&all.rows[i]);
        for (size_t k = 0; k < i && first; k++)
            first = memcmp(all.rows[k].page->group, all.rows[i].page->group,
                           sizeof(all.rows[i].page->group)) != 0;
        if (!first || pm_controls_find(&one) != 0)
            continue;
        pm_controls_keep_group(&one, &all.rows[i]);
        bool dormant = one.count > 0;
        for (size_t k = 0; k < one.count; k++)
            dormant = dormant && !pm_control_records(&one.rows[k]);
        if (dormant) {
            servers++;
            if (start_server(&one, settings, limit_ns) != PM_EXIT_OK)
                code = PM_EXIT_FAILED;
        }
        pm_controls_release(&one);
    }
    pm_controls_release(&all);
    return servers > 0 ? code
                       : pm_complain("no server that could be started runs here, or it is another "
                                     "user's: see profilemate top");
}

int pm_cmd_start(int argc, char **argv)
{
    int first;
    uint64_t limit_ns;
    char settings[PM_CONTROL_REQUEST_MAX / 2] = "";
    struct pm_controls controls;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed == PM_PARSED_HELP) {
        pm_control_help(true);
        return pm_finish_stdout();
    }
    if (parsed != PM_PARSED_OK)
        return PM_EXIT_MISUSE;
    int code = pm_control_limit("start", options.wait, &limit_ns);
    if (code != PM_EXIT_OK)
        return code;
    const char *meant = argv[first++];
    const bool all = strcmp(meant, "all") == 0;
    if (!all && pm_control_pid(meant) == 0)
        return pm_misuse("start", "%.60s is no process id, give one, or all", meant);
    code = pm_control_words("start", true, argc - first, argv + first, settings, sizeof(settings));
    if (code != PM_EXIT_OK)
        return code;
    if (all) {
        code = start_all(settings, limit_ns);
    } else {
        code = pm_control_meant(meant, NULL, &controls);
        if (code != PM_EXIT_OK)
            return code;
        code = start_server(&controls, settings, limit_ns);
        pm_controls_release(&controls);
    }
    return pm_finish_stdout() == PM_EXIT_OK ? code : PM_EXIT_FAILED;
}
