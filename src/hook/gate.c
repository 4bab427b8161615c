/*
 * The gate (see gate.h): reads a command line as CPython does, finds the module or script that it
 * runs, and asks whether that starts a vLLM engine. Pure C, called on the importing thread; owns
 * nothing.
 */
#include "hook/gate.h"

#include <string.h>

/* What is left of a command line. */
struct words {
    size_t count;
    const char *const *word;
};

/* Sub-commands of `vllm`, and of `vllm bench`, that run an engine in this very process tree. */
static const char *const serving_commands[] = {"serve", "run-batch", NULL};
static const char *const serving_benches[] = {"latency", "throughput", NULL};

/* Modules below vllm. that take --model and only talk to a server. */
static const char *const client_modules[] = {"vllm.benchmarks.serve", "vllm.benchmarks.sweep",
                                             NULL};

/* Programs and modules that run another Python program in their own process: what they run decides.
 */
static const char *const runners[] = {"cProfile", "coverage",  "debugpy", "kernprof",
                                      "memray",   "pdb",       "profile", "pyinstrument",
                                      "scalene",  "viztracer", "trace",   NULL};

static bool among(const char *text, const char *const *list)
{
    for (; *list; list++) {
        if (strcmp(text, *list) == 0)
            return true;
    }
    return false;
}

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static struct words skip(struct words words, size_t count)
{
    if (count > words.count)
        count = words.count;
    return (struct words){words.count - count, words.word + count};
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* --help in any of vLLM's forms (--help=ModelConfig), up to a "--". */
static bool asks_help(struct words args)
{
    for (size_t i = 0; i < args.count && strcmp(args.word[i], "--") != 0; i++) {
        const char *arg = args.word[i];
        if (strcmp(arg, "-h") == 0 || strcmp(arg, "--help") == 0 || begins(arg, "--help=") ||
            strcmp(arg, "--version") == 0)
            return true;
    }
    return false;
}

static bool has_model(struct words args)
{
    for (size_t i = 0; i < args.count && strcmp(args.word[i], "--") != 0; i++) {
        if (strcmp(args.word[i], "--model") == 0 || begins(args.word[i], "--model="))
            return true;
    }
    return false;
}

/* The next word that is no option; words.count 0 if there is none. An option's own value may be
 * taken for it: vLLM's options before the sub-command have none. */
static struct words next_command(struct words args)
{
    while (args.count > 0 && args.word[0][0] == '-')
        args = skip(args, 1);
    return args;
}

/* `vllm ARGS…` */
static bool vllm_serves(struct words args)
{
    struct words rest = next_command(args);
    if (rest.count == 0 || asks_help(args))
        return false;
    for (size_t i = 0; i < args.count - rest.count; i++) {
        if (strcmp(args.word[i], "-v") == 0)
            return false;
    }
    if (strcmp(rest.word[0], "bench") == 0) {
        rest = next_command(skip(rest, 1));
        return rest.count > 0 && among(rest.word[0], serving_benches);
    }
    return among(rest.word[0], serving_commands);
}

/* `python -m MODULE ARGS…`, MODULE of vLLM */
static bool vllm_module_serves(const char *module, struct words args)
{
    if (strcmp(module, "vllm") == 0 || strcmp(module, "vllm.entrypoints.cli.main") == 0)
        return vllm_serves(args);
    if (asks_help(args) || begins(module, "vllm.entrypoints.cli"))
        return false;
    if (begins(module, "vllm.entrypoints."))
        return true;
    if (!begins(module, "vllm."))
        return false;
    for (const char *const *client = client_modules; *client; client++) {
        size_t length = strlen(*client);
        if (begins(module, *client) && (module[length] == '\0' || module[length] == '.'))
            return false;
    }
    return has_model(args);
}

/* A path of a file of vLLM's entry points: …/vllm/entrypoints/openai/api_server.py */
static bool vllm_file_serves(const char *path, struct words args)
{
    static const char folder[] = "vllm/entrypoints/";
    const char *at = strstr(path, folder);
    if (!at || (at != path && at[-1] != '/'))
        return false;
    const char *rest = at + sizeof folder - 1;
    if (strcmp(rest, "cli/main.py") == 0)
        return vllm_serves(args);
    size_t length = strlen(rest);
    return !begins(rest, "cli/") && length > 3 && strcmp(rest + length - 3, ".py") == 0 &&
           !asks_help(args);
}

/* What a runner of Python programs runs: -m MODULE or a script, among options that we do not know.
 */
static bool runner_serves(struct words args)
{
    for (; args.count > 0; args = skip(args, 1)) {
        const char *arg = args.word[0];
        if (strcmp(arg, "-m") == 0 || strcmp(arg, "--module") == 0) {
            if (args.count > 1 && vllm_module_serves(args.word[1], skip(args, 2)))
                return true;
        } else if (begins(arg, "-mvllm.")) {
            if (vllm_module_serves(arg + 2, skip(args, 1)))
                return true;
        } else if (strcmp(base_name(arg), "vllm") == 0) {
            if (vllm_serves(skip(args, 1)))
                return true;
        } else if (vllm_file_serves(arg, skip(args, 1))) {
            return true;
        }
    }
    return false;
}

static bool module_serves(const char *module, struct words args)
{
    if (strcmp(module, "vllm") == 0 || begins(module, "vllm."))
        return vllm_module_serves(module, args);
    return among(module, runners) && runner_serves(args);
}

static bool script_serves(const char *path, struct words args)
{
    if (strcmp(base_name(path), "vllm") == 0)
        return vllm_serves(args);
    if (vllm_file_serves(path, args))
        return true;
    return among(base_name(path), runners) && runner_serves(args);
}

bool pm_gate_command_serves(size_t argc, const char *const *argv)
{
    struct words args = skip((struct words){argc, argv}, 1);
    while (args.count > 0 && args.word[0][0] == '-' && args.word[0][1] != '\0') {
        const char *option = args.word[0];
        args = skip(args, 1);
        if (option[1] == '-') {
            if (option[2] == '\0')
                break;
            if (strcmp(option, "--check-hash-based-pycs") != 0)
                return false; /* --help…, --version */
            args = skip(args, 1);
            continue;
        }
        /* Letters may be run together: -um vllm.x, -Wignore, -Xdev (see Python/getopt.c). */
        for (const char *letter = option + 1; *letter; letter++) {
            if (strchr("chV?", *letter))
                return false;
            if (!strchr("mWX", *letter))
                continue;
            const char *value = letter[1] ? letter + 1 : NULL;
            if (!value && args.count > 0) {
                value = args.word[0];
                args = skip(args, 1);
            }
            if (*letter == 'm')
                return value && module_serves(value, args);
            break;
        }
    }
    return args.count > 0 && script_serves(args.word[0], skip(args, 1));
}

struct pm_gate_verdict pm_gate_decide(const struct pm_gate_input *input)
{
    struct pm_gate_verdict verdict = {.reason = PM_GATE_NOTHING};
    if (input->enable == 0) {
        verdict.reason = PM_GATE_SWITCH_OFF;
        return verdict;
    }
    verdict.server = pm_gate_command_serves(input->argc, input->argv);
    if (input->enable > 0)
        verdict.reason = PM_GATE_SWITCH_ON;
    else if (verdict.server)
        verdict.reason = PM_GATE_COMMAND;
    else if (input->session)
        verdict.reason = PM_GATE_SESSION;
    verdict.active = verdict.reason != PM_GATE_NOTHING;
    return verdict;
}
