/*
 * profilemate diff: two sessions, or two groups of them, compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/dir.h"
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/progress.h"
#include "compare/compare.h"

#define PAGE_MAX (16u << 20)
#define SESSIONS_MAX 64
/* Steps, what came out of them, the KV cache, requests: each reads the records once. */
#define WALKS 4u

static struct diff_options {
    bool json, all;
    const char *html, *fail_over, *min_change, *dir;
    long resamples, seed;
} options;

static const struct pm_option option_table[] = {
    {0, "fail-over", PM_OPTION_TEXT, "PERCENT", &options.fail_over,
     "exit with 3 when something takes longer by more than this"},
    {0, "min-change", PM_OPTION_TEXT, "PERCENT", &options.min_change,
     "changes below are never called slower or faster (default: 1%)"},
    {0, "json", PM_OPTION_FLAG, "", &options.json, "one JSON object instead of text"},
    {0, "html", PM_OPTION_TEXT, "FILE", &options.html, "write a page to FILE as well"},
    {0, "all", PM_OPTION_FLAG, "", &options.all, "show every part, also the small ones"},
    {0, "resamples", PM_OPTION_WHOLE, "N", &options.resamples, "of the bootstrap (default: 1000)"},
    {0, "seed", PM_OPTION_WHOLE, "N", &options.seed, "of its random numbers (default: 1)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look for sessions here"},
};
static const char *const synopsis[] = {"[options] BEFORE AFTER", "[options] BEFORE... -- AFTER...",
                                       NULL};
static const char *const examples[] = {
    "profilemate diff 20261123_0825 20261123_0910",
    "what takes longer in the second session, of the same work",
    "profilemate diff --fail-over 5% base new",
    "for CI: 3 when anything that matters got slower by more than 5 %",
    "profilemate diff base1 base2 base3 -- new1 new2 new3",
    "three runs against three: how runs differ from each other is in the intervals",
    "profilemate diff --html diff.html base new",
    "a page to show around",
    NULL,
};
static const struct pm_usage usage = {
    .command = "diff",
    .synopsis = synopsis,
    .intro =
        "Compares two sessions, or two groups of them: how long steps and their parts take for\n"
        "the same work (kind of step, batch size, prompt tokens, context), and requests of the\n"
        "same size in the same crowd, each with a 95 % interval. A changed load is told apart.\n"
        "A session is a path, a name or the start of one; a folder with the CSV files of the\n"
        "Python profiler of old is one too.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when a session could not be read; 2 for a misuse; with --fail-over\n"
             "also 3 when something takes longer by more than that, and 4 when there was too\n"
             "little of the same work to tell.",
    .min_operands = 2,
    .max_operands = SESSIONS_MAX,
};

/* "5%", "5", "0.5 %": a share. false where it is none. */
static bool parse_percent(const char *text, double *ret_share)
{
    char *end;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || errno != 0 || !isfinite(value) || value < 0 || value > 10000)
        return false;
    end += strspn(end, " ");
    if (*end == '%')
        end++;
    if (*end != '\0' || strspn(text, "0123456789.eE+- %") != strlen(text))
        return false;
    *ret_share = value / 100;
    return true;
}

static int open_session(const char *meant, struct pm_session **ret_session, struct pm_error *err)
{
    struct pm_place place;
    int rc = pm_place_resolve(options.dir, meant, &place, err);
    return rc == 0 ? pm_complete_open(&place, ret_session, err) : rc;
}

/* All of them are asked first what they know; then one after another is read. */
static int gather(struct pm_compare_input *input, char **names, size_t n_before, size_t n,
                  struct pm_error *err)
{
    struct pm_session *sessions[SESSIONS_MAX] = {NULL};
    struct pm_progress progress;
    uint64_t bytes = 0;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = open_session(names[i], &sessions[i], err);
        if (rc != 0)
            break;
        rc = pm_compare_look(input, sessions[i]);
        if (rc != 0)
            pm_error_set(err, rc, "cannot read the session %s, %s", names[i], pm_strerror(rc));
    }
    for (size_t i = 0; rc == 0 && i < n; i++)
        bytes += WALKS * pm_progress_session_bytes(sessions[i]);
    pm_progress_begin(&progress, "diff", bytes);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = pm_compare_add(input, i >= n_before, sessions[i], err);
    pm_progress_end(&progress);
    for (size_t i = 0; i < n; i++)
        if (sessions[i] != NULL)
            pm_session_close(sessions[i]);
    return rc;
}

static int write_page(const char *path, const struct pm_comparison *comparison,
                      const struct pm_compare_style *style)
{
    struct pm_buf buf;
    const char *name;
    int fd = -1;
    const mode_t mask = umask(022);

    umask(mask);
    pm_buf_init(&buf, PAGE_MAX);
    pm_compare_html(&buf, comparison, style);
    int rc = pm_buf_status(&buf);
    if (rc == 0)
        rc = pm_dir_open_parent(path, &fd, &name);
    if (rc == 0)
        rc = pm_dir_replace_file(fd, name, buf.data, buf.used, 0666 & ~mask);
    if (fd >= 0)
        close(fd);
    pm_buf_release(&buf);
    return rc == 0 ? 0 : pm_complain("cannot write %s, %s", path, pm_strerror(rc));
}

static int show(const struct pm_comparison *comparison, const struct pm_compare_style *style)
{
    struct pm_buf buf;
    struct pm_json json;
    int rc;

    pm_buf_init(&buf, PAGE_MAX);
    if (options.json) {
        pm_json_init(&json, &buf, 2);
        pm_compare_json(&json, comparison, style);
        rc = pm_json_finish(&json);
    } else {
        pm_compare_text(&buf, comparison, style);
        rc = pm_buf_status(&buf);
    }
    if (rc == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return rc != 0 ? pm_complain("cannot show the comparison, %s", pm_strerror(rc))
                   : pm_finish_stdout();
}

/* What --fail-over makes of it. */
static int verdict(const struct pm_comparison *comparison, double fail_over)
{
    if (fail_over < 0)
        return PM_EXIT_OK;
    if (pm_compare_worst(comparison) > fail_over)
        return PM_EXIT_SLOWER;
    if (!comparison->comparable) {
        pm_complain("cannot tell whether anything is slower, too little of the same work on both "
                    "sides, compare longer runs of the same load");
        return PM_EXIT_UNDECIDED;
    }
    return PM_EXIT_OK;
}

static int compare(char **names, size_t n_before, size_t n, const struct pm_compare_options *how,
                   struct pm_compare_style *style)
{
    struct pm_compare_input *input;
    struct pm_comparison comparison;
    struct pm_error err = {""};
    int rc = pm_compare_begin(&input);

    if (rc != 0)
        return pm_complain("cannot compare, %s", pm_strerror(rc));
    rc = gather(input, names, n_before, n, &err);
    if (rc == 0) {
        rc = pm_compare_end(input, how, &comparison);
        if (rc != 0)
            pm_error_set(&err, rc, "cannot compare, %s", pm_strerror(rc));
    }
    pm_compare_free(input);
    if (rc != 0)
        return pm_complain("%s", err.text);
    int code = options.html != NULL ? write_page(options.html, &comparison, style) : PM_EXIT_OK;
    if (code == PM_EXIT_OK)
        code = show(&comparison, style);
    if (code == PM_EXIT_OK)
        code = verdict(&comparison, style->fail_over);
    pm_comparison_release(&comparison);
    return code;
}

int pm_cmd_diff(int argc, char **argv)
{
    struct pm_compare_options how = PM_COMPARE_DEFAULTS;
    struct pm_compare_style style = {.fail_over = -1};
    int first, dashes;

    options = (struct diff_options){.resamples = how.resamples, .seed = (long)how.seed};
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, &dashes);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    const size_t n = (size_t)(argc - first);
    size_t n_before = (size_t)(dashes - first);
    for (int i = dashes; i < argc; i++)
        if (argv[i][0] == '-')
            return pm_misuse("diff", "%.60s comes behind `--`, give options before it", argv[i]);
    if (dashes == argc && n != 2)
        return pm_misuse("diff",
                         "%zu sessions and no `--`, put it between those before and those "
                         "after",
                         n);
    if (dashes == argc)
        n_before = 1;
    if (n_before == 0)
        return pm_misuse("diff", "there is no session before `--`, give at least one");
    if (options.fail_over != NULL && !parse_percent(options.fail_over, &style.fail_over))
        return pm_misuse("diff", "--fail-over=%.60s is no percentage, give for example 5%%",
                         options.fail_over);
    if (options.min_change != NULL && !parse_percent(options.min_change, &how.min_change))
        return pm_misuse("diff", "--min-change=%.60s is no percentage, give for example 1%%",
                         options.min_change);
    if (options.resamples < 100 || options.resamples > PM_COMPARE_RESAMPLES_MAX)
        return pm_misuse("diff", "--resamples=%ld is out of range, give 100 to %d",
                         options.resamples, PM_COMPARE_RESAMPLES_MAX);
    how.resamples = (unsigned)options.resamples;
    how.seed = (uint64_t)options.seed;
    style.colour = pm_colour(stdout);
    style.all = options.all;
    return compare(argv + first, n_before, n, &how, &style);
}
