/*
 * Totals of a process since it began: the live copy in the file's header (else the last roll-up,
 * else nothing), plus the facts that it does not cover yet. Called by the views; owns nothing.
 */
#include "reader/internal.h"

#include "session/hist.h"

#include <stdlib.h>
#include <string.h>

/* How many series the schemas ask for; -PM_ECORRUPT where one is missing, for the places of all the
 * others are not known then. */
static int layout(const struct pm_process *process, uint32_t *ret_values, uint32_t *ret_hists)
{
    uint64_t values = 0, hists = 0;

    for (size_t i = 0; i < process->n_schemas; i++) {
        uint32_t v, h;
        if (process->schemas[i] == NULL)
            return -PM_ECORRUPT;
        pm_schema_series(process->schemas[i], &v, &h);
        values += v;
        hists += h;
    }
    if (values > PM_READER_MAX_VALUES || hists > PM_READER_MAX_HISTS)
        return -PM_ELIMIT;
    *ret_values = (uint32_t)values;
    *ret_hists = (uint32_t)hists;
    return 0;
}

void pm_process_series(const struct pm_process *process, size_t schema, uint32_t *ret_value,
                       uint32_t *ret_hist)
{
    uint32_t value = 0, hist = 0;
    for (size_t i = 0; i < schema && i < process->n_schemas; i++) {
        uint32_t v, h;
        if (process->schemas[i] == NULL)
            continue;
        pm_schema_series(process->schemas[i], &v, &h);
        value += v;
        hist += h;
    }
    *ret_value = value;
    *ret_hist = hist;
}

static bool read_head_word(const struct pm_process *process, size_t offset, uint32_t *ret_word)
{
    return pm_read_at(process->fd, ret_word, sizeof(*ret_word), offset) ==
           (ssize_t)sizeof(*ret_word);
}

/* The whole live copy. The writer fills the other one and then switches the index, so a copy is
 * whole if the index and the copy's own time stand still while it is read. 1: read; 0: there is
 * none. */
static int read_live(const struct pm_process *process, struct pm_totals *totals,
                     uint64_t covers[PM_STREAM_COUNT])
{
    const size_t values_bytes = totals->n_values * sizeof(uint64_t);
    const size_t hists_bytes = totals->n_hists * sizeof(struct pm_hist);
    const size_t index_at = offsetof(struct pm_file_head, live_index);

    if (sizeof(struct pm_live_head) + values_bytes + hists_bytes > process->live_bytes)
        return 0;
    for (int attempt = 0; attempt < 100; attempt++) {
        struct pm_live_head head, again;
        uint32_t index, index_again;
        if (!read_head_word(process, index_at, &index) || index > 1)
            return 0;
        atomic_thread_fence(memory_order_acquire);
        const uint64_t at = process->live_offset + (uint64_t)index * process->live_bytes;
        if (pm_read_at(process->fd, &head, sizeof(head), at) != (ssize_t)sizeof(head) ||
            pm_read_at(process->fd, totals->values, values_bytes, at + sizeof(head)) !=
                (ssize_t)values_bytes ||
            pm_read_at(process->fd, totals->hists, hists_bytes, at + sizeof(head) + values_bytes) !=
                (ssize_t)hists_bytes)
            return 0;
        atomic_thread_fence(memory_order_acquire);
        if (!read_head_word(process, index_at, &index_again) ||
            pm_read_at(process->fd, &again, sizeof(again), at) != (ssize_t)sizeof(again))
            return 0;
        if (index != index_again || head.mono_ns != again.mono_ns)
            continue;
        if (head.n_values != totals->n_values || head.n_hists != totals->n_hists)
            return 0;
        memcpy(covers, head.covers, sizeof(head.covers));
        return 1;
    }
    return 0;
}

/* One roll-up record into totals; false and nothing changed where it does not fit the schemas. */
static bool take_rollup(const struct pm_raw *raw, struct pm_totals *totals,
                        uint64_t covers[PM_STREAM_COUNT])
{
    struct pm_rollup_head head;
    const uint8_t *at = raw->payload;

    if (raw->bytes < sizeof(head))
        return false;
    memcpy(&head, at, sizeof(head));
    uint64_t want = sizeof(head) + 8ull * head.n_values +
                    (uint64_t)head.n_buckets * sizeof(struct pm_rollup_bucket);
    if (head.n_values != totals->n_values || want > raw->bytes)
        return false;
    at += sizeof(head);
    const uint8_t *buckets = at + 8ull * head.n_values;
    for (uint32_t i = 0; i < head.n_buckets; i++) {
        struct pm_rollup_bucket bucket;
        memcpy(&bucket, buckets + i * sizeof(bucket), sizeof(bucket));
        if (bucket.hist >= totals->n_hists || bucket.bucket >= PM_HIST_BUCKETS)
            return false;
    }
    memcpy(totals->values, at, 8ull * head.n_values);
    memset(totals->hists, 0, totals->n_hists * sizeof(*totals->hists));
    for (uint32_t i = 0; i < head.n_buckets; i++) {
        struct pm_rollup_bucket bucket;
        memcpy(&bucket, buckets + i * sizeof(bucket), sizeof(bucket));
        totals->hists[bucket.hist].buckets[bucket.bucket] = bucket.count;
    }
    memcpy(covers, head.covers, sizeof(head.covers));
    return true;
}

/* The last roll-up that can be read. 1: read; 0: there is none. */
static int read_rollup(const struct pm_process *process, struct pm_totals *totals,
                       uint64_t covers[PM_STREAM_COUNT])
{
    struct pm_segment_list lists[PM_STREAM_COUNT];
    struct pm_segment_copy copy = {0};
    int found = 0;
    int rc = pm_segments_list(process, 1u << PM_STREAM_KEEP, lists);

    if (rc != 0)
        return rc;
    const struct pm_segment_list *keep = &lists[PM_STREAM_KEEP];
    for (size_t i = keep->count; i-- > 0 && !found;) {
        struct pm_walk walk;
        struct pm_raw raw;
        const char *why;
        rc = pm_segment_read(process, PM_STREAM_KEEP, &keep->refs[i], &copy);
        if (rc == -PM_ENOMEM)
            break;
        if (rc != 0)
            continue;
        pm_walk_begin(&walk, &copy);
        while (pm_walk_next(&walk, &raw, &why) == 1)
            if (raw.schema == PM_SCHEMA_ROLLUP && take_rollup(&raw, totals, covers))
                found = 1;
    }
    pm_segment_copy_free(&copy);
    pm_segments_free(lists);
    return rc == -PM_ENOMEM ? rc : found;
}

/* Adds the facts of one stream from number `from` on. Whole segments before it are not read.
 * *ret_first: the number of the first fact that was added; UINT64_MAX when there was none. */
static int add_facts(const struct pm_process *process, enum pm_stream stream, uint64_t from,
                     struct pm_totals *totals, uint64_t *ret_first)
{
    struct pm_segment_list lists[PM_STREAM_COUNT];
    struct pm_segment_copy copy = {0};
    uint32_t value_at[PM_READER_MAX_SCHEMAS], hist_at[PM_READER_MAX_SCHEMAS];
    uint8_t *filled = NULL;
    int rc = pm_segments_list(process, 1u << stream, lists);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < process->n_schemas; i++)
        pm_process_series(process, i, &value_at[i], &hist_at[i]);
    *ret_first = UINT64_MAX;
    const struct pm_segment_list *list = &lists[stream];
    for (size_t i = 0; i < list->count; i++) {
        struct pm_walk walk;
        struct pm_raw raw;
        const char *why = "";
        if (i + 1 < list->count && list->refs[i + 1].first_fact <= from)
            continue;
        rc = pm_segment_read(process, stream, &list->refs[i], &copy);
        if (rc == -PM_ENOMEM)
            break;
        if (rc != 0)
            continue;
        pm_walk_begin(&walk, &copy);
        while ((rc = pm_walk_next(&walk, &raw, &why)) == 1) {
            const uint32_t number = raw.schema - PM_SCHEMA_FIRST;
            if (raw.schema < PM_SCHEMA_FIRST || raw.fact < from || number >= process->n_schemas)
                continue;
            const struct pm_schema *schema = process->schemas[number];
            const uint8_t *payload = raw.payload;
            if (raw.bytes < schema->payload_bytes) {
                if (filled == NULL)
                    filled = malloc(UINT16_MAX);
                if (filled == NULL) {
                    rc = -PM_ENOMEM;
                    break;
                }
                memcpy(filled, raw.payload, raw.bytes);
                memset(filled + raw.bytes, 0, schema->payload_bytes - raw.bytes);
                payload = filled;
            }
            if (raw.fact < *ret_first)
                *ret_first = raw.fact;
            pm_schema_accumulate(schema, payload, totals->values + value_at[number],
                                 totals->hists + hist_at[number]);
        }
        if (rc == -PM_ENOMEM)
            break;
        if (rc < 0)
            pm_segment_note(process, &copy, walk.pos, why);
        rc = 0;
    }
    free(filled);
    pm_segment_copy_free(&copy);
    pm_segments_free(lists);
    return rc == -PM_ENOMEM ? rc : 0;
}

/* Of a session that is narrowed to a span: what its cursors hand out. */
static int add_seen(const struct pm_process *process, struct pm_totals *totals)
{
    uint32_t value_at[PM_READER_MAX_SCHEMAS], hist_at[PM_READER_MAX_SCHEMAS];
    int rc = 0;

    for (size_t i = 0; i < process->n_schemas; i++)
        pm_process_series(process, i, &value_at[i], &hist_at[i]);
    for (unsigned s = 0; s < PM_STREAM_COUNT && rc == 0; s++) {
        struct pm_cursor *cursor;
        struct pm_record record;
        rc = pm_cursor_open(&cursor, process, s);
        if (rc != 0)
            return rc;
        while ((rc = pm_cursor_next(cursor, &record)) == 1)
            if (!record.keyframe)
                pm_schema_accumulate(record.desc, record.payload,
                                     totals->values + value_at[record.schema],
                                     totals->hists + hist_at[record.schema]);
        pm_cursor_close(cursor);
    }
    return rc;
}

/* All of them, 0. */
static int make(const struct pm_process *process, struct pm_totals *ret_totals)
{
    struct pm_totals totals = {0};
    int rc = layout(process, &totals.n_values, &totals.n_hists);

    if (rc != 0)
        return rc;
    totals.values = calloc((size_t)totals.n_values + 1, sizeof(*totals.values));
    totals.hists = calloc((size_t)totals.n_hists + 1, sizeof(*totals.hists));
    if (totals.values == NULL || totals.hists == NULL) {
        pm_totals_free(&totals);
        return -PM_ENOMEM;
    }
    *ret_totals = totals;
    return 0;
}

int pm_process_live_totals(const struct pm_process *process, struct pm_totals *ret_totals,
                           uint64_t ret_covers[PM_STREAM_COUNT])
{
    struct pm_totals totals;
    uint64_t covers[PM_STREAM_COUNT] = {0};
    int rc = make(process, &totals);

    if (rc != 0)
        return rc;
    rc = read_live(process, &totals, covers);
    if (rc == 0) {
        memset(totals.values, 0, totals.n_values * sizeof(*totals.values));
        memset(totals.hists, 0, totals.n_hists * sizeof(*totals.hists));
        rc = read_rollup(process, &totals, covers);
    }
    if (rc < 0) {
        pm_totals_free(&totals);
        return rc;
    }
    *ret_totals = totals;
    memcpy(ret_covers, covers, sizeof(covers));
    return 0;
}

static int add_since(const struct pm_process *process, const uint64_t covers[PM_STREAM_COUNT],
                     struct pm_totals *totals)
{
    for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
        uint64_t first;
        int rc = add_facts(process, s, covers[s], totals, &first);
        if (rc < 0)
            return rc;
        if (first != UINT64_MAX && first > covers[s])
            pm_session_add_note(process->session,
                                "records/%s: %llu facts went before they were counted: the totals "
                                "lack them",
                                process->file, (unsigned long long)(first - covers[s]));
    }
    return 0;
}

int pm_process_totals(const struct pm_process *process, struct pm_totals *ret_totals)
{
    const bool narrowed = process->session->view != NULL;
    struct pm_totals totals;
    uint64_t covers[PM_STREAM_COUNT] = {0};
    int rc = narrowed ? make(process, &totals) : pm_process_live_totals(process, &totals, covers);

    if (rc != 0)
        return rc;
    rc = narrowed ? add_seen(process, &totals) : add_since(process, covers, &totals);
    if (rc < 0)
        pm_totals_free(&totals);
    else
        *ret_totals = totals;
    return rc < 0 ? rc : 0;
}

void pm_totals_free(struct pm_totals *totals)
{
    free(totals->values);
    free(totals->hists);
    *totals = (struct pm_totals){0};
}
