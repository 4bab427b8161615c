/* See worker_schema.h. Constant data. */
#include "probe/worker_schema.h"

#include "session/step_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_worker_step, member, type, unit, kind, agg, doc)
static const struct pm_field worker_step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, from 0 per worker"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "execute_model was entered"),
    F(model_ns_at, U64, "ns", TIME, PM_AGG_NONE, "the model began; 0: it did not run"),
    F(gpu_ns, U64, "ns", DURATION, PM_AGG_HIST, "device time of the model; 0: not measured"),
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
    F(flags, U32, "", FLAGS, PM_AGG_NONE, "1 model seen, 2 sampling seen, 4 asynchronous output, 8 on a device, 16 failed"),
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
/* clang-format on */

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
