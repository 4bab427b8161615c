/*
 * Work that produced nothing: draft tokens that were rejected, tokens that graphs were padded with,
 * tokens computed again after a preemption; in tokens, and in the device's (or the model's) time.
 * Called by the seeds' export and by the reports.
 *
 * A step computes tokens + padding. The time of a cause is the pass's time by its share of them:
 * rejected / (tokens + padding) of forward_ns, and so on, as if each token of a step cost the same.
 * Where memory bounds a step (small decode batches) a token more costs less than that: the times
 * are upper bounds then.
 */
#ifndef PM_VIEW_WASTED_H
#define PM_VIEW_WASTED_H

#include "view/common.h"

enum pm_wasted_cause {
    PM_WASTED_DRAFTS,     /* proposed, verified, rejected */
    PM_WASTED_PADDING,    /* of CUDA graphs */
    PM_WASTED_RECOMPUTED, /* after a preemption */
    PM_WASTED_CAUSES
};

/* Of one worker of an engine. */
struct pm_wasted {
    uint64_t passes, timed; /* steps with tokens; of them, those with a time */
    uint64_t tokens;        /* computed: scheduled, and padding */
    uint64_t forward_ns;    /* of the timed ones */
    uint64_t cause_tokens[PM_WASTED_CAUSES];
    double cause_ns[PM_WASTED_CAUSES];
    uint64_t drafted, accepted; /* draft tokens verified, and accepted */
    uint64_t spec_steps;        /* with draft tokens */
    uint64_t draft_ns;          /* the host's time for proposing them */
    uint64_t clocks[4];         /* passes by pm_step.forward_clock */
    uint64_t rows;              /* of the file */
    bool recycled;              /* older steps had to go: all of the above is of those held */
};

struct pm_outfile;

/* Walks the steps of worker n of an engine, with what came out of them. Each with drafts also
 * becomes a row of spec_decode.csv where file is not NULL. */
PM_MUST_USE int pm_wasted_walk(const struct pm_session *session, size_t engine, unsigned n,
                               struct pm_outfile *file, struct pm_wasted *ret_wasted);

/* wasted_work.json, and the member of the JSON report. */
void pm_wasted_summary(struct pm_json *json, const struct pm_wasted *wasted);

/* Sections of the reports: nothing, and null, where nothing was wasted and nothing drafted. */
PM_MUST_USE int pm_wasted_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                      bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_wasted_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                      struct pm_json *json);

#endif
