/*
 * Makes sessions for the tests of the program, with the real recorder and no Python:
 *
 *   make_session [key=value]...
 *     dir=DIR      where sessions go (default: VLLM_PROFILING_DIR)
 *     steps=N      engine steps to record (default 10; every fourth is a prefill)
 *     end=close    ends its file; kill, fault: SIGKILL, SIGSEGV to itself; hold: waits for the end
 *                  of stdin, then closes; none: the folder only
 *     more=N       with end=hold: each line of stdin records so many steps more and is answered
 *     ceiling_mb=N ceiling of the records (default 64)
 *     role=engine  what the process is, or frontend
 *     name=NAME    of the folder, instead of the time
 *     start=SEC    seconds since 1970 at which it began
 *     session.env=1  join the session in VLLM_PROFILING_SESSION, as a server under `run` does
 *     attr.KEY=VALUE  an attribute
 *     lost=N, faults=N  figures of the live header
 *
 * Prints the session's folder on stdout when everything is recorded.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "session/step_facts.h"
#include "recorder/birth.h"
#include "recorder/recorder.h"
#include "session/attrs.h"
#include "session/doing.h"

#define F(member, type, unit, kind, agg)                                                           \
    PM_FIELD(struct pm_sched_step, member, type, unit, kind, agg, "as the probe says")
static const struct pm_field sched_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE),
    F(dur_ns, U32, "ns", DURATION, PM_AGG_HIST),
    F(instance, U16, "", ID, PM_AGG_NONE),
    F(phase, U8, "", ID, PM_AGG_CLASS),
    F(requests, U32, "requests", COUNT, PM_AGG_HIST),
    F(tokens, U32, "tokens", COUNT, PM_AGG_HIST),
    F(prefill_requests, U32, "requests", COUNT, PM_AGG_SUM),
    F(prefill_tokens, U32, "tokens", COUNT, PM_AGG_SUM),
    F(decode_requests, U32, "requests", COUNT, PM_AGG_SUM),
    F(decode_tokens, U32, "tokens", COUNT, PM_AGG_SUM),
    F(running, U32, "requests", GAUGE, PM_AGG_NONE),
    F(waiting, U32, "requests", GAUGE, PM_AGG_NONE),
};
#undef F
#define F(member, type, unit, kind, agg)                                                           \
    PM_FIELD(struct pm_worker_step, member, type, unit, kind, agg, "as the probe says")
static const struct pm_field worker_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE),
    F(model_ns_at, U64, "ns", TIME, PM_AGG_NONE),
    F(pre_ns, U32, "ns", DURATION, PM_AGG_HIST),
    F(model_ns, U32, "ns", DURATION, PM_AGG_HIST),
    F(post_ns, U32, "ns", DURATION, PM_AGG_HIST),
    F(total_ns, U32, "ns", DURATION, PM_AGG_HIST),
    F(requests, U32, "requests", COUNT, PM_AGG_SUM),
    F(tokens, U32, "tokens", COUNT, PM_AGG_SUM),
    F(instance, U16, "", ID, PM_AGG_NONE),
    F(phase, U8, "", ID, PM_AGG_CLASS),
    F(runner, U8, "", ID, PM_AGG_NONE),
    F(flags, U32, "", FLAGS, PM_AGG_NONE),
};
#undef F
static const struct pm_schema sched_schema = {
    .name = "sched_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_sched_step),
    .classes = PM_PHASE_CLASSES,
    .doc = "one per step",
    .fields = sched_fields,
    .n_fields = sizeof(sched_fields) / sizeof(sched_fields[0]),
};
static const struct pm_schema worker_schema = {
    .name = "worker_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_worker_step),
    .classes = PM_PHASE_CLASSES,
    .doc = "one per executed step",
    .fields = worker_fields,
    .n_fields = sizeof(worker_fields) / sizeof(worker_fields[0]),
};

static int n_args;
static char **args;

/* The value of key=value on the command line. */
static const char *arg(const char *key, const char *otherwise)
{
    size_t bytes = strlen(key);
    for (int i = 1; i < n_args; i++)
        if (strncmp(args[i], key, bytes) == 0 && args[i][bytes] == '=')
            return args[i] + bytes + 1;
    return otherwise;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "make_session: %s: %s\n", what, why);
    exit(1);
}

static void record_step(struct pm_recorder *rec, uint64_t step, uint64_t at_ns)
{
    bool prefill = step % 4 == 0;
    struct pm_sched_step *sched = pm_recorder_reserve(rec, 0);
    if (sched != NULL) {
        sched->step = step;
        sched->start_ns = at_ns;
        sched->dur_ns = 50000;
        sched->phase = prefill ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
        sched->requests = 2;
        sched->tokens = prefill ? 100 : 2;
        sched->prefill_requests = prefill ? 2 : 0;
        sched->prefill_tokens = prefill ? 100 : 0;
        sched->decode_requests = prefill ? 0 : 2;
        sched->decode_tokens = prefill ? 0 : 2;
        sched->running = 2;
        pm_recorder_commit(rec, sched);
    }
    struct pm_worker_step *worker = pm_recorder_reserve(rec, 1);
    if (worker != NULL) {
        worker->step = step;
        worker->start_ns = at_ns + 60000;
        worker->model_ns_at = at_ns + 100000;
        worker->pre_ns = 40000;
        worker->model_ns = 2000000;
        worker->post_ns = 10000;
        worker->total_ns = 2100000;
        worker->requests = 2;
        worker->tokens = prefill ? 100 : 2;
        worker->phase = prefill ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
        worker->runner = 1;
        worker->flags = PM_WORKER_HAS_MODEL;
        pm_recorder_commit(rec, worker);
    }
}

/* Until the end of stdin; each line of it asks for more steps. */
static void hold(struct pm_recorder *rec)
{
    static uint64_t step = 1000000;
    const uint64_t more = strtoull(arg("more", "0"), NULL, 10);
    for (int c = getchar(); c != EOF; c = getchar()) {
        if (c != '\n')
            continue;
        for (uint64_t i = 0; i < more; i++, step++)
            record_step(rec, step, pm_clock_now_ns());
        printf("%llu\n", (unsigned long long)step);
        fflush(stdout);
    }
}

static void say_attributes(struct pm_recorder *rec)
{
    pm_recorder_attr(rec, PM_ATTR_PROFILEMATE, PM_VERSION);
    pm_recorder_attr(rec, PM_ATTR_MODEL, "made-up/model");
    pm_recorder_attr(rec, "setting.preset", "full");
    for (int i = 1; i < n_args; i++) {
        char *value = strncmp(args[i], "attr.", 5) == 0 ? strchr(args[i], '=') : NULL;
        if (value == NULL)
            continue;
        *value = '\0';
        pm_recorder_attr(rec, args[i] + 5, value + 1);
    }
}

int main(int argc, char **argv)
{
    static const struct pm_schema *const schemas[] = {&sched_schema, &worker_schema};
    struct pm_birth birth;
    struct pm_error err = {""};
    struct pm_recorder *rec = NULL;
    char dir[4096];
    bool made, fallback;
    n_args = argc;
    args = argv;
    const char *end = arg("end", "close"), *base = arg("dir", getenv("VLLM_PROFILING_DIR"));
    const char *token = getenv(PM_SESSION_ENV);

    pm_clock_init();
    if (arg("session.env", NULL) != NULL) {
        if (token == NULL || pm_birth_parse(token, &birth) != 0)
            fail(PM_SESSION_ENV, "is not a session");
    } else {
        pm_birth_reserve(&birth);
        birth.root = true;
    }
    if (arg("name", NULL) != NULL)
        snprintf(birth.name, sizeof(birth.name), "%s", arg("name", ""));
    if (arg("start", NULL) != NULL)
        birth.start_real_ns = strtoull(arg("start", "0"), NULL, 10) * 1000000000ull;
    if (base == NULL)
        fail("dir", "is missing");
    if (pm_birth_directory(&birth, base, dir, sizeof(dir), &made, &fallback, &err) != 0)
        fail("cannot make the session", err.text);
    if (strcmp(end, "none") != 0) {
        const struct pm_recorder_options options = {
            .session_dir = dir,
            .token = birth.token,
            .schemas = schemas,
            .n_schemas = 2,
            .ceiling_bytes = strtoull(arg("ceiling_mb", "64"), NULL, 10) << 20,
            .segment_bytes = PM_SEGMENT_BYTES_MIN,
            .file_mode = 0600,
        };
        if (pm_recorder_open(&rec, &options, &err) != 0)
            fail("cannot open the recorder", err.text);
        bool front = strcmp(arg("role", "engine"), "frontend") == 0;
        pm_recorder_identify(rec, front ? PM_ROLE_FRONTEND : PM_ROLE_ENGINE | PM_ROLE_WORKER, 0, 0);
        say_attributes(rec);
        uint64_t steps = strtoull(arg("steps", "10"), NULL, 10);
        uint64_t begin_ns = pm_clock_now_ns();
        for (uint64_t i = 0; i < steps; i++)
            record_step(rec, i, begin_ns + i * 3000000);
        pm_recorder_doing(rec, PM_DOING_MODEL, begin_ns + steps * 3000000);
        atomic_fetch_add(&pm_recorder_head(rec)->lost[PM_STREAM_CORE],
                         strtoull(arg("lost", "0"), NULL, 10));
        atomic_fetch_add(&pm_recorder_head(rec)->faults, strtoull(arg("faults", "0"), NULL, 10));
    }
    printf("%s\n", dir);
    fflush(stdout);
    if (strcmp(end, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(end, "fault") == 0)
        kill(getpid(), SIGSEGV);
    if (strcmp(end, "hold") == 0)
        hold(rec);
    if (strcmp(end, "none") != 0)
        pm_recorder_close(rec);
    return 0;
}
