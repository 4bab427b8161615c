/* See kv_facts.h. Called by the views, one thread; owns a cursor. */
#include "reader/kv_facts.h"

#include <stdlib.h>

#include "reader/facts.h"
#include "reader/steps.h"

#define S(member) PM_FACT_MEMBER(pm_kv_step, member)
static const struct pm_fact_member step_members[] = {
    S(step),         S(at_ns),
    S(total),        S(used),
    S(evictable),    S(peak),
    S(allocated),    S(revived),
    S(freed),        S(evicted),
    S(dropped),      S(queried_tokens),
    S(hit_tokens),   S(requeried_tokens),
    S(rehit_tokens), S(instance),
    S(flags),
};
#undef S
#define E(member) PM_FACT_MEMBER(pm_kv_eviction, member)
static const struct pm_fact_member eviction_members[] = {
    E(at_ns),  E(step),    E(lifetime_ns), E(idle_ns), E(block),
    E(reuses), E(request), E(instance),    E(group),   E(cause),
};
#undef E

struct pm_kv_facts {
    struct pm_cursor *cursor; /* NULL: nothing to read */
    struct pm_fact_map map;
    unsigned instance;
};

void pm_kv_facts_close(struct pm_kv_facts *facts)
{
    if (facts == NULL)
        return;
    pm_cursor_close(facts->cursor);
    free(facts);
}

static int open_facts(struct pm_kv_facts **ret_facts, const struct pm_session *session,
                      size_t engine, enum pm_stream stream, const char *name, uint32_t bytes,
                      const struct pm_fact_member *members, size_t count)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    if (which == NULL)
        return -PM_ENOTFOUND;
    struct pm_kv_facts *facts = calloc(1, sizeof(*facts));
    if (facts == NULL)
        return -PM_ENOMEM;
    facts->instance = which->instance;
    facts->map.schema = -1;
    if (which->process != NULL)
        pm_fact_map_make(&facts->map, which->process, name, bytes, members, count);
    if (facts->map.schema >= 0) {
        int rc = pm_cursor_open(&facts->cursor, which->process, stream);
        if (rc != 0) {
            pm_kv_facts_close(facts);
            return rc;
        }
    }
    *ret_facts = facts;
    return 0;
}

int pm_kv_steps_open(struct pm_kv_facts **ret_facts, const struct pm_session *session,
                     size_t engine)
{
    return open_facts(ret_facts, session, engine, PM_STREAM_CORE, "kv_step",
                      sizeof(struct pm_kv_step), step_members,
                      sizeof(step_members) / sizeof(*step_members));
}

int pm_kv_evictions_open(struct pm_kv_facts **ret_facts, const struct pm_session *session,
                         size_t engine)
{
    return open_facts(ret_facts, session, engine, PM_STREAM_BLOCKS, "kv_eviction",
                      sizeof(struct pm_kv_eviction), eviction_members,
                      sizeof(eviction_members) / sizeof(*eviction_members));
}

void pm_kv_facts_skip(struct pm_kv_facts *facts, uint64_t from_ns)
{
    if (facts->cursor != NULL)
        pm_cursor_skip(facts->cursor, from_ns, UINT64_MAX);
}

/* 1 with the next fact of the kind, of whichever scheduler. */
static int next(struct pm_kv_facts *facts, void *ret_fact)
{
    struct pm_record record;
    int rc = 0;

    while (facts->cursor != NULL && (rc = pm_cursor_next(facts->cursor, &record)) == 1) {
        if ((int)record.schema != facts->map.schema || record.keyframe)
            continue;
        pm_fact_take(&facts->map, record.payload, ret_fact);
        return 1;
    }
    return rc;
}

int pm_kv_steps_next(struct pm_kv_facts *facts, struct pm_kv_step *ret_step)
{
    int rc;
    do
        rc = next(facts, ret_step);
    while (rc == 1 && ret_step->instance != facts->instance);
    return rc;
}

int pm_kv_evictions_next(struct pm_kv_facts *facts, struct pm_kv_eviction *ret_eviction)
{
    int rc;
    do
        rc = next(facts, ret_eviction);
    while (rc == 1 && ret_eviction->instance != facts->instance);
    return rc;
}
