/*
 * Traced functions as folded stacks and as Chrome trace events (see functions.h).
 */
#include "view/functions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/number.h"
#include "view/columns.h"
#include "view/view.h"

#define CEILING (64u << 20)
#define SPILL (256u << 10)
#define DEPTH 4096 /* frames of one stack */

/* ---- folded stacks ---- */

/* Blanks and `;` would end a frame: `_`, as `profilemate trace` has it. */
static void add_frame(struct pm_buf *buf, const char *name)
{
    for (; *name != '\0'; name++)
        (void)pm_buf_add_char(buf, *name == ' ' || *name == ';' ? '_' : *name);
}

static void add_stack(struct pm_buf *buf, const struct pm_functions *table, uint32_t path,
                      const char *process)
{
    uint32_t stack[DEPTH], n = 0;
    for (uint32_t up = path; up != 0 && n < DEPTH; up = table->paths[up].parent)
        stack[n++] = up;
    add_frame(buf, process);
    while (n > 0) {
        char name[PM_FUNCTION_FULL_NAME];
        (void)pm_function_full_name(&table->rows[table->paths[stack[--n]].row], name, sizeof(name));
        (void)pm_buf_add_char(buf, ';');
        add_frame(buf, name);
    }
}

int pm_view_functions_folded(const struct pm_session *session, const struct pm_function_how *how,
                             FILE *out, struct pm_error *err)
{
    struct pm_function_set set;
    struct pm_buf buf;
    int rc = pm_function_set_read(session, how, &set, err);
    if (rc != 0)
        return rc;
    pm_buf_init(&buf, CEILING);
    for (size_t t = 0; t < set.n; t++) {
        const struct pm_functions *table = &set.tables[t];
        char process[96];
        pm_function_process_name(set.processes[t], ' ', process, sizeof(process));
        for (uint32_t i = 1; i < table->n_paths && rc == 0; i++) {
            const struct pm_function_path *path = &table->paths[i];
            const uint64_t us = (path->self_ns + 500) / 1000;
            /* a thread's own time is that of functions that are not traced */
            if (us == 0 || table->rows[path->row].flags & PM_FUNCTION_THREAD)
                continue;
            add_stack(&buf, table, i, process);
            (void)pm_buf_printf(&buf, " %" PRIu64 "\n", us);
            rc = buf.used >= SPILL ? pm_function_put(&buf, out) : pm_buf_status(&buf);
        }
    }
    if (rc == 0)
        rc = pm_function_put(&buf, out);
    pm_buf_release(&buf);
    pm_function_set_release(&set);
    return rc != 0 ? pm_error_set(err, rc, "the stacks: %s", pm_strerror(rc)) : 0;
}

/* ---- Chrome trace events ---- */

/* The process and its threads by name. */
static void put_names(struct pm_buf *buf, const struct pm_functions *table,
                      const struct pm_process *process, bool *any)
{
    const unsigned pid = pm_process_info(process)->pid;
    struct pm_json json;
    char name[PM_FUNCTION_FULL_NAME];
    pm_function_process_name(process, ' ', name, sizeof(name));
    for (uint32_t i = 0; i < table->n_rows; i++) {
        const struct pm_function *row = &table->rows[i];
        if (i > 0 && (!(row->flags & PM_FUNCTION_THREAD) || row->line == 0))
            continue;
        if (i > 0)
            (void)pm_function_full_name(row, name, sizeof(name));
        (void)pm_buf_printf(
            buf, "%s{\"ph\":\"M\",\"name\":\"%s\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":",
            *any ? ",\n" : "", i > 0 ? "thread_name" : "process_name", pid,
            i > 0 ? row->line : pid);
        pm_json_init(&json, buf, 0);
        pm_json_text(&json, name);
        (void)pm_buf_add_text(buf, "}}");
        *any = true;
    }
}

/* The quoted names of a table's functions, each made when it is first needed. */
struct quoted {
    const struct pm_functions *table;
    char **names;
    struct pm_buf buf;
};

static const char *quote(struct quoted *quoted, uint32_t row)
{
    struct pm_json json;
    if (quoted->names[row] == NULL) {
        const struct pm_function *function = &quoted->table->rows[row];
        pm_buf_clear(&quoted->buf);
        pm_json_init(&json, &quoted->buf, 0);
        pm_json_text(&json, function->name);
        (void)pm_buf_add_text(&quoted->buf, ",\"cat\":");
        pm_json_init(&json, &quoted->buf, 0);
        pm_json_text(&json, function->module);
        quoted->names[row] = strdup(pm_buf_text(&quoted->buf));
    }
    return quoted->names[row] != NULL ? quoted->names[row] : "\"?\"";
}

static void add_us(struct pm_buf *buf, int64_t ns)
{
    char number[PM_NUMBER_MAX];
    (void)pm_buf_add(buf, number, (size_t)(pm_number_fixed_signed(number, ns, 3, 3) - number));
}

static int put_calls(struct pm_buf *buf, struct quoted *quoted, const struct pm_process *process,
                     uint64_t origin_ns, FILE *out)
{
    const int schema = pm_process_schema_find(process, "function_call");
    const unsigned pid = pm_process_info(process)->pid;
    struct pm_cursor *cursor;
    struct pm_record record;
    if (schema < 0)
        return 0;
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    const struct pm_field *start = pm_column(desc, "start_ns"), *dur = pm_column(desc, "dur_ns");
    const struct pm_field *node = pm_column(desc, "node"), *tid = pm_column(desc, "tid");
    int rc = pm_cursor_open(&cursor, process, PM_STREAM_CUSTOM);
    if (rc != 0)
        return rc;
    while (rc == 0 && (rc = pm_cursor_next(cursor, &record)) == 1) {
        rc = 0;
        if (record.schema != (unsigned)schema || record.keyframe)
            continue;
        const uint32_t path =
            pm_functions_path(quoted->table, (uint32_t)pm_column_get(node, record.payload));
        (void)pm_buf_printf(buf, ",\n{\"ph\":\"X\",\"name\":%s,\"pid\":%u,\"tid\":%u,\"ts\":",
                            quote(quoted, quoted->table->paths[path].row), pid,
                            (unsigned)pm_column_get(tid, record.payload));
        add_us(buf, (int64_t)(pm_column_get(start, record.payload) - origin_ns));
        (void)pm_buf_add_text(buf, ",\"dur\":");
        add_us(buf, (int64_t)pm_column_get(dur, record.payload));
        (void)pm_buf_add_char(buf, '}');
        rc = buf->used >= SPILL ? pm_function_put(buf, out) : pm_buf_status(buf);
    }
    pm_cursor_close(cursor);
    return rc;
}

static int put_table(struct pm_buf *buf, const struct pm_function_set *set, size_t t,
                     uint64_t origin_ns, bool *any, FILE *out)
{
    struct quoted quoted = {.table = &set->tables[t]};
    quoted.names = calloc(quoted.table->n_rows, sizeof(*quoted.names));
    if (quoted.names == NULL)
        return -PM_ENOMEM;
    pm_buf_init(&quoted.buf, 64u << 10);
    put_names(buf, quoted.table, set->processes[t], any);
    const int rc = put_calls(buf, &quoted, set->processes[t], origin_ns, out);
    for (uint32_t i = 0; i < quoted.table->n_rows; i++)
        free(quoted.names[i]);
    free(quoted.names);
    pm_buf_release(&quoted.buf);
    return rc;
}

int pm_view_functions_chrome(const struct pm_session *session, const struct pm_function_how *how,
                             FILE *out, struct pm_error *err)
{
    struct pm_function_set set;
    struct pm_buf buf;
    bool any = false;
    int rc = pm_function_set_read(session, how, &set, err);
    if (rc != 0)
        return rc;
    pm_buf_init(&buf, CEILING);
    (void)pm_buf_add_text(&buf, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
    for (size_t t = 0; t < set.n && rc == 0; t++)
        rc = put_table(&buf, &set, t, pm_session_info(session)->start_mono_ns, &any, out);
    (void)pm_buf_add_text(&buf, "\n]}\n");
    if (rc == 0)
        rc = pm_function_put(&buf, out);
    pm_buf_release(&buf);
    pm_function_set_release(&set);
    return rc != 0 ? pm_error_set(err, rc, "the timeline: %s", pm_strerror(rc)) : 0;
}
