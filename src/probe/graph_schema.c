/* The schemas of the CUDA graph facts (see graph_schema.h). */
#include "probe/graph_schema.h"

/* clang-format off */
#define DESC(record, member_, type_, doc_) {.name = #member_, .type = PM_TYPE_##type_, .offset = offsetof(struct record, desc.member_), .unit = "", .kind = PM_KIND_ID, .agg = PM_AGG_NONE, .doc = doc_}
#define DESCRIPTOR(record)                                                                  \
    DESC(record, num_tokens, U32, "the descriptor's tokens"),                               \
    DESC(record, num_reqs, I32, "the descriptor's requests; -1: None"),                     \
    DESC(record, num_active_loras, U16, "the descriptor's active LoRA adapters"),           \
    DESC(record, variant, U16, "tells graphs apart that are alike in all the rest"),        \
    DESC(record, mode, U8, "0 NONE, 1 PIECEWISE, 2 FULL, 3 an encoder's"),                  \
    DESC(record, uniform, U8, "for batches whose requests have as many tokens each"),       \
    DESC(record, has_lora, U8, "for batches with LoRA adapters"),                           \
    DESC(record, holder, U8, "1 CUDAGraphWrapper, 2 CudaGraphManager, 3 a drafter's, 4 breakable, 5 microbatches, 6 an encoder's, 0 none or unknown")

#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_graph_capture, member, type, unit, kind, agg, doc)
static const struct pm_field capture_fields[] = {
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "the capture of its first piece began"),
    F(dur_ns, U64, "ns", DURATION, PM_AGG_SUM, "to the end of its last piece's, what ran between them included"),
    F(capture_ns, U64, "ns", DURATION, PM_AGG_SUM, "inside the captures of its pieces alone"),
    DESCRIPTOR(pm_graph_capture),
    F(pieces, U32, "graphs", COUNT, PM_AGG_SUM, "graph objects that it is made of"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(when, U8, "", ID, PM_AGG_NONE, "0 at start-up, 1 at run time, 2 again by vLLM's own capturing after steps had been run"),
};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_graph_pass, member, type, unit, kind, agg, doc)
static const struct pm_field pass_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step"),
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "the replay of the first piece began; eager: the model did"),
    F(dur_ns, U32, "ns", DURATION, PM_AGG_SUM, "first piece's begin to last piece's end, host clock; 0: eager"),
    F(launch_ns, U32, "ns", DURATION, PM_AGG_SUM, "inside the replays of its pieces alone; 0: not timed"),
    F(tokens, U32, "tokens", COUNT, PM_AGG_SUM, "scheduled; 0 beside the step's model"),
    F(padding, U32, "tokens", COUNT, PM_AGG_SUM, "computed for nothing"),
    DESCRIPTOR(pm_graph_pass),
    F(pieces, U16, "graphs", COUNT, PM_AGG_SUM, "graph objects replayed"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(outcome, U8, "", ID, PM_AGG_CLASS, "0 piecewise, 1 full, 2 captured, 3 aside; eager: 4 unknown why, 5 skip_compiled, 6 no_descriptor, 7 too_large, 8 not_uniform, 9 dispatched_none, 10 not_replayed"),
};
#undef F
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_graph_usage, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field usage_fields[] = {
    F(replays, U64, "replays", GAUGE, "since the process began"),
    DESCRIPTOR(pm_graph_usage),
    F(instance, U16, "", ID, "n-th worker of the process"),
};
#undef F
/* clang-format on */

const struct pm_schema pm_graph_capture_schema = {
    .name = "graph_capture",
    .stream = PM_STREAM_KEEP, /* a few hundred at start-up, wanted for the whole run */
    .payload_bytes = sizeof(struct pm_graph_capture),
    .classes = 1,
    .doc = "One per CUDA graph that was captured to be kept, its pieces together.",
    .fields = capture_fields,
    .n_fields = sizeof capture_fields / sizeof *capture_fields,
};

const struct pm_schema pm_graph_pass_schema = {
    .name = "graph_pass",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_graph_pass),
    .classes = PM_GRAPH_OUTCOMES_COUNT,
    .doc =
        "How the model of each step was run where CUDA graphs are on: from which, or why eagerly.",
    .fields = pass_fields,
    .n_fields = sizeof pass_fields / sizeof *pass_fields,
};

const struct pm_schema pm_graph_usage_schema = {
    .name = "graph_usage",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_graph_usage),
    .classes = 1,
    .doc = "Replays of each CUDA graph so far, told again at the head of each segment.",
    .fields = usage_fields,
    .n_fields = sizeof usage_fields / sizeof *usage_fields,
};
