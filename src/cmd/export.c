/*
 * profilemate export: the files of a session, also of one that still runs or whose server was
 * killed. The server's own end starts this too.
 */
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/export_formats.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/progress.h"

#include <string.h>
#include <unistd.h>

#define SESSIONS_MAX 4000 /* with --partition; a folder stands for all that lie in it */
#define SEED_PASSES 8     /* how often the seeds' files read the records, about */

static struct export_options {
    struct pm_export_words words;
    const char *dir, *preset;
} options;

static const struct pm_option option_table[] = {
    {'f', "format", PM_OPTION_TEXT, "FORMAT", &options.words.format,
     "seed, json, csv-native, chrome, perfetto, openmetrics, arrow, parquet"},
    {'o', "out", PM_OPTION_TEXT, "PATH", &options.words.out,
     "write here: a folder, or a file where the format is one file"},
    {0, "last", PM_OPTION_TEXT, "TIME", &options.words.window.last,
     "only the last 30s, 5m, 2h of the session"},
    {0, "steps", PM_OPTION_TEXT, "A:B", &options.words.window.steps, "only these steps"},
    {0, "request", PM_OPTION_TEXT, "ID", &options.words.window.request,
     "only the life of this request"},
    {0, "series", PM_OPTION_TEXT, "INTERVAL", &options.words.series,
     "openmetrics: values over time, one each 15s, 1m, …, to fill a database with"},
    {0, "with-trace", PM_OPTION_TEXT, "TRACE", &options.words.trace,
     "perfetto: a torch trace of the same run beside the session, on one clock"},
    {0, "partition", PM_OPTION_FLAG, "", &options.words.partition,
     "parquet: add what is new of all SESSIONs to the lake PATH"},
    {0, "tables", PM_OPTION_TEXT, "LIST", &options.words.tables,
     "with --partition: only these tables, by commas"},
    {0, "python", PM_OPTION_TEXT, "EXE", &options.words.python,
     "arrow, parquet: the interpreter that has the Python package"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
    {'q', "quiet", PM_OPTION_FLAG, "", &options.words.quiet, "do not tell what was written"},
};
static const char *const synopsis[] = {
    "[options] [SESSION]", "--format parquet --partition -o LAKE [options] [SESSION…]", NULL};
static const char *const examples[] = {
    "profilemate export",
    "the files of the newest session, in its folder",
    "profilemate export session_20261123_082501 --out ./profile",
    "the same into another folder",
    "profilemate export --format json 2026 | jq 'select(.table == \"steps\")'",
    "every record of the one session of 2026, one JSON object a line",
    "profilemate export --format perfetto --last 30s --out last.pftrace",
    "its last half minute, for ui.perfetto.dev",
    "profilemate export --format perfetto --with-trace rank0.pt.trace.json.gz --out both.pftrace",
    "what torch's profiler saw, beneath the steps of the session",
    "profilemate export --format openmetrics --series 15s --out metrics.txt",
    "for promtool tsdb create-blocks-from openmetrics",
    "profilemate export --format parquet --partition -o lake /tmp/vllm_profiling",
    "all sessions in that folder, or what is new of them, for Spark and DuckDB",
    NULL,
};
static const struct pm_usage usage = {
    .command = "export",
    .synopsis = synopsis,
    .intro =
        "Writes the files of SESSION: a path, a name, the start of one name, or by default the\n"
        "newest. Works while the server runs, and may be repeated: each file is replaced at\n"
        "once when it is complete.\n\n"
        "  seed         the CSV and JSON files, into the session (the default)\n"
        "  json         native tables, one JSON object a line, to stdout\n"
        "  csv-native   native tables, one CSV each\n"
        "  chrome       a timeline as JSON, for chrome://tracing and Perfetto, to stdout\n"
        "  perfetto     a timeline as protobuf, for ui.perfetto.dev, to stdout\n"
        "  openmetrics  metrics as Prometheus reads them, to stdout\n"
        "  arrow        native tables, one Arrow IPC file each; needs the Python package\n"
        "  parquet      the same as Parquet\n\n"
        "With --partition the tables of any number of sessions, or of all in a folder, go into\n"
        "one lake, LAKE/table=/date=/host=/session=; what is there already is left as it is.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .setting = "preset",
    .setting_value = &options.preset,
    .examples = examples,
    .outro = "Exit code: 0; 1 when a session could not be read or a file not be written (with\n"
             "--partition the other sessions are done); 2 for a misuse.",
    .max_operands = SESSIONS_MAX,
};

static void tell(const struct pm_export_result *result, const struct pm_session *session)
{
    if (options.words.quiet)
        return;
    fprintf(stderr, "Wrote %u file%s (%llu rows) to ", result->files, result->files == 1 ? "" : "s",
            (unsigned long long)result->rows);
    pm_print_clean(stderr, result->out_dir);
    fprintf(stderr, "%s\n", pm_session_is_running(session) ? ", of a server that still runs" : "");
}

static int export_seed(const struct pm_session *session, const struct pm_place *place)
{
    struct pm_export_options how = {.out_dir = options.words.out, .preset = -1};
    struct pm_export_result result;
    struct pm_progress progress;
    struct pm_error err = {""};
    if (options.preset != NULL)
        how.preset = strcasecmp(options.preset, "simple") == 0 ? PM_PRESET_SIMPLE : PM_PRESET_FULL;
    if (place->old && options.words.out == NULL)
        return pm_complain(
            "%s holds the files of another profiler, they are not replaced, say where "
            "with --out DIR",
            place->path);
    /* Another user could have prepared that folder for what we are about to write. */
    if (options.words.out == NULL && place->owner != geteuid())
        return pm_complain("the session %s belongs to user %ld, its files are not written into it, "
                           "give --out DIR or export as that user",
                           place->path, (long)place->owner);
    pm_progress_begin(&progress, "export", SEED_PASSES * pm_progress_session_bytes(session));
    int rc = pm_export_seed(session, &how, &result, &err);
    pm_progress_end(&progress);
    if (rc != 0)
        return pm_complain("%s", err.text);
    tell(&result, session);
    return PM_EXIT_OK;
}

static int count_table(const char *name, const char *sentence, void *count)
{
    (void)name, (void)sentence;
    ++*(unsigned *)count;
    return 0;
}

/* Each table is a walk through the records of the processes that have it. */
static uint64_t bytes_of_tables(const struct pm_session *session)
{
    unsigned tables = 0;
    (void)pm_native_tables(session, count_table, &tables);
    return tables * pm_progress_session_bytes(session) / 2;
}

static int export_native(const struct pm_session *session, enum pm_native_format format)
{
    struct pm_export_result result;
    struct pm_progress progress;
    struct pm_error err = {""};
    if (options.words.out == NULL && format == PM_NATIVE_CSV)
        return pm_misuse("export", "--format=csv-native writes one file per table, say where with "
                                   "--out DIR");
    pm_progress_begin(&progress, "export", bytes_of_tables(session));
    int rc = pm_export_native(session, format, options.words.out, stdout, &result, &err);
    pm_progress_end(&progress);
    if (rc != 0)
        return pm_complain("%s", err.text);
    if (options.words.out != NULL)
        tell(&result, session);
    return pm_finish_stdout();
}

enum format { SEED, JSON, CSV, STREAM, PYTHON, UNKNOWN };

static enum format format_of(const char *word)
{
    if (strcmp(word, "seed") == 0)
        return SEED;
    if (strcmp(word, "json") == 0)
        return JSON;
    if (strcmp(word, "csv-native") == 0)
        return CSV;
    if (pm_export_is_stream(word))
        return STREAM;
    return strcmp(word, "arrow") == 0 || strcmp(word, "parquet") == 0 ? PYTHON : UNKNOWN;
}

/* What does not go together: an exit code, 0 where all is well. */
static int check(enum format format, int operands, char *const *sessions)
{
    const char *word = options.words.format;
    const struct pm_window_options *window = &options.words.window;
    if (format == UNKNOWN)
        return pm_misuse("export",
                         "--format=%.100s is not known, give seed, json, csv-native, chrome, "
                         "perfetto, openmetrics, arrow or parquet",
                         word);
    if (format != SEED && options.preset != NULL)
        return pm_misuse("export",
                         "--preset chooses among the files of --format=seed, leave it out with "
                         "--format=%s",
                         word);
    if (options.words.series != NULL && strcmp(word, "openmetrics") != 0)
        return pm_misuse("export", "--series belongs to --format=openmetrics");
    if (options.words.trace != NULL && strcmp(word, "perfetto") != 0)
        return pm_misuse("export", "--with-trace belongs to --format=perfetto");
    if (options.words.partition && strcmp(word, "parquet") != 0)
        return pm_misuse("export", "--partition belongs to --format=parquet");
    if (options.words.tables != NULL && !options.words.partition)
        return pm_misuse("export", "--tables belongs to --partition");
    if (options.words.partition &&
        (window->last != NULL || window->steps != NULL || window->request != NULL))
        return pm_misuse("export", "--partition adds whole sessions, leave out --last, --steps and "
                                   "--request");
    if (operands > 1 && !options.words.partition)
        return pm_misuse("export",
                         "export does not know what to do with %.200s: one SESSION at a time, "
                         "but with --format=parquet --partition",
                         sessions[1]);
    if (options.words.python != NULL && format != PYTHON)
        return pm_misuse("export", "--python belongs to --format=arrow and --format=parquet");
    if (format == PYTHON && options.words.out == NULL)
        return pm_misuse("export",
                         "--format=%s writes one file per table, say where with --out DIR", word);
    if (format == SEED && options.words.out == NULL &&
        (window->last != NULL || window->steps != NULL || window->request != NULL))
        return pm_misuse("export", "files of a part would replace those of the whole session, say "
                                   "where they go with --out DIR");
    return 0;
}

static int narrow(const struct pm_session *session)
{
    struct pm_window window;
    struct pm_error err = {""};
    if (pm_window_parse(session, &options.words.window, &window, &err) != 0 ||
        pm_window_apply(session, &window, &err) != 0)
        return pm_complain("%s", err.text);
    return PM_EXIT_OK;
}

int pm_cmd_export(int argc, char **argv)
{
    struct pm_place place;
    struct pm_session *session;
    struct pm_error err = {""};
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (options.words.format == NULL)
        options.words.format = "seed";
    const enum format format = format_of(options.words.format);
    int code = check(format, argc - first, argv + first);
    if (code != 0)
        return code;
    if (options.words.partition)
        return pm_export_lake(options.dir, (const char *const *)argv + first,
                              (size_t)(argc - first), &options.words);
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0 ||
        pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s", err.text);
    code = narrow(session);
    if (code == 0 && format == SEED)
        code = export_seed(session, &place);
    else if (code == 0 && format == STREAM)
        code = pm_export_stream(session, &options.words);
    else if (code == 0 && format == PYTHON && place.old)
        code = pm_complain("%s is no session yet, make one of it with `profilemate convert`",
                           place.path);
    else if (code == 0 && format == PYTHON)
        code = pm_export_python(&place, &options.words);
    else if (code == 0)
        code = export_native(session, format == JSON ? PM_NATIVE_JSON : PM_NATIVE_CSV);
    pm_session_close(session);
    return code;
}
