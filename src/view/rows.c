/*
 * Rows of native tables (see rows.h).
 */
#include "view/rows.h"

#include <string.h>

#include "base/number.h"
#include "view/outfile.h"

#define CELL_MAX 48 /* a number as text */

/* RFC 4180: quoted only where it must be, quotes doubled. */
static void csv_text(struct pm_buf *buf, const char *text)
{
    if (strpbrk(text, ",\"\r\n") == NULL) {
        (void)pm_buf_add_text(buf, text);
        return;
    }
    (void)pm_buf_add_char(buf, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            (void)pm_buf_add_char(buf, '"');
        (void)pm_buf_add_char(buf, *text);
    }
    (void)pm_buf_add_char(buf, '"');
}

/* A number as both formats write it; its end. */
static char *number(char *out, enum pm_cell_type type, const struct pm_cell *cell)
{
    switch (type) {
    case PM_CELL_I32:
    case PM_CELL_I64:
        return pm_number_i64(out, cell->i64);
    case PM_CELL_SEC:
        return pm_number_sec6_signed(out, cell->i64);
    case PM_CELL_F64: /* 17 digits give the same double back */
        return out + snprintf(out, CELL_MAX, "%.17g", cell->f64);
    default:
        return pm_number_u64(out, cell->u64);
    }
}

static void csv_cell(struct pm_buf *buf, enum pm_cell_type type, const struct pm_cell *cell)
{
    if (!cell->have)
        return;
    if (type == PM_CELL_TEXT) {
        csv_text(buf, cell->text);
        return;
    }
    char *out = pm_buf_reserve(buf, CELL_MAX);
    if (out != NULL)
        pm_buf_advance(buf, (size_t)(number(out, type, cell) - out));
}

static void json_cell(struct pm_json *json, enum pm_cell_type type, const struct pm_cell *cell)
{
    char text[CELL_MAX];
    if (!cell->have)
        pm_json_null(json);
    else if (type == PM_CELL_TEXT)
        pm_json_text(json, cell->text);
    else if (type == PM_CELL_BOOL)
        pm_json_bool(json, cell->u64 != 0);
    else
        pm_json_raw(json, text, (size_t)(number(text, type, cell) - text));
}

int pm_rows_header(struct pm_rows *rows, const struct pm_table *table)
{
    if (rows->format != PM_NATIVE_CSV)
        return 0;
    for (size_t i = 0; i < table->n_columns; i++) {
        if (i > 0)
            (void)pm_buf_add_char(rows->buf, ',');
        (void)pm_buf_add_text(rows->buf, table->columns[i].name);
    }
    return pm_buf_add_char(rows->buf, '\n');
}

int pm_rows_put(struct pm_rows *rows, const struct pm_table *table)
{
    int rc;
    if (rows->format == PM_NATIVE_CSV) {
        for (size_t i = 0; i < table->n_columns; i++) {
            if (i > 0)
                (void)pm_buf_add_char(rows->buf, ',');
            csv_cell(rows->buf, table->columns[i].type, &table->cells[i]);
        }
        rc = pm_buf_add_char(rows->buf, '\n');
    } else {
        struct pm_json json;
        pm_json_init(&json, rows->buf, 0);
        pm_json_object(&json);
        pm_json_key(&json, "table");
        pm_json_text(&json, table->name);
        for (size_t i = 0; i < table->n_columns; i++) {
            pm_json_key(&json, table->columns[i].name);
            json_cell(&json, table->columns[i].type, &table->cells[i]);
        }
        pm_json_end(&json);
        rc = pm_json_finish(&json);
    }
    rows->count++;
    if (rc == 0 && rows->buf->used >= PM_OUTFILE_SPILL_BYTES)
        rc = rows->spill(rows->spill_arg);
    return rc;
}
