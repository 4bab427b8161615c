/*
 * A small reader of record files for the recorder's tests: it walks the bytes by session/layout.h
 * alone and shares no code with src/reader. Every oddity ends in a text in walk.fault.
 */
#ifndef PM_TESTS_WALK_H
#define PM_TESTS_WALK_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "session/layout.h"

struct walk_segment {
    uint64_t index, first_ordinal, first_fact, sealed;
    uint32_t stream, slot;
    uint64_t records, facts; /* found in it */
};

struct walk_stream {
    uint64_t first_fact;     /* of the oldest segment that is there */
    uint64_t facts, records; /* ever committed: the number after the last one */
    uint64_t segments;
    uint64_t lost;                   /* sum of the LOST records that are there */
    uint64_t kinds[PM_SCHEMA_FIRST]; /* records of the format, by schema */
};

struct walk {
    unsigned char *bytes;
    size_t n;
    struct pm_file_head *head;
    struct walk_segment *segments; /* by stream, then index */
    size_t n_segments;
    struct walk_stream streams[PM_STREAM_COUNT];
    char fault[256]; /* "": all is well */
};

/* One record. fact: its fact number, for schema >= PM_SCHEMA_FIRST. */
typedef void (*walk_fn)(void *arg, const struct walk_segment *segment, uint32_t schema,
                        uint64_t fact, const unsigned char *payload, size_t bytes, int in_keyframe);

#define WALK_FAULT(walk, ...)                                                                      \
    do {                                                                                           \
        if ((walk)->fault[0] == '\0')                                                              \
            snprintf((walk)->fault, sizeof(walk)->fault, __VA_ARGS__);                             \
    } while (0)

static inline int walk_compare(const void *left, const void *right)
{
    const struct walk_segment *a = left, *b = right;
    if (a->stream != b->stream)
        return a->stream < b->stream ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static inline void walk_free(struct walk *walk)
{
    free(walk->bytes);
    free(walk->segments);
    memset(walk, 0, sizeof *walk);
}

/* Reads the file and the heads of its segments. 0, or 1: the process died before the header was
 * complete, which is a file without facts. */
static inline int walk_open(struct walk *walk, const char *path)
{
    memset(walk, 0, sizeof *walk);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        WALK_FAULT(walk, "%.200s cannot be read", path);
        return 0;
    }
    walk->bytes = calloc(1, (size_t)st.st_size + 4096);
    ssize_t got = read(fd, walk->bytes, (size_t)st.st_size);
    close(fd);
    walk->n = got < 0 ? 0 : (size_t)got;
    walk->head = (struct pm_file_head *)(void *)walk->bytes;
    if (walk->n < 4096 || walk->head->magic == 0)
        return 1;
    if (walk->head->magic != PM_FILE_MAGIC || walk->head->version != PM_FORMAT_VERSION)
        WALK_FAULT(walk, "bad magic or version");
    size_t header = walk->head->header_bytes, size = walk->head->segment_bytes;
    if (header % 4096 != 0 || size < PM_SEGMENT_BYTES_MIN || size > PM_SEGMENT_BYTES_MAX ||
        walk->head->live_offset + 2 * (size_t)walk->head->live_bytes > header)
        WALK_FAULT(walk, "bad sizes");
    if (walk->fault[0] != '\0')
        return 0;
    walk->segments = calloc(walk->n / size + 1, sizeof *walk->segments);
    for (uint32_t slot = 0; header + (slot + 1) * size <= walk->n; slot++) {
        const struct pm_segment_head *head =
            (const void *)(walk->bytes + header + (size_t)slot * size);
        if (head->magic == 0)
            continue;
        if (head->magic != PM_SEGMENT_MAGIC || head->stream >= PM_STREAM_COUNT)
            WALK_FAULT(walk, "slot %u: bad magic or stream", slot);
        walk->segments[walk->n_segments++] =
            (struct walk_segment){.index = head->index,
                                  .first_ordinal = head->first_ordinal,
                                  .first_fact = head->first_fact,
                                  .sealed = head->sealed_bytes,
                                  .stream = head->stream,
                                  .slot = slot};
    }
    qsort(walk->segments, walk->n_segments, sizeof *walk->segments, walk_compare);
    return 0;
}

static inline void walk_segment_records(struct walk *walk, struct walk_segment *segment, walk_fn fn,
                                        void *arg)
{
    size_t size = walk->head->segment_bytes;
    const unsigned char *base = walk->bytes + walk->head->header_bytes + segment->slot * size;
    struct walk_stream *stream = &walk->streams[segment->stream];
    size_t at = sizeof(struct pm_segment_head);
    int in_keyframe = 1;
    while (at + 8 <= size) {
        uint64_t word;
        memcpy(&word, base + at, sizeof word);
        if (word == 0)
            break;
        size_t bytes = (size_t)pm_record_words(word) * 8;
        uint32_t schema = pm_record_schema(word);
        if (bytes < 8 || at + bytes > size || schema == 0 ||
            (schema > PM_SCHEMA_KEYFRAME && schema < PM_SCHEMA_FIRST)) {
            WALK_FAULT(walk, "slot %u at %zu: a torn record, head %llx", segment->slot, at,
                       (unsigned long long)word);
            return;
        }
        if (pm_record_check(word) != (uint32_t)(segment->first_ordinal + segment->records))
            WALK_FAULT(walk, "slot %u at %zu: ordinal %u where %llu was due", segment->slot, at,
                       pm_record_check(word),
                       (unsigned long long)(segment->first_ordinal + segment->records));
        const unsigned char *payload = base + at + 8;
        uint64_t fact = segment->first_fact + segment->facts;
        if (fn != NULL)
            fn(arg, segment, schema, fact, payload, bytes - 8, in_keyframe);
        if (schema < PM_SCHEMA_FIRST)
            stream->kinds[schema % PM_SCHEMA_FIRST]++;
        else
            segment->facts++;
        if (schema == PM_SCHEMA_LOST) {
            uint64_t lost;
            memcpy(&lost, payload + 8, sizeof lost);
            stream->lost += lost;
        }
        if (schema == PM_SCHEMA_KEYFRAME)
            in_keyframe = 0;
        segment->records++;
        at += bytes;
    }
    if (segment->sealed != 0 && segment->sealed != at)
        WALK_FAULT(walk, "slot %u: sealed at %llu, records end at %zu", segment->slot,
                   (unsigned long long)segment->sealed, at);
}

/* Calls fn (may be NULL) for every record, stream by stream, oldest first, and checks that what is
 * there of a stream is one unbroken run. */
static inline void walk_records(struct walk *walk, walk_fn fn, void *arg)
{
    memset(walk->streams, 0, sizeof walk->streams);
    for (size_t i = 0; i < walk->n_segments && walk->fault[0] == '\0'; i++) {
        struct walk_segment *segment = &walk->segments[i];
        struct walk_stream *stream = &walk->streams[segment->stream];
        segment->records = segment->facts = 0;
        if (stream->segments++ == 0) {
            stream->first_fact = segment->first_fact;
        } else if (segment->index != segment[-1].index + 1 ||
                   segment->first_ordinal != stream->records ||
                   segment->first_fact != stream->facts || segment[-1].sealed == 0) {
            WALK_FAULT(walk, "slot %u: segment %llu does not follow on %llu", segment->slot,
                       (unsigned long long)segment->index, (unsigned long long)segment[-1].index);
        }
        walk_segment_records(walk, segment, fn, arg);
        stream->records = segment->first_ordinal + segment->records;
        stream->facts = segment->first_fact + segment->facts;
    }
}

/* The live copy in force, or NULL. */
static inline const struct pm_live_head *walk_live(const struct walk *walk)
{
    uint32_t index = walk->head->live_index;
    if (index > 1)
        return NULL;
    return (const void *)(walk->bytes + walk->head->live_offset +
                          (size_t)index * walk->head->live_bytes);
}

/* The path of the only record file in session_dir; 0: there is none. */
static inline int walk_find(const char *session_dir, char *ret_path, size_t size)
{
    char folder[300];
    int found = 0;
    snprintf(folder, sizeof folder, "%s/records", session_dir);
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        if (strstr(entry->d_name, ".pmrec") != NULL) {
            int n = snprintf(ret_path, size, "%s/%s", folder, entry->d_name);
            if (n < 0 || (size_t)n >= size)
                ret_path[0] = '\0';
            found++;
        }
    }
    if (dir != NULL)
        closedir(dir);
    return found;
}

#endif
