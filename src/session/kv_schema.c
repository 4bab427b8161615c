/* See kv_schema.h: the KV cache's facts, field by field, as they are written into every file. */
#include "session/kv_schema.h"

#include "session/kv_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_kv_step, member, type, unit, kind, agg, doc)
static const struct pm_field kv_step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, from 0 per scheduler"),
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "schedule() returned"),
    F(total, U32, "blocks", GAUGE, PM_AGG_SUM, "blocks that requests can have"),
    F(used, U32, "blocks", GAUGE, PM_AGG_HIST, "held by requests"),
    F(evictable, U32, "blocks", GAUGE, PM_AGG_NONE, "free, but still in the prefix cache"),
    F(peak, U32, "blocks", GAUGE, PM_AGG_NONE, "most held in any step so far"),
    F(allocated, U32, "blocks", COUNT, PM_AGG_SUM, "given out since the step before"),
    F(revived, U32, "blocks", COUNT, PM_AGG_SUM, "free cached blocks that a prefix hit took back into use"),
    F(freed, U32, "blocks", COUNT, PM_AGG_SUM, "that no request holds any longer"),
    F(evicted, U32, "blocks", COUNT, PM_AGG_SUM, "cached blocks that lost their contents"),
    F(dropped, U32, "blocks", COUNT, PM_AGG_SUM, "cached blocks that a reset of the prefix cache emptied"),
    F(queried_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "looked up in the prefix cache for requests that were admitted"),
    F(hit_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "of them, found"),
    F(requeried_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "looked up for requests that had been preempted"),
    F(rehit_tokens, U32, "tokens", COUNT, PM_AGG_SUM, "of them, found"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process"),
    F(flags, U16, "", FLAGS, PM_AGG_NONE, "1: prefix caching is on"),
};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_kv_eviction, member, type, unit, kind, agg, doc)
static const struct pm_field kv_eviction_fields[] = {
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "the block lost its contents"),
    F(step, U64, "", ID, PM_AGG_NONE, "the step that was being scheduled, or comes next"),
    F(lifetime_ns, U64, "ns", DURATION, PM_AGG_HIST, "since the block was given out; 0: that was not seen"),
    F(idle_ns, U64, "ns", DURATION, PM_AGG_HIST, "since its last use: given out, hit, or given back"),
    F(block, U32, "", ID, PM_AGG_NONE, "the block's id in the pool"),
    F(reuses, U32, "hits", COUNT, PM_AGG_SUM, "prefix hits since it was given out"),
    F(request, STR, "", ID, PM_AGG_NONE, "the last request that gave it back"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process"),
    F(group, U8, "", ID, PM_AGG_NONE, "KV cache group"),
    F(cause, U8, "", ID, PM_AGG_NONE, "0 given out again, 1 declared void"),
};
#undef F
/* clang-format on */

const struct pm_schema pm_kv_step_schema = {
    .name = "kv_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_kv_step),
    .classes = 1,
    .doc =
        "One per Scheduler.schedule: the KV cache's levels and what moved since the step before.",
    .fields = kv_step_fields,
    .n_fields = sizeof kv_step_fields / sizeof *kv_step_fields,
};

const struct pm_schema pm_kv_eviction_schema = {
    .name = "kv_eviction",
    .stream = PM_STREAM_BLOCKS,
    .payload_bytes = sizeof(struct pm_kv_eviction),
    .classes = 1,
    .doc = "One for each cached block that lost its contents.",
    .fields = kv_eviction_fields,
    .n_fields = sizeof kv_eviction_fields / sizeof *kv_eviction_fields,
};
