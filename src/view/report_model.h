/*
 * The figures of a report, computed once, shown as text or as JSON. Used by report_text.c and
 * report_json.c; owns its lists.
 */
#ifndef PM_VIEW_REPORT_MODEL_H
#define PM_VIEW_REPORT_MODEL_H

#include "view/common.h"
#include "view/device_report.h"
#include "view/kv.h"

/* Where a worker's time went, sums in ns over its steps with tokens, by the host's clock. */
struct pm_breakdown {
    uint64_t steps;
    uint64_t schedule_ns, pre_ns, model_ns, post_ns, sample_ns;
    uint64_t other_ns;           /* the rest of a step: between the worker's two calls */
    uint64_t idle_ns;            /* from the end of a step to the beginning of the next */
    uint64_t waited_schedule_ns; /* of idle: the next step's schedule() */
    uint64_t span_ns;            /* from the first step's beginning to the last one's end */
};

/* One worker of an engine. */
struct pm_rank_report {
    int rank;
    struct pm_forward forward;
    struct pm_stats stats[PM_FORWARD_PHASES];
    uint64_t forward_ns[PM_FORWARD_PHASES]; /* sums of the measured passes, of the detail held */
    uint64_t timed_tokens[PM_FORWARD_PHASES];
    const char *source;
    struct pm_breakdown breakdown;
    struct pm_device_sums device;
};

/* A level that is sampled once a step. */
struct pm_level {
    uint64_t count, sum, max;
};

struct pm_engine_report {
    unsigned number;
    unsigned sampler; /* place in ranks of the one that samples */
    struct pm_rank_report *ranks;
    unsigned n_ranks;
    /* The scheduler's steps. */
    uint64_t steps, prefill_steps, decode_steps, mixed_steps, empty_steps;
    uint64_t prefill_tokens, recompute_tokens, decode_tokens, spec_tokens;
    uint64_t preempted_steps; /* with tokens computed again */
    struct pm_level requests, tokens, running, waiting;
    struct pm_kv_sums kv;
};

struct pm_report {
    const struct pm_session *session;
    struct pm_sums sums;
    struct pm_account account;
    struct pm_engine_report *engines;
    size_t n_engines;
    struct pm_hook_state *hooks;
    size_t n_hooks;
    unsigned hooks_patched, hooks_fired, hooks_missing, hooks_off;
};

PM_MUST_USE int pm_report_make(struct pm_report *ret_report, const struct pm_session *session);
void pm_report_release(struct pm_report *report);

#endif
