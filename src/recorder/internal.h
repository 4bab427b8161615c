/*
 * The recorder's inside: one struct, and which of its parts belongs to whom.
 *
 *      hooks (hold the GIL)                        helper thread "profilemate"
 *      --------------------                        ---------------------------
 *      reserve, commit, string                     round: every 100 ms, or when woken
 *        | cursor .. end                             |
 *        v                                           v
 *      lane.current --> [slot, mapped] <-------- walks it up to the last committed record,
 *        |  full:                                adds the facts to the totals, publishes them
 *        |  seal (sealed_bytes, release)             |
 *        |                                           v
 *        +-- takes lane.next (one atomic   <---- makes the next one: allocate or recycle,
 *            pointer), writes the keyframe       map, populate
 *            into it, wakes the helper               |
 *                                                    v
 *                                      a sealed and fully walked slot is unmapped and joins the
 *                                      lane's chain of finished slots, oldest first
 *
 * Who owns what:
 *   hot side     struct pm_rec_hot, lane.current/unreported/strings: the caller of the verbs. Those
 *                of the KEEP lane are under keep_lock, since the helper writes roll-ups there.
 *   helper side  lane.ring/chain, slots, totals, budget, the file's end: under helper_lock. The
 *                helper takes it for a round; the caller only where it may wait, or when there is
 *                no thread.
 *   between      lane.next (the helper stores where it is NULL, the hot side takes it), the heads
 *                of records and sealed_bytes in the mapping, wake, stop.
 * Lock order: helper_lock, then keep_lock.
 *
 * Invariants:
 *   - nothing is mapped for writing that was not allocated on disk before (no SIGBUS);
 *   - a slot is recycled only after the live copy that covers all its facts was published;
 *   - after fork() the child finds pm_rec_hot zeroed, so that every verb takes its slow path and
 *     ends there (see fork.c); it takes no lock and touches no mapping of the file.
 */
#ifndef PM_RECORDER_INTERNAL_H
#define PM_RECORDER_INTERNAL_H

#include "recorder/recorder.h"

#include <pthread.h>
#include <sys/types.h>

#define PM_REC_RING 4u /* slots of one stream that may be mapped at once */
#define PM_REC_SLOT_NONE UINT32_MAX
#define PM_REC_STRING_MAX 256u      /* bytes kept of a text */
#define PM_REC_STRINGS_MAX 65536u   /* texts held per stream */
#define PM_REC_ATTR_KEY_MAX 256u    /* bytes kept of an attribute's key */
#define PM_REC_ATTR_VALUE_MAX 8192u /* and of its value */
#define PM_REC_ROUND_NS 100000000ull
#define PM_REC_ROLLUP_NS 60000000000ull
#define PM_REC_CLOCK_NS 60000000000ull
#define PM_REC_STEER_NS 1000000000ull
#define PM_REC_RETRY_NS 2000000000ull /* between two tries to allocate after a failure */
#define PM_REC_CLOSE_NS 200000000ull
#define PM_REC_SEGMENT_HEAD ((size_t)sizeof(struct pm_segment_head))

#define PM_REC_LIKELY(x) __builtin_expect(!!(x), 1)
#define PM_REC_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* What the hot path knows of a schema. */
struct pm_rec_sort {
    uint32_t need;   /* bytes that must be free for the fast path; UINT32_MAX: never (KEEP) */
    uint32_t bytes;  /* of the whole record, head included */
    uint32_t out;    /* where in pm_rec_hot its stream's pm_rec_out lies */
    uint32_t stream; /* enum pm_stream */
    uint64_t head;   /* the record's head but for its ordinal */
};

/* Where the next record of a stream goes. The number of the next fact is ordinal - others: so a
 * commit counts once. */
struct pm_rec_out {
    unsigned char *cursor; /* the next record's head; NULL: no segment */
    unsigned char *end;    /* nothing is written from here on */
    uint64_t ordinal;      /* of the next record */
    uint64_t others;       /* how many of those before were not facts, but of the format's own */
};

/* What the hot path changes: on a page of its own, which fork() gives zeroed to the child. */
struct pm_rec_hot {
    uint64_t alive;                    /* 0: a child of fork() */
    const struct pm_rec_sort *pending; /* reserved and not committed */
    struct pm_rec_out out[PM_STREAM_COUNT];
};

/* A slot that is mapped. */
struct pm_rec_segment {
    unsigned char *base; /* NULL: this entry of the ring is free */
    uint64_t index;      /* n-th segment of its stream */
    uint32_t slot;
    uint32_t facts; /* walked so far */
    size_t walked;  /* up to this byte the facts are in the totals */
    bool done;      /* sealed, and walked to its end */
};

/* A slot of the file, mapped or not. */
struct pm_rec_slot {
    uint32_t following; /* the next younger finished slot of the lane */
    uint32_t facts;     /* how many it holds */
};

/* A text that may be named by its id. */
struct pm_rec_string {
    char *text;
    uint64_t hash;
    uint32_t id;
    uint32_t bytes;
};

struct pm_rec_chunk;

/* The texts held of one stream, see strings.c. */
struct pm_rec_strings {
    struct pm_rec_string *held; /* n of them, in no order */
    uint32_t *by_text;          /* open addressing: place in held + 1, 0 free */
    uint32_t *by_id;
    uint32_t n;
    uint32_t capacity; /* of held; the tables have twice as many places */
    uint32_t next_id;
    uint64_t seed;
    struct pm_rec_chunk *chunks;
    void *free_cells[4]; /* cells of 32, 64, 128, 256 bytes */
};

/* One stream. */
struct pm_rec_lane {
    /* hot side */
    struct pm_rec_segment *current;
    uint64_t unreported;  /* records lost since the last LOST record */
    uint64_t switched_ns; /* when this segment was begun */
    bool in_keyframe;
    bool begun;  /* a first segment was had, or at least asked for */
    bool begged; /* the helper was woken for want of a segment */
    struct pm_rec_strings strings;
    /* between */
    _Atomic(struct pm_rec_segment *) next;
    /* helper side */
    struct pm_rec_segment ring[PM_REC_RING]; /* in order of index, from `first` on */
    unsigned first, mapped;
    uint64_t next_index;
    uint32_t oldest, newest; /* chain of finished slots */
    uint32_t slots;          /* held in all */
    uint64_t covers;         /* facts that are in the totals */
};

/* The sums of everything recorded, see live.c. */
struct pm_rec_totals {
    uint64_t *values;
    struct pm_hist *hists;
    uint32_t n_values, n_hists;
};

/* One schema, as the helper and the keyframes need it. */
struct pm_rec_table {
    const struct pm_schema *schema;
    char *text; /* within pm_recorder.texts */
    uint32_t text_bytes;
    uint32_t first_value, first_hist;
};

struct pm_recorder {
    /* read on the hot path */
    struct pm_rec_hot *hot;
    struct pm_rec_sort *sorts;
    uint32_t n_sorts;
    bool forked;       /* the fork handler saw it */
    bool threaded;     /* the helper thread runs, or will at the first record */
    bool thread_tried; /* the first record was the moment */
    bool started;
    struct pm_file_head *head;
    struct pm_rec_lane lanes[PM_STREAM_COUNT];
    pm_keyframe_fn keyframe;
    void *keyframe_arg;
    struct pm_rec_table *tables;
    char *texts;

    /* the file */
    int fd; /* the only one of this file: closing any other would drop the byte lock */
    dev_t dev;
    ino_t ino;
    size_t header_bytes, segment_bytes, live_offset, live_bytes;
    uint64_t file_bytes; /* allocated so far */

    /* helper side */
    pthread_mutex_t helper_lock;
    pthread_mutex_t keep_lock;
    struct pm_rec_slot *slots;
    uint32_t n_slots, max_slots;
    uint32_t spare; /* chain of empty slots that could not be mapped when they were wanted */
    uint64_t ceiling_bytes;
    uint64_t retry_ns; /* no allocation is tried before */
    _Atomic uint64_t *budget;
    _Atomic uint64_t own_budget; /* stands in where the session has no budget file */
    struct pm_rec_totals totals;
    uint64_t published_ns; /* mono_ns of the last live copy */
    uint64_t steered_ns, clock_ns, rollup_ns;

    /* the thread */
    pthread_t thread;
    _Atomic uint32_t wake, stop, done, left;

    /* in a child of fork(): anonymous pages where the header and the open segments were */
    struct {
        void *base;
        size_t bytes;
    } stand_in[1 + PM_STREAM_COUNT];
};

static inline bool pm_rec_mute(const struct pm_recorder *rec)
{
    return rec->hot->alive == 0;
}

/* Adds to a counter that only one thread at a time writes. */
static inline void pm_rec_bump(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline size_t pm_rec_round8(size_t bytes)
{
    return (bytes + 7u) & ~(size_t)7u;
}

/* file.c: the file itself. */

/* Makes session_dir's file with its header allocated, mapped and the byte lock held. */
PM_MUST_USE int pm_rec_file_create(struct pm_recorder *rec,
                                   const struct pm_recorder_options *options, struct pm_error *err);
/* Allocates [from, from + bytes); never by a hole, never dies of SIGXFSZ. 0 or -PM_E…. */
PM_MUST_USE int pm_rec_file_extend(int fd, uint64_t from, uint64_t bytes);
/* The descriptor, out of the way of 0 to 2: what a program prints must not land in the file. -1 and
 * errno when it was negative, or had to move and could not: it is closed then. */
PM_MUST_USE int pm_rec_above_standard(int fd);
/* Whether rec->fd is still our file, linked and uncut: else nothing more may be allocated in it. */
bool pm_rec_file_sound(const struct pm_recorder *rec);
/* Whether the descriptor is our file at all (programs close and reuse descriptors). */
bool pm_rec_file_ours(const struct pm_recorder *rec);

/* budget.c: the session's ceiling. */
void pm_rec_budget_open(struct pm_recorder *rec, int records_fd);
void pm_rec_budget_close(struct pm_recorder *rec);
/* Takes bytes from the budget. exempt: even beyond the ceiling. */
PM_MUST_USE int pm_rec_budget_claim(struct pm_recorder *rec, uint64_t bytes, bool exempt);
void pm_rec_budget_return(struct pm_recorder *rec, uint64_t bytes);

/* segment.c: slots, helper side; the caller holds helper_lock. */

/* Makes lane.next if it is NULL. Whether there is one. */
bool pm_rec_prepare(struct pm_recorder *rec, enum pm_stream stream);
/* Sees to the two slots of CORE before BLOCKS or CUSTOM has its first: where no more can be had, one
 * alone would lose the steps that come while it is taken again. */
void pm_rec_reserve(struct pm_recorder *rec);
/* Unmaps the segments that are done and puts them into the lanes' chains. */
void pm_rec_collect(struct pm_recorder *rec);

/* write.c: records, hot side. */

/* Room for a record of so many bytes (head included), taking the next segment if need be; NULL:
 * counted as lost. KEEP: keep_lock is held. */
unsigned char *pm_rec_room(struct pm_recorder *rec, enum pm_stream stream, size_t bytes);
/* The same for a record of the format's own, returning its payload; and its commit. */
void *pm_rec_begin(struct pm_recorder *rec, enum pm_stream stream, size_t payload_bytes);
void pm_rec_end(struct pm_recorder *rec, enum pm_stream stream, uint32_t schema,
                size_t payload_bytes);
/* Takes keep_lock, with room for so many bytes if that can be had without waiting, or, with wait,
 * at all. locked: the caller holds helper_lock. */
enum pm_rec_patience { PM_REC_HURRY, PM_REC_WAIT, PM_REC_HELPER };
void pm_rec_keep_enter(struct pm_recorder *rec, size_t bytes, enum pm_rec_patience patience);
void pm_rec_keep_leave(struct pm_recorder *rec);
/* Seals the current segment of a stream. */
void pm_rec_seal(struct pm_recorder *rec, enum pm_stream stream);
/* Reads the three clocks. */
struct pm_triple pm_rec_triple(void);

/* strings.c: texts and their ids. */
struct pm_rec_string *pm_rec_strings_find(const struct pm_rec_strings *strings, const char *text,
                                          size_t bytes, uint64_t hash);
/* Holds a text that is not held yet; NULL: no memory, or too many. */
struct pm_rec_string *pm_rec_strings_hold(struct pm_rec_strings *strings, const char *text,
                                          size_t bytes, uint64_t hash);
void pm_rec_strings_drop(struct pm_rec_strings *strings, uint32_t id);
uint64_t pm_rec_strings_hash(const struct pm_rec_strings *strings, const char *text, size_t bytes);
void pm_rec_strings_free(struct pm_rec_strings *strings);
/* How many bytes of a text to keep: at most max, not cut within a UTF-8 character. */
size_t pm_rec_cut(const char *text, size_t bytes, size_t max);

/* live.c: totals, live copies, roll-ups; the caller holds helper_lock. */
PM_MUST_USE int pm_rec_totals_init(struct pm_recorder *rec);
/* Adds what was committed since the last time and publishes it if there was anything. */
void pm_rec_follow(struct pm_recorder *rec);
void pm_rec_rollup(struct pm_recorder *rec);

/* helper.c: the thread and its round. */
void pm_rec_round(struct pm_recorder *rec); /* takes helper_lock */
/* Makes the next segment of a stream now, in the caller; may wait for the helper's round. */
void pm_rec_make_now(struct pm_recorder *rec, enum pm_stream stream);
void pm_rec_thread_start(struct pm_recorder *rec);
/* Asks the thread to end; true: it has, within PM_REC_CLOSE_NS. False: it frees the recorder itself
 * once it gets there. */
bool pm_rec_thread_stop(struct pm_recorder *rec);
void pm_rec_wake(struct pm_recorder *rec);

/* fork.c: the recorders of this process, made mute in a child. */
PM_MUST_USE int pm_rec_fork_watch(struct pm_recorder *rec);
void pm_rec_fork_forget(struct pm_recorder *rec);

/* recorder.c */
/* Frees everything that this process owns of it; in a child of fork(), only that. */
void pm_rec_free(struct pm_recorder *rec);

#endif
