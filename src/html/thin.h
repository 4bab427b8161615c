/*
 * A series of rows in time that may be far too long for a page: held row by row while it is short,
 * folded into buckets of time with sums, least and greatest values when it is not, and beside them
 * the rows that are greatest in one column, exactly. Used by the writers of the page's data, one
 * thread; owns its memory, which does not grow with the session.
 *
 *   short:  {"exact":true,"rows":N,"t":[…],"cols":{"req":[…],…}}
 *   long:   {"exact":false,"rows":N,"from":T,"width":W,"n":[…],
 *            "sum":{…},"min":{…},"max":{…},"top":{"t":[…],"cols":{…}}}
 *
 * Times are microseconds since the session's start; "t" holds differences, the first one from 0.
 * Columns of nanoseconds (PM_THIN_NS) are written as microseconds.
 */
#ifndef PM_HTML_THIN_H
#define PM_HTML_THIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

#define PM_THIN_COLUMNS_MAX 32
#define PM_THIN_BUCKETS                                                                            \
    2048                /* at most; at least half of them are in use once there are buckets        \
                         */
#define PM_THIN_TOP 400 /* rows that are kept exactly beside the buckets */

enum pm_thin_how {
    PM_THIN_ROW = 1, /* written where rows are */
    PM_THIN_SUM = 2, /* written where buckets are */
    PM_THIN_MIN = 4,
    PM_THIN_MAX = 8,
    PM_THIN_NS = 16, /* nanoseconds */
};

struct pm_thin_column {
    const char *name;
    unsigned how; /* enum pm_thin_how bits */
};

struct pm_thin_bucket {
    uint64_t count;
    uint64_t sum[PM_THIN_COLUMNS_MAX], min[PM_THIN_COLUMNS_MAX], max[PM_THIN_COLUMNS_MAX];
};

struct pm_thin_row {
    uint64_t at_ns;
    uint64_t values[PM_THIN_COLUMNS_MAX];
};

struct pm_thin {
    const struct pm_thin_column *columns; /* borrowed */
    unsigned n_columns;
    int key;                  /* column by which the greatest are kept; -1: none are */
    uint64_t start_ns;        /* of the session */
    size_t limit;             /* rows held before buckets are made */
    uint64_t rows;            /* all */
    struct pm_thin_row *held; /* NULL once there are buckets */
    size_t room;
    struct pm_thin_bucket *buckets; /* NULL while rows are held */
    uint64_t from_ns, width_ns;
    size_t used;             /* buckets */
    struct pm_thin_row *top; /* a heap, the least of them first */
    size_t n_top;
};

void pm_thin_init(struct pm_thin *ret_thin, const struct pm_thin_column *columns,
                  unsigned n_columns, int key, uint64_t start_ns, size_t limit);
void pm_thin_release(struct pm_thin *thin);

/* values: one per column. Rows may come out of order; a time before the first row's counts as that.
 */
PM_MUST_USE int pm_thin_add(struct pm_thin *thin, uint64_t at_ns, const uint64_t *values);

/* Writes the object drawn above. */
void pm_thin_json(struct pm_json *json, const struct pm_thin *thin);

#endif
