/*
 * One process's record file: made, locked, its header mapped, its end moved. pm_recorder_open calls
 * it on the caller's thread, and the helper side extends the file.
 *
 * The file's one descriptor holds a POSIX lock on byte 0 for as long as the process lives; closing
 * any other descriptor of the same file in this process would drop it, so there is none. The lock
 * is not inherited by fork(), and the kernel drops it however the process ends: unlocked means
 * dead.
 *
 * Limits: if someone cuts the file short while the process runs, its next store there fails with
 * SIGBUS. The file is 0600 in a directory of 0700, so this takes the same user; removing the file
 * or the directory is harmless.
 */
#include "recorder/internal.h"

#include "recorder/birth.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef BTRFS_SUPER_MAGIC
#define BTRFS_SUPER_MAGIC 0x9123683E
#endif

/* Zeros written, where the file system cannot allocate. Only ever beyond what is in use. */
static int write_zeros(int fd, uint64_t from, uint64_t bytes)
{
    static const unsigned char zeros[65536];
    while (bytes > 0) {
        size_t n = bytes < sizeof zeros ? (size_t)bytes : sizeof zeros;
        ssize_t written = pwrite(fd, zeros, n, (off_t)from);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return errno;
        if (written == 0)
            return ENOSPC;
        from += (uint64_t)written;
        bytes -= (uint64_t)written;
    }
    return 0;
}

static int allocate(int fd, uint64_t from, uint64_t bytes)
{
    for (int tries = 0; tries < 16; tries++) {
        if (fallocate(fd, 0, (off_t)from, (off_t)bytes) == 0)
            return 0;
        if (errno == EOPNOTSUPP || errno == ENOSYS)
            return write_zeros(fd, from, bytes);
        if (errno != EINTR)
            return errno;
    }
    /* A process whose timers interrupt every try. */
    return write_zeros(fd, from, bytes);
}

int pm_rec_file_extend(int fd, uint64_t from, uint64_t bytes)
{
    /* Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ to this thread, which would end the process:
     * held back for the while, and taken off again if it came. */
    sigset_t xfsz, old, pending;
    sigemptyset(&xfsz);
    sigaddset(&xfsz, SIGXFSZ);
    sigemptyset(&pending);
    sigpending(&pending);
    if (pthread_sigmask(SIG_BLOCK, &xfsz, &old) != 0)
        return -PM_EIO;
    int errnum = allocate(fd, from, bytes);
    if (errnum == EFBIG && !sigismember(&pending, SIGXFSZ)) {
        struct timespec none = {0};
        while (sigtimedwait(&xfsz, NULL, &none) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return errnum == 0 ? 0 : pm_error_from_errno(errnum);
}

bool pm_rec_file_ours(const struct pm_recorder *rec)
{
    struct stat st;
    return rec->fd >= 0 && fstat(rec->fd, &st) == 0 && st.st_dev == rec->dev &&
           st.st_ino == rec->ino;
}

bool pm_rec_file_sound(const struct pm_recorder *rec)
{
    struct stat st;
    return fstat(rec->fd, &st) == 0 && st.st_dev == rec->dev && st.st_ino == rec->ino &&
           st.st_nlink > 0 && (uint64_t)st.st_size >= rec->file_bytes;
}

/* Field 22 of /proc/self/stat, and the name between its parentheses. */
static uint64_t read_self(char *ret_comm, size_t size)
{
    char text[1024];
    memset(ret_comm, 0, size);
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    char *open_paren = strchr(text, '('), *close_paren = strrchr(text, ')');
    if (open_paren == NULL || close_paren == NULL || close_paren < open_paren)
        return 0;
    size_t name = (size_t)(close_paren - open_paren - 1);
    memcpy(ret_comm, open_paren + 1, name < size - 1 ? name : size - 1);
    char *field = close_paren + 1; /* a space and field 3 follow */
    for (int skip = 3; skip < 22 && field != NULL; skip++)
        field = strchr(field + 1, ' ');
    return field == NULL ? 0 : strtoull(field, NULL, 10);
}

static uint32_t random_name(unsigned attempt)
{
    uint32_t number;
    if (getrandom(&number, sizeof number, GRND_NONBLOCK) == (ssize_t)sizeof number)
        return number;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint32_t)ts.tv_nsec * 2654435761u + attempt;
}

int pm_rec_above_standard(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int errnum = errno;
    close(fd);
    errno = errnum;
    return moved;
}

static int make_file(int dir_fd, uint32_t mode, char *ret_name, size_t size)
{
    for (unsigned attempt = 0; attempt < 16; attempt++) {
        snprintf(ret_name, size, "p%u-%08x.pmrec", (unsigned)getpid(), random_name(attempt));
        int fd = openat(dir_fd, ret_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        (mode_t)(mode & 0777u));
        if (fd < 0 && errno == EEXIST)
            continue;
        int kept = pm_rec_above_standard(fd);
        if (kept < 0 && fd >= 0) { /* no descriptor left for it: nothing stays behind */
            int errnum = errno;
            (void)unlinkat(dir_fd, ret_name, 0);
            errno = errnum;
        }
        return kept;
    }
    return -1;
}

static void fill_head(struct pm_recorder *rec, const struct pm_recorder_options *options)
{
    struct pm_file_head *head = rec->head;
    head->version = PM_FORMAT_VERSION;
    head->header_bytes = (uint32_t)rec->header_bytes;
    head->segment_bytes = (uint32_t)rec->segment_bytes;
    head->live_offset = (uint32_t)rec->live_offset;
    head->live_bytes = (uint32_t)rec->live_bytes;
    head->pid = (uint32_t)getpid();
    head->ppid = (uint32_t)getppid();
    head->uid = (uint32_t)getuid();
    memcpy(head->token, options->token, PM_TOKEN_BYTES);
    head->process_start_ticks = read_self(head->comm, sizeof head->comm);
    head->opened = pm_rec_triple();
    atomic_store_explicit(&head->engine, -1, memory_order_relaxed);
    atomic_store_explicit(&head->rank, -1, memory_order_relaxed);
    atomic_store_explicit(&head->live_index, 2, memory_order_relaxed);
    /* A reader that sees the magic sees all of the above. */
    __atomic_store_n(&head->magic, PM_FILE_MAGIC, __ATOMIC_RELEASE);
}

int pm_rec_file_create(struct pm_recorder *rec, const struct pm_recorder_options *options,
                       struct pm_error *err)
{
    int code, records_fd = -1, nocow = FS_NOCOW_FL;
    char name[64], folder[4096];
    struct stat st;
    struct statfs fs;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    void *head;

    /* A session on a network file system has its records in a local spool. */
    if (pm_birth_records_dir(options->session_dir, folder, sizeof folder) != 0)
        snprintf(folder, sizeof folder, "%s/records", options->session_dir);
    records_fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (records_fd < 0) {
        code = pm_error_from_errno(errno);
        return pm_error_set(err, code, "%s: cannot be opened: %s", folder, strerror(errno));
    }
    rec->fd = make_file(records_fd, options->file_mode, name, sizeof name);
    if (rec->fd < 0) {
        code = pm_error_from_errno(errno);
        pm_error_set(err, code, "%s: no file can be made there: %s", folder, strerror(errno));
        goto out_records;
    }
    (void)fchmod(rec->fd, (mode_t)(options->file_mode & 0777u)); /* whatever the umask is */

    if (fstat(rec->fd, &st) != 0 || fcntl(rec->fd, F_SETLK, &lock) != 0) {
        code = pm_error_from_errno(errno);
        pm_error_set(err, code, "%s/%s: cannot be locked: %s", folder, name, strerror(errno));
        goto out_file;
    }
    rec->dev = st.st_dev;
    rec->ino = st.st_ino;

    /* Copy-on-write would need new blocks for each store, which may then fail with SIGBUS. */
    if (fstatfs(rec->fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC)
        (void)ioctl(rec->fd, FS_IOC_SETFLAGS, &nocow);

    code = pm_rec_file_extend(rec->fd, 0, rec->header_bytes);
    if (code != 0) {
        pm_error_set(err, code, "%s/%s: no room for the header: %s", folder, name,
                     pm_strerror(code));
        goto out_file;
    }
    head = mmap(NULL, rec->header_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, rec->fd, 0);
    if (head == MAP_FAILED) {
        code = pm_error_from_errno(errno);
        pm_error_set(err, code, "%s/%s: cannot be mapped: %s", folder, name, strerror(errno));
        goto out_file;
    }
    (void)madvise(head, rec->header_bytes, MADV_DONTFORK);
    rec->head = head;
    rec->file_bytes = rec->header_bytes;
    fill_head(rec, options);
    pm_rec_budget_open(rec, records_fd);
    close(records_fd);
    return 0;

out_file:
    unlinkat(records_fd, name, 0);
    close(rec->fd);
    rec->fd = -1;
out_records:
    close(records_fd);
    return code;
}
