/*
 * The live totals: what was committed is added up, and published in the file's header in two
 * copies, so that a reader finds one of them whole at any moment and after any death. Helper side:
 * the caller holds helper_lock.
 *
 * A reader adds the facts from covers[stream] on to the copy. So a segment may be recycled only
 * after a copy that covers all of it was published: pm_rec_follow before pm_rec_collect.
 */
#include "recorder/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

int pm_rec_totals_init(struct pm_recorder *rec)
{
    struct pm_rec_totals *totals = &rec->totals;
    totals->values = calloc(totals->n_values + 1, sizeof *totals->values);
    totals->hists = calloc(totals->n_hists + 1, sizeof *totals->hists);
    return totals->values == NULL || totals->hists == NULL ? -PM_ENOMEM : 0;
}

/* Adds what is committed in one segment and not in the totals yet. Whether there was a fact. */
static bool walk(struct pm_recorder *rec, struct pm_rec_lane *lane, struct pm_rec_segment *segment)
{
    struct pm_segment_head *head = (struct pm_segment_head *)(void *)segment->base;
    bool found = false;
    /* Not begun yet. */
    if (atomic_load_explicit(&head->magic, memory_order_acquire) != PM_SEGMENT_MAGIC)
        return false;
    /* Read first: if it is set, all records that the segment will ever have are committed. */
    uint64_t sealed = atomic_load_explicit(&head->sealed_bytes, memory_order_acquire);
    while (segment->walked + 8 <= rec->segment_bytes) {
        const unsigned char *at = segment->base + segment->walked;
        uint64_t word =
            atomic_load_explicit((const pm_record_head *)(const void *)at, memory_order_acquire);
        size_t bytes = (size_t)pm_record_words(word) * 8;
        if (bytes == 0 || segment->walked + bytes > rec->segment_bytes)
            break;
        uint32_t schema = pm_record_schema(word);
        if (schema >= PM_SCHEMA_FIRST) {
            uint32_t i = schema - PM_SCHEMA_FIRST;
            if (i < rec->n_sorts && bytes == rec->sorts[i].bytes) {
                const struct pm_rec_table *table = &rec->tables[i];
                pm_schema_accumulate(table->schema, at + 8, rec->totals.values + table->first_value,
                                     rec->totals.hists + table->first_hist);
            }
            segment->facts++;
            lane->covers++;
            found = true;
        }
        segment->walked += bytes;
    }
    segment->done = sealed != 0;
    return found;
}

static void publish(struct pm_recorder *rec)
{
    struct pm_file_head *head = rec->head;
    const struct pm_rec_totals *totals = &rec->totals;
    uint32_t index = atomic_load_explicit(&head->live_index, memory_order_relaxed) == 0 ? 1 : 0;
    unsigned char *copy = (unsigned char *)head + rec->live_offset + index * rec->live_bytes;
    struct pm_live_head live = {
        .mono_ns = pm_clock_vdso_ns(), .n_values = totals->n_values, .n_hists = totals->n_hists};
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++)
        live.covers[stream] = rec->lanes[stream].covers;
    if (live.mono_ns <= rec->published_ns)
        live.mono_ns = rec->published_ns + 1;
    rec->published_ns = live.mono_ns;
    /* The last switch of the index is seen before the copy that it left is changed; and this copy's
     * new time before anything else in it: a reader that was held up while the index went there and
     * back finds that the time is another. */
    atomic_thread_fence(memory_order_seq_cst);
    __atomic_store_n(&((struct pm_live_head *)(void *)copy)->mono_ns, live.mono_ns,
                     __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_seq_cst);
    memcpy(copy, &live, sizeof live);
    copy += sizeof live;
    memcpy(copy, totals->values, totals->n_values * sizeof *totals->values);
    copy += totals->n_values * sizeof *totals->values;
    memcpy(copy, totals->hists, totals->n_hists * sizeof *totals->hists);
    atomic_store_explicit(&head->live_index, index, memory_order_release);
}

void pm_rec_follow(struct pm_recorder *rec)
{
    bool found = false;
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++) {
        struct pm_rec_lane *lane = &rec->lanes[stream];
        for (unsigned i = 0; i < lane->mapped; i++) {
            struct pm_rec_segment *segment = &lane->ring[(lane->first + i) % PM_REC_RING];
            if (!segment->done)
                found |= walk(rec, lane, segment);
            if (!segment->done)
                break;
        }
    }
    if (found || atomic_load_explicit(&rec->head->live_index, memory_order_relaxed) == 2)
        publish(rec);
}

/* The totals of now as one record: the values, and the buckets that are not empty. */
void pm_rec_rollup(struct pm_recorder *rec)
{
    const struct pm_rec_totals *totals = &rec->totals;
    struct pm_rollup_head rollup = {
        .mono_ns = pm_clock_vdso_ns(), .real_ns = pm_clock_real_ns(), .n_values = totals->n_values};
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++)
        rollup.covers[stream] = rec->lanes[stream].covers;
    for (uint32_t hist = 0; hist < totals->n_hists; hist++) {
        for (uint32_t bucket = 0; bucket < PM_HIST_BUCKETS; bucket++)
            rollup.n_buckets += totals->hists[hist].buckets[bucket] != 0;
    }
    size_t bytes = sizeof rollup + totals->n_values * sizeof *totals->values +
                   rollup.n_buckets * sizeof(struct pm_rollup_bucket);
    pm_rec_keep_enter(rec, 8 + pm_rec_round8(bytes), PM_REC_HELPER);
    unsigned char *at = pm_rec_begin(rec, PM_STREAM_KEEP, bytes);
    if (at == NULL)
        goto out;
    memcpy(at, &rollup, sizeof rollup);
    at += sizeof rollup;
    memcpy(at, totals->values, totals->n_values * sizeof *totals->values);
    at += totals->n_values * sizeof *totals->values;
    for (uint32_t hist = 0; hist < totals->n_hists; hist++) {
        for (uint32_t bucket = 0; bucket < PM_HIST_BUCKETS; bucket++) {
            uint64_t count = totals->hists[hist].buckets[bucket];
            if (count == 0)
                continue;
            struct pm_rollup_bucket entry = {.hist = hist, .bucket = bucket, .count = count};
            memcpy(at, &entry, sizeof entry);
            at += sizeof entry;
        }
    }
    pm_rec_end(rec, PM_STREAM_KEEP, PM_SCHEMA_ROLLUP, bytes);
out:
    pm_rec_keep_leave(rec);
}
