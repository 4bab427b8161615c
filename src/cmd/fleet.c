/*
 * profilemate fleet: a question to a lake of many servers' sessions. The questions are SQL, which
 * DuckDB or Spark runs; both are reached through the Python package (python/profilemate/fleet).
 * Here the command line is checked, then the program becomes Python.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/python_part.h"

static struct fleet_options {
    bool list, sql;
    const char *on, *format, *out, *master, *memory, *python;
    struct pm_option_words params;
} options;

static const struct pm_option option_table[] = {
    {'l', "list", PM_OPTION_FLAG, "", &options.list,
     "the questions; with QUERY what it takes and how it answers"},
    {0, "sql", PM_OPTION_FLAG, "", &options.sql, "print QUERY's SQL, for an engine of your own"},
    {0, "on", PM_OPTION_TEXT, "ENGINE", &options.on, "duckdb (default) or spark"},
    {'p', "param", PM_OPTION_MORE, "NAME=VALUE", &options.params,
     "a parameter of QUERY, may be repeated"},
    {'f', "format", PM_OPTION_TEXT, "FORMAT", &options.format, "table (default), csv, html, json"},
    {'o', "out", PM_OPTION_TEXT, "FILE", &options.out, "write here instead of to stdout"},
    {0, "master", PM_OPTION_TEXT, "URL", &options.master,
     "spark: the cluster's master (default: this machine's cores)"},
    {0, "memory", PM_OPTION_TEXT, "SIZE", &options.memory,
     "4GB, 4g: what DuckDB, or Spark's driver, may take"},
    {0, "python", PM_OPTION_TEXT, "EXE", &options.python,
     "the interpreter that has the Python package and the engine"},
};
static const char *const synopsis[] = {"[options] QUERY URL", "--list [QUERY]",
                                       "--sql [--param NAME=VALUE] QUERY", NULL};
static const char *const examples[] = {
    "profilemate fleet --list",
    "what can be asked",
    "profilemate fleet slo ./lake --param ttft_ms=300 --param tpot_ms=40",
    "latency and goodput per model and version, by DuckDB",
    "profilemate fleet stragglers s3://profiles/lake --on spark --master spark://head:7077",
    "the slowest hosts and ranks, by a cluster",
    "profilemate fleet regressions ./lake -p base=0.31.0 -p new=0.32.0 -f html -o new.html",
    "what takes longer with the new version, as a page",
    "profilemate fleet --sql waste",
    "its SQL, over views named as the lake's tables",
    NULL,
};
static const struct pm_usage usage = {
    .command = "fleet",
    .synopsis = synopsis,
    .intro =
        "Asks a lake of sessions (profilemate export --format parquet --partition) of any number "
        "of\n"
        "servers. URL is a path, file://… or s3://…. QUERY is\n\n"
        "  slo          latency and goodput against an SLO, per model and version\n"
        "  waste        preemptions, and work done in vain, by configuration\n"
        "  stragglers   the slowest hosts and ranks, and how sure that is\n"
        "  kv           head-room of the KV caches\n"
        "  experts      expert load over the fleet\n"
        "  regressions  what takes longer with a newer vLLM, for the same work\n"
        "  worst        the steps behind the worst requests\n\n"
        "They are SQL that DuckDB and Spark answer alike; one of the two has to be there:\n"
        "pip install 'profilemate[fleet]'.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when the lake could not be read or something is not installed; 2 for a\n"
        "misuse.",
    .max_operands = 2,
};

/* One of the words, NULL-terminated; NULL: not given, which is fine. */
static bool among(const char *word, const char *const *words)
{
    for (; word != NULL && *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return word == NULL;
}

/* What does not go together: an exit code, 0 where all is well. */
static int check(int operands)
{
    static const char *const engines[] = {"duckdb", "spark", NULL};
    static const char *const formats[] = {"table", "csv", "html", "json", NULL};

    if (!among(options.on, engines))
        return pm_misuse("fleet", "--on=%.100s is not known, give duckdb or spark", options.on);
    if (!among(options.format, formats))
        return pm_misuse("fleet", "--format=%.100s is not known, give table, csv, html or json",
                         options.format);
    if (options.list && options.sql)
        return pm_misuse("fleet", "--list and --sql are two things, give one");
    if ((options.list || options.sql) && operands == 2)
        return pm_misuse("fleet", "--%s asks no lake, leave the URL out",
                         options.list ? "list" : "sql");
    if (options.sql && operands == 0)
        return pm_misuse("fleet", "--sql of which query? `profilemate fleet --list` names them");
    if (!options.list && !options.sql && operands == 0)
        return pm_misuse("fleet", "no query, `profilemate fleet --list` names them");
    if (!options.list && !options.sql && operands == 1)
        return pm_misuse("fleet", "no lake to ask, give its path, file://… or s3://…");
    if (options.master != NULL && (options.on == NULL || strcmp(options.on, "spark") != 0))
        return pm_misuse("fleet", "--master belongs to --on=spark");
    for (size_t i = 0; i < options.params.n; i++)
        if (strchr(options.params.at[i], '=') == NULL || options.params.at[i][0] == '=')
            return pm_misuse("fleet", "--param=%.100s is no NAME=VALUE", options.params.at[i]);
    return 0;
}

int pm_cmd_fleet(int argc, char **argv)
{
    const char *words[24 + 2 * PM_OPTION_WORDS_MAX];
    size_t n = 0;
    int first;

    options = (struct fleet_options){false};
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    const int code = check(argc - first);
    if (code != 0)
        return code;
    const struct {
        const char *option, *value;
    } given[] = {
        {"--on", options.on},         {"--format", options.format}, {"--out", options.out},
        {"--master", options.master}, {"--memory", options.memory},
    };
    if (options.list)
        words[n++] = "--list";
    if (options.sql)
        words[n++] = "--sql";
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
        if (given[i].value != NULL) {
            words[n++] = given[i].option;
            words[n++] = given[i].value;
        }
    for (size_t i = 0; i < options.params.n; i++) {
        words[n++] = "--param";
        words[n++] = options.params.at[i];
    }
    words[n++] = "--";
    for (int i = first; i < argc; i++)
        words[n++] = argv[i];
    const struct pm_python_part part = {
        .asked = "`profilemate fleet`",
        .module = "profilemate.fleet.command",
        .python = options.python,
    };
    return pm_python_part(&part, words, n);
}
