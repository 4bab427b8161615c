/* See request_log.h. Owns the open files and the lines that wait. */
#include "cmd/request_log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cmd/output_dir.h"
#include "view/request_line.h"

#define FILES_MAX 64 /* tasks with a file of their own; further ones share "other" */
#define WAITING_MAX (8u << 20)
#define FLUSH_BYTES (256u << 10) /* of one task: written without waiting for the next flush */

struct file {
    char task[PM_TASK_MAX];
    int fd; /* -1: not open */
    uint64_t bytes;
    struct pm_buf waiting; /* whole lines */
    uint64_t lines;        /* in it */
};

struct pm_request_log {
    struct pm_request_log_options options;
    char dir[PATH_MAX], task[PM_TASK_MAX];
    struct file files[FILES_MAX + 1];
    size_t n_files;
    uint64_t lines, lost;
    int status; /* of the first failure since it was told */
    struct pm_error err;
};

static bool is_file_name(const char *task)
{
    size_t bytes = strlen(task);
    return bytes > 0 && bytes < PM_TASK_MAX && task[0] != '.' &&
           strspn(task, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
               bytes;
}

int pm_request_log_open(struct pm_request_log **ret_log,
                        const struct pm_request_log_options *options, struct pm_error *err)
{
    if (options->task != NULL && !is_file_name(options->task))
        return pm_error_set(err, -PM_EINVALID,
                            "--task=%.80s cannot name a file, give letters, digits, - _ and .",
                            options->task);
    struct pm_request_log *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return pm_error_set(err, -PM_ENOMEM, "out of memory");
    log->options = *options;
    snprintf(log->task, sizeof(log->task), "%s", options->task != NULL ? options->task : "");
    int status = pm_output_dir(options->dir, log->dir, err);
    if (status != 0) {
        free(log);
        return status;
    }
    *ret_log = log;
    return 0;
}

static void fail(struct pm_request_log *log, const char *what, const char *task)
{
    if (log->status == 0)
        log->status = pm_error_set(&log->err, -PM_EIO, "%s %.300s/%s.jsonl: %s", what, log->dir,
                                   task, strerror(errno));
}

static struct file *file_of(struct pm_request_log *log, const char *task)
{
    for (size_t i = 0; i < log->n_files; i++)
        if (strcmp(log->files[i].task, task) == 0)
            return &log->files[i];
    if (log->n_files >= FILES_MAX && strcmp(task, "other") != 0)
        return file_of(log, "other");
    struct file *file = &log->files[log->n_files++];
    snprintf(file->task, sizeof(file->task), "%s", task);
    file->fd = -1;
    pm_buf_init(&file->waiting, WAITING_MAX);
    return file;
}

/* <dir>/<task>.jsonl, or <task>.<n>.jsonl. */
static void path_of(const struct pm_request_log *log, const struct file *file, unsigned n,
                    char out[PATH_MAX])
{
    char number[16] = "";
    if (n > 0)
        snprintf(number, sizeof(number), ".%u", n);
    if (snprintf(out, PATH_MAX, "%s/%s%s.jsonl", log->dir, file->task, number) >= PATH_MAX)
        out[0] = '\0';
}

static bool open_file(struct pm_request_log *log, struct file *file)
{
    char path[PATH_MAX];
    struct stat st;
    if (file->fd >= 0)
        return true;
    path_of(log, file, 0, path);
    file->fd =
        open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, log->options.mode);
    if (file->fd < 0 || fstat(file->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        fail(log, "cannot write the request log", file->task);
        if (file->fd >= 0)
            close(file->fd);
        file->fd = -1;
        return false;
    }
    file->bytes = (uint64_t)st.st_size;
    return true;
}

/* The file's lines become older by one file; the oldest go. */
static void rotate(struct pm_request_log *log, struct file *file)
{
    char from[PATH_MAX], to[PATH_MAX];
    close(file->fd);
    file->fd = -1;
    for (unsigned n = log->options.keep; n > 0; n--) {
        path_of(log, file, n - 1, from);
        path_of(log, file, n, to);
        if (rename(from, to) != 0 && errno != ENOENT)
            fail(log, "cannot rotate the request log", file->task);
    }
    if (log->options.keep == 0) {
        path_of(log, file, 0, from);
        (void)unlink(from);
    }
}

/* Writes what waits for a file, a line never cut over two files. */
static void write_file(struct pm_request_log *log, struct file *file)
{
    if (file->lines == 0 || !open_file(log, file))
        return;
    if (file->bytes > 0 && file->bytes + file->waiting.used > log->options.limit_bytes) {
        rotate(log, file);
        if (!open_file(log, file))
            return;
    }
    size_t bytes = file->waiting.used;
    int status = pm_buf_flush(&file->waiting, file->fd);
    file->bytes += bytes - file->waiting.used;
    if (status != 0) {
        /* What did arrive ends in the middle of a line, perhaps: the rest follows. */
        fail(log, "cannot write the request log", file->task);
        return;
    }
    log->lines += file->lines;
    file->lines = 0;
}

void pm_request_log_add(const struct pm_session *session, unsigned engine,
                        const struct pm_request *request, void *arg)
{
    struct pm_request_log *log = arg;
    char task[PM_TASK_MAX];
    if (log->task[0] != '\0')
        memcpy(task, log->task, sizeof(task));
    else
        pm_request_task(request->id, task);
    struct file *file = file_of(log, task);
    size_t before = file->waiting.used;
    if (pm_view_request_line(&file->waiting, session, engine, request, task) != 0) {
        /* The disk has been full for long: the new line is the one that goes. */
        file->waiting.used = before;
        file->waiting.status = 0;
        log->lost++;
        return;
    }
    file->lines++;
    if (file->waiting.used >= FLUSH_BYTES || file->waiting.used >= log->options.limit_bytes)
        write_file(log, file);
}

int pm_request_log_flush(struct pm_request_log *log, struct pm_error *err)
{
    for (size_t i = 0; i < log->n_files; i++)
        write_file(log, &log->files[i]);
    int status = log->status;
    if (status != 0 && err != NULL)
        *err = log->err;
    log->status = 0;
    return status;
}

int pm_request_log_close(struct pm_request_log *log, uint64_t *ret_lines, uint64_t *ret_lost,
                         struct pm_error *err)
{
    int status = pm_request_log_flush(log, err);
    *ret_lines = log->lines;
    *ret_lost = log->lost;
    for (size_t i = 0; i < log->n_files; i++) {
        *ret_lost += log->files[i].lines;
        if (log->files[i].fd >= 0)
            close(log->files[i].fd);
        pm_buf_release(&log->files[i].waiting);
    }
    free(log);
    return status;
}
