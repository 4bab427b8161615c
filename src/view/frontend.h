/*
 * The front end's operations (frontend.c), beyond the source of cpu_operations_timing.csv that
 * cpu_sources.def names.
 */
#ifndef PM_VIEW_FRONTEND_H
#define PM_VIEW_FRONTEND_H

#include "view/common.h"

/* Whether older operations of a front end of this group had to go. */
bool pm_frontend_recycled(const struct pm_session *session, size_t engine, unsigned n);

/* An operation's times since the start, from the totals; false where it is none of the front end's,
 * or was not seen. */
bool pm_frontend_stats(const struct pm_session *session, size_t engine, unsigned n,
                       const char *operation, struct pm_stats *ret_stats);

#endif
