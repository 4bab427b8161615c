/*
 * profilemate trace cut: a small trace of a time range or a step.
 */
#include "cmd/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/options.h"
#include "trace/cut.h"

static struct cut_options {
    const char *from, *to, *output, *step_prefix;
    long step;
} options;

static const struct pm_option option_table[] = {
    {0, "from", PM_OPTION_TEXT, "TIME", &options.from,
     "begin, since the trace's first event (1.5, 20ms, 300us; default: 0)"},
    {0, "to", PM_OPTION_TEXT, "TIME", &options.to, "end (default: the trace's)"},
    {0, "step", PM_OPTION_WHOLE, "N", &options.step,
     "instead: the step ProfilerStep#N, else the N-th of `trace --steps`, from 0 on"},
    {0, "step-name", PM_OPTION_TEXT, "PREFIX", &options.step_prefix,
     "annotations that are steps (default: execute_, else ProfilerStep#)"},
    {'o', "output", PM_OPTION_TEXT, "OUT", &options.output, "the file to write, .json or .json.gz"},
};
static const char *const synopsis[] = {"--from=TIME [--to=TIME] --output=OUT FILE",
                                       "--step=N --output=OUT FILE", NULL};
static const char *const examples[] = {
    "profilemate trace cut --from 1.2 --to 1.3 -o small.json.gz rank0.pt.trace.json.gz",
    "a tenth of a second, small enough for any viewer",
    "profilemate trace cut --step 4 -o step4.json rank0.pt.trace.json.gz",
    "one step, with the kernels that it launched",
    NULL,
};
static const struct pm_usage usage = {
    .command = "trace cut",
    .synopsis = synopsis,
    .intro = "Writes the part of a trace that lies in a time range, byte for byte. Kernels stay\n"
             "when they were launched in the range, also where they ran later.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when a file could not be read or written; 2 for a misuse.",
    .min_operands = 1,
    .max_operands = 1,
};

/* "1.5", "1.5s", "20ms", "300us". */
static bool parse_time(const char *text, int64_t *ret_ns)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end), scale;
    if (end == text || errno != 0 || !(value >= 0))
        return false;
    if (*end == '\0' || strcmp(end, "s") == 0)
        scale = 1e9;
    else if (strcmp(end, "ms") == 0)
        scale = 1e6;
    else if (strcmp(end, "us") == 0)
        scale = 1e3;
    else
        return false;
    if (value * scale > 9e18)
        return false;
    *ret_ns = (int64_t)(value * scale + 0.5);
    return true;
}

int pm_cmd_trace_cut(int argc, char **argv)
{
    struct pm_cut cut = {.to_ns = INT64_MAX};
    struct pm_cut_result result;
    struct pm_error err = {""};
    char a[24], b[24], c[24];
    int first;
    options = (struct cut_options){.step = -1};
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (options.output == NULL)
        return pm_misuse("trace cut", "where to? give --output=OUT");
    if (options.step >= 0 && (options.from != NULL || options.to != NULL))
        return pm_misuse("trace cut", "--step does not go with --from and --to, choose one");
    if (options.step < 0 && options.from == NULL && options.to == NULL)
        return pm_misuse("trace cut", "which part? give --from and --to, or --step");
    if (options.from != NULL && !parse_time(options.from, &cut.from_ns))
        return pm_misuse("trace cut", "--from=%.60s is no time, write 1.5, 20ms or 300us",
                         options.from);
    if (options.to != NULL && !parse_time(options.to, &cut.to_ns))
        return pm_misuse("trace cut", "--to=%.60s is no time, write 1.5, 20ms or 300us",
                         options.to);
    if (cut.to_ns <= cut.from_ns)
        return pm_misuse("trace cut", "--to must be later than --from");
    cut.path = argv[first];
    cut.out_path = options.output;
    cut.has_step = options.step >= 0;
    cut.step = options.step;
    cut.step_prefix = options.step_prefix;
    if (pm_trace_cut(&cut, &result, &err) != 0)
        return pm_complain("%s", err.text);
    fprintf(stderr, "%s: %" PRIu64 " of %" PRIu64 " events, from %s", cut.out_path, result.kept,
            result.events, pm_trace_time(result.from_ns, a));
    if (options.to != NULL || cut.has_step)
        fprintf(stderr, " to %s", pm_trace_time(result.to_ns, b));
    fprintf(stderr, ", %s\n", pm_trace_bytes((int64_t)result.out_bytes, c));
    return pm_finish_stdout();
}
