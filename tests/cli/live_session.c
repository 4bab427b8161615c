/*
 * A session that is written while the program follows it: what the engine of a fake server records
 * (tests/cli/fake_server.py), with the real recorder and no Python. Joins the session in
 * VLLM_PROFILING_SESSION. Reads one command a line on stdin and answers each with a line:
 *
 *   attr KEY VALUE          an attribute
 *   steps N                 N steps with tokens, now
 *   request ID TOKENS [PREEMPTIONS]
 *                           a request that arrived 100 ms ago, was queued 5 ms, had its first token
 *                           after 20 ms, and has just ended with so many output tokens
 *
 * Arguments, each of which may be left out: role=engine, worker or frontend (else engine and worker
 * in one), engine=N, rank=N. Ends with the end of stdin.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "recorder/birth.h"
#include "recorder/recorder.h"
#include "session/attrs.h"
#include "session/request_facts.h"
#include "session/request_schema.h"
#include "session/step_facts.h"
#include "session/step_schema.h"

#define MS 1000000ull

static struct pm_recorder *rec;
static uint64_t n_steps;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "live_session: %s: %s\n", what, why);
    exit(1);
}

static void record_step(void)
{
    struct pm_sched_step *sched = pm_recorder_reserve(rec, 0);
    if (sched == NULL)
        fail("step", "no room");
    sched->step = n_steps++;
    sched->start_ns = pm_clock_now_ns();
    sched->dur_ns = 50000;
    sched->phase = PM_PHASE_DECODE;
    sched->requests = sched->tokens = sched->decode_requests = sched->decode_tokens = 1;
    pm_recorder_commit(rec, sched);
}

static void record_request(const char *id, uint32_t tokens, uint32_t preemptions)
{
    const uint64_t now_ns = pm_clock_now_ns();
    const uint32_t name = pm_recorder_string(rec, PM_STREAM_CORE, id, strlen(id));
    struct pm_request_fact *fact = pm_recorder_reserve(rec, 1);
    if (fact == NULL)
        fail("request", "no room");
    *fact = (struct pm_request_fact){
        .arrived_ns = now_ns - 100 * MS,
        .queued_ns = now_ns - 99 * MS,
        .started_ns = now_ns - 94 * MS,
        .first_token_ns = tokens > 0 ? now_ns - 80 * MS : 0,
        .last_token_ns = tokens > 0 ? now_ns : 0,
        .finished_ns = now_ns,
        .queue_ns = 5 * MS,
        .ttft_ns = tokens > 0 ? 20 * MS : 0,
        .tpot_ns = tokens > 1 ? 80 * MS / (tokens - 1) : 0,
        .e2e_ns = 100 * MS,
        .step = n_steps,
        .request = name,
        .prompt_tokens = 33,
        .cached_tokens = 16,
        .output_tokens = tokens,
        .max_tokens = 64,
        .preemptions = preemptions,
        .state = PM_REQUEST_STATE_FINISHED,
        .reason = tokens > 0 ? PM_FINISH_LENGTH : PM_FINISH_ABORT,
        .turns = 1,
    };
    pm_recorder_commit(rec, fact);
    pm_recorder_string_drop(rec, PM_STREAM_CORE, name);
}

static void obey(char *line)
{
    char *save = NULL;
    const char *verb = strtok_r(line, " \n", &save), *one = strtok_r(NULL, " \n", &save);
    const char *two = strtok_r(NULL, " \n", &save), *three = strtok_r(NULL, " \n", &save);
    if (verb == NULL || one == NULL)
        fail("command", "too short");
    if (strcmp(verb, "attr") == 0 && two != NULL)
        pm_recorder_attr(rec, one, two);
    else if (strcmp(verb, "steps") == 0)
        for (unsigned long n = strtoul(one, NULL, 10); n > 0; n--)
            record_step();
    else if (strcmp(verb, "request") == 0 && two != NULL)
        record_request(one, (uint32_t)strtoul(two, NULL, 10),
                       three != NULL ? (uint32_t)strtoul(three, NULL, 10) : 0);
    else
        fail("command", verb);
}

/* The number after key= among the arguments, else 0. */
static int number(char **argv, const char *key)
{
    for (const size_t bytes = strlen(key); *argv != NULL; argv++)
        if (strncmp(*argv, key, bytes) == 0 && (*argv)[bytes] == '=')
            return (int)strtol(*argv + bytes + 1, NULL, 10);
    return 0;
}

static unsigned roles_of(char **argv)
{
    for (; *argv != NULL; argv++) {
        if (strcmp(*argv, "role=engine") == 0)
            return PM_ROLE_ENGINE;
        if (strcmp(*argv, "role=worker") == 0)
            return PM_ROLE_WORKER;
        if (strcmp(*argv, "role=frontend") == 0)
            return PM_ROLE_FRONTEND;
    }
    return PM_ROLE_ENGINE | PM_ROLE_WORKER;
}

int main(int argc, char **argv)
{
    static const struct pm_schema *const schemas[] = {&pm_sched_step_schema, &pm_request_schema};
    const char *token = getenv(PM_SESSION_ENV), *base = getenv("VLLM_PROFILING_DIR");
    struct pm_birth birth;
    struct pm_error err = {""};
    char dir[4096], line[1024];
    bool made, fallback;

    (void)argc;
    pm_clock_init();
    if (token == NULL || base == NULL || pm_birth_parse(token, &birth) != 0)
        fail(PM_SESSION_ENV, "is not a session");
    if (pm_birth_directory(&birth, base, dir, sizeof(dir), &made, &fallback, &err) != 0)
        fail("cannot make the session", err.text);
    const struct pm_recorder_options options = {
        .session_dir = dir,
        .token = birth.token,
        .schemas = schemas,
        .n_schemas = 2,
        .ceiling_bytes = 64u << 20,
        .segment_bytes = PM_SEGMENT_BYTES_MIN,
        .file_mode = 0600,
    };
    if (pm_recorder_open(&rec, &options, &err) != 0)
        fail("cannot open the recorder", err.text);
    pm_recorder_identify(rec, roles_of(argv), number(argv, "engine"), number(argv, "rank"));
    pm_recorder_attr(rec, PM_ATTR_PYTHON, "3.11.7");
    pm_recorder_attr(rec, PM_ATTR_MODEL, "made-up/model");
    printf("%s\n", dir);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        obey(line);
        printf("done\n");
        fflush(stdout);
    }
    pm_recorder_close(rec);
    return 0;
}
