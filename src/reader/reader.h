/*
 * Reads a session, whole or of a running server, from any bytes: never crashes, never loops, never
 * trusts a length.
 *
 * A session is a folder (or its metadata.json, or a name or unique prefix under the sessions' base
 * folder). Segments of record files are copied before use and checked again afterwards, so that a
 * live writer may go on; nothing is mapped, so a file cut short meanwhile is harmless. Damage is
 * confined: the rest of a bad segment is skipped and noted, everything else is read.
 */
#ifndef PM_READER_READER_H
#define PM_READER_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "session/layout.h"
#include "session/schema.h"

struct pm_session;
struct pm_process;
struct pm_cursor;

struct pm_session_info {
    char path[4096];
    char name[256];
    uint8_t token[PM_TOKEN_BYTES];
    uint64_t start_mono_ns, start_real_ns;
    uint32_t root_pid;
};

/* How a process stands, by its byte lock and what its file says. */
enum pm_life {
    PM_LIFE_RUNNING, /* holds its lock */
    PM_LIFE_CLOSED,  /* ended its file itself */
    PM_LIFE_KILLED,  /* neither */
};

struct pm_process_info {
    uint32_t pid, ppid;
    unsigned roles; /* enum pm_role bits */
    int engine, rank;
    enum pm_life life;
    unsigned state; /* enum pm_state bits */
    uint64_t opened_mono_ns, opened_real_ns, closed_ns, heartbeat_ns;
    uint64_t last_ns;                     /* the newest moment in its records */
    uint64_t records[PM_STREAM_COUNT];    /* facts readable now */
    uint64_t first_fact[PM_STREAM_COUNT]; /* number of the oldest one readable: > 0 when older ones
                                             had to go */
    uint64_t lost[PM_STREAM_COUNT], recycled[PM_STREAM_COUNT];
    uint64_t faults, hook_calls, hook_ns;
    uint64_t damaged_segments;
    char file[256];       /* name in records/ */
    uint64_t start_ticks; /* /proc/<pid>/stat field 22 as the process saw it */
    uint32_t owner_pid;   /* running: its pid as we see it; 0: not to be seen from here */
};

PM_MUST_USE int pm_session_open(struct pm_session **ret_session, const char *path,
                                struct pm_error *err);
void pm_session_close(struct pm_session *session);
/* Calls the session by another folder's path and name: that of the files which it was made from. */
void pm_session_rename(struct pm_session *session, const char *path, const char *name);
const struct pm_session_info *pm_session_info(const struct pm_session *session);

/* Processes in order of their start; files that could not be read are left out and counted as
 * notes. */
size_t pm_session_process_count(const struct pm_session *session);
struct pm_process *pm_session_process(const struct pm_session *session, size_t i);
const struct pm_process_info *pm_process_info(const struct pm_process *process);

/* A part of a session. Either a span of time, or the steps of every engine from a number to another
 * one. */
struct pm_span {
    bool by_steps;
    uint64_t from_ns, to_ns;     /* CLOCK_MONOTONIC, from <= t < to; 0, UINT64_MAX: open */
    uint64_t from_step, to_step; /* both included */
};

/* Narrows the session to a span, for good: from then on cursors, totals and all that is made of
 * them know nothing else. Facts of a step are in when the step is: its number, or the moment at
 * which its schedule() began. Attributes and what is kept for the whole run stay. 0; -PM_EINVALID
 * where it was narrowed to another span before; -PM_ENOTFOUND where no engine has such steps. */
PM_MUST_USE int pm_session_see(const struct pm_session *session, const struct pm_span *span);
/* The span; NULL: all is seen. */
const struct pm_span *pm_session_span(const struct pm_session *session);
/* The steps of an engine that are in it, both included; false: none, or all is seen. */
bool pm_session_span_steps(const struct pm_session *session, size_t engine, uint64_t *ret_from,
                           uint64_t *ret_to);

/* What was not seen, a sentence each: "records/p12.pmrec: at byte 1052672: …". */
size_t pm_session_note_count(const struct pm_session *session);
const char *pm_session_note(const struct pm_session *session, size_t i);

/* Attributes of a process; value NULL when absent. The n-th pair for listing. */
const char *pm_process_attr(const struct pm_process *process, const char *key);
size_t pm_process_attr_count(const struct pm_process *process);
void pm_process_attr_at(const struct pm_process *process, size_t i, const char **ret_key,
                        const char **ret_value);
/* The first process that has the attribute answers for the session; NULL when none has. */
const char *pm_session_attr(const struct pm_session *session, const char *key);

/* Schemas of a process's probes, by number 0.. (id - PM_SCHEMA_FIRST); NULL for a number that the
 * file does not describe. By name: -1 when there is none. */
size_t pm_process_schema_count(const struct pm_process *process);
const struct pm_schema *pm_process_schema(const struct pm_process *process, size_t i);
int pm_process_schema_find(const struct pm_process *process, const char *name);

/* ---- following a running server (src/live) ---- */

/* Reads the process's header again: what info says of its life, roles, heartbeat and counters is
 * then of this moment; records and attributes stay as they were. 0, or -PM_EIO. */
PM_MUST_USE int pm_process_look(const struct pm_process *process);

/* What its threads do, as the header says now: at most PM_THREAD_WORDS; returns how many. */
struct pm_thread_state {
    uint32_t tid;   /* as the process itself sees it */
    unsigned doing; /* enum pm_doing */
    bool raised;    /* it left that by an exception */
    uint64_t since_ns;
};
size_t pm_process_threads(const struct pm_process *process,
                          struct pm_thread_state ret_threads[PM_THREAD_WORDS]);

/* One record. payload stays valid until the next call on the cursor. */
struct pm_record {
    unsigned schema; /* number as above */
    const struct pm_schema *desc;
    const uint8_t
        *payload;  /* desc->payload_bytes readable, zero-filled if the file's record was shorter */
    uint64_t fact; /* number of this fact in its stream */
    bool keyframe; /* told again at the head of a segment, so that it stands alone: not new */
};

/* A segment as its head tells it. */
struct pm_segment_info {
    uint64_t first_fact; /* number of its first fact; all before it lie in older segments */
    uint64_t begun_ns;   /* CLOCK_MONOTONIC; nothing in it was recorded before */
    bool sealed;         /* its writer has left it */
};

/* The segments of one stream that can be read now, oldest first. Free *ret_segments with free();
 * NULL where there is none. 0 or -PM_ENOMEM. */
PM_MUST_USE int pm_process_segments(const struct pm_process *process, enum pm_stream stream,
                                    struct pm_segment_info **ret_segments, size_t *ret_count);

/* Walks one stream of one process from its oldest record to its newest. */
PM_MUST_USE int pm_cursor_open(struct pm_cursor **ret_cursor, const struct pm_process *process,
                               enum pm_stream stream);
/* Of a cursor just opened: leaves out the segments before the one that holds moment from_ns, unless
 * they hold facts from number fact on. */
void pm_cursor_skip(struct pm_cursor *cursor, uint64_t from_ns, uint64_t fact);
/* Of a cursor just opened, or just skipped: begins so many segments earlier, where there are. */
void pm_cursor_back(struct pm_cursor *cursor, size_t segments);
/* 1: *ret_record filled; 0: the end for now, a later call looks again; < 0: error (damage is
 * skipped, not an error). */
PM_MUST_USE int pm_cursor_next(struct pm_cursor *cursor, struct pm_record *ret_record);
/* The text of a STR field met at the cursor; "" when unknown; valid until the next
 * pm_cursor_next. */
const char *pm_cursor_string(struct pm_cursor *cursor, uint32_t id);
void pm_cursor_close(struct pm_cursor *cursor);

/* Totals since the process began, live copy plus the facts after it: exact also where detail had to
 * go. values and hists follow the layout of session/layout.h; free with pm_totals_free. */
struct pm_totals {
    uint32_t n_values, n_hists;
    uint64_t *values;
    struct pm_hist *hists;
};
PM_MUST_USE int pm_process_totals(const struct pm_process *process, struct pm_totals *ret_totals);
/* The same without the facts after the live copy: it covers, per stream, those with a number below
 * ret_covers[stream]. */
PM_MUST_USE int pm_process_live_totals(const struct pm_process *process,
                                       struct pm_totals *ret_totals,
                                       uint64_t ret_covers[PM_STREAM_COUNT]);
void pm_totals_free(struct pm_totals *totals);
/* Where one schema's series begin in them: first value and first histogram of class 0. */
void pm_process_series(const struct pm_process *process, size_t schema, uint32_t *ret_value,
                       uint32_t *ret_hist);

#endif
