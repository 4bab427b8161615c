/*
 * Where this copy of the extension lies on disk, and where the program is from there. Called while
 * the module is loaded and at the process's end; pure C, owns one buffer.
 *
 *   build/<preset>/site/sitecustomize.abi3.so         ../bin/profilemate
 *   build/<preset>/site/simple/sitecustomize.abi3.so  ../../bin/profilemate
 *   <site-packages>/_profilemate.abi3.so              profilemate/bin/profilemate, or the
 *                                                     environment's bin/profilemate
 */
#include "hook/hook.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

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

static bool program_at(const char *folder, const char *rest, char *out, size_t size)
{
    int length = snprintf(out, size, "%s/%s", folder, rest);
    return length > 0 && (size_t)length < size && access(out, X_OK) == 0;
}

bool pm_place_program(char *out, size_t size)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s", pm_place_file()) >= (int)sizeof folder || !up(folder))
        return false;
    if (program_at(folder, "profilemate/bin/profilemate", out, size))
        return true;
    /* site/ or site/simple/ lie one or two levels below; <env>/lib/python3.x/site-packages three.
     */
    for (int levels = 0; levels < 3; levels++) {
        if (!up(folder))
            return false;
        if (program_at(folder, "bin/profilemate", out, size))
            return true;
    }
    return false;
}
