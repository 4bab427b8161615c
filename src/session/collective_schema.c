/* See collective_schema.h. */
#include "session/collective_schema.h"

#include "session/collective_facts.h"

/* clang-format off */
#define OPERATIONS "0 all_reduce, 1 all_gather, 2 reduce_scatter, 3 gather, 4 broadcast, 5 send, 6 recv, 7 dispatch, 8 combine"
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_collective_step, member, type, unit, kind, agg, doc)
static const struct pm_field step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, as worker_step has it; outside of steps: of the next one"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "the first call began"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_HIST, "of all its calls, host clock"),
    F(bytes, U64, "bytes", COUNT, PM_AGG_SUM, "of the tensors that this rank gave, or was given"),
    F(calls, U32, "calls", COUNT, PM_AGG_SUM, "of the operation in this step"),
    F(group, STR, "", ID, PM_AGG_NONE, "vLLM's name of the group of ranks"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(operation, U8, "", ID, PM_AGG_CLASS, OPERATIONS),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1 a call raised, 2 outside of steps, 4 on a device: times are those of launches"),
};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_collective_device, member, type, unit, kind, agg, doc)
static const struct pm_field device_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, as worker_step has it"),
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "the host recorded the first event of the step's operations"),
    F(device_ns, U64, "ns", DURATION, PM_AGG_HIST, "of these calls, by the device's events"),
    F(calls, U32, "calls", COUNT, PM_AGG_SUM, "with events; collective_step has all of them"),
    F(group, STR, "", ID, PM_AGG_NONE, "vLLM's name of the group of ranks"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(operation, U8, "", ID, PM_AGG_CLASS, OPERATIONS),
};
#undef F
#define DESC(member_, type_, doc_) {.name = #member_, .type = PM_TYPE_##type_, .offset = offsetof(struct pm_collective_capture, desc.member_), .unit = "", .kind = PM_KIND_ID, .agg = PM_AGG_NONE, .doc = doc_}
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_collective_capture, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field capture_fields[] = {
    F(at_ns, U64, "ns", TIME, "its first call in the capture began"),
    F(dur_ns, U64, "ns", DURATION, "the calls took, host clock; they ran nothing then"),
    F(bytes, U64, "bytes", COUNT, "of each replay"),
    DESC(num_tokens, U32, "the graph's descriptor's tokens"),
    DESC(num_reqs, I32, "the descriptor's requests; -1: None"),
    DESC(num_active_loras, U16, "the descriptor's active LoRA adapters"),
    DESC(variant, U16, "tells graphs apart that are alike in all the rest"),
    DESC(mode, U8, "0 NONE, 1 PIECEWISE, 2 FULL, 3 an encoder's"),
    DESC(uniform, U8, "for batches whose requests have as many tokens each"),
    DESC(has_lora, U8, "for batches with LoRA adapters"),
    DESC(holder, U8, "as graph_capture has it"),
    F(calls, U32, "calls", COUNT, "of each replay"),
    F(group, STR, "", ID, "vLLM's name of the group of ranks"),
    F(piece, U32, "", ID, "of the graph, from 0"),
    F(instance, U16, "", ID, "n-th worker of the process"),
    F(operation, U8, "", ID, OPERATIONS),
};
#undef F
/* clang-format on */

const struct pm_schema pm_collective_step_schema = {
    .name = "collective_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_collective_step),
    .classes = PM_COLLECTIVE_OPERATIONS_COUNT,
    .doc = "One per step, group of ranks and collective operation that Python called in it.",
    .fields = step_fields,
    .n_fields = sizeof step_fields / sizeof *step_fields,
};

const struct pm_schema pm_collective_device_schema = {
    .name = "collective_device",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_collective_device),
    .classes = PM_COLLECTIVE_OPERATIONS_COUNT,
    .doc = "What the device took for a step's collective operations, read back some steps later.",
    .fields = device_fields,
    .n_fields = sizeof device_fields / sizeof *device_fields,
};

const struct pm_schema pm_collective_capture_schema = {
    .name = "collective_capture",
    .stream = PM_STREAM_KEEP, /* told once, at start-up, wanted for the whole run */
    .payload_bytes = sizeof(struct pm_collective_capture),
    .classes = 1,
    .doc = "What collective operations each replay of a captured CUDA graph does, piece by piece.",
    .fields = capture_fields,
    .n_fields = sizeof capture_fields / sizeof *capture_fields,
};
