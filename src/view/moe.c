/*
 * Gathers a worker's MoE facts (see moe.h): layers and counts from the steps' stream, calls from
 * the stream of custom hooks. Called by moe_files.c and moe_report.c.
 *
 * Each segment of the steps' stream opens with the counts so far, so that sums are exact also where
 * older ones had to go.
 */
#include "view/moe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "session/step_facts.h"
#include "session/attrs.h"
#include "view/columns.h"

#define EXPERTS_MAX 65536u /* a damaged file's word is not taken for more */

/* The fields of moe_counts and moe_totals. */
struct cell_columns {
    const struct pm_field *at, *first, *instance, *slot, *what;
    const struct pm_field *n[PM_MOE_DELTAS];
    uint32_t count;
};

static struct cell_columns find_cells(const struct pm_schema *schema)
{
    struct cell_columns columns = {
        .at = pm_column(schema, "at_ns"),
        .first = pm_column(schema, "first"),
        .instance = pm_column(schema, "instance"),
        .slot = pm_column(schema, "slot"),
        .what = pm_column(schema, "what"),
    };
    for (; columns.count < PM_MOE_DELTAS; columns.count++) {
        char name[8];
        (void)snprintf(name, sizeof(name), "n%u", (unsigned)columns.count);
        columns.n[columns.count] = pm_column(schema, name);
        if (columns.n[columns.count] == NULL)
            break;
    }
    return columns;
}

/* ---- layers ---- */

static struct pm_moe_sum *layer_of(const struct pm_moe_sums *sums, uint64_t slot)
{
    return slot < sums->n_layers && sums->layers[slot].n != NULL ? &sums->layers[slot] : NULL;
}

static int grow(struct pm_moe_sums *sums, size_t slot)
{
    if (slot < sums->n_layers)
        return 0;
    struct pm_moe_sum *layers = realloc(sums->layers, (slot + 1) * sizeof(*layers));
    if (layers == NULL)
        return -PM_ENOMEM;
    memset(layers + sums->n_layers, 0, (slot + 1 - sums->n_layers) * sizeof(*layers));
    sums->layers = layers;
    sums->n_layers = slot + 1;
    return 0;
}

/* Told once when the model was loaded, and again at the head of each segment. */
static int add_layer(struct pm_moe_sums *sums, const struct pm_moe_layer *fact, const char *name)
{
    if (fact->experts > EXPERTS_MAX)
        return 0;
    const int rc = grow(sums, fact->slot);
    if (rc != 0)
        return rc;
    struct pm_moe_sum *layer = &sums->layers[fact->slot];
    if (layer->n != NULL)
        return 0;
    const bool pairs = fact->pairs != 0 && fact->experts <= PM_MOE_PAIR_EXPERTS;
    layer->n = calloc((size_t)fact->experts + 1, sizeof(*layer->n));
    layer->part = calloc((size_t)fact->experts + 1, sizeof(*layer->part));
    if (pairs)
        layer->pairs = calloc((size_t)pm_moe_pairs(fact->experts) + 1, sizeof(*layer->pairs));
    if (layer->n == NULL || layer->part == NULL || (pairs && layer->pairs == NULL))
        return -PM_ENOMEM;
    layer->fact = *fact;
    (void)snprintf(layer->name, sizeof(layer->name), "%s", name);
    return 0;
}

void pm_moe_sums_release(struct pm_moe_sums *sums)
{
    for (size_t i = 0; i < sums->n_layers; i++) {
        free(sums->layers[i].n);
        free(sums->layers[i].part);
        free(sums->layers[i].pairs);
    }
    free(sums->layers);
    memset(sums, 0, sizeof(*sums));
}

/* ---- counts ---- */

/* What came with one flush, of all layers. */
static int tell_parts(struct pm_moe_sums *sums, const struct pm_moe_tell *tell)
{
    for (size_t i = 0; i < sums->n_layers; i++) {
        struct pm_moe_sum *layer = &sums->layers[i];
        if (layer->part_ns == 0)
            continue;
        if (tell != NULL && tell->part != NULL) {
            const int rc = tell->part(tell->arg, layer);
            if (rc != 0)
                return rc;
        }
        memset(layer->part, 0, layer->fact.experts * sizeof(*layer->part));
        layer->part_ns = 0;
    }
    return 0;
}

/* Adds, or with totals replaces, the cells of a record; returns whether they are selections. */
static bool take_cells(struct pm_moe_sum *layer, const struct cell_columns *columns,
                       const void *payload, bool totals)
{
    const uint64_t first = pm_column_get(columns->first, payload);
    const bool pairs = pm_column_get(columns->what, payload) == PM_MOE_PAIRS;
    uint64_t *cells = pairs ? layer->pairs : layer->n;
    const uint64_t count = pairs ? pm_moe_pairs(layer->fact.experts) : layer->fact.experts;

    for (uint64_t i = 0; cells != NULL && i < columns->count && first + i < count; i++) {
        const uint64_t n = pm_field_get(columns->n[i], payload);
        cells[first + i] = totals ? n : cells[first + i] + n;
        if (!pairs && !totals)
            layer->part[first + i] += n;
    }
    return !pairs;
}

struct core {
    int layer, counts, totals; /* numbers of the schemas, -1: not there */
    struct cell_columns count_cells, total_cells;
    uint64_t flush_ns; /* of the parts that are gathered */
};

static struct pm_moe_layer get_layer(const struct pm_record *record)
{
    const struct pm_schema *schema = record->desc;
#define GET(member, type) .member = (type)pm_column_get(pm_column(schema, #member), record->payload)
    return (struct pm_moe_layer){
        GET(at_ns, uint64_t), GET(name, uint32_t),     GET(layer, uint32_t), GET(experts, uint32_t),
        GET(top_k, uint32_t), GET(instance, uint16_t), GET(slot, uint16_t),  GET(seen, uint8_t),
        GET(why, uint8_t),    GET(pairs, uint8_t),     GET(timed, uint8_t),
    };
#undef GET
}

static int take_core(struct core *core, struct pm_cursor *cursor, const struct pm_record *record,
                     unsigned instance, const struct pm_moe_tell *tell, struct pm_moe_sums *sums)
{
    if (record->schema == (unsigned)core->layer) {
        const struct pm_moe_layer fact = get_layer(record);
        return fact.instance == instance
                   ? add_layer(sums, &fact, pm_cursor_string(cursor, fact.name))
                   : 0;
    }
    const bool totals = record->schema == (unsigned)core->totals;
    if (!totals && record->schema != (unsigned)core->counts)
        return 0;
    const struct cell_columns *columns = totals ? &core->total_cells : &core->count_cells;
    if (pm_column_get(columns->instance, record->payload) != instance)
        return 0;
    struct pm_moe_sum *layer = layer_of(sums, pm_column_get(columns->slot, record->payload));
    const uint64_t at_ns = pm_column_get(columns->at, record->payload);
    if (!totals && at_ns != core->flush_ns) {
        const int rc = tell_parts(sums, tell);
        if (rc != 0)
            return rc;
        core->flush_ns = at_ns;
        sums->flushes++;
    }
    if (layer != NULL && take_cells(layer, columns, record->payload, totals) && !totals)
        layer->part_ns = at_ns;
    return 0;
}

static int walk_core(const struct pm_process *process, unsigned instance,
                     const struct pm_moe_tell *tell, struct pm_moe_sums *sums)
{
    struct core core = {
        .layer = pm_process_schema_find(process, "moe_layer"),
        .counts = pm_process_schema_find(process, "moe_counts"),
        .totals = pm_process_schema_find(process, "moe_totals"),
    };
    struct pm_cursor *cursor;
    struct pm_record record;

    if (core.layer < 0)
        return 0;
    if (core.counts >= 0)
        core.count_cells = find_cells(pm_process_schema(process, (size_t)core.counts));
    if (core.totals >= 0)
        core.total_cells = find_cells(pm_process_schema(process, (size_t)core.totals));
    int rc =
        pm_cursor_open(&cursor, process, pm_process_schema(process, (size_t)core.layer)->stream);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        rc = take_core(&core, cursor, &record, instance, tell, sums);
        if (rc != 0)
            break;
    }
    pm_cursor_close(cursor);
    return rc != 0 ? rc : tell_parts(sums, tell);
}

/* ---- calls ---- */

static int walk_calls(const struct pm_process *process, unsigned instance,
                      const struct pm_moe_tell *tell, struct pm_moe_sums *sums)
{
    const int number = pm_process_schema_find(process, "moe_time");
    struct pm_cursor *cursor;
    struct pm_record record;

    if (number < 0 || sums->n_layers == 0)
        return 0;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)number);
    const struct pm_field *at = pm_column(schema, "at_ns"), *dur = pm_column(schema, "dur_ns");
    const struct pm_field *tokens = pm_column(schema, "tokens"), *slot = pm_column(schema, "slot");
    const struct pm_field *worker = pm_column(schema, "instance");
    sums->recycled_times = pm_process_info(process)->first_fact[schema->stream] > 0;
    int rc = pm_cursor_open(&cursor, process, schema->stream);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        if (record.schema != (unsigned)number || pm_column_get(worker, record.payload) != instance)
            continue;
        struct pm_moe_sum *layer = layer_of(sums, pm_column_get(slot, record.payload));
        const struct pm_moe_time time = {
            .at_ns = pm_column_get(at, record.payload),
            .dur_ns = (uint32_t)pm_column_get(dur, record.payload),
            .tokens = (uint32_t)pm_column_get(tokens, record.payload),
        };
        if (layer == NULL)
            continue;
        layer->calls++;
        layer->time_ns += time.dur_ns;
        sums->calls++;
        if (tell != NULL && tell->call != NULL && (rc = tell->call(tell->arg, layer, &time)) != 0)
            break;
    }
    pm_cursor_close(cursor);
    return rc;
}

/* ---- all of it ---- */

static int count_steps(const struct pm_process *process, uint64_t *ret_steps)
{
    struct pm_totals totals;
    const int rc = pm_process_totals(process, &totals);
    if (rc != 0)
        return rc;
    for (unsigned phase = PM_PHASE_PREFILL; phase < PM_PHASE_CLASSES; phase++) {
        struct pm_series series;
        if (pm_series_find(process, &totals, "worker_step", NULL, phase, &series))
            *ret_steps += series.count;
    }
    pm_totals_free(&totals);
    return 0;
}

int pm_moe_walk(const struct pm_session *session, size_t engine, unsigned n,
                const struct pm_moe_tell *tell, struct pm_moe_sums *ret_sums)
{
    const struct pm_process *process;
    unsigned instance;
    int rank;

    memset(ret_sums, 0, sizeof(*ret_sums));
    if (engine >= pm_session_engine_count(session) ||
        pm_engine_worker(session, engine, n, &process, &instance, &rank) != 0)
        return 0;
    ret_sums->reason = pm_process_attr(process, PM_ATTR_NOTE_PREFIX "moe");
    ret_sums->in_graph = pm_process_attr(process, PM_ATTR_NOTE_PREFIX "moe_graph");
    ret_sums->running = pm_process_info(process)->life == PM_LIFE_RUNNING;
    int rc = walk_core(process, instance, tell, ret_sums);
    if (rc == 0)
        rc = walk_calls(process, instance, tell, ret_sums);
    if (rc == 0 && ret_sums->n_layers > 0)
        rc = count_steps(process, &ret_sums->steps);
    for (size_t i = 0; i < ret_sums->n_layers; i++) {
        struct pm_moe_sum *layer = &ret_sums->layers[i];
        for (uint32_t expert = 0; layer->n != NULL && expert < layer->fact.experts; expert++)
            layer->selections += layer->n[expert];
        ret_sums->selections += layer->selections;
    }
    return rc;
}

int pm_moe_observable(const struct pm_moe_sums *sums, const char **ret_why)
{
    size_t seen = 0, layers = 0;

    *ret_why = NULL;
    for (size_t i = 0; i < sums->n_layers; i++) {
        layers += sums->layers[i].n != NULL;
        seen += sums->layers[i].n != NULL && sums->layers[i].fact.seen != PM_MOE_UNSEEN;
    }
    if (seen < layers || (layers == 0 && sums->reason != NULL)) {
        *ret_why = sums->reason != NULL ? sums->reason : "the worker does not say why";
        return 0;
    }
    if (sums->selections > 0)
        return 1;
    if (seen > 0 && sums->steps > 0 && !sums->running) {
        *ret_why = "the routers were never asked: the kernel in use bypasses them";
        return 0;
    }
    return -1;
}

void pm_moe_balance_of(const uint64_t *n, uint32_t experts, struct pm_moe_balance *ret_balance)
{
    struct pm_moe_balance balance = {.min = experts > 0 ? UINT64_MAX : 0};
    double sum = 0, squares = 0;

    for (uint32_t expert = 0; expert < experts; expert++) {
        balance.min = n[expert] < balance.min ? n[expert] : balance.min;
        balance.max = n[expert] > balance.max ? n[expert] : balance.max;
        balance.chosen += n[expert] > 0;
        sum += (double)n[expert];
    }
    balance.mean = experts > 0 ? sum / experts : 0;
    for (uint32_t expert = 0; expert < experts; expert++) {
        const double off = (double)n[expert] - balance.mean;
        squares += off * off;
    }
    balance.std = experts > 0 ? sqrt(squares / experts) : 0;
    balance.max_min = (double)balance.max / (double)(balance.min > 0 ? balance.min : 1);
    balance.balance = balance.max > 0 ? balance.mean / (double)balance.max : 0;
    *ret_balance = balance;
}
