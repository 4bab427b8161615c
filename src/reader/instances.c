/*
 * Finds the schedulers and workers of a process (see instances.h).
 */
#include "reader/instances.h"

#include <string.h>

/* Where a schema keeps what is looked at. */
struct look {
    int schema; /* -1: no such facts */
    const struct pm_field *instance, *start, *step;
};

/* One kind of fact in one process. */
struct kind {
    struct look look;
    struct pm_instances *list;
    /* of the newest fact seen */
    bool any;
    uint64_t last_step;
};

static const struct pm_field *field_named(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

static struct kind kind_of(const struct pm_process *process, const char *name, const char *start,
                           struct pm_instances *list)
{
    struct kind kind = {.look = {.schema = pm_process_schema_find(process, name)}, .list = list};
    if (kind.look.schema >= 0) {
        const struct pm_schema *schema = pm_process_schema(process, (size_t)kind.look.schema);
        kind.look.instance = field_named(schema, "instance");
        kind.look.start = field_named(schema, start);
        kind.look.step = field_named(schema, "step");
    }
    return kind;
}

static void see(struct kind *kind, const uint8_t *payload)
{
    const struct look *look = &kind->look;
    struct pm_instances *list = kind->list;
    const uint64_t number = look->instance != NULL ? pm_field_get(look->instance, payload) : 0;
    const uint64_t at = look->start != NULL ? pm_field_get(look->start, payload) : 0;

    kind->any = true;
    kind->last_step = look->step != NULL ? pm_field_get(look->step, payload) : 0;
    for (size_t i = list->count; i-- > 0;)
        if (list->rows[i].number == number) {
            if (at < list->rows[i].first_ns)
                list->rows[i].first_ns = at;
            return;
        }
    if (list->count < PM_INSTANCES_MAX)
        list->rows[list->count++] =
            (struct pm_instance){.number = (unsigned)number, .first_ns = at};
}

/* Every fact of the stream. */
static int read_through(const struct pm_process *process, struct kind kinds[2])
{
    struct pm_cursor *cursor;
    struct pm_record record;
    int rc = pm_cursor_open(&cursor, process, PM_STREAM_CORE);

    if (rc != 0)
        return rc;
    kinds[0].list->count = kinds[1].list->count = 0;
    while ((rc = pm_cursor_next(cursor, &record)) == 1)
        for (unsigned k = 0; k < 2; k++)
            if ((int)record.schema == kinds[k].look.schema)
                see(&kinds[k], record.payload);
    pm_cursor_close(cursor);
    return rc;
}

/* The facts of one segment. 0; 1: not to be relied on (damaged, gone). */
static int read_segment(const struct pm_process *process, const struct pm_segment_ref *ref,
                        struct pm_segment_copy *copy, struct kind kinds[2])
{
    struct pm_walk walk;
    struct pm_raw raw;
    const char *why;
    int rc = pm_segment_read(process, PM_STREAM_CORE, ref, copy);

    if (rc != 0)
        return rc == -PM_ENOMEM ? rc : 1;
    pm_walk_begin(&walk, copy);
    while ((rc = pm_walk_next(&walk, &raw, &why)) == 1)
        for (unsigned k = 0; k < 2; k++) {
            const int schema = kinds[k].look.schema;
            if (schema >= 0 && raw.schema == PM_SCHEMA_FIRST + (uint32_t)schema &&
                raw.bytes >= process->schemas[schema]->payload_bytes)
                see(&kinds[k], raw.payload);
        }
    return rc < 0;
}

/* How many facts of a schema there ever were. */
static uint64_t counted(const struct pm_process *process, const struct pm_totals *totals,
                        int schema)
{
    const struct pm_schema *desc = process->schemas[schema];
    uint32_t at, hist, values, hists;
    uint64_t count = 0;

    pm_process_series(process, (size_t)schema, &at, &hist);
    pm_schema_series(desc, &values, &hists);
    for (uint32_t c = 0; c < desc->classes; c++)
        count += totals->values[at + c * (values / desc->classes)];
    return count;
}

/* Steps are numbered from 0 per instance and every fact is counted in the totals: where nothing was
 * lost and there were as many facts as the newest one's number says, all of them are of its
 * instance. The first and the last segment then tell the rest. 1: proven; 0: not so. */
static int prove_single(const struct pm_process *process, struct kind kinds[2])
{
    struct pm_segment_list lists[PM_STREAM_COUNT];
    struct pm_segment_copy copy = {0};
    struct pm_totals totals;
    int rc;

    if (process->info.lost[PM_STREAM_CORE] != 0)
        return 0;
    rc = pm_segments_list(process, 1u << PM_STREAM_CORE, lists);
    if (rc != 0)
        return rc;
    const struct pm_segment_list *list = &lists[PM_STREAM_CORE];
    if (list->count > 2) {
        rc = read_segment(process, &list->refs[0], &copy, kinds);
        for (unsigned k = 0; k < 2; k++)
            kinds[k].any = false; /* the newest one is wanted from the end */
        if (rc == 0)
            rc = read_segment(process, &list->refs[list->count - 2], &copy, kinds);
        if (rc == 0)
            rc = read_segment(process, &list->refs[list->count - 1], &copy, kinds);
    } else {
        rc = 1; /* as well read it all */
    }
    pm_segment_copy_free(&copy);
    pm_segments_free(lists);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = pm_process_totals(process, &totals);
    if (rc != 0)
        return rc == -PM_ENOMEM ? rc : 0;
    int proven = 1;
    for (unsigned k = 0; k < 2; k++) {
        if (kinds[k].look.schema < 0)
            continue;
        const uint64_t count = counted(process, &totals, kinds[k].look.schema);
        if (count != 0 && (!kinds[k].any || kinds[k].list->count != 1 ||
                           kinds[k].look.step == NULL || kinds[k].last_step + 1 != count))
            proven = 0;
    }
    pm_totals_free(&totals);
    return proven;
}

int pm_instances_find(const struct pm_process *process, struct pm_instances *ret_scheds,
                      struct pm_instances *ret_workers)
{
    struct kind kinds[2] = {kind_of(process, "sched_step", "start_ns", ret_scheds),
                            kind_of(process, "worker_step", "start_ns", ret_workers)};

    if (kinds[0].look.schema <
        0) /* the probe of the steps was off; the KV cache's has one as well */
        kinds[0] = kind_of(process, "kv_step", "at_ns", ret_scheds);
    ret_scheds->count = ret_workers->count = 0;
    if (kinds[0].look.schema < 0 && kinds[1].look.schema < 0)
        return 0;
    int rc = prove_single(process, kinds);
    if (rc < 0)
        return rc;
    return rc == 1 ? 0 : read_through(process, kinds);
}
