/*
 * profilemate run: a command with profiling on. Makes the environment, runs the command, and
 * completes the session that it left, whatever became of the server.
 *
 * The session's name and token are made up here and handed down, so that the session is found
 * again even when every process of the server was killed. PROFILEMATE_RUN tells the server's root
 * process that the files are written here, not by it.
 *
 * What goes on while the command runs is in run_beside.h: windows of torch's profiler, request
 * logs.
 */
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/environ.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/prune.h"
#include "cmd/run_beside.h"
#include "cmd/supervise.h"
#include "explain/explain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "live/autopsy.h"
#include "recorder/birth.h"

#define PM_RUN_ENV "PROFILEMATE_RUN"
#define PM_SETTLE_MS 10000 /* a killed server's engine may need this long to notice */

extern char **environ;

static struct run_options {
    bool no_pythonpath, no_export, quiet;
    struct pm_beside_options beside;
    struct pm_setting_values settings;
} options = {.beside = PM_BESIDE_DEFAULTS};

static const struct pm_option option_table[] = {
    {0, "no-pythonpath", PM_OPTION_FLAG, "", &options.no_pythonpath,
     "leave PYTHONPATH alone: the wheel's .pth or the plug-in loads the extension"},
    {0, "no-export", PM_OPTION_FLAG, "", &options.no_export,
     "write no files and print no summary when the command has ended"},
    {'q', "quiet", PM_OPTION_FLAG, "", &options.quiet, "print no summary"},
    {0, "torch-profile", PM_OPTION_TEXT, "light|detailed|deep", &options.beside.torch.mode,
     "profile a window of the server's life with torch's profiler"},
    {0, "trace-dir", PM_OPTION_TEXT, "DIR", &options.beside.torch.dir,
     "where its traces go (default: VLLM_TORCH_PROFILER_DIR, else profiler_output)"},
    {0, "requests", PM_OPTION_TEXT, "FROM:TO", &options.beside.torch.requests,
     "the window begins when FROM requests have ended, and ends with the TO-th"},
    {0, "steps", PM_OPTION_WHOLE, "N", &options.beside.torch.steps,
     "at most N steps in a window (default: 100, 1000 with --requests)"},
    {0, "every", PM_OPTION_TEXT, "TIME", &options.beside.torch.every,
     "a window every so often, such as 5m, instead of one"},
    {0, "size-limit", PM_OPTION_TEXT, "SIZE", &options.beside.torch.size_limit,
     "what the traces of this run may take, such as 200M"},
    {0, "flush-timeout", PM_OPTION_TEXT, "TIME", &options.beside.torch.flush_timeout,
     "how long the server may take to write a trace (default: 10m)"},
    {0, "server", PM_OPTION_TEXT, "URL", &options.beside.torch.server,
     "where the server listens, if its command line does not tell"},
    {0, "request-log", PM_OPTION_TEXT, "DIR", &options.beside.log_dir,
     "write a line of JSON per finished request, a file per task"},
    {0, "task", PM_OPTION_TEXT, "NAME", &options.beside.task,
     "the task of all requests; else their ids name it (X-Request-Id: NAME-…)"},
    {0, "request-log-size", PM_OPTION_TEXT, "SIZE", &options.beside.log_size,
     "a file of the log is rotated at this size (default: 100M)"},
    {0, "request-log-keep", PM_OPTION_WHOLE, "N", &options.beside.log_keep,
     "how many rotated files of a task stay (default: 5)"},
};

static const char *const synopsis[] = {"[options] -- COMMAND [ARGUMENT]...", NULL};
static const char *const examples[] = {
    "profilemate run -- vllm serve Qwen/Qwen3-0.6B --port 8000",
    "serve as usual; Ctrl+C ends the server and writes the files",
    "profilemate run --preset simple --verbose -- python -m vllm.entrypoints.openai.api_server "
    "--model M",
    "forward passes only, and a line for every 100th",
    "profilemate run --dir /data/profiles --no-kv-cache-tracking -- python my_llm_script.py",
    "a script that makes its own LLM(), without the KV cache probe",
    "profilemate run --torch-profile detailed --requests 10:20 -- vllm serve M",
    "a trace of requests 11 to 20, in profiler_output/",
    "profilemate run --torch-profile light --steps 50 --every 5m --size-limit 1G -- vllm serve M",
    "50 steps every 5 minutes; older traces go",
    "profilemate run --request-log logs -- vllm serve M",
    "logs/chat.jsonl, logs/completion.jsonl and so on, a line per request",
    NULL,
};
static const struct pm_usage usage = {
    .command = "run",
    .synopsis = synopsis,
    .intro = "Runs COMMAND with profiling on. When it has ended, also when it was killed, its\n"
             "session's files are written and a summary is printed on stderr.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .settings = &options.settings,
    .examples = examples,
    .outro = "Exit code: that of COMMAND, 128 + n when signal n ended it; 127 when it was not\n"
             "found, 126 when it could not be run; 1 or 2 when ProfileMate failed before.",
    .stop_at_operand = true,
    .min_operands = 1,
    .max_operands = (size_t)-1,
};

/* What is known about the session of this run. */
struct outcome {
    struct pm_birth birth;
    struct pm_environ env;
    char dir[PM_SETTING_TEXT_MAX]; /* where its settings say that sessions go */
    struct pm_beside beside;
};

static bool find_session(const struct outcome *out, struct pm_place *ret_place)
{
    if (pm_place_by_token(out->dir, out->birth.token, ret_place) == 0)
        return true;
    return pm_place_by_token(NULL, out->birth.token, ret_place) == 0;
}

/* For pm_supervisor_settle: whether a process of the session still runs. */
static bool session_runs(void *arg)
{
    const struct outcome *out = arg;
    struct pm_place place;
    struct pm_session *session;
    if (!find_session(out, &place) || pm_session_open(&session, place.path, NULL) != 0)
        return false;
    bool running = pm_session_is_running(session);
    pm_session_close(session);
    return running;
}

static void no_session(char *const *command)
{
    fprintf(stderr, "profilemate: no session was born: `");
    pm_print_clean(stderr, command[0]);
    fprintf(stderr, "` never started a vLLM engine that the extension saw; `profilemate doctor -- "
                    "profilemate run -- ");
    pm_print_clean(stderr, command[0]);
    fprintf(stderr, "%s` tells why\n", command[1] != NULL ? " ..." : "");
}

/* Older sessions beyond the limit go, as the setting says. */
static void keep_limit(const struct outcome *out)
{
    static struct pm_settings settings;
    struct pm_prune_options prune = {.dir = out->dir};
    struct pm_prune_result result;
    union {
        const struct pm_environ *in;
        void *out;
    } env = {.in = &out->env};
    pm_settings_read(&settings, pm_environ_lookup, env.out, NULL, NULL);
    prune.keep_bytes = (uint64_t)settings.keep_mb << 20;
    memcpy(prune.spare, out->birth.token, sizeof(prune.spare));
    if (pm_prune(&prune, &result) == 0 && result.removed > 0)
        fprintf(stderr,
                "profilemate: removed %zu older session%s (%.1f MB), the sessions in %s are to "
                "take %d MB at most (--keep-mb)\n",
                result.removed, result.removed == 1 ? "" : "s",
                (double)result.removed_bytes / 1048576.0, out->dir, settings.keep_mb);
}

static void complete(const struct outcome *out, char *const *command)
{
    struct pm_place place;
    struct pm_session *session;
    struct pm_error err = {""};
    struct pm_export_options export = {.preset = -1};
    struct pm_export_result result;
    if (!find_session(out, &place)) {
        no_session(command);
        return;
    }
    if (pm_complete_open(&place, &session, &err) != 0) {
        pm_complain("%s, the records are kept: try `profilemate export %s` later", err.text,
                    place.path);
        return;
    }
    if (pm_export_seed(session, &export, &result, &err) != 0)
        pm_complain("%s, the records are kept: `profilemate export %s` writes the files", err.text,
                    place.path);
    if (!options.quiet) {
        struct pm_report_options report = {.colour = pm_colour(stderr), .brief = true};
        if (pm_explain_report_text(session, &report, stderr, &err) != 0)
            pm_complain("%s", err.text);
        fprintf(stderr, "Session: ");
        pm_print_clean(stderr, place.path);
        fprintf(stderr, "\n");
    }
    pm_session_close(session);
    keep_limit(out);
}

/* What is known of the end goes into the session; and a server that died is told of. */
static void tell_of_end(const struct outcome *out, const struct pm_supervisor *sup)
{
    struct pm_place place;
    struct pm_live *live;
    struct pm_autopsy autopsy;
    const struct pm_run_record record = {
        .pid = (uint32_t)sup->child,
        .status = sup->status,
        .asked = sup->asked,
        .real_ns = pm_clock_real_ns(),
    };
    if (!find_session(out, &place))
        return;
    if (pm_run_record_write(place.path, &record) != 0)
        pm_complain("cannot write into %s, free some space", place.path);
    if (options.quiet || pm_live_open(&live, place.path, 0, NULL) != 0)
        return;
    if (pm_autopsy_make(&autopsy, pm_live_view(live)) == 0) {
        if (autopsy.cause != PM_CAUSE_STOPPED && autopsy.cause != PM_CAUSE_ALIVE) {
            fprintf(stderr, "%sprofilemate:%s ", pm_style(stderr, PM_RED),
                    pm_style(stderr, PM_PLAIN));
            pm_print_clean(stderr, autopsy.sentence);
            fprintf(stderr, " `profilemate postmortem ");
            pm_print_clean(stderr, place.path);
            fprintf(stderr, "` tells more\n");
        }
        pm_autopsy_release(&autopsy);
    }
    pm_live_close(live);
}

static int cannot_run(const char *command, int why)
{
    if (why == ENOENT && strchr(command, '/') == NULL) {
        pm_complain("cannot run `%s`, it is not in PATH, check its name or give its path", command);
        return 127;
    }
    if (why == ENOENT) {
        pm_complain("cannot run `%s`, there is no such file (or no interpreter that its first "
                    "line names), check the path",
                    command);
        return 127;
    }
    if (why == EACCES) {
        pm_complain("cannot run `%s`, it is not executable, make it so (chmod +x) or name the "
                    "program that runs it",
                    command);
        return 126;
    }
    pm_complain("cannot run `%s`, %s, check that it is a program for this machine", command,
                strerror(why));
    return 126;
}

/* The environment of the child. false: told on stderr. */
static bool prepare(struct outcome *out)
{
    static struct pm_settings settings;
    struct pm_environ_changes changes;
    char site[PATH_MAX], pid[16];
    bool has_site = !options.no_pythonpath;
    if (has_site && !pm_site_dir(site, sizeof(site))) {
        pm_complain("the extension " PM_EXTENSION_FILE " was not found beside this program, build "
                    "or install it, or give --no-pythonpath if Python finds it by itself");
        return false;
    }
    pm_environ_init(&out->env, environ);
    pm_environ_profile(&out->env, &options.settings, has_site ? site : NULL, &changes);
    if (changes.off)
        fprintf(stderr, "profilemate: VLLM_ENABLE_PROFILING=0 is set and wins, the command runs "
                        "without profiling; unset it to profile\n");
    pm_settings_read(&settings, pm_environ_lookup, &out->env, NULL, NULL);
    snprintf(out->dir, sizeof(out->dir), "%s", settings.dir);
    pm_birth_reserve(&out->birth);
    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    if (!changes.off)
        pm_environ_set(&out->env, PM_RUN_ENV, pid);
    if (out->env.failed) {
        pm_complain("cannot prepare the command's environment, out of memory, free some");
        return false;
    }
    return true;
}

/* In the child: the session is to have the child as its root, for it then is the server. */
static char *const *child_environment(void *arg)
{
    struct outcome *out = arg;
    char birth[512];
    if (pm_environ_get(&out->env, PM_RUN_ENV) != NULL) {
        out->birth.root_pid = (uint32_t)getpid();
        pm_birth_format(&out->birth, birth, sizeof(birth));
        pm_environ_set(&out->env, PM_SESSION_ENV, birth);
    }
    return out->env.words;
}

int pm_cmd_run(int argc, char **argv)
{
    static struct outcome out;
    struct pm_supervisor sup;
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    char **command = argv + first;
    if (!pm_beside_options_fit(&options.beside))
        return PM_EXIT_MISUSE;
    if (!prepare(&out))
        return PM_EXIT_FAILED;
    bool profiled = pm_environ_get(&out.env, PM_RUN_ENV) != NULL;
    int code = PM_EXIT_OK;
    if (profiled)
        code = pm_beside_begin(&out.beside, &options.beside, &out.env, command, out.dir,
                               out.birth.token);
    if (code != PM_EXIT_OK)
        return code;

    int why = pm_supervisor_start(&sup, command, child_environment, &out);
    if (why != 0) {
        code = cannot_run(command[0], why);
    } else {
        pm_supervisor_wait(&sup, pm_beside_watch(&out.beside));
        pm_supervisor_settle(&sup, PM_SETTLE_MS, session_runs, &out);
        pm_supervisor_finish(&sup);
        pm_beside_end(&out.beside, options.quiet);
        code = pm_supervisor_exit_code(&sup);
        if (profiled && !options.no_export)
            complete(&out, command);
        if (profiled)
            tell_of_end(&out, &sup);
    }
    pm_environ_release(&out.env);
    return code;
}
