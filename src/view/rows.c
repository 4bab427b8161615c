/*
 * Rows of native tables (see rows.h).
 */
#include "view/rows.h"

#include <math.h>
#include <string.h>

#include "base/number.h"
#include "view/outfile.h"

void pm_rows_begin(struct pm_rows *rows)
{
    rows->first = true;
    if (rows->format == PM_NATIVE_CSV)
        return;
    pm_json_init(&rows->json, rows->buf, 0);
    pm_json_object(&rows->json);
    pm_json_key(&rows->json, "table");
    pm_json_text(&rows->json, rows->table);
}

int pm_rows_end(struct pm_rows *rows)
{
    int rc;
    if (rows->format == PM_NATIVE_CSV) {
        rc = pm_buf_add_char(rows->buf, '\n');
    } else {
        pm_json_end(&rows->json);
        rc = pm_json_finish(&rows->json);
    }
    rows->count += !rows->header;
    if (rc == 0 && rows->buf->used >= PM_OUTFILE_SPILL_BYTES)
        rc = rows->spill(rows->spill_arg);
    return rc;
}

/* True where the value is to follow as CSV; the comma, or the whole name, is written. */
static bool csv_cell(struct pm_rows *rows, const char *name)
{
    if (rows->format != PM_NATIVE_CSV)
        return false;
    if (!rows->first)
        (void)pm_buf_add_char(rows->buf, ',');
    rows->first = false;
    if (rows->header)
        (void)pm_buf_add_text(rows->buf, name);
    return true;
}

void pm_rows_null(struct pm_rows *rows, const char *name)
{
    if (csv_cell(rows, name))
        return;
    pm_json_key(&rows->json, name);
    pm_json_null(&rows->json);
}

void pm_rows_u64(struct pm_rows *rows, const char *name, uint64_t value)
{
    if (!csv_cell(rows, name)) {
        pm_json_key(&rows->json, name);
        pm_json_u64(&rows->json, value);
    } else if (!rows->header) {
        char *out = pm_buf_reserve(rows->buf, PM_NUMBER_MAX);
        if (out != NULL)
            pm_buf_advance(rows->buf, (size_t)(pm_number_u64(out, value) - out));
    }
}

void pm_rows_i64(struct pm_rows *rows, const char *name, int64_t value)
{
    if (!csv_cell(rows, name)) {
        pm_json_key(&rows->json, name);
        pm_json_i64(&rows->json, value);
    } else if (!rows->header) {
        char *out = pm_buf_reserve(rows->buf, PM_NUMBER_MAX);
        if (out != NULL)
            pm_buf_advance(rows->buf, (size_t)(pm_number_i64(out, value) - out));
    }
}

void pm_rows_bool(struct pm_rows *rows, const char *name, bool value)
{
    if (!csv_cell(rows, name)) {
        pm_json_key(&rows->json, name);
        pm_json_bool(&rows->json, value);
    } else if (!rows->header) {
        (void)pm_buf_add_char(rows->buf, value ? '1' : '0');
    }
}

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

void pm_rows_text(struct pm_rows *rows, const char *name, const char *text)
{
    if (!csv_cell(rows, name)) {
        pm_json_key(&rows->json, name);
        pm_json_text(&rows->json, text);
    } else if (!rows->header) {
        csv_text(rows->buf, text);
    }
}

void pm_rows_f64(struct pm_rows *rows, const char *name, double value)
{
    char text[40];
    if (!isfinite(value)) {
        pm_rows_null(rows, name);
        return;
    }
    /* 17 digits give the same double back. */
    const int bytes = snprintf(text, sizeof(text), "%.17g", value);
    if (!csv_cell(rows, name)) {
        pm_json_key(&rows->json, name);
        pm_json_raw(&rows->json, text, (size_t)bytes);
    } else if (!rows->header) {
        (void)pm_buf_add(rows->buf, text, (size_t)bytes);
    }
}

void pm_rows_sec6(struct pm_rows *rows, const char *name, int64_t ns)
{
    char text[PM_NUMBER_MAX];
    const size_t bytes = (size_t)(pm_number_sec6_signed(text, ns) - text);
    if (!csv_cell(rows, name)) {
        pm_json_key(&rows->json, name);
        pm_json_raw(&rows->json, text, bytes);
    } else if (!rows->header) {
        (void)pm_buf_add(rows->buf, text, bytes);
    }
}
