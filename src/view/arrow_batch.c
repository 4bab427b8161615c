/*
 * Rows of a native table as one Arrow record batch (arrow_view.h): a buffer per column, filled row
 * by row and then given away. Whoever takes a column owns its buffers.
 */
#include "view/arrow_view.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define TEXT_MAX (1u << 30) /* bytes of one text column in a batch: offsets are 32 bits */
#define REPLACEMENT "\xef\xbf\xbd"

static const uint8_t widths[] = {
    [PM_CELL_BOOL] = 0, [PM_CELL_U8] = 1,  [PM_CELL_U16] = 2, [PM_CELL_U32] = 4,  [PM_CELL_U64] = 8,
    [PM_CELL_I32] = 4,  [PM_CELL_I64] = 8, [PM_CELL_F64] = 8, [PM_CELL_TEXT] = 4, [PM_CELL_SEC] = 8,
};

struct column {
    enum pm_cell_type type;
    size_t rows, nulls;
    uint8_t *valid;                 /* bits; given up when no value is missing */
    uint8_t *data;                  /* values, bits, or for a text its offsets */
    void *valid_block, *data_block; /* in which they lie */
    struct pm_buf text;
};

/* What an array owns: private_data of each. */
struct owned {
    const void *buffers[3];
    void *blocks[3];
};

static void release_array(struct ArrowArray *array)
{
    struct owned *owned = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++) {
        struct ArrowArray *child = array->children[i];
        if (child != NULL && child->release != NULL)
            child->release(child);
        free(child);
    }
    free(array->children);
    for (size_t i = 0; i < 3; i++)
        free(owned->blocks[i]);
    free(owned);
    array->release = NULL;
}

/* Aligned to 64 bytes, as the format recommends. From calloc, so that the pages of a column that
 * stays short are never touched: the block is what is freed later. */
static uint8_t *zeros(size_t bytes, void **ret_block)
{
    *ret_block = calloc(1, bytes + 128);
    return *ret_block != NULL ? (uint8_t *)*ret_block + (64 - (uintptr_t)*ret_block % 64) : NULL;
}

static int column_init(struct column *column, enum pm_cell_type type, size_t max_rows)
{
    const size_t values = type == PM_CELL_TEXT ? max_rows + 1 : max_rows;
    *column = (struct column){.type = type};
    pm_buf_init(&column->text, TEXT_MAX);
    column->valid = zeros(max_rows / 8 + 1, &column->valid_block);
    column->data =
        zeros(type == PM_CELL_BOOL ? max_rows / 8 + 1 : values * widths[type], &column->data_block);
    return column->valid != NULL && column->data != NULL ? 0 : -PM_ENOMEM;
}

static void column_free(struct column *column)
{
    free(column->valid_block);
    free(column->data_block);
    pm_buf_release(&column->text);
}

/* Arrow's text is UTF-8: a byte that is none becomes U+FFFD, as in the JSON. */
static void add_text(struct pm_buf *buf, const char *text)
{
    const size_t bytes = strlen(text);
    size_t from = 0;
    for (size_t i = 0; i < bytes;) {
        const size_t length = pm_utf8_length(text + i, bytes - i);
        if (length > 0) {
            i += length;
            continue;
        }
        (void)pm_buf_add(buf, text + from, i - from);
        (void)pm_buf_add(buf, REPLACEMENT, sizeof(REPLACEMENT) - 1);
        from = ++i;
    }
    (void)pm_buf_add(buf, text + from, bytes - from);
}

/* The double that the CSV's text reads back as: microseconds, rounded as there. */
static double seconds(int64_t ns)
{
    const uint64_t size = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns;
    const double us = (double)((size + 500) / 1000);
    return (ns < 0 ? -us : us) / 1e6;
}

static int column_put(struct column *column, const struct pm_cell *cell)
{
    const size_t row = column->rows++;
    uint8_t *at = column->data + row * widths[column->type];
    double number;

    if (cell->have)
        column->valid[row / 8] |= (uint8_t)(1u << row % 8);
    else
        column->nulls++;
    switch (column->type) {
    case PM_CELL_BOOL:
        if (cell->have && cell->u64 != 0)
            column->data[row / 8] |= (uint8_t)(1u << row % 8);
        return 0;
    case PM_CELL_TEXT: {
        if (cell->have)
            add_text(&column->text, cell->text);
        const int32_t end = (int32_t)column->text.used;
        memcpy(at + sizeof(end), &end, sizeof(end));
        return pm_buf_status(&column->text);
    }
    case PM_CELL_SEC:
        number = cell->have ? seconds(cell->i64) : 0;
        memcpy(at, &number, sizeof(number));
        return 0;
    default: /* little-endian: the low bytes come first */
        if (cell->have)
            memcpy(at, &cell->u64, widths[column->type]);
        return 0;
    }
}

/* The column's buffers become the array's; nothing is left of it. */
static int column_give(struct column *column, struct ArrowArray *ret_array)
{
    struct owned *owned = calloc(1, sizeof(*owned));
    if (owned == NULL)
        return -PM_ENOMEM;
    if (column->nulls == 0) {
        free(column->valid_block);
        column->valid = NULL;
        column->valid_block = NULL;
    }
    if (column->type == PM_CELL_TEXT && column->text.data == NULL &&
        pm_buf_reserve(&column->text, 1) == NULL) {
        free(owned);
        return -PM_ENOMEM;
    }
    owned->blocks[0] = column->valid_block;
    owned->blocks[1] = column->data_block;
    owned->blocks[2] = column->text.data;
    owned->buffers[0] = column->valid;
    owned->buffers[1] = column->data;
    owned->buffers[2] = column->text.data;
    *ret_array = (struct ArrowArray){
        .length = (int64_t)column->rows,
        .null_count = (int64_t)column->nulls,
        .n_buffers = column->type == PM_CELL_TEXT ? 3 : 2,
        .buffers = owned->buffers,
        .release = release_array,
        .private_data = owned,
    };
    *column = (struct column){0};
    return 0;
}

/* The struct array that holds the columns. */
static int give_all(struct column *columns, size_t n, size_t rows, struct ArrowArray *ret_array)
{
    struct owned *owned = calloc(1, sizeof(*owned));
    struct ArrowArray array = {
        .length = (int64_t)rows, .n_buffers = 1, .release = release_array, .private_data = owned};

    if (owned == NULL)
        return -PM_ENOMEM;
    array.buffers = owned->buffers;
    array.children = calloc(n, sizeof(struct ArrowArray *));
    if (array.children == NULL)
        goto no_memory;
    array.n_children = (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        array.children[i] = calloc(1, sizeof(struct ArrowArray));
        if (array.children[i] == NULL || column_give(&columns[i], array.children[i]) != 0)
            goto no_memory;
    }
    *ret_array = array;
    return 0;
no_memory:
    release_array(&array);
    return -PM_ENOMEM;
}

int pm_arrow_batch(struct pm_table *table, size_t max_rows, struct ArrowArray *ret_array,
                   size_t *ret_rows)
{
    struct column columns[PM_TABLE_COLUMNS_MAX] = {0};
    const size_t n = pm_arrow_columns(table);
    size_t rows = 0;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = column_init(&columns[i], table->columns[pm_arrow_column(table, i)].type, max_rows);
    while (rc == 0 && rows < max_rows) {
        rc = pm_table_next(table);
        if (rc <= 0)
            break;
        rc = 0;
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = column_put(&columns[i], &table->cells[pm_arrow_column(table, i)]);
        rows++;
    }
    if (rc == 0 && rows > 0)
        rc = give_all(columns, n, rows, ret_array);
    for (size_t i = 0; i < n; i++)
        column_free(&columns[i]);
    if (rc == 0)
        *ret_rows = rows;
    return rc;
}
