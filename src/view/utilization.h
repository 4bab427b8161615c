/*
 * How full an engine's batches were (utilization.c). Per cent of the scheduler's limits, added up
 * over steps with tokens.
 */
#ifndef PM_VIEW_UTILIZATION_H
#define PM_VIEW_UTILIZATION_H

#include "session/step_facts.h"
#include "view/common.h"

struct pm_utilization {
    uint64_t rows;    /* steps held in detail */
    uint64_t samples; /* steps that the figures are of: all, where the totals know the rest */
    uint64_t phase_samples[PM_PHASE_CLASSES];
    double seq_pct, token_pct; /* sums */
    double phase_token_pct[PM_PHASE_CLASSES];
    uint64_t underutilized;            /* steps with less than half the tokens that they may have */
    uint32_t max_requests, max_tokens; /* 0: not known */
    bool recycled;                     /* older steps had to go … */
    bool from_totals;                  /* … and the figures are those of the totals */
};

struct pm_outfile;

/* Walks the steps of an engine (one that does not exist has none); each with tokens also becomes a
 * CSV row where file is not NULL. */
PM_MUST_USE int pm_utilization_walk(const struct pm_session *session, size_t engine,
                                    struct pm_outfile *file, struct pm_utilization *ret_sums);

void pm_utilization_summary(struct pm_json *json, const struct pm_utilization *sums);

#endif
