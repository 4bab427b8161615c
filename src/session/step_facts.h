/*
 * The step facts on disk: what the step probe records (src/probe/step.c) and the reader's join
 * follows by name (src/reader/steps.c). Pure C.
 *
 *   sched_step     engine core, one per Scheduler.schedule: number, composition, queues     (schema
 * "sched_step") step_request   engine core, one per change of membership in a step (schema
 * "step_request") worker_step    worker, one per executed step: number, times (schema
 * "worker_step") worker_sync    worker, where the step's output became known only later (async
 * outputs)  (schema "worker_sync")
 *
 * Steps are numbered from 0 per scheduler and per worker instance; every schedule() output goes to
 * execute_model in order, so that equal numbers mean the same step. The reader checks requests and
 * tokens of each pair. Phase: prefill when any scheduled request still computes prompt tokens, or
 * tokens lost to preemption, else decode.
 */
#ifndef PM_SESSION_STEP_FACTS_H
#define PM_SESSION_STEP_FACTS_H

#include <stdint.h>

enum pm_phase_class {
    PM_PHASE_EMPTY = 0, /* no token scheduled: has no row in the views */
    PM_PHASE_PREFILL = 1,
    PM_PHASE_DECODE = 2,
    PM_PHASE_CLASSES = 3,
};

enum pm_sched_flags {
    PM_SCHED_MIXED = 1, /* prefill and decode requests together */
};

struct pm_sched_step {
    uint64_t step;
    uint64_t start_ns; /* schedule() entered */
    uint32_t dur_ns;   /* schedule() took; saturates */
    uint16_t instance; /* n-th scheduler of this process */
    uint8_t phase;     /* enum pm_phase_class */
    uint8_t flags;     /* enum pm_sched_flags */
    uint32_t requests; /* scheduled, of all classes */
    uint32_t tokens;
    uint32_t prefill_requests, prefill_tokens;     /* prompt tokens, first time */
    uint32_t recompute_requests, recompute_tokens; /* tokens lost to a preemption */
    uint32_t decode_requests, decode_tokens;       /* draft tokens included */
    uint32_t spec_requests, spec_tokens; /* of the decodes: with drafts, and their draft tokens */
    uint32_t running, waiting;           /* queue lengths after schedule() */
    uint32_t joined, left; /* members that the step before did not have, and the reverse */
    uint32_t max_requests, max_tokens; /* the scheduler's limits of a step; 0: not known */
};

enum pm_request_event {
    PM_REQUEST_STARTED = 1,   /* first time scheduled */
    PM_REQUEST_RESUMED = 2,   /* scheduled again after a preemption */
    PM_REQUEST_CHUNK = 3,     /* another part of its prompt, or of what it lost */
    PM_REQUEST_JOINED = 4,    /* back in the batch after steps without it */
    PM_REQUEST_LEFT = 5,      /* not in this step, in the one before */
    PM_REQUEST_PREEMPTED = 6, /* lost its blocks in this step */
    PM_REQUEST_DECODING = 7,  /* first step as a decode */
    PM_REQUEST_PRESENT = 8,   /* keyframe: was in the batch when the segment began */
    PM_REQUEST_TURN = 9, /* a turn of its streaming session is over with the update under way */
};

enum pm_request_flags {
    PM_REQUEST_GIVES = 1, /* all known tokens are computed: this step gives an output, and so does
                             each one until it leaves */
    PM_REQUEST_DROPS = 2, /* preempted: outputs of steps still under way are not delivered */
};

struct pm_step_request {
    uint64_t step;
    uint64_t at_ns;
    uint32_t request;  /* string: the request's id */
    uint32_t tokens;   /* scheduled for it in this step */
    uint32_t computed; /* tokens computed before this step */
    uint16_t instance;
    uint8_t event;   /* enum pm_request_event */
    uint8_t phase;   /* of this request: PM_PHASE_PREFILL or PM_PHASE_DECODE; 0 when it left */
    uint32_t blocks; /* preempted: KV blocks that it held */
    uint8_t reason;  /* preempted: enum pm_preempt_reason (session/request_facts.h) */
    uint8_t flags;   /* enum pm_request_flags */
    uint16_t reserved;
};

enum pm_worker_flags {
    PM_WORKER_HAS_MODEL = 1,  /* model start and end were seen */
    PM_WORKER_HAS_SAMPLE = 2, /* sample_tokens was seen */
    PM_WORKER_ASYNC = 4,      /* the output is known only at worker_sync */
    PM_WORKER_DEVICE = 8,     /* runs on a device: host times are launches */
    PM_WORKER_FAILED = 16,    /* execute_model or sample_tokens raised */
    PM_WORKER_EVENTS = 32,    /* device events were recorded: a device_step follows */
};

struct pm_worker_step {
    uint64_t step;
    uint64_t start_ns;    /* execute_model entered */
    uint64_t model_ns_at; /* the model began */
    uint64_t gpu_ns;      /* device time of the model, where it is known at once (files of old);
                             0: see device_step */
    uint32_t pre_ns;      /* execute_model entry to model start */
    uint32_t model_ns;    /* model start to end, host clock */
    uint32_t post_ns;     /* model end to execute_model return */
    uint32_t sample_ns;   /* sample_tokens, 0 where the step has none */
    uint32_t total_ns;    /* execute_model entry to the end of the step, time between the two calls
                             included */
    uint32_t sync_ns;     /* model start to vLLM's own synchronisation of this step, 0: unknown here
                             (see worker_sync) */
    uint32_t requests;
    uint32_t tokens;
    uint16_t instance;
    uint8_t phase;  /* enum pm_phase_class as far as the worker can tell; the reader takes the
                       scheduler's */
    uint8_t runner; /* 1: gpu_model_runner, 2: the newer one */
    uint32_t flags; /* enum pm_worker_flags */
    /* Inside sample_tokens: when each began, in ns after start_ns, and how long it took; 0: not
     * seen. */
    uint32_t sampler_at_ns, sampler_ns;   /* logits to tokens (the newer runner computes the logits
                                             in it too) */
    uint32_t bookkeep_at_ns, bookkeep_ns; /* tokens into the runner's own state */
    uint32_t draft_at_ns, draft_ns;       /* proposing draft tokens */
};

struct pm_worker_sync {
    uint64_t step;
    uint64_t sync_at_ns; /* get_output returned */
    uint32_t instance;
    uint32_t reserved;
};

#endif
