/*
 * The facts of a request's life on disk: what the probes update_step and request_life record in the
 * engine core, and the reader follows by name (src/reader/requests.c). Pure C.
 *
 *   update_step      one per Scheduler.update_from_output: the step whose output it was, and what
 *                    came out
 *   request_queued   one when a request is added to the scheduler, and at each further turn of a
 *                    streaming session
 *   request          one when a request is over, with everything that is known of it
 *   request_open     the same at the head of a segment, for each that is not over
 *
 * Between the two a request is followed by the step_request facts (session/step_facts.h). Who is in
 * a batch is recorded when it changes, never once a step, so the moments of a request's outputs are
 * those of the updates of the steps that it was in: it gives an output in each step from the one
 * whose step_request fact has PM_REQUEST_GIVES to the last before it leaves, is preempted or is
 * over.
 *
 * The moment of an output is when update_from_output returned. Times are CLOCK_MONOTONIC ns, 0
 * where the thing did not happen.
 */
#ifndef PM_SESSION_REQUEST_FACTS_H
#define PM_SESSION_REQUEST_FACTS_H

#include <stdint.h>

enum pm_update_flags {
    PM_UPDATE_UNKNOWN_STEP = 1, /* of a schedule() that was not seen: step is meaningless */
    PM_UPDATE_FAILED = 2,       /* update_from_output raised */
    PM_UPDATE_LIVES = 4,        /* requests are followed: finished and continued are counted */
    PM_UPDATE_SPEC = 8,         /* there were draft tokens */
};

struct pm_update_step {
    uint64_t step;          /* of the same number as the sched_step whose output this was */
    uint64_t start_ns;      /* update_from_output entered */
    uint64_t gap_ns;        /* to its return, since that of the update before; 0: the first */
    uint32_t dur_ns;        /* it took; saturates */
    uint16_t instance;      /* n-th scheduler of the process */
    uint16_t flags;         /* enum pm_update_flags */
    uint32_t outputs;       /* requests that got an output */
    uint32_t continued;     /* of them, those that had one from the step before as well: gap_ns is
                               their time between two outputs */
    uint32_t output_tokens; /* tokens in them */
    uint32_t finished;      /* requests that ended with it */
    uint32_t drafted;       /* draft tokens verified, those that a grammar had ruled out left out */
    uint32_t accepted;      /* of them */
};

struct pm_request_queued {
    uint64_t at_ns;      /* add_request entered */
    uint64_t arrived_ns; /* when the front end got it (wall clock, converted); 0: not known */
    uint32_t request;    /* string: the request's id */
    uint32_t prompt_tokens;
    uint32_t max_tokens;
    int32_t priority;
    uint16_t instance;
    uint16_t turn;  /* 1; 2 and up: a streaming session goes on */
    uint32_t flags; /* enum pm_queued_flags */
};

enum pm_queued_flags {
    PM_QUEUED_IN_UPDATE = 1, /* a turn that begins as the one before ends, inside the update that
                                gives its last output */
};

enum pm_request_state {
    PM_REQUEST_STATE_WAITING = 1, /* never scheduled */
    PM_REQUEST_STATE_RUNNING = 2, /* scheduled, and not preempted since */
    PM_REQUEST_STATE_AWAY = 3,    /* preempted, not resumed yet */
    PM_REQUEST_STATE_FINISHED = 4,
};

/* Why a request ended: vLLM's FinishReason, by name. */
#define PM_FINISH_REASONS(X)                                                                       \
    X(NONE, "", "")                                                                                \
    X(STOP, "stop", "FINISHED_STOPPED")                                                            \
    X(LENGTH, "length", "FINISHED_LENGTH_CAPPED")                                                  \
    X(ABORT, "abort", "FINISHED_ABORTED")                                                          \
    X(ERROR, "error", "FINISHED_ERROR")                                                            \
    X(REPETITION, "repetition", "FINISHED_REPETITION")                                             \
    X(IGNORED, "length", "FINISHED_IGNORED")                                                       \
    X(OTHER, "other", "")
enum pm_finish_reason {
#define X(name, text, status) PM_FINISH_##name,
    PM_FINISH_REASONS(X)
#undef X
        PM_FINISH_COUNT
};

enum pm_preempt_reason {
    PM_PREEMPT_NONE = 0,
    PM_PREEMPT_EXHAUSTED = 1, /* inside schedule(): no free KV block */
    PM_PREEMPT_RESET = 2,     /* outside of it: the prefix cache was reset */
    PM_PREEMPT_COUNT = 3,
};

struct pm_request_fact {
    uint64_t arrived_ns;
    uint64_t queued_ns;
    uint64_t started_ns;         /* schedule() had returned with it for the first time */
    uint64_t first_token_ns;     /* its first output (a pooled one too) */
    uint64_t last_token_ns;      /* its last output so far */
    uint64_t finished_ns;        /* 0: not over yet */
    uint64_t first_preempted_ns; /* the first time … */
    uint64_t preempted_ns;       /* … and the last */
    uint64_t resumed_ns;         /* the last time */
    uint64_t away_ns;            /* preempted to resumed (or the end), added up */
    uint64_t longest_gap_ns;     /* between two outputs of one turn */
    uint64_t queue_ns;           /* queued to started */
    uint64_t ttft_ns;            /* arrived (where that is not known: queued) to first_token */
    uint64_t tpot_ns;            /* first_token to last_token, by the output tokens but one */
    uint64_t e2e_ns;             /* arrived (queued) to finished */
    uint64_t step;               /* newest step scheduled when it ended */
    uint32_t request;            /* string: the request's id */
    uint32_t prompt_tokens;      /* of the last turn's prompt */
    uint32_t cached_tokens;      /* of it, found in the prefix cache at the start */
    uint32_t output_tokens;      /* of all turns */
    uint32_t max_tokens;
    uint32_t recomputed_tokens; /* scheduled once more after preemptions */
    uint32_t lost_tokens;       /* that preemptions took, added up */
    uint32_t lost_blocks;       /* KV blocks held at preemptions, added up */
    uint32_t preemptions;
    int32_t priority;
    uint16_t instance;
    uint8_t state;  /* enum pm_request_state */
    uint8_t reason; /* enum pm_finish_reason */
    uint16_t turns;
    uint8_t giving; /* request_open: it gives an output in every step now */
    uint8_t reserved;
};

/* The words of a finish reason ("" for none, "other" for one that is not known here). */
static inline const char *pm_finish_reason_text(unsigned reason)
{
    switch (reason) {
#define X(name, text, status)                                                                      \
    case PM_FINISH_##name:                                                                         \
        return text;
        PM_FINISH_REASONS(X)
#undef X
    default:
        return "other";
    }
}

static inline const char *pm_preempt_reason_text(unsigned reason)
{
    return reason == PM_PREEMPT_EXHAUSTED ? "kv_cache_exhausted"
           : reason == PM_PREEMPT_RESET   ? "cache_reset"
                                          : "";
}

#endif
