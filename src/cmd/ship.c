/*
 * profilemate ship: sessions to a folder or an object store, and back. Which sessions are meant and
 * what goes together is seen to here; the rest is done by the Python package (python/profilemate/
 * ship.py), with boto3 for s3://.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/python_part.h"

#define WORDS_MAX 1024

static struct ship_options {
    bool all, watch, delete, verify, fetch, list, quiet;
    const char *interval, *for_time, *dir, *python;
} options;

static const struct pm_option option_table[] = {
    {'a', "all", PM_OPTION_FLAG, "", &options.all, "all sessions, with --watch also those to come"},
    {'w', "watch", PM_OPTION_FLAG, "", &options.watch,
     "go on until the sessions have ended (with --all: until told to end)"},
    {0, "interval", PM_OPTION_TEXT, "TIME", &options.interval,
     "with --watch: look so often (default: 30s)"},
    {0, "for", PM_OPTION_TEXT, "TIME", &options.for_time, "with --watch: end after so long"},
    {0, "verify", PM_OPTION_FLAG, "", &options.verify,
     "read everything at the target back, and ship again what is damaged"},
    {0, "delete", PM_OPTION_FLAG, "", &options.delete,
     "remove a session here once all of it was found at the target"},
    {0, "fetch", PM_OPTION_FLAG, "", &options.fetch,
     "the other way: URL of a session, into FOLDER"},
    {0, "list", PM_OPTION_FLAG, "", &options.list, "the sessions that were shipped to TARGET"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for SESSION here"},
    {0, "python", PM_OPTION_TEXT, "EXE", &options.python,
     "the interpreter that has the Python package"},
    {'q', "quiet", PM_OPTION_FLAG, "", &options.quiet, "do not tell what was shipped"},
};
static const char *const synopsis[] = {"[options] [SESSION…] TARGET", "[options] --all TARGET",
                                       "--fetch URL FOLDER", "--list TARGET", NULL};
static const char *const examples[] = {
    "profilemate ship session_20261123_082501 s3://profiles/vllm",
    "copy what is complete of it; again, and only what is new goes",
    "profilemate ship --all --watch s3://profiles/vllm",
    "all sessions of this machine, those to come too, until it is told to end",
    "profilemate ship --all --delete file:///mnt/archive",
    "finished sessions go away here once their copy was compared",
    "profilemate ship --fetch s3://profiles/vllm/gpu1/session_20261123_082501-1a2b3c4d .",
    "a session's folder again, for report, export and the rest",
    NULL,
};
static const struct pm_usage usage = {
    .command = "ship",
    .synopsis = synopsis,
    .intro =
        "Copies sessions to TARGET: s3://BUCKET/PREFIX, or file:///FOLDER. Of a running server "
        "the\n"
        "segments that are full go, of one that has ended everything. SESSION is a path, a name "
        "or\n"
        "the start of one name; without it the newest is meant. What has arrived is compared by\n"
        "size and SHA-256 before it counts, and nothing is removed unless --delete asks for it.\n"
        "Credentials are found by boto3: variables, profiles, roles, never this command line.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Exit code: 0; 1 when something could not be shipped or fetched, or was damaged; 2 for a\n"
        "misuse.",
    .min_operands = 1,
    .max_operands = WORDS_MAX / 2,
};

/* ---- the words that Python gets ---------------------------------------------------------------
 */

static const char *words[WORDS_MAX];
static size_t n_words;

/* 0, or an exit code. */
static int add(const char *key, const char *value)
{
    char *word = NULL;
    if (n_words == WORDS_MAX ||
        (value == NULL ? (word = strdup(key)) == NULL : asprintf(&word, "%s=%s", key, value) < 0))
        return pm_complain("%s", pm_strerror(-PM_ENOMEM));
    words[n_words++] = word;
    return 0;
}

/* "90", "90s", "5m", "2h", "1d" as seconds: 0, or an exit code. */
static int add_time(const char *key, const char *option, const char *text)
{
    char *end = NULL, seconds[32];
    const double value = strtod(text, &end);
    static const char units[] = "smhd";
    static const double factors[] = {1, 60, 3600, 86400};
    const char *unit = *end != '\0' ? strchr(units, *end) : units;

    if (end == text || !(value > 0) || unit == NULL || (*end != '\0' && end[1] != '\0') ||
        value > 1e7)
        return pm_misuse("ship", "--%s=%.40s is no time, give 30s, 5m, 2h", option, text);
    snprintf(seconds, sizeof(seconds), "%.3f", value * factors[unit - units]);
    return add(key, seconds);
}

/* What does not go together: an exit code, 0 where all is well. */
static int check(size_t operands, const char *target)
{
    const bool ships = !options.fetch && !options.list;

    if (options.fetch && options.list)
        return pm_misuse("ship", "--fetch and --list are two things, give one");
    if (!ships && (options.all || options.watch || options.delete || options.verify))
        return pm_misuse("ship", "--%s goes with none of --all, --watch, --verify and --delete",
                         options.fetch ? "fetch" : "list");
    if (options.fetch && operands != 2)
        return pm_misuse("ship", "--fetch takes the URL of a session and a folder");
    if (options.list && operands != 1)
        return pm_misuse("ship", "--list takes a target");
    if (options.all && operands != 1)
        return pm_misuse("ship", "--all takes a target and no session");
    if (ships && strncmp(target, "s3://", 5) != 0 && strncmp(target, "file://", 7) != 0)
        return pm_misuse("ship", "%.100s is no target, give s3://BUCKET/PREFIX or file:///FOLDER",
                         target);
    if (!options.watch && (options.interval != NULL || options.for_time != NULL))
        return pm_misuse("ship", "--%s belongs to --watch",
                         options.interval != NULL ? "interval" : "for");
    return 0;
}

static int add_sessions(char **names, size_t count)
{
    struct pm_place place;
    struct pm_error err = {""};
    int code = 0;

    if (options.all) {
        char bases[PM_BASES][PATH_MAX];
        const size_t n_bases = pm_place_bases(options.dir, bases);
        for (size_t i = 0; i < n_bases && code == 0; i++)
            code = add("base", bases[i]);
        return code != 0 ? code : add("all", NULL);
    }
    for (size_t i = 0; i < (count > 0 ? count : 1) && code == 0; i++) {
        if (pm_place_resolve(options.dir, count > 0 ? names[i] : NULL, &place, &err) != 0)
            return pm_complain("%s", err.text);
        if (place.old)
            return pm_complain("%s is no session yet, make one of it with `profilemate convert`",
                               place.path);
        code = add("session", place.path);
    }
    return code;
}

static int add_flags(void)
{
    const struct {
        bool on;
        const char *word;
    } flags[] = {
        {options.watch, "watch"},
        {options.delete, "delete"},
        {options.verify, "verify"},
        {options.quiet, "quiet"},
    };
    int code = 0;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]) && code == 0; i++)
        if (flags[i].on)
            code = add(flags[i].word, NULL);
    if (code == 0 && options.watch)
        code =
            add_time("interval", "interval", options.interval != NULL ? options.interval : "30s");
    if (code == 0 && options.for_time != NULL)
        code = add_time("for", "for", options.for_time);
    return code;
}

int pm_cmd_ship(int argc, char **argv)
{
    int first;

    options = (struct ship_options){false};
    n_words = 0;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    const size_t operands = (size_t)(argc - first);
    char *const *given = argv + first;
    int code = check(operands, given[operands - 1]);
    if (code == 0)
        code = add_flags();
    if (code != 0)
        return code;
    if (options.fetch)
        code = add("fetch", given[0]) != 0 ? PM_EXIT_FAILED : add("out", given[1]);
    else if (options.list)
        code = add("list", given[0]);
    else if ((code = add("target", given[operands - 1])) == 0)
        code = add_sessions(argv + first, operands - 1);
    if (code != 0)
        return code;
    const struct pm_python_part part = {
        .asked = "`profilemate ship`",
        .module = "profilemate.ship",
        .python = options.python,
    };
    return pm_python_part(&part, words, n_words);
}
