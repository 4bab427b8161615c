/*
 * Sessions of old where a session is expected. See old.h.
 */
#include "cmd/old.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert/convert.h"

int pm_old_place(const char *path, struct pm_place *ret_place)
{
    struct pm_place place = {.old = true};
    const char *name = strrchr(path, '/');
    struct stat st;

    if (!pm_convert_is_old(path) || stat(path, &st) != 0 || strlen(path) >= sizeof(place.path))
        return -PM_EFORMAT;
    snprintf(place.path, sizeof(place.path), "%s", path);
    snprintf(place.name, sizeof(place.name), "%.255s", name != NULL ? name + 1 : path);
    place.owner = st.st_uid;
    place.device = st.st_dev;
    place.inode = st.st_ino;
    *ret_place = place;
    return 0;
}

int pm_old_open(const struct pm_place *place, struct pm_session **ret_session, struct pm_error *err)
{
    const char *tmp = getenv("TMPDIR");
    struct pm_convert_result result;
    char base[4096];

    snprintf(base, sizeof(base), "%.3900s/profilemate-old-XXXXXX",
             tmp != NULL && tmp[0] == '/' ? tmp : "/tmp");
    int rc = pm_convert_old(place->path, base, &result, err);
    if (rc != 0)
        return rc;
    rc = pm_session_open(ret_session, result.path, err);
    if (rc == 0)
        pm_session_rename(*ret_session, place->path, place->name);
    pm_convert_remove(base); /* what is open stays readable */
    return rc;
}
