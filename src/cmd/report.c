/*
 * profilemate report: what a session shows, as text or JSON, also while it runs.
 */
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"

static struct report_options {
    bool text, json, brief;
    const char *dir;
} options;

static const struct pm_option option_table[] = {
    {0, "text", PM_OPTION_FLAG, "", &options.text, "text for a terminal (the default)"},
    {0, "json", PM_OPTION_FLAG, "", &options.json, "the same figures as one JSON object"},
    {0, "brief", PM_OPTION_FLAG, "", &options.brief, "only the lines that `run` ends with"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
};
static const char *const synopsis[] = {"[options] [SESSION]", NULL};
static const char *const examples[] = {
    "profilemate report",
    "the newest session, also while its server runs",
    "profilemate report --json session_20261123_082501 | jq .",
    "the figures of another for a script",
    NULL,
};
static const struct pm_usage usage = {
    .command = "report",
    .synopsis = synopsis,
    .intro =
        "Prints what SESSION shows: what ran, forward passes by phase, batches, queues, hooks,\n"
        "losses and the profiler's own cost. SESSION is a path, a name, the start of one name,\n"
        "or by default the newest.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when the session could not be read; 2 for a misuse.",
    .max_operands = 1,
};

int pm_cmd_report(int argc, char **argv)
{
    struct pm_place place;
    struct pm_session *session;
    struct pm_error err = {""};
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (options.json && (options.text || options.brief))
        return pm_misuse("report", "--json does not go with --text or --brief, choose one");
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0 ||
        pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s", err.text);
    struct pm_report_options how = {.colour = pm_colour(stdout), .brief = options.brief};
    int error = options.json ? pm_view_report_json(session, stdout, &err)
                             : pm_view_report_text(session, &how, stdout, &err);
    pm_session_close(session);
    if (error != 0)
        return pm_complain("%s", err.text);
    return pm_finish_stdout();
}
