/*
 * Makes a session of the files of old: opens them, merges them by time into the recorder. See
 * convert.h.
 */
#include "convert/convert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "convert/parts.h"
#include "recorder/birth.h"
#include "session/attrs.h"
#include "session/kv_schema.h"
#include "session/request_schema.h"
#include "session/step_schema.h"

/* Everything that the files hold is kept; the disk is the limit. */
#define CEILING_BYTES (1ull << 42)
/* Second 0 of a session of old, CLOCK_MONOTONIC: that of the machine then is not known. */
#define START_MONO_NS 1000000000ull

static const char *const old_files[] = {
    "forward_pass_timing.csv", "batch_utilization.csv",  "cpu_operations_timing.csv",
    "kv_cache_usage.csv",      "kv_cache_evictions.csv", "preemption_events.csv",
    "request_lifecycle.csv",
};
/* Those that no record can be made of. */
static const char *const other_files[] = {
    "cuda_graph_captures.csv",  "cuda_graph_usage.csv",       "cuda_graph_timeline.csv",
    "moe_expert_selection.csv", "moe_expert_timing.csv",      "moe_expert_coselection.csv",
    "moe_load_imbalance.csv",   "encoder_decoder_timing.csv",
};

static bool has_file(const char *dir, const char *name)
{
    char path[4352];
    struct stat st;
    const int n = snprintf(path, sizeof(path), "%s/%s", dir, name);
    return n > 0 && (size_t)n < sizeof(path) && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool pm_convert_is_old(const char *dir)
{
    if (has_file(dir, "session"))
        return false;
    for (size_t i = 0; i < sizeof(old_files) / sizeof(*old_files); i++)
        if (has_file(dir, old_files[i]))
            return true;
    return false;
}

int pm_convert_reserve(struct pm_convert *all, enum pm_convert_schema schema, void *ret_payload)
{
    void *payload = pm_recorder_reserve(all->rec, schema);
    if (payload == NULL)
        return pm_error_set(all->err, -PM_ENOSPACE,
                            "there is no room for the session in %.300s, free some or give another "
                            "place",
                            all->result->path);
    memcpy(ret_payload, &payload, sizeof(payload));
    return 0;
}

/* When it began, by the clock on the wall: the folder's name says it, else the oldest file. */
static uint64_t started(const char *dir)
{
    const char *name = strrchr(dir, '/');
    struct tm when = {.tm_isdst = -1};
    struct stat st;
    char path[4352];

    name = name != NULL ? name + 1 : dir;
    if (strncmp(name, "session_", 8) == 0 && strptime(name + 8, "%Y%m%d_%H%M%S", &when) != NULL) {
        const time_t at = mktime(&when);
        if (at > 0)
            return (uint64_t)at * 1000000000ull;
    }
    for (size_t i = 0; i < sizeof(old_files) / sizeof(*old_files); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, old_files[i]);
        if (stat(path, &st) == 0)
            return (uint64_t)st.st_mtime * 1000000000ull;
    }
    return 1000000000ull;
}

/* What metadata.json has behind a key, as ProfileMate writes it: on one line, not in a list. ""
 * where it has none. */
static void look_up(const char *dir, const char *key, char *out, size_t size)
{
    char path[4352], text[65536];

    out[0] = '\0';
    snprintf(path, sizeof(path), "%s/metadata.json", dir);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return;
    const ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return;
    text[n] = '\0';
    const char *at = strstr(text, key);
    if (at == NULL)
        return;
    at += strlen(key);
    at += strspn(at, ": \"");
    snprintf(out, size, "%.*s", (int)strcspn(at, "\",\n} "), at);
}

/* The Python profiler ran on GPUs only; files of our own may be of a CPU: then the model's times
 * are the host's. */
static bool ran_on_cpu(const char *dir)
{
    char device[16];
    look_up(dir, "\"device\"", device, sizeof(device));
    return strcmp(device, "cpu") == 0;
}

/* ---- the session ---- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void pm_convert_remove(const char *folder)
{
    (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void say_attributes(struct pm_convert *all, const char *dir)
{
    char note[1024] = "", block[16];
    size_t used = 0;

    pm_recorder_attr(all->rec, "setting.preset", has_file(dir, "summary.json") ? "simple" : "full");
    pm_recorder_attr(all->rec, PM_ATTR_DEVICE, all->on_device ? "cuda" : "cpu");
    pm_recorder_attr(all->rec, PM_ATTR_NOTE_PREFIX "converted",
                     "made of the CSV files of a profiler: prompt, output and arrival of requests, "
                     "and how many of a step's requests were prefills, are not known");
    look_up(dir, "\"block_size\"", block, sizeof(block));
    if (block[0] != '\0' && block[strspn(block, "0123456789")] == '\0')
        pm_recorder_attr(all->rec, PM_ATTR_CONFIG_PREFIX "block_size", block);
    for (size_t i = 0; i < sizeof(other_files) / sizeof(*other_files); i++)
        if (has_file(dir, other_files[i]) && used < sizeof(note) - 64)
            used += (size_t)snprintf(note + used, sizeof(note) - used, "%s%s",
                                     used > 0 ? ", " : "not taken over: ", other_files[i]);
    if (used > 0)
        pm_recorder_attr(all->rec, PM_ATTR_NOTE_PREFIX "converted.left", note);
}

static int open_session(struct pm_convert *all, const char *dir, const char *base_dir)
{
    static const struct pm_schema *const schemas[PM_CONVERT_SCHEMAS] = {
        [PM_CONVERT_SCHED] = &pm_sched_step_schema,
        [PM_CONVERT_REQUEST_EVENT] = &pm_step_request_schema,
        [PM_CONVERT_WORKER] = &pm_worker_step_schema,
        [PM_CONVERT_UPDATE] = &pm_update_step_schema,
        [PM_CONVERT_REQUEST] = &pm_request_schema,
        [PM_CONVERT_KV_STEP] = &pm_kv_step_schema,
        [PM_CONVERT_KV_EVICTION] = &pm_kv_eviction_schema,
    };
    struct pm_birth birth;
    struct pm_recorder_options options = {
        .schemas = schemas,
        .n_schemas = PM_CONVERT_SCHEMAS,
        .ceiling_bytes = CEILING_BYTES,
        .file_mode = 0600,
    };
    bool made, fallback;

    pm_birth_reserve(&birth);
    birth.root = true;
    birth.start_mono_ns = START_MONO_NS;
    birth.start_real_ns = started(dir);
    const time_t at = (time_t)(birth.start_real_ns / 1000000000ull);
    struct tm when;
    if (localtime_r(&at, &when) == NULL ||
        strftime(birth.name, sizeof(birth.name), "session_%Y%m%d_%H%M%S", &when) == 0)
        snprintf(birth.name, sizeof(birth.name), "session_19700101_000000");
    int rc = pm_birth_directory(&birth, base_dir, all->result->path, sizeof(all->result->path),
                                &made, &fallback, all->err);
    if (rc != 0)
        return rc;
    if (fallback) {
        pm_convert_remove(all->result->path);
        return -PM_EPERMISSION; /* err says why */
    }
    options.session_dir = all->result->path;
    options.token = birth.token;
    all->start_ns = START_MONO_NS;
    rc = pm_recorder_open(&all->rec, &options, all->err);
    if (rc != 0)
        return rc;
    pm_recorder_identify(all->rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    say_attributes(all, dir);
    return 0;
}

/* ---- merging ---- */

#define SOURCES 5

static int merge(struct pm_convert *all, struct pm_source *const sources[SOURCES])
{
    for (;;) {
        struct pm_source *first = NULL;
        for (unsigned s = 0; s < SOURCES; s++)
            if (!sources[s]->at_end && (first == NULL || sources[s]->at_ns < first->at_ns))
                first = sources[s];
        if (first == NULL)
            return 0;
        if (first->at_ns != UINT64_MAX && all->start_ns + first->at_ns > all->last_ns)
            all->last_ns = all->start_ns + first->at_ns;
        int rc = first->write(first, all);
        if (rc < 0)
            return rc;
    }
}

/* The record file's times are those of now: put those of the old session in their place. */
static int set_times(const struct pm_convert *all, uint64_t start_real_ns)
{
    char records[4352], path[4700] = "";
    struct pm_file_head head;
    const struct dirent *entry;

    snprintf(records, sizeof(records), "%s/records", all->result->path);
    DIR *list = opendir(records);
    while (list != NULL && (entry = readdir(list)) != NULL)
        if (strstr(entry->d_name, ".pmrec") != NULL)
            snprintf(path, sizeof(path), "%s/%s", records, entry->d_name);
    if (list != NULL)
        closedir(list);
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool done = fd >= 0 && pread(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head);
    if (done) {
        head.opened.mono_ns = START_MONO_NS;
        head.opened.real_ns = start_real_ns;
        atomic_store(&head.heartbeat_ns, all->last_ns);
        atomic_store(&head.closed_ns, all->last_ns);
        done = pwrite(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head);
    }
    if (fd >= 0)
        close(fd);
    return done ? 0
                : pm_error_set(all->err, -PM_EIO, "the records in %.300s cannot be completed",
                               all->result->path);
}

/* The session in a folder of its own. */
static int make(struct pm_convert *all, const char *old_dir, const char *folder,
                struct pm_source *const sources[SOURCES])
{
    int rc = open_session(all, old_dir, folder);
    if (rc != 0)
        return rc;
    rc = merge(all, sources);
    pm_recorder_close(all->rec);
    if (rc == 0)
        rc = pm_birth_unspool(all->result->path, NULL, all->err);
    return rc == 0 ? set_times(all, started(old_dir)) : rc;
}

int pm_convert_old(const char *old_dir, char *folder_template, struct pm_convert_result *ret_result,
                   struct pm_error *err)
{
    static int (*const open[SOURCES])(struct pm_source * *ret_source, const char *dir,
                                      struct pm_error *err) = {
        pm_source_steps, pm_source_kv, pm_source_evictions, pm_source_events, pm_source_requests};
    struct pm_source *sources[SOURCES] = {NULL};
    struct pm_convert_result result = {.passes = 0};
    struct pm_convert all = {.result = &result, .err = err, .on_device = !ran_on_cpu(old_dir)};
    int rc = 0;

    if (!pm_convert_is_old(old_dir))
        return pm_error_set(
            err, -PM_EFORMAT,
            "%.300s has no CSV file of the profiler (forward_pass_timing.csv and the like)%s",
            old_dir, has_file(old_dir, "session") ? ", it is a session already" : "");
    for (unsigned s = 0; s < SOURCES && rc == 0; s++)
        rc = open[s](&sources[s], old_dir, err);
    if (rc == 0 && mkdtemp(folder_template) == NULL)
        rc = pm_error_set(err, pm_error_from_errno(errno), "cannot make the folder %.300s, %s",
                          folder_template, strerror(errno));
    else if (rc == 0 && (rc = make(&all, old_dir, folder_template, sources)) != 0)
        pm_convert_remove(folder_template);
    for (unsigned s = 0; s < SOURCES; s++)
        if (sources[s] != NULL)
            sources[s]->close(sources[s]);
    if (rc == 0)
        *ret_result = result;
    return rc;
}
