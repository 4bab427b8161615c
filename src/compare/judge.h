/*
 * What compare.c's parts share: the input gathered, and who judges it. Not for other rooms.
 */
#ifndef PM_COMPARE_JUDGE_H
#define PM_COMPARE_JUDGE_H

#include "compare/collect.h"
#include "compare/compare.h"
#include "compare/match.h"

/* One engine of a session. */
struct pm_input_part {
    struct pm_collected collected;
    unsigned session;
};
struct pm_input_side {
    struct pm_input_part *parts;
    unsigned n_parts;
    struct pm_compared_session *sessions;
    unsigned n_sessions;
};
struct pm_compare_input {
    struct pm_known known;
    struct pm_strata step_strata, request_strata;
    struct pm_input_side sides[2];
};

/* Which steps have no match. Before pm_match_make, which changes the cells. */
PM_MUST_USE int pm_judge_unmatched(struct pm_comparison *all, const struct pm_side sides[2],
                                   const struct pm_strata *strata);
/* Estimates, draws, and calls what is sure. */
PM_MUST_USE int pm_judge(struct pm_comparison *all, struct pm_match *steps,
                         struct pm_match *requests);
/* How a side's sessions know the model's time. */
const char *pm_judge_clock(const struct pm_comparison *all, unsigned side);
void pm_judge_notes(struct pm_comparison *all, const struct pm_known *known);

#endif
