/*
 * A native table that follows a schema of the record files: every record of that name of every
 * process, whatever probe made it. Before its fields stand the time since the session's start, and
 * where the record belongs.
 */
#include "view/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "view/columns.h"

/* Where a record belongs: engine and rank of its process and instance, -1 unknown. */
struct place {
    int engine, rank;
};

/* The places of one process, by instance. A process has few; the first one stands for others. */
#define PLACES_MAX 256
struct places {
    unsigned count;
    struct {
        unsigned instance;
        struct place place;
    } rows[PLACES_MAX];
};

struct facts_table {
    struct pm_table base;
    struct pm_table_column columns[PM_TABLE_COLUMNS_MAX];
    const struct pm_schema *schema; /* of the first process that has the table: its columns */
    bool timed;                     /* it begins with timestamp_sec */
    size_t process;                 /* the one being read */
    /* Of that process: */
    struct pm_cursor *cursor; /* NULL: not open yet */
    int number;               /* of the schema */
    bool fresh;               /* nothing but what the first segment repeats was met so far */
    uint32_t pid;
    const struct pm_field *time, *instance;
    const struct pm_field *fields[64];
    struct places places;
    bool in_part; /* only what part says */
    struct pm_table_part part;
};

static void add_place(struct places *places, unsigned instance, int engine, int rank)
{
    if (places->count == PLACES_MAX)
        return;
    places->rows[places->count].instance = instance;
    places->rows[places->count++].place = (struct place){engine, rank};
}

/* In a process that schedules and works, a table of the worker's has its rank. */
static void find_places(const struct pm_session *session, const struct pm_process *process,
                        bool of_worker, struct places *ret_places)
{
    ret_places->count = 0;
    for (size_t e = 0; e < pm_session_engine_count(session); e++) {
        const struct pm_engine *engine = pm_session_engine(session, e);
        if (!of_worker && engine->process == process)
            add_place(ret_places, engine->instance, (int)engine->number, -1);
        for (unsigned n = 0; of_worker && n < engine->n_ranks; n++) {
            const struct pm_process *worker;
            unsigned instance;
            int rank;
            if (pm_engine_worker(session, e, n, &worker, &instance, &rank) == 0 &&
                worker == process)
                add_place(ret_places, instance, (int)engine->number, rank);
        }
    }
}

static struct place place_of(const struct places *places, uint64_t instance)
{
    for (unsigned i = 0; i < places->count; i++)
        if (places->rows[i].instance == instance)
            return places->rows[i].place;
    return places->count > 0 ? places->rows[0].place : (struct place){-1, -1};
}

static const struct pm_field *first_of_kind(const struct pm_schema *schema, enum pm_kind kind)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (schema->fields[i].kind == kind)
            return &schema->fields[i];
    return NULL;
}

static enum pm_cell_type cell_type(enum pm_type type)
{
    static const enum pm_cell_type types[PM_TYPE_COUNT] = {
        [PM_TYPE_U8] = PM_CELL_U8,   [PM_TYPE_U16] = PM_CELL_U16,  [PM_TYPE_U32] = PM_CELL_U32,
        [PM_TYPE_U64] = PM_CELL_U64, [PM_TYPE_I32] = PM_CELL_I32,  [PM_TYPE_I64] = PM_CELL_I64,
        [PM_TYPE_F64] = PM_CELL_F64, [PM_TYPE_STR] = PM_CELL_TEXT,
    };
    return types[type];
}

static void make_columns(struct facts_table *t)
{
    struct pm_table_column *column = t->columns;
    if (t->timed)
        *column++ =
            (struct pm_table_column){"timestamp_sec", PM_CELL_SEC, "s", PM_KIND_TIME,
                                     "The record's moment, counted from the session's start."};
    *column++ = (struct pm_table_column){"engine", PM_CELL_I32, "", PM_KIND_ID,
                                         "Number of the engine, from 0."};
    *column++ = (struct pm_table_column){"rank", PM_CELL_I32, "", PM_KIND_ID,
                                         "Rank of the worker within its engine."};
    *column++ = (struct pm_table_column){"pid", PM_CELL_U32, "", PM_KIND_ID,
                                         "Of the process that recorded it."};
    for (size_t i = 0; i < t->schema->n_fields && i < 64; i++) {
        const struct pm_field *field = &t->schema->fields[i];
        *column++ = (struct pm_table_column){field->name, cell_type(field->type), field->unit,
                                             field->kind, field->doc};
    }
    if (t->in_part)
        *column++ = (struct pm_table_column)PM_TABLE_POSITION;
    t->base.columns = t->columns;
    t->base.n_columns = (size_t)(column - t->columns);
}

/* 1: the cursor of the next process that has the table is open; 0: there is none. */
static int next_process(struct facts_table *t)
{
    const struct pm_session *session = t->base.session;
    for (; t->process < pm_session_process_count(session); t->process++) {
        if (t->in_part && t->process != t->part.process)
            return 0;
        const struct pm_process *process = pm_session_process(session, t->process);
        t->number = pm_process_schema_find(process, t->base.name);
        if (t->number < 0)
            continue;
        const struct pm_process_info *info = pm_process_info(process);
        const struct pm_schema *schema = pm_process_schema(process, (size_t)t->number);
        t->time = first_of_kind(schema, PM_KIND_TIME);
        t->instance = pm_column(schema, "instance");
        for (size_t i = 0; i < t->schema->n_fields && i < 64; i++)
            t->fields[i] = pm_column(schema, t->schema->fields[i].name);
        t->fresh = info->first_fact[schema->stream] > 0;
        t->pid = info->pid;
        find_places(session, process, strncmp(t->base.name, "worker", 6) == 0, &t->places);
        if (t->places.count == 0)
            find_places(session, process, true, &t->places);
        int rc = pm_cursor_open(&t->cursor, process, schema->stream);
        if (rc == 0 && t->in_part) {
            t->fresh = t->fresh && t->part.from <= info->first_fact[schema->stream];
            pm_cursor_skip(t->cursor, UINT64_MAX, t->part.from);
        }
        return rc != 0 ? rc : 1;
    }
    return 0;
}

static void take_field(struct pm_cell *cell, struct pm_cursor *cursor, const struct pm_field *field,
                       const uint8_t *payload)
{
    cell->have = field != NULL; /* else this process does not have it */
    if (field == NULL)
        return;
    const uint64_t value = pm_field_get(field, payload);
    switch (field->type) {
    case PM_TYPE_STR:
        cell->text = pm_cursor_string(cursor, (uint32_t)value);
        break;
    case PM_TYPE_F64:
        memcpy(&cell->f64, &value, sizeof(cell->f64));
        cell->have = isfinite(cell->f64);
        break;
    default:
        cell->u64 = value; /* signed ones are extended already */
        break;
    }
}

static void take(struct facts_table *t, const struct pm_record *record)
{
    struct pm_cell *cell = t->base.cells;
    const struct place place =
        place_of(&t->places, t->instance != NULL ? pm_field_get(t->instance, record->payload) : 0);
    if (t->timed) {
        const uint64_t start_ns = pm_session_info(t->base.session)->start_mono_ns;
        pm_cell_i64(cell++, true,
                    t->time != NULL ? (int64_t)(pm_field_get(t->time, record->payload) - start_ns)
                                    : 0);
    }
    pm_cell_i64(cell++, place.engine >= 0, place.engine);
    pm_cell_i64(cell++, place.rank >= 0, place.rank);
    pm_cell_u64(cell++, true, t->pid);
    for (size_t i = 0; i < t->schema->n_fields && i < 64; i++)
        take_field(cell++, t->cursor, t->fields[i], record->payload);
    if (t->in_part)
        pm_cell_u64(cell, true, record->fact);
}

static int facts_next(struct pm_table *table)
{
    struct facts_table *t = (struct facts_table *)table;
    struct pm_record record;
    int rc;

    for (;;) {
        if (t->cursor == NULL && (rc = next_process(t)) <= 0)
            return rc;
        while ((rc = pm_cursor_next(t->cursor, &record)) == 1) {
            /* What a segment repeats from before it counts only where that before is gone. */
            t->fresh = t->fresh && record.keyframe;
            if ((int)record.schema != t->number || (record.keyframe && !t->fresh))
                continue;
            if (t->in_part && record.fact < t->part.from)
                continue;
            if (t->in_part && record.fact >= t->part.to)
                break;
            take(t, &record);
            return 1;
        }
        if (rc < 0)
            return rc; /* else at the end, or past the part */
        pm_cursor_close(t->cursor);
        t->cursor = NULL;
        t->process++;
    }
}

static void facts_close(struct pm_table *table)
{
    struct facts_table *t = (struct facts_table *)table;
    pm_cursor_close(t->cursor);
    free(t);
}

int pm_table_open_facts(struct pm_table **ret_table, const struct pm_session *session,
                        const char *name, const struct pm_table_part *part)
{
    static const struct pm_table_sort sort = {facts_next, facts_close};
    size_t first = 0;
    const struct pm_schema *schema = pm_table_schema(session, name, &first);
    if (schema == NULL)
        return -PM_ENOTFOUND;
    struct facts_table *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return -PM_ENOMEM;
    t->base.session = session;
    t->base.sort = &sort;
    t->base.name = schema->name;
    t->base.doc = schema->doc;
    t->schema = schema;
    t->process = part != NULL ? part->process : first;
    if (part != NULL) {
        t->in_part = true;
        t->part = *part;
    }
    t->timed = first_of_kind(schema, PM_KIND_TIME) != NULL;
    make_columns(t);
    *ret_table = &t->base;
    return 0;
}
