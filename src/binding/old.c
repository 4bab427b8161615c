/*
 * What cmd/place.c asks about a folder that is no session: whether it has the CSV files of the
 * Python profiler. The program makes a session of such a folder on the way; here, where a session
 * is opened anew for each table, that is left to `profilemate convert`, and module.c says so.
 */
#include "cmd/old.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int pm_old_place(const char *path, struct pm_place *ret_place)
{
    static const char *const files[] = {"forward_pass_timing.csv", "cpu_operations_timing.csv",
                                        "batch_utilization.csv"};
    char file[PATH_MAX + 64];
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(file, sizeof(file), "%.*s/%s", PATH_MAX, path, files[i]);
        if (strlen(path) >= sizeof(ret_place->path) || access(file, R_OK) != 0)
            continue;
        *ret_place = (struct pm_place){.old = true};
        snprintf(ret_place->path, sizeof(ret_place->path), "%s", path);
        return 0;
    }
    return -PM_EFORMAT;
}
