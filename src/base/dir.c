/*
 * Folders in shared places (see dir.h). Pure, any thread, no state.
 */
#include "base/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define LINKS_MAX 16
#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define NAME_BYTES 256

static int last_error(void)
{
    return pm_error_from_errno(errno);
}

/* ---- random bytes ---- */

/* One step of splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void pm_dir_random(void *out, size_t n)
{
    static _Atomic uint64_t calls;
    if (n <= 256 && getrandom(out, n, GRND_NONBLOCK) == (ssize_t)n)
        return;
    struct timespec mono, real;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_REALTIME, &real);
    uint64_t state = (uint64_t)mono.tv_nsec << 32 ^ (uint64_t)mono.tv_sec;
    state ^= mix(&state) + (uint64_t)real.tv_nsec;
    state ^= mix(&state) + (uint64_t)real.tv_sec;
    state ^= mix(&state) + (uint64_t)getpid();
    state ^= mix(&state) + (uint64_t)(uintptr_t)out;
    state ^= mix(&state) + atomic_fetch_add(&calls, 1);
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)out)[i] = (unsigned char)(mix(&state) >> 24);
}

void pm_dir_temporary_name(const char *name, char *out, size_t size)
{
    uint32_t number;
    pm_dir_random(&number, sizeof number);
    snprintf(out, size, ".%.200s.%ld.%08x", name, (long)getpid(), number);
}

/* ---- opening ---- */

/* A walk in progress: where it stands, and what is left to walk. */
struct walk {
    int fd;              /* the folder reached, O_PATH or a real descriptor */
    char rest[PATH_MAX]; /* not NUL-terminated path left */
    int links;           /* followed so far */
};

static void walk_move(struct walk *walk, int fd)
{
    if (walk->fd >= 0)
        close(walk->fd);
    walk->fd = fd;
}

/* Puts path before what is left of the walk, separated by a slash. */
static int walk_prepend(struct walk *walk, const char *path)
{
    size_t before = strlen(path), after = strlen(walk->rest);
    if (before + 1 + after + 1 > sizeof walk->rest)
        return -PM_EINVALID;
    memmove(walk->rest + before + 1, walk->rest, after + 1);
    memcpy(walk->rest, path, before);
    walk->rest[before] = '/';
    return 0;
}

/* From the root for an absolute path, else from where the walk (or the process) is. */
static int walk_start(struct walk *walk)
{
    if (walk->rest[0] != '/' && walk->fd >= 0)
        return 0;
    int fd = open(walk->rest[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return last_error();
    walk_move(walk, fd);
    return 0;
}

/* Cuts the next component off; false at the end of the path. */
static bool walk_take(struct walk *walk, char name[static NAME_MAX + 1], int *ret_error)
{
    size_t skip = strspn(walk->rest, "/");
    size_t bytes = strcspn(walk->rest + skip, "/");
    *ret_error = 0;
    if (bytes == 0)
        return false;
    if (bytes > NAME_MAX) {
        *ret_error = -PM_EINVALID;
        return false;
    }
    memcpy(name, walk->rest + skip, bytes);
    name[bytes] = '\0';
    memmove(walk->rest, walk->rest + skip + bytes, strlen(walk->rest + skip + bytes) + 1);
    return true;
}

/* Goes into one component: a folder, or a link that this user or root made. */
static int walk_step(struct walk *walk, const char *name)
{
    struct stat st;
    char target[PATH_MAX];
    int fd = openat(walk->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return last_error();
    if (fstat(fd, &st) != 0) {
        int status = last_error();
        close(fd);
        return status;
    }
    if (S_ISDIR(st.st_mode)) {
        walk_move(walk, fd);
        return 0;
    }
    if (!S_ISLNK(st.st_mode)) {
        close(fd);
        return -PM_ENOTFOUND;
    }
    ssize_t bytes = readlinkat(fd, "", target, sizeof target - 1);
    int status = bytes < 0 ? last_error() : 0;
    close(fd);
    if (status != 0)
        return status;
    target[bytes] = '\0';
    if ((st.st_uid != 0 && st.st_uid != geteuid()) || ++walk->links > LINKS_MAX)
        return -PM_EPERMISSION;
    status = walk_prepend(walk, target);
    return status != 0 ? status : walk_start(walk);
}

int pm_dir_open(const char *path, int *ret_fd, struct stat *ret_parent)
{
    struct walk walk = {.fd = -1};
    char name[NAME_MAX + 1];
    int status, fd;

    if (*path == '\0')
        return -PM_ENOTFOUND;
    if (strlen(path) >= sizeof walk.rest)
        return -PM_EINVALID;
    memcpy(walk.rest, path, strlen(path) + 1);
    status = walk_start(&walk);
    if (status != 0)
        return status;
    struct stat parent;
    if (fstat(walk.fd, &parent) != 0) {
        status = last_error();
        goto out;
    }
    while (walk_take(&walk, name, &status)) {
        if (fstat(walk.fd, &parent) != 0) {
            status = last_error();
            goto out;
        }
        status = walk_step(&walk, name);
        if (status != 0)
            goto out;
    }
    if (status != 0)
        goto out;
    fd = openat(walk.fd, ".", DIR_FLAGS);
    if (fd < 0) {
        status = last_error();
        goto out;
    }
    if (ret_parent != NULL)
        *ret_parent = parent;
    *ret_fd = fd;
out:
    walk_move(&walk, -1);
    return status;
}

int pm_dir_open_parent(const char *path, int *ret_fd, const char **ret_name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    size_t bytes = slash == NULL ? 0 : (size_t)(slash - path);
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        bytes >= sizeof parent)
        return -PM_EINVALID;
    if (slash == NULL) {
        memcpy(parent, ".", 2);
    } else if (bytes == 0) {
        memcpy(parent, "/", 2);
    } else {
        memcpy(parent, path, bytes);
        parent[bytes] = '\0';
    }
    int status = pm_dir_open(parent, ret_fd, NULL);
    if (status == 0)
        *ret_name = name;
    return status;
}

int pm_dir_open_child(int dir_fd, const char *name, int *ret_fd)
{
    int fd = openat(dir_fd, name, DIR_FLAGS);
    if (fd < 0)
        return last_error();
    *ret_fd = fd;
    return 0;
}

/* ---- files ---- */

int pm_dir_write_all(int fd, const void *bytes, size_t n)
{
    const char *at = bytes;
    while (n > 0) {
        ssize_t written = write(fd, at, n);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            return last_error();
        }
        at += written;
        n -= (size_t)written;
    }
    return 0;
}

int pm_dir_create_file(int dir_fd, const char *name, const void *bytes, size_t n, uint32_t mode)
{
    int fd =
        openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0600);
    if (fd < 0)
        return last_error();
    int status = pm_dir_write_all(fd, bytes, n);
    if (status == 0 && fchmod(fd, mode) != 0)
        status = last_error();
    if (close(fd) != 0 && status == 0)
        status = last_error();
    if (status != 0)
        (void)unlinkat(dir_fd, name, 0);
    return status;
}

int pm_dir_replace_file(int dir_fd, const char *name, const void *bytes, size_t n, uint32_t mode)
{
    char temporary[NAME_BYTES];
    pm_dir_temporary_name(name, temporary, sizeof temporary);
    int status = pm_dir_create_file(dir_fd, temporary, bytes, n, mode);
    if (status != 0)
        return status;
    if (renameat(dir_fd, temporary, dir_fd, name) != 0) {
        status = last_error();
        (void)unlinkat(dir_fd, temporary, 0);
    }
    return status;
}

int pm_dir_read_file(int dir_fd, const char *name, char *out, size_t size, size_t *ret_bytes)
{
    struct stat st;
    size_t used = 0;
    int status = 0;
    /* O_NONBLOCK: somebody's FIFO must not hold the process up */
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return last_error();
    if (fstat(fd, &st) != 0)
        status = last_error();
    else if (!S_ISREG(st.st_mode))
        status = -PM_EFORMAT;
    while (status == 0) {
        ssize_t n = read(fd, out + used, size - used);
        if (n > 0)
            used += (size_t)n;
        else if (n == 0)
            break;
        else if (errno != EINTR)
            status = last_error();
        if (used == size)
            status = -PM_ELIMIT;
    }
    close(fd);
    if (status != 0)
        return status;
    out[used] = '\0';
    if (ret_bytes != NULL)
        *ret_bytes = used;
    return 0;
}
