/*
 * Rows of native tables as JSON Lines or CSV: the same calls for both. Used by native.c and
 * native_steps.c, one thread; borrows the buffer.
 *
 *   rows_begin; rows_u64(rows, "pid", 12); …; rows_end, the same columns in every row. The first
 * row of a CSV is told twice, once for its names: rows.header is then true.
 */
#ifndef PM_VIEW_ROWS_H
#define PM_VIEW_ROWS_H

#include "view/common.h"

struct pm_rows {
    struct pm_buf *buf;
    int (*spill)(void *arg); /* hands a full buffer on; 0 or -PM_E… */
    void *spill_arg;
    enum pm_native_format format;
    const char *table;
    bool header; /* CSV: this row is that of the names */
    bool first;  /* no column yet */
    struct pm_json json;
    uint64_t count;
};

void pm_rows_begin(struct pm_rows *rows);
PM_MUST_USE int pm_rows_end(struct pm_rows *rows);

void pm_rows_null(struct pm_rows *rows, const char *name);
void pm_rows_u64(struct pm_rows *rows, const char *name, uint64_t value);
void pm_rows_i64(struct pm_rows *rows, const char *name, int64_t value);
void pm_rows_bool(struct pm_rows *rows, const char *name, bool value);
void pm_rows_text(struct pm_rows *rows, const char *name, const char *text);
void pm_rows_f64(struct pm_rows *rows, const char *name, double value);
/* Nanoseconds as seconds with 6 decimals. */
void pm_rows_sec6(struct pm_rows *rows, const char *name, int64_t ns);

#endif
