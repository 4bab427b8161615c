/* See device_facts.h: its records, field by field, as they are written into every file. */
#include "session/device_facts.h"

#include "session/step_facts.h"

/* clang-format off */
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_device_step, member, type, unit, kind, agg, doc)
static const struct pm_field step_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step, as worker_step has it"),
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "the host recorded the model's first event"),
    F(gpu_ns, U64, "ns", DURATION, PM_AGG_HIST, "on the device: model start to model end"),
    F(wait_ns, U64, "ns", DURATION, PM_AGG_HIST, "on the device: end of the step before to model start; 0 with flag 1 off: not known"),
    F(after_ns, U32, "ns", DURATION, PM_AGG_HIST, "on the device: model end to the start of sampling"),
    F(sample_ns, U32, "ns", DURATION, PM_AGG_HIST, "on the device: sampling"),
    F(device, U16, "", ID, PM_AGG_NONE, "ordinal among the devices that the process sees"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(phase, U8, "", ID, PM_AGG_CLASS, "as far as the worker can tell: 1 prefill, 2 decode"),
    F(flags, U8, "", FLAGS, PM_AGG_NONE, "1 wait_ns is known, 2 after_ns and sample_ns are"),
};
#undef F
#define F(member, type, unit, kind, agg, doc) PM_FIELD(struct pm_device_miss, member, type, unit, kind, agg, doc)
static const struct pm_field miss_fields[] = {
    F(step, U64, "", ID, PM_AGG_NONE, "number of the step"),
    F(at_ns, U64, "ns", TIME, PM_AGG_NONE, "when it was given up"),
    F(instance, U16, "", ID, PM_AGG_NONE, "n-th worker of the process"),
    F(why, U8, "", ID, PM_AGG_CLASS, "0 too many steps under way, 1 a graph was captured, 2 no device in use or another one, 3 an error"),
    F(what, U8, "", ID, PM_AGG_NONE, "0 the step's own pairs, 1 the borders of its layers, 2 some of its collective operations"),
};
#undef F
/* clang-format on */

const struct pm_schema pm_device_step_schema = {
    .name = "device_step",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_device_step),
    .classes = PM_PHASE_CLASSES,
    .doc = "What the device's own events tell of a step, read back some steps later.",
    .fields = step_fields,
    .n_fields = sizeof step_fields / sizeof *step_fields,
};

const struct pm_schema pm_device_miss_schema = {
    .name = "device_miss",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct pm_device_miss),
    .classes = PM_DEVICE_MISS_COUNT,
    .doc = "What of a step has no times of the device, and why.",
    .fields = miss_fields,
    .n_fields = sizeof miss_fields / sizeof *miss_fields,
};
