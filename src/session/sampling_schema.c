/* See sampling_schema.h. */
#include "session/sampling_schema.h"

#include "session/sampling_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, doc) PM_FIELD(struct pm_sampling_mix, member, type, unit, kind, PM_AGG_NONE, doc)
#define SETTING(name, member, doc) F(member, U32, "requests", GAUGE, doc),
static const struct pm_field mix_fields[] = {
    F(step, U64, "", ID, "number of the step, from 0 per scheduler; holds until the next record"),
    F(at_ns, U64, "ns", TIME, "schedule() had returned"),
    F(requests, U32, "requests", GAUGE, "scheduled in the step"),
    F(unknown, U32, "requests", GAUGE, "of them, those whose settings could not be read"),
    PM_SAMPLING_SETTINGS(SETTING)
    F(instance, U16, "", ID, "n-th scheduler of the process"),
    F(flags, U8, "", FLAGS, "1 was switched off: nothing is known from here on"),
};
#undef SETTING
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_grammar_bitmask, member, type, unit, kind, agg, doc)
static const struct pm_field bitmask_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step that it is for"),
    F(start_ns, U64, "ns", TIME, PM_AGG_NONE, "grammar_bitmask was entered"),
    F(dur_ns, U32, "ns", DURATION, PM_AGG_HIST, "it took"),
    F(requests, U32, "requests", COUNT, PM_AGG_SUM, "held to a grammar in the step"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th scheduler of the process"),
};
#undef F
/* clang-format on */

const struct pm_schema pm_sampling_mix_schema = {
    .name = "sampling_mix",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_sampling_mix),
    .classes = 1,
    .doc = "Which sampling settings the requests of a batch ask for, where that changes.",
    .fields = mix_fields,
    .n_fields = sizeof mix_fields / sizeof *mix_fields,
};

const struct pm_schema pm_grammar_bitmask_schema = {
    .name = "grammar_bitmask",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_grammar_bitmask),
    .classes = 1,
    .doc = "What the engine core takes to fill the bitmasks of structured outputs, step by step.",
    .fields = bitmask_fields,
    .n_fields = sizeof bitmask_fields / sizeof *bitmask_fields,
};
