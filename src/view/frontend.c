/*
 * The front end's operations for cpu_operations_timing.csv: tokenization, detokenization,
 * admission. Called by cpu.c.
 *
 * Records lie in order of the operations' ends, of each process; the file is in order of their
 * beginnings. So the sources are merged by end, and a heap holds back as many as may overtake each
 * other: the requests that a front end had in hand at a time.
 */
#include "view/frontend.h"

#include <stdlib.h>
#include <string.h>

#include "session/frontend_facts.h"
#include "session/hist.h"
#include "view/columns.h"
#include "view/cpu.h"
#include "view/group.h"

#define HEAP_MAX 4096

static const char *const operations[PM_FRONTEND_CLASSES] = {
#define X(number, name, text) [number] = (text),
    PM_FRONTEND_OPS(X)
#undef X
};

/* One process's records. */
struct reader {
    struct pm_cursor *cursor;
    unsigned schema;
    const struct pm_field *start, *dur, *delay, *outputs, *tokens, *op;
    struct pm_frontend_op next;
};

struct frontend_source {
    struct pm_cpu_source base;
    struct reader *readers;
    size_t n_readers;
    size_t n_heap;
    struct pm_frontend_op heap[HEAP_MAX]; /* the earliest start first */
};

/* ---- the records ---- */

static int reader_open(struct reader *reader, const struct pm_process *process, int schema)
{
    const struct pm_schema *desc = pm_process_schema(process, (size_t)schema);
    *reader = (struct reader){
        .schema = (unsigned)schema,
        .start = pm_column(desc, "start_ns"),
        .dur = pm_column(desc, "dur_ns"),
        .delay = pm_column(desc, "delay_ns"),
        .outputs = pm_column(desc, "outputs"),
        .tokens = pm_column(desc, "tokens"),
        .op = pm_column(desc, "op"),
    };
    return pm_cursor_open(&reader->cursor, process, PM_STREAM_CORE);
}

/* 1: reader->next; 0: the end; < 0: error. */
static int reader_next(struct reader *reader)
{
    struct pm_record record;
    int rc;

    while ((rc = pm_cursor_next(reader->cursor, &record)) == 1) {
        if (record.schema != reader->schema || record.keyframe)
            continue;
        const uint64_t op = pm_column_get(reader->op, record.payload);
        if (op >= PM_FRONTEND_CLASSES)
            continue; /* a newer writer's */
        reader->next = (struct pm_frontend_op){
            .start_ns = pm_column_get(reader->start, record.payload),
            .dur_ns = pm_column_get(reader->dur, record.payload),
            .delay_ns = pm_column_get(reader->delay, record.payload),
            .outputs = (uint32_t)pm_column_get(reader->outputs, record.payload),
            .tokens = (uint32_t)pm_column_get(reader->tokens, record.payload),
            .op = (uint8_t)op,
        };
        return 1;
    }
    return rc;
}

/* ---- the heap ---- */

static void swap(struct pm_frontend_op *a, struct pm_frontend_op *b)
{
    const struct pm_frontend_op kept = *a;
    *a = *b;
    *b = kept;
}

static void push(struct frontend_source *source, const struct pm_frontend_op *op)
{
    struct pm_frontend_op *heap = source->heap;
    size_t i = source->n_heap++;
    heap[i] = *op;
    for (; i > 0 && heap[i].start_ns < heap[(i - 1) / 2].start_ns; i = (i - 1) / 2)
        swap(&heap[i], &heap[(i - 1) / 2]);
}

static struct pm_frontend_op pop(struct frontend_source *source)
{
    struct pm_frontend_op *heap = source->heap;
    const struct pm_frontend_op first = heap[0];
    const size_t n = --source->n_heap;
    heap[0] = heap[n];
    for (size_t i = 0, child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1].start_ns < heap[child].start_ns)
            child++;
        if (heap[i].start_ns <= heap[child].start_ns)
            break;
        swap(&heap[i], &heap[child]);
    }
    return first;
}

/* ---- the source ---- */

/* Moves the record that ended first into the heap; a reader at its end is closed. */
static int advance(struct frontend_source *source)
{
    struct reader *first = &source->readers[0];
    for (size_t i = 1; i < source->n_readers; i++) {
        struct reader *each = &source->readers[i];
        if (each->next.start_ns + each->next.dur_ns < first->next.start_ns + first->next.dur_ns)
            first = each;
    }
    push(source, &first->next);
    const int rc = reader_next(first);
    if (rc == 0) {
        pm_cursor_close(first->cursor);
        *first = source->readers[--source->n_readers];
    }
    return rc < 0 ? rc : 0;
}

static int frontend_next(struct pm_cpu_source *base, struct pm_cpu_op *ret_op)
{
    struct frontend_source *source = (struct frontend_source *)base;

    while (source->n_readers > 0 && source->n_heap < HEAP_MAX) {
        const int rc = advance(source);
        if (rc < 0)
            return rc;
    }
    if (source->n_heap == 0)
        return 0;
    const struct pm_frontend_op op = pop(source);
    ret_op->operation = operations[op.op];
    ret_op->at_ns = op.start_ns;
    ret_op->dur_ns = op.dur_ns;
    const bool out = op.op == PM_FRONTEND_DETOKENIZATION;
    ret_op->tags[0].key = out ? "outputs" : op.tokens != 0 ? "num_tokens" : NULL;
    ret_op->tags[0].value = out ? op.outputs : op.tokens;
    ret_op->tags[1].key = out && op.delay_ns != 0 ? "delay_ms" : NULL;
    ret_op->tags[1].value = op.delay_ns;
    ret_op->tags[2].key = NULL;
    return 1;
}

static void frontend_close(struct pm_cpu_source *base)
{
    struct frontend_source *source = (struct frontend_source *)base;
    for (size_t i = 0; i < source->n_readers; i++)
        pm_cursor_close(source->readers[i].cursor);
    free(source->readers);
    free(source);
}

static int open_readers(struct frontend_source *source, const struct pm_session *session,
                        size_t engine, unsigned n)
{
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        const int schema = pm_process_schema_find(process, "frontend_op");
        struct reader *reader = &source->readers[source->n_readers];
        if (schema < 0 || !pm_group_has(session, engine, n, process))
            continue;
        int rc = reader_open(reader, process, schema);
        if (rc != 0)
            return rc;
        rc = reader_next(reader);
        if (rc == 1)
            source->n_readers++;
        else
            pm_cursor_close(reader->cursor);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int pm_cpu_open_frontend(struct pm_cpu_source **ret_source, const struct pm_session *session,
                         size_t engine, unsigned n, bool sampler)
{
    struct frontend_source *source;
    *ret_source = NULL;
    if (!sampler)
        return 0;
    source = calloc(1, sizeof(*source));
    if (source == NULL)
        return -PM_ENOMEM;
    source->base = (struct pm_cpu_source){.next = frontend_next, .close = frontend_close};
    source->readers = calloc(pm_session_process_count(session) + 1, sizeof(*source->readers));
    const int rc = source->readers == NULL ? -PM_ENOMEM : open_readers(source, session, engine, n);
    if (rc != 0) {
        frontend_close(&source->base);
        return rc;
    }
    *ret_source = &source->base;
    return 0;
}

/* ---- where detail had to go ---- */

bool pm_frontend_recycled(const struct pm_session *session, size_t engine, unsigned n)
{
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        if (pm_process_schema_find(process, "frontend_op") >= 0 &&
            pm_process_info(process)->first_fact[PM_STREAM_CORE] > 0 &&
            pm_group_has(session, engine, n, process))
            return true;
    }
    return false;
}

bool pm_frontend_stats(const struct pm_session *session, size_t engine, unsigned n,
                       const char *operation, struct pm_stats *ret_stats)
{
    struct pm_hist hist = {.buckets = {0}};
    uint64_t sum = 0, count = 0;
    unsigned class = 0;
    while (class < PM_FRONTEND_CLASSES && strcmp(operations[class], operation) != 0)
        class ++;
    if (class == PM_FRONTEND_CLASSES)
        return false;
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        const struct pm_process *process = pm_session_process(session, p);
        struct pm_totals totals;
        struct pm_series series;
        if (!pm_group_has(session, engine, n, process) || pm_process_totals(process, &totals) != 0)
            continue;
        if (pm_series_find(process, &totals, "frontend_op", "dur_ns", class, &series) &&
            series.hist != NULL) {
            pm_hist_merge(&hist, series.hist);
            sum += series.sum;
            count += series.count;
        }
        pm_totals_free(&totals);
    }
    if (count > 0)
        pm_stats_from_hist(&hist, sum, ret_stats);
    return count > 0;
}
