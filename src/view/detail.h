/*
 * What a view says where older detail had to go, and where the totals can stand in for it
 * (detail.c).
 */
#ifndef PM_VIEW_DETAIL_H
#define PM_VIEW_DETAIL_H

#include "view/common.h"

/* The process of an engine's scheduler where some of its steps and requests had to go; NULL where
 * all are held, or none was found. */
const struct pm_process *pm_engine_recycled(const struct pm_session *session, size_t engine);

/* The totals of that process, where they are this engine's alone (it may have run several, one
 * after another). Free them with pm_totals_free. */
bool pm_engine_totals(const struct pm_session *session, size_t engine,
                      struct pm_totals *ret_totals);

/* The same for worker n of an engine. */
const struct pm_process *pm_worker_recycled(const struct pm_session *session, size_t engine,
                                            unsigned n);
bool pm_worker_totals(const struct pm_session *session, size_t engine, unsigned n,
                      struct pm_totals *ret_totals);

/* Members of a summary that is not made of every sample: "percentiles" as "histogram" with its
 * error, or as "held". None where nothing had to go. */
void pm_json_detail(struct pm_json *json, bool had_to_go, bool from_totals);

#endif
