/*
 * profilemate doctor: the checklist of what must be so for a session to come about, or of what a
 * session says about itself; each point that is not so with what to do.
 */
#include "cmd/doctor.h"
#include "cmd/cmd.h"
#include "cmd/environ.h"
#include "cmd/options.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

extern char **environ;

static struct doctor_options {
    const char *python, *dir;
    bool json, all;
} options;

static const struct pm_option option_table[] = {
    {0, "python", PM_OPTION_TEXT, "EXE", &options.python,
     "the Python that runs vLLM (default: the one of COMMAND, else python3)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
    {'a', "all", PM_OPTION_FLAG, "", &options.all,
     "name also the hooks that are as they should be"},
    {0, "json", PM_OPTION_FLAG, "", &options.json, "one JSON document on stdout, of all"},
};
static const char *const synopsis[] = {
    "[--python=EXE] [--all|--json] [-- COMMAND [ARGUMENT]...]",
    "[--all|--json] [--dir=DIR] SESSION",
    NULL,
};
static const char *const examples[] = {
    "profilemate doctor",
    "is the set-up right: extension, Python, vLLM and its hooks, settings, output folder",
    "profilemate doctor -- vllm serve Qwen/Qwen3-0.6B",
    "would this be profiled as it stands, by which way, and if not, why",
    "profilemate doctor -- profilemate run -- vllm serve Qwen/Qwen3-0.6B",
    "the same with what `run` would set",
    "profilemate doctor session_20261123_082501",
    "which hooks fired, what was lost, how its processes ended",
    NULL,
};
static const struct pm_usage usage = {
    .command = "doctor",
    .synopsis = synopsis,
    .intro = "Without SESSION: checks whether the extension would be loaded, by which way and by\n"
             "which Python, and what that Python's vLLM offers; imports neither. With SESSION (a\n"
             "path, a name or the start of one): checks what its processes said.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0 when all is well (notes and warnings do not count); 1 when there is a\n"
             "problem; 2 for a misuse.",
    .max_operands = (size_t)-1,
};

/* ---- findings -------------------------------------------------------------------------------- */

void pm_doctor_release(struct pm_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        free(findings->list[i].text);
        free(findings->list[i].advice);
    }
    free(findings->list);
    *findings = (struct pm_findings){0};
}

static char *PM_PRINTF(1, 0) format_text(const char *format, va_list args)
{
    char *text;
    return vasprintf(&text, format, args) < 0 ? NULL : text;
}

void pm_find(struct pm_findings *findings, enum pm_mark mark, const char *id, const char *advice,
             const char *format, ...)
{
    va_list args;
    if (findings->count == findings->room) {
        size_t room = findings->room * 2 + 64;
        struct pm_finding *grown = realloc(findings->list, room * sizeof(grown[0]));
        if (grown == NULL) {
            findings->failed = true;
            return;
        }
        findings->list = grown;
        findings->room = room;
    }
    struct pm_finding *finding = &findings->list[findings->count];
    *finding = (struct pm_finding){.mark = mark, .section = findings->section, .id = id};
    va_start(args, format);
    finding->text = format_text(format, args);
    va_end(args);
    finding->advice = advice != NULL ? strdup(advice) : NULL;
    if (finding->text == NULL) {
        free(finding->advice);
        findings->failed = true;
        return;
    }
    findings->count++;
    findings->problems += mark == PM_MARK_PROBLEM;
    findings->warnings += mark == PM_MARK_WARNING;
}

void pm_advise(struct pm_findings *findings, const char *format, ...)
{
    va_list args;
    if (findings->count == 0)
        return;
    struct pm_finding *last = &findings->list[findings->count - 1];
    free(last->advice);
    va_start(args, format);
    last->advice = format_text(format, args);
    va_end(args);
}

/* ---- the hooks' table ------------------------------------------------------------------------ */

/* The flags are those of probe/probe.h, which needs Python: only whether a hook is optional counts
 * here. */
const struct pm_hook_row pm_hook_rows[] = {
#define X(probe, module, qualname, kind, flags, versions, quiet_when)                              \
    {#probe,   module,    qualname, module ":" qualname, ((flags)&PM_TARGET_OPTIONAL) != 0,        \
     versions, quiet_when},
#define PM_TARGET_OPTIONAL 1
#define PM_TARGET_OUTERMOST 2
#define PM_TARGET_QUICK 4
#include "probe/targets.def"
#undef PM_TARGET_OPTIONAL
#undef PM_TARGET_OUTERMOST
#undef PM_TARGET_QUICK
#undef X
};
const size_t pm_hook_rows_count = sizeof(pm_hook_rows) / sizeof(pm_hook_rows[0]);

bool pm_hook_row_repeats(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(pm_hook_rows[k].target, pm_hook_rows[i].target) == 0)
            return true;
    return false;
}

int pm_version_compare(const char *a, const char *b)
{
    for (int part = 0; part < 3; part++) {
        char *end_a, *end_b;
        unsigned long x = strtoul(a, &end_a, 10), y = strtoul(b, &end_b, 10);
        if (x != y)
            return x < y ? -1 : 1;
        a = *end_a == '.' ? end_a + 1 : "";
        b = *end_b == '.' ? end_b + 1 : "";
    }
    return 0;
}

/* ---- how it is told -------------------------------------------------------------------------- */

static const char *mark_name(enum pm_mark mark)
{
    static const char *const names[] = {
        [PM_MARK_FINE] = "ok",
        [PM_MARK_NOTE] = "note",
        [PM_MARK_WARNING] = "warning",
        [PM_MARK_PROBLEM] = "problem",
    };
    return names[mark];
}

/* A hook that needs no attention: dozens of them in a session, which is one line but for --all. */
static bool is_quiet_hook(const struct pm_finding *finding)
{
    return !options.all && strcmp(finding->id, "hook") == 0 && finding->mark <= PM_MARK_NOTE;
}

/* The one line, or two, for the quiet hooks of the section that begins with findings->list[i]. */
static void sum_up_hooks(const struct pm_findings *findings, size_t i, char *fine, char *note,
                         size_t size)
{
    const char *section = findings->list[i].section;
    size_t counts[2] = {0, 0};
    for (; i < findings->count && strcmp(findings->list[i].section, section) == 0; i++)
        if (is_quiet_hook(&findings->list[i]))
            counts[findings->list[i].mark == PM_MARK_NOTE]++;
    fine[0] = note[0] = '\0';
    if (counts[0] > 0)
        snprintf(fine, size, "%zu hook%s called", counts[0], counts[0] == 1 ? " was" : "s were");
    if (counts[1] > 0)
        snprintf(note, size,
                 "%zu hook%s not called, or not in this vLLM: normal here, --all says why",
                 counts[1], counts[1] == 1 ? " was" : "s were");
}

static void print_text(const struct pm_findings *findings)
{
    static const char *const marks[] = {[PM_MARK_FINE] = "✓",
                                        [PM_MARK_NOTE] = "·",
                                        [PM_MARK_WARNING] = "!",
                                        [PM_MARK_PROBLEM] = "✗"};
    static const enum pm_style styles[] = {[PM_MARK_FINE] = PM_GREEN,
                                           [PM_MARK_NOTE] = PM_DIM,
                                           [PM_MARK_WARNING] = PM_YELLOW,
                                           [PM_MARK_PROBLEM] = PM_RED};
    const char *plain = pm_style(stdout, PM_PLAIN);
    const char *section = "";
    char sums[2][128] = {"", ""}; /* of the quiet hooks: fine, note; "" once printed */
    for (size_t i = 0; i < findings->count; i++) {
        const struct pm_finding *finding = &findings->list[i];
        const char *text = finding->text;
        if (strcmp(section, finding->section) != 0) {
            section = finding->section;
            printf("%s%s%s%s\n", i > 0 ? "\n" : "", pm_style(stdout, PM_BOLD), section, plain);
            sum_up_hooks(findings, i, sums[0], sums[1], sizeof(sums[0]));
        }
        char *sum = is_quiet_hook(finding) ? sums[finding->mark == PM_MARK_NOTE] : NULL;
        if (sum != NULL && sum[0] == '\0')
            continue;
        if (sum != NULL)
            text = sum;
        printf("  %s%s%s ", pm_style(stdout, styles[finding->mark]), marks[finding->mark], plain);
        pm_print_clean(stdout, text);
        if (sum != NULL)
            sum[0] = '\0';
        putchar('\n');
        if (finding->advice != NULL && sum == NULL) {
            fputs("      → ", stdout);
            pm_print_clean(stdout, finding->advice);
            putchar('\n');
        }
    }
    printf("\n%zu problem%s, %zu warning%s.\n", findings->problems,
           findings->problems == 1 ? "" : "s", findings->warnings,
           findings->warnings == 1 ? "" : "s");
}

static int print_json(const struct pm_findings *findings)
{
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, 64u << 20);
    pm_json_init(&json, &buf, 2);
    pm_json_object(&json);
    pm_json_key(&json, "healthy"), pm_json_bool(&json, findings->problems == 0);
    pm_json_key(&json, "problems"), pm_json_u64(&json, findings->problems);
    pm_json_key(&json, "warnings"), pm_json_u64(&json, findings->warnings);
    pm_json_key(&json, "checks");
    pm_json_array(&json);
    for (size_t i = 0; i < findings->count; i++) {
        const struct pm_finding *finding = &findings->list[i];
        pm_json_object(&json);
        pm_json_key(&json, "section"), pm_json_text(&json, finding->section);
        pm_json_key(&json, "id"), pm_json_text(&json, finding->id);
        pm_json_key(&json, "status"), pm_json_text(&json, mark_name(finding->mark));
        pm_json_key(&json, "text"), pm_json_text(&json, finding->text);
        pm_json_key(&json, "advice"), pm_json_text(&json, finding->advice);
        pm_json_end(&json);
    }
    pm_json_end(&json);
    pm_json_end(&json);
    int error = pm_json_finish(&json);
    if (error == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return error;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* `profilemate run … -- COMMAND` is judged as COMMAND in the environment that run would make; this
 * process takes that environment on. */
static bool unwrap_run(char *const **command, size_t *count)
{
    char *const *words = *command;
    if (*count < 2)
        return false;
    const char *slash = strrchr(words[0], '/');
    if (strcmp(slash != NULL ? slash + 1 : words[0], "profilemate") != 0 ||
        strcmp(words[1], "run") != 0)
        return false;
    size_t i = 2;
    while (i < *count && strcmp(words[i], "--") != 0)
        i++;
    if (i + 1 >= *count)
        return false;
    *command = words + i + 1;
    *count -= i + 1;
    return true;
}

static void take_on_run(void)
{
    static struct pm_setting_values none;
    static struct pm_environ env; /* stays for the life of the process: it is the environment */
    struct pm_environ_changes changes;
    char site[PATH_MAX];
    bool has_site = pm_site_dir(site, sizeof(site));
    pm_environ_init(&env, environ);
    pm_environ_profile(&env, &none, has_site ? site : NULL, &changes);
    if (!env.failed)
        environ = env.words;
}

static void check_setup(struct pm_findings *findings, char *const *command, size_t count)
{
    static struct pm_subject subject;
    bool by_run = count > 0 && unwrap_run(&command, &count);
    if (by_run)
        take_on_run();
    pm_doctor_subject(&subject, count > 0 ? command : NULL, count, options.python);
    subject.by_run = by_run;
    pm_doctor_python(findings, &subject);
    pm_doctor_settings(findings);
    pm_doctor_command(findings, &subject);
    pm_doctor_model(findings, &subject);
    pm_doctor_frontend(findings);
    pm_doctor_output(findings);
    pm_doctor_torch(findings, &subject);
}

int pm_cmd_doctor(int argc, char **argv)
{
    struct pm_findings findings = {0};
    struct pm_place place;
    struct pm_error err = {""};
    int first, dashes;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, &dashes);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    int operands = dashes - first; /* before `--` */
    if (dashes < argc && operands > 0)
        return pm_misuse("doctor", "a session and a command do not go together, give one of them");
    if (operands > 1)
        return pm_misuse("doctor",
                         "doctor takes one session, a command goes after `--`: "
                         "`profilemate doctor -- %.100s ...`",
                         argv[first]);
    if (operands == 1) {
        if (options.python != NULL)
            return pm_misuse("doctor", "--python does not go with a session, leave it out");
        if (pm_place_resolve(options.dir, argv[first], &place, &err) != 0 ||
            pm_doctor_session(&findings, &place, &err) != 0)
            return pm_complain("%s", err.text);
    } else {
        if (options.dir != NULL)
            return pm_misuse("doctor", "--dir goes with a session; the folder for new ones is the "
                                       "setting VLLM_PROFILING_DIR");
        check_setup(&findings, argv + dashes, (size_t)(argc - dashes));
    }
    if (options.json) {
        int error = print_json(&findings);
        if (error != 0)
            return pm_complain("cannot print the findings, %s", pm_strerror(error));
    } else {
        print_text(&findings);
    }
    bool problems = findings.problems > 0, failed = findings.failed;
    pm_doctor_release(&findings);
    if (failed)
        return pm_complain("the list is not complete, out of memory, free some and try again");
    int code = pm_finish_stdout();
    return code != PM_EXIT_OK ? code : problems ? PM_EXIT_FAILED : PM_EXIT_OK;
}
