/*
 * Bandwidth and compute: what each step computed and moved by the formula of compute_model.h, over
 * the time that it took: bandwidth_compute.csv, its summary, and the reports' part. Called by the
 * seeds' export and the reports.
 *
 * The time is the device's own for the model and what follows it up to sampling (the logits), where
 * there are events; else the forward time of the views, on a CPU with what follows it in
 * execute_model.
 */
#ifndef PM_VIEW_COMPUTE_H
#define PM_VIEW_COMPUTE_H

#include "view/common.h"
#include "view/compute_model.h"

/* Sums over steps of one phase. */
struct pm_compute_sums {
    uint64_t steps, tokens, dur_ns;
    struct pm_step_work work;
};

/* Of one worker of an engine. */
struct pm_compute {
    bool fits; /* the formula does, and the sizes are known; else why says why not */
    char why[128];
    struct pm_model_sizes sizes;
    bool has_peak;
    struct pm_device_peak peak;
    struct pm_compute_sums phases[PM_FORWARD_PHASES]; /* by enum pm_phase_class */
    uint64_t untold; /* steps whose contexts are not known, or without a time */
    uint64_t clocks[4];
    uint64_t rows; /* of the file */
};

struct pm_outfile;

/* Walks the steps of worker n; each that is told of also becomes a row of bandwidth_compute.csv
 * where file is not NULL. */
PM_MUST_USE int pm_compute_walk(const struct pm_session *session, size_t engine, unsigned n,
                                struct pm_outfile *file, struct pm_compute *ret_compute);

/* bandwidth_compute_summary.json, and the member of the JSON report. */
void pm_compute_summary(struct pm_json *json, const struct pm_compute *compute);

/* Sections of the reports: nothing, and null, where no step is told of. */
PM_MUST_USE int pm_compute_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                       bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_compute_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                       struct pm_json *json);

#endif
