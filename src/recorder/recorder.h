/*
 * The recorder: writes one process's facts into its file of a session. Pure C, no Python.
 *
 * Threads. All verbs of one recorder are called by one thread at a time (the hooks hold the GIL);
 * none of them waits, except pm_recorder_attr and pm_recorder_open, which are not for the hot path.
 * One helper thread of our own (signals blocked, no Python) makes, populates and unmaps segments,
 * keeps the live totals, the clock and the heartbeat.
 *
 * Life. pm_recorder_open makes the file; facts follow; pm_recorder_close seals it. Being killed
 * instead is normal: the file is valid after every committed record. After fork() the child's copy
 * is mute: pm_recorder_forked() is then true and the child opens a fresh recorder of its own.
 *
 * Failure. On a full disk, a deleted directory or the ceiling, reserve returns NULL and the loss is
 * counted; the process serves on.
 */
#ifndef PM_RECORDER_RECORDER_H
#define PM_RECORDER_RECORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "session/layout.h"
#include "session/schema.h"

struct pm_recorder;

/* Called while a keyframe is written (never for the KEEP stream), by the verb that needed a new
 * segment: the probe re-records what a segment must know to stand alone (live requests), with
 * pm_recorder_string and reserve/commit on the given stream and no other. It gets at most half of
 * the segment, less the held strings; beyond that reserve returns NULL and counts. These records
 * are facts as all others: give them a schema of their own, or tell them apart, where totals
 * matter. */
typedef void (*pm_keyframe_fn)(struct pm_recorder *rec, enum pm_stream stream, void *arg);

struct pm_recorder_options {
    const char
        *session_dir;     /* exists already; the file goes to session_dir/records/ (or the spool) */
    const uint8_t *token; /* PM_TOKEN_BYTES */
    const struct pm_schema *const *schemas; /* schema i gets id PM_SCHEMA_FIRST + i */
    size_t n_schemas;
    uint64_t ceiling_bytes; /* of the whole session */
    uint32_t segment_bytes; /* 0: PM_SEGMENT_BYTES; made larger where the schemas need it */
    uint32_t file_mode;     /* 0600 */
    bool thread; /* run the helper thread; without it segments are made by the caller (front end,
                    tests) */
    pm_keyframe_fn keyframe; /* may be NULL */
    void *keyframe_arg;
};

/* 0 and *ret_rec, or -PM_E… with a sentence in err (may be NULL). */
PM_MUST_USE int pm_recorder_open(struct pm_recorder **ret_rec,
                                 const struct pm_recorder_options *options, struct pm_error *err);

/* Room for one record of schema id PM_SCHEMA_FIRST + schema; its payload must be filled completely,
 * then committed before anything else is recorded. NULL: no room, counted as lost. The payload's
 * bytes are zero. */
void *pm_recorder_reserve(struct pm_recorder *rec, unsigned schema);
void pm_recorder_commit(struct pm_recorder *rec, void *payload);

/* The id under which following records of the stream may name this text (at most 256 bytes are
 * kept). The same text gets the same id while it is held; pm_recorder_string_drop lets the recorder
 * forget it. 0 for the empty text or no room. A held string is written again into each new segment
 * of that stream. */
uint32_t pm_recorder_string(struct pm_recorder *rec, enum pm_stream stream, const char *text,
                            size_t bytes);
void pm_recorder_string_drop(struct pm_recorder *rec, enum pm_stream stream, uint32_t id);

/* A fact about the process as key and value, kept for the whole run. May wait. */
void pm_recorder_attr(struct pm_recorder *rec, const char *key, const char *value);

/* Says what the process turned out to be; engine and rank may be -1 (leave as is). */
void pm_recorder_identify(struct pm_recorder *rec, unsigned roles, int engine, int rank);

/* Says what the calling thread does from a moment on (enum pm_doing of session/doing.h): one store,
 * once the thread has its word in the live header. The first PM_THREAD_WORDS threads have one. */
void pm_recorder_doing(struct pm_recorder *rec, unsigned doing, uint64_t since_ns);

/* The live header, for counters that the hooks keep themselves (faults, hook_calls, hook_ns,
 * threads). The pointer holds until close or abandon; in a child of fork() it leads to memory of
 * the child's own. */
struct pm_file_head *pm_recorder_head(struct pm_recorder *rec);

/* True in a child of fork(): drop this one (pm_recorder_abandon) and open another. */
bool pm_recorder_forked(const struct pm_recorder *rec);
void pm_recorder_abandon(struct pm_recorder *rec);

/* Seals the file, ends the helper thread (waits for it at most 200 ms) and frees everything. NULL
 * is fine. */
void pm_recorder_close(struct pm_recorder *rec);

/* Makes the helper thread do one round now, in the caller (tests, and recorders without a thread).
 */
void pm_recorder_round(struct pm_recorder *rec);

#endif
