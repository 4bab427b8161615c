/*
 * profilemate convert: a session of the CSV files of the Python profiler of old.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/cmd.h"
#include "cmd/options.h"
#include "convert/convert.h"

static struct convert_options {
    bool quiet;
} options;

static const struct pm_option option_table[] = {
    {'q', "quiet", PM_OPTION_FLAG, "", &options.quiet, "print the new session's path only"},
};
static const char *const synopsis[] = {"[options] OLD NEW", NULL};
static const char *const examples[] = {
    "profilemate convert old/session_20260124_123456 session_before",
    "makes the session ./session_before; report, diff, export read it as any other",
    "profilemate diff old/session_20260124_123456 session_after",
    "no conversion is needed for a look: report and diff take the folder as it is",
    NULL,
};
static const struct pm_usage usage = {
    .command = "convert",
    .synopsis = synopsis,
    .intro =
        "Makes the session NEW of the CSV files in the folder OLD, as the public Python profiler\n"
        "wrote them: forward_pass_timing.csv, batch_utilization.csv, cpu_operations_timing.csv,\n"
        "kv_cache_usage.csv, kv_cache_evictions.csv, preemption_events.csv and\n"
        "request_lifecycle.csv, those that are there. OLD is not changed.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when a file could not be read or written; 2 for a misuse.",
    .min_operands = 2,
    .max_operands = 2,
};

static void tell(const struct pm_convert_result *result)
{
    printf("%" PRIu64 " passes, %" PRIu64 " schedules, %" PRIu64 " requests, %" PRIu64
           " preemption events, %" PRIu64 " KV cache levels, %" PRIu64 " evictions\n",
           result->passes, result->schedules, result->requests, result->events, result->kv_steps,
           result->evictions);
    if (result->unpaired > 0)
        printf("%" PRIu64 " passes have no row in batch_utilization.csv\n", result->unpaired);
    if (result->rephased > 0)
        printf("%" PRIu64 " steps called decode compute more tokens than they have requests: taken "
               "as prefill\n",
               result->rephased);
    if (result->kv_left_out > 0)
        printf("%" PRIu64 " rows of kv_cache_usage.csv have no total to go by: left out\n",
               result->kv_left_out);
    puts("Not in those files: arrival, prompt and output of requests (TTFT, ITL, TPOT), prefills "
         "beside decodes in a step.");
}

/* Converts into a hidden folder beside NEW, so that it appears whole or not at all. */
static int convert(const char *from, const char *parent, const char *to, struct stat *st)
{
    struct pm_convert_result result;
    struct pm_error err = {""};
    char folder[4200];

    snprintf(folder, sizeof(folder), "%s/.profilemate-convert-XXXXXX", parent);
    if (pm_convert_old(from, folder, &result, &err) != 0)
        return pm_complain("%s", err.text);
    const int failed = lstat(to, st) == 0 ? EEXIST : rename(result.path, to) != 0 ? errno : 0;
    pm_convert_remove(folder);
    if (failed != 0)
        return pm_complain("cannot make %s, %s", to, strerror(failed));
    if (!options.quiet)
        tell(&result);
    pm_print_clean(stdout, to);
    putchar('\n');
    return pm_finish_stdout();
}

int pm_cmd_convert(int argc, char **argv)
{
    char parent[4096] = ".";
    struct stat st;
    int first;

    options = (struct convert_options){false};
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    const char *from = argv[first];
    char *to = argv[first + 1];
    size_t bytes = strlen(to);
    while (bytes > 1 && to[bytes - 1] == '/')
        to[--bytes] = '\0';
    const char *slash = strrchr(to, '/');
    if (bytes == 0 || bytes >= sizeof(parent) || (slash != NULL && slash[1] == '\0'))
        return pm_misuse("convert", "%.100s is no name for a session", to);
    if (lstat(to, &st) == 0)
        return pm_complain("%s is there already, give another name", to);
    if (slash != NULL)
        snprintf(parent, sizeof(parent), "%.*s", slash == to ? 1 : (int)(slash - to), to);
    if (stat(parent, &st) != 0)
        return pm_complain("there is no folder %s (%s), make it first", parent, strerror(errno));
    if (stat(from, &st) != 0)
        return pm_complain("there is no folder %s (%s)", from, strerror(errno));
    return convert(from, parent, to, &st);
}
