/*
 * profilemate trace: what a torch (Kineto) trace shows. `trace diff` and `trace cut` are commands
 * of their own in trace_diff.c and trace_cut.c.
 */
#include "cmd/trace.h"

#include <string.h>

#include "cmd/options.h"

#define PAGE_ROWS 2000 /* of each table of the page, so that it opens at once */

static struct trace_options {
    const char *sort, *format, *output, *stacks, *metric, *rules, *step_prefix;
    long limit, by_stack;
    bool by_shape, steps, kernels, findings, layers, print_rules;
} options;

static const struct pm_option option_table[] = {
    {0, "sort", PM_OPTION_TEXT, "KEY", &options.sort,
     "self_cpu, cpu, self_device, device, calls, … or torch's names (cuda_time_total)"},
    {'n', "limit", PM_OPTION_WHOLE, "N", &options.limit,
     "rows of a table (default: 20; 0: all; csv and json: all; html: 2000)"},
    {0, "format", PM_OPTION_TEXT, "table|csv|json|html", &options.format, "(default: table)"},
    {'o', "output", PM_OPTION_TEXT, "OUT", &options.output,
     "of --format=html: the file (default: FILE's name with .html, here)"},
    {0, "group-by-shape", PM_OPTION_FLAG, "", &options.by_shape,
     "tell input shapes apart (needs record_shapes)"},
    {0, "group-by-stack", PM_OPTION_WHOLE, "N", &options.by_stack,
     "tell the N innermost Python frames apart (needs with_stack)"},
    {0, "kernels", PM_OPTION_FLAG, "", &options.kernels,
     "kernels by time, classes, copies, launches, graph replays"},
    {0, "steps", PM_OPTION_FLAG, "", &options.steps, "a row per step"},
    {0, "step-name", PM_OPTION_TEXT, "PREFIX", &options.step_prefix,
     "annotations that are steps (default: execute_, else ProfilerStep#)"},
    {0, "layers", PM_OPTION_FLAG, "", &options.layers,
     "only modules of the model (needs with_stack)"},
    {0, "findings", PM_OPTION_FLAG, "", &options.findings, "only what to look into"},
    {0, "export-stacks", PM_OPTION_TEXT, "OUT", &options.stacks,
     "write folded stacks for a flame graph"},
    {0, "metric", PM_OPTION_TEXT, "METRIC", &options.metric,
     "of the stacks: self_cpu_time_total (default) or self_cuda_time_total"},
    {0, "rules", PM_OPTION_TEXT, "FILE", &options.rules,
     "classes of kernels, before the built-in ones"},
    {0, "print-rules", PM_OPTION_FLAG, "", &options.print_rules, "show the built-in rules"},
};
static const char *const synopsis[] = {"[options] FILE…", "diff [options] BEFORE AFTER",
                                       "cut [--from=S] [--to=S] [--step=N] --output=OUT FILE",
                                       NULL};
static const char *const examples[] = {
    "profilemate trace rank0.pt.trace.json.gz",
    "device time and idle time, the operators, what to look into",
    "profilemate trace --sort cuda_time_total --limit 10 trace.json",
    "the table of torch's key_averages(), for any trace file",
    "profilemate trace --kernels --steps traces/*.json.gz",
    "several ranks at once: kernels by class, and a row per step",
    "profilemate trace --export-stacks out.folded --metric self_cuda_time_total trace.json",
    "stacks for flamegraph.pl or speedscope",
    "profilemate trace --format csv trace.json > operators.csv",
    "all rows for a spreadsheet",
    "profilemate trace --format html -o trace.html rank*.pt.trace.json.gz",
    "flame graph, timeline and tables as one page for a browser",
    NULL,
};
static const struct pm_usage usage = {
    .command = "trace",
    .synopsis = synopsis,
    .intro = "Reads traces that torch.profiler (Kineto) wrote, .json or .json.gz, and prints what\n"
             "they show: torch's key_averages table, what kept the GPU busy or idle, kernels by\n"
             "class, copies, steps, bottlenecks. Several files are the ranks of one job. A file\n"
             "that is cut off or damaged is read as far as it goes.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "`profilemate trace diff --help` and `profilemate trace cut --help` tell about those.\n"
        "Exit code: 0; 1 when a file could not be read; 2 for a misuse.",
    .min_operands = 0,
    .max_operands = 100000,
};

static const char *sort_word(size_t i, void *arg)
{
    (void)arg;
    return pm_key_sort_word(i);
}

/* Checks the options and fills how; an exit code, or -1 to go on. */
static int check(struct pm_trace_how *how, size_t n_files)
{
    *how = (struct pm_trace_how){
        .by_shape = options.by_shape,
        .rules = options.rules,
        .step_prefix = options.step_prefix,
        .sort = PM_SORT_NONE,
        .limit = options.limit < 0 ? 20 : (size_t)options.limit,
        .steps = options.steps,
        .kernels = options.kernels,
        .findings = options.findings,
        .layers = options.layers,
        .stacks_path = options.stacks,
    };
    if (options.by_stack > 64)
        return pm_misuse("trace", "--group-by-stack=%ld is too deep, give at most 64",
                         options.by_stack);
    how->by_stack = options.by_stack > 0 ? (unsigned)options.by_stack : 0;
    if (options.sort != NULL) {
        how->sort_given = true;
        if (!pm_key_sort_find(options.sort, &how->sort)) {
            const char *near = pm_nearest(options.sort, sort_word, NULL);
            return pm_misuse("trace", "--sort=%.60s is not known, %s%s", options.sort,
                             near != NULL ? "did you mean "
                                          : "give self_cpu, cpu, self_device, "
                                            "device, calls, flops or name",
                             near != NULL ? near : "");
        }
    }
    if (options.format != NULL && strcmp(options.format, "table") != 0 &&
        strcmp(options.format, "csv") != 0 && strcmp(options.format, "json") != 0 &&
        strcmp(options.format, "html") != 0)
        return pm_misuse("trace", "--format=%.60s is not known, give table, csv, json or html",
                         options.format);
    how->page = options.format != NULL && strcmp(options.format, "html") == 0;
    if (options.output != NULL && !how->page)
        return pm_misuse("trace", "--output is for the page of --format=html, redirect the others");
    if (options.output != NULL && *options.output == '\0')
        return pm_misuse("trace", "--output is empty, give it the name of a file");
    if (options.format != NULL && strcmp(options.format, "table") != 0 && options.limit < 0)
        how->limit = how->page ? PAGE_ROWS : 0;
    how->cap = how->page ? PAGE_ROWS : 0;
    if (options.format != NULL && strcmp(options.format, "csv") == 0 &&
        how->steps + how->kernels + how->findings > 1)
        return pm_misuse("trace", "csv is one table: choose one of --steps, --kernels, --findings");
    if (options.metric != NULL && options.stacks == NULL)
        return pm_misuse("trace", "--metric goes with --export-stacks=OUT");
    if (options.metric != NULL) {
        enum pm_key_sort metric;
        if (!pm_key_sort_find(options.metric, &metric) ||
            (metric != PM_SORT_SELF_CPU && metric != PM_SORT_SELF_DEVICE))
            return pm_misuse("trace",
                             "--metric=%.60s is not known, give self_cpu_time_total or "
                             "self_cuda_time_total",
                             options.metric);
        how->stacks_device = metric == PM_SORT_SELF_DEVICE;
    }
    if (n_files == 0)
        return pm_misuse("trace", "trace needs a file, as in `profilemate trace trace.json.gz`");
    return -1;
}

int pm_cmd_trace(int argc, char **argv)
{
    struct pm_trace_how how;
    struct pm_trace_set set;
    int first;
    if (argc > 1 && strcmp(argv[1], "diff") == 0)
        return pm_cmd_trace_diff(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "cut") == 0)
        return pm_cmd_trace_cut(argc - 1, argv + 1);
    options = (struct trace_options){.limit = -1};
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (options.print_rules) {
        size_t n;
        const char *rules = pm_classes_builtin(&n);
        fwrite(rules, 1, n, stdout);
        return pm_finish_stdout();
    }
    int code = check(&how, (size_t)(argc - first));
    if (code >= 0)
        return code;
    if (pm_trace_gather(&set, &how, argv + first, (size_t)(argc - first)) != 0)
        return PM_EXIT_FAILED;
    if (!how.sort_given)
        how.sort = set.keys.total_self_device_ns > 0 ? PM_SORT_SELF_DEVICE : PM_SORT_SELF_CPU;
    pm_keys_sort(&set.keys, how.sort);
    code = 0;
    if (options.format != NULL && strcmp(options.format, "json") == 0)
        code = pm_trace_print_json(&set, &how);
    else if (options.format != NULL && strcmp(options.format, "csv") == 0)
        pm_trace_print_csv(&set, &how);
    else if (how.page)
        code = pm_trace_write_page(&set, &how, options.output);
    else
        pm_trace_print_table(&set, &how);
    pm_trace_set_release(&set);
    return code != 0 ? code : pm_finish_stdout();
}
