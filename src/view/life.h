/*
 * Requests and preemptions of an engine: what its files, the table `requests` and the reports need
 * of one walk (life.c). Owns its samples.
 */
#ifndef PM_VIEW_LIFE_H
#define PM_VIEW_LIFE_H

#include "reader/requests.h"
#include "view/common.h"

/* Times between outputs, each with how many requests had it: gap_ns << 16 | count, a word each,
 * since a day has tens of millions of them. */
struct pm_gap_samples {
    uint64_t *held;
    size_t n, capacity;
    uint64_t count;
};

enum pm_life_time {
    PM_LIFE_QUEUE, /* queued to started */
    PM_LIFE_TTFT,  /* arrived to first output */
    PM_LIFE_TPOT,  /* of requests with two output tokens or more */
    PM_LIFE_E2E,   /* arrived to finished, of those that were not aborted */
    PM_LIFE_TIMES,
};

struct pm_lives {
    uint64_t requests; /* told of in detail */
    uint64_t finished[PM_FINISH_COUNT];
    uint64_t open, never_ran; /* not over; over (or not) without having been scheduled */
    uint64_t prompt_tokens, cached_tokens, output_tokens, recomputed_tokens, lost_tokens;
    uint64_t preempted_requests; /* at least once */
    uint64_t preemptions[PM_PREEMPT_COUNT];
    uint64_t running_ns; /* before preemptions, added up */
    uint64_t resumes, away_ns, longest_away_ns;
    struct pm_samples times[PM_LIFE_TIMES];
    struct pm_gap_samples gaps; /* between outputs: ITL */
    struct pm_stats stats[PM_LIFE_TIMES], itl;
    bool recycled;    /* older detail had to go … */
    bool from_totals; /* … and the next two are exact all the same */
    uint64_t total_requests, total_preemptions;
    uint64_t open_preemptions; /* of those that are not over */
};

struct pm_outfile;

/* Walks the requests of an engine (one that does not exist has none). Each event becomes a row of
 * preemption_events.csv, each request one of request_lifecycle.csv, where the files are not NULL.
 * Release with pm_lives_release, whatever it returned. */
PM_MUST_USE int pm_lives_walk(const struct pm_session *session, size_t engine,
                              struct pm_outfile *events, struct pm_outfile *lifecycle,
                              struct pm_lives *ret_lives);
void pm_lives_release(struct pm_lives *lives);

/* preemption_summary.json. */
void pm_lives_summary(struct pm_json *json, const struct pm_lives *lives);

/* Weighted statistics, by linear interpolation between ranks as pm_samples_stats; sorts what is
 * held. */
void pm_gap_stats(struct pm_gap_samples *gaps, struct pm_stats *ret_stats);
PM_MUST_USE int pm_gap_add(struct pm_gap_samples *gaps, uint64_t gap_ns, uint64_t count);

#endif
