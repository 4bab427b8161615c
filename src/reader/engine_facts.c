/* See engine_facts.h. */
#include "reader/engine_facts.h"

#include "reader/facts.h"
#include "reader/steps.h"

#include <stdlib.h>

struct pm_engine_facts {
    struct pm_cursor *cursor; /* NULL: nothing to read */
    struct pm_fact_map map;
    enum pm_engine_fact kind;
    unsigned instance;
};

void pm_engine_facts_close(struct pm_engine_facts *facts)
{
    if (facts == NULL)
        return;
    pm_cursor_close(facts->cursor);
    free(facts);
}

int pm_engine_facts_open(struct pm_engine_facts **ret_facts, const struct pm_session *session,
                         size_t engine, enum pm_engine_fact kind)
{
    const struct pm_engine *which = pm_session_engine(session, engine);
    if (which == NULL)
        return -PM_ENOTFOUND;
    struct pm_engine_facts *facts = calloc(1, sizeof(*facts));
    if (facts == NULL)
        return -PM_ENOMEM;
    facts->kind = kind;
    facts->instance = which->instance;
    facts->map.schema = -1;
    if (which->process != NULL && kind == PM_ENGINE_SCHED)
        pm_fact_map_sched(&facts->map, which->process);
    if (which->process != NULL && kind == PM_ENGINE_UPDATE)
        pm_fact_map_update(&facts->map, which->process);
    if (facts->map.schema >= 0) {
        int rc = pm_cursor_open(&facts->cursor, which->process, PM_STREAM_CORE);
        if (rc != 0) {
            pm_engine_facts_close(facts);
            return rc;
        }
    }
    *ret_facts = facts;
    return 0;
}

void pm_engine_facts_skip(struct pm_engine_facts *facts, uint64_t from_ns)
{
    if (facts->cursor != NULL)
        pm_cursor_skip(facts->cursor, from_ns, UINT64_MAX);
}

int pm_engine_facts_next(struct pm_engine_facts *facts, void *ret_fact)
{
    struct pm_record record;
    int rc = 0;

    while (facts->cursor != NULL && (rc = pm_cursor_next(facts->cursor, &record)) == 1) {
        if ((int)record.schema != facts->map.schema || record.keyframe)
            continue;
        pm_fact_take(&facts->map, record.payload, ret_fact);
        const unsigned instance = facts->kind == PM_ENGINE_SCHED
                                      ? ((const struct pm_sched_step *)ret_fact)->instance
                                      : ((const struct pm_update_step *)ret_fact)->instance;
        if (instance == facts->instance)
            return 1;
    }
    return rc;
}
