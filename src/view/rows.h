/*
 * Rows of native tables as JSON Lines or CSV. Used by native.c, one thread; borrows the buffer.
 */
#ifndef PM_VIEW_ROWS_H
#define PM_VIEW_ROWS_H

#include "view/table.h"

struct pm_rows {
    struct pm_buf *buf;
    int (*spill)(void *arg); /* hands a full buffer on; 0 or -PM_E… */
    void *spill_arg;
    enum pm_native_format format;
    uint64_t count; /* rows so far, the header not among them */
};

/* The names of the columns, where the format has them: CSV. */
PM_MUST_USE int pm_rows_header(struct pm_rows *rows, const struct pm_table *table);

/* The row that the table stands at. */
PM_MUST_USE int pm_rows_put(struct pm_rows *rows, const struct pm_table *table);

#endif
