/*
 * Inside of the native tables: the joined steps, apart from the tables that follow schemas.
 */
#ifndef PM_VIEW_NATIVE_H
#define PM_VIEW_NATIVE_H

#include "view/rows.h"

#define PM_NATIVE_STEPS "steps"
#define PM_NATIVE_REQUESTS "requests"

/* The table of the joined steps of every engine and rank. */
PM_MUST_USE int pm_native_steps(struct pm_rows *rows, const struct pm_session *session);

/* The table of the requests of every engine (native_requests.c). */
PM_MUST_USE int pm_native_requests(struct pm_rows *rows, const struct pm_session *session);

#endif
