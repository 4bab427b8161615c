/*
 * On the timeline (timeline.h), what the tables say that are neither steps nor requests, whatever
 * probe made them: a moment directly followed by a duration is a slice, gauges are counters, and
 * evictions instants. Slices of one table that overlap get lanes of their own.
 */
#include "view/timeline.h"

#include <string.h>

#include "session/frontend_facts.h"
#include "view/table.h"

#define PLACES_MAX 64 /* processes, engines and ranks of one table; the last stands for more */
#define LANES_MAX 32  /* the last one takes what finds no room */
#define GAUGES_MAX 8
#define PAIRS_MAX 4
#define TABLE_TID 0x10000u

/* One engine, rank and process of a table. */
struct place {
    uint64_t engine, rank, pid; /* ~0: not known */
    uint64_t process;           /* its track */
    unsigned lanes;
    uint64_t lane_end_ns[LANES_MAX];
    bool told_gauges;
};

struct tables {
    struct pm_timeline *t;
    unsigned number; /* of the table */
    struct pm_table *table;
    int engine, rank, pid, time, label, operation; /* columns; -1: none */
    int gauges[GAUGES_MAX], pairs[PAIRS_MAX]; /* pairs: a moment, and its length in the next one */
    unsigned n_gauges, n_pairs, n_places;
    bool instants; /* its records are instants */
    struct place places[PLACES_MAX];
};

/* Tables that are drawn as steps or requests already, or have no place on a timeline. */
static bool drawn(const char *name)
{
    static const char *const names[] = {
        "sched_step",   "update_step",     "step_request", "worker_step",
        "worker_sync",  "request",         "request_open", "request_queued",
        PM_TABLE_STEPS, PM_TABLE_REQUESTS, "device_step",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void find_columns(struct tables *s)
{
    s->engine = s->rank = s->pid = s->time = s->label = s->operation = -1;
    s->n_gauges = s->n_pairs = 0;
    s->instants = strcmp(s->table->name, "kv_eviction") == 0;
    for (size_t i = 0; i < s->table->n_columns; i++) {
        const struct pm_table_column *column = &s->table->columns[i];
        const int at = (int)i;
        if (strcmp(column->name, "engine") == 0 && s->engine < 0)
            s->engine = at;
        else if (strcmp(column->name, "rank") == 0 && s->rank < 0)
            s->rank = at;
        else if (strcmp(column->name, "pid") == 0 && s->pid < 0)
            s->pid = at;
        else if (strcmp(column->name, "op") == 0 && strcmp(s->table->name, "frontend_op") == 0)
            s->operation = at;
        else if (column->kind == PM_KIND_TIME && column->type == PM_CELL_U64) {
            if (s->time < 0)
                s->time = at;
            if (i + 1 < s->table->n_columns && column[1].kind == PM_KIND_DURATION &&
                s->n_pairs < PAIRS_MAX)
                s->pairs[s->n_pairs++] = at;
        } else if (column->type == PM_CELL_TEXT && strcmp(column->name, "name") == 0)
            s->label = at;
        else if (column->kind == PM_KIND_GAUGE && column->type != PM_CELL_TEXT &&
                 s->n_gauges < GAUGES_MAX)
            s->gauges[s->n_gauges++] = at;
    }
}

static uint64_t cell(const struct tables *s, int column)
{
    return column >= 0 && s->table->cells[column].have ? s->table->cells[column].u64 : ~0ull;
}

static struct place *place_of(struct tables *s)
{
    const uint64_t engine = cell(s, s->engine), rank = cell(s, s->rank), pid = cell(s, s->pid);
    for (unsigned i = 0; i < s->n_places; i++)
        if (s->places[i].pid == pid && s->places[i].engine == engine && s->places[i].rank == rank)
            return &s->places[i];
    if (s->n_places == PLACES_MAX)
        return &s->places[PLACES_MAX - 1];
    struct place *place = &s->places[s->n_places++];
    *place = (struct place){.engine = engine, .rank = rank, .pid = pid};
    for (size_t p = 0; p < pm_session_process_count(s->t->session); p++) {
        const struct pm_process *process = pm_session_process(s->t->session, p);
        if (pm_process_info(process)->pid == pid)
            place->process = pm_timeline_process_id(process);
    }
    return place;
}

static struct pm_timeline_track lane_track(const struct tables *s, const struct place *place,
                                           unsigned lane)
{
    const uint64_t where = (uint64_t)(place - s->places);
    return (struct pm_timeline_track){
        .kind = PM_TIMELINE_THREAD,
        .id = pm_timeline_id("table", where, lane, s->table->name),
        .parent = place->process,
        .pid = (uint32_t)place->pid,
        .tid = TABLE_TID + (s->number * PLACES_MAX + (uint32_t)where) * LANES_MAX + lane,
        .name = s->table->name,
    };
}

/* What a slice is called: the row's own name, which of several times it is, or the table's name. */
static const char *label_of(const struct tables *s, unsigned pair)
{
    static const char *const operations[PM_FRONTEND_CLASSES] = {
#define OPERATION(number, name, text) [number] = text,
        PM_FRONTEND_OPS(OPERATION)
#undef OPERATION
    };
    if (s->operation >= 0 && cell(s, s->operation) < PM_FRONTEND_CLASSES)
        return operations[cell(s, s->operation)];
    if (s->label >= 0 && s->table->cells[s->label].have && s->table->cells[s->label].text[0] != 0)
        return s->table->cells[s->label].text;
    return s->n_pairs > 1 ? s->table->columns[s->pairs[pair] + 1].name : s->table->name;
}

static size_t args_of(const struct tables *s, struct pm_timeline_arg args[PM_TIMELINE_ARGS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < s->table->n_columns && n < PM_TIMELINE_ARGS_MAX; i++) {
        const struct pm_table_column *column = &s->table->columns[i];
        const struct pm_cell *value = &s->table->cells[i];
        if (column->kind == PM_KIND_TIME || !value->have || column->type == PM_CELL_F64 ||
            (int)i == s->engine || (int)i == s->rank || (int)i == s->pid)
            continue;
        args[n++] = column->type == PM_CELL_TEXT
                        ? (struct pm_timeline_arg){column->name, value->text, 0}
                        : (struct pm_timeline_arg){column->name, NULL, value->u64};
    }
    return n;
}

static int put_event(struct tables *s, struct place *place, unsigned pair, uint64_t at_ns,
                     uint64_t dur_ns)
{
    const struct pm_timeline_sink *sink = s->t->sink;
    struct pm_timeline_arg args[PM_TIMELINE_ARGS_MAX];
    unsigned lane = 0;
    int rc = 0;

    while (lane < place->lanes && place->lane_end_ns[lane] > at_ns && lane < LANES_MAX - 1)
        lane++;
    const struct pm_timeline_track track = lane_track(s, place, lane);
    if (lane == place->lanes) {
        place->lanes++;
        rc = sink->track(sink->arg, &track);
    }
    if (place->lane_end_ns[lane] < at_ns + dur_ns)
        place->lane_end_ns[lane] = at_ns + dur_ns;
    const struct pm_timeline_event event = {
        .track = &track,
        .category = s->table->name,
        .name = label_of(s, pair),
        .at_ns = at_ns,
        .dur_ns = dur_ns,
        .args = args,
        .n_args = args_of(s, args),
    };
    if (rc != 0)
        return rc;
    return s->instants ? sink->instant(sink->arg, &event) : sink->slice(sink->arg, &event);
}

static int put_gauges(struct tables *s, struct place *place, uint64_t at_ns)
{
    const struct pm_timeline_sink *sink = s->t->sink;
    const bool told = place->told_gauges;
    int rc = 0;

    place->told_gauges = true;
    for (unsigned i = 0; i < s->n_gauges && rc == 0; i++) {
        const struct pm_table_column *column = &s->table->columns[s->gauges[i]];
        const struct pm_cell *value = &s->table->cells[s->gauges[i]];
        char name[160];
        snprintf(name, sizeof(name), "%s.%s", s->table->name, column->name);
        const struct pm_timeline_track track = {
            .kind = PM_TIMELINE_COUNTER,
            .id = pm_timeline_id("gauge", (uint64_t)(place - s->places), 0, name),
            .parent = place->process,
            .pid = (uint32_t)place->pid,
            .name = name,
            .unit = column->unit,
        };
        if (!told)
            rc = sink->track(sink->arg, &track);
        if (rc == 0 && value->have)
            rc = sink->counter(sink->arg, &track, at_ns,
                               column->type == PM_CELL_F64 ? value->f64
                               : column->type == PM_CELL_I32 || column->type == PM_CELL_I64
                                   ? (double)value->i64
                                   : (double)value->u64);
    }
    return rc;
}

static int put_row(struct tables *s)
{
    struct place *place = place_of(s);
    const uint64_t moment_ns = cell(s, s->time);
    int rc = 0;

    for (unsigned i = 0; i < s->n_pairs && rc == 0; i++) {
        const uint64_t at_ns = cell(s, s->pairs[i]), dur_ns = cell(s, s->pairs[i] + 1);
        if (at_ns != 0 && at_ns != ~0ull && dur_ns != 0 && dur_ns != ~0ull) /* it happened */
            rc = put_event(s, place, i, at_ns, dur_ns);
    }
    if (moment_ns == 0 || moment_ns == ~0ull)
        return rc;
    if (rc == 0 && s->instants)
        rc = put_event(s, place, 0, moment_ns, 0);
    return rc == 0 ? put_gauges(s, place, moment_ns) : rc;
}

static int put_table(struct tables *s)
{
    int rc = 0;
    find_columns(s);
    if (s->time < 0 || s->pid < 0 || (s->n_pairs == 0 && s->n_gauges == 0 && !s->instants))
        return 0;
    while (rc == 0 && (rc = pm_table_next(s->table)) == 1)
        rc = put_row(s);
    return rc;
}

static int one_table(const char *name, const char *sentence, void *arg)
{
    struct tables *s = arg;
    (void)sentence;
    s->number++;
    if (drawn(name))
        return 0;
    s->n_places = 0;
    int rc = pm_table_open(&s->table, s->t->session, name, NULL);
    if (rc != 0)
        return rc;
    rc = put_table(s);
    pm_table_close(s->table);
    return rc;
}

int pm_timeline_tables(struct pm_timeline *t)
{
    struct tables s = {.t = t};
    return pm_native_tables(t->session, one_table, &s);
}
