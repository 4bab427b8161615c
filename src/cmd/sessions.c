/*
 * profilemate sessions: the list, newest first, and the removal of old ones.
 */
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/prune.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "session/step_facts.h"
#include "session/attrs.h"

static struct sessions_options {
    bool json, prune, dry_run;
    const char *older_than;
    const char *dir, *keep_mb;
} options;

/* --dir and --keep-mb are settings too; here they stand in the command's own words. */
static const struct pm_option option_table[] = {
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look here (default: where sessions go)"},
    {0, "json", PM_OPTION_FLAG, "", &options.json, "one JSON document on stdout"},
    {0, "prune", PM_OPTION_FLAG, "", &options.prune,
     "remove finished sessions of yours, oldest first"},
    {0, "keep-mb", PM_OPTION_TEXT, "MB", &options.keep_mb,
     "with --prune: what may stay in all (default: the setting, 4096)"},
    {0, "older-than", PM_OPTION_TEXT, "TIME", &options.older_than,
     "with --prune: only those that ended so long ago (7d, 12h, 30m, 90s)"},
    {'n', "dry-run", PM_OPTION_FLAG, "", &options.dry_run,
     "with --prune: tell what would go, remove nothing"},
};
static const char *const synopsis[] = {
    "[--json] [--dir=DIR]",
    "--prune [--keep-mb=MB] [--older-than=TIME] [--dry-run] [--json] [--dir=DIR]", NULL};
static const char *const examples[] = {
    "profilemate sessions",
    "name, start, duration, state, model, processes, size and steps of each",
    "profilemate sessions --json | jq -r '.sessions[0].path'",
    "the folder of the newest",
    "profilemate sessions --prune --older-than 7d --dry-run",
    "what a removal of all that ended a week ago would take",
    "profilemate sessions --prune --keep-mb 1000",
    "remove the oldest until all take 1000 MB or less",
    NULL,
};
static const struct pm_usage usage = {
    .command = "sessions",
    .synopsis = synopsis,
    .intro = "Lists the sessions, newest first. With --prune it removes finished ones: never one\n"
             "of which a process still runs, never another user's, never anything that is not a\n"
             "session. --older-than without --keep-mb removes all that are that old.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when a session could not be read or removed; 2 for a misuse.",
    .max_operands = 0,
};

/* ---- one session's figures ------------------------------------------------------------------- */

struct figures {
    const char *state;
    char model[160];
    size_t processes;
    uint64_t bytes, steps, duration_ns;
    bool readable;
};

/* Steps that had tokens, by the scheduler's totals: also those whose detail had to go. */
static uint64_t count_steps(const struct pm_process *process)
{
    uint64_t steps = 0;
    struct pm_totals totals;
    uint32_t value, hist;
    int schema = pm_process_schema_find(process, "sched_step");
    if (schema < 0 || pm_process_totals(process, &totals) != 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    pm_process_series(process, (size_t)schema, &value, &hist);
    uint32_t values, hists;
    pm_schema_series(desc, &values, &hists);
    uint32_t per_class = desc->classes > 0 ? values / desc->classes : 0;
    for (uint32_t class = PM_PHASE_PREFILL; class < desc->classes; class ++) {
        uint64_t at = (uint64_t)value + (uint64_t) class * per_class;
        if (at < totals.n_values)
            steps += totals.values[at];
    }
    pm_totals_free(&totals);
    return steps;
}

static void read_figures(const struct pm_place *place, struct figures *ret)
{
    struct figures figures = {.state = "unreadable"};
    struct pm_session *session;
    figures.bytes = pm_place_bytes(place);
    if (pm_session_open(&session, place->path, NULL) == 0) {
        uint64_t last = place->start_mono_ns;
        const char *model = pm_session_attr(session, PM_ATTR_MODEL);
        figures.readable = true;
        figures.state = pm_session_state(session);
        figures.processes = pm_session_process_count(session);
        snprintf(figures.model, sizeof(figures.model), "%s", model != NULL ? model : "");
        for (size_t i = 0; i < figures.processes; i++) {
            const struct pm_process *process = pm_session_process(session, i);
            const struct pm_process_info *info = pm_process_info(process);
            uint64_t seen[3] = {info->closed_ns, info->heartbeat_ns, info->last_ns};
            for (size_t k = 0; k < 3; k++)
                if (seen[k] > last)
                    last = seen[k];
            figures.steps += count_steps(process);
        }
        figures.duration_ns = last - place->start_mono_ns;
        pm_session_close(session);
    }
    *ret = figures;
}

/* ---- the list -------------------------------------------------------------------------------- */

static void bytes_text(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, size, unit == 0 || value >= 99.95 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void duration_text(uint64_t ns, char *out, size_t size)
{
    uint64_t sec = ns / 1000000000u;
    unsigned days = (unsigned)(sec / 86400), hours = (unsigned)(sec / 3600 % 24);
    unsigned minutes = (unsigned)(sec / 60 % 60), seconds = (unsigned)(sec % 60);
    if (days > 0)
        snprintf(out, size, "%ud%02uh", days, hours);
    else if (hours > 0)
        snprintf(out, size, "%uh%02um", hours, minutes);
    else if (minutes > 0)
        snprintf(out, size, "%um%02us", minutes, seconds);
    else
        snprintf(out, size, "%us", seconds);
}

static void list_text(const struct pm_place *places, size_t count)
{
    int width = 7;
    for (size_t i = 0; i < count; i++)
        if ((int)strlen(places[i].name) > width)
            width = (int)strlen(places[i].name);
    printf("%s%-*s  %-19s  %8s  %-10s  %5s  %8s  %8s  MODEL%s\n", pm_style(stdout, PM_BOLD), width,
           "SESSION", "STARTED", "DURATION", "STATE", "PROCS", "SIZE", "STEPS",
           pm_style(stdout, PM_PLAIN));
    for (size_t i = 0; i < count; i++) {
        struct figures figures;
        char started[64], bytes[32], duration[32];
        read_figures(&places[i], &figures);
        pm_iso_time(places[i].start_real_ns, started, sizeof(started));
        started[19] = '\0'; /* without fractions and zone */
        char *t = strchr(started, 'T');
        if (t != NULL)
            *t = ' ';
        bytes_text(figures.bytes, bytes, sizeof(bytes));
        duration_text(figures.duration_ns, duration, sizeof(duration));
        enum pm_style style =
            strcmp(figures.state, "running") == 0 ? PM_GREEN
            : strcmp(figures.state, "killed") == 0 || strcmp(figures.state, "unreadable") == 0
                ? PM_YELLOW
                : PM_PLAIN;
        pm_print_clean(stdout, places[i].name);
        printf("%*s  %s  %8s  %s%-10s%s  %5zu  %8s  %8llu  ", width - (int)strlen(places[i].name),
               "", started, duration, pm_style(stdout, style), figures.state,
               pm_style(stdout, PM_PLAIN), figures.processes, bytes,
               (unsigned long long)figures.steps);
        pm_print_clean(stdout, figures.model[0] != '\0' ? figures.model : "-");
        if (places[i].owner != geteuid())
            printf("  (of user %ld)", (long)places[i].owner);
        putchar('\n');
    }
}

static void one_json(struct pm_json *json, const struct pm_place *place)
{
    struct figures figures;
    char started[64];
    read_figures(place, &figures);
    pm_iso_time(place->start_real_ns, started, sizeof(started));
    pm_json_object(json);
    pm_json_key(json, "name"), pm_json_text(json, place->name);
    pm_json_key(json, "path"), pm_json_text(json, place->path);
    pm_json_key(json, "started"), pm_json_text(json, started);
    pm_json_key(json, "duration_sec"), pm_json_sec6(json, figures.duration_ns);
    pm_json_key(json, "state"), pm_json_text(json, figures.state);
    pm_json_key(json, "model"), pm_json_text(json, figures.model[0] ? figures.model : NULL);
    pm_json_key(json, "processes"), pm_json_u64(json, figures.processes);
    pm_json_key(json, "bytes"), pm_json_u64(json, figures.bytes);
    pm_json_key(json, "steps"), pm_json_u64(json, figures.steps);
    pm_json_key(json, "owner_uid"), pm_json_u64(json, place->owner);
    pm_json_end(json);
}

/* Ends the document and prints it. */
static int print_json(struct pm_json *json, struct pm_buf *buf)
{
    int error = pm_json_finish(json);
    if (error == 0)
        fwrite(buf->data, 1, buf->used, stdout);
    pm_buf_release(buf);
    if (error != 0)
        return pm_complain("cannot list the sessions, %s, free some memory", pm_strerror(error));
    return pm_finish_stdout();
}

static int list(void)
{
    struct pm_place *places;
    size_t count;
    int error = pm_places(options.dir, &places, &count);
    if (error != 0)
        return pm_complain("cannot list the sessions, %s", pm_strerror(error));
    int code;
    if (options.json) {
        struct pm_buf buf;
        struct pm_json json;
        pm_buf_init(&buf, 256u << 20);
        pm_json_init(&json, &buf, 2);
        pm_json_object(&json);
        pm_json_key(&json, "sessions");
        pm_json_array(&json);
        for (size_t i = 0; i < count; i++)
            one_json(&json, &places[i]);
        pm_json_end(&json);
        pm_json_end(&json);
        code = print_json(&json, &buf);
    } else {
        if (count > 0) {
            list_text(places, count);
        } else {
            char bases[PM_BASES][PATH_MAX];
            pm_place_bases(options.dir, bases);
            fprintf(stderr, "No sessions in ");
            pm_print_clean(stderr, bases[0]);
            fprintf(stderr, ".\n");
        }
        code = pm_finish_stdout();
    }
    free(places);
    return code;
}

/* ---- --prune --------------------------------------------------------------------------------- */

static bool parse_duration(const char *text, uint64_t *ret_sec)
{
    static const struct {
        char unit;
        uint64_t sec;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    char *end;
    if (text[0] < '0' || text[0] > '9' || strlen(text) > 12)
        return false;
    uint64_t number = strtoull(text, &end, 10);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (end[0] == units[i].unit && end[1] == '\0') {
            *ret_sec = number * units[i].sec;
            return true;
        }
    return false;
}

static void tell_text(const struct pm_place *place, uint64_t bytes, void *arg)
{
    char size[32];
    (void)arg;
    bytes_text(bytes, size, sizeof(size));
    printf("%s ", options.dry_run ? "would remove" : "removed");
    pm_print_clean(stdout, place->path);
    printf(" (%s)\n", size);
}

static void tell_json(const struct pm_place *place, uint64_t bytes, void *arg)
{
    struct pm_json *json = arg;
    pm_json_object(json);
    pm_json_key(json, "name"), pm_json_text(json, place->name);
    pm_json_key(json, "path"), pm_json_text(json, place->path);
    pm_json_key(json, "bytes"), pm_json_u64(json, bytes);
    pm_json_end(json);
}

/* The limit in bytes: --keep-mb, or the setting. false: told. */
static bool keep_limit(uint64_t *ret_bytes)
{
    static struct pm_settings settings;
    pm_settings_read(&settings, NULL, NULL, NULL, NULL);
    int mb = settings.keep_mb;
    for (size_t i = 0; options.keep_mb != NULL && i < pm_setting_rows_count; i++) {
        char expected[128];
        if (strcmp(pm_setting_rows[i].field, "keep_mb") != 0)
            continue;
        if (!pm_setting_check(&pm_setting_rows[i], options.keep_mb, expected, sizeof(expected))) {
            pm_misuse("sessions", "--keep-mb=%.100s is not valid, give %s", options.keep_mb,
                      expected);
            return false;
        }
        mb = atoi(options.keep_mb);
    }
    *ret_bytes = (uint64_t)mb << 20;
    return true;
}

static int prune(void)
{
    struct pm_prune_options how = {.dir = options.dir, .dry_run = options.dry_run};
    struct pm_prune_result result;
    struct pm_buf buf;
    struct pm_json json;
    if (!keep_limit(&how.keep_bytes))
        return PM_EXIT_MISUSE;
    if (options.older_than != NULL && !parse_duration(options.older_than, &how.older_than_sec))
        return pm_misuse("sessions",
                         "--older-than=%.100s is not valid, give a number and s, m, h, d or w, "
                         "such as 7d",
                         options.older_than);
    how.by_age_alone = options.older_than != NULL && options.keep_mb == NULL;
    how.tell = options.json ? tell_json : tell_text;
    how.tell_arg = &json;
    pm_buf_init(&buf, 256u << 20);
    pm_json_init(&json, &buf, 2);
    if (options.json) {
        pm_json_object(&json);
        pm_json_key(&json, "dry_run"), pm_json_bool(&json, options.dry_run);
        pm_json_key(&json, "removed");
        pm_json_array(&json);
    }
    int error = pm_prune(&how, &result), code = PM_EXIT_OK;
    if (error != 0) {
        pm_buf_release(&buf);
        return pm_complain("cannot look through the sessions, %s", pm_strerror(error));
    }
    if (options.json) {
        pm_json_end(&json);
        pm_json_key(&json, "removed_bytes"), pm_json_u64(&json, result.removed_bytes);
        pm_json_key(&json, "kept"), pm_json_u64(&json, result.kept);
        pm_json_key(&json, "kept_bytes"), pm_json_u64(&json, result.kept_bytes);
        pm_json_key(&json, "failed"), pm_json_u64(&json, result.failed);
        pm_json_end(&json);
        code = print_json(&json, &buf);
    } else {
        char kept[32];
        bytes_text(result.kept_bytes, kept, sizeof(kept));
        printf("%s %zu, kept %zu (%s)\n", options.dry_run ? "Would remove" : "Removed",
               result.removed, result.kept, kept);
        code = pm_finish_stdout();
    }
    if (result.failed > 0)
        code = pm_complain("%s, %zu session%s could not be removed completely, remove what is left "
                           "by hand",
                           result.first_failure.text, result.failed, result.failed == 1 ? "" : "s");
    return code;
}

int pm_cmd_sessions(int argc, char **argv)
{
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (!options.prune &&
        (options.keep_mb != NULL || options.older_than != NULL || options.dry_run))
        return pm_misuse("sessions", "--keep-mb, --older-than and --dry-run belong to --prune");
    return options.prune ? prune() : list();
}
