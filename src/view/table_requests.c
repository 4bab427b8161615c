/*
 * The native table `requests`: one row per request of each engine, with every time and count. A
 * time that did not come, or is not known, is empty (null). What ITL, TPOT and TTFT mean stands in
 * reader/requests.h. The columns stand in table_requests.def.
 */
#include "view/table.h"

#include <stdlib.h>

#include "reader/requests.h"

static const char *const states[] = {"unknown", "waiting", "running", "preempted", "finished"};

static const struct pm_table_column columns[] = {
#define C(name, type, unit, kind, have, value, doc)                                                \
    {#name, PM_CELL_##type, unit, PM_KIND_##kind, doc},
#include "view/table_requests.def"
    PM_TABLE_POSITION,
};
#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]) - 1)

struct requests_table {
    struct pm_table base;
    uint64_t start_ns; /* of the session */
    size_t engine_index;
    /* Of that engine: */
    struct pm_requests *requests; /* NULL: not open yet */
    unsigned engine;              /* its number */
    uint32_t pid;
    struct pm_request request; /* of the row */
    bool in_part;              /* only what part says */
    struct pm_table_part part;
};

/* Where its end was told; those that are not over come after all others. */
static uint64_t position_of(const struct pm_request *request)
{
    return request->fact.state == PM_REQUEST_STATE_FINISHED ? request->ended_fact
                                                            : PM_TABLE_NOT_OVER;
}

static void put(struct requests_table *t)
{
    const struct pm_request *r = &t->request;
    const struct pm_request_fact *f = &r->fact;
    const bool over = f->state == PM_REQUEST_STATE_FINISHED;
    const bool counted = over || r->outputs_known;
    const uint64_t itls = r->outputs_known && r->outputs > 1 ? r->outputs - 1 : 0;
    struct pm_cell *cell = t->base.cells;
#define C(name, type, unit, kind, have, value, doc) PM_CELL_PUT_##type(cell++, have, value);
#include "view/table_requests.def"
    pm_cell_u64(cell, true, position_of(r));
}

static int next_wanted(struct requests_table *t)
{
    int rc;
    while ((rc = pm_requests_next(t->requests, &t->request)) == 1 && t->in_part) {
        const uint64_t position = position_of(&t->request);
        if (position >= t->part.to)
            return 0;
        if (position >= t->part.from)
            return 1;
    }
    return rc;
}

static int requests_next(struct pm_table *table)
{
    struct requests_table *t = (struct requests_table *)table;
    const struct pm_session *session = t->base.session;

    for (; t->engine_index < pm_session_engine_count(session); t->engine_index++) {
        int rc;
        if (t->requests == NULL) {
            const struct pm_engine *engine = pm_session_engine(session, t->engine_index);
            t->engine = engine->number;
            t->pid = engine->process != NULL ? pm_process_info(engine->process)->pid : 0;
            rc = pm_requests_open(&t->requests, session, t->engine_index, NULL);
            if (rc != 0)
                return rc;
        }
        rc = next_wanted(t);
        if (rc == 1)
            put(t);
        if (rc != 0)
            return rc;
        pm_requests_close(t->requests);
        t->requests = NULL;
        if (t->in_part)
            t->engine_index = SIZE_MAX - 1;
    }
    return 0;
}

static void requests_close(struct pm_table *table)
{
    struct requests_table *t = (struct requests_table *)table;
    pm_requests_close(t->requests);
    free(t);
}

int pm_table_open_requests(struct pm_table **ret_table, const struct pm_session *session,
                           const struct pm_table_part *part)
{
    static const struct pm_table_sort sort = {requests_next, requests_close};
    struct requests_table *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return -PM_ENOMEM;
    t->base.session = session;
    t->base.sort = &sort;
    t->base.name = PM_TABLE_REQUESTS;
    t->base.doc = "Each request's times and counts, from arrival to end.";
    t->base.columns = columns;
    t->base.n_columns = N_COLUMNS + (part != NULL);
    if (part != NULL) {
        t->in_part = true;
        t->part = *part;
        t->engine_index = part->engine;
    }
    t->start_ns = pm_session_info(session)->start_mono_ns;
    *ret_table = &t->base;
    return 0;
}
