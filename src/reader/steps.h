/*
 * Steps of a session: the scheduler's facts (who, how many) joined with the worker's (how long), by
 * step number and checked by their counts.
 *
 * Engines are numbered from 0: by data-parallel rank within one deployment, then in order of their
 * start. Within an engine, ranks are the workers' ranks.
 */
#ifndef PM_READER_STEPS_H
#define PM_READER_STEPS_H

#include "reader/reader.h"

struct pm_engine {
    unsigned number; /* 0, 1, … as in engine_<n>/ */
    const struct pm_process
        *process;      /* runs the scheduler; NULL: no scheduler's facts were found */
    unsigned instance; /* n-th scheduler of that process */
    unsigned n_ranks;  /* workers found */
};

/* Engines of the session and their workers. Lists live as long as the session. */
size_t pm_session_engine_count(const struct pm_session *session);
const struct pm_engine *pm_session_engine(const struct pm_session *session, size_t i);

/* The n-th worker of an engine (by rank): its process, its worker instance, its rank. 0 or
 * -PM_ENOTFOUND. */
PM_MUST_USE int pm_engine_worker(const struct pm_session *session, size_t engine, unsigned n,
                                 const struct pm_process **ret_process, unsigned *ret_instance,
                                 int *ret_rank);

struct pm_step {
    uint64_t step;
    bool has_sched, has_worker; /* which side was found */
    bool matched;               /* both, and their requests and tokens agree */
    uint64_t time_ns; /* of the row: the model's start, else execute_model's, else schedule()'s */
    unsigned phase;   /* enum pm_phase_class; the scheduler's, else the worker's own guess */
    bool phase_guessed;
    uint32_t requests, tokens;
    uint64_t forward_ns;   /* by the definition in the views: device time, else vLLM's sync, else
                              wall; 0: none */
    uint8_t forward_clock; /* 0 none, 1 wall, 2 sync, 3 events */
    /* from the scheduler */
    uint64_t sched_start_ns;
    uint32_t sched_ns;
    uint32_t prefill_requests, prefill_tokens, recompute_requests, recompute_tokens;
    uint32_t decode_requests, decode_tokens, spec_requests, spec_tokens;
    uint32_t running, waiting;
    bool mixed;
    /* from the worker */
    uint64_t worker_start_ns;
    uint32_t pre_ns, model_ns, post_ns, sample_ns, total_ns;
    uint32_t sampler_at_ns, sampler_ns, bookkeep_at_ns, bookkeep_ns, draft_at_ns,
        draft_ns; /* inside sample_tokens; …_at_ns after worker_start_ns */
    unsigned runner;
    bool failed;
    /* from the device's own events, which partition its time: wait, model, after, sample, wait, …
     */
    bool has_device, has_device_wait, has_device_sample;
    unsigned device;           /* ordinal */
    uint64_t device_model_ns;  /* model start to model end */
    uint64_t device_wait_ns;   /* end of the step before to this model's start */
    uint32_t device_after_ns;  /* model end to the start of sampling */
    uint32_t device_sample_ns; /* sampling */
};

struct pm_steps;

/* Steps of one engine as its n-th worker ran them (n counts from 0, in order of rank), in order of
 * step number. */
PM_MUST_USE int pm_steps_open(struct pm_steps **ret_steps, const struct pm_session *session,
                              size_t engine, unsigned n);
/* Of steps just opened: those of which all was recorded before this moment may be left out. Of the
 * steps whose schedule() began then or later both halves are found as without it; of some
 * before them one may be missing. */
void pm_steps_skip(struct pm_steps *steps, uint64_t from_ns);
/* 1: a step; 0: the end; < 0: error. */
PM_MUST_USE int pm_steps_next(struct pm_steps *steps, struct pm_step *ret_step);
/* Pairs whose counts differ, and facts without their other half (in the middle, not at the ends),
 * so far. */
void pm_steps_confess(const struct pm_steps *steps, uint64_t *ret_mismatched,
                      uint64_t *ret_sched_only, uint64_t *ret_worker_only);
void pm_steps_close(struct pm_steps *steps);

#endif
