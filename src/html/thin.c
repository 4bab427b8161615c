/*
 * Rows in time that stay few (see thin.h). Called by the files of this room that walk a session.
 */
#include "html/thin.h"

#include <stdlib.h>
#include <string.h>

void pm_thin_init(struct pm_thin *ret_thin, const struct pm_thin_column *columns,
                  unsigned n_columns, int key, uint64_t start_ns, size_t limit)
{
    *ret_thin = (struct pm_thin){
        .columns = columns,
        .n_columns = n_columns < PM_THIN_COLUMNS_MAX ? n_columns : PM_THIN_COLUMNS_MAX,
        .key = key,
        .start_ns = start_ns,
        .limit = limit > 2 ? limit : 2,
    };
}

void pm_thin_release(struct pm_thin *thin)
{
    free(thin->held);
    free(thin->buckets);
    free(thin->top);
    thin->held = NULL;
    thin->buckets = NULL;
    thin->top = NULL;
}

/* ---- the greatest ---- */

static void sift_down(struct pm_thin *thin, size_t at)
{
    const unsigned key = (unsigned)thin->key;
    for (;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < thin->n_top; child++)
            if (thin->top[child].values[key] < thin->top[least].values[key])
                least = child;
        if (least == at)
            return;
        const struct pm_thin_row row = thin->top[at];
        thin->top[at] = thin->top[least];
        thin->top[least] = row;
        at = least;
    }
}

static int add_top(struct pm_thin *thin, const struct pm_thin_row *row)
{
    if (thin->key < 0)
        return 0;
    const unsigned key = (unsigned)thin->key;
    if (thin->top == NULL) {
        thin->top = malloc(PM_THIN_TOP * sizeof(*thin->top));
        if (thin->top == NULL)
            return -PM_ENOMEM;
    }
    if (thin->n_top == PM_THIN_TOP) {
        if (row->values[key] <= thin->top[0].values[key])
            return 0;
        thin->top[0] = *row;
        sift_down(thin, 0);
        return 0;
    }
    size_t at = thin->n_top++;
    while (at > 0 && thin->top[(at - 1) / 2].values[key] > row->values[key]) {
        thin->top[at] = thin->top[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    thin->top[at] = *row;
    return 0;
}

/* ---- buckets ---- */

static void merge(const struct pm_thin *thin, struct pm_thin_bucket *into,
                  const struct pm_thin_bucket *from)
{
    if (from->count == 0)
        return;
    if (into->count == 0) {
        *into = *from;
        return;
    }
    into->count += from->count;
    for (unsigned i = 0; i < thin->n_columns; i++) {
        into->sum[i] += from->sum[i];
        if (from->min[i] < into->min[i])
            into->min[i] = from->min[i];
        if (from->max[i] > into->max[i])
            into->max[i] = from->max[i];
    }
}

/* Buckets of twice the width. */
static void widen(struct pm_thin *thin)
{
    for (size_t i = 0; 2 * i < thin->used; i++) {
        const struct pm_thin_bucket first = thin->buckets[2 * i];
        const struct pm_thin_bucket second =
            2 * i + 1 < thin->used ? thin->buckets[2 * i + 1] : (struct pm_thin_bucket){0};
        thin->buckets[i] = first;
        merge(thin, &thin->buckets[i], &second);
    }
    const size_t used = (thin->used + 1) / 2;
    memset(&thin->buckets[used], 0, (PM_THIN_BUCKETS - used) * sizeof(*thin->buckets));
    thin->used = used;
    thin->width_ns *= 2;
}

static void add_to_bucket(struct pm_thin *thin, const struct pm_thin_row *row)
{
    const uint64_t since = row->at_ns > thin->from_ns ? row->at_ns - thin->from_ns : 0;
    while (since / thin->width_ns >= PM_THIN_BUCKETS)
        widen(thin);
    const size_t at = (size_t)(since / thin->width_ns);
    struct pm_thin_bucket *bucket = &thin->buckets[at];
    if (at >= thin->used)
        thin->used = at + 1;
    if (bucket->count++ == 0) {
        memcpy(bucket->sum, row->values, thin->n_columns * sizeof(uint64_t));
        memcpy(bucket->min, row->values, thin->n_columns * sizeof(uint64_t));
        memcpy(bucket->max, row->values, thin->n_columns * sizeof(uint64_t));
        return;
    }
    for (unsigned i = 0; i < thin->n_columns; i++) {
        bucket->sum[i] += row->values[i];
        if (row->values[i] < bucket->min[i])
            bucket->min[i] = row->values[i];
        if (row->values[i] > bucket->max[i])
            bucket->max[i] = row->values[i];
    }
}

/* Too many rows: buckets from here on. */
static int fold(struct pm_thin *thin)
{
    uint64_t first = UINT64_MAX, last = 0;
    thin->buckets = calloc(PM_THIN_BUCKETS, sizeof(*thin->buckets));
    if (thin->buckets == NULL)
        return -PM_ENOMEM;
    for (uint64_t i = 0; i < thin->rows; i++) {
        first = thin->held[i].at_ns < first ? thin->held[i].at_ns : first;
        last = thin->held[i].at_ns > last ? thin->held[i].at_ns : last;
    }
    thin->from_ns = first;
    thin->width_ns = (last - first) / (PM_THIN_BUCKETS / 2) + 1;
    for (uint64_t i = 0; i < thin->rows; i++) {
        add_to_bucket(thin, &thin->held[i]);
        const int rc = add_top(thin, &thin->held[i]);
        if (rc != 0)
            return rc;
    }
    free(thin->held);
    thin->held = NULL;
    return 0;
}

int pm_thin_add(struct pm_thin *thin, uint64_t at_ns, const uint64_t *values)
{
    struct pm_thin_row row = {.at_ns = at_ns};
    int rc;

    memcpy(row.values, values, thin->n_columns * sizeof(*values));
    if (thin->buckets == NULL && thin->rows == thin->limit && (rc = fold(thin)) != 0)
        return rc;
    if (thin->buckets != NULL) {
        add_to_bucket(thin, &row);
        rc = add_top(thin, &row);
        thin->rows += rc == 0;
        return rc;
    }
    if (thin->rows == thin->room) {
        const size_t room = thin->room != 0 ? 2 * thin->room : 256;
        struct pm_thin_row *held = realloc(thin->held, room * sizeof(*held));
        if (held == NULL)
            return -PM_ENOMEM;
        thin->held = held;
        thin->room = room;
    }
    thin->held[thin->rows++] = row;
    return 0;
}

/* ---- JSON ---- */

static uint64_t shown(const struct pm_thin_column *column, uint64_t value)
{
    return (column->how & PM_THIN_NS) != 0 ? (value + 500) / 1000 : value;
}

static int64_t microseconds(const struct pm_thin *thin, uint64_t at_ns)
{
    return (int64_t)(at_ns - thin->start_ns) / 1000;
}

static void put_rows(struct pm_json *json, const struct pm_thin *thin,
                     const struct pm_thin_row *rows, size_t count)
{
    int64_t before = 0;
    pm_json_key(json, "t");
    pm_json_array(json);
    for (size_t i = 0; i < count; i++) {
        const int64_t at = microseconds(thin, rows[i].at_ns);
        pm_json_i64(json, at - before);
        before = at;
    }
    pm_json_end(json);
    pm_json_key(json, "cols");
    pm_json_object(json);
    for (unsigned c = 0; c < thin->n_columns; c++) {
        if ((thin->columns[c].how & PM_THIN_ROW) == 0)
            continue;
        pm_json_key(json, thin->columns[c].name);
        pm_json_array(json);
        for (size_t i = 0; i < count; i++)
            pm_json_u64(json, shown(&thin->columns[c], rows[i].values[c]));
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void put_buckets(struct pm_json *json, const struct pm_thin *thin, const char *key,
                        enum pm_thin_how how)
{
    pm_json_key(json, key);
    pm_json_object(json);
    for (unsigned c = 0; c < thin->n_columns; c++) {
        if ((thin->columns[c].how & (unsigned)how) == 0)
            continue;
        pm_json_key(json, thin->columns[c].name);
        pm_json_array(json);
        for (size_t i = 0; i < thin->used; i++) {
            const struct pm_thin_bucket *bucket = &thin->buckets[i];
            const uint64_t *from = how == PM_THIN_SUM   ? bucket->sum
                                   : how == PM_THIN_MIN ? bucket->min
                                                        : bucket->max;
            pm_json_u64(json, shown(&thin->columns[c], from[c]));
        }
        pm_json_end(json);
    }
    pm_json_end(json);
}

static int by_time(const void *a, const void *b)
{
    const struct pm_thin_row *x = a, *y = b;
    return (x->at_ns > y->at_ns) - (x->at_ns < y->at_ns);
}

void pm_thin_json(struct pm_json *json, const struct pm_thin *thin)
{
    pm_json_object(json);
    pm_json_key(json, "exact");
    pm_json_bool(json, thin->buckets == NULL);
    pm_json_key(json, "rows");
    pm_json_u64(json, thin->rows);
    if (thin->buckets == NULL) {
        if (thin->rows > 0)
            qsort(thin->held, (size_t)thin->rows, sizeof(*thin->held), by_time);
        put_rows(json, thin, thin->held, (size_t)thin->rows);
    } else {
        pm_json_key(json, "from");
        pm_json_i64(json, microseconds(thin, thin->from_ns));
        pm_json_key(json, "width");
        pm_json_fixed(json, thin->width_ns, 3, 3);
        pm_json_key(json, "n");
        pm_json_array(json);
        for (size_t i = 0; i < thin->used; i++)
            pm_json_u64(json, thin->buckets[i].count);
        pm_json_end(json);
        put_buckets(json, thin, "sum", PM_THIN_SUM);
        put_buckets(json, thin, "min", PM_THIN_MIN);
        put_buckets(json, thin, "max", PM_THIN_MAX);
        if (thin->n_top > 0) {
            qsort(thin->top, thin->n_top, sizeof(*thin->top), by_time);
            pm_json_key(json, "top");
            pm_json_object(json);
            put_rows(json, thin, thin->top, thin->n_top);
            pm_json_end(json);
        }
    }
    pm_json_end(json);
}
