/*
 * A session's directory: found by its token or made, in the first base that will have it. Called
 * once per process, when the first fact comes, on the thread that brings it; it may wait for the
 * disk. Several processes of one server, and several servers, do this at once in one base that
 * belongs to all users:
 *
 *   - nothing is opened through a link that somebody else made, and everything below the base is
 *     reached through descriptors, not through paths;
 *   - a directory is built under a hidden name and appears by one rename(), which fails if the name
 *     is taken: then whoever took it is looked at again, and joined if its token is ours;
 *   - the names name, name_2, name_3 … are tried in that order and each that is there is looked
 *     into, so two processes with one token cannot end in two of them.
 */
#include "recorder/birth_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/dir.h"

#define NAMES_MAX 1000u /* name … name_1000 */
#define RENAMES_MAX 64  /* conflicts that are borne */
#define STALE_SECONDS 3600
#define ENTRY_BYTES 96 /* of a directory's own name */

/* ---- looking ---- */

/* What a name in a base is to us. */
enum look { LOOK_FREE, LOOK_OTHER, LOOK_OURS };

static enum look look_into(int base_fd, const char *name, const struct pm_birth *birth,
                           struct pm_birth_file *ret_file)
{
    struct stat st;
    int fd, tries = 0;
    while (pm_dir_open_child(base_fd, name, &fd) != 0) {
        if (fstatat(base_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            return errno == ENOENT ? LOOK_FREE : LOOK_OTHER;
        /* a folder that cannot be opened is another's, or came between the two calls: ours, maybe
         */
        if (!S_ISDIR(st.st_mode) || ++tries == 10)
            return LOOK_OTHER;
    }
    bool ours = fstat(fd, &st) == 0 && pm_birth_is_own(fd, &st) &&
                pm_birth_read_at(fd, ret_file) == 0 &&
                memcmp(ret_file->birth.token, birth->token, PM_TOKEN_BYTES) == 0;
    close(fd);
    return ours ? LOOK_OURS : LOOK_OTHER;
}

/* Whether entry is name or name_<number>. */
static bool is_numbered(const char *entry, const char *name)
{
    size_t bytes = strlen(name);
    if (strncmp(entry, name, bytes) != 0)
        return false;
    if (entry[bytes] == '\0')
        return true;
    const char *digits = entry + bytes + 1;
    size_t count = strlen(digits);
    return entry[bytes] == '_' && count >= 1 && count <= 4 && strspn(digits, "0123456789") == count;
}

/* Takes away what a maker left: the four things it makes, nothing else. */
static void remove_unfinished(int base_fd, const char *name)
{
    int fd, records_fd;
    if (pm_dir_open_child(base_fd, name, &fd) != 0)
        return;
    if (pm_dir_open_child(fd, PM_BIRTH_RECORDS, &records_fd) == 0) {
        (void)unlinkat(records_fd, PM_BIRTH_BUDGET, 0);
        close(records_fd);
    }
    (void)unlinkat(fd, PM_BIRTH_RECORDS, AT_REMOVEDIR);
    (void)unlinkat(fd, PM_BIRTH_FILE, 0);
    close(fd);
    (void)unlinkat(base_fd, name, AT_REMOVEDIR);
}

/* A maker that was killed an hour ago or more leaves its hidden folder. */
static void remove_if_stale(int base_fd, const char *name)
{
    struct stat st;
    if (fstatat(base_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
        st.st_uid == geteuid() && st.st_mtime < time(NULL) - STALE_SECONDS)
        remove_unfinished(base_fd, name);
}

/* Looks through a whole base for the session's directory. 0, -PM_ENOTFOUND, or what went wrong. */
static int find(int base_fd, const struct pm_birth *birth, char entry[ENTRY_BYTES],
                struct pm_birth_file *ret_file)
{
    int status = -PM_ENOTFOUND;
    int fd = openat(base_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return pm_error_from_errno(errno);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        status = pm_error_from_errno(errno);
        close(fd);
        return status;
    }
    for (struct dirent *item; status != 0 && (item = readdir(dir)) != NULL;) {
        if (strncmp(item->d_name, ".session_", 9) == 0)
            remove_if_stale(base_fd, item->d_name);
        if (!is_numbered(item->d_name, birth->name) ||
            look_into(base_fd, item->d_name, birth, ret_file) != LOOK_OURS)
            continue;
        snprintf(entry, ENTRY_BYTES, "%.*s", ENTRY_BYTES - 1, item->d_name);
        status = 0;
    }
    closedir(dir);
    return status;
}

/* ---- making ---- */

/* The mode of folders for a mode of files: who may read may also enter. */
static mode_t folder_mode(uint32_t file_mode)
{
    return (mode_t)(0700u | ((file_mode & 040u) != 0 ? 050u : 0u) |
                    ((file_mode & 04u) != 0 ? 05u : 0u));
}

static int make_records(int session_fd, uint32_t file_mode)
{
    int fd;
    if (mkdirat(session_fd, PM_BIRTH_RECORDS, 0700) != 0)
        return pm_error_from_errno(errno);
    int status = pm_dir_open_child(session_fd, PM_BIRTH_RECORDS, &fd);
    if (status != 0)
        return status;
    status = pm_birth_make_budget(fd, file_mode);
    if (status == 0 && folder_mode(file_mode) != 0700)
        (void)fchmod(fd, folder_mode(file_mode));
    close(fd);
    return status;
}

/* Fills the hidden folder. */
static int fill(int session_fd, const struct pm_birth *birth)
{
    char text[PM_BIRTH_TEXT_MAX], spool[PATH_MAX] = "";
    /* no local place for a spool: better to record on the network than not at all */
    if (pm_birth_is_remote(session_fd) && pm_birth_spool_make(birth, spool, sizeof spool) != 0)
        spool[0] = '\0';
    int status = make_records(session_fd, birth->file_mode);
    if (status != 0)
        return status;
    size_t bytes = pm_birth_file_text(birth, spool, text);
    status = pm_dir_create_file(session_fd, PM_BIRTH_FILE, text, bytes, birth->file_mode);
    if (status == 0 && folder_mode(birth->file_mode) != 0700)
        (void)fchmod(session_fd, folder_mode(birth->file_mode));
    return status;
}

/* Gives the hidden folder the first name that is free; *ret_made is false where one of the names
 * turns out to be the session already. */
static int settle(int base_fd, const char *hidden, const struct pm_birth *birth,
                  char entry[ENTRY_BYTES], struct pm_birth_file *ret_file, bool *ret_made)
{
    unsigned conflicts = 0;
    for (unsigned n = 1; n <= NAMES_MAX;) {
        if (n == 1)
            snprintf(entry, ENTRY_BYTES, "%s", birth->name);
        else
            snprintf(entry, ENTRY_BYTES, "%s_%u", birth->name, n);
        switch (look_into(base_fd, entry, birth, ret_file)) {
        case LOOK_OURS:
            *ret_made = false;
            return 0;
        case LOOK_OTHER:
            n++;
            continue;
        case LOOK_FREE:
            break;
        }
        if (renameat(base_fd, hidden, base_fd, entry) == 0) {
            *ret_made = true;
            return 0;
        }
        if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
            return pm_error_from_errno(errno);
        if (++conflicts > RENAMES_MAX)
            return -PM_EEXISTS;
    }
    return -PM_EEXISTS;
}

static int make(int base_fd, const struct pm_birth *birth, char entry[ENTRY_BYTES],
                struct pm_birth_file *ret_file, bool *ret_made)
{
    char hidden[ENTRY_BYTES];
    struct stat st;
    int fd;
    bool made = false;

    pm_dir_temporary_name(birth->name, hidden, sizeof hidden);
    if (mkdirat(base_fd, hidden, 0700) != 0)
        return pm_error_from_errno(errno);
    int status = pm_dir_open_child(base_fd, hidden, &fd);
    if (status != 0)
        goto remove;
    if (fstat(fd, &st) != 0 || !pm_birth_is_own(fd, &st))
        status = -PM_EPERMISSION; /* somebody put another one in its place */
    if (status == 0)
        status = fill(fd, birth);
    close(fd);
    if (status == 0)
        status = settle(base_fd, hidden, birth, entry, ret_file, &made);
remove:
    if (!made)
        remove_unfinished(base_fd, hidden);
    *ret_made = made;
    return status;
}

/* ---- all together ---- */

static int explain(const struct pm_birth_base *base, struct pm_error *err)
{
    if (base->owner != geteuid())
        return pm_error_set(err, base->status, "%.200s cannot be used: it belongs to user %u",
                            base->path, (unsigned)base->owner);
    return pm_error_set(err, base->status, "%.200s cannot be used: %s", base->path,
                        pm_strerror(base->status));
}

int pm_birth_directory(const struct pm_birth *wanted, const char *base_dir, char *ret_path,
                       size_t size, bool *ret_made, bool *ret_fallback, struct pm_error *err)
{
    struct pm_birth birth = *wanted;
    struct pm_birth_base bases[PM_BIRTH_BASES_MAX];
    struct pm_birth_file file;
    char entry[ENTRY_BYTES] = "";
    size_t used = 0;
    bool made = false;
    int status = -PM_ENOTFOUND;

    if (birth.file_mode == 0)
        birth.file_mode = 0600;
    if (!pm_birth_name_ok(birth.name))
        return pm_error_set(err, -PM_EINVALID, "the session has no name yet");
    size_t count = pm_birth_bases_list(base_dir, bases);
    if (count == 0)
        return pm_error_set(err, -PM_EINVALID, "%.200s is no path for sessions", base_dir);

    /* joining comes first: another process may have had to fall back */
    for (size_t i = 0; i < count; i++)
        pm_birth_base_open(&bases[i], false);
    for (size_t i = 0; i < count && (status == -PM_ENOTFOUND || status == -PM_EPERMISSION); i++)
        if (bases[i].fd >= 0) {
            used = i;
            status = find(bases[i].fd, &birth, entry, &file);
        }
    /* a search that could not be made must not end in a second directory: only what was looked
     * through in vain, or cannot be listed, may get a new one */
    bool searched = status == 0 || status == -PM_ENOTFOUND || status == -PM_EPERMISSION;
    for (size_t i = 0; i < count && status != 0 && searched; i++) {
        used = i;
        if (bases[i].fd < 0)
            pm_birth_base_open(&bases[i], true);
        if (strlen(bases[i].path) + ENTRY_BYTES > size)
            bases[i].status = -PM_ELIMIT;
        else if (bases[i].fd >= 0)
            bases[i].status = make(bases[i].fd, &birth, entry, &file, &made);
        status = bases[i].status;
    }
    for (size_t i = 0; i < count; i++)
        if (bases[i].fd >= 0)
            close(bases[i].fd);
    if (status != 0) {
        if (!searched)
            return pm_error_set(err, status, "%.200s cannot be searched: %s", bases[used].path,
                                pm_strerror(status));
        return explain(&bases[0], err);
    }
    int length = snprintf(ret_path, size, "%s/%s",
                          strcmp(bases[used].path, "/") == 0 ? "" : bases[used].path, entry);
    if (length < 0 || (size_t)length >= size)
        return pm_error_set(err, -PM_ELIMIT, "the path of the session is longer than %zu bytes",
                            size);
    if (!made && file.spool[0] != '\0')
        (void)pm_birth_spool_join(&file, birth.file_mode);
    *ret_made = made;
    *ret_fallback = bases[used].own;
    if (bases[used].own)
        (void)explain(&bases[0], err);
    return 0;
}
