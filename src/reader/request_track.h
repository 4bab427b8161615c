/*
 * Requests that are not over yet, followed from record to record: the table of them, and when each
 * had its outputs. Used by requests.c alone, one thread; owns its memory.
 *
 * The same reasoning as the engine core's (src/probe/request_follow.c): a request gives an output
 * in every step of a run, so that its longest gap is the largest one since the run began.
 */
#ifndef PM_READER_REQUEST_TRACK_H
#define PM_READER_REQUEST_TRACK_H

#include "base/gaps.h"
#include "session/step_facts.h"
#include "reader/requests.h"

#define PM_TRACK_NEVER UINT64_MAX
#define PM_TRACK_NEXT (UINT64_MAX - 1) /* closes_at: with the next update, whichever it is */
#define PM_TRACK_OPEN_MAX                                                                          \
    (1u << 18) /* requests at a time; others are told of at their end only                         \
                */

struct pm_tracked {
    struct pm_request request;
    struct pm_tracked *next;                      /* in its chain */
    struct pm_tracked *older, *newer;             /* in the order in which they came */
    uint64_t gives_from, gives_until;             /* steps of the newest run */
    uint64_t opens_at, closes_at;                 /* steps whose updates open and close it */
    uint64_t run_first, run_first_ordinal;        /* of the open run */
    bool run_open, new_turn, waits_for_an_update; /* the last: in the list of those */
    struct pm_tracked *next_waiting;
};

struct pm_track {
    struct pm_tracked **chains;
    size_t n_chains, n_open;
    struct pm_tracked *oldest, *newest;
    struct pm_tracked *waiting; /* have an opens_at or a closes_at */
    struct pm_gaps gaps;
    uint64_t last;       /* number + 1 of the last step with tokens; 0: none */
    uint64_t updated;    /* number + 1 of the last one whose output was taken in */
    uint64_t updated_ns; /* when; 0: never */
    uint64_t ordinal;    /* updates of steps with tokens */
};

void pm_track_release(struct pm_track *track);

struct pm_tracked *pm_track_find(const struct pm_track *track, const char *id);
/* A new one; a request of the same id that was left behind is forgotten. NULL without memory or
 * past the ceiling. */
struct pm_tracked *pm_track_add(struct pm_track *track, const char *id);
void pm_track_remove(struct pm_track *track, struct pm_tracked *tracked);

/* It gives an output in the step, or ceases to. */
void pm_track_gives(struct pm_track *track, struct pm_tracked *tracked, uint64_t step, bool gives);
/* Its run ends with the last step that had tokens; drops: with the last whose output was taken in.
 */
void pm_track_ends(struct pm_track *track, struct pm_tracked *tracked, bool drops);
/* A turn ended inside the update that follows. */
void pm_track_turn(struct pm_track *track, struct pm_tracked *tracked, bool in_update);

/* The output of a step with tokens was taken in at at_ns. gap: told of gaps between two runs. */
PM_MUST_USE int pm_track_updated(struct pm_track *track, const struct pm_update_step *fact,
                                 uint64_t at_ns,
                                 int (*gap)(uint64_t gap_ns, uint32_t count, void *arg), void *arg);

/* Its run as far as it has come goes into its outputs, last output and longest gap. */
void pm_track_settle(const struct pm_track *track, struct pm_tracked *tracked);

#endif
