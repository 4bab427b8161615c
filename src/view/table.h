/*
 * Native tables as columns and rows: one description of each table (names, types, units), one way
 * through its rows. CSV, JSON and Arrow are written from it (native.c, arrow_stream.c). One thread;
 * borrows the session, which has to outlive it.
 *
 * There are three sorts: the tables that follow a schema in the record files, whatever probe made
 * them (table_facts.c), the joined steps (table_steps.c) and the requests (table_requests.c).
 */
#ifndef PM_VIEW_TABLE_H
#define PM_VIEW_TABLE_H

#include "view/common.h"

#define PM_TABLE_STEPS "steps"
#define PM_TABLE_REQUESTS "requests"

/* 64 fields of a schema, and what stands before and behind them. */
#define PM_TABLE_COLUMNS_MAX 72

/* What a cell holds, and which member of it. */
enum pm_cell_type {
    PM_CELL_BOOL, /* u64: 0 or 1 */
    PM_CELL_U8,   /* u64 */
    PM_CELL_U16,
    PM_CELL_U32,
    PM_CELL_U64,
    PM_CELL_I32, /* i64 */
    PM_CELL_I64,
    PM_CELL_F64,
    PM_CELL_TEXT,
    PM_CELL_SEC, /* i64: nanoseconds, shown as seconds with 6 decimals */
};

struct pm_table_column {
    const char *name;
    enum pm_cell_type type;
    const char *unit; /* "s", "ns", "tokens", "requests", "blocks", "bytes", ""; of what is shown */
    enum pm_kind kind;
    const char *doc; /* one sentence */
};

/* Missing (null, empty) where have is false. */
struct pm_cell {
    bool have;
    union {
        uint64_t u64;
        int64_t i64;
        double f64; /* finite */
        const char *text;
    };
};

/* What a sort of table does; the rest of its state follows the struct pm_table. */
struct pm_table;
struct pm_table_sort {
    int (*next)(struct pm_table *table); /* fills cells: 1, 0 at the end, < 0 */
    void (*close)(struct pm_table *table);
};

struct pm_table {
    const struct pm_session *session;
    const struct pm_table_sort *sort;
    const char *name, *doc;
    size_t n_columns;
    const struct pm_table_column *columns;
    size_t n_shown; /* Arrow: only these columns, in order of their places; 0: all */
    uint8_t shown[PM_TABLE_COLUMNS_MAX];
    struct pm_cell cells[PM_TABLE_COLUMNS_MAX]; /* of the row that next() gave */
};

/* Tables of this session, in order: see pm_native_tables in view.h. 0, -PM_ENOTFOUND for a name
 * that it does not have, -PM_ENOMEM, …, with a sentence. */
PM_MUST_USE int pm_table_open(struct pm_table **ret_table, const struct pm_session *session,
                              const char *name, struct pm_error *err);

/* 1: table->cells are the next row, whose texts stay valid until the next call; 0: the end; < 0:
 * -PM_E…. */
PM_MUST_USE static inline int pm_table_next(struct pm_table *table)
{
    return table->sort->next(table);
}

void pm_table_close(struct pm_table *table);

/* ---- inside: one for each sort ---- */

/* Rows of one source of a table, from a position to another one, the end left out (see
 * table_part.h, which is how others open one). Its rows have one more column, the position. */
struct pm_table_part {
    size_t process;  /* facts: whose */
    size_t engine;   /* steps, requests: place in the session's engines */
    unsigned worker; /* steps: n-th worker of that engine */
    uint64_t from, to;
};

/* The position of a request that is not over. */
#define PM_TABLE_NOT_OVER (UINT64_C(1) << 62)

#define PM_TABLE_POSITION                                                                          \
    {                                                                                              \
        "position", PM_CELL_U64, "", PM_KIND_ID, "Of the row in its source, as table_part.h says." \
    }

/* part NULL: all rows. */
PM_MUST_USE int pm_table_open_facts(struct pm_table **ret_table, const struct pm_session *session,
                                    const char *name, const struct pm_table_part *part);
PM_MUST_USE int pm_table_open_steps(struct pm_table **ret_table, const struct pm_session *session,
                                    const struct pm_table_part *part);
PM_MUST_USE int pm_table_open_requests(struct pm_table **ret_table,
                                       const struct pm_session *session,
                                       const struct pm_table_part *part);

/* The first process that describes this table in its schemas; NULL: none. */
const struct pm_schema *pm_table_schema(const struct pm_session *session, const char *name,
                                        size_t *ret_process);

/* A cell by the type of its column: what the .def files of the steps and requests are put with. */
static inline void pm_cell_u64(struct pm_cell *cell, bool have, uint64_t value)
{
    cell->have = have;
    cell->u64 = value;
}
static inline void pm_cell_i64(struct pm_cell *cell, bool have, int64_t value)
{
    cell->have = have;
    cell->i64 = value;
}
static inline void pm_cell_text(struct pm_cell *cell, bool have, const char *value)
{
    cell->have = have;
    cell->text = value;
}
#define PM_CELL_PUT_BOOL pm_cell_u64
#define PM_CELL_PUT_U8 pm_cell_u64
#define PM_CELL_PUT_U16 pm_cell_u64
#define PM_CELL_PUT_U32 pm_cell_u64
#define PM_CELL_PUT_U64 pm_cell_u64
#define PM_CELL_PUT_I32 pm_cell_i64
#define PM_CELL_PUT_I64 pm_cell_i64
#define PM_CELL_PUT_TEXT pm_cell_text
#define PM_CELL_PUT_SEC pm_cell_i64

#endif
