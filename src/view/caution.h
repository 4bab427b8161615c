/*
 * What makes a session's figures others than those of normal operation, told on every report.
 */
#ifndef PM_VIEW_CAUTION_H
#define PM_VIEW_CAUTION_H

#include <stddef.h>

#include "base/json.h"
#include "reader/reader.h"

/* The n-th, a sentence; NULL: no more. */
const char *pm_session_caution(const struct pm_session *session, size_t n);

/* All of them as elements of the JSON array that is open. */
void pm_put_cautions(struct pm_json *json, const struct pm_session *session);

#endif
