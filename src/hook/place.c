/*
 * Where this copy of the extension lies on disk, and where the program is from there. Called while
 * the module is loaded and at the process's end; pure C, owns one buffer.
 *
 *   the extension                                          the program
 *   build/<preset>/site/[simple/]                          build/<preset>/bin/profilemate
 *   <prefix>/lib/profilemate/site/[simple/]                <prefix>/bin/profilemate
 *   <env>/lib/pythonX.Y/site-packages/                     <env>/bin/profilemate
 *   <env>/lib/pythonX.Y/site-packages/profilemate/site/[simple/]     the same
 *   <target>/ (pip install --target)                       <target>/bin/profilemate
 *
 * So it is in bin/ of the extension's folder or of one of those above.
 */
#include "hook/hook.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEVELS_MAX 7

static char file[PATH_MAX];

const char *pm_place_file(void)
{
    if (file[0])
        return file;
    Dl_info info;
    if (dladdr(file, &info) == 0 || !info.dli_fname || !realpath(info.dli_fname, file))
        file[0] = '\0';
    return file;
}

/* Cuts the last component off; false at the root. */
static bool up(char *path)
{
    char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return false;
    *slash = '\0';
    return true;
}

bool pm_place_is_simple(const char *path)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder || !up(folder))
        return false;
    const char *name = strrchr(folder, '/');
    return name && strcmp(name + 1, "simple") == 0;
}

/* Ours is only what root, this user, or the owner of the extension put there: a folder above may be
 * one where everybody can write. */
static bool is_trusted(const char *path)
{
    struct stat program, extension;
    if (stat(path, &program) < 0 || !S_ISREG(program.st_mode) || access(path, X_OK) < 0)
        return false;
    return program.st_uid == 0 || program.st_uid == geteuid() ||
           (stat(pm_place_file(), &extension) == 0 && program.st_uid == extension.st_uid);
}

bool pm_place_program(char *out, size_t size)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s", pm_place_file()) >= (int)sizeof folder)
        return false;
    for (int levels = 0; levels < LEVELS_MAX && up(folder); levels++) {
        int length = snprintf(out, size, "%s/bin/profilemate", folder);
        if (length > 0 && (size_t)length < size && is_trusted(out))
            return true;
    }
    return false;
}
