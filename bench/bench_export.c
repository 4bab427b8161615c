/*
 * How fast a session becomes CSV: makes a session of N steps (scheduler and worker in one process,
 * as records of a real recorder) in a folder, then times opening it, the join alone, and the export
 * of the full preset: processor time, best of five.
 *
 *   bench_export [STEPS [FOLDER]]     default: 2000000 steps, $TMPDIR or /tmp
 */
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "session/step_facts.h"
#include "session/step_schema.h"
#include "recorder/recorder.h"
#include "view/view.h"

static void die(const char *what)
{
    fprintf(stderr, "bench_export: %s\n", what);
    exit(1);
}

static void put(struct pm_recorder *rec, unsigned schema, const void *fact, size_t bytes)
{
    void *payload = pm_recorder_reserve(rec, schema);
    for (int i = 0; payload == NULL && i < 10000; i++) {
        pm_recorder_round(rec);
        payload = pm_recorder_reserve(rec, schema);
    }
    if (payload == NULL)
        die("no room for a record");
    memcpy(payload, fact, bytes);
    pm_recorder_commit(rec, payload);
}

static void make_session(const char *dir, uint64_t steps)
{
    static const uint8_t token[PM_TOKEN_BYTES] = {1};
    static const char text[] = "token 01000000000000000000000000000000\nstart_mono_ns 1\n"
                               "start_real_ns 1795422301000000000\n";
    const struct pm_schema *const schemas[] = {&pm_sched_step_schema, &pm_worker_step_schema};
    const struct pm_recorder_options options = {.session_dir = dir,
                                                .token = token,
                                                .schemas = schemas,
                                                .n_schemas = 2,
                                                .ceiling_bytes = 64ull << 30,
                                                .file_mode = 0600};
    struct pm_recorder *rec;
    struct pm_error err = {""};
    char path[600];

    snprintf(path, sizeof(path), "%s/records", dir);
    if (mkdir(path, 0700) != 0)
        die("the folder records cannot be made");
    snprintf(path, sizeof(path), "%s/session", dir);
    FILE *file = fopen(path, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
        die("the file session cannot be written");
    if (pm_recorder_open(&rec, &options, &err) != 0)
        die(err.text);
    pm_recorder_identify(rec, PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
    for (uint64_t step = 0; step < steps; step++) {
        const uint32_t requests = 1 + (uint32_t)(step % 256),
                       ns = 5000000 + (uint32_t)(step * 7919 % 3000000);
        const uint8_t phase = step % 20 == 0 ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
        const struct pm_sched_step sched = {.step = step,
                                            .start_ns = 1 + step * 10000000,
                                            .dur_ns = 40000,
                                            .phase = phase,
                                            .requests = requests,
                                            .tokens = requests,
                                            .decode_requests = requests,
                                            .decode_tokens = requests,
                                            .running = requests};
        const struct pm_worker_step worker = {.step = step,
                                              .start_ns = sched.start_ns + 100000,
                                              .model_ns_at = sched.start_ns + 200000,
                                              .pre_ns = 100000,
                                              .model_ns = ns,
                                              .total_ns = ns + 300000,
                                              .requests = requests,
                                              .tokens = requests,
                                              .phase = phase,
                                              .flags = PM_WORKER_HAS_MODEL};
        put(rec, 0, &sched, sizeof(sched));
        put(rec, 1, &worker, sizeof(worker));
    }
    pm_recorder_close(rec);
}

/* Time on the processor, so that a busy machine does not count. */
static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(cpu_ns() - start_ns) / 1e9;
}

/* One round: opening, joining, exporting. Returns the CSV rows, of all files. */
static uint64_t measure(const char *dir, uint64_t steps, double ret_best[3])
{
    struct pm_session *session;
    struct pm_steps *join;
    struct pm_step step;
    struct pm_export_options options = {.preset = -1};
    struct pm_export_result result;
    struct pm_error err = {""};
    uint64_t start = cpu_ns(), seen = 0;
    double took[3];

    if (pm_session_open(&session, dir, &err) != 0)
        die(err.text);
    took[0] = seconds_since(start);
    (void)pm_session_engine_count(session); /* found once per session */
    start = cpu_ns();
    if (pm_steps_open(&join, session, 0, 0) != 0)
        die("the steps cannot be read");
    while (pm_steps_next(join, &step) == 1)
        seen += step.matched;
    pm_steps_close(join);
    took[1] = seconds_since(start);
    pm_session_close(session);
    start = cpu_ns();
    if (pm_session_open(&session, dir, &err) != 0 ||
        pm_export_seed(session, &options, &result, &err) != 0)
        die(err.text);
    took[2] = seconds_since(start);
    pm_session_close(session);
    if (seen != steps || result.rows == 0 || result.rows % steps != 0)
        die("rows are missing");
    for (unsigned i = 0; i < 3; i++)
        if (ret_best[i] == 0.0 || took[i] < ret_best[i])
            ret_best[i] = took[i];
    return result.rows;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    const uint64_t steps = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000;
    const char *base = argc > 2 ? argv[2] : getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    double best[3] = {0};
    uint64_t rows = 0;
    char dir[500];

    snprintf(dir, sizeof(dir), "%s/bench-export-XXXXXX", base);
    if (steps == 0 || mkdtemp(dir) == NULL)
        die("usage: bench_export [STEPS [FOLDER]]");
    make_session(dir, steps);
    for (int round = 0; round < 5; round++)
        rows = measure(dir, steps, best);
    (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    printf("steps             %llu (two records each)\n", (unsigned long long)steps);
    printf("open              %.3f ms\n", best[0] * 1e3);
    printf("join              %.1f million steps/s\n", (double)steps / best[1] / 1e6);
    printf("open and export   %.2f million CSV rows/s, %llu rows\n", (double)rows / best[2] / 1e6,
           (unsigned long long)rows);
    return 0;
}
