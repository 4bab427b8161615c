/*
 * See layer.h: gathers what a worker's layers took.
 *
 * The values on disk only grow, and each record stands for all before it. Of a window (report
 * --last) the first record inside of it is taken off the last one.
 */
#include "view/layer.h"

#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"
#include "session/step_facts.h"
#include "view/columns.h"

#define ROWS_MAX 65536 /* a damaged file's word is not taken for more */

/* The values of one record that only grow. */
struct grown {
    uint64_t ns, device_ns, calls, device_calls, unseen;
};

/* One layer, kind and phase. */
struct cell {
    int32_t layer;
    uint8_t kind, phase; /* phase: 0 prefill, 1 decode */
    struct grown first, last;
};

struct walk {
    struct cell *cells;
    size_t n_cells, room;
    struct grown first_pass[2], last_pass[2];
    bool seen_pass[2], on_device;
    bool window;
};

const char *pm_layer_kind_name(unsigned kind)
{
    static const char *const names[] = {
#define X(name, text) text,
        PM_LAYER_KINDS(X)
#undef X
    };
    return kind < PM_LAYER_KINDS_COUNT ? names[kind] : "unknown";
}

uint64_t pm_layer_ns(const struct pm_layer_sum *sum)
{
    return sum->ns[0] + sum->ns[1];
}

uint64_t pm_layer_row_ns(const struct pm_layer_row *row)
{
    uint64_t ns = 0;
    for (unsigned k = 0; k < PM_LAYER_KINDS_COUNT; k++)
        ns += pm_layer_ns(&row->kinds[k]);
    return ns;
}

uint64_t pm_layer_pass_ns(const struct pm_layers *layers)
{
    return layers->pass_ns[0] + layers->pass_ns[1];
}

void pm_layer_release(struct pm_layers *layers)
{
    free(layers->rows);
    memset(layers, 0, sizeof(*layers));
}

/* ---- reading --------------------------------------------------------------------------------- */

struct time_fields {
    const struct pm_field *ns, *device_ns, *calls, *device_calls, *layer, *instance, *kind, *phase;
};

struct pass_fields {
    const struct pm_field *ns, *device_ns, *passes, *device_passes, *unseen, *instance, *phase,
        *on_device;
};

static struct cell *cell_of(struct walk *walk, int32_t layer, unsigned kind, unsigned phase)
{
    for (size_t i = 0; i < walk->n_cells; i++)
        if (walk->cells[i].layer == layer && walk->cells[i].kind == kind &&
            walk->cells[i].phase == phase)
            return &walk->cells[i];
    if (walk->n_cells == walk->room) {
        const size_t room = walk->room > 0 ? 2 * walk->room : 256;
        struct cell *cells = room <= ROWS_MAX ? realloc(walk->cells, room * sizeof(*cells)) : NULL;
        if (cells == NULL)
            return NULL;
        walk->cells = cells;
        walk->room = room;
    }
    struct cell *cell = &walk->cells[walk->n_cells++];
    memset(cell, 0, sizeof(*cell));
    cell->layer = layer;
    cell->kind = (uint8_t)kind;
    cell->phase = (uint8_t)phase;
    return cell;
}

static int add_time(struct walk *walk, const struct time_fields *fields, const void *payload)
{
    const struct grown now = {
        .ns = pm_column_get(fields->ns, payload),
        .device_ns = pm_column_get(fields->device_ns, payload),
        .calls = pm_column_get(fields->calls, payload),
        .device_calls = pm_column_get(fields->device_calls, payload),
    };
    const unsigned kind = (unsigned)pm_column_get(fields->kind, payload);
    const unsigned phase = pm_column_get(fields->phase, payload) == PM_PHASE_DECODE;
    if (kind >= PM_LAYER_KINDS_COUNT)
        return 0;
    const size_t before = walk->n_cells;
    struct cell *cell = cell_of(walk, (int32_t)pm_column_get(fields->layer, payload), kind, phase);
    if (cell == NULL)
        return walk->room >= ROWS_MAX ? 0 : -PM_ENOMEM;
    if (walk->n_cells > before)
        cell->first = now;
    cell->last = now;
    return 0;
}

static void add_pass(struct walk *walk, const struct pass_fields *fields, const void *payload)
{
    const struct grown now = {
        .ns = pm_column_get(fields->ns, payload),
        .device_ns = pm_column_get(fields->device_ns, payload),
        .calls = pm_column_get(fields->passes, payload),
        .device_calls = pm_column_get(fields->device_passes, payload),
        .unseen = pm_column_get(fields->unseen, payload),
    };
    const unsigned phase = pm_column_get(fields->phase, payload) == PM_PHASE_DECODE;
    if (!walk->seen_pass[phase])
        walk->first_pass[phase] = now;
    walk->seen_pass[phase] = true;
    walk->last_pass[phase] = now;
    walk->on_device = pm_column_get(fields->on_device, payload) != 0;
}

static int walk_records(struct walk *walk, const struct pm_process *process, unsigned instance)
{
    const int times = pm_process_schema_find(process, "layer_time");
    const int passes = pm_process_schema_find(process, "layer_pass");
    struct pm_cursor *cursor;
    struct pm_record record;

    if (times < 0 || passes < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)times);
    const struct time_fields time = {
        pm_column(desc, "ns"),           pm_column(desc, "device_ns"), pm_column(desc, "calls"),
        pm_column(desc, "device_calls"), pm_column(desc, "layer"),     pm_column(desc, "instance"),
        pm_column(desc, "kind"),         pm_column(desc, "phase"),
    };
    desc = pm_process_schema(process, (size_t)passes);
    const struct pass_fields pass = {
        pm_column(desc, "ns"),     pm_column(desc, "device_ns"),
        pm_column(desc, "passes"), pm_column(desc, "device_passes"),
        pm_column(desc, "unseen"), pm_column(desc, "instance"),
        pm_column(desc, "phase"),  pm_column(desc, "on_device"),
    };
    int rc = pm_cursor_open(&cursor, process, PM_STREAM_CORE);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        int error = 0;
        if (record.schema == (unsigned)times &&
            pm_column_get(time.instance, record.payload) == instance)
            error = add_time(walk, &time, record.payload);
        else if (record.schema == (unsigned)passes &&
                 pm_column_get(pass.instance, record.payload) == instance)
            add_pass(walk, &pass, record.payload);
        if (error != 0) {
            rc = error;
            break;
        }
    }
    pm_cursor_close(cursor);
    return rc;
}

/* ---- adding up ------------------------------------------------------------------------------- */

static uint64_t less(uint64_t last, uint64_t first)
{
    return last > first ? last - first : 0;
}

static struct grown since(const struct grown *last, const struct grown *first, bool window)
{
    if (!window)
        return *last;
    return (struct grown){
        .ns = less(last->ns, first->ns),
        .device_ns = less(last->device_ns, first->device_ns),
        .calls = less(last->calls, first->calls),
        .device_calls = less(last->device_calls, first->device_calls),
        .unseen = less(last->unseen, first->unseen),
    };
}

/* What belongs to no layer comes last. */
static int by_layer(const void *left, const void *right)
{
    const struct cell *a = left, *b = right;
    const uint32_t x = (uint32_t)a->layer, y = (uint32_t)b->layer;
    return x < y ? -1 : x > y;
}

static int add_up(struct walk *walk, struct pm_layers *layers)
{
    for (unsigned p = 0; p < 2; p++) {
        const struct grown pass = since(&walk->last_pass[p], &walk->first_pass[p], walk->window);
        layers->all_passes += pass.calls;
        layers->host_ns += pass.ns;
        layers->unseen += pass.unseen;
        layers->device = layers->device || pass.device_calls > 0;
    }
    for (unsigned p = 0; p < 2; p++) {
        const struct grown pass = since(&walk->last_pass[p], &walk->first_pass[p], walk->window);
        layers->passes[p] = layers->device ? pass.device_calls : pass.calls;
        layers->pass_ns[p] = layers->device ? pass.device_ns : pass.ns;
    }
    layers->launch = walk->on_device && !layers->device;
    if (walk->n_cells == 0)
        return 0;
    layers->rows = calloc(walk->n_cells, sizeof(*layers->rows));
    if (layers->rows == NULL)
        return -PM_ENOMEM;
    qsort(walk->cells, walk->n_cells, sizeof(*walk->cells), by_layer);
    for (size_t i = 0; i < walk->n_cells; i++) {
        const struct cell *cell = &walk->cells[i];
        const struct grown sum = since(&cell->last, &cell->first, walk->window);
        if (i == 0 || cell->layer != walk->cells[i - 1].layer)
            layers->rows[layers->n_rows++].layer = cell->layer;
        struct pm_layer_sum *of = &layers->rows[layers->n_rows - 1].kinds[cell->kind];
        of->host_ns += sum.ns;
        layers->kinds[cell->kind].host_ns += sum.ns;
        of->calls[cell->phase] += layers->device ? sum.device_calls : sum.calls;
        of->ns[cell->phase] += layers->device ? sum.device_ns : sum.ns;
        layers->kinds[cell->kind].calls[cell->phase] += of->calls[cell->phase];
        layers->kinds[cell->kind].ns[cell->phase] += of->ns[cell->phase];
    }
    return 0;
}

int pm_layer_walk(const struct pm_session *session, size_t engine, unsigned n,
                  struct pm_layers *ret_layers)
{
    const struct pm_process *process;
    unsigned instance;
    int rank;

    memset(ret_layers, 0, sizeof(*ret_layers));
    if (engine >= pm_session_engine_count(session) ||
        pm_engine_worker(session, engine, n, &process, &instance, &rank) != 0)
        return 0;
    const struct pm_span *span = pm_session_span(session);
    struct walk walk = {
        .window = span != NULL &&
                  (span->by_steps || span->from_ns > pm_session_info(session)->start_mono_ns),
    };
    ret_layers->hooks = pm_process_attr(process, PM_ATTR_LAYERS);
    int rc = walk_records(&walk, process, instance);
    if (rc == 0)
        rc = add_up(&walk, ret_layers);
    free(walk.cells);
    return rc;
}
