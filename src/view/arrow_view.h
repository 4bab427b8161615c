/*
 * Native tables as Arrow: a table of a session becomes a stream of record batches, made column by
 * column and handed over without a copy. Pure C; the Python package (src/binding) puts the structs
 * into capsules, from where pandas, polars, DuckDB and pyarrow take them.
 *
 * A stream opens the session for itself and may be read and released on any thread, one at a time;
 * it needs nothing of Python. Every struct owns what it points to, and outlives the others.
 *
 * Types follow the table's columns: whole numbers as they were recorded, text as UTF-8, switches as
 * bool, seconds as float64 (the CSV's six decimals). A field's metadata has its `unit`, `kind` and
 * `description`; the schema's metadata the table, the session, and its start.
 */
#ifndef PM_VIEW_ARROW_VIEW_H
#define PM_VIEW_ARROW_VIEW_H

#include "view/arrow_abi.h"
#include "view/table_part.h"
#include "view/window.h"

#define PM_ARROW_BATCH_ROWS 65536u

/* The schema of a table. 0 or -PM_ENOMEM. */
PM_MUST_USE int pm_arrow_schema(const struct pm_table *table, struct ArrowSchema *ret_schema);

/* At most max_rows rows of the table as one batch; *ret_rows: how many it has, 0: the table is at
 * its end and *ret_array is not filled. 0, -PM_ENOMEM, or what reading the table gave. */
PM_MUST_USE int pm_arrow_batch(struct pm_table *table, size_t max_rows,
                               struct ArrowArray *ret_array, size_t *ret_rows);

/* Opens the session at path, lays the window over it (NULL: the whole), and its table as a stream.
 * batch_rows 0: PM_ARROW_BATCH_ROWS. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_arrow_stream(const char *path, const char *table,
                                const struct pm_window_options *window, size_t batch_rows,
                                struct ArrowArrayStream *ret_stream, struct pm_error *err);

/* The same for a part of a table (table_part.h), whose last column is the position. columns: names
 * of those that are wanted, in any order, NULL after the last; NULL: all of them. They come in the
 * table's order, the position behind them; one that the table does not have is left out. */
PM_MUST_USE int pm_arrow_stream_part(const char *path, const char *table, const char *source,
                                     uint64_t from, uint64_t to, const char *const *columns,
                                     size_t batch_rows, struct ArrowArrayStream *ret_stream,
                                     struct pm_error *err);

/* A column of those that are shown, and how many there are. */
static inline size_t pm_arrow_columns(const struct pm_table *table)
{
    return table->n_shown != 0 ? table->n_shown : table->n_columns;
}
static inline size_t pm_arrow_column(const struct pm_table *table, size_t i)
{
    return table->n_shown != 0 ? table->shown[i] : i;
}

#endif
