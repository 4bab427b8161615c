/* See moe_schema.h: the facts of mixture-of-experts layers, field by field, as they are written
 * into every file. */
#include "session/moe_schema.h"

#include "session/moe_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_moe_layer, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field layer_fields[] = {
    F(at_ns, U64, "ns", TIME, "the model was loaded"),
    F(name, STR, "", ID, "vLLM's name of the layer"),
    F(layer, U32, "", ID, "the number in that name"),
    F(experts, U32, "experts", GAUGE, "logical experts, of all ranks"),
    F(top_k, U32, "experts", GAUGE, "chosen per token"),
    F(instance, U16, "", ID, "n-th worker of the process"),
    F(slot, U16, "", ID, "n-th MoE layer of that worker: what the other tables name it by"),
    F(seen, U8, "", ID, "selections: 0 not seen, 1 on the host, 2 inside the compiled graph, 3 on the device"),
    F(why, U8, "", ID, "why not seen: 1 compiled, 2 device work, 3 kernel bypasses the router, 4 no hook, 5 rows cannot be told apart, 6 failed"),
    F(pairs, U8, "", ID, "1: co-selection is kept"),
    F(timed, U8, "", ID, "1: calls are timed"),
};
#undef F
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_moe_time, member, type, unit, kind, PM_AGG_NONE, doc)
static const struct pm_field time_fields[] = {
    F(at_ns, U64, "ns", TIME, "the layer was entered"),
    PM_FIELD(struct pm_moe_time, dur_ns, U32, "ns", DURATION, PM_AGG_HIST, "it took, on the host"),
    F(tokens, U32, "tokens", COUNT, "in the step"),
    F(instance, U16, "", ID, "n-th worker of the process"),
    F(slot, U16, "", ID, "n-th MoE layer of that worker"),
};
#undef F
#define CELL(record, i, type_) {.name = "n" #i, .type = PM_TYPE_##type_, .offset = offsetof(record, n) + (i) * sizeof(((record *)0)->n[0]), .unit = "selections", .kind = PM_KIND_COUNT, .agg = PM_AGG_NONE, .doc = "of cell first + " #i}
#define CELLS16(record, type_) \
    CELL(record, 0, type_), CELL(record, 1, type_), CELL(record, 2, type_), CELL(record, 3, type_), \
    CELL(record, 4, type_), CELL(record, 5, type_), CELL(record, 6, type_), CELL(record, 7, type_), \
    CELL(record, 8, type_), CELL(record, 9, type_), CELL(record, 10, type_), CELL(record, 11, type_), \
    CELL(record, 12, type_), CELL(record, 13, type_), CELL(record, 14, type_), CELL(record, 15, type_)
#define HEAD(record) \
    PM_FIELD(record, at_ns, U64, "ns", TIME, PM_AGG_NONE, "when it was told; the same in all records of one flush"), \
    PM_FIELD(record, first, U32, "", ID, PM_AGG_NONE, "first cell: an expert, or a pair in order of its experts"), \
    PM_FIELD(record, instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"), \
    PM_FIELD(record, slot, U16, "", ID, PM_AGG_NONE, "n-th MoE layer of that worker"), \
    PM_FIELD(record, what, U8, "", ID, PM_AGG_NONE, "0: selections of experts, 1: of pairs of experts by one token")
static const struct pm_field counts_fields[] = {
    HEAD(struct pm_moe_counts),
    CELLS16(struct pm_moe_counts, U32),
    CELL(struct pm_moe_counts, 16, U32), CELL(struct pm_moe_counts, 17, U32), CELL(struct pm_moe_counts, 18, U32), CELL(struct pm_moe_counts, 19, U32),
    CELL(struct pm_moe_counts, 20, U32), CELL(struct pm_moe_counts, 21, U32), CELL(struct pm_moe_counts, 22, U32), CELL(struct pm_moe_counts, 23, U32),
    CELL(struct pm_moe_counts, 24, U32), CELL(struct pm_moe_counts, 25, U32), CELL(struct pm_moe_counts, 26, U32), CELL(struct pm_moe_counts, 27, U32),
    CELL(struct pm_moe_counts, 28, U32), CELL(struct pm_moe_counts, 29, U32), CELL(struct pm_moe_counts, 30, U32), CELL(struct pm_moe_counts, 31, U32),
};
static const struct pm_field totals_fields[] = {
    HEAD(struct pm_moe_totals),
    CELLS16(struct pm_moe_totals, U64),
};
#define TABLE(name_, stream_, record, fields_, doc_) \
    {.name = (name_), .stream = PM_STREAM_##stream_, .payload_bytes = sizeof(record), .classes = 1, .doc = (doc_), .fields = (fields_), .n_fields = sizeof(fields_) / sizeof((fields_)[0])}
/* clang-format on */
_Static_assert(PM_MOE_DELTAS == 32 && PM_MOE_TOTALS == 16, "the cells above");

const struct pm_schema pm_moe_layer_schema =
    TABLE("moe_layer", CORE, struct pm_moe_layer, layer_fields,
          "One per MoE layer of a model: its size and whether its selections can be seen.");
const struct pm_schema pm_moe_counts_schema =
    TABLE("moe_counts", CORE, struct pm_moe_counts, counts_fields,
          "How often experts, or pairs of them, were selected since the last record of the cells.");
const struct pm_schema pm_moe_totals_schema =
    TABLE("moe_totals", CORE, struct pm_moe_totals, totals_fields,
          "The same since the model was loaded, at the head of a segment.");
const struct pm_schema pm_moe_time_schema =
    TABLE("moe_time", CUSTOM, struct pm_moe_time, time_fields,
          "One per call of an MoE layer that could be timed.");
