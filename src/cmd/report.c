/*
 * profilemate report: what a session shows, as an HTML page, as text or as JSON, also while it
 * runs.
 */
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/progress.h"
#include "explain/explain.h"
#include "html/page.h"
#include "view/window.h"

#define PAGE "report.html" /* in the session's folder */
#define PASSES 11          /* times that a report reads a session, about: for the bar */

static struct report_options {
    bool text, json, brief;
    const char *out, *dir;
    struct pm_window_options window;
} options;

static const struct pm_option option_table[] = {
    {'o', "out", PM_OPTION_TEXT, "FILE", &options.out,
     "write the page there (default: " PAGE " in the session's folder)"},
    {0, "text", PM_OPTION_FLAG, "", &options.text, "text for a terminal instead of a page"},
    {0, "json", PM_OPTION_FLAG, "", &options.json, "the figures as one JSON object"},
    {0, "brief", PM_OPTION_FLAG, "", &options.brief, "text, only the lines that `run` ends with"},
    {0, "last", PM_OPTION_TEXT, "TIME", &options.window.last,
     "only the last so much: 30s, 500ms, 5m, 2h"},
    {0, "steps", PM_OPTION_TEXT, "A:B", &options.window.steps, "only the steps A to B"},
    {0, "request", PM_OPTION_TEXT, "ID", &options.window.request,
     "only the life of one request (an id, or its start)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
};
static const char *const synopsis[] = {"[options] [SESSION]", NULL};
static const char *const examples[] = {
    "profilemate report",
    "the newest session as a page for a browser, also while its server runs; prints its path",
    "profilemate report -o /tmp/slow.html --last 5m session_20261123_082501",
    "the last five minutes of another, into a file of one's choice",
    "profilemate report --text",
    "in the terminal",
    "profilemate report --json | jq .",
    "the figures for a script",
    NULL,
};
static const struct pm_usage usage = {
    .command = "report",
    .synopsis = synopsis,
    .intro =
        "Shows what SESSION holds: what ran, findings, steps, batches, queues, KV cache, "
        "requests,\n"
        "latencies, CUDA graphs, experts, wasted work, hooks, losses and the profiler's own cost.\n"
        "Writes one HTML file that opens without a network, and prints its path; --text and\n"
        "--json print instead. SESSION is a path, a name, the start of one name, or by default\n"
        "the newest.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when the session could not be read; 2 for a misuse.",
    .max_operands = 1,
};

/* What does not go together; 0, or the exit code. */
static int check(void)
{
    if (options.json && (options.text || options.brief))
        return pm_misuse("report", "--json does not go with --text or --brief, choose one");
    if (options.out != NULL && (options.json || options.text || options.brief))
        return pm_misuse("report", "--out is for the page, redirect what --text and --json print");
    if (options.out != NULL && *options.out == '\0')
        return pm_misuse("report", "--out is empty, give it the name of a file");
    return PM_EXIT_OK;
}

/* A bar on a terminal while it takes long. */
static void begin(struct pm_progress *progress, const struct pm_session *session)
{
    pm_progress_begin(progress, "report", PASSES * pm_progress_session_bytes(session));
}

static int write_page(const struct pm_session *session, const struct pm_place *place,
                      const struct pm_window *window)
{
    struct pm_html_result result;
    struct pm_progress progress;
    struct pm_error err = {""};
    char path[PATH_MAX + sizeof(PAGE)];

    /* Another user could have prepared that folder for what we are about to write. */
    if (options.out == NULL && place->owner != geteuid())
        return pm_complain("the session %s belongs to user %ld, its report is not written into it, "
                           "give --out FILE",
                           place->path, (long)place->owner);
    snprintf(path, sizeof(path), "%s/" PAGE, place->path);
    begin(&progress, session);
    const int rc =
        pm_html_write(session, window, options.out != NULL ? options.out : path, &result, &err);
    pm_progress_end(&progress);
    if (rc != 0)
        return pm_complain("%s", err.text);
    pm_print_clean(stdout, result.path);
    putchar('\n');
    return pm_finish_stdout();
}

static int print(const struct pm_session *session, const struct pm_window *window)
{
    struct pm_error err = {""};
    struct pm_progress progress;
    const struct pm_report_options how = {
        .colour = pm_colour(stdout), .brief = options.brief, .window = window};
    begin(&progress, session);
    const int rc = options.json ? pm_explain_report_json(session, &how, stdout, &err)
                                : pm_explain_report_text(session, &how, stdout, &err);
    pm_progress_end(&progress);
    return rc != 0 ? pm_complain("%s", err.text) : pm_finish_stdout();
}

int pm_cmd_report(int argc, char **argv)
{
    struct pm_place place;
    struct pm_session *session;
    struct pm_window window;
    struct pm_error err = {""};
    int first, code;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);

    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if ((code = check()) != PM_EXIT_OK)
        return code;
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0 ||
        pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s", err.text);
    if (pm_window_parse(session, &options.window, &window, &err) != 0 ||
        pm_window_apply(session, &window, &err) != 0)
        code = pm_complain("%s", err.text);
    else if (options.text || options.json || options.brief)
        code = print(session, &window);
    else
        code = write_page(session, &place, &window);
    pm_session_close(session);
    return code;
}
