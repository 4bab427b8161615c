/*
 * The places where sessions may go, and whether one is safe to use. Called by birth_dir.c only. The
 * base of all users is made 1777, those of the user's own 0700.
 */
#include "recorder/birth_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dir.h"

/* Whether sessions are safe in a base. Somebody else who owns it may replace what is in it; so it
 * must be ours or root's, or sticky as /tmp is, or have been put by root or by us where nobody else
 * can put anything (a volume mounted into a container). */
static bool is_trusted(const struct pm_birth_base *base, const struct stat *st,
                       const struct stat *parent)
{
    uid_t us = geteuid();
    if (st->st_uid == us)
        return true;
    if (base->own)
        return false;
    return st->st_uid == 0 || (st->st_mode & S_ISVTX) != 0 ||
           ((parent->st_uid == 0 || parent->st_uid == us) && (parent->st_mode & 022) == 0);
}

/* Makes the last folder of a path; being there already is fine. */
static int make_folder(const char *path, mode_t mode)
{
    const char *name;
    int parent_fd, fd;

    int status = pm_dir_open_parent(path, &parent_fd, &name);
    if (status != 0)
        return status;
    if (mkdirat(parent_fd, name, 0700) != 0) {
        status = errno == EEXIST ? 0 : pm_error_from_errno(errno);
    } else if (mode != 0700 && pm_dir_open_child(parent_fd, name, &fd) == 0) {
        (void)fchmod(fd, mode); /* some file systems have no modes */
        close(fd);
    }
    close(parent_fd);
    return status;
}

/* The same with its parents, each 0700 where it is missing. */
static int make_folders(const char *path)
{
    char prefix[PATH_MAX];
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        int fd;
        snprintf(prefix, sizeof prefix, "%.*s", (int)(slash - path), path);
        int status = pm_dir_open(prefix, &fd, NULL);
        if (status == 0)
            close(fd);
        else if (status == -PM_ENOTFOUND)
            status = make_folder(prefix, 0700);
        if (status != 0)
            return status;
    }
    return make_folder(path, 0700);
}

void pm_birth_base_open(struct pm_birth_base *base, bool make)
{
    struct stat st, parent;
    int fd;
    base->owner = geteuid();
    base->status = pm_dir_open(base->path, &fd, &parent);
    if (base->status == -PM_ENOTFOUND && make) {
        base->status = base->own ? make_folders(base->path) : make_folder(base->path, 01777);
        if (base->status == 0)
            base->status = pm_dir_open(base->path, &fd, &parent);
    }
    if (base->status != 0)
        return;
    if (fstat(fd, &st) != 0)
        base->status = pm_error_from_errno(errno);
    else if (!is_trusted(base, &st, &parent)) {
        base->status = -PM_EPERMISSION;
        base->owner = st.st_uid;
    }
    if (base->status != 0)
        close(fd);
    else
        base->fd = fd;
}

/* Adds a base whose path fits; a relative one is made absolute, for ret_path. */
static size_t add_base(struct pm_birth_base *bases, size_t count, bool own, const char *before,
                       const char *after)
{
    struct pm_birth_base *base = &bases[count];
    char path[PATH_MAX], here[PATH_MAX] = "";
    int length = snprintf(path, sizeof path, "%s%s", before, after);
    if (length <= 0 || (size_t)length >= sizeof path)
        return count;
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    if (path[0] != '/' && getcwd(here, sizeof here) == NULL)
        return count;
    length = snprintf(base->path, sizeof base->path, "%s%s%s", here,
                      path[0] == '/' || strcmp(here, "/") == 0 ? "" : "/", path);
    if (length <= 0 || (size_t)length >= sizeof base->path)
        return count;
    base->own = own;
    base->fd = -1;
    base->status = 0;
    return count + 1;
}

size_t pm_birth_bases_list(const char *base_dir, struct pm_birth_base bases[PM_BIRTH_BASES_MAX])
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char uid[24];
    size_t count = add_base(bases, 0, false, base_dir, "");
    if (state != NULL && state[0] == '/')
        count = add_base(bases, count, true, state, "/profilemate");
    if (home != NULL && home[0] == '/')
        count = add_base(bases, count, true, home, "/.local/state/profilemate");
    if (count > 0 && strcmp(bases[0].path, "/") != 0) {
        snprintf(uid, sizeof uid, "-%u", (unsigned)geteuid());
        count = add_base(bases, count, true, bases[0].path, uid);
    }
    return count;
}
