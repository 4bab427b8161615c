/*
 * profilemate export: the formats that are one file (export_formats.h).
 */
#include "cmd/export_formats.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/amounts.h"
#include "cmd/cmd.h"
#include "cmd/complete.h"
#include "cmd/progress.h"
#include "view/chrome_trace.h"
#include "view/common.h"
#include "view/openmetrics.h"
#include "view/outfile.h"
#include "view/perfetto_torch.h"
#include "view/perfetto_trace.h"

static const struct sort {
    const char *format, *ending; /* of a file named after the session */
    bool binary;
    unsigned passes; /* how often the records are read, about */
} sorts[] = {
    {"chrome", ".trace.json", false, 12},
    {"perfetto", ".pftrace", true, 12},
    {"openmetrics", ".metrics.txt", false, 5},
};

static const struct sort *sort_of(const char *format)
{
    for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++)
        if (strcmp(sorts[i].format, format) == 0)
            return &sorts[i];
    return NULL;
}

bool pm_export_is_stream(const char *format)
{
    return sort_of(format) != NULL;
}

/* The session, and the torch trace behind it, which has been read before. */
static int write_perfetto(const struct pm_session *session, const struct pm_export_words *words,
                          FILE *out, struct pm_error *err)
{
    struct pm_torch_placed placed;
    struct pm_trace *trace = NULL;
    char lost[512];
    int rc = words->trace != NULL ? pm_trace_load(&trace, words->trace, NULL, err) : 0;
    if (rc == 0)
        rc = pm_view_perfetto(session, out, err);
    if (trace == NULL)
        return rc;
    if (rc == 0)
        rc = pm_perfetto_torch(session, trace, out, &placed, err);
    if (rc == 0 && pm_trace_loss_text(trace, lost, sizeof(lost)))
        (void)pm_complain("%.300s is not whole: %s", words->trace, lost);
    if (rc == 0 && placed.crowded > 0)
        (void)pm_complain("%llu events of %.300s overlap too many others, they are left out",
                          (unsigned long long)placed.crowded, words->trace);
    if (rc == 0 && !words->quiet) {
        fprintf(stderr, "With %llu events of ", (unsigned long long)placed.events);
        pm_print_clean(stderr, words->trace);
        fprintf(stderr, ", from %.3f s to %.3f s of the session%s\n", (double)placed.begin_ns / 1e9,
                (double)placed.end_ns / 1e9,
                placed.same_process ? ""
                                    : "; none of the session's processes wrote it, by its numbers");
    }
    pm_trace_free(trace);
    return rc;
}

static int write_to(const struct pm_session *session, const struct pm_export_words *words,
                    FILE *out, struct pm_error *err)
{
    uint64_t interval_ms = 0;
    if (strcmp(words->format, "chrome") == 0)
        return pm_view_chrome(session, out, err);
    if (strcmp(words->format, "perfetto") == 0)
        return write_perfetto(session, words, out, err);
    if (words->series == NULL)
        return pm_view_openmetrics(session, out, err);
    if (!pm_parse_duration(words->series, &interval_ms))
        return pm_error_set(err, -PM_EINVALID, "--series=%.60s is no interval", words->series);
    return pm_view_openmetrics_series(session, interval_ms * 1000000u, out, err);
}

static int write_file(const struct pm_session *session, const struct pm_export_words *words,
                      int dir_fd, const char *name, uint64_t *ret_bytes, struct pm_error *err)
{
    struct pm_outfile file;
    int rc = pm_outfile_begin(&file, dir_fd, name, pm_session_file_mode(session), err);
    if (rc != 0)
        return rc;
    const int fd = dup(file.fd);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (out != NULL) {
        rc = write_to(session, words, out, err);
        const long at = ftell(out);
        file.written = at > 0 ? (uint64_t)at : 0;
        if (fclose(out) != 0 && rc == 0)
            rc = pm_error_set(err, pm_error_from_errno(errno), "%s: cannot be written: %s", name,
                              strerror(errno));
    } else {
        rc = pm_error_set(err, pm_error_from_errno(errno), "%s: cannot be written: %s", name,
                          strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    return pm_outfile_finish(&file, rc, ret_bytes, err);
}

/* Into a folder that is there under the session's name, else under the name that was given. */
static int to_path(const struct pm_session *session, const struct pm_export_words *words,
                   const struct sort *sort, struct pm_error *err)
{
    char folder[PATH_MAX], name[320], copy[PATH_MAX];
    struct stat st;
    uint64_t bytes = 0;
    int dir_fd;

    snprintf(copy, sizeof(copy), "%s", words->out);
    if (stat(words->out, &st) == 0 && S_ISDIR(st.st_mode)) {
        snprintf(folder, sizeof(folder), "%s", words->out);
        snprintf(name, sizeof(name), "%s%s", pm_session_info(session)->name, sort->ending);
    } else {
        snprintf(name, sizeof(name), "%.250s", basename(copy));
        snprintf(copy, sizeof(copy), "%s", words->out);
        snprintf(folder, sizeof(folder), "%s", dirname(copy));
    }
    int rc = pm_outfile_folder(folder, NULL, &dir_fd, err);
    if (rc != 0)
        return rc;
    rc = write_file(session, words, dir_fd, name, &bytes, err);
    close(dir_fd);
    if (rc == 0 && !words->quiet) {
        fprintf(stderr, "Wrote %.1f MB to ", (double)bytes / 1e6);
        pm_print_clean(stderr, folder);
        fprintf(stderr, "/");
        pm_print_clean(stderr, name);
        fprintf(stderr, "%s\n",
                pm_session_is_running(session) ? ", of a server that still runs" : "");
    }
    return rc;
}

int pm_export_stream(const struct pm_session *session, const struct pm_export_words *words)
{
    const struct sort *sort = sort_of(words->format);
    struct pm_progress progress;
    struct pm_error err = {""};
    uint64_t interval_ms;
    int rc;

    if (words->series != NULL && !pm_parse_duration(words->series, &interval_ms))
        return pm_misuse("export", "--series=%.60s is no interval, give one such as 15s or 1m",
                         words->series);
    if (words->out == NULL && sort->binary && isatty(STDOUT_FILENO) == 1)
        return pm_misuse("export",
                         "--format=%s is not for a terminal, give --out FILE or redirect it",
                         words->format);
    pm_progress_begin(&progress, "export", sort->passes * pm_progress_session_bytes(session));
    if (words->out != NULL)
        rc = to_path(session, words, sort, &err);
    else
        rc = write_to(session, words, stdout, &err);
    pm_progress_end(&progress);
    if (rc != 0)
        return pm_complain("%s", err.text);
    return pm_finish_stdout();
}
