/*
 * The tree of call paths that function tracing counts in: what happens at each call and return.
 * Pure C on a mapped table (session/function_facts.h); called by the tracers with the GIL held,
 * which is its lock.
 *
 *   thread: frames     [ … | node | node ]  <- top: the function that runs
 *                                 |
 *   private:  spots    [ code, last child ]      one per node, in memory
 *   on disk:  nodes    [ parent, row, calls, self_ns, … ]
 *
 * A call looks at the last child of the path that runs: if it is for the same code it is the one.
 * Else the table of codes says whether the function is traced, and the table of paths where its
 * node is. Time is given to whoever ran: at each call and each return the time since the last one
 * goes to the path that ran until then, so that totals are sums over the tree, made by the reader.
 *
 * Codes are keys, never looked into; the tracer keeps those alive that it adds.
 *
 * Bounds: functions, paths, text and frames of a thread have each their ceiling. Calls by a path
 * for which there is no room are counted by function; those of a function for which there is no
 * room, as "(other functions)".
 */
#ifndef PM_PROBE_FUNCTION_TREE_H
#define PM_PROBE_FUNCTION_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "session/function_facts.h"

#define PM_CALLS_SKIPPED UINT32_MAX       /* a code that is known and not traced */
#define PM_CALLS_UNKNOWN (UINT32_MAX - 1) /* a code never seen */
#define PM_CALLS_DEPTH 65536u             /* frames of one thread */
#define PM_CALLS_PATH_DEPTH 1024u         /* beyond, paths are not told apart */

/* Bytes of a table; what struct pm_table is asked for. */
size_t pm_calls_table_bytes(void);

/* What the hot path knows of a node. */
struct pm_calls_spot {
    const void *code;
    uint32_t last;  /* the node last called from here; 0: none */
    uint32_t flags; /* enum pm_function_flags of its row */
};

struct pm_calls_frame {
    const void *key; /* what its end will be known by: the frame or the code */
    uint64_t start_ns;
    uint32_t node;
};

/* One thread. Owned by the tracer (thread-local), freed when the thread ends. */
struct pm_calls_thread {
    uint32_t node; /* the path that runs */
    uint32_t depth;
    uint64_t last_ns;
    struct pm_calls_frame *frames;
    uint32_t room;
    uint32_t beyond; /* calls under way that found no frame */
    uint32_t root;   /* its own node */
    uint32_t tid;
    uint32_t epoch; /* of the tree that it belongs to */
    uint32_t gap;   /* the pause that it has got over */
    bool named;
    uint8_t asked; /* for its name */
};

/* Told of a stay that is long enough to be recorded. */
typedef void (*pm_calls_record_fn)(uint64_t start_ns, uint64_t dur_ns, uint32_t node, uint32_t tid);

struct pm_calls_code {
    const void *code;
    uint32_t row; /* or PM_CALLS_SKIPPED */
};

struct pm_calls {
    /* on disk */
    struct pm_function_head *head;
    struct pm_function_row *rows;
    struct pm_function_node *nodes;
    unsigned char *text;
    /* in memory */
    struct pm_calls_spot *spots;
    uint32_t *paths; /* open addressing: nodes; 0 free */
    struct pm_calls_code *codes;
    uint32_t *texts;   /* open addressing: offsets of texts */
    uint32_t *flat_of; /* by row: its node for calls by no path of their own; 0: none */
    uint32_t n_codes;
    uint32_t threads; /* roots made */
    uint32_t shared_root;
    uint32_t others; /* row of "(other functions)" */
    uint32_t epoch;
    pm_calls_record_fn record;
    /* which stays are recorded */
    uint64_t short_ns;
    uint64_t window_ns;
    uint32_t in_window;
};

/* Takes a zeroed table of pm_calls_table_bytes() bytes. False without memory. */
bool pm_calls_begin(struct pm_calls *calls, void *table, pm_calls_record_fn record);
void pm_calls_release(struct pm_calls *calls);

/* What is known of a code: its row, PM_CALLS_SKIPPED or PM_CALLS_UNKNOWN. */
uint32_t pm_calls_code(const struct pm_calls *calls, const void *code);

/* Adds a code that is to be traced, with its names; its row. The row of "(other functions)" where
 * there is no room: then *ret_kept is false and the code is not remembered. */
uint32_t pm_calls_add(struct pm_calls *calls, const void *code, const char *module,
                      const char *name, const char *file, uint32_t line, uint32_t flags,
                      bool *ret_kept);

/* Remembers a code that is not to be traced; false: no room for it. */
bool pm_calls_skip(struct pm_calls *calls, const void *code);

/* Makes a thread's root; name may be NULL. False without memory. */
bool pm_calls_thread_begin(struct pm_calls *calls, struct pm_calls_thread *thread, uint32_t tid,
                           const char *name, uint64_t now_ns);
void pm_calls_thread_name(struct pm_calls *calls, struct pm_calls_thread *thread, const char *name);
void pm_calls_thread_release(struct pm_calls_thread *thread);

/* A thread's first event after a pause: what ran gets its time until the pause began, and the
 * frames above `depth`, which ended in it, are given up. */
void pm_calls_thread_after(struct pm_calls *calls, struct pm_calls_thread *thread, uint32_t depth,
                           uint64_t paused_ns, uint64_t now_ns);

/* The node of a call of code (of this row) from the path that runs, found or made. */
uint32_t pm_calls_path(struct pm_calls *calls, const struct pm_calls_thread *thread,
                       const void *code, uint32_t row);

/* The parts of the hot path that are seldom run. */
bool pm_calls_more_frames(struct pm_calls_thread *thread);
void pm_calls_record(struct pm_calls *calls, uint64_t start_ns, uint64_t dur_ns, uint32_t node,
                     uint32_t tid);
/* Finds the frame of an end that is not the top's; whether there is one. Those above it are gone.
 */
bool pm_calls_unwind_to(struct pm_calls *calls, struct pm_calls_thread *thread, const void *key,
                        uint64_t now_ns);

static inline uint32_t pm_calls_last(const struct pm_calls *calls,
                                     const struct pm_calls_thread *thread, const void *code)
{
    const uint32_t last = calls->spots[thread->node].last;
    return calls->spots[last].code == code ? last : 0;
}

static inline void pm_calls_pass(const struct pm_calls *calls, struct pm_calls_thread *thread,
                                 uint64_t now_ns)
{
    calls->nodes[thread->node].self_ns += pm_clock_elapsed(thread->last_ns, now_ns);
    thread->last_ns = now_ns;
}

/* A call, or a resumption, of a node that pm_calls_last or pm_calls_path gave. */
static inline void pm_calls_enter(struct pm_calls *calls, struct pm_calls_thread *thread,
                                  uint32_t node, const void *key, bool resumed, uint64_t now_ns)
{
    pm_calls_pass(calls, thread, now_ns);
    if (resumed)
        calls->nodes[node].resumes++;
    else
        calls->nodes[node].calls++;
    if (__builtin_expect(thread->depth == thread->room, 0) && !pm_calls_more_frames(thread)) {
        thread->beyond++;
        return;
    }
    struct pm_calls_frame *frame = &thread->frames[thread->depth++];
    frame->key = key;
    frame->start_ns = now_ns;
    frame->node = node;
    thread->node = node;
}

static inline void pm_calls_pop(struct pm_calls *calls, struct pm_calls_thread *thread,
                                uint64_t now_ns)
{
    const struct pm_calls_frame *frame = &thread->frames[--thread->depth];
    const uint64_t dur_ns = pm_clock_elapsed(frame->start_ns, now_ns);
    struct pm_function_node *node = &calls->nodes[frame->node];
    if (dur_ns > node->max_ns)
        node->max_ns = dur_ns;
    thread->node = thread->depth != 0 ? frame[-1].node : thread->root;
    if (dur_ns >= calls->short_ns)
        pm_calls_record(calls, frame->start_ns, dur_ns, frame->node, thread->tid);
}

/* Whether the end of this key is the end of the function that runs. */
static inline bool pm_calls_is_top(const struct pm_calls_thread *thread, const void *key)
{
    return thread->depth != 0 && thread->frames[thread->depth - 1].key == key;
}

/* An end: by return, yield or (raised) an exception. Those of functions that were called before
 * tracing began, or are not traced, are passed over. */
static inline void pm_calls_leave(struct pm_calls *calls, struct pm_calls_thread *thread,
                                  const void *key, bool raised, uint64_t now_ns)
{
    if (__builtin_expect(thread->beyond != 0, 0)) {
        thread->beyond--;
        return;
    }
    if (__builtin_expect(!pm_calls_is_top(thread, key), 0) &&
        !pm_calls_unwind_to(calls, thread, key, now_ns))
        return;
    pm_calls_pass(calls, thread, now_ns);
    if (raised)
        calls->nodes[thread->node].raised++;
    pm_calls_pop(calls, thread, now_ns);
}

#endif
