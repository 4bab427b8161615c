/*
 * From the facts of one engine of a session to the sums that are compared: its steps, then its
 * requests. Called by compare.c, one thread; streams, so that memory does not grow with the
 * session.
 */
#ifndef PM_COMPARE_COLLECT_H
#define PM_COMPARE_COLLECT_H

#include "compare/levels.h"
#include "compare/metrics.h"
#include "reader/steps.h"

/* What all sessions of a comparison know; sizes that one of them lacks match nothing apart. */
struct pm_known {
    bool sched;  /* the scheduler's account of each step */
    bool kv;     /* how full the KV cache was */
    bool detail; /* not made of files of old: which of a step's requests were prefills, what of a
                    step was sampling, what came out of it */
};

struct pm_collected {
    struct pm_tally steps, requests;
    uint64_t clocks[4];  /* steps by how the model's time is known (pm_step.forward_clock) */
    uint64_t left_out;   /* steps that failed, or whose halves do not agree */
    uint64_t span_ns;    /* first step to last */
    uint64_t n_requests; /* that were over, aborted ones left out */
    bool recycled;       /* older steps had to go */
};

/* Whether this engine has such facts. */
PM_MUST_USE int pm_collect_known(const struct pm_session *session, size_t engine,
                                 struct pm_known *ret_known);

/* Walks an engine. Release *ret_collected in any case. */
PM_MUST_USE int pm_collect_engine(const struct pm_session *session, size_t engine,
                                  const struct pm_known *known, struct pm_strata *step_strata,
                                  struct pm_strata *request_strata,
                                  struct pm_collected *ret_collected);
void pm_collected_release(struct pm_collected *collected);

/* For tests and for sources that are no session: one step after another, as the walk sees them. */
struct pm_step_beside {
    bool has_update, has_kv, has_pass, has_update_before;
    uint64_t update_start_ns, update_ns; /* update_from_output of this step */
    uint64_t before_start_ns, before_ns; /* … and of the one that ended last before it began */
    uint64_t gap_ns, outputs, continued, drafted, accepted;
    uint64_t kv_used, kv_total, kv_queried, kv_hits, block_tokens;
    uint64_t padding, graph_tokens;
    bool eager;
};
struct pm_step_walk {
    uint64_t last_end_ns;
    bool left; /* the last step left requests waiting, or with a part of their prompt */
};
void pm_step_observe(struct pm_step_walk *walk, const struct pm_known *known,
                     const struct pm_step *step, const struct pm_step_beside *beside,
                     struct pm_observation *ret_seen);

#endif
