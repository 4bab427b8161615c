/* See collective.h: the walk through a worker's collective operations. */
#include "view/collective.h"
#include "view/collective_device.h"

#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "view/columns.h"
#include "view/detail.h"
#include "view/graph.h"

#define LINES_MAX 512u /* of one step, put in order of time */

/* What each replay of a graph does, its pieces together. */
struct captured {
    struct pm_graph_desc desc;
    unsigned row;
    uint32_t piece, order;
    uint64_t calls, bytes;
};

struct line {
    uint64_t at_ns, dur_ns, bytes;
    unsigned row;
    bool captured;
};

struct step_fields {
    const struct pm_field *step, *start, *dur, *bytes, *calls, *group, *instance, *operation,
        *flags;
};

struct walk {
    struct pm_collective_ahead ahead;
    struct pm_collectives *sums;
    struct pm_outfile *file; /* NULL: only the sums */
    uint64_t session_start_ns;
    unsigned instance;
    struct captured *captured; /* sorted by descriptor and row, one of each */
    size_t n_captured, room;
    struct line lines[LINES_MAX]; /* of the step at hand */
    size_t n_lines;
    uint64_t step;
};

const char *pm_collective_operation_name(unsigned operation)
{
    static const char *const names[] = {
#define X(name, text) text,
        PM_COLLECTIVE_OPERATIONS(X)
#undef X
    };
    return operation < PM_COLLECTIVE_OPERATIONS_COUNT ? names[operation] : "unknown";
}

const char *pm_collective_clock(const struct pm_collectives *collectives)
{
    return collectives->by_device ? "device" : collectives->device ? "launch" : "host";
}

void pm_collective_release(struct pm_collectives *collectives)
{
    for (size_t i = 0; i < collectives->n_rows; i++) {
        pm_samples_release(&collectives->rows[i].samples);
        pm_samples_release(&collectives->rows[i].device_samples);
    }
    free(collectives->rows);
    memset(collectives, 0, sizeof(*collectives));
}

/* vLLM numbers the groups of each kind: the first one goes without its number. What else could
 * break a line or a terminal becomes `?`. */
static void copy_group(char out[PM_COLLECTIVE_GROUP_MAX], const char *name)
{
    size_t used = strnlen(name, PM_COLLECTIVE_GROUP_MAX - 1);
    if (used > 2 && strcmp(name + used - 2, ":0") == 0)
        used -= 2;
    for (size_t i = 0; i < used; i++) {
        const unsigned char c = (unsigned char)name[i];
        out[i] = c < 0x20 || c == 0x7f || c == ',' || c == '"' ? '?' : name[i];
    }
    out[used] = '\0';
}

unsigned pm_collective_row_of(struct pm_collectives *sums, const char *name, unsigned operation)
{
    char group[PM_COLLECTIVE_GROUP_MAX];
    copy_group(group, name);
    for (size_t i = 0; i < sums->n_rows; i++)
        if (sums->rows[i].operation == operation && strcmp(sums->rows[i].group, group) == 0)
            return (unsigned)i;
    if (sums->n_rows == PM_COLLECTIVE_ROWS_MAX)
        return PM_COLLECTIVE_ROWS_MAX - 1;
    struct pm_collective_row *row = &sums->rows[sums->n_rows];
    row->operation = operation;
    memcpy(row->group, group, sizeof(group));
    pm_samples_init(&row->samples);
    pm_samples_init(&row->device_samples);
    return (unsigned)sums->n_rows++;
}

/* ---- what graphs hold ---- */

struct desc_fields {
    const struct pm_field *num_tokens, *num_reqs, *loras, *variant, *mode, *uniform, *lora, *holder;
};

static struct desc_fields find_desc(const struct pm_schema *schema)
{
    return (struct desc_fields){
        .num_tokens = pm_column(schema, "num_tokens"),
        .num_reqs = pm_column(schema, "num_reqs"),
        .loras = pm_column(schema, "num_active_loras"),
        .variant = pm_column(schema, "variant"),
        .mode = pm_column(schema, "mode"),
        .uniform = pm_column(schema, "uniform"),
        .lora = pm_column(schema, "has_lora"),
        .holder = pm_column(schema, "holder"),
    };
}

static struct pm_graph_desc get_desc(const struct desc_fields *fields, const void *payload)
{
    return (struct pm_graph_desc){
        .num_tokens = (uint32_t)pm_column_get(fields->num_tokens, payload),
        .num_reqs = (int32_t)pm_column_get(fields->num_reqs, payload),
        .num_active_loras = (uint16_t)pm_column_get(fields->loras, payload),
        .variant = (uint16_t)pm_column_get(fields->variant, payload),
        .mode = (uint8_t)pm_column_get(fields->mode, payload),
        .uniform = (uint8_t)pm_column_get(fields->uniform, payload),
        .has_lora = (uint8_t)pm_column_get(fields->lora, payload),
        .holder = (uint8_t)pm_column_get(fields->holder, payload),
    };
}

static int by_piece(const void *left, const void *right)
{
    const struct captured *a = left, *b = right;
    const int desc = memcmp(&a->desc, &b->desc, sizeof(a->desc));
    if (desc != 0)
        return desc;
    if (a->row != b->row)
        return a->row < b->row ? -1 : 1;
    if (a->piece != b->piece)
        return a->piece < b->piece ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static bool same_graph(const struct captured *a, const struct captured *b)
{
    return a->row == b->row && memcmp(&a->desc, &b->desc, sizeof(a->desc)) == 0;
}

/* The newest record of each piece counts; then the pieces of a graph become one. */
static void fold_pieces(struct walk *walk)
{
    struct captured *all = walk->captured;
    size_t used = 0;
    if (walk->n_captured > 1)
        qsort(all, walk->n_captured, sizeof(*all), by_piece);
    for (size_t i = 0; i < walk->n_captured; i++) {
        const struct captured *next = i + 1 < walk->n_captured ? &all[i + 1] : NULL;
        if (next != NULL && same_graph(next, &all[i]) && next->piece == all[i].piece)
            continue;
        if (used > 0 && same_graph(&all[used - 1], &all[i])) {
            all[used - 1].calls += all[i].calls;
            all[used - 1].bytes += all[i].bytes;
        } else {
            all[used++] = all[i];
        }
    }
    walk->n_captured = used;
}

static int add_captured(struct walk *walk, const struct captured *captured)
{
    if (walk->n_captured == walk->room) {
        const size_t room = walk->room != 0 ? 2 * walk->room : 64;
        struct captured *more = realloc(walk->captured, room * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        walk->captured = more;
        walk->room = room;
    }
    walk->captured[walk->n_captured++] = *captured;
    return 0;
}

static int walk_captures(struct walk *walk, const struct pm_process *process)
{
    const int schema = pm_process_schema_find(process, "collective_capture");
    struct pm_cursor *cursor;
    struct pm_record record;

    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct desc_fields fields = find_desc(desc);
    const struct pm_field *group = pm_column(desc, "group"), *piece = pm_column(desc, "piece");
    const struct pm_field *calls = pm_column(desc, "calls"), *bytes = pm_column(desc, "bytes");
    const struct pm_field *operation = pm_column(desc, "operation");
    const struct pm_field *instance = pm_column(desc, "instance");
    int rc = pm_cursor_open(&cursor, process, desc->stream);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        const void *payload = record.payload;
        if (record.schema != (unsigned)schema || pm_column_get(instance, payload) != walk->instance)
            continue;
        rc = add_captured(
            walk,
            &(struct captured){
                .desc = get_desc(&fields, payload),
                .row = pm_collective_row_of(
                    walk->sums, pm_cursor_string(cursor, (uint32_t)pm_column_get(group, payload)),
                    (unsigned)pm_column_get(operation, payload)),
                .piece = (uint32_t)pm_column_get(piece, payload),
                .order = (uint32_t)walk->n_captured,
                .calls = pm_column_get(calls, payload),
                .bytes = pm_column_get(bytes, payload),
            });
        if (rc != 0)
            break;
    }
    pm_cursor_close(cursor);
    fold_pieces(walk);
    return rc;
}

/* The first entry of a graph, or n_captured. */
static size_t first_of(const struct walk *walk, const struct pm_graph_desc *desc)
{
    size_t from = 0, to = walk->n_captured;
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        if (memcmp(&walk->captured[middle].desc, desc, sizeof(*desc)) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    const bool found =
        from < walk->n_captured && memcmp(&walk->captured[from].desc, desc, sizeof(*desc)) == 0;
    return found ? from : walk->n_captured;
}

/* All replays of each graph, also those whose detail had to go. */
static int count_replays(struct walk *walk, const struct pm_session *session, size_t engine,
                         unsigned n)
{
    struct pm_graph_sums graphs;
    const int rc = pm_graph_walk(session, engine, n, NULL, NULL, &graphs);
    for (size_t g = 0; g < graphs.n_rows && rc == 0; g++) {
        const struct pm_graph_desc *desc = &graphs.rows[g].desc;
        for (size_t i = first_of(walk, desc);
             i < walk->n_captured && memcmp(&walk->captured[i].desc, desc, sizeof(*desc)) == 0;
             i++) {
            struct pm_collective_row *row = &walk->sums->rows[walk->captured[i].row];
            row->captured_calls += walk->captured[i].calls * graphs.rows[g].replays;
            row->captured_bytes += walk->captured[i].bytes * graphs.rows[g].replays;
        }
    }
    pm_graph_sums_release(&graphs);
    return rc;
}

/* ---- the steps ---- */

static int put_line(struct walk *walk, const struct line *line)
{
    const struct pm_collective_row *row = &walk->sums->rows[line->row];
    struct pm_buf *buf = &walk->file->buf;
    char number[3 * PM_NUMBER_MAX];
    char *out = pm_number_sec6_signed(number, (int64_t)(line->at_ns - walk->session_start_ns));
    *out = '\0';
    (void)pm_buf_printf(buf, "%s,%s,%s,", number, row->group,
                        pm_collective_operation_name(row->operation));
    out = pm_number_u64(number, line->bytes);
    *out++ = ',';
    if (!line->captured)
        out = pm_number_ms3(out, line->dur_ns);
    *out = '\0';
    const int rc = pm_buf_printf(buf, "%s,%s\n", number, line->captured ? "True" : "False");
    return rc != 0 ? rc : pm_outfile_spill(walk->file);
}

static int by_time(const void *left, const void *right)
{
    const struct line *a = left, *b = right;
    return a->at_ns < b->at_ns ? -1 : a->at_ns > b->at_ns;
}

static int put_lines(struct walk *walk)
{
    int rc = 0;
    qsort(walk->lines, walk->n_lines, sizeof(*walk->lines), by_time);
    for (size_t i = 0; i < walk->n_lines && rc == 0; i++)
        rc = put_line(walk, &walk->lines[i]);
    walk->n_lines = 0;
    return rc;
}

static int add_line(struct walk *walk, uint64_t step, struct line line)
{
    int rc = 0;
    walk->sums->lines++;
    if (walk->file == NULL)
        return 0;
    if (step != walk->step || walk->n_lines == LINES_MAX)
        rc = put_lines(walk);
    walk->step = step;
    walk->lines[walk->n_lines++] = line;
    return rc;
}

static int add_step(struct walk *walk, const struct step_fields *fields, struct pm_cursor *cursor,
                    const void *payload)
{
    struct pm_collectives *sums = walk->sums;
    const uint64_t bytes = pm_column_get(fields->bytes, payload);
    const uint64_t calls = pm_column_get(fields->calls, payload);
    const uint64_t dur = pm_column_get(fields->dur, payload);
    const unsigned flags = (unsigned)pm_column_get(fields->flags, payload);
    sums->device = sums->device || (flags & PM_COLLECTIVE_DEVICE) != 0;
    if (flags & PM_COLLECTIVE_OUTSIDE) {
        sums->outside_calls += calls;
        sums->outside_bytes += bytes;
        return 0;
    }
    const unsigned place = pm_collective_row_of(
        sums, pm_cursor_string(cursor, (uint32_t)pm_column_get(fields->group, payload)),
        (unsigned)pm_column_get(fields->operation, payload));
    struct pm_collective_row *row = &sums->rows[place];
    const uint64_t step = pm_column_get(fields->step, payload);
    const struct pm_collective_time *device;
    int rc = pm_collective_ahead_find(&walk->ahead, step, place, calls, &device);
    if (rc != 0)
        return rc;
    row->calls += calls;
    row->bytes += bytes;
    row->host_ns += dur;
    row->failed += (flags & PM_COLLECTIVE_FAILED) != 0;
    rc = pm_samples_add(&row->samples, dur);
    if (rc == 0 && device != NULL) {
        row->device_calls += calls;
        row->device_ns += device->ns;
        sums->by_device = true;
        rc = pm_samples_add(&row->device_samples, device->ns);
    }
    if (rc != 0)
        return rc;
    return add_line(walk, step,
                    (struct line){.at_ns = pm_column_get(fields->start, payload),
                                  .dur_ns = device != NULL ? device->ns : dur,
                                  .bytes = bytes,
                                  .row = place});
}

/* One replay of a graph. */
static int add_pass(struct walk *walk, uint64_t step, uint64_t at_ns,
                    const struct pm_graph_desc *desc)
{
    int rc = 0;
    for (size_t i = first_of(walk, desc); i < walk->n_captured && rc == 0 &&
                                          memcmp(&walk->captured[i].desc, desc, sizeof(*desc)) == 0;
         i++)
        rc = add_line(walk, step,
                      (struct line){.at_ns = at_ns,
                                    .bytes = walk->captured[i].bytes,
                                    .row = walk->captured[i].row,
                                    .captured = true});
    return rc;
}

static int walk_steps(struct walk *walk, const struct pm_process *process)
{
    const int schema = pm_process_schema_find(process, "collective_step");
    const int passes = pm_process_schema_find(process, "graph_pass");
    struct pm_cursor *cursor;
    struct pm_record record;

    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct step_fields fields = {
        pm_column(desc, "step"),     pm_column(desc, "start_ns"),  pm_column(desc, "dur_ns"),
        pm_column(desc, "bytes"),    pm_column(desc, "calls"),     pm_column(desc, "group"),
        pm_column(desc, "instance"), pm_column(desc, "operation"), pm_column(desc, "flags"),
    };
    const struct pm_schema *pass =
        passes >= 0 && walk->n_captured > 0 ? pm_process_schema(process, (size_t)passes) : NULL;
    const struct desc_fields pass_desc = pass != NULL ? find_desc(pass) : (struct desc_fields){0};
    const struct pm_field *pass_step = pass != NULL ? pm_column(pass, "step") : NULL;
    const struct pm_field *pass_at = pass != NULL ? pm_column(pass, "at_ns") : NULL;
    const struct pm_field *pieces = pass != NULL ? pm_column(pass, "pieces") : NULL;
    const struct pm_field *pass_instance = pass != NULL ? pm_column(pass, "instance") : NULL;
    int rc = pm_collective_ahead_open(&walk->ahead, walk->sums, process, (unsigned)schema,
                                      walk->instance);
    if (rc == 0)
        rc = pm_cursor_open(&cursor, process, PM_STREAM_CORE);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        const void *payload = record.payload;
        int error = 0;
        if (record.keyframe)
            continue;
        if (record.schema == (unsigned)schema &&
            pm_column_get(fields.instance, payload) == walk->instance) {
            error = add_step(walk, &fields, cursor, payload);
        } else if (pass != NULL && record.schema == (unsigned)passes &&
                   pm_column_get(pass_instance, payload) == walk->instance &&
                   pm_column_get(pieces, payload) > 0) {
            const struct pm_graph_desc graph = get_desc(&pass_desc, payload);
            error = add_pass(walk, pm_column_get(pass_step, payload),
                             pm_column_get(pass_at, payload), &graph);
        }
        if (error != 0) {
            rc = error;
            break;
        }
    }
    pm_cursor_close(cursor);
    return rc != 0 ? rc : put_lines(walk);
}

static void add_up(struct pm_collectives *sums)
{
    for (size_t i = 0; i < sums->n_rows; i++) {
        struct pm_collective_row *row = &sums->rows[i];
        pm_samples_stats(sums->by_device ? &row->device_samples : &row->samples, &row->stats);
        row->timed_calls = sums->by_device ? row->device_calls : row->calls;
        row->total_ns = sums->by_device ? row->device_ns : row->host_ns;
        sums->calls += row->calls;
        sums->bytes += row->bytes;
        sums->host_ns += row->host_ns;
        sums->timed_calls += row->timed_calls;
        sums->total_ns += row->total_ns;
        sums->captured_calls += row->captured_calls;
        sums->captured_bytes += row->captured_bytes;
    }
}

int pm_collective_walk(const struct pm_session *session, size_t engine, unsigned n,
                       struct pm_outfile *file, struct pm_collectives *ret_collectives)
{
    const struct pm_process *process;
    unsigned instance;
    int rank;

    memset(ret_collectives, 0, sizeof(*ret_collectives));
    if (engine >= pm_session_engine_count(session) ||
        pm_engine_worker(session, engine, n, &process, &instance, &rank) != 0)
        return 0;
    struct walk *walk = calloc(1, sizeof(*walk));
    ret_collectives->rows = calloc(PM_COLLECTIVE_ROWS_MAX, sizeof(*ret_collectives->rows));
    int rc = walk == NULL || ret_collectives->rows == NULL ? -PM_ENOMEM : 0;
    if (rc != 0)
        goto out;
    walk->sums = ret_collectives;
    walk->file = file;
    walk->session_start_ns = pm_session_info(session)->start_mono_ns;
    walk->instance = instance;
    ret_collectives->recycled = pm_worker_recycled(session, engine, n) != NULL;
    rc = walk_captures(walk, process);
    if (rc == 0 && walk->n_captured > 0)
        rc = count_replays(walk, session, engine, n);
    if (rc == 0)
        rc = walk_steps(walk, process);
    if (rc == 0)
        add_up(ret_collectives);
out:
    if (walk != NULL) {
        pm_collective_ahead_close(&walk->ahead);
        free(walk->captured);
    }
    free(walk);
    return rc;
}
