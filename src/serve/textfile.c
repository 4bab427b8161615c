/* Metrics in a file for node_exporter's textfile collector (metrics.h). */
#include "serve/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODE 0644 /* node_exporter runs as a user of its own */

static int fail(struct pm_error *err, const char *path)
{
    const int number = errno;
    return pm_error_set(err, pm_error_from_errno(number), "%s: cannot be written, %s", path,
                        strerror(number));
}

/* Puts the bytes into a new file, and that in the place of the old one. */
static int put(struct pm_buf *buf, const char *temporary, const char *path, struct pm_error *err)
{
    (void)unlink(temporary); /* of an older process of the same number */
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(err, path);
    (void)fchmod(fd, MODE);
    int rc = pm_buf_flush(buf, fd);
    if (close(fd) != 0 && rc == 0) /* network file systems tell of a full disk only here */
        rc = pm_error_from_errno(errno);
    if (rc != 0)
        rc = pm_error_set(err, rc, "%s: cannot be written, %s", path, pm_strerror(rc));
    else if (rename(temporary, path) != 0)
        rc = fail(err, path);
    if (rc != 0)
        (void)unlink(temporary);
    return rc;
}

int pm_serve_textfile(const struct pm_serve *serve, const char *path, struct pm_error *err)
{
    struct pm_buf buf;
    char temporary[PATH_MAX];

    /* Beside the file, so that one rename puts it in its place; its end is not .prom, which the
     * collector would read while it is half there. */
    if (snprintf(temporary, sizeof(temporary), "%s.%ld.tmp", path, (long)getpid()) >=
        (int)sizeof(temporary))
        return pm_error_set(err, -PM_EINVALID, "%.100s…: the name is too long", path);
    pm_buf_init(&buf, PM_SERVE_BODY_MAX);
    int rc = pm_serve_metrics(serve, PM_FORMAT_TEXT, &buf);
    if (rc == 0)
        rc = put(&buf, temporary, path, err);
    else
        rc = pm_error_set(err, rc, "%s: cannot be written, %s", path, pm_strerror(rc));
    pm_buf_release(&buf);
    return rc;
}
