/* See step_schema.h: the facts of steps, field by field, as they are written into every file. */
#include "session/step_schema.h"

#include "session/request_facts.h"
#include "session/step_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_sched_step, member, type, unit, kind, agg, doc)
static const struct pm_field sched_step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, from 0 per scheduler"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "schedule() was entered"),
    F(dur_ns, U32, "ns", DURATION, PM_AGG_HIST, "schedule() took"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process"),
    F(phase, U8, "", ID, PM_AGG_CLASS, "0 no tokens, 1 prefill, 2 decode"),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1: prefill and decode requests together"),
    F(requests, U32, "requests", COUNT, PM_AGG_HIST, "scheduled requests"),
    F(tokens, U32, "tokens", COUNT, PM_AGG_HIST, "scheduled tokens"),
    F(prefill_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests with prompt tokens to compute for the first time"),
    F(prefill_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "prompt tokens computed for the first time"),
    F(recompute_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests with tokens to compute again after a preemption"),
    F(recompute_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens computed again after a preemption"),
    F(decode_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests that only decode"),
    F(decode_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens that are neither prompt nor recomputed, drafts included"),
    F(spec_requests, U32, "requests", COUNT, PM_AGG_SUM, "requests with draft tokens to verify"),
    F(spec_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "draft tokens to verify"),
    F(running, U32, "requests", GAUGE, PM_AGG_NONE, "running queue after schedule()"),
    F(waiting, U32, "requests", GAUGE, PM_AGG_NONE, "waiting queue after schedule()"),
    F(joined, U32, "requests", COUNT, PM_AGG_SUM, "members that the step before did not have"),
    F(left, U32, "requests", COUNT, PM_AGG_SUM, "members of the step before that this one does not have"),
    F(max_requests, U32, "requests", GAUGE, PM_AGG_NONE, "requests that a step may have; 0: not known"),
    F(max_tokens, U32, "tokens", GAUGE, PM_AGG_NONE, "tokens that a step may have; 0: not known"),
};
#undef F
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_step_request, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field step_request_fields[] = {
    F(step, U64, "", ID, "number of the step"),
    F(at_ns, U64, "ns", TIME, "schedule() had returned"),
    F(request, STR, "", ID, "id of the request"),
    F(tokens, U32, "tokens", COUNT, "scheduled for it in this step"),
    F(computed, U32, "tokens", GAUGE, "computed before this step"),
    F(instance, U16, "", ID, "n-th scheduler of the process"),
    F(event, U8, "", ID, "1 started, 2 resumed, 3 chunk, 4 joined, 5 left, 6 preempted, 7 decoding, 8 present, 9 turn over"),
    F(phase, U8, "", ID, "1 prefill, 2 decode, 0 when it left"),
    F(blocks, U32, "blocks", COUNT, "preempted: KV blocks that it held"),
    F(reason, U8, "", ID, "preempted: 1 KV cache exhausted, 2 cache reset"),
    F(flags, U8, "", FLAGS, "1 gives an output from this step on, 2 preempted: outputs under way are dropped"),
};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_worker_step, member, type, unit, kind, agg, doc)
static const struct pm_field worker_step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, from 0 per worker"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "execute_model was entered"),
    F(model_ns_at, U64, "ns", TIME, PM_AGG_NONE, "the model began; 0: it did not run"),
    F(gpu_ns, U64, "ns", DURATION, PM_AGG_HIST, "device time of the model, known at once; 0: see device_step"),
    F(pre_ns, U32, "ns", DURATION, PM_AGG_HIST, "execute_model entered to model start"),
    F(model_ns, U32, "ns", DURATION, PM_AGG_HIST, "model start to model end, host clock"),
    F(post_ns, U32, "ns", DURATION, PM_AGG_HIST, "model end to the return of execute_model"),
    F(sample_ns, U32, "ns", DURATION, PM_AGG_HIST, "sample_tokens; 0: the step has none"),
    F(total_ns, U32, "ns", DURATION, PM_AGG_HIST, "execute_model entered to the end of the step"),
    F(sync_ns, U32, "ns", DURATION, PM_AGG_HIST, "model start to vLLM's own synchronisation of the step; 0: see worker_sync"),
    F(requests, U32, "requests", COUNT, PM_AGG_SUM, "requests in the step"),
    F(tokens, U32, "tokens", COUNT, PM_AGG_SUM, "tokens in the step"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(phase, U8, "", ID, PM_AGG_CLASS, "as far as the worker can tell: 0 no tokens, 1 prefill, 2 decode"),
    F(runner, U8, "", ID, PM_AGG_NONE, "1: gpu_model_runner, 2: the newer one, 0: neither was seen"),
    F(flags, U32, "", FLAGS, PM_AGG_NONE, "1 model seen, 2 sampling seen, 4 asynchronous output, 8 on a device, 16 failed, 32 a device_step follows"),
    F(sampler_at_ns, U32, "ns", GAUGE, PM_AGG_NONE, "from start_ns to the sampler's beginning"),
    F(sampler_ns, U32, "ns", DURATION, PM_AGG_HIST, "the sampler; 0: not seen"),
    F(bookkeep_at_ns, U32, "ns", GAUGE, PM_AGG_NONE, "from start_ns to the bookkeeping's beginning"),
    F(bookkeep_ns, U32, "ns", DURATION, PM_AGG_HIST, "tokens into the runner's state; 0: not seen"),
    F(draft_at_ns, U32, "ns", GAUGE, PM_AGG_NONE, "from start_ns to the beginning of drafting"),
    F(draft_ns, U32, "ns", DURATION, PM_AGG_HIST, "proposing draft tokens; 0: not seen"),
};
#undef F
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_worker_sync, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field worker_sync_fields[] = {
    F(step, U64, "", ID, "number of the step"),
    F(sync_at_ns, U64, "ns", TIME, "get_output returned: the step's output was known"),
    F(instance, U32, "", ID, "n-th worker of the process"),
};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_update_step, member, type, unit, kind, agg, doc)
static const struct pm_field update_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step whose output this was"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "update_from_output was entered"),
    F(gap_ns, U64, "ns", DURATION, PM_AGG_HIST, "to its return, since that of the update before"),
    F(dur_ns, U32, "ns", DURATION, PM_AGG_HIST, "update_from_output took"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process"),
    F(flags, U16, "", FLAGS, PM_AGG_NONE, "1 step unknown, 2 failed, 4 requests are followed, 8 with draft tokens"),
    F(outputs, U32, "requests", COUNT, PM_AGG_SUM, "requests that got an output"),
    F(continued, U32, "requests", COUNT, PM_AGG_SUM, "of them, those that had one from the step before as well"),
    F(output_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "output tokens"),
    F(finished, U32, "requests", COUNT, PM_AGG_SUM, "requests that ended with it"),
    F(drafted, U32, "tokens", COUNT, PM_AGG_SUM, "draft tokens verified"),
    F(accepted, U32, "tokens", COUNT, PM_AGG_SUM, "draft tokens accepted"),
};
#undef F
/* clang-format on */

const struct pm_schema pm_sched_step_schema = {
    .name = "sched_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_sched_step),
    .classes = PM_PHASE_CLASSES,
    .doc = "One per Scheduler.schedule: the step's number and composition.",
    .fields = sched_step_fields,
    .n_fields = sizeof sched_step_fields / sizeof *sched_step_fields,
};

const struct pm_schema pm_step_request_schema = {
    .name = "step_request",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_step_request),
    .classes = 1,
    .doc = "One per change of a step's membership.",
    .fields = step_request_fields,
    .n_fields = sizeof step_request_fields / sizeof *step_request_fields,
};

const struct pm_schema pm_worker_step_schema = {
    .name = "worker_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_worker_step),
    .classes = PM_PHASE_CLASSES,
    .doc = "One per step that a worker executed: where its time went.",
    .fields = worker_step_fields,
    .n_fields = sizeof worker_step_fields / sizeof *worker_step_fields,
};

const struct pm_schema pm_worker_sync_schema = {
    .name = "worker_sync",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_worker_sync),
    .classes = 1,
    .doc = "When the output of a step became known, where that was after the step had returned.",
    .fields = worker_sync_fields,
    .n_fields = sizeof worker_sync_fields / sizeof *worker_sync_fields,
};

const struct pm_schema pm_update_step_schema = {
    .name = "update_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_update_step),
    .classes = 1,
    .doc = "One per Scheduler.update_from_output: what came out of a step.",
    .fields = update_fields,
    .n_fields = sizeof update_fields / sizeof *update_fields,
};
