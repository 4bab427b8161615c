/*
 * Requests of a session, one engine at a time: those that are over as the engine core recorded
 * them, and those that are not (a running or a killed server) as the steps tell.
 *
 * Definitions. An output is what a step gives of a request, its moment the return of
 * Scheduler.update_from_output. ITL is the time between two outputs of one turn, TPOT is
 * (last output - first output) / (output tokens - 1), TTFT is arrival to first output as the engine
 * core sees it: what the front end does before and after is not in it.
 */
#ifndef PM_READER_REQUESTS_H
#define PM_READER_REQUESTS_H

#include "reader/reader.h"
#include "session/request_facts.h"

#define PM_REQUEST_ID_MAX 257 /* the recorder keeps 256 bytes */

/* fact.request is meaningless here. For one that is not over: fact.state says how it stands,
 * durations that cannot be known are 0, output_tokens is what its outputs were, one token each. */
struct pm_request {
    char id[PM_REQUEST_ID_MAX];
    struct pm_request_fact fact;
    uint64_t outputs;    /* how many; 0 where not known */
    bool outputs_known;  /* its outputs were followed from the first one on */
    uint64_t ended_fact; /* number of the fact that told its end; of one that is not over: 0 */
};

enum pm_moment_kind {
    PM_MOMENT_STARTED,
    PM_MOMENT_PREEMPTED,
    PM_MOMENT_RESUMED,
    PM_MOMENT_FINISHED,
};

/* Something that happened to a request, in the order of the records. */
struct pm_request_moment {
    enum pm_moment_kind kind;
    uint64_t at_ns;
    uint64_t running_ns; /* preempted, finished: since it started or was resumed last; 0: was not */
    uint64_t away_ns;    /* resumed: since it was preempted */
    uint64_t step;       /* its number */
    uint32_t tokens;     /* started, resumed: found in the prefix cache; preempted: lost */
    uint32_t blocks;     /* preempted: KV blocks that it held */
    uint8_t reason;      /* preempted: enum pm_preempt_reason; finished: enum pm_finish_reason */
    const struct pm_request *request; /* as known at that moment */
};

/* What a reader of requests may want to see on the way; either may be NULL. Returns 0, or a failure
 * that ends the walk. */
struct pm_request_watch {
    int (*moment)(const struct pm_request_moment *moment, void *arg);
    /* count requests had so long between two outputs. */
    int (*gap)(uint64_t gap_ns, uint32_t count, void *arg);
    /* pm_requests_poll only: every record of the engine's process, before it is looked at, for
     * whoever follows a server and walks its records once. */
    int (*record)(const struct pm_record *record, void *arg);
    void *arg;
};

struct pm_requests;

/* watch (may be NULL) is copied. An engine of which no scheduler was found has no requests. */
PM_MUST_USE int pm_requests_open(struct pm_requests **ret_requests,
                                 const struct pm_session *session, size_t engine,
                                 const struct pm_request_watch *watch);
/* 1: *ret_request, in the order in which they ended, then those that are not over in the order in
 * which they came; 0: the end; < 0: error. */
PM_MUST_USE int pm_requests_next(struct pm_requests *requests, struct pm_request *ret_request);

/* Instead of pm_requests_next, to follow a server: 1: *ret_request has ended; 0: no more for now, a
 * later call goes on where this one stopped; < 0: error. */
PM_MUST_USE int pm_requests_poll(struct pm_requests *requests, struct pm_request *ret_request);
/* Right after the opening: walks from the segment that holds moment from_ns, or fact number `fact`,
 * whichever is the older one. Requests that had come before are known by its keyframe. */
void pm_requests_skip(struct pm_requests *requests, uint64_t from_ns, uint64_t fact);
/* Those that are not over, as far as was walked, in the order in which they came; durations up to
 * their last output. each returns false to end it. */
void pm_requests_open_ones(const struct pm_requests *requests,
                           bool (*each)(const struct pm_request *request, void *arg), void *arg);
void pm_requests_close(struct pm_requests *requests);

#endif
