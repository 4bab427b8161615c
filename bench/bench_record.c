/*
 * What one record costs: reserve, fill, commit. Prints nanoseconds per record by size, hot, with
 * the helper thread; the worst single record at 500 records a second, which is the stall that a
 * step may see; and what a name costs that is known already. A bench, not a test: it asserts
 * nothing.
 *
 *   bench_record [seconds of the stall measurement, default 3]
 */
#include "recorder/recorder.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"

struct record {
    uint64_t n, a, b, c, d, e, f;
};

#define FIELD(member, agg_) PM_FIELD(struct record, member, U64, "ns", DURATION, agg_, "bench")
static const struct pm_field fields[] = {FIELD(n, PM_AGG_NONE), FIELD(a, PM_AGG_HIST),
                                         FIELD(b, PM_AGG_SUM)};
static const struct pm_schema tables[] = {
    {"r24", PM_STREAM_CORE, 24, 1, "bench", fields, 3},
    {"r40", PM_STREAM_CORE, 40, 1, "bench", fields, 3},
    {"r56", PM_STREAM_CORE, 56, 1, "bench", fields, 3},
};
static const struct pm_schema *const schemas[] = {&tables[0], &tables[1], &tables[2]};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* ns per record of a batch, or 0 if the helper was behind. Inlined, so that a payload is filled by
 * so many stores and no loop. */
static inline __attribute__((always_inline)) double
batch_ns(struct pm_recorder *rec, unsigned schema, size_t bytes, unsigned records)
{
    uint64_t begin_ns = pm_clock_vdso_ns(), lost = 0;
    for (uint64_t n = 0; n < records; n++) {
        struct record *payload = pm_recorder_reserve(rec, schema);
        if (payload == NULL) {
            lost++;
            continue;
        }
        payload->n = payload->a = payload->b = n;
        if (bytes >= 40)
            payload->c = payload->d = n;
        if (bytes >= 56)
            payload->e = payload->f = n;
        pm_recorder_commit(rec, payload);
    }
    double ns = (double)(pm_clock_vdso_ns() - begin_ns) / records;
    return lost == 0 ? ns : 0;
}

/* Median over batches that fit into one segment, so that the figure is the record's and not the
 * switch's. */
static void throughput(struct pm_recorder *rec, unsigned schema, unsigned records, const char *how)
{
    enum { BATCHES = 401 };
    double ns[BATCHES] = {0};
    for (int batch = 0, tries = 0; batch < BATCHES && tries < 20 * BATCHES; tries++) {
        ns[batch] = schema == 0   ? batch_ns(rec, 0, 24, records)
                    : schema == 1 ? batch_ns(rec, 1, 40, records)
                                  : batch_ns(rec, 2, 56, records);
        batch += ns[batch] > 0;
        pm_recorder_round(rec);
    }
    qsort(ns, BATCHES, sizeof *ns, by_value);
    printf("record of %2u bytes, %-22s %5.2f ns (fastest %.2f)\n",
           tables[schema].payload_bytes + 8u, how, ns[BATCHES / 2], ns[0]);
}

static void names(struct pm_recorder *rec)
{
    enum { CALLS = 1000000 };
    char text[64];
    for (int i = 0; i < 256; i++) {
        int n = snprintf(text, sizeof text, "chatcmpl-%032d", i);
        (void)pm_recorder_string(rec, PM_STREAM_CORE, text, (size_t)n);
    }
    uint64_t begin_ns = pm_clock_vdso_ns();
    uint32_t sum = 0;
    for (int i = 0; i < CALLS; i++)
        sum += pm_recorder_string(rec, PM_STREAM_CORE, text, 41);
    printf("a name that is held: %5.2f ns%s\n", (double)(pm_clock_vdso_ns() - begin_ns) / CALLS,
           sum == 0 ? " (none)" : "");
}

/* 500 steps a second of 2 KB each, so that segments are switched within the measurement. Without a
 * recorder as much time goes by in stores to the stack: what the machine itself (interrupts, a
 * hypervisor) does to such a loop. */
static void stalls(struct pm_recorder *rec, double seconds)
{
    size_t steps = (size_t)(seconds * 500);
    double *us = calloc(steps + 1, sizeof *us);
    if (us == NULL || steps == 0)
        goto out;
    for (size_t step = 0; step < steps; step++) {
        struct timespec ts = {0, 2000000};
        struct record own;
        nanosleep(&ts, NULL);
        uint64_t begin_ns = pm_clock_vdso_ns();
        for (int i = 0; i < (rec != NULL ? 32 : 160); i++) {
            void *payload = rec != NULL ? pm_recorder_reserve(rec, 2) : &own;
            if (payload == NULL)
                continue;
            memset(payload, 1, sizeof own);
            __asm__ volatile("" ::"r"(payload) : "memory");
            if (rec != NULL)
                pm_recorder_commit(rec, payload);
        }
        us[step] = (double)(pm_clock_vdso_ns() - begin_ns) / 1000;
    }
    qsort(us, steps, sizeof *us, by_value);
    printf("32 records at 500 steps/s, %s median %.2f us, 99 %% %.2f us, 99.9 %% %.2f us, worst "
           "%.2f us\n",
           rec != NULL ? "recorded:    " : "not recorded:", us[steps / 2], us[steps * 99 / 100],
           us[steps * 999 / 1000], us[steps - 1]);
out:
    free(us);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/bench_record-XXXXXX", records[64];
    static const uint8_t token[PM_TOKEN_BYTES] = "bench";
    struct pm_error err;
    struct pm_recorder *rec;
    if (mkdtemp(dir) == NULL)
        return 1;
    snprintf(records, sizeof records, "%s/records", dir);
    if (mkdir(records, 0700) != 0)
        return 1;
    struct pm_recorder_options options = {
        .session_dir = dir, .token = token, .schemas = schemas, .n_schemas = 3, .file_mode = 0600};
    /* The smallest segments, taken again and again in the caller: their lines are in the cache, as
     * those of a process are that does little else. */
    options.thread = false;
    options.ceiling_bytes = 0;
    options.segment_bytes = PM_SEGMENT_BYTES_MIN;
    if (pm_recorder_open(&rec, &options, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (unsigned schema = 0; schema < 3; schema++)
        throughput(rec, schema, 300, "in the cache:");
    pm_recorder_close(rec);

    options.thread = true;
    options.ceiling_bytes = 64u << 20;
    options.segment_bytes = 0;
    if (pm_recorder_open(&rec, &options, &err) != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (unsigned schema = 0; schema < 3; schema++)
        throughput(rec, schema, 4000, "through new memory:");
    names(rec);
    double seconds = argc > 1 ? atof(argv[1]) : 3;
    stalls(NULL, seconds);
    stalls(rec, seconds);
    printf("lost while measuring: %llu\n",
           (unsigned long long)pm_recorder_head(rec)->lost[PM_STREAM_CORE]);
    pm_recorder_close(rec);
    (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}
