/*
 * Native tables: every kind of record of every process, as its schema describes it, whatever probe
 * made it; and the joined steps. Called by the program, on one thread.
 */
#include "view/native.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "view/outfile.h"

/* ---- which tables ---- */

/* The first process that describes this table. */
static const struct pm_schema *find_table(const struct pm_session *session, const char *name,
                                          size_t *ret_process)
{
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        const int number = pm_process_schema_find(process, name);
        if (number < 0)
            continue;
        *ret_process = p;
        return pm_process_schema(process, (size_t)number);
    }
    return NULL;
}

int pm_native_tables(const struct pm_session *session,
                     int (*fn)(const char *name, const char *sentence, void *arg), void *arg)
{
    bool steps = false, requests = false;

    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        for (size_t i = 0; i < pm_process_schema_count(process); i++) {
            const struct pm_schema *schema = pm_process_schema(process, i);
            size_t first = 0;
            if (schema == NULL || find_table(session, schema->name, &first) != schema)
                continue; /* told already */
            steps = steps || strcmp(schema->name, "sched_step") == 0 ||
                    strcmp(schema->name, "worker_step") == 0;
            requests = requests || (strcmp(schema->name, "request") == 0 &&
                                    pm_session_setting_on(session, "preemption", true));
            if (strcmp(schema->name, PM_NATIVE_STEPS) == 0 ||
                strcmp(schema->name, PM_NATIVE_REQUESTS) == 0)
                continue;
            int rc = fn(schema->name, schema->doc, arg);
            if (rc != 0)
                return rc;
        }
    }
    int rc = steps
                 ? fn(PM_NATIVE_STEPS, "The scheduler's and the worker's facts of each step.", arg)
                 : 0;
    if (rc == 0 && requests)
        rc = fn(PM_NATIVE_REQUESTS, "Each request's times and counts, from arrival to end.", arg);
    return rc;
}

/* ---- rows of one table ---- */

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

static const struct pm_field *field_named(const struct pm_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].name, name) == 0)
            return &schema->fields[i];
    return NULL;
}

static const struct pm_field *first_of_kind(const struct pm_schema *schema, enum pm_kind kind)
{
    for (size_t i = 0; i < schema->n_fields; i++)
        if (schema->fields[i].kind == kind)
            return &schema->fields[i];
    return NULL;
}

static void put_field(struct pm_rows *rows, struct pm_cursor *cursor, const struct pm_field *column,
                      const struct pm_field *field, const uint8_t *payload)
{
    if (field == NULL || payload == NULL) { /* this process does not have it; or the header */
        pm_rows_null(rows, column->name);
        return;
    }
    const uint64_t value = pm_field_get(field, payload);
    double number;
    switch (field->type) {
    case PM_TYPE_STR:
        pm_rows_text(rows, column->name, pm_cursor_string(cursor, (uint32_t)value));
        break;
    case PM_TYPE_I32:
    case PM_TYPE_I64:
        pm_rows_i64(rows, column->name, (int64_t)value);
        break;
    case PM_TYPE_F64:
        memcpy(&number, &value, sizeof(number));
        pm_rows_f64(rows, column->name, number);
        break;
    default:
        pm_rows_u64(rows, column->name, value);
        break;
    }
}

/* The columns that every table begins with. */
static void put_head(struct pm_rows *rows, const int64_t *at_ns, struct place place, uint32_t pid)
{
    if (at_ns != NULL)
        pm_rows_sec6(rows, "timestamp_sec", *at_ns);
    place.engine >= 0 ? pm_rows_i64(rows, "engine", place.engine) : pm_rows_null(rows, "engine");
    place.rank >= 0 ? pm_rows_i64(rows, "rank", place.rank) : pm_rows_null(rows, "rank");
    pm_rows_u64(rows, "pid", pid);
}

static int put_header(struct pm_rows *rows, const struct pm_schema *columns)
{
    const int64_t zero = 0;
    rows->header = true;
    pm_rows_begin(rows);
    put_head(rows, first_of_kind(columns, PM_KIND_TIME) != NULL ? &zero : NULL,
             (struct place){-1, -1}, 0);
    for (size_t i = 0; i < columns->n_fields; i++)
        put_field(rows, NULL, &columns->fields[i], NULL, NULL);
    int rc = pm_rows_end(rows);
    rows->header = false;
    return rc;
}

/* The records of one process under the columns of the table. */
static int put_process(struct pm_rows *rows, const struct pm_session *session,
                       const struct pm_process *process, const struct pm_schema *columns)
{
    const int number = pm_process_schema_find(process, columns->name);
    const uint64_t start_ns = pm_session_info(session)->start_mono_ns;
    const struct pm_process_info *info = pm_process_info(process);
    const struct pm_field *fields[64];
    struct places places;
    struct pm_cursor *cursor;
    struct pm_record record;
    bool fresh;
    int rc;

    if (number < 0)
        return 0;
    const struct pm_schema *schema = pm_process_schema(process, (size_t)number);
    const struct pm_field *time = first_of_kind(schema, PM_KIND_TIME);
    const struct pm_field *instance = field_named(schema, "instance");
    fresh = info->first_fact[schema->stream] > 0;
    const bool timed = first_of_kind(columns, PM_KIND_TIME) != NULL;
    for (size_t i = 0; i < columns->n_fields && i < 64; i++)
        fields[i] = field_named(schema, columns->fields[i].name);
    find_places(session, process, strncmp(columns->name, "worker", 6) == 0, &places);
    if (places.count == 0)
        find_places(session, process, true, &places);
    rc = pm_cursor_open(&cursor, process, schema->stream);
    if (rc != 0)
        return rc;
    while ((rc = pm_cursor_next(cursor, &record)) == 1) {
        /* What a segment repeats from before it counts only where that before is gone. */
        fresh = fresh && record.keyframe;
        if ((int)record.schema != number || (record.keyframe && !fresh))
            continue;
        const int64_t at =
            time != NULL ? (int64_t)(pm_field_get(time, record.payload) - start_ns) : 0;
        pm_rows_begin(rows);
        put_head(rows, timed ? &at : NULL,
                 place_of(&places, instance != NULL ? pm_field_get(instance, record.payload) : 0),
                 info->pid);
        for (size_t i = 0; i < columns->n_fields && i < 64; i++)
            put_field(rows, cursor, &columns->fields[i], fields[i], record.payload);
        rc = pm_rows_end(rows);
        if (rc != 0)
            break;
    }
    pm_cursor_close(cursor);
    return rc;
}

static int put_table(struct pm_rows *rows, const struct pm_session *session, const char *table)
{
    size_t first = 0;

    rows->table = table;
    if (strcmp(table, PM_NATIVE_STEPS) == 0)
        return pm_native_steps(rows, session);
    if (strcmp(table, PM_NATIVE_REQUESTS) == 0)
        return pm_native_requests(rows, session);
    const struct pm_schema *columns = find_table(session, table, &first);
    if (columns == NULL)
        return -PM_ENOTFOUND;
    int rc = rows->format == PM_NATIVE_CSV ? put_header(rows, columns) : 0;
    for (size_t p = first; p < pm_session_process_count(session) && rc == 0; p++)
        rc = put_process(rows, session, pm_session_process(session, p), columns);
    return rc;
}

/* ---- to a stream, to files ---- */

struct stream {
    struct pm_buf buf;
    FILE *out;
    uint64_t bytes;
};

static int stream_spill(void *arg)
{
    struct stream *stream = arg;
    int rc = pm_buf_status(&stream->buf);
    if (rc == 0 && stream->buf.used > 0 &&
        fwrite(stream->buf.data, 1, stream->buf.used, stream->out) != stream->buf.used)
        rc = -PM_EIO;
    stream->bytes += stream->buf.used;
    pm_buf_clear(&stream->buf);
    return rc;
}

int pm_view_native(const struct pm_session *session, const char *table,
                   enum pm_native_format format, FILE *out, uint64_t *ret_rows,
                   struct pm_error *err)
{
    struct stream stream = {.out = out};
    struct pm_rows rows = {
        .buf = &stream.buf, .spill = stream_spill, .spill_arg = &stream, .format = format};

    pm_buf_init(&stream.buf, PM_VIEW_TEXT_MAX);
    int rc = put_table(&rows, session, table);
    if (rc == 0)
        rc = stream_spill(&stream);
    if (rc == -PM_ENOTFOUND)
        (void)pm_error_set(err, rc, "%s: the session has no such table", table);
    else if (rc != 0)
        (void)pm_error_set(err, rc, "%s: cannot be written: %s", table, pm_strerror(rc));
    pm_buf_release(&stream.buf);
    if (rc == 0 && ret_rows != NULL)
        *ret_rows = rows.count;
    return rc;
}

struct native_export {
    const struct pm_session *session;
    enum pm_native_format format;
    FILE *out;
    int dir_fd; /* -1: to out */
    unsigned tables;
    struct pm_export_result result;
    struct pm_error *err;
};

static int file_spill(void *arg)
{
    return pm_outfile_spill_now(arg);
}

static int table_to_file(struct native_export *export, const char *table)
{
    struct pm_outfile file;
    struct pm_rows rows = {.spill = file_spill, .spill_arg = &file, .format = export->format};
    uint64_t bytes = 0;
    char name[96];

    snprintf(name, sizeof(name), "%s.%s", table, export->format == PM_NATIVE_CSV ? "csv" : "jsonl");
    int rc = pm_outfile_begin(&file, export->dir_fd, name, pm_session_file_mode(export->session),
                              export->err);
    if (rc != 0)
        return rc;
    rows.buf = &file.buf;
    rc = put_table(&rows, export->session, table);
    if (rc != 0)
        (void)pm_error_set(export->err, rc, "%s: cannot be written: %s", name, pm_strerror(rc));
    rc = pm_outfile_finish(&file, rc, &bytes, export->err);
    if (rc == 0) {
        export->result.files++;
        export->result.bytes += bytes;
        export->result.rows += rows.count;
    }
    return rc;
}

static int export_table(const char *name, const char *sentence, void *arg)
{
    struct native_export *export = arg;
    uint64_t rows = 0;
    (void)sentence;
    if (export->dir_fd >= 0)
        return table_to_file(export, name);
    int rc = pm_view_native(export->session, name, export->format, export->out, &rows, export->err);
    export->result.rows += rows;
    return rc;
}

static int count_table(const char *name, const char *sentence, void *arg)
{
    (void)name, (void)sentence;
    (*(unsigned *)arg)++;
    return 0;
}

int pm_export_native(const struct pm_session *session, enum pm_native_format format,
                     const char *out_dir, FILE *out, struct pm_export_result *ret_result,
                     struct pm_error *err)
{
    struct native_export export = {
        .session = session, .format = format, .out = out, .dir_fd = -1, .err = err};
    unsigned tables = 0;

    (void)pm_native_tables(session, count_table, &tables);
    if (out_dir == NULL && format == PM_NATIVE_CSV && tables > 1)
        return pm_error_set(err, -PM_EINVALID,
                            "%u tables do not fit into one CSV: give a folder, or name a table",
                            tables);
    if (out_dir != NULL) {
        int rc = pm_outfile_folder(out_dir, NULL, &export.dir_fd, err);
        if (rc != 0)
            return rc;
        snprintf(export.result.out_dir, sizeof(export.result.out_dir), "%s", out_dir);
    }
    int rc = pm_native_tables(session, export_table, &export);
    if (export.dir_fd >= 0)
        close(export.dir_fd);
    if (ret_result != NULL)
        *ret_result = export.result;
    return rc;
}
