/*
 * Finds sessions and the extension. Opens nothing that another user could have planted without
 * O_NOFOLLOW and O_NONBLOCK, and reads at most one page of it.
 */
#include "cmd/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/settings.h"
#include "cmd/old.h"

#define PM_SESSIONS_MAX 100000 /* entries looked at in one folder */

/* ---- the extension --------------------------------------------------------------------------- */

static bool holds_extension(const char *dir)
{
    char file[PATH_MAX];
    struct stat st;
    int n = snprintf(file, sizeof(file), "%s/%s", dir, PM_EXTENSION_FILE);
    return n > 0 && (size_t)n < sizeof(file) && stat(file, &st) == 0 && S_ISREG(st.st_mode);
}

bool pm_site_dir(char *out, size_t size)
{
    /* Beside bin/ in the build folder and in the wheel's package, else where it is installed. */
    static const char *const patterns[] = {
        "site",
        "lib/profilemate/site",
        "profilemate/site", /* pip install --target */
        "lib/python3*/site-packages/profilemate/site",
        "lib64/python3*/site-packages/profilemate/site",
        "lib/python3*/dist-packages/profilemate/site",
    };
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n <= 0)
        return false;
    exe[n] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(exe, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
    bool found = false;
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]) && !found; i++) {
        char pattern[PATH_MAX + 64];
        glob_t matches;
        /* The prefix may hold characters that glob takes for its own. */
        size_t used = 0;
        for (const char *c = exe; *c != '\0' && used + 3 < PATH_MAX; c++) {
            if (strchr("*?[\\", *c) != NULL)
                pattern[used++] = '\\';
            pattern[used++] = *c;
        }
        snprintf(pattern + used, sizeof(pattern) - used, "/%s", patterns[i]);
        if (glob(pattern, 0, NULL, &matches) != 0)
            continue;
        for (size_t k = matches.gl_pathc; k-- > 0 && !found;)
            if (holds_extension(matches.gl_pathv[k]) && strlen(matches.gl_pathv[k]) < size) {
                snprintf(out, size, "%s", matches.gl_pathv[k]);
                found = true;
            }
        globfree(&matches);
    }
    return found;
}

/* ---- one session ----------------------------------------------------------------------------- */

static bool parse_token(const char *hex, uint8_t token[PM_TOKEN_BYTES])
{
    if (strlen(hex) != 2 * PM_TOKEN_BYTES)
        return false;
    for (size_t i = 0; i < PM_TOKEN_BYTES; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        if (strspn(pair, "0123456789abcdef") != 2)
            return false;
        token[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

/* The lines of the file `session`. true when it has the token and the start. */
static bool parse_session(char *text, struct pm_place *place)
{
    bool has_token = false, has_start = false;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *value = strchr(line, ' ');
        if (value == NULL)
            continue;
        *value++ = '\0';
        if (strcmp(line, "token") == 0)
            has_token = parse_token(value, place->token);
        else if (strcmp(line, "start_mono_ns") == 0)
            place->start_mono_ns = strtoull(value, NULL, 10);
        else if (strcmp(line, "start_real_ns") == 0)
            has_start = (place->start_real_ns = strtoull(value, NULL, 10)) != 0;
        else if (strcmp(line, "root_pid") == 0)
            place->root_pid = (uint32_t)strtoul(value, NULL, 10);
    }
    return has_token && has_start;
}

int pm_place_read(const char *path, struct pm_place *ret_place)
{
    struct pm_place place = {0};
    struct stat st;
    char text[4096];
    const char *name;
    ssize_t n;
    int file;
    size_t bytes = strlen(path);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    if (bytes >= sizeof(place.path))
        return -PM_ENOTFOUND;
    snprintf(place.path, sizeof(place.path), "%.*s", (int)bytes, path);

    int dir = open(place.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return errno == EACCES ? -PM_EPERMISSION : -PM_ENOTFOUND;
    int error = -PM_EFORMAT;
    if (fstat(dir, &st) != 0)
        goto close_dir;
    place.owner = st.st_uid;
    place.device = st.st_dev;
    place.inode = st.st_ino;
    file = openat(dir, "session", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        error = errno == EACCES ? -PM_EPERMISSION : -PM_EFORMAT;
        goto close_dir;
    }
    /* Someone who may write into the folder but is not its owner could have put this there. */
    if (fstat(file, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != place.owner)
        goto close_file;
    n = read(file, text, sizeof(text) - 1);
    if (n < 0)
        goto close_file;
    text[n] = '\0';
    name = strrchr(place.path, '/');
    snprintf(place.name, sizeof(place.name), "%.255s", name != NULL ? name + 1 : place.path);
    if (parse_session(text, &place)) {
        *ret_place = place;
        error = 0;
    }
close_file:
    close(file);
close_dir:
    close(dir);
    return error;
}

/* ---- all sessions ---------------------------------------------------------------------------- */

size_t pm_place_bases(const char *dir, char bases[PM_BASES][PATH_MAX])
{
    static struct pm_settings settings;
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    size_t n = 0;
    bool given = dir != NULL;
    if (!given) {
        pm_settings_read(&settings, NULL, NULL, NULL, NULL);
        dir = settings.dir;
    }
    snprintf(bases[n++], PATH_MAX, "%.4000s", dir);
    snprintf(bases[n++], PATH_MAX, "%.4000s-%ld", dir, (long)geteuid());
    if (given)
        return n;
    if (state != NULL && state[0] == '/')
        snprintf(bases[n++], PATH_MAX, "%.4000s/profilemate", state);
    else if (home != NULL && home[0] == '/')
        snprintf(bases[n++], PATH_MAX, "%.4000s/.local/state/profilemate", home);
    return n;
}

static int newest_first(const void *a, const void *b)
{
    const struct pm_place *x = a, *y = b;
    if (x->start_real_ns != y->start_real_ns)
        return x->start_real_ns < y->start_real_ns ? 1 : -1;
    return -strcmp(x->name, y->name);
}

int pm_places(const char *dir, struct pm_place **ret_places, size_t *ret_count)
{
    char bases[PM_BASES][PATH_MAX];
    size_t n_bases = pm_place_bases(dir, bases);
    struct pm_place *places = NULL;
    size_t count = 0, room = 0;
    int error = 0;
    for (size_t i = 0; i < n_bases && error == 0; i++) {
        DIR *base = i > 0 && strcmp(bases[i], bases[0]) == 0 ? NULL : opendir(bases[i]);
        if (base == NULL)
            continue;
        struct dirent *entry;
        for (size_t seen = 0; seen < PM_SESSIONS_MAX && (entry = readdir(base)) != NULL; seen++) {
            char path[PATH_MAX + 257];
            struct pm_place place;
            if (entry->d_name[0] == '.')
                continue;
            int n = snprintf(path, sizeof(path), "%s/%s", bases[i], entry->d_name);
            if (n >= PATH_MAX || pm_place_read(path, &place) != 0)
                continue;
            if (count == room) {
                size_t more = room * 2 + 16;
                struct pm_place *grown = realloc(places, more * sizeof(places[0]));
                if (grown == NULL) {
                    error = -PM_ENOMEM;
                    break;
                }
                places = grown;
                room = more;
            }
            places[count++] = place;
        }
        closedir(base);
    }
    if (error != 0) {
        free(places);
        return error;
    }
    if (count > 0)
        qsort(places, count, sizeof(places[0]), newest_first);
    *ret_places = places;
    *ret_count = count;
    return 0;
}

int pm_place_by_token(const char *dir, const uint8_t *token, struct pm_place *ret_place)
{
    struct pm_place *places;
    size_t count;
    int error = pm_places(dir, &places, &count);
    if (error != 0)
        return error;
    error = -PM_ENOTFOUND;
    for (size_t i = 0; i < count && error != 0; i++)
        if (places[i].owner == geteuid() && memcmp(places[i].token, token, PM_TOKEN_BYTES) == 0) {
            *ret_place = places[i];
            error = 0;
        }
    free(places);
    return error;
}

/* ---- which one is meant ---------------------------------------------------------------------- */

static int resolve_path(const char *meant, struct pm_place *ret_place, struct pm_error *err)
{
    static const char tail[] = "/metadata.json";
    char path[PATH_MAX], real[PATH_MAX];
    size_t bytes = strlen(meant);
    if (bytes > sizeof(tail) && strcmp(meant + bytes - (sizeof(tail) - 1), tail) == 0)
        bytes -= sizeof(tail) - 1;
    snprintf(path, sizeof(path), "%.*s", (int)bytes, meant);
    /* A path that was typed may go over links, as everywhere. */
    if (realpath(path, real) == NULL)
        return pm_error_set(err, -PM_ENOTFOUND,
                            "there is no session at %s (%s), `profilemate sessions` lists them",
                            meant, strerror(errno));
    int error = pm_place_read(real, ret_place);
    if (error == -PM_EFORMAT && pm_old_place(real, ret_place) == 0)
        return 0;
    if (error == -PM_EPERMISSION)
        return pm_error_set(
            err, error, "may not read the session %s, ask as the user that it belongs to", meant);
    if (error != 0)
        return pm_error_set(err, error,
                            "%s is no session, it has no file `session` of ours, `profilemate "
                            "sessions` lists them",
                            meant);
    return 0;
}

static int resolve_newest(const struct pm_place *places, size_t count, const char *dir,
                          struct pm_place *ret_place, struct pm_error *err)
{
    char bases[PM_BASES][PATH_MAX];
    for (size_t i = 0; i < count; i++)
        if (places[i].owner == geteuid()) {
            *ret_place = places[i];
            return 0;
        }
    pm_place_bases(dir, bases);
    if (count > 0)
        return pm_error_set(err, -PM_ENOTFOUND,
                            "there is no session of yours in %s, %zu of other users are there, "
                            "name one (`profilemate sessions`)",
                            bases[0], count);
    return pm_error_set(err, -PM_ENOTFOUND,
                        "there is no session in %s, make one with `profilemate run -- vllm serve "
                        "MODEL`, or say where with --dir",
                        bases[0]);
}

static int resolve_name(const struct pm_place *places, size_t count, const char *dir,
                        const char *meant, struct pm_place *ret_place, struct pm_error *err)
{
    char bases[PM_BASES][PATH_MAX];
    size_t found = 0, bytes = strlen(meant);
    const struct pm_place *first = NULL, *second = NULL;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(places[i].name, meant) == 0) {
            *ret_place = places[i];
            return 0;
        }
        /* The date alone is how one speaks of a session. */
        const char *date =
            strncmp(places[i].name, "session_", 8) == 0 ? places[i].name + 8 : places[i].name;
        if (bytes > 0 &&
            (strncmp(places[i].name, meant, bytes) == 0 || strncmp(date, meant, bytes) == 0)) {
            if (found == 0)
                first = &places[i];
            else if (found == 1)
                second = &places[i];
            found++;
        }
    }
    if (found == 1) {
        *ret_place = *first;
        return 0;
    }
    if (found > 1)
        return pm_error_set(err, -PM_EINVALID,
                            "%s is the start of %zu sessions (%s, %s%s), give more of the name",
                            meant, found, first->name, second->name, found > 2 ? ", …" : "");
    pm_place_bases(dir, bases);
    return pm_error_set(err, -PM_ENOTFOUND,
                        "there is no session %s in %s, `profilemate sessions` lists them", meant,
                        bases[0]);
}

int pm_place_resolve(const char *dir, const char *meant, struct pm_place *ret_place,
                     struct pm_error *err)
{
    struct stat st;
    if (meant != NULL && (strchr(meant, '/') != NULL || stat(meant, &st) == 0))
        return resolve_path(meant, ret_place, err);
    struct pm_place *places;
    size_t count;
    int error = pm_places(dir, &places, &count);
    if (error != 0)
        return pm_error_set(err, error, "cannot list the sessions, %s", pm_strerror(error));
    error = meant == NULL ? resolve_newest(places, count, dir, ret_place, err)
                          : resolve_name(places, count, dir, meant, ret_place, err);
    free(places);
    return error;
}
