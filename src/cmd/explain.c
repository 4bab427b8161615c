/*
 * profilemate explain: what a session shows that somebody could act on, each finding with its
 * evidence, its cost and the vLLM option to turn.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/progress.h"
#include "explain/explain.h"

#define TEXT_MAX (16u << 20) /* ceiling of what is printed */
#define WALKS 5u             /* times that the rules read a session, about: for the bar */

static struct explain_options {
    bool json, rules, brief;
    const char *rule, *fail_on, *dir;
    struct pm_window_options window;
} options;

static const struct pm_option option_table[] = {
    {0, "json", PM_OPTION_FLAG, "", &options.json, "one JSON object instead of text"},
    {0, "brief", PM_OPTION_FLAG, "", &options.brief, "titles and the first option to turn only"},
    {0, "rule", PM_OPTION_TEXT, "NAME", &options.rule, "ask this rule alone"},
    {0, "rules", PM_OPTION_FLAG, "", &options.rules, "say how each rule ended, and why"},
    {0, "last", PM_OPTION_TEXT, "TIME", &options.window.last,
     "look at the last 30s, 500ms, 5m or 2h only"},
    {0, "steps", PM_OPTION_TEXT, "A:B", &options.window.steps,
     "look at these steps only, both included"},
    {0, "request", PM_OPTION_TEXT, "ID", &options.window.request,
     "look at the life of one request, and where its time went"},
    {0, "fail-on", PM_OPTION_TEXT, "SEVERITY", &options.fail_on,
     "exit with 1 when a finding is low, medium or high at least"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
};
static const char *const synopsis[] = {"[options] [SESSION]", NULL};
static const char *const examples[] = {
    "profilemate explain",
    "the newest session, also while its server runs",
    "profilemate explain --last 30s",
    "what is wrong right now",
    "profilemate explain --rule prefill_stall --json session_20261123_082501 | jq .",
    "one rule's figures for a script",
    "profilemate explain --fail-on high",
    "for CI: exit code 1 when something costs much",
    NULL,
};
static const struct pm_usage usage = {
    .command = "explain",
    .synopsis = synopsis,
    .intro = "Says what SESSION shows that somebody could act on: each finding with its evidence,\n"
             "what it cost, how sure it is, and the vLLM option to turn. SESSION is a path, a "
             "name,\n"
             "the start of one name, or by default the newest. docs/FINDINGS.md has the rules.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0, whatever was found; 1 when the session could not be read, or --fail-on\n"
        "found something; 2 for a misuse.",
    .max_operands = 1,
};

static const char *rule_at(size_t i, void *arg)
{
    (void)arg;
    return pm_rule_name(i, NULL);
}

static bool known_rule(const char *name)
{
    for (size_t i = 0; pm_rule_name(i, NULL) != NULL; i++)
        if (strcmp(name, pm_rule_name(i, NULL)) == 0)
            return true;
    return false;
}

/* The severity of a word; false where it is none. */
static bool severity_of(const char *word, enum pm_severity *ret_severity)
{
    for (enum pm_severity s = PM_SEVERITY_LOW; s <= PM_SEVERITY_HIGH; s++)
        if (strcmp(word, pm_severity_name(s)) == 0) {
            *ret_severity = s;
            return true;
        }
    return false;
}

static void put_json(struct pm_buf *buf, const struct pm_session *session,
                     const struct pm_findings *findings)
{
    const struct pm_session_info *info = pm_session_info(session);
    struct pm_json json;

    pm_json_init(&json, buf, 2);
    pm_json_object(&json);
    pm_json_key(&json, "session_id");
    pm_json_text(&json, info->name);
    pm_json_key(&json, "path");
    pm_json_text(&json, info->path);
    pm_json_key(&json, "state");
    pm_json_text(&json, pm_session_state(session));
    pm_json_key(&json, "window");
    pm_json_text(&json, findings->window.whole ? NULL : findings->window.words);
    pm_json_key(&json, "seconds");
    pm_json_double(&json, findings->seconds, 6);
    pm_json_key(&json, "steps");
    pm_json_u64(&json, findings->steps);
    pm_json_key(&json, "requests");
    pm_json_u64(&json, findings->requests);
    pm_json_key(&json, "findings");
    pm_findings_json(&json, findings, info->start_mono_ns);
    pm_json_key(&json, "rules");
    pm_json_array(&json);
    for (size_t i = 0; i < findings->n_results; i++) {
        pm_json_object(&json);
        pm_json_key(&json, "rule");
        pm_json_text(&json, findings->results[i].rule);
        pm_json_key(&json, "result");
        pm_json_text(&json, pm_verdict_name(findings->results[i].verdict));
        pm_json_key(&json, "why");
        pm_json_text(&json, findings->results[i].why);
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_end(&json);
    (void)!pm_json_finish(&json); /* the buffer keeps the failure */
}

static void put_text(struct pm_buf *buf, const struct pm_session *session,
                     const struct pm_findings *findings, bool colour)
{
    const struct pm_session_info *info = pm_session_info(session);
    const struct pm_findings_style style = {
        .colour = colour, .brief = options.brief, .rules = options.rules};

    (void)pm_buf_printf(buf, "%s%s%s (%s)%s%s\n", colour ? "\033[1m" : "", info->name,
                        colour ? "\033[0m" : "", pm_session_state(session),
                        findings->window.whole ? "" : ", ", findings->window.words);
    pm_findings_text(buf, findings, &style, info->start_mono_ns);
}

static int print(const struct pm_session *session, const struct pm_findings *findings)
{
    struct pm_buf buf;

    pm_buf_init(&buf, TEXT_MAX);
    if (options.json)
        put_json(&buf, session, findings);
    else
        put_text(&buf, session, findings, pm_colour(stdout));
    const int rc = pm_buf_status(&buf);
    if (rc == 0)
        (void)fwrite(buf.data, 1, buf.used, stdout); /* pm_finish_stdout tells of a failure */
    pm_buf_release(&buf);
    return rc == 0 ? pm_finish_stdout() : pm_complain("the findings: %s", pm_strerror(rc));
}

int pm_cmd_explain(int argc, char **argv)
{
    enum pm_severity fail_on = PM_SEVERITY_HIGH;
    struct pm_progress progress;
    struct pm_findings findings;
    struct pm_window window;
    struct pm_session *session;
    struct pm_place place;
    struct pm_error err = {""};
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);

    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (options.json && (options.brief || options.rules))
        return pm_misuse("explain", "--json has all of it, --brief and --rules go with text");
    if (options.rule != NULL && !known_rule(options.rule)) {
        const char *near = pm_nearest(options.rule, rule_at, NULL);
        return near != NULL
                   ? pm_misuse("explain", "--rule %s: no such rule, did you mean %s", options.rule,
                               near)
                   : pm_misuse("explain", "--rule %s: no such rule, --rules shows them all",
                               options.rule);
    }
    if (options.fail_on != NULL && !severity_of(options.fail_on, &fail_on))
        return pm_misuse("explain", "--fail-on %s: not a severity, give low, medium or high",
                         options.fail_on);
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0 ||
        pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s", err.text);
    int rc = pm_window_parse(session, &options.window, &window, &err);
    if (rc == -PM_EINVALID) {
        pm_session_close(session);
        return pm_misuse("explain", "%s", err.text);
    }
    if (rc == 0) {
        pm_progress_begin(&progress, "explain", WALKS * pm_progress_session_bytes(session));
        rc = pm_explain_rule(session, &window, options.rule, &findings, &err);
        pm_progress_end(&progress);
    }
    if (rc != 0) {
        pm_session_close(session);
        return pm_complain("%s", err.text);
    }
    int code = print(session, &findings);
    for (size_t i = 0; i < findings.count && options.fail_on != NULL; i++)
        if (findings.rows[i].severity >= fail_on)
            code = PM_EXIT_FAILED;
    pm_findings_release(&findings);
    pm_session_close(session);
    return code;
}
