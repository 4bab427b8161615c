/*
 * profilemate functions: the functions that VLLM_TRACE_FUNCTION traced, as a table, flame graph or
 * timeline, also while their server runs.
 */
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "view/functions.h"

#include <string.h>

#define TEXT_ROWS 30

static struct functions_options {
    const char *format, *sort, *dir;
    long limit, pid;
} options = {.limit = -1};

static const struct pm_option option_table[] = {
    {'f', "format", PM_OPTION_TEXT, "FORMAT", &options.format,
     "table (the default), csv, json, folded, chrome"},
    {0, "sort", PM_OPTION_TEXT, "BY", &options.sort, "self (the default), total, calls, max, name"},
    {'n', "limit", PM_OPTION_WHOLE, "N", &options.limit,
     "show N functions, 0 for all (table: 30, others: all)"},
    {0, "pid", PM_OPTION_WHOLE, "PID", &options.pid, "only those of this process"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
};
static const char *const synopsis[] = {"[options] [SESSION]", NULL};
static const char *const examples[] = {
    "VLLM_TRACE_FUNCTION=vllm.v1 profilemate run -- vllm serve MODEL",
    "trace the functions of vllm.v1",
    "profilemate functions --sort total --limit 10",
    "the ten that took longest with all they called, in the newest session",
    "profilemate functions --format folded > stacks.txt",
    "stacks for a flame graph: flamegraph.pl stacks.txt, or speedscope.app",
    "profilemate functions --format chrome > calls.json",
    "a timeline for ui.perfetto.dev or chrome://tracing",
    NULL,
};
static const struct pm_usage usage = {
    .command = "functions",
    .synopsis = synopsis,
    .intro =
        "Shows the Python functions that VLLM_TRACE_FUNCTION traced in SESSION: calls, their own\n"
        "time and that of all they called. SESSION is a path, a name, the start of one name, or\n"
        "by default the newest.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when the session could not be read or has no traced functions; 2 for a\n"
        "misuse.",
    .max_operands = 1,
};

typedef int (*view_fn)(const struct pm_session *session, const struct pm_function_how *how,
                       FILE *out, struct pm_error *err);

static const struct {
    const char *name;
    view_fn view;
    bool rows; /* --sort and --limit mean something */
} formats[] = {
    {"table", pm_view_functions_text, true},     {"csv", pm_view_functions_csv, true},
    {"json", pm_view_functions_json, true},      {"folded", pm_view_functions_folded, false},
    {"chrome", pm_view_functions_chrome, false},
};

static const char *const sorts[] = {
    [PM_FUNCTION_BY_SELF] = "self",   [PM_FUNCTION_BY_TOTAL] = "total",
    [PM_FUNCTION_BY_CALLS] = "calls", [PM_FUNCTION_BY_MAX] = "max",
    [PM_FUNCTION_BY_NAME] = "name",
};

int pm_cmd_functions(int argc, char **argv)
{
    struct pm_place place;
    struct pm_session *session;
    struct pm_error err = {""};
    int first;
    size_t format = 0, sort = 0;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    while (options.format != NULL && format < sizeof(formats) / sizeof(formats[0]) &&
           strcmp(options.format, formats[format].name) != 0)
        format++;
    if (format == sizeof(formats) / sizeof(formats[0]))
        return pm_misuse("functions",
                         "--format=%.100s is not known, give table, csv, json, folded or chrome",
                         options.format);
    while (options.sort != NULL && sort < sizeof(sorts) / sizeof(sorts[0]) &&
           strcmp(options.sort, sorts[sort]) != 0)
        sort++;
    if (sort == sizeof(sorts) / sizeof(sorts[0]))
        return pm_misuse("functions",
                         "--sort=%.100s is not known, give self, total, calls, max or name",
                         options.sort);
    if (!formats[format].rows && (options.sort != NULL || options.limit >= 0))
        return pm_misuse("functions",
                         "--sort and --limit do not go with --format=%s, which shows "
                         "everything",
                         formats[format].name);
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0 ||
        pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s", err.text);
    const struct pm_function_how how = {
        .sort = (enum pm_function_sort)sort,
        .limit = options.limit >= 0 ? (size_t)options.limit
                 : format == 0      ? TEXT_ROWS
                                    : 0,
        .pid = options.pid,
        .colour = pm_colour(stdout),
    };
    const int error = formats[format].view(session, &how, stdout, &err);
    pm_session_close(session);
    if (error != 0)
        return pm_complain("%s", err.text);
    return pm_finish_stdout();
}
