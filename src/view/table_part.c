/*
 * The sources of native tables, how far they are settled, and their parts (table_part.h).
 */
#include "view/table_part.h"

#include <stdlib.h>
#include <string.h>

#include "reader/engine_facts.h"
#include "session/step_facts.h"

/* "p4711-5e6f7a8b.pmrec" -> "p4711-5e6f7a8b", with -<instance> where it is not negative. */
static void name_source(struct pm_table_source *source, const struct pm_process *process,
                        int instance)
{
    const char *file = pm_process_info(process)->file;
    const char *dot = strchr(file, '.');
    const int stem = (int)(dot != NULL ? (size_t)(dot - file) : strlen(file));
    if (instance < 0)
        snprintf(source->name, sizeof(source->name), "%.*s", stem, file);
    else
        snprintf(source->name, sizeof(source->name), "%.*s-%d", stem, file, instance);
}

static bool is_over(const struct pm_process *process)
{
    return process == NULL || pm_process_info(process)->life != PM_LIFE_RUNNING;
}

static int fact_sources(const struct pm_session *session, const char *table,
                        int (*fn)(const struct pm_table_source *source, void *arg), void *arg)
{
    size_t first = 0;
    if (pm_table_schema(session, table, &first) == NULL)
        return -PM_ENOTFOUND;
    for (size_t p = first; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        const int number = pm_process_schema_find(process, table);
        if (number < 0)
            continue;
        struct pm_table_source source = {
            .sort = PM_SOURCE_FACTS,
            .process = process,
            .stream = pm_process_schema(process, (size_t)number)->stream,
            .engine = -1, /* each row tells */
            .rank = -1,
            .over = is_over(process),
            .place = {.process = p, .to = UINT64_MAX},
        };
        name_source(&source, process, -1);
        int rc = fn(&source, arg);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Worker n of an engine, or the engine alone where it has none. */
static int step_source(const struct pm_session *session, size_t e, unsigned n,
                       struct pm_table_source *ret_source)
{
    const struct pm_engine *engine = pm_session_engine(session, e);
    const struct pm_process *worker = NULL;
    unsigned instance = engine->instance;
    int rank = -1;

    if (pm_engine_worker(session, e, n, &worker, &instance, &rank) != 0)
        worker = engine->process;
    if (worker == NULL)
        return -PM_ENOTFOUND;
    *ret_source = (struct pm_table_source){
        .sort = PM_SOURCE_STEPS,
        .process = worker,
        .stream = PM_STREAM_CORE,
        .engine = (int)engine->number,
        .rank = rank,
        .over = is_over(worker) && is_over(engine->process),
        .place = {.engine = e, .worker = n, .to = UINT64_MAX},
    };
    name_source(ret_source, worker, (int)instance);
    return 0;
}

static int joined_sources(const struct pm_session *session, bool steps,
                          int (*fn)(const struct pm_table_source *source, void *arg), void *arg)
{
    for (size_t e = 0; e < pm_session_engine_count(session); e++) {
        const struct pm_engine *engine = pm_session_engine(session, e);
        const unsigned ranks = steps && engine->n_ranks > 0 ? engine->n_ranks : 1;
        for (unsigned n = 0; n < ranks; n++) {
            struct pm_table_source source;
            if (steps && step_source(session, e, n, &source) != 0)
                continue;
            if (!steps && engine->process == NULL)
                continue;
            if (!steps) {
                source = (struct pm_table_source){
                    .sort = PM_SOURCE_REQUESTS,
                    .process = engine->process,
                    .stream = PM_STREAM_CORE,
                    .engine = (int)engine->number,
                    .rank = -1,
                    .over = is_over(engine->process),
                    .place = {.engine = e, .to = UINT64_MAX},
                };
                name_source(&source, engine->process, (int)engine->instance);
            }
            int rc = fn(&source, arg);
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

int pm_table_sources(const struct pm_session *session, const char *table,
                     int (*fn)(const struct pm_table_source *source, void *arg), void *arg)
{
    if (strcmp(table, PM_TABLE_STEPS) == 0)
        return joined_sources(session, true, fn, arg);
    if (strcmp(table, PM_TABLE_REQUESTS) == 0)
        return joined_sources(session, false, fn, arg);
    return fact_sources(session, table, fn, arg);
}

/* ---- how far ---- */

/* The segment that a running process writes to: since when, and its first fact. A stream without a
 * segment has nothing before it. */
static int complete_until(const struct pm_process *process, enum pm_stream stream, uint64_t *ret_ns,
                          uint64_t *ret_fact)
{
    struct pm_segment_info *segments = NULL;
    size_t count = 0;
    int rc = pm_process_segments(process, stream, &segments, &count);
    if (rc != 0)
        return rc;
    *ret_ns = count > 0 ? segments[count - 1].begun_ns : 0;
    *ret_fact = count > 0 ? segments[count - 1].first_fact : 0;
    free(segments);
    return 0;
}

static void take_later(uint64_t *newest, bool *any, bool have, uint64_t position)
{
    if (have && (!*any || position > *newest))
        *newest = position;
    *any = *any || have;
}

/* The steps begun before until: up to the newest of which both halves are known, its update, and
 * its time, as far as such things come at all. */
static int settled_steps(const struct pm_session *session, const struct pm_table_source *source,
                         uint64_t from, uint64_t until, uint64_t *ret_position)
{
    struct pm_table_part part = source->place;
    struct pm_table *table;
    enum { HALVES, UPDATE, TIME, KINDS };
    uint64_t newest[KINDS] = {0}, settled = from;
    bool any[KINDS] = {0};
    size_t worker = 0, sched = 0, update = 0, forward = 0, at = 0;

    part.from = from;
    part.to = until;
    int rc = pm_table_open_steps(&table, session, &part);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < table->n_columns; i++) {
        const char *name = table->columns[i].name;
        worker = strcmp(name, "has_worker") == 0 ? i : worker;
        sched = strcmp(name, "has_scheduler") == 0 ? i : sched;
        update = strcmp(name, "update_start_ns") == 0 ? i : update;
        forward = strcmp(name, "forward_ns") == 0 ? i : forward;
        at = strcmp(name, "position") == 0 ? i : at;
    }
    while ((rc = pm_table_next(table)) == 1) {
        const struct pm_cell *cells = table->cells;
        const uint64_t position = cells[at].u64;
        take_later(&newest[HALVES], &any[HALVES], cells[worker].u64 != 0 && cells[sched].u64 != 0,
                   position);
        take_later(&newest[UPDATE], &any[UPDATE], cells[update].have, position);
        take_later(&newest[TIME], &any[TIME], cells[forward].have, position);
    }
    pm_table_close(table);
    if (any[HALVES])
        settled = newest[HALVES] + 1;
    for (int i = 0; i < KINDS; i++)
        if (any[HALVES] && any[i] && newest[i] + 1 < settled)
            settled = newest[i] + 1;
    if (rc == 0)
        *ret_position = settled > from ? settled : from;
    return rc;
}

int pm_table_settled(const struct pm_session *session, const struct pm_table_source *source,
                     uint64_t from, uint64_t *ret_position)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    const struct pm_engine *engine;
    uint64_t ns, other_ns = UINT64_MAX, fact;
    int rc = 0;

    if (source->over) {
        *ret_position = UINT64_MAX;
        return 0;
    }
    rc = complete_until(source->process, source->stream, &ns, &fact);
    if (rc != 0)
        return rc;
    if (source->sort != PM_SOURCE_STEPS) {
        *ret_position = fact;
        return 0;
    }
    engine = pm_session_engine(session, source->place.engine);
    if (is_over(source->process))
        ns = UINT64_MAX;
    if (engine->process != NULL && !is_over(engine->process))
        rc = complete_until(engine->process, PM_STREAM_CORE, &other_ns, &fact);
    ns = other_ns < ns ? other_ns : ns;
    if (rc != 0 || ns <= start_ns || engine->n_ranks == 0) {
        *ret_position = from; /* a worker may still come */
        return rc;
    }
    return settled_steps(session, source, from, ns - start_ns, ret_position);
}

int pm_table_cuts(const struct pm_session *session, const struct pm_table_source *source,
                  struct pm_table_cut **ret_cuts, size_t *ret_count)
{
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    struct pm_segment_info *segments = NULL;
    struct pm_table_cut *cuts = NULL;
    size_t count = 0;
    int rc = source->sort != PM_SOURCE_REQUESTS
                 ? pm_process_segments(source->process, source->stream, &segments, &count)
                 : 0;
    if (rc != 0)
        return rc;
    if (count > 0)
        cuts = calloc(count, sizeof(*cuts));
    if (count > 0 && cuts == NULL)
        rc = -PM_ENOMEM;
    for (size_t i = 0; i < count && rc == 0; i++) {
        const uint64_t at_ns = segments[i].begun_ns;
        cuts[i].at_ns = at_ns;
        cuts[i].position = source->sort == PM_SOURCE_FACTS ? segments[i].first_fact
                           : at_ns > start_ns              ? at_ns - start_ns
                                                           : 0;
    }
    free(segments);
    if (rc == 0) {
        *ret_cuts = cuts;
        *ret_count = count;
    }
    return rc;
}

/* ---- a part ---- */

struct search {
    const char *name;
    struct pm_table_source found;
};

static int is_it(const struct pm_table_source *source, void *arg)
{
    struct search *search = arg;
    if (strcmp(source->name, search->name) != 0)
        return 0;
    search->found = *source;
    return 1;
}

int pm_table_source(const struct pm_session *session, const char *table, const char *name,
                    struct pm_table_source *ret_source)
{
    struct search search = {.name = name};
    const int rc = pm_table_sources(session, table, is_it, &search);
    if (rc != 1)
        return rc == 0 ? -PM_ENOTFOUND : rc;
    *ret_source = search.found;
    return 0;
}

int pm_table_open_part(struct pm_table **ret_table, const struct pm_session *session,
                       const char *table, const char *source, uint64_t from, uint64_t to,
                       struct pm_error *err)
{
    struct pm_table_source found;
    int rc = pm_table_source(session, table, source, &found);
    if (rc == -PM_ENOTFOUND)
        return pm_error_set(err, rc, "%.100s: the session has no such part, %.300s", table, source);
    if (rc == 0) {
        struct pm_table_part part = found.place;
        part.from = from;
        part.to = to;
        rc = found.sort == PM_SOURCE_STEPS ? pm_table_open_steps(ret_table, session, &part)
             : found.sort == PM_SOURCE_REQUESTS
                 ? pm_table_open_requests(ret_table, session, &part)
                 : pm_table_open_facts(ret_table, session, table, &part);
    }
    if (rc != 0)
        return pm_error_set(err, rc, "%.100s: cannot be read: %s", table, pm_strerror(rc));
    return 0;
}
