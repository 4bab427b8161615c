/*
 * The session on disk: the contract between the recorder (writer) and the reader.
 *
 *   session_20261123_082501/    0700
 *     session                   text, one `key value` a line, see below
 *     metadata.json             written at creation, completed by `profilemate export`
 *     ended                     how the command of `profilemate run` ended, see live/autopsy.h
 *     records/                  one file per process: p<pid>-<8 hex digits>.pmrec
 *     records/budget            8 bytes, shared by all processes:
 *                               bytes of segments in use in the session
 *     forward_pass_timing.csv … the views, written by `profilemate export`
 *
 * The file `session`, written by recorder/birth_dir.c; readers skip keys that they do not know:
 *
 *   version 1                 PM_FORMAT_VERSION
 *   name session_20261123_082501
 *   token <32 hex digits>
 *   start_mono_ns <n>
 *   start_real_ns <n>
 *   root_pid <n>
 *   uid <n>
 *   boot_id <uuid>            of the machine's boot, absent where not known
 *   host <name>
 *   spool <path>              where records/ lies while the session lives on a network file system
 *
 * A record file:
 *
 *   0             header_bytes                      + segment_bytes              + segment_bytes
 *   | file header | live copy 0 | live copy 1 | pad | segment slot 0             | segment slot 1 …
 *
 * A segment slot:
 *
 *   | segment head, 128 bytes | record | record | … | zeros up to segment_bytes |
 *
 * A record: one 8-byte head, then the payload, padded to 8 bytes. The head is stored last, in one
 * release store, and a zero head ends the segment: a process killed at any instruction leaves only
 * whole records. A segment belongs to one stream; when the session's ceiling is reached the oldest
 * segment of the stream is taken again, in place (KEEP, and a stream that holds very little, take
 * the oldest of the stream that holds most: a slot may change its stream).
 *
 * All numbers are little-endian; all times are CLOCK_MONOTONIC nanoseconds (the writer may derive
 * them from the TSC, see base/clock.h) except where a name says `real` (CLOCK_REALTIME, nanoseconds
 * since 1970). Format version 1. A reader refuses a larger version and reads every smaller one.
 */
#ifndef PM_SESSION_LAYOUT_H
#define PM_SESSION_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#define PM_FILE_MAGIC 0x31434552454d4650ull    /* "PFMEREC1" */
#define PM_SEGMENT_MAGIC 0x31474553454d4650ull /* "PFMESEG1" */
#define PM_FORMAT_VERSION 1u
#define PM_SEGMENT_BYTES                                                                           \
    (1u << 20) /* default; 64 KiB to 4 MiB allowed, see pm_file_head.segment_bytes */
#define PM_SEGMENT_BYTES_MIN (1u << 16) /* smallest a reader accepts */
#define PM_SEGMENT_BYTES_MAX (1u << 22)
#define PM_TOKEN_BYTES 16

/* Streams: each has its own segments and its own quota of the ceiling. */
enum pm_stream {
    PM_STREAM_KEEP = 0,   /* attributes, schemas, roll-ups: never recycled */
    PM_STREAM_CORE = 1,   /* steps and requests */
    PM_STREAM_BLOCKS = 2, /* KV block events */
    PM_STREAM_CUSTOM = 3, /* custom hooks */
    PM_STREAM_COUNT = 4,
};

/* What a process was seen to do, a bit each; set when the first hook of that kind fires. */
enum pm_role {
    PM_ROLE_FRONTEND = 1,
    PM_ROLE_ENGINE = 2,
    PM_ROLE_WORKER = 4,
};

/* Flags of pm_file_head.state, a bit each. */
enum pm_state {
    PM_STATE_CLOSED = 1,    /* the process ended the file itself */
    PM_STATE_DISK_FULL = 2, /* segments could not be had */
    PM_STATE_RECYCLED = 4,  /* some detail had to go */
    PM_STATE_MONOTONIC = 8, /* the TSC was given up for CLOCK_MONOTONIC */
};

/* A point at which the three clocks were read together. tick is 0 where CLOCK_MONOTONIC itself is
 * the clock. */
struct pm_triple {
    uint64_t tick;
    uint64_t mono_ns;
    uint64_t real_ns;
};

/* What a thread is doing, for a reader that looks at a hung process: since when, and what, in one
 * word (session/doing.h), so that no reader finds one half of it. */
struct pm_thread_word {
    _Atomic uint64_t state; /* 0: nothing was set yet */
    _Atomic uint32_t tid;   /* as the process itself sees it; 0: slot free */
    uint32_t reserved;
};

#define PM_THREAD_WORDS 16

/* The file header, at offset 0, 4096 bytes. Fields marked (live) change while the process runs. */
struct pm_file_head {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;  /* where segment slot 0 begins; a multiple of 4096 */
    uint32_t segment_bytes; /* size of every slot */
    uint32_t live_offset;   /* where live copy 0 begins */
    uint32_t live_bytes;    /* size of one live copy; copy 1 follows copy 0 */
    uint32_t pid;
    uint32_t ppid;
    uint32_t uid;
    uint8_t token[PM_TOKEN_BYTES]; /* of the session */
    uint64_t process_start_ticks;  /* /proc/<pid>/stat field 22: tells a reused pid */
    struct pm_triple opened;       /* when the file was made */
    char comm[16];                 /* NUL-terminated */

    _Atomic uint32_t roles;        /* (live) enum pm_role bits */
    _Atomic int32_t engine;        /* (live) data-parallel rank of the engine, -1 unknown */
    _Atomic int32_t rank;          /* (live) rank of the worker within its engine, -1 unknown */
    _Atomic uint32_t state;        /* (live) enum pm_state bits */
    _Atomic uint64_t heartbeat_ns; /* (live) CLOCK_MONOTONIC of the helper thread's last round; 0:
                                      it has none (no fact yet, or a process that needs none) */
    _Atomic uint64_t closed_ns;    /* (live) when the process ended the file, 0 before */
    _Atomic uint64_t slots;        /* (live) segment slots allocated so far */
    _Atomic uint64_t lost[PM_STREAM_COUNT];     /* (live) records that found no room */
    _Atomic uint64_t recycled[PM_STREAM_COUNT]; /* (live) facts that went with recycled segments */
    _Atomic uint64_t faults;                    /* (live) failures of our own inside hooks */
    _Atomic uint64_t hook_calls;                /* (live) hooked calls seen */
    _Atomic uint64_t
        hook_ns; /* (live) time spent in our own code, estimated from every 64th call */
    _Atomic uint32_t live_index; /* (live) which live copy is whole: 0 or 1; 2 = none yet */
    uint32_t reserved;
    struct pm_thread_word threads[PM_THREAD_WORDS]; /* (live) */
};
_Static_assert(sizeof(struct pm_file_head) <= 4096, "the file header must fit its page");

/* The head of a segment, 128 bytes at the start of its slot. 0 in magic: slot unused or being
 * prepared. Where a slot is taken again the writer first clears magic and voids index, then zeroes
 * the records, and at last stores the head with its new index and, after all else, magic (release).
 * So a reader that finds the magic reads index, copies the segment, and reads the head again: if
 * magic or index changed, the copy is void. */
struct pm_segment_head {
    _Atomic uint64_t magic;
    _Atomic uint64_t index; /* n-th segment of its stream in this process, from 0 */
    uint32_t stream;        /* enum pm_stream */
    uint32_t flags;         /* 0 */
    uint64_t first_ordinal; /* how many records this stream had before this segment (keyframe
                               included) */
    uint64_t first_fact;    /* the same, facts only (schema id >= PM_SCHEMA_FIRST) */
    struct pm_triple clock; /* when the segment was begun */
    _Atomic uint64_t
        sealed_bytes; /* bytes used, head included, once the writer has left the segment; else 0 */
    uint8_t reserved[56];
};
_Static_assert(sizeof(struct pm_segment_head) == 128, "the segment head is part of the format");

/* The head of a record: one 64-bit word, stored with release after the payload.
 *   bits 0..15  schema id, never 0      bits 16..31  size of the record in 8-byte words, head
 * included bits 32..63 low half of the record's ordinal in its stream (first_ordinal + position): a
 * check for the reader */
typedef _Atomic uint64_t pm_record_head;

static inline uint64_t pm_record_head_make(uint32_t schema, uint32_t words, uint64_t ordinal)
{
    return (uint64_t)(schema & 0xffffu) | (uint64_t)(words & 0xffffu) << 16 | ordinal << 32;
}
static inline uint32_t pm_record_schema(uint64_t head)
{
    return (uint32_t)(head & 0xffffu);
}
static inline uint32_t pm_record_words(uint64_t head)
{
    return (uint32_t)(head >> 16 & 0xffffu);
}
static inline uint32_t pm_record_check(uint64_t head)
{
    return (uint32_t)(head >> 32);
}

/* Schema ids of the format itself; those of probes follow from PM_SCHEMA_FIRST and are described by
 * SCHEMA records. */
enum pm_builtin_schema {
    PM_SCHEMA_SCHEMA = 1, /* u32 id, u32 text_bytes, text: see session/schema.h */
    PM_SCHEMA_STRING =
        2, /* u32 id, u32 bytes, UTF-8 text: a string that following records of this stream name */
    PM_SCHEMA_ATTR =
        3, /* u64 mono_ns, u32 key_bytes, u32 value_bytes, key, value (UTF-8); the last one wins */
    PM_SCHEMA_CLOCK = 4,  /* struct pm_triple, in the KEEP stream: at the opening, every minute, and
                             when the TSC is given up; each segment's head has one too */
    PM_SCHEMA_ROLLUP = 5, /* struct pm_rollup_head + entries, in the KEEP stream: once a minute,
                             less often when that stream nears its part of the ceiling */
    PM_SCHEMA_LOST =
        6, /* u64 mono_ns, u64 count: records lost just before this one, in this stream */
    PM_SCHEMA_KEYFRAME = 7, /* u64 mono_ns: ends the keyframe at the head of a segment */
    PM_SCHEMA_FIRST = 16,
};

/*
 * Live copies and roll-ups hold series. The series of a file follow from its schemas, in order of
 * schema id: per schema, for each class value c in 0..classes-1: first its count, then for each
 * field marked PM_AGG_SUM or PM_AGG_HIST (in order) its sum, and for each marked PM_AGG_HIST its
 * histogram. A live copy: struct pm_live_head, then n_values uint64 (counts and sums), then n_hists
 * struct pm_hist. It covers, per stream, the facts with fact number < covers[stream]; a reader adds
 * the facts after those. The writer fills the copy that is not in force, its mono_ns first, and
 * then switches live_index; no two copies have the same mono_ns. A copy is whole if neither
 * live_index nor the copy's mono_ns changed while it was read.
 */
#define PM_HIST_SUB                                                                                \
    8 /* buckets per power of two: Prometheus native histogram schema 3, bounds 2^(k/8) */
#define PM_HIST_BUCKETS                                                                            \
    336 /* [0] = 0, [1 + k] = (2^((k-1)/8), 2^(k/8)], k = 0..; the last one takes the rest */

struct pm_hist {
    uint64_t buckets[PM_HIST_BUCKETS];
};

struct pm_live_head {
    uint64_t mono_ns; /* when it was made */
    uint64_t covers[PM_STREAM_COUNT];
    uint32_t n_values;
    uint32_t n_hists;
};

/* ROLLUP: the totals since the process began, at mono_ns; followed by n_values uint64 and then
 * n_buckets entries {u32 hist, u32 bucket, u64 count}, non-empty buckets only. */
struct pm_rollup_head {
    uint64_t mono_ns;
    uint64_t real_ns;
    uint64_t covers[PM_STREAM_COUNT];
    uint32_t n_values;
    uint32_t n_buckets;
};

struct pm_rollup_bucket {
    uint32_t hist;
    uint32_t bucket;
    uint64_t count;
};

#endif
