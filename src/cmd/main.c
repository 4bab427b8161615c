/*
 * profilemate: finds the command and runs it. Also the commands' table and `help`.
 */
#include "cmd/cmd.h"
#include "cmd/options.h"

#include <locale.h>
#include <string.h>

enum group { GROUP_PROFILE, GROUP_SESSIONS, GROUP_TRACES, GROUP_HELP, GROUP_COUNT };

static const char *const group_names[GROUP_COUNT] = {
    [GROUP_PROFILE] = "Profile a server",
    [GROUP_SESSIONS] = "Look at sessions",
    [GROUP_TRACES] = "Look at traces",
    [GROUP_HELP] = "Find out more",
};

const struct pm_command pm_commands[] = {
#define X(name, function, group, help) {#name, function, GROUP_##group, help},
#include "cmd/cmds.def"
#undef X
};
const size_t pm_commands_count = sizeof(pm_commands) / sizeof(pm_commands[0]);

const struct pm_command *pm_command_find(const char *name)
{
    for (size_t i = 0; i < pm_commands_count; i++)
        if (strcmp(pm_commands[i].name, name) == 0)
            return &pm_commands[i];
    return NULL;
}

static const char *command_name(size_t i, void *arg)
{
    (void)arg;
    return i < pm_commands_count ? pm_commands[i].name : NULL;
}

static int unknown_command(const char *name)
{
    const char *near = pm_nearest(name, command_name, NULL);
    if (near != NULL)
        return pm_misuse(NULL, "there is no command `%.100s`, did you mean `%s`?", name, near);
    if (name[0] == '-')
        return pm_misuse(NULL, "there is no option %.100s before the command", name);
    return pm_misuse(NULL, "there is no command `%.100s`", name);
}

static void overview(FILE *out)
{
    const char *bold = pm_style(out, PM_BOLD), *plain = pm_style(out, PM_PLAIN);
    fprintf(out, "usage: profilemate COMMAND [options]\n"
                 "       profilemate help COMMAND\n"
                 "       profilemate --version\n\n"
                 "Profiles vLLM servers while they serve: what was in each step, and how long it "
                 "took.\n");
    for (int group = 0; group < GROUP_COUNT; group++) {
        fprintf(out, "\n%s%s%s\n", bold, group_names[group], plain);
        for (size_t i = 0; i < pm_commands_count; i++)
            if (pm_commands[i].group == group)
                fprintf(out, "  %-10s  %s\n", pm_commands[i].name, pm_commands[i].help);
    }
    fprintf(out,
            "\n%sExamples%s\n"
            "  profilemate run -- vllm serve Qwen/Qwen3-0.6B\n"
            "      serve with profiling on; the files are written when the server ends\n"
            "  profilemate report\n"
            "      what the newest session shows, also while it runs\n"
            "  profilemate doctor\n"
            "      nothing was recorded? what is missing, and what to do\n",
            bold, plain);
}

int pm_cmd_help(int argc, char **argv)
{
    static const char *const synopsis[] = {"[COMMAND]", NULL};
    static const char *const examples[] = {"profilemate help run", "what `run` does and takes",
                                           NULL};
    static const struct pm_usage usage = {
        .command = "help",
        .synopsis = synopsis,
        .intro = "Shows the commands, or the help of one.",
        .examples = examples,
        .max_operands = 1,
    };
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (first == argc) {
        overview(stdout);
        return pm_finish_stdout();
    }
    const struct pm_command *command = pm_command_find(argv[first]);
    if (command == NULL)
        return unknown_command(argv[first]);
    char name[32], help[] = "--help";
    snprintf(name, sizeof(name), "%s", command->name);
    char *words[] = {name, help, NULL};
    return command->function(2, words);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        overview(stderr);
        return PM_EXIT_MISUSE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("profilemate %s\n", PM_VERSION);
        return pm_finish_stdout();
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        overview(stdout);
        return pm_finish_stdout();
    }
    const struct pm_command *command = pm_command_find(argv[1]);
    if (command == NULL)
        return unknown_command(argv[1]);
    return command->function(argc - 1, argv + 1);
}
