/*
 * Removing old sessions. See prune.h for what may go.
 */
#include "cmd/prune.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cmd/complete.h"
#include "recorder/birth.h"

#define PM_DEPTH_MAX 8           /* a session has three levels: engine_<n>/rank_<m>/ */
#define PM_YOUNG_SEC 120         /* without any process yet, this young: about to begin */
#define PM_REMOVING ".removing_" /* a folder on its way out is renamed to this and its name */

/* ---- walking --------------------------------------------------------------------------------- */

/* Adds up the blocks of what lies in the folder open as dir_fd (which is closed). */
static uint64_t tree_bytes(int dir_fd, int depth)
{
    uint64_t bytes = 0;
    struct dirent *entry;
    DIR *dir = fdopendir(dir_fd);
    if (dir == NULL) {
        close(dir_fd);
        return 0;
    }
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        bytes += (uint64_t)st.st_blocks * 512;
        if (!S_ISDIR(st.st_mode) || depth >= PM_DEPTH_MAX)
            continue;
        int sub =
            openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0)
            bytes += tree_bytes(sub, depth + 1);
    }
    closedir(dir);
    return bytes;
}

uint64_t pm_place_bytes(const struct pm_place *place)
{
    int fd = open(place->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? 0 : tree_bytes(fd, 0);
}

/* Removes everything in the folder open as dir_fd (which is closed). 0 or an errno value. */
static int empty_folder(int dir_fd, dev_t device, int depth)
{
    int why = 0;
    struct dirent *entry;
    DIR *dir = fdopendir(dir_fd);
    if (dir == NULL) {
        why = errno;
        close(dir_fd);
        return why;
    }
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int sub =
            openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub < 0) { /* a file, or a link, which goes itself */
            if (unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT)
                why = errno;
            continue;
        }
        if (depth >= PM_DEPTH_MAX || fstat(sub, &st) != 0 || st.st_dev != device) {
            close(sub); /* something is mounted there, or it is no session's shape: not ours */
            why = EXDEV;
            continue;
        }
        int inner = empty_folder(sub, device, depth + 1);
        if (inner != 0)
            why = inner;
        else if (unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR) != 0)
            why = errno;
    }
    closedir(dir);
    return why;
}

/* ---- what may go ----------------------------------------------------------------------------- */

struct candidate {
    struct pm_place place;
    uint64_t bytes;
    bool finished;
    uint64_t ended_sec; /* seconds since 1970, by the newest change in its records */
};

static uint64_t newest_change(const struct pm_place *place)
{
    static const char *const names[] = {"", "/session", "/records", "/metadata.json"};
    uint64_t newest = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[PATH_MAX + 16];
        struct stat st;
        snprintf(path, sizeof(path), "%s%s", place->path, names[i]);
        if (lstat(path, &st) == 0 && st.st_mtime > 0 && (uint64_t)st.st_mtime > newest)
            newest = (uint64_t)st.st_mtime;
    }
    return newest;
}

/* Whether the session may run on another machine: its records then lie on a disk of that one, and
 * nothing here tells whether somebody still writes them. */
static bool is_elsewhere(const struct pm_place *place)
{
    struct pm_birth_file file;
    char host[256] = "", boot[64] = "";
    if (pm_birth_read(place->path, &file) != 0)
        return true;
    gethostname(host, sizeof(host) - 1);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, boot, sizeof(boot) - 1);
        boot[n > 0 ? n : 0] = '\0';
        boot[strcspn(boot, "\n")] = '\0';
        close(fd);
    }
    return file.spool[0] != '\0' && strcmp(file.boot_id, boot) != 0 && strcmp(file.host, host) != 0;
}

static bool is_finished(const struct pm_place *place, uint64_t changed_sec)
{
    struct pm_session *session;
    time_t now = time(NULL);
    if (place->owner != geteuid() || is_elsewhere(place))
        return false;
    if (pm_session_open(&session, place->path, NULL) != 0)
        return false;
    bool young = (uint64_t)now < changed_sec + PM_YOUNG_SEC;
    bool finished =
        !pm_session_is_running(session) && (pm_session_process_count(session) > 0 || !young);
    pm_session_close(session);
    return finished;
}

/* ---- removing one ---------------------------------------------------------------------------- */

/* Renames the session out of sight, checks that it is still what it was and finished, and removes
 * it. 0 or an errno value. */
static int remove_session(const struct pm_place *place)
{
    char parent[PATH_MAX], hidden[sizeof(PM_REMOVING) + sizeof(place->name)];
    struct stat st;
    unsigned left = 0;
    int why = 0;
    /* Records of a session on a network file system lie in a spool of this machine: bring them home
     * so that they go too. */
    if (pm_birth_unspool(place->path, &left, NULL) == 0 && left > 0)
        return EBUSY;
    snprintf(parent, sizeof(parent), "%s", place->path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL || slash == parent)
        return EINVAL;
    *slash = '\0';
    snprintf(hidden, sizeof(hidden), PM_REMOVING "%s", place->name);

    int base = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base < 0)
        return errno;
    int fd = openat(base, place->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        why = errno;
        goto close_base;
    }
    if (fstat(fd, &st) != 0 || st.st_ino != place->inode || st.st_dev != place->device ||
        st.st_uid != geteuid()) {
        why = ESTALE;
        goto close_fd;
    }
    if (renameat(base, place->name, base, hidden) != 0) {
        why = errno;
        goto close_fd;
    }
    why = empty_folder(fd, st.st_dev, 0);
    fd = -1;
    if (unlinkat(base, hidden, AT_REMOVEDIR) != 0 && why == 0)
        why = errno;
close_fd:
    if (fd >= 0)
        close(fd);
close_base:
    close(base);
    return why;
}

/* What an interrupted removal left: a hidden folder of ours that was a session. */
static void sweep(const char *base_path)
{
    struct dirent *entry;
    DIR *base = opendir(base_path);
    if (base == NULL)
        return;
    while ((entry = readdir(base)) != NULL) {
        struct stat st;
        if (strncmp(entry->d_name, PM_REMOVING, sizeof(PM_REMOVING) - 1) != 0)
            continue;
        int fd =
            openat(dirfd(base), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (fstat(fd, &st) != 0 || st.st_uid != geteuid()) {
            close(fd);
            continue;
        }
        if (empty_folder(fd, st.st_dev, 0) == 0)
            unlinkat(dirfd(base), entry->d_name, AT_REMOVEDIR);
    }
    closedir(base);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void remove_candidate(const struct pm_prune_options *options, struct pm_prune_result *result,
                             const struct candidate *one)
{
    int why = options->dry_run ? 0 : remove_session(&one->place);
    if (why != 0) {
        if (result->failed++ == 0)
            pm_error_set(&result->first_failure, pm_error_from_errno(why),
                         "could not remove %s (%s)", one->place.path, strerror(why));
        return;
    }
    result->removed++;
    result->removed_bytes += one->bytes;
    result->kept--;
    result->kept_bytes -= one->bytes;
    if (options->tell != NULL)
        options->tell(&one->place, one->bytes, options->tell_arg);
}

int pm_prune(const struct pm_prune_options *options, struct pm_prune_result *ret_result)
{
    static const uint8_t none[PM_TOKEN_BYTES];
    struct pm_prune_result result = {0};
    struct pm_place *places;
    size_t count;
    int error = pm_places(options->dir, &places, &count);
    if (error != 0)
        return error;
    struct candidate *all = calloc(count + 1, sizeof(all[0]));
    if (all == NULL) {
        free(places);
        return -PM_ENOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        struct candidate *one = &all[n];
        if (places[i].owner != geteuid())
            continue;
        one->place = places[i];
        one->bytes = pm_place_bytes(&places[i]);
        one->ended_sec = newest_change(&places[i]);
        one->finished = is_finished(&places[i], one->ended_sec);
        if (memcmp(options->spare, none, sizeof(none)) != 0 &&
            memcmp(options->spare, places[i].token, sizeof(none)) == 0)
            one->finished = false;
        result.kept++;
        result.kept_bytes += one->bytes;
        n++;
    }
    uint64_t now = (uint64_t)time(NULL);
    for (size_t i = n; i-- > 0;) { /* oldest first */
        bool old = all[i].ended_sec + options->older_than_sec <= now;
        bool over = options->by_age_alone || result.kept_bytes > options->keep_bytes;
        if (all[i].finished && old && over)
            remove_candidate(options, &result, &all[i]);
    }
    if (!options->dry_run) {
        char bases[PM_BASES][PATH_MAX];
        size_t n_bases = pm_place_bases(options->dir, bases);
        for (size_t i = 0; i < n_bases; i++)
            sweep(bases[i]);
    }
    free(all);
    free(places);
    *ret_result = result;
    return 0;
}
