/*
 * Walks one stream of one process, oldest record first, segment by segment. Called by the views and
 * by steps.c on one thread; owns a copy of one segment and the strings that it defines.
 *
 * The end is what was committed when the cursor came there. A further call looks again: at the
 * segment that the writer was in, then for newer ones.
 */
#include "reader/internal.h"
#include "reader/span.h"

#include <stdlib.h>
#include <string.h>

#define STRING_KEEP_BYTES 4096u /* of one text; the recorder keeps 256 */

/* Where the text of an id lies in the arena; the slot counts only in its own generation, so that a
 * new segment forgets all in one step. */
struct string_slot {
    uint32_t id, generation, offset;
};

struct strings {
    struct string_slot *slots;
    size_t size, count;
    uint32_t generation;
    char *arena;
    size_t used, capacity;
};

struct pm_cursor {
    const struct pm_process *process;
    enum pm_stream stream;
    struct pm_segment_list lists[PM_STREAM_COUNT]; /* only [stream] is filled */
    size_t next;                                   /* the segment to read after this one */
    bool inside;                                   /* the walk is in a segment */
    bool ended;                                    /* the last call said so */
    bool keyframe;                                 /* still in the keyframe of the segment */
    struct pm_segment_copy copy;
    struct pm_walk walk;
    struct strings strings;
    uint8_t *filled; /* a payload that was shorter than its schema */
    size_t filled_bytes;
    const struct pm_span_view *view; /* what it is narrowed to; NULL: nothing */
    struct pm_span_rule *rules;      /* with view: one per schema of the process */
    uint64_t from_ns;                /* segments that end before it are not read; 0: all are */
};

/* ---- strings ---- */

static struct string_slot *string_place(const struct strings *strings, uint32_t id)
{
    size_t mask = strings->size - 1;
    size_t place = (id * 0x9e3779b1u) & mask;
    while (strings->slots[place].generation == strings->generation &&
           strings->slots[place].id != id)
        place = (place + 1) & mask;
    return &strings->slots[place];
}

static int strings_grow(struct strings *strings)
{
    struct strings more = *strings;
    more.size = strings->size != 0 ? strings->size * 2 : 256;
    more.slots = calloc(more.size, sizeof(*more.slots));
    if (more.slots == NULL)
        return -PM_ENOMEM;
    for (size_t i = 0; i < strings->size; i++)
        if (strings->slots[i].generation == strings->generation)
            *string_place(&more, strings->slots[i].id) = strings->slots[i];
    free(strings->slots);
    *strings = more;
    return 0;
}

static int strings_define(struct strings *strings, uint32_t id, const uint8_t *text,
                          uint32_t text_bytes)
{
    uint32_t bytes = text_bytes < STRING_KEEP_BYTES ? text_bytes : STRING_KEEP_BYTES;

    if (strings->count * 2 >= strings->size) {
        int rc = strings_grow(strings);
        if (rc != 0)
            return rc;
    }
    /* One segment defines at most its own size, so this stays within a few MiB. */
    if (strings->capacity - strings->used < bytes + 1u) {
        size_t want = strings->capacity * 2 + bytes + 4096;
        char *more = realloc(strings->arena, want);
        if (more == NULL)
            return -PM_ENOMEM;
        strings->arena = more;
        strings->capacity = want;
    }
    struct string_slot *slot = string_place(strings, id);
    if (slot->generation != strings->generation)
        strings->count++;
    *slot = (struct string_slot){
        .id = id, .generation = strings->generation, .offset = (uint32_t)strings->used};
    char *out = strings->arena + strings->used;
    for (uint32_t i = 0; i < bytes; i++)
        out[i] = text[i] == 0 ? ' ' : (char)text[i];
    out[bytes] = '\0';
    strings->used += bytes + 1u;
    return 0;
}

static void strings_forget(struct strings *strings)
{
    strings->generation++;
    strings->count = 0;
    strings->used = 0;
}

const char *pm_cursor_string(struct pm_cursor *cursor, uint32_t id)
{
    struct strings *strings = &cursor->strings;
    if (id == 0 || strings->size == 0)
        return "";
    const struct string_slot *slot = string_place(strings, id);
    return slot->generation == strings->generation ? strings->arena + slot->offset : "";
}

/* ---- the walk ---- */

static int narrow(struct pm_cursor *cursor)
{
    const struct pm_process *process = cursor->process;

    cursor->rules = calloc(process->n_schemas + 1, sizeof(*cursor->rules));
    if (cursor->rules == NULL)
        return -PM_ENOMEM;
    for (size_t i = 0; i < process->n_schemas; i++)
        if (process->schemas[i] != NULL)
            pm_span_rule_make(&cursor->rules[i], process->schemas[i]);
    cursor->view = process->session->view;
    return 0;
}

int pm_cursor_open(struct pm_cursor **ret_cursor, const struct pm_process *process,
                   enum pm_stream stream)
{
    struct pm_cursor *cursor;
    int rc = pm_cursor_open_all(&cursor, process, stream);

    if (rc == 0 && process->session->view != NULL) {
        rc = narrow(cursor);
        if (rc != 0)
            pm_cursor_close(cursor);
    }
    if (rc == 0)
        *ret_cursor = cursor;
    return rc;
}

int pm_cursor_open_all(struct pm_cursor **ret_cursor, const struct pm_process *process,
                       enum pm_stream stream)
{
    struct pm_cursor *cursor = calloc(1, sizeof(*cursor));
    if (cursor == NULL)
        return -PM_ENOMEM;
    cursor->process = process;
    cursor->stream = stream;
    cursor->strings.generation = 1;
    if (process->session->view != NULL)
        cursor->from_ns = pm_span_skip_ns(process->session->view);
    int rc = pm_segments_list(process, 1u << stream, cursor->lists);
    if (rc != 0) {
        free(cursor);
        return rc;
    }
    *ret_cursor = cursor;
    return 0;
}

void pm_cursor_skip(struct pm_cursor *cursor, uint64_t from_ns, uint64_t fact)
{
    const struct pm_segment_list *list = &cursor->lists[cursor->stream];
    while (cursor->next + 1 < list->count) {
        const struct pm_segment_ref *after = &list->refs[cursor->next + 1];
        if (after->begun_ns > from_ns || after->first_fact > fact)
            break;
        cursor->next++;
    }
}

void pm_cursor_back(struct pm_cursor *cursor, size_t segments)
{
    cursor->next -= segments < cursor->next ? segments : cursor->next;
}

void pm_cursor_close(struct pm_cursor *cursor)
{
    if (cursor == NULL)
        return;
    pm_segments_free(cursor->lists);
    pm_segment_copy_free(&cursor->copy);
    free(cursor->strings.slots);
    free(cursor->strings.arena);
    free(cursor->filled);
    free(cursor->rules);
    free(cursor);
}

/* Goes into the next segment of the list that can be read. 1: in one; 0: none left. */
static int enter_segment(struct pm_cursor *cursor)
{
    struct pm_segment_list *list = &cursor->lists[cursor->stream];

    while (cursor->next < list->count) {
        const struct pm_segment_ref *ref = &list->refs[cursor->next++];
        if (cursor->next < list->count && list->refs[cursor->next].begun_ns < cursor->from_ns &&
            list->refs[cursor->next].begun_ns != 0)
            continue;
        int rc = pm_segment_read(cursor->process, cursor->stream, ref, &cursor->copy);
        if (rc == -PM_EIO) {
            cursor->copy.ref = *ref;
            pm_segment_note(cursor->process, &cursor->copy, 0,
                            "the segment cannot be read from the disk");
            continue;
        }
        if (rc < 0)
            return rc;
        if (rc == 1)
            continue; /* taken again by the writer: recycled, as its header counts */
        pm_walk_begin(&cursor->walk, &cursor->copy);
        strings_forget(&cursor->strings);
        cursor->inside = true;
        cursor->keyframe = true;
        return 1;
    }
    return 0;
}

/* After an end: what has come since. 1: worth another try; 0: nothing. */
static int look_again(struct pm_cursor *cursor)
{
    const struct pm_segment_ref last = cursor->copy.ref;
    const bool was_inside = cursor->inside;
    struct pm_segment_list *list = &cursor->lists[cursor->stream];
    int rc;

    if (was_inside) {
        rc = pm_segment_read(cursor->process, cursor->stream, &last, &cursor->copy);
        if (rc < 0)
            return rc == -PM_EIO ? 0 : rc;
        if (rc == 0 && (cursor->copy.len > cursor->walk.pos || !cursor->copy.ref.sealed))
            return 1;
        cursor->inside = false;
    }
    const bool any = list->count > 0;
    const uint64_t newest = any ? list->refs[list->count - 1].index : 0;
    pm_segments_free(cursor->lists);
    cursor->next = 0;
    rc = pm_segments_list(cursor->process, 1u << cursor->stream, cursor->lists);
    if (rc != 0)
        return rc;
    while (any && cursor->next < list->count && list->refs[cursor->next].index <= newest)
        cursor->next++;
    return cursor->next < list->count;
}

/* A payload as long as its schema says. */
static int fill_payload(struct pm_cursor *cursor, const struct pm_raw *raw,
                        const struct pm_schema *desc, struct pm_record *ret_record)
{
    ret_record->payload = raw->payload;
    if (raw->bytes >= desc->payload_bytes)
        return 0;
    if (cursor->filled_bytes < desc->payload_bytes) {
        uint8_t *more = realloc(cursor->filled, desc->payload_bytes);
        if (more == NULL)
            return -PM_ENOMEM;
        cursor->filled = more;
        cursor->filled_bytes = desc->payload_bytes;
    }
    memcpy(cursor->filled, raw->payload, raw->bytes);
    memset(cursor->filled + raw->bytes, 0, desc->payload_bytes - raw->bytes);
    ret_record->payload = cursor->filled;
    return 0;
}

/* A record of the format itself. */
static int take_builtin(struct pm_cursor *cursor, const struct pm_raw *raw)
{
    if (raw->schema == PM_SCHEMA_KEYFRAME)
        cursor->keyframe = false;
    if (raw->schema != PM_SCHEMA_STRING)
        return 0;
    uint32_t bytes = raw->bytes >= 8 ? pm_load32(raw->payload + 4) : UINT32_MAX;
    if (raw->bytes < 8 || bytes > raw->bytes - 8) {
        pm_segment_note(cursor->process, &cursor->copy, cursor->walk.pos - raw->bytes - 8,
                        "a string that does not fit into its record");
        return 0;
    }
    return strings_define(&cursor->strings, pm_load32(raw->payload), raw->payload + 8, bytes);
}

int pm_cursor_next(struct pm_cursor *cursor, struct pm_record *ret_record)
{
    struct pm_raw raw;
    const char *why = "";
    int rc;

    if (cursor->ended) {
        rc = look_again(cursor);
        if (rc <= 0)
            return rc;
        cursor->ended = false;
    }
    for (;;) {
        if (!cursor->inside) {
            rc = enter_segment(cursor);
            if (rc < 0)
                return rc;
            if (rc == 0) {
                cursor->ended = true;
                return 0;
            }
        }
        rc = pm_walk_next(&cursor->walk, &raw, &why);
        if (__builtin_expect(rc == 1 && raw.schema >= PM_SCHEMA_FIRST, 1)) {
            const uint32_t number = raw.schema - PM_SCHEMA_FIRST;
            const struct pm_schema *desc =
                number < cursor->process->n_schemas ? cursor->process->schemas[number] : NULL;
            if (desc == NULL) {
                pm_session_add_note(cursor->process->session,
                                    "records/%s: records of kind %u, which the file does not "
                                    "describe, are left out",
                                    cursor->process->file, raw.schema);
                continue;
            }
            ret_record->schema = number;
            ret_record->desc = desc;
            ret_record->fact = raw.fact;
            ret_record->keyframe = cursor->keyframe;
            rc = fill_payload(cursor, &raw, desc, ret_record);
            if (rc == 0 && cursor->view != NULL &&
                !pm_span_has(cursor->view, cursor->process, &cursor->rules[number],
                             ret_record->payload)) {
                if (!pm_span_is_over(cursor->view, &cursor->rules[number], ret_record->payload))
                    continue;
                cursor->ended = true;
                return 0;
            }
            return rc != 0 ? rc : 1;
        }
        if (rc == 1) {
            rc = take_builtin(cursor, &raw);
            if (rc != 0)
                return rc;
            continue;
        }
        if (rc < 0) {
            pm_segment_note(cursor->process, &cursor->copy, cursor->walk.pos, why);
            cursor->inside = false;
            continue;
        }
        if (!cursor->copy.ref.sealed && cursor->next >= cursor->lists[cursor->stream].count) {
            cursor->ended = true; /* the writer's own segment: stay in it */
            return 0;
        }
        cursor->inside = false;
    }
}
