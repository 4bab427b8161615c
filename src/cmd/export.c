/*
 * profilemate export: the files of a session, also of one that still runs or whose server was
 * killed. The server's own end starts this too.
 */
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"

#include <string.h>
#include <unistd.h>

static struct export_options {
    const char *format, *out, *dir, *preset;
    bool quiet;
} options;

static const struct pm_option option_table[] = {
    {'f', "format", PM_OPTION_TEXT, "FORMAT", &options.format,
     "seed: the CSV and JSON files; json, csv-native: native tables"},
    {'o', "out", PM_OPTION_TEXT, "DIR", &options.out,
     "write here (seed: into the session; json: to stdout)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
    {'q', "quiet", PM_OPTION_FLAG, "", &options.quiet, "do not tell what was written"},
};
static const char *const synopsis[] = {"[options] [SESSION]", NULL};
static const char *const examples[] = {
    "profilemate export",
    "the files of the newest session, in its folder",
    "profilemate export session_20261123_082501 --out ./profile",
    "the same into another folder",
    "profilemate export --format json 2026 | jq 'select(.table == \"steps\")'",
    "every record of the one session of 2026, one JSON object a line",
    NULL,
};
static const struct pm_usage usage = {
    .command = "export",
    .synopsis = synopsis,
    .intro =
        "Writes the files of SESSION: a path, a name, the start of one name, or by default the\n"
        "newest. Works while the server runs, and may be repeated: each file is replaced at\n"
        "once when it is complete.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .setting = "preset",
    .setting_value = &options.preset,
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when the session could not be read or a file not be written; 2 for a\n"
        "misuse.",
    .max_operands = 1,
};

static void tell(const struct pm_export_result *result, const struct pm_session *session)
{
    if (options.quiet)
        return;
    fprintf(stderr, "Wrote %u file%s (%llu rows) to ", result->files, result->files == 1 ? "" : "s",
            (unsigned long long)result->rows);
    pm_print_clean(stderr, result->out_dir);
    fprintf(stderr, "%s\n", pm_session_is_running(session) ? ", of a server that still runs" : "");
}

static int export_seed(const struct pm_session *session, const struct pm_place *place)
{
    struct pm_export_options how = {.out_dir = options.out, .preset = -1};
    struct pm_export_result result;
    struct pm_error err = {""};
    if (options.preset != NULL)
        how.preset = strcasecmp(options.preset, "simple") == 0 ? PM_PRESET_SIMPLE : PM_PRESET_FULL;
    /* Another user could have prepared that folder for what we are about to write. */
    if (options.out == NULL && place->owner != geteuid())
        return pm_complain("the session %s belongs to user %ld, its files are not written into it, "
                           "give --out DIR or export as that user",
                           place->path, (long)place->owner);
    if (pm_export_seed(session, &how, &result, &err) != 0)
        return pm_complain("%s", err.text);
    tell(&result, session);
    return PM_EXIT_OK;
}

static int export_native(const struct pm_session *session, enum pm_native_format format)
{
    struct pm_export_result result;
    struct pm_error err = {""};
    if (options.out == NULL && format == PM_NATIVE_CSV)
        return pm_misuse("export", "--format=csv-native writes one file per table, say where with "
                                   "--out DIR");
    if (pm_export_native(session, format, options.out, stdout, &result, &err) != 0)
        return pm_complain("%s", err.text);
    if (options.out != NULL)
        tell(&result, session);
    return pm_finish_stdout();
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
    const char *format = options.format != NULL ? options.format : "seed";
    bool json = strcmp(format, "json") == 0, csv = strcmp(format, "csv-native") == 0;
    if (!json && !csv && strcmp(format, "seed") != 0)
        return pm_misuse("export", "--format=%.100s is not known, give seed, json or csv-native",
                         format);
    if ((json || csv) && options.preset != NULL)
        return pm_misuse("export",
                         "--preset chooses among the files of --format=seed, leave it "
                         "out with --format=%s",
                         format);
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0 ||
        pm_complete_open(&place, &session, &err) != 0)
        return pm_complain("%s", err.text);
    int code = json || csv ? export_native(session, json ? PM_NATIVE_JSON : PM_NATIVE_CSV)
                           : export_seed(session, &place);
    pm_session_close(session);
    return code;
}
