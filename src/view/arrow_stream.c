/*
 * A native table as an Arrow stream (arrow_view.h): the session that it reads is its own.
 */
#include "view/arrow_view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stream {
    struct pm_session *session;
    struct pm_table *table;
    size_t batch_rows;
    struct pm_error err; /* why the last call failed */
};

static int failed(struct stream *stream, int rc)
{
    (void)pm_error_set(&stream->err, rc, "%s: cannot be read: %s", stream->table->name,
                       pm_strerror(rc));
    return rc == -PM_ENOMEM ? ENOMEM : EIO;
}

static int get_schema(struct ArrowArrayStream *self, struct ArrowSchema *out)
{
    struct stream *stream = self->private_data;
    int rc = pm_arrow_schema(stream->table, out);
    return rc == 0 ? 0 : failed(stream, rc);
}

static int get_next(struct ArrowArrayStream *self, struct ArrowArray *out)
{
    struct stream *stream = self->private_data;
    struct ArrowArray array = {0};
    size_t rows = 0;
    int rc = pm_arrow_batch(stream->table, stream->batch_rows, &array, &rows);
    if (rc != 0)
        return failed(stream, rc);
    *out = array; /* with no rows: released, which is the end */
    return 0;
}

static const char *get_last_error(struct ArrowArrayStream *self)
{
    const struct stream *stream = self->private_data;
    return stream->err.text[0] != '\0' ? stream->err.text : NULL;
}

static void release(struct ArrowArrayStream *self)
{
    struct stream *stream = self->private_data;
    pm_table_close(stream->table);
    pm_session_close(stream->session);
    free(stream);
    self->release = NULL;
}

static struct stream *make_stream(size_t batch_rows, struct pm_error *err)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        (void)pm_error_set(err, -PM_ENOMEM, "%s", pm_strerror(-PM_ENOMEM));
    else
        stream->batch_rows = batch_rows != 0 ? batch_rows : PM_ARROW_BATCH_ROWS;
    return stream;
}

static void give_stream(struct stream *stream, struct ArrowArrayStream *ret_stream)
{
    *ret_stream = (struct ArrowArrayStream){get_schema, get_next, get_last_error, release, stream};
}

int pm_arrow_stream(const char *path, const char *table, const struct pm_window_options *window,
                    size_t batch_rows, struct ArrowArrayStream *ret_stream, struct pm_error *err)
{
    struct pm_window span;
    struct stream *stream = make_stream(batch_rows, err);
    if (stream == NULL)
        return -PM_ENOMEM;
    int rc = pm_session_open(&stream->session, path, err);
    if (rc != 0)
        goto no_session;
    if (window != NULL) {
        rc = pm_window_parse(stream->session, window, &span, err);
        if (rc == 0)
            rc = pm_window_apply(stream->session, &span, err);
        if (rc != 0)
            goto no_table;
    }
    rc = pm_table_open(&stream->table, stream->session, table, err);
    if (rc != 0)
        goto no_table;
    give_stream(stream, ret_stream);
    return 0;
no_table:
    pm_session_close(stream->session);
no_session:
    free(stream);
    return rc;
}

static bool is_among(const char *const *names, const char *name)
{
    for (; *names != NULL; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

/* Shows only the columns with these names, and the position. */
static void choose(struct pm_table *table, const char *const *names)
{
    table->n_shown = 0;
    for (size_t i = 0; i < table->n_columns; i++)
        if (i + 1 == table->n_columns || is_among(names, table->columns[i].name))
            table->shown[table->n_shown++] = (uint8_t)i;
}

int pm_arrow_stream_part(const char *path, const char *table, const char *source, uint64_t from,
                         uint64_t to, const char *const *columns, size_t batch_rows,
                         struct ArrowArrayStream *ret_stream, struct pm_error *err)
{
    struct stream *stream = make_stream(batch_rows, err);
    if (stream == NULL)
        return -PM_ENOMEM;
    int rc = pm_session_open(&stream->session, path, err);
    if (rc != 0)
        goto no_session;
    rc = pm_table_open_part(&stream->table, stream->session, table, source, from, to, err);
    if (rc != 0)
        goto no_table;
    if (columns != NULL)
        choose(stream->table, columns);
    give_stream(stream, ret_stream);
    return 0;
no_table:
    pm_session_close(stream->session);
no_session:
    free(stream);
    return rc;
}
