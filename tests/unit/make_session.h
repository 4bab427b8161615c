/*
 * Sessions for the reader's and the views' tests, in two ways: through the real recorder (mk_…),
 * and byte by byte (img_…) for what no recorder would write. Times are made up: the session starts
 * at 1 s of CLOCK_MONOTONIC.
 */
#ifndef PM_TESTS_MAKE_SESSION_H
#define PM_TESTS_MAKE_SESSION_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session/step_facts.h"
#include "reader/reader.h"
#include "reader/steps.h"
#include "recorder/recorder.h"

#define MK_START_MONO 1000000000ull
#define MK_START_REAL 1795422301000000000ull
#define MK_US 1000ull
#define MK_MS 1000000ull

static const uint8_t mk_token[PM_TOKEN_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* ---- schemas, as the step probe declares them ---- */

#define S(member, type, kind, agg) PM_FIELD(struct pm_sched_step, member, type, "", kind, agg, "")
static const struct pm_field mk_sched_fields[] = {
    S(step, U64, ID, PM_AGG_NONE),
    S(start_ns, U64, TIME, PM_AGG_NONE),
    S(dur_ns, U32, DURATION, PM_AGG_HIST),
    S(instance, U16, ID, PM_AGG_NONE),
    S(phase, U8, ID, PM_AGG_CLASS),
    S(flags, U8, FLAGS, PM_AGG_NONE),
    S(requests, U32, COUNT, PM_AGG_HIST),
    S(tokens, U32, COUNT, PM_AGG_HIST),
    S(prefill_requests, U32, COUNT, PM_AGG_SUM),
    S(prefill_tokens, U32, COUNT, PM_AGG_SUM),
    S(recompute_requests, U32, COUNT, PM_AGG_SUM),
    S(recompute_tokens, U32, COUNT, PM_AGG_SUM),
    S(decode_requests, U32, COUNT, PM_AGG_SUM),
    S(decode_tokens, U32, COUNT, PM_AGG_SUM),
    S(spec_requests, U32, COUNT, PM_AGG_SUM),
    S(spec_tokens, U32, COUNT, PM_AGG_SUM),
    S(running, U32, GAUGE, PM_AGG_NONE),
    S(waiting, U32, GAUGE, PM_AGG_NONE),
};
#undef S
#define W(member, type, kind, agg) PM_FIELD(struct pm_worker_step, member, type, "", kind, agg, "")
static const struct pm_field mk_worker_fields[] = {
    W(step, U64, ID, PM_AGG_NONE),           W(start_ns, U64, TIME, PM_AGG_NONE),
    W(model_ns_at, U64, TIME, PM_AGG_NONE),  W(gpu_ns, U64, DURATION, PM_AGG_HIST),
    W(pre_ns, U32, DURATION, PM_AGG_HIST),   W(model_ns, U32, DURATION, PM_AGG_HIST),
    W(post_ns, U32, DURATION, PM_AGG_HIST),  W(sample_ns, U32, DURATION, PM_AGG_HIST),
    W(total_ns, U32, DURATION, PM_AGG_HIST), W(sync_ns, U32, DURATION, PM_AGG_HIST),
    W(requests, U32, COUNT, PM_AGG_SUM),     W(tokens, U32, COUNT, PM_AGG_SUM),
    W(instance, U16, ID, PM_AGG_NONE),       W(phase, U8, ID, PM_AGG_CLASS),
    W(runner, U8, ID, PM_AGG_NONE),          W(flags, U32, FLAGS, PM_AGG_NONE),
};
#undef W
#define Y(member, type, kind)                                                                      \
    PM_FIELD(struct pm_worker_sync, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field mk_sync_fields[] = {Y(step, U64, ID), Y(sync_at_ns, U64, TIME),
                                                 Y(instance, U32, ID)};
#undef Y
#define R(member, type, kind)                                                                      \
    PM_FIELD(struct pm_step_request, member, type, "", kind, PM_AGG_NONE, "")
static const struct pm_field mk_request_fields[] = {
    R(step, U64, ID),        R(at_ns, U64, TIME),  R(request, STR, ID), R(tokens, U32, COUNT),
    R(computed, U32, GAUGE), R(instance, U16, ID), R(event, U8, ID),    R(phase, U8, ID)};
#undef R

enum { MK_SCHED, MK_REQUEST, MK_WORKER, MK_SYNC, MK_SCHEMAS };
#define MK_TABLE(name_, struct_, classes_, fields_)                                                \
    {                                                                                              \
        .name = (name_), .stream = PM_STREAM_CORE, .payload_bytes = sizeof(struct struct_),        \
        .classes = (classes_), .doc = "test table", .fields = (fields_),                           \
        .n_fields = sizeof(fields_) / sizeof((fields_)[0])                                         \
    }
static const struct pm_schema mk_tables[MK_SCHEMAS] = {
    [MK_SCHED] = MK_TABLE("sched_step", pm_sched_step, PM_PHASE_CLASSES, mk_sched_fields),
    [MK_REQUEST] = MK_TABLE("step_request", pm_step_request, 1, mk_request_fields),
    [MK_WORKER] = MK_TABLE("worker_step", pm_worker_step, PM_PHASE_CLASSES, mk_worker_fields),
    [MK_SYNC] = MK_TABLE("worker_sync", pm_worker_sync, 1, mk_sync_fields),
};
static const struct pm_schema *const mk_schemas[MK_SCHEMAS] = {&mk_tables[0], &mk_tables[1],
                                                               &mk_tables[2], &mk_tables[3]};

/* ---- folders and files ---- */

static inline void mk_write(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* The whole file, NUL-terminated; free it. */
static inline char *mk_read(const char *path, size_t *ret_bytes)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return NULL;
    char *bytes = malloc((size_t)st.st_size + 1);
    FILE *file = fopen(path, "rb");
    assert_non_null(bytes);
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, file), st.st_size);
    fclose(file);
    bytes[st.st_size] = '\0';
    if (ret_bytes != NULL)
        *ret_bytes = (size_t)st.st_size;
    return bytes;
}

static inline int mk_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static inline void mk_remove(const char *path)
{
    (void)nftw(path, mk_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A fresh session folder: the file `session`, and records/. */
static inline void mk_folder(char *ret_path, size_t size)
{
    const char *base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    char path[512], text[512];
    int used;
    snprintf(ret_path, size, "%s/pmview-XXXXXX", base);
    assert_non_null(mkdtemp(ret_path));
    snprintf(path, sizeof path, "%s/records", ret_path);
    assert_int_equal(mkdir(path, 0700), 0);
    used = snprintf(text, sizeof text, "token ");
    for (int i = 0; i < PM_TOKEN_BYTES; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%02x", mk_token[i]);
    used += snprintf(text + used, sizeof text - (size_t)used,
                     "\nstart_mono_ns %llu\nstart_real_ns %llu\nroot_pid 77\n", MK_START_MONO,
                     MK_START_REAL);
    snprintf(path, sizeof path, "%s/session", ret_path);
    mk_write(path, text, (size_t)used);
}

/* ---- through the recorder ---- */

struct mk {
    struct pm_recorder *rec;
    char dir[300];
    char file[600]; /* path of the record file */
};

/* The record file that was not there before. */
static inline void mk_find_file(struct mk *mk)
{
    char path[400];
    struct stat st;
    ino_t newest = 0;
    struct timespec when = {0};
    snprintf(path, sizeof path, "%s/records", mk->dir);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char file[700];
        if (strstr(entry->d_name, ".pmrec") == NULL)
            continue;
        snprintf(file, sizeof file, "%s/%.250s", path, entry->d_name);
        assert_int_equal(stat(file, &st), 0);
        /* Made last: nothing else is written between two openings. */
        if (newest == 0 || st.st_ctim.tv_sec > when.tv_sec ||
            (st.st_ctim.tv_sec == when.tv_sec && st.st_ctim.tv_nsec > when.tv_nsec)) {
            newest = st.st_ino;
            when = st.st_ctim;
            snprintf(mk->file, sizeof mk->file, "%.590s", file);
        }
    }
    closedir(dir);
}

static inline void mk_open(struct mk *mk, const char *dir, uint64_t ceiling_bytes, bool thread)
{
    struct pm_recorder_options options = {.session_dir = dir,
                                          .token = mk_token,
                                          .schemas = mk_schemas,
                                          .n_schemas = MK_SCHEMAS,
                                          .ceiling_bytes = ceiling_bytes,
                                          .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                          .file_mode = 0600,
                                          .thread = thread};
    struct pm_error err = {""};
    snprintf(mk->dir, sizeof mk->dir, "%s", dir);
    if (pm_recorder_open(&mk->rec, &options, &err) != 0)
        fail_msg("%s", err.text);
    mk_find_file(mk);
}

/* Ends the file as a process of this number and parent, begun at this time. */
static inline void mk_close(struct mk *mk, uint32_t pid, uint32_t ppid, uint64_t opened_ns,
                            bool killed)
{
    struct pm_file_head head;
    pm_recorder_close(mk->rec);
    mk->rec = NULL;
    int fd = open(mk->file, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &head, sizeof head, 0), sizeof head);
    head.pid = pid;
    head.ppid = ppid;
    head.opened.mono_ns = opened_ns;
    head.opened.real_ns = opened_ns - MK_START_MONO + MK_START_REAL;
    atomic_store(&head.closed_ns, killed ? 0 : opened_ns + 10000000000ull);
    atomic_store(&head.heartbeat_ns, opened_ns + 9000000000ull);
    if (killed)
        atomic_store(&head.state, atomic_load(&head.state) & ~(unsigned)PM_STATE_CLOSED);
    assert_int_equal(pwrite(fd, &head, sizeof head, 0), sizeof head);
    close(fd);
}

static inline void mk_put(struct mk *mk, unsigned schema, const void *fact, size_t bytes)
{
    void *payload = pm_recorder_reserve(mk->rec, schema);
    for (int i = 0; payload == NULL && i < 100; i++) {
        usleep(1000); /* the helper makes the next segment */
        payload = pm_recorder_reserve(mk->rec, schema);
    }
    assert_non_null(payload);
    memcpy(payload, fact, bytes);
    pm_recorder_commit(mk->rec, payload);
}

static inline void mk_sched(struct mk *mk, struct pm_sched_step fact)
{
    mk_put(mk, MK_SCHED, &fact, sizeof fact);
}
static inline void mk_worker(struct mk *mk, struct pm_worker_step fact)
{
    mk_put(mk, MK_WORKER, &fact, sizeof fact);
}
static inline void mk_sync(struct mk *mk, uint64_t step, uint64_t at_ns, uint32_t instance)
{
    struct pm_worker_sync fact = {.step = step, .sync_at_ns = at_ns, .instance = instance};
    mk_put(mk, MK_SYNC, &fact, sizeof fact);
}

/* A step that prefills p requests of 100 tokens and decodes d, 10 ms after the one before. */
static inline struct pm_sched_step mk_sched_of(uint64_t step, uint32_t p, uint32_t d)
{
    return (struct pm_sched_step){.step = step,
                                  .start_ns = MK_START_MONO + (step + 1) * 10 * MK_MS,
                                  .dur_ns = 50000,
                                  .phase = p > 0   ? PM_PHASE_PREFILL
                                           : d > 0 ? PM_PHASE_DECODE
                                                   : PM_PHASE_EMPTY,
                                  .flags = p > 0 && d > 0 ? PM_SCHED_MIXED : 0,
                                  .requests = p + d,
                                  .tokens = 100 * p + d,
                                  .prefill_requests = p,
                                  .prefill_tokens = 100 * p,
                                  .decode_requests = d,
                                  .decode_tokens = d,
                                  .running = p + d,
                                  .waiting = p};
}

/* The same step at the worker: the model starts 200 µs after schedule()'s start + 1 ms. */
static inline struct pm_worker_step mk_worker_of(uint64_t step, uint32_t p, uint32_t d,
                                                 uint32_t model_ns)
{
    const uint64_t start = MK_START_MONO + (step + 1) * 10 * MK_MS + 1 * MK_MS;
    const bool empty = p + d == 0;
    return (struct pm_worker_step){.step = step,
                                   .start_ns = start,
                                   .model_ns_at = empty ? 0 : start + 200 * MK_US,
                                   .pre_ns = 200000,
                                   .model_ns = empty ? 0 : model_ns,
                                   .post_ns = 30000,
                                   .sample_ns = empty ? 0 : 100000,
                                   .total_ns = 330000 + model_ns,
                                   .requests = p + d,
                                   .tokens = 100 * p + d,
                                   .phase = p > 0   ? PM_PHASE_PREFILL
                                            : d > 0 ? PM_PHASE_DECODE
                                                    : PM_PHASE_EMPTY,
                                   .runner = 1,
                                   .flags = empty ? 0 : PM_WORKER_HAS_MODEL | PM_WORKER_HAS_SAMPLE};
}

static inline struct pm_session *mk_session(const char *dir)
{
    struct pm_session *session = NULL;
    struct pm_error err = {""};
    if (pm_session_open(&session, dir, &err) != 0)
        fail_msg("%s", err.text);
    return session;
}

/* ---- byte by byte ---- */

struct img {
    uint8_t bytes[4096 + 4 * PM_SEGMENT_BYTES_MIN];
    size_t slots;
    size_t at; /* where the next record goes */
    uint64_t ordinal;
};

static inline void img_begin(struct img *img)
{
    struct pm_file_head head = {.magic = PM_FILE_MAGIC,
                                .version = PM_FORMAT_VERSION,
                                .header_bytes = 4096,
                                .segment_bytes = PM_SEGMENT_BYTES_MIN,
                                .pid = 77,
                                .ppid = 1,
                                .opened = {0, MK_START_MONO, MK_START_REAL},
                                .live_index = 2};
    memset(img, 0, sizeof *img);
    memcpy(head.token, mk_token, sizeof mk_token);
    atomic_store(&head.roles, PM_ROLE_ENGINE | PM_ROLE_WORKER);
    memcpy(img->bytes, &head, sizeof head);
}

static inline void img_segment(struct img *img, enum pm_stream stream, uint64_t index,
                               uint64_t first_ordinal, uint64_t first_fact)
{
    struct pm_segment_head head = {.magic = PM_SEGMENT_MAGIC,
                                   .index = index,
                                   .stream = stream,
                                   .first_ordinal = first_ordinal,
                                   .first_fact = first_fact};
    img->at = 4096 + img->slots++ * PM_SEGMENT_BYTES_MIN;
    assert_true(img->slots <= 4);
    memcpy(img->bytes + img->at, &head, sizeof head);
    img->at += sizeof head;
    img->ordinal = first_ordinal;
}

static inline void img_record(struct img *img, uint32_t schema, const void *payload, size_t bytes)
{
    const uint32_t words = 1 + (uint32_t)((bytes + 7) / 8);
    const uint64_t head = pm_record_head_make(schema, words, img->ordinal++);
    memcpy(img->bytes + img->at, &head, 8);
    memcpy(img->bytes + img->at + 8, payload, bytes);
    img->at += 8 * (size_t)words;
}

static inline void img_seal(struct img *img)
{
    const size_t slot = 4096 + (img->slots - 1) * PM_SEGMENT_BYTES_MIN;
    const uint64_t sealed = img->at - slot;
    memcpy(img->bytes + slot + offsetof(struct pm_segment_head, sealed_bytes), &sealed, 8);
}

static inline void img_schemas(struct img *img)
{
    for (uint32_t i = 0; i < MK_SCHEMAS; i++) {
        uint8_t payload[8 + 4096];
        const size_t bytes = pm_schema_to_text(mk_schemas[i], (char *)payload + 8, 4096);
        const uint32_t id = PM_SCHEMA_FIRST + i, n = (uint32_t)bytes;
        assert_true(bytes < 4096);
        memcpy(payload, &id, 4);
        memcpy(payload + 4, &n, 4);
        img_record(img, PM_SCHEMA_SCHEMA, payload, 8 + bytes);
    }
}

static inline void img_string(struct img *img, uint32_t id, const char *text)
{
    uint8_t payload[8 + 256];
    const uint32_t n = (uint32_t)strlen(text);
    memcpy(payload, &id, 4);
    memcpy(payload + 4, &n, 4);
    memcpy(payload + 8, text, n);
    img_record(img, PM_SCHEMA_STRING, payload, 8 + n);
}

static inline void img_attr(struct img *img, const char *key, const char *value)
{
    uint8_t payload[16 + 512];
    const uint64_t at = MK_START_MONO;
    const uint32_t k = (uint32_t)strlen(key), v = (uint32_t)strlen(value);
    memcpy(payload, &at, 8);
    memcpy(payload + 8, &k, 4);
    memcpy(payload + 12, &v, 4);
    memcpy(payload + 16, key, k);
    memcpy(payload + 16 + k, value, v);
    img_record(img, PM_SCHEMA_ATTR, payload, 16 + k + v);
}

static inline void img_keyframe(struct img *img)
{
    const uint64_t at = MK_START_MONO;
    img_record(img, PM_SCHEMA_KEYFRAME, &at, 8);
}

static inline void img_facts(struct img *img, uint64_t from, uint64_t to)
{
    for (uint64_t step = from; step < to; step++) {
        struct pm_sched_step sched = mk_sched_of(step, step % 4 == 0, 2);
        struct pm_worker_step worker = mk_worker_of(step, step % 4 == 0, 2, 3000000);
        struct pm_step_request request = {.step = step, .at_ns = sched.start_ns, .request = 7};
        img_record(img, PM_SCHEMA_FIRST + MK_SCHED, &sched, sizeof sched);
        img_record(img, PM_SCHEMA_FIRST + MK_REQUEST, &request, sizeof request);
        img_record(img, PM_SCHEMA_FIRST + MK_WORKER, &worker, sizeof worker);
    }
}

static inline size_t img_bytes(const struct img *img)
{
    return 4096 + img->slots * PM_SEGMENT_BYTES_MIN;
}

/* One process: attributes and schemas, then n steps in one CORE segment. */
static inline void img_example(struct img *img, uint64_t n)
{
    img_begin(img);
    img_segment(img, PM_STREAM_KEEP, 0, 0, 0);
    img_schemas(img);
    img_keyframe(img);
    img_attr(img, "model", "tiny");
    img_attr(img, "model", "tiny-2");
    img_segment(img, PM_STREAM_CORE, 0, 0, 0);
    img_schemas(img);
    img_string(img, 7, "request-seven");
    img_keyframe(img);
    img_facts(img, 0, n);
}

static inline void img_save(const struct img *img, const char *dir, const char *name, size_t bytes)
{
    char path[700];
    snprintf(path, sizeof path, "%s/records/%s", dir, name);
    mk_write(path, img->bytes, bytes);
}

#endif
