/*
 * Tables beside the record file (see table.h). Owns nothing: mapping and descriptor are the
 * caller's, and the kernel's at the process's end.
 */
#include "recorder/table.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recorder/internal.h"

/* The record file's path with the other suffix. The recorder keeps its descriptor only. */
static int name_of(const struct pm_recorder *rec, const char *suffix, char *out, size_t size)
{
    static const char own[] = ".pmrec";
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", rec->fd);
    ssize_t length = readlink(link, out, size - 1);
    if (length < 0)
        return pm_error_from_errno(errno);
    out[length] = '\0';
    const size_t stem = (size_t)length < sizeof own ? 0 : (size_t)length - (sizeof own - 1);
    if (stem == 0 || strcmp(out + stem, own) != 0) /* " (deleted)" */
        return -PM_ENOTFOUND;
    if (stem + strlen(suffix) >= size)
        return -PM_ELIMIT;
    memcpy(out + stem, suffix, strlen(suffix) + 1);
    return 0;
}

static int open_new(const char *path, mode_t mode)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    int kept = pm_rec_above_standard(fd);
    if (kept < 0 && fd >= 0) { /* no descriptor left for it: nothing stays behind */
        int errnum = errno;
        (void)unlink(path);
        errno = errnum;
    }
    return kept;
}

int pm_table_make(struct pm_table *ret_table, struct pm_recorder *rec, const char *suffix,
                  size_t bytes, struct pm_error *err)
{
    char path[PATH_MAX];
    struct stat st;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    void *base;
    int fd, code;

    if (pm_rec_mute(rec) || fstat(rec->fd, &st) != 0)
        return pm_error_set(err, -PM_ENOTFOUND, "there is no record file");
    code = name_of(rec, suffix, path, sizeof path);
    if (code != 0)
        return pm_error_set(err, code, "the record file is not there any more");
    code = pm_rec_budget_claim(rec, bytes, false);
    if (code != 0)
        return pm_error_set(err, code,
                            "%zu KiB do not fit below the session's ceiling (MAX_MB), "
                            "or the disk is nearly full",
                            bytes >> 10);
    fd = open_new(path, st.st_mode & 0777u);
    if (fd < 0) {
        code = pm_error_from_errno(errno);
        pm_error_set(err, code, "%s: cannot be made: %s", path, strerror(errno));
        goto out_budget;
    }
    (void)fchmod(fd, st.st_mode & 0777u);
    if (fcntl(fd, F_SETLK, &lock) != 0) {
        code = pm_error_from_errno(errno);
        pm_error_set(err, code, "%s: cannot be locked: %s", path, strerror(errno));
        goto out_file;
    }
    code = pm_rec_file_extend(fd, 0, bytes);
    if (code != 0) {
        pm_error_set(err, code, "%s: no room: %s", path, pm_strerror(code));
        goto out_file;
    }
    base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        code = pm_error_from_errno(errno);
        pm_error_set(err, code, "%s: cannot be mapped: %s", path, strerror(errno));
        goto out_file;
    }
    *ret_table = (struct pm_table){.base = base, .bytes = bytes, .fd = fd};
    return 0;

out_file:
    (void)unlink(path);
    close(fd);
out_budget:
    pm_rec_budget_return(rec, bytes);
    return code;
}

void pm_table_forget(struct pm_table *table)
{
    if (table->base == NULL)
        return;
    (void)munmap(table->base, table->bytes);
    (void)close(table->fd); /* locks are not inherited: the parent keeps its own */
    *table = (struct pm_table){.fd = -1};
}
