/*
 * What sizes explain of times within a composition (match.h): fits, then moves every observation to
 * the composition's mean size. Called by match.c; changes the cells.
 */
#ifndef PM_COMPARE_SLOPES_H
#define PM_COMPARE_SLOPES_H

#include "compare/match.h"

/* places: by stratum, its number among the matched ones, or PM_STRATUM_NONE. */
PM_MUST_USE int pm_slopes_apply(struct pm_match *match, const uint32_t *places, uint32_t n_strata);

#endif
