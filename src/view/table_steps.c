/*
 * The native table `steps`: each step of each engine as each of its workers ran it, both halves in
 * one row. A column whose half was not found is empty (null). The columns stand in table_steps.def.
 */
#include "view/table.h"

#include <stdlib.h>

#include "reader/engine_facts.h"
#include "reader/kv_facts.h"
#include "session/step_facts.h"

static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
static const char *const clocks[4] = {"none", "wall", "sync", "events"};

static const struct pm_table_column columns[] = {
#define C(name, type, unit, kind, have, value, doc)                                                \
    {#name, PM_CELL_##type, unit, PM_KIND_##kind, doc},
#include "view/table_steps.def"
    PM_TABLE_POSITION,
};
#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]) - 1)

/* No row's position is smaller than that of a row before it by more than this: what a worker's step
 * without its other half may be late. */
#define LATE_NS 60000000000u

struct steps_table {
    struct pm_table base;
    uint64_t start_ns; /* of the session */
    size_t engine_index;
    unsigned worker; /* of that engine */
    /* Of that worker: */
    struct pm_steps *steps; /* NULL: not open yet */
    unsigned engine;        /* its number */
    int rank;
    uint64_t last_end_ns; /* of its step before; 0: none */
    /* What came out of the steps, read along with them. */
    struct pm_engine_facts *updates; /* NULL: none */
    struct pm_update_step update;
    bool ahead;      /* update is read */
    bool has_update; /* and is that of this step */
    /* How full the KV cache was, likewise. */
    struct pm_kv_facts *levels; /* NULL: none */
    struct pm_kv_step level;
    bool level_ahead, has_level;
    bool in_part; /* only what part says */
    struct pm_table_part part;
};

/* Looks for the update of a step: has_update says whether it is known (yet). */
static int find_update(struct steps_table *t, uint64_t step)
{
    t->has_update = false;
    while (t->updates != NULL && (!t->ahead || t->update.step < step ||
                                  (t->update.flags & PM_UPDATE_UNKNOWN_STEP) != 0)) {
        int rc = pm_engine_facts_next(t->updates, &t->update);
        t->ahead = rc == 1;
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
    }
    t->has_update = t->ahead && t->update.step == step;
    return 0;
}

/* The same for the KV cache's levels. */
static int find_level(struct steps_table *t, uint64_t step)
{
    t->has_level = false;
    while (t->levels != NULL && (!t->level_ahead || t->level.step < step)) {
        int rc = pm_kv_steps_next(t->levels, &t->level);
        t->level_ahead = rc == 1;
        if (rc < 0)
            return rc;
        if (rc == 0)
            break;
    }
    t->has_level = t->level_ahead && t->level.step == step;
    return 0;
}

/* When the step began, after the session did: by the scheduler, which tells it alike to all ranks.
 */
static uint64_t position_of(const struct steps_table *t, const struct pm_step *step)
{
    const uint64_t at_ns = step->has_sched ? step->sched_start_ns : step->worker_start_ns;
    return at_ns > t->start_ns ? at_ns - t->start_ns : 0;
}

static void put(struct steps_table *t, const struct pm_step *s)
{
    static const struct pm_update_step none = {0};
    const struct pm_update_step *u = t->has_update ? &t->update : &none;
    struct pm_cell *cell = t->base.cells;
#define C(name, type, unit, kind, have, value, doc) PM_CELL_PUT_##type(cell++, have, value);
#include "view/table_steps.def"
    pm_cell_u64(cell, true, position_of(t, s));
}

static void close_worker(struct steps_table *t)
{
    pm_engine_facts_close(t->updates);
    pm_kv_facts_close(t->levels);
    pm_steps_close(t->steps);
    t->updates = NULL;
    t->levels = NULL;
    t->steps = NULL;
}

/* 1: the next worker's steps are open; 0: there is none. */
static int next_worker(struct steps_table *t)
{
    const struct pm_session *session = t->base.session;
    const struct pm_process *process;
    unsigned instance;

    for (; t->engine_index < pm_session_engine_count(session); t->engine_index++, t->worker = 0) {
        const struct pm_engine *engine = pm_session_engine(session, t->engine_index);
        if (t->worker >= (engine->n_ranks > 0 ? engine->n_ranks : 1))
            continue;
        if (t->in_part && (t->engine_index != t->part.engine || t->worker != t->part.worker))
            return 0;
        t->engine = engine->number;
        if (pm_engine_worker(session, t->engine_index, t->worker, &process, &instance, &t->rank) !=
            0)
            t->rank = -1;
        t->last_end_ns = 0;
        t->ahead = t->level_ahead = false;
        int rc = pm_steps_open(&t->steps, session, t->engine_index, t->worker);
        if (rc == 0)
            rc = pm_engine_facts_open(&t->updates, session, t->engine_index, PM_ENGINE_UPDATE);
        if (rc == 0)
            rc = pm_kv_steps_open(&t->levels, session, t->engine_index);
        t->worker++;
        if (rc == 0 && t->in_part && t->part.from > 0) {
            pm_steps_skip(t->steps, t->start_ns + t->part.from);
            if (t->updates != NULL)
                pm_engine_facts_skip(t->updates, t->start_ns + t->part.from);
            if (t->levels != NULL)
                pm_kv_facts_skip(t->levels, t->start_ns + t->part.from);
        }
        return rc != 0 ? rc : 1;
    }
    return 0;
}

static bool is_past(const struct steps_table *t, const struct pm_step *step)
{
    const uint64_t position = position_of(t, step);
    return t->in_part && position > LATE_NS && position - LATE_NS >= t->part.to;
}

/* Whether a row is in the part; what follows it has to know of it in either case. */
static bool is_wanted(struct steps_table *t, const struct pm_step *step)
{
    const uint64_t position = position_of(t, step);
    if (!t->in_part || (position >= t->part.from && position < t->part.to))
        return true;
    if (step->has_worker)
        t->last_end_ns = step->worker_start_ns + step->total_ns;
    return false;
}

static int steps_next(struct pm_table *table)
{
    struct steps_table *t = (struct steps_table *)table;
    struct pm_step step;
    int rc;

    for (;;) {
        if (t->steps == NULL && (rc = next_worker(t)) <= 0)
            return rc;
        rc = pm_steps_next(t->steps, &step);
        if (rc < 0)
            return rc;
        if (rc == 1 && is_wanted(t, &step))
            break;
        if (rc == 0 || is_past(t, &step))
            close_worker(t);
    }
    rc = find_update(t, step.step);
    if (rc == 0)
        rc = find_level(t, step.step);
    if (rc != 0)
        return rc;
    put(t, &step);
    if (step.has_worker)
        t->last_end_ns = step.worker_start_ns + step.total_ns;
    return 1;
}

static void steps_close(struct pm_table *table)
{
    struct steps_table *t = (struct steps_table *)table;
    close_worker(t);
    free(t);
}

int pm_table_open_steps(struct pm_table **ret_table, const struct pm_session *session,
                        const struct pm_table_part *part)
{
    static const struct pm_table_sort sort = {steps_next, steps_close};
    struct steps_table *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return -PM_ENOMEM;
    t->base.session = session;
    t->base.sort = &sort;
    t->base.name = PM_TABLE_STEPS;
    t->base.doc = "The scheduler's and the worker's facts of each step.";
    t->base.columns = columns;
    t->base.n_columns = N_COLUMNS + (part != NULL);
    if (part != NULL) {
        t->in_part = true;
        t->part = *part;
        t->engine_index = part->engine;
        t->worker = part->worker;
    }
    t->start_ns = pm_session_info(session)->start_mono_ns;
    *ret_table = &t->base;
    return 0;
}
