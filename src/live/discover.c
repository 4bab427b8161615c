/* See discover.h. */
#include "live/discover.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "live/proc.h"

#define AGAIN_NS 1000000000ull /* a process without a session is looked at again, first so soon */
#define AGAIN_MAX_NS 60000000000ull /* … and at last so seldom */

struct seen {
    uint32_t pid;
    uint64_t start_ticks;
    uint64_t again_at_ns, wait_ns;
    bool alive; /* met in this round */
    bool has;
    struct pm_found found;
};

struct pm_discover {
    struct seen *rows;
    size_t count, capacity;
    struct pm_found *found;
    size_t n_found, capacity_found;
};

int pm_discover_open(struct pm_discover **ret_discover)
{
    *ret_discover = calloc(1, sizeof(**ret_discover));
    return *ret_discover != NULL ? 0 : -PM_ENOMEM;
}

void pm_discover_close(struct pm_discover *discover)
{
    if (discover == NULL)
        return;
    free(discover->rows);
    free(discover->found);
    free(discover);
}

static bool same_mounts(uint32_t pid)
{
    char path[64], ours[128] = "", theirs[128] = "";
    snprintf(path, sizeof(path), "/proc/%u/ns/mnt", pid);
    return readlink("/proc/self/ns/mnt", ours, sizeof(ours) - 1) > 0 &&
           readlink(path, theirs, sizeof(theirs) - 1) > 0 && strcmp(ours, theirs) == 0;
}

static bool is_session(const char *path, struct pm_found *found)
{
    char file[PATH_MAX];
    struct stat st;
    if (snprintf(file, sizeof(file), "%s/session", path) >= (int)sizeof(file) ||
        stat(file, &st) != 0 || stat(path, &st) != 0)
        return false;
    found->device = st.st_dev;
    found->inode = st.st_ino;
    return true;
}

/* The folder of the record file whose path one line of maps ends with. */
static bool take_line(uint32_t pid, char *line, struct pm_found *found)
{
    char *path = strchr(line, '/');
    char *records = path != NULL ? strstr(path, "/records/p") : NULL;
    size_t bytes;
    if (records == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    bytes = strlen(records);
    if (bytes < 6 || strcmp(records + bytes - 6, ".pmrec") != 0)
        return false; /* or " (deleted)" */
    *records = '\0';
    found->pid = pid;
    if (same_mounts(pid)) {
        snprintf(found->path, sizeof(found->path), "%s", path);
        if (is_session(found->path, found))
            return true;
    }
    if (snprintf(found->path, sizeof(found->path), "/proc/%u/root%s", pid, path) >=
        (int)sizeof(found->path))
        return false;
    return is_session(found->path, found);
}

/* 1: found; 0: it has none; -PM_EPERMISSION: it may not be looked at. */
static int look(uint32_t pid, struct pm_found *found)
{
    char path[64];
    char *line = NULL;
    size_t size = 0;
    int rc = 0;
    snprintf(path, sizeof(path), "/proc/%u/maps", pid);
    FILE *maps = fopen(path, "re");
    if (maps == NULL)
        return errno == EACCES || errno == EPERM ? -PM_EPERMISSION : 0;
    while (rc == 0 && getline(&line, &size, maps) > 0)
        if (strstr(line, ".pmrec") != NULL && take_line(pid, line, found))
            rc = 1;
    free(line);
    fclose(maps);
    return rc;
}

static struct seen *row_of(struct pm_discover *discover, uint32_t pid)
{
    for (size_t i = 0; i < discover->count; i++)
        if (discover->rows[i].pid == pid)
            return &discover->rows[i];
    if (discover->count == discover->capacity) {
        const size_t want = discover->capacity != 0 ? discover->capacity * 2 : 256;
        struct seen *more = realloc(discover->rows, want * sizeof(*more));
        if (more == NULL)
            return NULL;
        discover->rows = more;
        discover->capacity = want;
    }
    struct seen *row = &discover->rows[discover->count++];
    *row = (struct seen){.pid = pid};
    return row;
}

static void look_again(struct seen *row, uint64_t now_ns)
{
    row->has = look(row->pid, &row->found) == 1;
    row->wait_ns = row->wait_ns == 0                 ? AGAIN_NS
                   : row->wait_ns * 2 < AGAIN_MAX_NS ? row->wait_ns * 2
                                                     : AGAIN_MAX_NS;
    row->again_at_ns = now_ns + row->wait_ns;
}

static int add_found(struct pm_discover *discover, const struct pm_found *found)
{
    for (size_t i = 0; i < discover->n_found; i++)
        if (discover->found[i].inode == found->inode && discover->found[i].device == found->device)
            return 0;
    if (discover->n_found == discover->capacity_found) {
        const size_t want = discover->capacity_found != 0 ? discover->capacity_found * 2 : 8;
        struct pm_found *more = realloc(discover->found, want * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        discover->found = more;
        discover->capacity_found = want;
    }
    discover->found[discover->n_found++] = *found;
    return 0;
}

int pm_discover_round(struct pm_discover *discover, const struct pm_found **ret_found,
                      size_t *ret_count)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    const struct dirent *entry;
    int rc = 0;
    DIR *dir = opendir("/proc");

    if (dir == NULL)
        return pm_error_from_errno(errno);
    for (size_t i = 0; i < discover->count; i++)
        discover->rows[i].alive = false;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        struct seen *row = row_of(discover, (uint32_t)strtoul(entry->d_name, NULL, 10));
        if (row == NULL) {
            rc = -PM_ENOMEM;
            break;
        }
        row->alive = true;
        if (row->has || row->again_at_ns > now_ns)
            continue;
        look_again(row, now_ns);
    }
    closedir(dir);
    size_t kept = 0;
    discover->n_found = 0;
    for (size_t i = 0; i < discover->count; i++) {
        if (!discover->rows[i].alive)
            continue;
        if (discover->rows[i].has && rc == 0)
            rc = add_found(discover, &discover->rows[i].found);
        discover->rows[kept++] = discover->rows[i];
    }
    discover->count = kept;
    *ret_found = discover->found;
    *ret_count = discover->n_found;
    return rc;
}

/* The children of a process, one generation down; stops at the first that has a session. */
static int look_below(uint32_t pid, unsigned depth, struct pm_found *found)
{
    const struct dirent *entry;
    int rc = 0;
    DIR *dir = depth > 0 ? opendir("/proc") : NULL;
    while (dir != NULL && rc == 0 && (entry = readdir(dir)) != NULL) {
        struct pm_proc proc;
        const uint32_t child = (uint32_t)strtoul(entry->d_name, NULL, 10);
        if (child == 0 || !pm_proc_read(child, &proc) || proc.ppid != pid)
            continue;
        rc = look(child, found) == 1 ? 1 : look_below(child, depth - 1, found);
    }
    if (dir != NULL)
        closedir(dir);
    return rc;
}

int pm_discover_pid(uint32_t pid, struct pm_found *ret_found)
{
    struct pm_proc proc;
    struct pm_found found;
    if (!pm_proc_read(pid, &proc))
        return -PM_ENOTFOUND;
    int rc = look(pid, &found);
    if (rc == 0)
        rc = look_below(pid, 4, &found);
    if (rc != 1)
        return rc == -PM_EPERMISSION ? rc : -PM_ENOTFOUND;
    *ret_found = found;
    return 0;
}
