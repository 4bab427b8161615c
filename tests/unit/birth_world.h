/*
 * A scratch world for the tests of a session's birth: a folder of its own with a home, a base and
 * a place for spools, removed afterwards; and a check that no descriptor is left open.
 */
#ifndef PM_TEST_BIRTH_WORLD_H
#define PM_TEST_BIRTH_WORLD_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "recorder/birth_internal.h"

#define STRANGER 12345u /* a user who is not us */

static char world[64];
static int world_descriptors;

/* "dir/rest" in one of a few buffers. */
static inline const char *in(const char *dir, const char *rest)
{
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    if (snprintf(path, PATH_MAX, "%s/%s", dir, rest) >= PATH_MAX)
        abort();
    return path;
}

/* A path below the scratch folder. */
static inline const char *at(const char *rest)
{
    return in(world, rest);
}

static inline int count_entries(const char *path, const char *prefix)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -1;
    int count = 0;
    for (struct dirent *item; (item = readdir(dir)) != NULL;)
        count += strncmp(item->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return count;
}

static inline bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static inline unsigned mode_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_mode & 07777u : 0xffffu;
}

static inline void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n || close(fd) != 0)
        abort();
}

static inline size_t read_file(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static const char *no_places[] = {NULL};

static inline int world_begin(void **state)
{
    (void)state;
    snprintf(world, sizeof world, "/tmp/pm_test_birth_XXXXXX");
    if (mkdtemp(world) == NULL || chmod(world, 0755) != 0 || mkdir(at("home"), 0755) != 0 ||
        mkdir(at("spot"), 0755) != 0 || chmod(at("spot"), 01777) != 0)
        return -1;
    setenv("HOME", at("home"), 1);
    unsetenv("XDG_STATE_HOME");
    pm_birth_spool_places[0] = no_places[0];
    world_descriptors = count_entries("/proc/self/fd", "");
    return 0;
}

static inline int world_end(void **state)
{
    (void)state;
    bool leaked = count_entries("/proc/self/fd", "") != world_descriptors;
    if (leaked)
        fprintf(stderr, "descriptors are left open\n");
    (void)nftw(world, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return leaked ? -1 : 0;
}

/* Runs body in a child as another user (needs root); its exit status. */
static inline int as_user(unsigned uid, int (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        if (setgid(uid) != 0 || setuid(uid) != 0)
            _exit(99);
        _exit(body());
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

#endif
