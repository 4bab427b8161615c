/*
 * A report's parts on requests, utilization and the host's operations (host_report.c). Sections
 * that have nothing to say are left out.
 */
#ifndef PM_VIEW_HOST_REPORT_H
#define PM_VIEW_HOST_REPORT_H

#include "view/common.h"

/* Adds them to a report's text, of an engine and worker n of it. */
PM_MUST_USE int pm_host_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                    bool colour, struct pm_buf *buf);
/* Members "requests", "utilization" and "host_operations" of the open object. */
PM_MUST_USE int pm_host_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                    struct pm_json *json);

#endif
