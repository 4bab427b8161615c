/*
 * What the device itself did, by its events: the figures of a worker's steps, as text and as JSON.
 * Used by report_model.c, report_text.c and report_json.c.
 */
#ifndef PM_VIEW_DEVICE_REPORT_H
#define PM_VIEW_DEVICE_REPORT_H

#include "base/buf.h"
#include "base/json.h"
#include "reader/steps.h"

/* Sums in ns over steps with device events. */
struct pm_device_sums {
    uint64_t steps, samples; /* with events; of them, with sampling */
    uint64_t model_ns, after_ns, sample_ns;
    uint64_t waits, wait_ns;           /* between steps, while requests were there */
    uint64_t without_work, no_work_ns; /* between steps, while there were none */
    uint64_t launch_ns;                /* the host's time for the model's calls of these steps */
    bool left;                         /* the step before left requests waiting */
};

/* Steps with tokens, in order. */
void pm_device_add(struct pm_device_sums *sums, const struct pm_step *step);

/* Nothing where no step had events. passes: all of the worker's. */
void pm_device_report_text(const struct pm_device_sums *sums, uint64_t passes, bool colour,
                           struct pm_buf *buf);

/* The member "device" of a rank: null without events. */
void pm_device_report_json(const struct pm_device_sums *sums, struct pm_json *json);

#endif
