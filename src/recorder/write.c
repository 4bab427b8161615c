/*
 * Writing records: reserve and commit, the switch to the next segment with its keyframe, losses.
 * Hot side: the thread that holds the GIL; for the KEEP stream whoever holds keep_lock.
 *
 * The fast path is two loads, a comparison, a few stores. Everything else (no segment, KEEP, a
 * child of fork, whose struct pm_rec_hot is zero) fails that comparison and comes to reserve_slow.
 */
#include "recorder/internal.h"

#include "base/clock.h"

#include <string.h>

struct pm_triple pm_rec_triple(void)
{
    struct pm_triple triple;
    uint32_t map = atomic_load_explicit(&pm_clock_index, memory_order_acquire) % PM_CLOCK_MAPS;
    triple.tick = pm_clock_maps[map].mult != 0 ? pm_clock_tick() : 0;
    triple.mono_ns = pm_clock_vdso_ns();
    triple.real_ns = pm_clock_real_ns();
    return triple;
}

static size_t room(const struct pm_rec_out *out)
{
    return (size_t)(out->end - out->cursor);
}

/* ---- segments ---- */

void pm_rec_seal(struct pm_recorder *rec, enum pm_stream stream)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    struct pm_rec_out *out = &rec->hot->out[stream];
    struct pm_rec_segment *segment = lane->current;
    if (segment == NULL)
        return;
    struct pm_segment_head *head = (struct pm_segment_head *)(void *)segment->base;
    uint64_t used = (uint64_t)(out->cursor - segment->base);
    lane->current = NULL;
    out->cursor = NULL;
    out->end = NULL;
    /* The segment is the helper's from here on. */
    atomic_store_explicit(&head->sealed_bytes, used, memory_order_release);
}

/* A schema's text, in every segment whose records it describes; in KEEP those of all streams, since
 * roll-ups sum over all of them. */
static void write_schemas(struct pm_recorder *rec, enum pm_stream stream)
{
    for (uint32_t i = 0; i < rec->n_sorts; i++) {
        const struct pm_rec_table *table = &rec->tables[i];
        if (stream != PM_STREAM_KEEP && table->schema->stream != stream)
            continue;
        size_t bytes = 8 + (size_t)table->text_bytes;
        unsigned char *payload = pm_rec_begin(rec, stream, bytes);
        if (payload == NULL)
            return;
        uint32_t words[2] = {PM_SCHEMA_FIRST + i, table->text_bytes};
        memcpy(payload, words, sizeof words);
        memcpy(payload + sizeof words, table->text, table->text_bytes);
        pm_rec_end(rec, stream, PM_SCHEMA_SCHEMA, bytes);
    }
}

static bool write_string(struct pm_recorder *rec, enum pm_stream stream,
                         const struct pm_rec_string *string)
{
    size_t bytes = 8 + (size_t)string->bytes;
    unsigned char *payload = pm_rec_begin(rec, stream, bytes);
    if (payload == NULL)
        return false;
    uint32_t words[2] = {string->id, string->bytes};
    memcpy(payload, words, sizeof words);
    memcpy(payload + sizeof words, string->text, string->bytes);
    pm_rec_end(rec, stream, PM_SCHEMA_STRING, bytes);
    return true;
}

static void write_lost(struct pm_recorder *rec, enum pm_stream stream)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    uint64_t lost[2] = {pm_clock_vdso_ns(), lane->unreported};
    unsigned char *payload = pm_rec_begin(rec, stream, sizeof lost);
    if (payload == NULL)
        return;
    memcpy(payload, lost, sizeof lost);
    pm_rec_end(rec, stream, PM_SCHEMA_LOST, sizeof lost);
    lane->unreported = 0;
}

/* Everything that a segment must know to stand alone; at most half of it, what does not fit is
 * counted as lost. */
static void write_keyframe(struct pm_recorder *rec, enum pm_stream stream, unsigned char *base)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    struct pm_rec_out *out = &rec->hot->out[stream];
    lane->in_keyframe = true;
    out->end = base + rec->segment_bytes / 2;
    write_schemas(rec, stream);
    for (uint32_t i = 0; i < lane->strings.n; i++) {
        if (!write_string(rec, stream, &lane->strings.held[i])) {
            uint64_t more = lane->strings.n - i - 1;
            pm_rec_bump(&rec->head->lost[stream], more);
            lane->unreported += more;
            break;
        }
    }
    if (rec->keyframe != NULL && stream != PM_STREAM_KEEP)
        rec->keyframe(rec, stream, rec->keyframe_arg);
    out->end = base + rec->segment_bytes;
    uint64_t now_ns = pm_clock_vdso_ns();
    unsigned char *payload = pm_rec_begin(rec, stream, sizeof now_ns);
    if (payload != NULL) {
        memcpy(payload, &now_ns, sizeof now_ns);
        pm_rec_end(rec, stream, PM_SCHEMA_KEYFRAME, sizeof now_ns);
    }
    if (lane->unreported != 0)
        write_lost(rec, stream);
    lane->in_keyframe = false;
}

/* Begins a segment that the helper prepared: its content is zero and its magic 0. */
static void begin_segment(struct pm_recorder *rec, enum pm_stream stream,
                          struct pm_rec_segment *segment)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    struct pm_rec_out *out = &rec->hot->out[stream];
    unsigned char *base = segment->base;
    struct pm_segment_head *head = (struct pm_segment_head *)(void *)base;
    head->stream = (uint32_t)stream;
    head->flags = 0;
    head->first_ordinal = out->ordinal;
    head->first_fact = out->ordinal - out->others;
    head->clock = pm_rec_triple();
    atomic_store_explicit(&head->sealed_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&head->index, segment->index, memory_order_release);
    atomic_store_explicit(&head->magic, PM_SEGMENT_MAGIC, memory_order_release);
    lane->current = segment;
    lane->begged = false;
    out->cursor = base + PM_REC_SEGMENT_HEAD;
    write_keyframe(rec, stream, base);
}

/* Leaves the current segment for the next one, if there is one. */
static bool switch_segment(struct pm_recorder *rec, enum pm_stream stream)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    pm_rec_seal(rec, stream);
    if (stream != PM_STREAM_KEEP && !rec->thread_tried)
        pm_rec_thread_start(rec);
    struct pm_rec_segment *next = atomic_load_explicit(&lane->next, memory_order_acquire);
    /* A stream's first segment is made here and now, and every one where no thread makes them. */
    if (next == NULL && stream != PM_STREAM_KEEP && (!rec->threaded || !lane->begun)) {
        lane->begun = true;
        pm_rec_make_now(rec, stream);
        next = atomic_load_explicit(&lane->next, memory_order_acquire);
    }
    if (next == NULL) {
        if (!lane->begged)
            pm_rec_wake(rec);
        lane->begged = true;
        return false;
    }
    lane->begun = true;
    atomic_store_explicit(&lane->next, NULL, memory_order_release);
    begin_segment(rec, stream, next);
    /* To wake a thread costs more than all the rest of a switch, up to 200 us on a virtual machine
     * whose other processor sleeps. Where a segment lasts for some rounds the helper comes in time
     * by itself. */
    uint64_t now_ns = pm_clock_vdso_ns();
    if (now_ns - lane->switched_ns < 4 * PM_REC_ROUND_NS)
        pm_rec_wake(rec);
    lane->switched_ns = now_ns;
    return true;
}

unsigned char *pm_rec_room(struct pm_recorder *rec, enum pm_stream stream, size_t bytes)
{
    struct pm_rec_lane *lane = &rec->lanes[stream];
    struct pm_rec_out *out = &rec->hot->out[stream];
    if (room(out) >= bytes)
        return out->cursor;
    /* A keyframe takes at most half of the new segment, so what is larger than the rest cannot be
     * helped by a switch. */
    if (!lane->in_keyframe && bytes <= rec->segment_bytes / 2 - 512 &&
        switch_segment(rec, stream) && room(out) >= bytes)
        return out->cursor;
    pm_rec_bump(&rec->head->lost[stream], 1);
    lane->unreported++;
    return NULL;
}

void *pm_rec_begin(struct pm_recorder *rec, enum pm_stream stream, size_t payload_bytes)
{
    unsigned char *at = pm_rec_room(rec, stream, 8 + pm_rec_round8(payload_bytes));
    return at == NULL ? NULL : at + 8;
}

void pm_rec_end(struct pm_recorder *rec, enum pm_stream stream, uint32_t schema,
                size_t payload_bytes)
{
    struct pm_rec_out *out = &rec->hot->out[stream];
    size_t bytes = 8 + pm_rec_round8(payload_bytes);
    pm_record_head *head = (pm_record_head *)(void *)out->cursor;
    atomic_store_explicit(head, pm_record_head_make(schema, (uint32_t)(bytes / 8), out->ordinal),
                          memory_order_release);
    out->cursor += bytes;
    out->ordinal++;
    out->others++;
}

/* ---- the KEEP stream ---- */

static bool keep_has_room(struct pm_recorder *rec, size_t bytes)
{
    return room(&rec->hot->out[PM_STREAM_KEEP]) >= bytes ||
           atomic_load_explicit(&rec->lanes[PM_STREAM_KEEP].next, memory_order_relaxed) != NULL;
}

void pm_rec_keep_enter(struct pm_recorder *rec, size_t bytes, enum pm_rec_patience patience)
{
    pthread_mutex_lock(&rec->keep_lock);
    if (keep_has_room(rec, bytes) || (patience == PM_REC_HURRY && rec->threaded))
        return;
    pthread_mutex_unlock(&rec->keep_lock);
    if (patience == PM_REC_HELPER)
        (void)pm_rec_prepare(rec, PM_STREAM_KEEP);
    else
        pm_rec_make_now(rec, PM_STREAM_KEEP);
    pthread_mutex_lock(&rec->keep_lock);
}

void pm_rec_keep_leave(struct pm_recorder *rec)
{
    pthread_mutex_unlock(&rec->keep_lock);
}

/* ---- verbs ---- */

static __attribute__((noinline, cold)) void *reserve_slow(struct pm_recorder *rec,
                                                          const struct pm_rec_sort *sort)
{
    if (pm_rec_mute(rec))
        return NULL;
    rec->hot->pending = NULL;
    enum pm_stream stream = (enum pm_stream)sort->stream;
    if (stream == PM_STREAM_KEEP)
        pm_rec_keep_enter(rec, sort->bytes, PM_REC_HURRY); /* left in pm_recorder_commit */
    unsigned char *at = pm_rec_room(rec, stream, sort->bytes);
    if (at == NULL) {
        if (stream == PM_STREAM_KEEP)
            pm_rec_keep_leave(rec);
        return NULL;
    }
    rec->hot->pending = sort;
    return at + 8;
}

static inline struct pm_rec_out *out_at(struct pm_rec_hot *hot, uint32_t offset)
{
    return (struct pm_rec_out *)(void *)((unsigned char *)hot + offset);
}

/* These two are what a record costs: no multiplication, no second look at what a register holds. */
void *pm_recorder_reserve(struct pm_recorder *rec, unsigned schema)
{
    if (PM_REC_UNLIKELY(schema >= rec->n_sorts))
        return NULL;
    const struct pm_rec_sort *sort = &rec->sorts[schema];
    struct pm_rec_hot *hot = rec->hot;
    const struct pm_rec_out *out = out_at(hot, sort->out);
    if (PM_REC_UNLIKELY(room(out) < sort->need))
        return reserve_slow(rec, sort);
    hot->pending = sort;
    return out->cursor + 8;
}

void pm_recorder_commit(struct pm_recorder *rec, void *payload)
{
    struct pm_rec_hot *hot = rec->hot;
    const struct pm_rec_sort *sort = hot->pending;
    if (PM_REC_UNLIKELY(sort == NULL)) /* nothing was reserved, or a fork came between */
        return;
    uint32_t offset = sort->out;
    struct pm_rec_out *out = out_at(hot, offset);
    unsigned char *at = (unsigned char *)payload - 8;
    uint64_t ordinal = out->ordinal;
    hot->pending = NULL;
    atomic_store_explicit((pm_record_head *)(void *)at, sort->head | ordinal << 32,
                          memory_order_release);
    __builtin_prefetch(at + 384, 1); /* the lines of the next few: new memory is not in the cache */
    out->cursor = at + sort->bytes;
    out->ordinal = ordinal + 1;
    if (PM_REC_UNLIKELY(offset == offsetof(struct pm_rec_hot, out[PM_STREAM_KEEP])))
        pm_rec_keep_leave(rec);
}

uint32_t pm_recorder_string(struct pm_recorder *rec, enum pm_stream stream, const char *text,
                            size_t bytes)
{
    if (pm_rec_mute(rec) || (unsigned)stream >= PM_STREAM_COUNT || text == NULL || bytes == 0)
        return 0;
    bytes = pm_rec_cut(text, bytes, PM_REC_STRING_MAX);
    struct pm_rec_lane *lane = &rec->lanes[stream];
    size_t record = 16 + pm_rec_round8(bytes);
    if (stream == PM_STREAM_KEEP)
        pm_rec_keep_enter(rec, record, PM_REC_HURRY);
    uint64_t hash = pm_rec_strings_hash(&lane->strings, text, bytes);
    struct pm_rec_string *string = pm_rec_strings_find(&lane->strings, text, bytes, hash);
    uint32_t id = 0;
    if (string != NULL) {
        id = string->id;
    } else if (pm_rec_room(rec, stream, record) != NULL) {
        /* Held only now: the keyframe of a segment begun for it would have written it twice. */
        string = pm_rec_strings_hold(&lane->strings, text, bytes, hash);
        if (string != NULL) {
            id = string->id;
            (void)write_string(rec, stream, string);
        } else {
            pm_rec_bump(&rec->head->lost[stream], 1);
        }
    }
    if (stream == PM_STREAM_KEEP)
        pm_rec_keep_leave(rec);
    return id;
}

void pm_recorder_string_drop(struct pm_recorder *rec, enum pm_stream stream, uint32_t id)
{
    if (pm_rec_mute(rec) || (unsigned)stream >= PM_STREAM_COUNT)
        return;
    if (stream == PM_STREAM_KEEP)
        pthread_mutex_lock(&rec->keep_lock);
    pm_rec_strings_drop(&rec->lanes[stream].strings, id);
    if (stream == PM_STREAM_KEEP)
        pthread_mutex_unlock(&rec->keep_lock);
}
