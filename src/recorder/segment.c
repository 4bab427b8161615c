/*
 * Slots: allocated at the end of the file, or taken again from the oldest finished segment; mapped
 * and populated for the hot side to write, unmapped when they are full. Helper side: the caller
 * holds helper_lock.
 *
 * Who may have a new slot (quotas of the session's ceiling, held by this process):
 *   KEEP    its first one always, then up to half;      CORE   its first two always, then all
 *   BLOCKS  up to half;                                 CUSTOM up to a quarter
 * Where no new one may be had, CORE, BLOCKS and CUSTOM take their own oldest again. KEEP, which
 * never gives one up, takes the oldest of the stream that holds most, and so does a stream that
 * holds less than an eighth: the oldest detail goes first, totals and roll-ups stay.
 */
#include "recorder/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* ---- the chain of finished slots ---- */

static void chain_push_young(struct pm_recorder *rec, struct pm_rec_lane *lane, uint32_t slot)
{
    rec->slots[slot].following = PM_REC_SLOT_NONE;
    if (lane->newest == PM_REC_SLOT_NONE)
        lane->oldest = slot;
    else
        rec->slots[lane->newest].following = slot;
    lane->newest = slot;
}

static void chain_push_old(struct pm_recorder *rec, struct pm_rec_lane *lane, uint32_t slot)
{
    rec->slots[slot].following = lane->oldest;
    lane->oldest = slot;
    if (lane->newest == PM_REC_SLOT_NONE)
        lane->newest = slot;
}

static uint32_t chain_pop_old(struct pm_recorder *rec, struct pm_rec_lane *lane)
{
    uint32_t slot = lane->oldest;
    if (slot == PM_REC_SLOT_NONE)
        return slot;
    lane->oldest = rec->slots[slot].following;
    if (lane->oldest == PM_REC_SLOT_NONE)
        lane->newest = PM_REC_SLOT_NONE;
    return slot;
}

/* ---- getting a slot ---- */

static bool quota_allows(const struct pm_recorder *rec, enum pm_stream stream)
{
    uint64_t after = ((uint64_t)rec->lanes[stream].slots + 1) * rec->segment_bytes;
    switch (stream) {
    case PM_STREAM_KEEP:
    case PM_STREAM_BLOCKS:
        return after <= rec->ceiling_bytes / 2;
    case PM_STREAM_CUSTOM:
        return after <= rec->ceiling_bytes / 4;
    default:
        return true;
    }
}

static bool always_allowed(const struct pm_recorder *rec, enum pm_stream stream)
{
    uint32_t held = rec->lanes[stream].slots;
    return (stream == PM_STREAM_KEEP && held < 1) || (stream == PM_STREAM_CORE && held < 2);
}

/* Nothing can be allocated: said in the header, and not tried again for a while. */
static void note_trouble(struct pm_recorder *rec)
{
    atomic_fetch_or_explicit(&rec->head->state, PM_STATE_DISK_FULL, memory_order_relaxed);
    rec->retry_ns = pm_clock_vdso_ns() + PM_REC_RETRY_NS;
}

/* A new slot at the end of the file. */
static uint32_t slot_allocate(struct pm_recorder *rec, enum pm_stream stream)
{
    bool exempt = always_allowed(rec, stream);
    if (rec->n_slots == rec->max_slots || (!exempt && !quota_allows(rec, stream)) ||
        (rec->retry_ns != 0 && pm_clock_vdso_ns() < rec->retry_ns))
        return PM_REC_SLOT_NONE;
    if (!pm_rec_file_sound(rec)) {
        note_trouble(rec);
        return PM_REC_SLOT_NONE;
    }
    int code = pm_rec_budget_claim(rec, rec->segment_bytes, exempt);
    if (code != 0) {
        if (code == -PM_ENOSPACE)
            note_trouble(rec);
        return PM_REC_SLOT_NONE;
    }
    if (pm_rec_file_extend(rec->fd, rec->file_bytes, rec->segment_bytes) != 0) {
        pm_rec_budget_return(rec, rec->segment_bytes);
        /* Give back what a half-done allocation took. */
        struct stat st;
        if (pm_rec_file_sound(rec) && fstat(rec->fd, &st) == 0 &&
            (uint64_t)st.st_size > rec->file_bytes)
            (void)!ftruncate(rec->fd, (off_t)rec->file_bytes);
        note_trouble(rec);
        return PM_REC_SLOT_NONE;
    }
    rec->retry_ns = 0;
    rec->file_bytes += rec->segment_bytes;
    rec->lanes[stream].slots++;
    uint32_t slot = rec->n_slots++;
    rec->slots[slot] = (struct pm_rec_slot){PM_REC_SLOT_NONE, 0};
    atomic_store_explicit(&rec->head->slots, rec->n_slots, memory_order_release);
    return slot;
}

/* The oldest finished slot of victim. */
static uint32_t slot_take(struct pm_recorder *rec, enum pm_stream victim, enum pm_stream stream)
{
    uint32_t slot = chain_pop_old(rec, &rec->lanes[victim]);
    if (slot == PM_REC_SLOT_NONE)
        return slot;
    rec->lanes[victim].slots--;
    rec->lanes[stream].slots++;
    return slot;
}

/* The oldest finished slot of the stream that holds most, of those that hold more than two. */
static uint32_t slot_take_from_largest(struct pm_recorder *rec, enum pm_stream stream,
                                       enum pm_stream *ret_victim)
{
    enum pm_stream largest = stream;
    for (unsigned other = PM_STREAM_CORE; other < PM_STREAM_COUNT; other++) {
        const struct pm_rec_lane *lane = &rec->lanes[other];
        if (other != (unsigned)stream && lane->oldest != PM_REC_SLOT_NONE && lane->slots > 2 &&
            (largest == stream || lane->slots > rec->lanes[largest].slots))
            largest = (enum pm_stream)other;
    }
    if (largest == stream)
        return PM_REC_SLOT_NONE;
    *ret_victim = largest;
    return slot_take(rec, largest, stream);
}

/* Whether a stream holds less than an eighth of this process's slots, or than two: one that comes
 * late still gets its part of a ceiling that another has filled. */
static bool below_its_part(const struct pm_recorder *rec, enum pm_stream stream)
{
    uint32_t part = rec->n_slots / 8 > 2 ? rec->n_slots / 8 : 2;
    return rec->lanes[stream].slots < part;
}

static uint32_t slot_recycle(struct pm_recorder *rec, enum pm_stream stream,
                             enum pm_stream *ret_victim)
{
    *ret_victim = stream;
    if (always_allowed(rec, stream) || quota_allows(rec, stream)) {
        uint32_t slot = PM_REC_SLOT_NONE;
        if (stream == PM_STREAM_KEEP || below_its_part(rec, stream))
            slot = slot_take_from_largest(rec, stream, ret_victim);
        if (slot != PM_REC_SLOT_NONE)
            return slot;
    }
    return stream == PM_STREAM_KEEP ? PM_REC_SLOT_NONE : slot_take(rec, stream, stream);
}

/* An allocated slot that could not be mapped when it was wanted, or that waits for the steps. */
static uint32_t slot_spare(struct pm_recorder *rec, enum pm_stream stream)
{
    uint32_t slot = rec->spare;
    if ((stream == PM_STREAM_BLOCKS || stream == PM_STREAM_CUSTOM) &&
        always_allowed(rec, PM_STREAM_CORE))
        return PM_REC_SLOT_NONE;
    if (slot == PM_REC_SLOT_NONE || (!always_allowed(rec, stream) && !quota_allows(rec, stream)))
        return PM_REC_SLOT_NONE;
    rec->spare = rec->slots[slot].following;
    rec->lanes[stream].slots++;
    return slot;
}

/* ---- mapping ---- */

/* Faults every page in, so that the hot side does not. */
static bool populate(unsigned char *base, size_t bytes, bool used)
{
    if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0)
        return true;
    if (errno != EINVAL) /* EFAULT: a store there would be answered with SIGBUS */
        return false;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < bytes && !used; at += page)
        *(volatile unsigned char *)(base + at) = 0;
    return true;
}

static unsigned char *map_slot(struct pm_recorder *rec, uint32_t slot, bool used)
{
    if (!pm_rec_file_ours(rec))
        return NULL;
    off_t offset = (off_t)(rec->header_bytes + (uint64_t)slot * rec->segment_bytes);
    unsigned char *base =
        mmap(NULL, rec->segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, rec->fd, offset);
    if (base == MAP_FAILED)
        return NULL;
    (void)madvise(base, rec->segment_bytes, MADV_DONTFORK);
    if (!populate(base, rec->segment_bytes, used)) {
        munmap(base, rec->segment_bytes);
        return NULL;
    }
    if (!used)
        return base;
    /* A reader that is just copying this slot must find its copy void: the head changes before
     * anything behind it does. */
    struct pm_segment_head *head = (struct pm_segment_head *)(void *)base;
    atomic_store_explicit(&head->magic, 0, memory_order_relaxed);
    atomic_store_explicit(&head->index, UINT64_MAX, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    memset(base + PM_REC_SEGMENT_HEAD, 0, rec->segment_bytes - PM_REC_SEGMENT_HEAD);
    return base;
}

bool pm_rec_prepare(struct pm_recorder *rec, enum pm_stream stream)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    if (atomic_load_explicit(&lane->next, memory_order_relaxed) != NULL)
        return true;
    if (lane->mapped == PM_REC_RING)
        return false;
    enum pm_stream victim = stream;
    bool used = false;
    uint32_t slot = slot_spare(rec, stream);
    if (slot == PM_REC_SLOT_NONE)
        slot = slot_allocate(rec, stream);
    if (slot == PM_REC_SLOT_NONE) {
        slot = slot_recycle(rec, stream, &victim);
        used = true;
    }
    if (slot == PM_REC_SLOT_NONE)
        return false;
    unsigned char *base = map_slot(rec, slot, used);
    if (base == NULL) {
        lane->slots--;
        if (used) {
            rec->lanes[victim].slots++;
            chain_push_old(rec, &rec->lanes[victim], slot);
        } else {
            rec->slots[slot].following = rec->spare;
            rec->spare = slot;
        }
        note_trouble(rec);
        return false;
    }
    if (rec->slots[slot].facts > 0) {
        pm_rec_bump(&rec->head->recycled[victim], rec->slots[slot].facts);
        atomic_fetch_or_explicit(&rec->head->state, PM_STATE_RECYCLED, memory_order_relaxed);
        rec->slots[slot].facts = 0;
    }
    struct pm_rec_segment *segment = &lane->ring[(lane->first + lane->mapped) % PM_REC_RING];
    *segment = (struct pm_rec_segment){
        .base = base, .index = lane->next_index++, .slot = slot, .walked = PM_REC_SEGMENT_HEAD};
    lane->mapped++;
    atomic_store_explicit(&lane->next, segment, memory_order_release);
    return true;
}

void pm_rec_reserve(struct pm_recorder *rec)
{
    (void)pm_rec_prepare(rec, PM_STREAM_CORE);
    if (!always_allowed(rec, PM_STREAM_CORE) || rec->spare != PM_REC_SLOT_NONE)
        return;
    const uint32_t slot = slot_allocate(rec, PM_STREAM_CORE);
    if (slot == PM_REC_SLOT_NONE)
        return;
    rec->lanes[PM_STREAM_CORE].slots--;
    rec->spare = slot;
}

void pm_rec_collect(struct pm_recorder *rec)
{
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++) {
        struct pm_rec_lane *lane = &rec->lanes[stream];
        while (lane->mapped > 0 && lane->ring[lane->first].done) {
            struct pm_rec_segment *segment = &lane->ring[lane->first];
            rec->slots[segment->slot].facts = segment->facts;
            munmap(segment->base, rec->segment_bytes);
            segment->base = NULL;
            chain_push_young(rec, lane, segment->slot);
            lane->first = (lane->first + 1) % PM_REC_RING;
            lane->mapped--;
        }
    }
}
