/*
 * The walk through a session's timeline (timeline.h): processes, then of each engine its requests,
 * its scheduler and its workers, then the tables that have times of their own.
 */
#include "view/timeline.h"

#include <string.h>

#define REQUESTS_PID 0x40000000u /* above every real one */

/* FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t mix(uint64_t hash, const void *bytes, size_t n)
{
    for (const unsigned char *c = bytes, *end = c + n; c < end; c++)
        hash = (hash ^ *c) * 0x100000001b3ull;
    return hash;
}

uint64_t pm_timeline_id(const char *kind, uint64_t a, uint64_t b, const char *text)
{
    const uint64_t numbers[2] = {a, b};
    uint64_t hash = mix(0xcbf29ce484222325ull, kind, strlen(kind) + 1);
    hash = mix(hash, numbers, sizeof(numbers));
    hash = mix(hash, text, strlen(text));
    return hash != 0 ? hash : 1;
}

uint64_t pm_timeline_process_id(const struct pm_process *process)
{
    return pm_timeline_id("process", 0, 0, pm_process_info(process)->file);
}

struct pm_timeline_track pm_timeline_request(unsigned engine, const char *id)
{
    const uint64_t hash = pm_timeline_id("request", engine, 0, id);
    return (struct pm_timeline_track){
        .kind = PM_TIMELINE_REQUEST,
        .id = hash,
        .parent = pm_timeline_id("requests", engine, 0, ""),
        .pid = REQUESTS_PID + engine,
        .tid = (uint32_t)(hash >> 33) | 1,
        .name = id,
    };
}

uint64_t pm_timeline_flow(unsigned engine, uint64_t step, const char *id)
{
    return pm_timeline_id("flow", engine, step, id);
}

static int tell_process(struct pm_timeline *t, const struct pm_process *process)
{
    const struct pm_process_info *info = pm_process_info(process);
    char roles[64], name[160];
    size_t used;

    pm_roles_name(info->roles, roles, sizeof(roles));
    used = (size_t)snprintf(name, sizeof(name), "%s", roles);
    if (info->engine >= 0)
        used += (size_t)snprintf(name + used, sizeof(name) - used, ", engine %d", info->engine);
    if (info->rank >= 0)
        snprintf(name + used, sizeof(name) - used, ", rank %d", info->rank);
    const struct pm_timeline_track track = {
        .kind = PM_TIMELINE_PROCESS,
        .id = pm_timeline_process_id(process),
        .pid = info->pid,
        .name = name,
    };
    return t->sink->track(t->sink->arg, &track);
}

static int tell_requests(struct pm_timeline *t, unsigned engine)
{
    char name[64];
    snprintf(name, sizeof(name), "Requests of engine %u", engine);
    const struct pm_timeline_track track = {
        .kind = PM_TIMELINE_REQUESTS,
        .id = pm_timeline_id("requests", engine, 0, ""),
        .pid = REQUESTS_PID + engine,
        .name = name,
    };
    return t->sink->track(t->sink->arg, &track);
}

int pm_timeline_walk(const struct pm_session *session, const struct pm_timeline_sink *sink)
{
    struct pm_timeline t = {.session = session, .sink = sink};
    struct pm_sums sums;
    int rc = 0;

    pm_session_sums(session, &sums);
    t.end_ns = sums.end_ns;
    for (size_t p = 0; p < pm_session_process_count(session) && rc == 0; p++)
        rc = tell_process(&t, pm_session_process(session, p));
    for (size_t e = 0; e < pm_session_engine_count(session) && rc == 0; e++) {
        const struct pm_engine *engine = pm_session_engine(session, e);
        rc = tell_requests(&t, engine->number);
        if (rc == 0)
            rc = pm_timeline_requests(&t, e);
        if (rc == 0)
            rc = pm_timeline_scheduler(&t, e);
        for (unsigned n = 0; n < engine->n_ranks && rc == 0; n++)
            rc = pm_timeline_worker(&t, e, n);
    }
    return rc == 0 ? pm_timeline_tables(&t) : rc;
}
