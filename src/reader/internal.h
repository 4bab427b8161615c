/*
 * What the reader's own files share: the session, its processes, and the segments of a record file.
 * Not for other rooms.
 *
 * Everything that comes from a file is a claim until checked here. Segments are read with pread
 * into memory of our own, never mapped: a file that somebody cuts short under us gives a short
 * read, not SIGBUS.
 */
#ifndef PM_READER_INTERNAL_H
#define PM_READER_INTERNAL_H

#include <stdatomic.h>
#include <sys/types.h>

#include "reader/reader.h"

#define PM_READER_MAX_PROCESSES 4096
#define PM_READER_MAX_SCHEMAS 256
#define PM_READER_MAX_SLOTS (1u << 20)
#define PM_READER_MAX_NOTES 1000
#define PM_READER_MAX_ATTRS 65536
#define PM_READER_MAX_HISTS 16384 /* 44 MB: more series than that is damage, not a profile */
#define PM_READER_MAX_VALUES (1u << 20)

/* One segment as its head tells it, checked as far as a head can be. */
struct pm_segment_ref {
    uint64_t index;
    uint64_t first_ordinal, first_fact;
    uint64_t begun_ns; /* CLOCK_MONOTONIC, as its head says */
    uint32_t slot;
    bool sealed;
};

struct pm_segment_list {
    struct pm_segment_ref *refs; /* in order of index */
    size_t count, capacity;
};

/* A copy of one segment. Reused from segment to segment. */
struct pm_segment_copy {
    uint8_t *bytes;
    uint32_t capacity;
    uint32_t len;     /* bytes held */
    uint32_t claimed; /* sealed_bytes, 0 while the writer is in it */
    bool cut;         /* the file ends inside this slot */
    struct pm_segment_ref ref;
};

/* A walk through a copy. */
struct pm_walk {
    const struct pm_segment_copy *copy;
    uint32_t pos;
    uint64_t position; /* records passed */
    uint64_t fact;     /* number of the next fact */
};

struct pm_raw {
    uint32_t schema; /* id */
    uint32_t bytes;  /* of payload, padding included */
    const uint8_t *payload;
    uint64_t fact; /* of a fact: its number */
};

struct pm_attr {
    char *key, *value;
    uint64_t mono_ns;
};

struct pm_attr_table {
    struct pm_attr *rows;
    size_t count, capacity;
    uint32_t *index; /* open addressing: row + 1, 0 empty */
    size_t index_size;
};

struct pm_process {
    struct pm_session *session;
    struct pm_process *self; /* this one, writable: cursors on a const process confess damage */
    int fd;
    char file[256];
    uint64_t file_bytes;
    uint32_t header_bytes, segment_bytes, live_offset, live_bytes;
    struct pm_process_info info;
    struct pm_schema *schemas[PM_READER_MAX_SCHEMAS]; /* NULL: not described */
    size_t n_schemas;
    struct pm_attr_table attrs;
};

struct pm_engines;   /* engines.c */
struct pm_span_view; /* span.c */

struct pm_session {
    struct pm_session *self; /* this one, writable: notes and engines come with looking */
    struct pm_session_info info;
    struct pm_process **processes;
    size_t n_processes;
    char **notes;
    size_t n_notes;
    uint64_t notes_dropped;
    struct pm_engines *engines; /* made on first use */
    struct pm_span_view *view;  /* what is seen of it; NULL: all */
};

/* session.c */
/* Keeps one sentence; false when it is there already or there are too many. */
bool pm_session_add_note(struct pm_session *session, const char *format, ...) PM_PRINTF(2, 3);

/* process.c: opens the record file `name` of the folder dir_fd. token NULL: whatever session it
 * belongs to. */
PM_MUST_USE int pm_process_open(struct pm_process **ret_process, struct pm_session *session,
                                int dir_fd, const char *name, const uint8_t *token,
                                struct pm_error *err);
void pm_process_free(struct pm_process *process);

/* segment.c */
/* pread until done, the end of the file, or a failure (-1, errno). */
ssize_t pm_read_at(int fd, void *out, size_t bytes, uint64_t offset);
/* Fills lists[s] for every stream s in mask (bits 1 << s); the others are left empty. Damage is
 * noted. */
PM_MUST_USE int pm_segments_list(const struct pm_process *process, unsigned mask,
                                 struct pm_segment_list lists[PM_STREAM_COUNT]);
void pm_segments_free(struct pm_segment_list lists[PM_STREAM_COUNT]);
/* 0: read; 1: taken again by the writer meanwhile, or gone; < 0: -PM_ENOMEM, -PM_EIO. */
PM_MUST_USE int pm_segment_read(const struct pm_process *process, enum pm_stream stream,
                                const struct pm_segment_ref *ref, struct pm_segment_copy *copy);
void pm_segment_copy_free(struct pm_segment_copy *copy);
void pm_walk_begin(struct pm_walk *walk, const struct pm_segment_copy *copy);
/* 1: *ret_raw; 0: the end; -PM_ECORRUPT or -PM_ETRUNCATED: the rest of the segment cannot be read;
 * *ret_what then says why (static text). */
int pm_walk_next(struct pm_walk *walk, struct pm_raw *ret_raw, const char **ret_what);
/* Confesses damage at this position of a segment, once per segment. */
void pm_segment_note(const struct pm_process *process, const struct pm_segment_copy *copy,
                     uint32_t pos, const char *what);

/* attrs.c */
PM_MUST_USE int pm_attrs_put(struct pm_attr_table *table, const char *key, size_t key_bytes,
                             const char *value, size_t value_bytes, uint64_t mono_ns);
const struct pm_attr *pm_attrs_get(const struct pm_attr_table *table, const char *key);
void pm_attrs_free(struct pm_attr_table *table);

/* cursor.c: a cursor that no span narrows. It begins with the newest segment that was begun before
 * the span, whose keyframe tells what was under way. */
PM_MUST_USE int pm_cursor_open_all(struct pm_cursor **ret_cursor, const struct pm_process *process,
                                   enum pm_stream stream);

/* engines.c */
void pm_engines_free(struct pm_engines *engines);

/* Unaligned little-endian loads (the format's byte order; hosts of another one are refused at
 * build time by segment.c). */
static inline uint32_t pm_load32(const void *bytes)
{
    uint32_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
    return value;
}
static inline uint64_t pm_load64(const void *bytes)
{
    uint64_t value;
    __builtin_memcpy(&value, bytes, sizeof(value));
    return value;
}

#endif
