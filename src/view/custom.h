/*
 * The calls of custom hooks (custom.c): custom_timing.csv and their part of the report.
 */
#ifndef PM_VIEW_CUSTOM_H
#define PM_VIEW_CUSTOM_H

#include "view/common.h"

/* Adds a section to a report's text, nothing where no custom hook was called. */
PM_MUST_USE int pm_custom_report(const struct pm_session *session, bool colour, struct pm_buf *buf);

#endif
