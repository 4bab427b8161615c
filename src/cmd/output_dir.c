/* See output_dir.h. */
#include "cmd/output_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 10000

static int make_all(const char *path)
{
    char part[PATH_MAX];
    size_t bytes = strlen(path);
    if (bytes == 0 || bytes >= sizeof(part))
        return ENAMETOOLONG;
    memcpy(part, path, bytes + 1);
    for (size_t i = 1; i <= bytes; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        char was = part[i];
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return errno;
        part[i] = was;
    }
    return 0;
}

int pm_output_dir(const char *path, char absolute[PATH_MAX], struct pm_error *err)
{
    int why = make_all(path);
    if (why == 0 && realpath(path, absolute) == NULL)
        why = errno;
    if (why == 0 && access(absolute, W_OK | X_OK) != 0)
        why = errno;
    struct stat st;
    if (why == 0 && (stat(absolute, &st) != 0 || !S_ISDIR(st.st_mode)))
        why = ENOTDIR;
    if (why != 0)
        return pm_error_set(err, pm_error_from_errno(why),
                            "the folder %.300s cannot be written: %s", path, strerror(why));
    return 0;
}

static bool ends(const char *text, const char *end)
{
    size_t bytes = strlen(text), end_bytes = strlen(end);
    return bytes > end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}

static bool is_trace(const char *name)
{
    return ends(name, ".trace.json") || ends(name, ".trace.json.gz") ||
           (strstr(name, "profiler_out") != NULL && ends(name, ".txt"));
}

static int oldest_first(const void *a, const void *b)
{
    const struct pm_trace_file *x = a, *y = b;
    if (x->changed_ns != y->changed_ns)
        return x->changed_ns < y->changed_ns ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void add(struct pm_trace_files *files, const char *name, const struct stat *st,
                uint64_t changed_ns)
{
    if (files->count % 64 == 0) {
        struct pm_trace_file *more =
            realloc(files->list, (files->count + 64) * sizeof(files->list[0]));
        if (more == NULL)
            return;
        files->list = more;
    }
    struct pm_trace_file *file = &files->list[files->count++];
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->bytes = (uint64_t)st->st_size;
    file->changed_ns = changed_ns;
    files->bytes += file->bytes;
}

void pm_trace_files(const char *dir, uint64_t since_real_ns, struct pm_trace_files *ret_files)
{
    *ret_files = (struct pm_trace_files){0};
    DIR *folder = opendir(dir);
    struct dirent *entry;
    while (folder != NULL && ret_files->count < FILES_MAX && (entry = readdir(folder)) != NULL) {
        struct stat st;
        if (!is_trace(entry->d_name) ||
            fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode))
            continue;
        uint64_t changed_ns =
            (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
        if (changed_ns >= since_real_ns)
            add(ret_files, entry->d_name, &st, changed_ns);
    }
    if (folder != NULL)
        closedir(folder);
    if (ret_files->count > 1)
        qsort(ret_files->list, ret_files->count, sizeof(ret_files->list[0]), oldest_first);
}

void pm_trace_files_release(struct pm_trace_files *files)
{
    free(files->list);
    *files = (struct pm_trace_files){0};
}
