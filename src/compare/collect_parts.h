/* The two walks of pm_collect_engine. Not for other rooms. */
#ifndef PM_COMPARE_COLLECT_PARTS_H
#define PM_COMPARE_COLLECT_PARTS_H

#include "compare/collect.h"

PM_MUST_USE int pm_collect_steps(const struct pm_session *session, size_t engine,
                                 const struct pm_known *known, struct pm_levels *levels,
                                 struct pm_collected *collected);
PM_MUST_USE int pm_collect_requests(const struct pm_session *session, size_t engine,
                                    const struct pm_levels *levels, struct pm_collected *collected);

#endif
