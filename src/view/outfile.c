/*
 * Files that appear whole or not at all (see outfile.h).
 */
#include "view/outfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".pm-export-" /* then the writer's pid, a dash and the name */

/* Removes what exports that are no more have left. */
static void sweep(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;

    if (dir == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        char *end;
        if (strncmp(entry->d_name, TEMPORARY, strlen(TEMPORARY)) != 0)
            continue;
        long pid = strtol(entry->d_name + strlen(TEMPORARY), &end, 10);
        if (*end == '-' && pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            (void)unlinkat(dir_fd, entry->d_name, 0);
    }
    closedir(dir);
}

static int fail(struct pm_error *err, const char *what, const char *name)
{
    int number = errno;
    return pm_error_set(err, pm_error_from_errno(number), "%s: %s: %s", name, what,
                        strerror(number));
}

/* Makes (where needed) and opens one level; links are not followed below the folder that was asked
 * for. */
static int descend(int dir_fd, const char *name, int *ret_fd)
{
    if (mkdirat(dir_fd, name, 0755) != 0 && errno != EEXIST)
        return -1;
    *ret_fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return *ret_fd >= 0 ? 0 : -1;
}

int pm_outfile_folder(const char *base, const char *sub, int *ret_dir_fd, struct pm_error *err)
{
    if (mkdir(base, 0755) != 0 && errno != EEXIST)
        return fail(err, "the folder cannot be made", base);
    int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(err, "the folder cannot be opened", base);
    while (sub != NULL && *sub != '\0') {
        char level[64];
        size_t len = strcspn(sub, "/");
        int next = -1;
        snprintf(level, sizeof(level), "%.*s", (int)len, sub);
        int rc = descend(fd, level, &next);
        if (rc != 0)
            rc = fail(err, "the folder cannot be made", sub);
        close(fd);
        if (rc != 0)
            return rc;
        fd = next;
        sub += len + (sub[len] == '/');
    }
    sweep(fd);
    *ret_dir_fd = fd;
    return 0;
}

int pm_outfile_begin(struct pm_outfile *ret_file, int dir_fd, const char *name, uint32_t mode,
                     struct pm_error *err)
{
    struct pm_outfile file = {.dir_fd = dir_fd, .name = name};

    snprintf(file.temporary, sizeof(file.temporary), TEMPORARY "%ld-%s", (long)getpid(), name);
    (void)unlinkat(dir_fd, file.temporary, 0); /* of an older process of the same number */
    file.fd =
        openat(dir_fd, file.temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file.fd < 0)
        return fail(err, "cannot be written", name);
    (void)fchmod(file.fd, mode & 0777);
    pm_buf_init(&file.buf, 64u << 20);
    *ret_file = file;
    return 0;
}

int pm_outfile_spill_now(struct pm_outfile *file)
{
    size_t bytes = file->buf.used;
    int rc = pm_buf_flush(&file->buf, file->fd);
    if (rc == 0)
        file->written += bytes;
    return rc;
}

int pm_outfile_finish(struct pm_outfile *file, int rc, uint64_t *ret_bytes, struct pm_error *err)
{
    if (rc == 0) {
        rc = pm_outfile_spill_now(file);
        /* Network file systems tell of a full disk only here. */
        if (close(file->fd) != 0 && rc == 0)
            rc = pm_error_from_errno(errno);
        if (rc == 0 && renameat(file->dir_fd, file->temporary, file->dir_fd, file->name) != 0)
            rc = pm_error_from_errno(errno);
        if (rc != 0)
            (void)pm_error_set(err, rc, "%s: cannot be written: %s%s", file->name, pm_strerror(rc),
                               rc == -PM_ENOSPACE ? " on the disk; the file that was there stays"
                                                  : "");
        else if (ret_bytes != NULL)
            *ret_bytes = file->written;
    } else {
        close(file->fd);
    }
    if (rc != 0)
        (void)unlinkat(file->dir_fd, file->temporary, 0);
    pm_buf_release(&file->buf);
    return rc;
}
