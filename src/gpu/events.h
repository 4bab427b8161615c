/*
 * Events of a device round the model and round sampling, from a pool, read back some steps later
 * and never waited for. Used by the probe `device`, on whatever thread holds the GIL (which is the
 * lock); owns the events.
 *
 *   host     begin  mark mark      mark mark  end          begin  …           read
 *   stream   ───────●════●─────────●════●──────────────────●════●──  …
 *                   model   logits sampling    waiting     model
 *
 * Steps stand in one ring per context, in order. A place's four events are made when it is first
 * taken, and recorded again when the ring comes round. A step that has been read keeps its place
 * until the one after it has been read too, which needs its last event. Nothing is recorded on a
 * stream that is being captured, and nothing is called at all while the caller knows of a capture
 * anywhere in the process. The first error that a driver gives ends all calls for good.
 */
#ifndef PM_GPU_EVENTS_H
#define PM_GPU_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu/calls.h"

#define PM_EVENTS_CONTEXTS 8 /* devices of one process */
#define PM_EVENTS_STEPS 1024 /* of one device under way at most; the reader joins that far back */
#define PM_EVENTS_AHEAD 128  /* steps under way beyond those that wait to be a batch */
#define PM_EVENTS_OLD_NS 1000000000ull /* steps older than this are not kept for a batch */

enum pm_event_mark {
    PM_MARK_MODEL,
    PM_MARK_MODEL_END,
    PM_MARK_SAMPLE,
    PM_MARK_SAMPLE_END,
    PM_MARKS
};

/* One step's times on the device, in ns. Their sum, over steps without a gap in the chain, is all
 * the time of the stream. */
struct pm_event_times {
    uint64_t step;
    uint64_t begun_ns; /* host: the first mark */
    uint64_t model_ns; /* model start to model end; at least 1 */
    uint64_t wait_ns;  /* end of the step before to this model's start; with has_wait */
    uint64_t after_ns; /* model end to sampling's start; with has_sample */
    uint64_t sample_ns;
    uint32_t device; /* ordinal among those that the process sees */
    uint16_t instance;
    uint8_t phase;
    bool has_wait, has_sample;
};

struct pm_events_counts {
    uint64_t made;        /* events */
    uint64_t steps, read; /* steps with events, and read back */
    uint64_t turns;       /* times that something was read */
};

struct pm_events;

/* batch: event pairs that are read back at a time (two pairs are a step). -PM_ENOMEM. No driver
 * call is made. */
PM_MUST_USE int pm_events_open(struct pm_events **ret_events, const struct pm_driver *driver,
                               unsigned batch);

/* A step begins: marks are its from now on. One that is still open is closed. */
void pm_events_begin(struct pm_events *events, uint64_t step, uint16_t instance, uint8_t phase);

/* Records an event on the stream. A mark made twice counts where it was made last. */
enum pm_event_outcome pm_events_mark(struct pm_events *events, enum pm_event_mark mark,
                                     void *stream, uint64_t now_ns);

/* The open step is given up: its events so far mean nothing. No driver call. */
void pm_events_lose(struct pm_events *events);

/* Whether the open step has this mark. */
bool pm_events_has(const struct pm_events *events, enum pm_event_mark mark);

/* The step is over. One without model start and end is given up. */
void pm_events_end(struct pm_events *events);

/* Whether it is time to read: a batch is under way, or something is old. No driver call. */
bool pm_events_due(const struct pm_events *events, uint64_t now_ns);

/* Tells the times of steps of the context in use that are complete by now; at most a batch of them,
 * unless `all`. Returns how many. */
typedef void (*pm_events_tell)(const struct pm_event_times *times, void *arg);
unsigned pm_events_read(struct pm_events *events, bool all, pm_events_tell tell, void *arg);

/* The first error: what was called and what the driver said, a sentence; false: none so far. */
bool pm_events_failed(const struct pm_events *events, char *out, size_t size);

void pm_events_count(const struct pm_events *events, struct pm_events_counts *ret_counts);

/* Destroys the events, unless they are off. NULL is fine. */
void pm_events_close(struct pm_events *events);

/* Frees the memory without a driver call: in a child of fork(), whose driver is not there. */
void pm_events_abandon(struct pm_events *events);

#endif
