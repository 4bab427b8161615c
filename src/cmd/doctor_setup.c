/*
 * doctor, the parts that need no Python: settings, the folder of sessions, the clock.
 */
#include "cmd/doctor.h"
#include "cmd/cmd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/settings.h"
#include "recorder/birth.h"

extern char **environ;

/* ---- settings -------------------------------------------------------------------------------- */

#define PM_NAMES_MAX 160

/* All names that may be set: both spellings of each setting, and the switches. NULL at the end. */
static const char *const *setting_names(void)
{
    static const char *const others[] = {"VLLM_ENABLE_PROFILING", PM_SESSION_ENV,
                                         "PROFILEMATE_ENABLE", "PROFILEMATE_RUN"};
    static char text[PM_NAMES_MAX][96];
    static const char *names[PM_NAMES_MAX + 8];
    size_t n = 0;
    for (size_t i = 0; i < pm_setting_rows_count && n + 2 <= PM_NAMES_MAX; i++) {
        snprintf(text[n], sizeof(text[n]), "VLLM_PROFILING_%s", pm_setting_rows[i].env);
        names[n] = text[n];
        n++;
        snprintf(text[n], sizeof(text[n]), "PROFILEMATE_%s", pm_setting_rows[i].env);
        names[n] = text[n];
        n++;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        names[n++] = others[i];
    names[n] = NULL;
    return names;
}

static const char *setting_name(size_t i, void *arg)
{
    const char *const *names = *(const char *const **)arg;
    return names[i];
}

/* A name that looks like one of ours. vLLM's own VLLM_*_FOR_PROFILING are not. */
static bool looks_like_ours(const char *name)
{
    static const char *const beginnings[] = {"VLLM_PROFILING", "VLLM_ENABLE_PROFIL",
                                             "PROFILEMATE_"};
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
        if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return false;
}

/* VLLM_PROFILING_KV_CACHE_TRACKING is meant as VLLM_PROFILING_ENABLE_KV_CACHE_TRACKING. */
static const char *without_enable(const char *name, const char *const *names)
{
    for (; *names != NULL; names++) {
        const char *enable = strstr(*names, "ENABLE_");
        if (enable == NULL)
            continue;
        size_t bytes = (size_t)(enable - *names);
        if (strncmp(name, *names, bytes) == 0 && strcmp(name + bytes, enable + 7) == 0)
            return *names;
    }
    return NULL;
}

static void check_name(struct pm_findings *findings, const char *name, const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return;
    const char *near = without_enable(name, names);
    if (near == NULL)
        near = pm_nearest(name, setting_name, &names);
    pm_find(findings, PM_MARK_PROBLEM, "setting-unknown", NULL, "%s is no setting, it does nothing",
            name);
    if (near != NULL)
        pm_advise(findings, "did you mean %s? else unset it", near);
    else
        pm_advise(findings, "unset it; `profilemate run --help` lists the settings");
}

static void malformed(const char *sentence, void *arg)
{
    pm_find(arg, PM_MARK_PROBLEM, "setting-malformed", "correct the value or unset the variable",
            "%s", sentence);
}

void pm_doctor_settings(struct pm_findings *findings)
{
    static struct pm_settings settings;
    const char *const *names = setting_names();
    size_t before = findings->problems, set = 0;
    struct pm_birth birth;
    findings->section = "Settings";
    pm_settings_read(&settings, NULL, NULL, malformed, findings);
    (void)pm_settings_enable(NULL, NULL, malformed, findings);
    pm_doctor_custom_setting(findings, &settings);
    for (char **word = environ; *word != NULL; word++) {
        char name[128];
        size_t bytes = strcspn(*word, "=");
        if (!looks_like_ours(*word) || bytes >= sizeof(name))
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)bytes, *word);
        check_name(findings, name, names);
        set++;
    }
    const char *session = getenv(PM_SESSION_ENV);
    if (session != NULL && pm_birth_parse(session, &birth) != 0)
        pm_find(findings, PM_MARK_PROBLEM, "session-token",
                "unset " PM_SESSION_ENV ", ProfileMate sets it for the children of a server itself",
                PM_SESSION_ENV " does not hold a session, its value is not one of ours");
    else if (session != NULL)
        pm_find(findings, PM_MARK_WARNING, "session-token",
                "unset " PM_SESSION_ENV " in this shell if a new session is wanted",
                PM_SESSION_ENV " is set: what is started here joins the session %s", birth.name);
    if (findings->problems == before)
        pm_find(findings, PM_MARK_FINE, "settings", NULL, "%zu variable%s set, all well-formed",
                set, set == 1 ? " is" : "s are");
}

/* ---- where sessions go ----------------------------------------------------------------------- */

/* File systems whose pages another machine may change or that fail in their own ways: record files
 * are kept on a local disk while they are written. Numbers from linux/magic.h and, for those that
 * are not there, from the file systems' own sources. */
static const struct {
    unsigned long magic;
    const char *name;
    bool local;
} file_systems[] = {
    {0x6969, "NFS", false},        {0xff534d42, "CIFS", false}, {0xfe534d42, "SMB", false},
    {0x517b, "SMB", false},        {0x65735546, "FUSE", false}, {0x01021997, "9p", false},
    {0x0bd00bd0, "Lustre", false}, {0x00c36400, "Ceph", false}, {0x47504653, "GPFS", false},
    {0x19830326, "BeeGFS", false}, {0x01021994, "tmpfs", true}, {0xef53, "ext4", true},
    {0x58465342, "XFS", true},     {0x9123683e, "Btrfs", true}, {0x794c7630, "overlayfs", true},
    {0x2fc12fc1, "ZFS", true},
};

static void check_file_system(struct pm_findings *findings, const char *dir)
{
    struct statfs fs;
    struct statvfs space;
    if (statfs(dir, &fs) != 0 || statvfs(dir, &space) != 0)
        return;
    const char *name = NULL;
    bool local = true, tmpfs = false;
    for (size_t i = 0; i < sizeof(file_systems) / sizeof(file_systems[0]); i++)
        if ((unsigned long)fs.f_type == file_systems[i].magic) {
            name = file_systems[i].name;
            local = file_systems[i].local;
            tmpfs = file_systems[i].magic == 0x01021994;
        }
    if (!local)
        pm_find(findings, PM_MARK_NOTE, "file-system", NULL,
                "%s is on %s: records are kept on a local disk while a server runs, and moved here "
                "at its end",
                dir, name);
    else if (tmpfs)
        pm_find(findings, PM_MARK_NOTE, "file-system",
                "give VLLM_PROFILING_MAX_MB, or a VLLM_PROFILING_DIR on a disk, for longer runs",
                "%s is on tmpfs, which is memory: a session takes 64 MB at most unless told "
                "otherwise",
                dir);
    else
        pm_find(findings, PM_MARK_FINE, "file-system", NULL, "%s is on a local file system%s%s%s",
                dir, name != NULL ? " (" : "", name != NULL ? name : "", name != NULL ? ")" : "");

    double total = (double)space.f_blocks * (double)space.f_frsize;
    double left = (double)space.f_bavail * (double)space.f_frsize;
    bool full = left < total / 20;
    if (total > 0)
        pm_find(findings, full ? PM_MARK_PROBLEM : PM_MARK_FINE, "free-space",
                full ? "free some space, remove old sessions (`profilemate sessions --prune`), or "
                       "choose another VLLM_PROFILING_DIR"
                     : NULL,
                "%.1f GB are free there%s", left / 1e9,
                full ? ", less than the 5 % that recording leaves alone" : "");
}

static void cannot_write(struct pm_findings *findings, const char *dir, const char *why)
{
    pm_find(findings, PM_MARK_PROBLEM, "output-folder",
            "make it writable, or choose another folder with VLLM_PROFILING_DIR",
            "sessions cannot be written to %s: %s; they would go to ~/.local/state/profilemate",
            dir, why);
}

void pm_doctor_output(struct pm_findings *findings)
{
    static struct pm_settings settings;
    struct stat st;
    findings->section = "Output";
    pm_settings_read(&settings, NULL, NULL, NULL, NULL);
    const char *dir = settings.dir;
    if (dir[0] != '/')
        pm_find(findings, PM_MARK_WARNING, "output-relative",
                "give VLLM_PROFILING_DIR as a path that begins with /",
                "VLLM_PROFILING_DIR=%s depends on the folder in which the server is started", dir);
    if (stat(dir, &st) == 0) {
        if (!S_ISDIR(st.st_mode)) {
            cannot_write(findings, dir, "it is not a folder");
            return;
        }
        if (eaccess(dir, W_OK | X_OK) != 0) {
            cannot_write(findings, dir, strerror(errno));
            return;
        }
        pm_find(findings, PM_MARK_FINE, "output-folder", NULL, "sessions go to %s", dir);
        check_file_system(findings, dir);
    } else if (errno == ENOENT) {
        char parent[PM_SETTING_TEXT_MAX];
        snprintf(parent, sizeof(parent), "%s", dir);
        size_t bytes = strlen(parent);
        while (bytes > 1 && parent[bytes - 1] == '/')
            parent[--bytes] = '\0';
        char *slash = strrchr(parent, '/');
        if (slash == NULL)
            snprintf(parent, sizeof(parent), ".");
        else
            slash[slash == parent] = '\0';
        if (eaccess(parent, W_OK | X_OK) != 0) {
            cannot_write(findings, dir,
                         errno == ENOENT
                             ? "it does not exist, nor does the folder that it is to lie in"
                             : "it does not exist and cannot be made");
            return;
        }
        pm_find(findings, PM_MARK_FINE, "output-folder", NULL,
                "sessions go to %s, which the first one makes", dir);
        check_file_system(findings, parent);
    } else {
        cannot_write(findings, dir, strerror(errno));
        return;
    }

    pm_clock_init();
    uint64_t tick, mono, real;
    const struct timespec pause = {.tv_nsec = 12 * 1000 * 1000};
    nanosleep(&pause, NULL);
    (void)pm_clock_steer(&tick, &mono, &real);
    const char *clock = pm_clock_name();
    findings->section = "Clock";
    if (strcmp(clock, "monotonic") == 0)
        pm_find(findings, PM_MARK_NOTE, "clock", NULL,
                "times come from CLOCK_MONOTONIC (the kernel's clock source is not the processor's "
                "own counter): a hooked call costs some 30 ns more");
    else
        pm_find(findings, PM_MARK_FINE, "clock", NULL,
                "times come from the processor's counter (%s)", clock);
}
