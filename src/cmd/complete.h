/*
 * Completing a session: its records brought home, its files written. Used by `run` when its command
 * has ended and by `export`.
 */
#ifndef PM_CMD_COMPLETE_H
#define PM_CMD_COMPLETE_H

#include <stdbool.h>

#include "base/error.h"
#include "cmd/place.h"
#include "reader/reader.h"
#include "view/view.h"

/* Whether any process of the session still runs (holds its byte lock). */
bool pm_session_is_running(const struct pm_session *session);

/* Opens the session of a place. Records of ended processes that were kept on a local disk because
 * the session lies on a network file system are moved home first; a failure of that is told and
 * does not matter for reading. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_complete_open(const struct pm_place *place, struct pm_session **ret_session,
                                 struct pm_error *err);

#endif
