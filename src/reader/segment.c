/*
 * Segments of a record file: finding them, copying one while its writer may go on, walking its
 * records. Called by process.c, cursor.c and totals.c; owns nothing but what it returns.
 */
#include "reader/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");

#define HEAD_BYTES ((uint32_t)sizeof(struct pm_segment_head))

ssize_t pm_read_at(int fd, void *out, size_t bytes, uint64_t offset)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(fd, (uint8_t *)out + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static uint64_t slot_offset(const struct pm_process *process, uint32_t slot)
{
    return process->header_bytes + (uint64_t)slot * process->segment_bytes;
}

/* A head as plain numbers. */
struct head {
    uint64_t magic, index, first_ordinal, first_fact, sealed_bytes, begun_ns;
    uint32_t stream;
};

static struct head parse_head(const uint8_t *bytes)
{
    return (struct head){
        .magic = pm_load64(bytes + offsetof(struct pm_segment_head, magic)),
        .index = pm_load64(bytes + offsetof(struct pm_segment_head, index)),
        .first_ordinal = pm_load64(bytes + offsetof(struct pm_segment_head, first_ordinal)),
        .first_fact = pm_load64(bytes + offsetof(struct pm_segment_head, first_fact)),
        .sealed_bytes = pm_load64(bytes + offsetof(struct pm_segment_head, sealed_bytes)),
        .begun_ns = pm_load64(bytes + offsetof(struct pm_segment_head, clock.mono_ns)),
        .stream = pm_load32(bytes + offsetof(struct pm_segment_head, stream)),
    };
}

/* What is wrong with a head, or NULL. */
static const char *head_fault(const struct head *head, uint32_t segment_bytes)
{
    if (head->magic != PM_SEGMENT_MAGIC)
        return "expected a segment, found other bytes";
    if (head->stream >= PM_STREAM_COUNT)
        return "the segment names a stream that does not exist";
    if (head->sealed_bytes != 0 &&
        (head->sealed_bytes < HEAD_BYTES || head->sealed_bytes > segment_bytes))
        return "the segment claims a size that its slot cannot have";
    if (head->first_fact > head->first_ordinal)
        return "the segment counts more facts than records";
    return NULL;
}

static void note_slot(const struct pm_process *process, uint64_t offset, const char *what)
{
    if (pm_session_add_note(process->session, "records/%s: at byte %llu: %s", process->file,
                            (unsigned long long)offset, what))
        process->self->info.damaged_segments++;
}

void pm_segment_note(const struct pm_process *process, const struct pm_segment_copy *copy,
                     uint32_t pos, const char *what)
{
    note_slot(process, slot_offset(process, copy->ref.slot) + pos, what);
}

static int list_add(struct pm_segment_list *list, const struct pm_segment_ref *ref)
{
    if (list->count == list->capacity) {
        size_t want = list->capacity != 0 ? list->capacity * 2 : 32;
        struct pm_segment_ref *more = realloc(list->refs, want * sizeof(*more));
        if (more == NULL)
            return -PM_ENOMEM;
        list->refs = more;
        list->capacity = want;
    }
    list->refs[list->count++] = *ref;
    return 0;
}

static int by_index(const void *left, const void *right)
{
    const struct pm_segment_ref *a = left, *b = right;
    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

/* In order of index; of two slots with one index, which cannot both be true, the first stays. */
static void list_order(const struct pm_process *process, struct pm_segment_list *list)
{
    size_t kept = 0;

    if (list->count > 1)
        qsort(list->refs, list->count, sizeof(*list->refs), by_index);
    for (size_t i = 0; i < list->count; i++) {
        if (kept > 0 && list->refs[kept - 1].index == list->refs[i].index) {
            note_slot(process, slot_offset(process, list->refs[i].slot),
                      "a second segment with the same number: not read");
            continue;
        }
        list->refs[kept++] = list->refs[i];
    }
    list->count = kept;
}

int pm_segments_list(const struct pm_process *process, unsigned mask,
                     struct pm_segment_list lists[PM_STREAM_COUNT])
{
    /* The size now, not the one at opening: a live writer adds slots. */
    off_t end = lseek(process->fd, 0, SEEK_END);
    uint64_t file_bytes = end > 0 ? (uint64_t)end : 0;
    int rc = 0;

    memset(lists, 0, PM_STREAM_COUNT * sizeof(*lists));
    for (uint32_t slot = 0; slot_offset(process, slot) < file_bytes; slot++) {
        const uint64_t offset = slot_offset(process, slot);
        uint8_t bytes[sizeof(struct pm_segment_head)] = {0};

        if (slot == PM_READER_MAX_SLOTS) {
            note_slot(process, offset, "more segments than a session can have: not read");
            break;
        }
        ssize_t got = pm_read_at(process->fd, bytes, sizeof(bytes), offset);
        if (got < 0) {
            note_slot(process, offset, "the segment cannot be read from the disk");
            continue;
        }
        struct head head = parse_head(bytes);
        if (head.magic == 0)
            continue; /* made ahead, not used yet */
        if ((size_t)got < sizeof(bytes)) {
            note_slot(process, offset, "the file is cut off inside the head of a segment");
            break;
        }
        const char *fault = head_fault(&head, process->segment_bytes);
        if (fault != NULL) {
            note_slot(process, offset, fault);
            continue;
        }
        if ((mask >> head.stream & 1) == 0)
            continue;
        struct pm_segment_ref ref = {
            .index = head.index,
            .first_ordinal = head.first_ordinal,
            .first_fact = head.first_fact,
            .begun_ns = head.begun_ns,
            .slot = slot,
            .sealed = head.sealed_bytes != 0,
        };
        rc = list_add(&lists[head.stream], &ref);
        if (rc != 0) {
            pm_segments_free(lists);
            return rc;
        }
    }
    for (unsigned s = 0; s < PM_STREAM_COUNT; s++)
        list_order(process, &lists[s]);
    return 0;
}

int pm_process_segments(const struct pm_process *process, enum pm_stream stream,
                        struct pm_segment_info **ret_segments, size_t *ret_count)
{
    struct pm_segment_list lists[PM_STREAM_COUNT];
    struct pm_segment_info *segments = NULL;
    int rc = pm_segments_list(process, 1u << stream, lists);

    if (rc != 0)
        return rc;
    const struct pm_segment_list *list = &lists[stream];
    if (list->count > 0)
        segments = calloc(list->count, sizeof(*segments));
    for (size_t i = 0; segments != NULL && i < list->count; i++)
        segments[i] = (struct pm_segment_info){
            .first_fact = list->refs[i].first_fact,
            .begun_ns = list->refs[i].begun_ns,
            .sealed = list->refs[i].sealed,
        };
    if (list->count == 0 || segments != NULL) {
        *ret_segments = segments;
        *ret_count = list->count;
    } else {
        rc = -PM_ENOMEM;
    }
    pm_segments_free(lists);
    return rc;
}

void pm_segments_free(struct pm_segment_list lists[PM_STREAM_COUNT])
{
    for (unsigned s = 0; s < PM_STREAM_COUNT; s++) {
        free(lists[s].refs);
        lists[s] = (struct pm_segment_list){0};
    }
}

/* Where the records that are committed now end. */
static uint32_t committed_end(const uint8_t *bytes, uint32_t len)
{
    uint32_t pos = HEAD_BYTES;
    while (pos + 8 <= len) {
        uint64_t head = pm_load64(bytes + pos);
        uint32_t size = pm_record_words(head) * 8;
        if (head == 0 || size == 0 || size > len - pos)
            break;
        pos += size;
    }
    /* One more head, so that the walk sees the zero, or the damage, that ended this one. */
    return pos + 8 <= len ? pos + 8 : len;
}

static bool same_segment(const struct head *head, const struct pm_segment_ref *ref,
                         enum pm_stream stream)
{
    return head->magic == PM_SEGMENT_MAGIC && head->index == ref->index &&
           head->stream == (uint32_t)stream && head->first_ordinal == ref->first_ordinal;
}

static bool sealed_soundly(const struct head *head, uint32_t segment_bytes)
{
    return head->sealed_bytes >= HEAD_BYTES && head->sealed_bytes <= segment_bytes;
}

/* The writer is in this segment. It stores a payload before its head, but a copy in progress may
 * take them in another order: what the heads of the first copy name is copied again, and is whole
 * then. */
static int read_live(const struct pm_process *process, uint64_t offset,
                     struct pm_segment_copy *copy)
{
    uint64_t last = 0;

    copy->len = committed_end(copy->bytes, copy->len);
    if (copy->len < HEAD_BYTES + 8)
        return 0;
    memcpy(&last, copy->bytes + copy->len - 8, sizeof(last));
    atomic_thread_fence(memory_order_acquire);
    ssize_t got = pm_read_at(process->fd, copy->bytes, copy->len, offset);
    if (got < (ssize_t)copy->len)
        return got < 0 ? -PM_EIO : 1;
    /* A record committed between the two copies is for the next look. */
    memcpy(copy->bytes + copy->len - 8, &last, sizeof(last));
    return 0;
}

int pm_segment_read(const struct pm_process *process, enum pm_stream stream,
                    const struct pm_segment_ref *ref, struct pm_segment_copy *copy)
{
    const uint64_t offset = slot_offset(process, ref->slot);
    uint8_t bytes[sizeof(struct pm_segment_head)];
    struct head head;
    bool sealed;

    if (copy->capacity < process->segment_bytes) {
        uint8_t *more = realloc(copy->bytes, process->segment_bytes);
        if (more == NULL)
            return -PM_ENOMEM;
        copy->bytes = more;
        copy->capacity = process->segment_bytes;
    }
    for (int attempt = 0;; attempt++) {
        ssize_t got = pm_read_at(process->fd, bytes, sizeof(bytes), offset);
        if (got < (ssize_t)sizeof(bytes))
            return got < 0 ? -PM_EIO : 1;
        head = parse_head(bytes);
        if (!same_segment(&head, ref, stream))
            return 1;
        sealed = sealed_soundly(&head, process->segment_bytes);
        const uint32_t want = sealed ? (uint32_t)head.sealed_bytes : process->segment_bytes;
        got = pm_read_at(process->fd, copy->bytes, want, offset);
        if (got < (ssize_t)HEAD_BYTES)
            return got < 0 ? -PM_EIO : 1;
        copy->len = (uint32_t)got;
        copy->cut = copy->len < want;
        head = parse_head(copy->bytes);
        /* Sealed while it was being copied: once more, whole. */
        if (sealed || !sealed_soundly(&head, process->segment_bytes) || attempt == 2)
            break;
    }
    copy->ref = *ref;
    copy->ref.sealed = sealed;
    copy->claimed = sealed ? (uint32_t)head.sealed_bytes : 0;
    if (!sealed && !copy->cut) {
        int rc = read_live(process, offset, copy);
        if (rc != 0)
            return rc;
    }
    ssize_t got = pm_read_at(process->fd, bytes, sizeof(bytes), offset);
    if (got < (ssize_t)sizeof(bytes))
        return got < 0 ? -PM_EIO : 1;
    head = parse_head(bytes);
    return same_segment(&head, ref, stream) ? 0 : 1;
}

void pm_segment_copy_free(struct pm_segment_copy *copy)
{
    free(copy->bytes);
    *copy = (struct pm_segment_copy){0};
}

void pm_walk_begin(struct pm_walk *walk, const struct pm_segment_copy *copy)
{
    *walk = (struct pm_walk){.copy = copy, .pos = HEAD_BYTES, .fact = copy->ref.first_fact};
}

int pm_walk_next(struct pm_walk *walk, struct pm_raw *ret_raw, const char **ret_what)
{
    const struct pm_segment_copy *copy = walk->copy;
    const uint32_t left = copy->len - walk->pos;

    if (left < 8) {
        *ret_what = "the file is cut off inside a segment";
        return copy->cut ? -PM_ETRUNCATED : 0;
    }
    const uint64_t head = pm_load64(copy->bytes + walk->pos);
    if (head == 0) {
        if (walk->pos < copy->claimed) {
            *ret_what = "expected a record, found zeros";
            return -PM_ECORRUPT;
        }
        return 0;
    }
    const uint32_t size = pm_record_words(head) * 8;
    if (size == 0 || size > left) {
        *ret_what = copy->cut && size > left ? "the file is cut off inside a record"
                                             : "a record does not fit into its segment";
        return copy->cut && size > left ? -PM_ETRUNCATED : -PM_ECORRUPT;
    }
    if (pm_record_schema(head) == 0 ||
        pm_record_check(head) != (uint32_t)(copy->ref.first_ordinal + walk->position)) {
        *ret_what = "expected the next record, found other bytes";
        return -PM_ECORRUPT;
    }
    ret_raw->schema = pm_record_schema(head);
    ret_raw->bytes = size - 8;
    ret_raw->payload = copy->bytes + walk->pos + 8;
    ret_raw->fact = walk->fact;
    if (ret_raw->schema >= PM_SCHEMA_FIRST)
        walk->fact++;
    walk->position++;
    walk->pos += size;
    return 1;
}
