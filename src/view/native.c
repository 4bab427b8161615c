/*
 * Native tables as CSV and JSON Lines: every kind of record of every process, the joined steps and
 * the requests (table.h), to a stream or to a file each. Called by the program, on one thread.
 */
#include <unistd.h>

#include "view/outfile.h"
#include "view/rows.h"

static int put_table(struct pm_rows *rows, const struct pm_session *session, const char *name,
                     struct pm_error *err)
{
    struct pm_table *table;
    int rc = pm_table_open(&table, session, name, err);
    if (rc != 0)
        return rc;
    rc = pm_rows_header(rows, table);
    while (rc == 0 && (rc = pm_table_next(table)) == 1)
        rc = pm_rows_put(rows, table);
    pm_table_close(table);
    if (rc != 0)
        (void)pm_error_set(err, rc, "%.100s: cannot be written: %s", name, pm_strerror(rc));
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
    int rc = put_table(&rows, session, table, err);
    if (rc == 0 && (rc = stream_spill(&stream)) != 0)
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
    rc = put_table(&rows, export->session, table, export->err);
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
