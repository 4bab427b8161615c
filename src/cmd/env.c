/*
 * profilemate env: the exports that turn profiling on, for a shell to evaluate. Prints nothing
 * else on stdout.
 */
#include "cmd/cmd.h"
#include "cmd/environ.h"
#include "cmd/options.h"
#include "cmd/place.h"

#include <string.h>

extern char **environ;

static struct env_options {
    const char *shell;
    bool no_pythonpath;
    struct pm_setting_values settings;
} options;

static const struct pm_option option_table[] = {
    {0, "shell", PM_OPTION_TEXT, "sh|fish", &options.shell,
     "for which shell (default: sh, which bash, zsh, ksh and dash read too)"},
    {0, "no-pythonpath", PM_OPTION_FLAG, "", &options.no_pythonpath,
     "leave PYTHONPATH alone: the wheel's .pth or the plug-in loads the extension"},
};
static const char *const synopsis[] = {"[options]", NULL};
static const char *const examples[] = {
    "eval \"$(profilemate env --preset simple)\"",
    "sh, bash, zsh: what is started from this shell is profiled",
    "profilemate env --shell fish | source",
    "the same in fish",
    NULL,
};
static const struct pm_usage usage = {
    .command = "env",
    .synopsis = synopsis,
    .intro = "Prints the variables that turn profiling on, as exports for a shell. Without `run`\n"
             "the server itself starts the export of its files when it ends.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .settings = &options.settings,
    .examples = examples,
    .max_operands = 0,
};

/* A word in single quotes. In sh a quote is written as '\'' (POSIX 2.2.2), in fish as \'. */
static void print_quoted(const char *value, bool fish)
{
    putchar('\'');
    for (; *value != '\0'; value++) {
        if (fish && (*value == '\'' || *value == '\\'))
            printf("\\%c", *value);
        else if (*value == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*value);
    }
    putchar('\'');
}

int pm_cmd_env(int argc, char **argv)
{
    struct pm_environ env;
    struct pm_environ_changes changes;
    char site[PATH_MAX];
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    bool fish = options.shell != NULL && strcmp(options.shell, "fish") == 0;
    if (options.shell != NULL && !fish && strcmp(options.shell, "sh") != 0)
        return pm_misuse("env",
                         "--shell=%.100s is not known, give sh (also for bash, zsh, ksh, "
                         "dash) or fish",
                         options.shell);
    bool has_site = !options.no_pythonpath;
    if (has_site && !pm_site_dir(site, sizeof(site)))
        return pm_complain("the extension " PM_EXTENSION_FILE " was not found beside this program, "
                           "build or install it, or give --no-pythonpath if Python finds it by "
                           "itself");
    pm_environ_init(&env, environ);
    /* Asking for the exports is asking to turn it on: an off from before does not count. */
    pm_environ_unset(&env, "VLLM_ENABLE_PROFILING");
    pm_environ_unset(&env, "PROFILEMATE_ENABLE");
    pm_environ_profile(&env, &options.settings, has_site ? site : NULL, &changes);
    if (env.failed) {
        pm_environ_release(&env);
        return pm_complain("cannot prepare the environment, out of memory, free some");
    }
    for (size_t i = 0; i < changes.n_unset; i++)
        printf(fish ? "set -e %s\n" : "unset %s\n", changes.unset[i]);
    for (size_t i = 0; i < changes.n_set; i++) {
        printf(fish ? "set -gx %s " : "export %s=", changes.set[i]);
        print_quoted(pm_environ_get(&env, changes.set[i]), fish);
        putchar('\n');
    }
    pm_environ_release(&env);
    return pm_finish_stdout();
}
