/*
 * A session as a Chrome trace (the "Trace Event Format": JSON that chrome://tracing, Perfetto and
 * Speedscope load). Requests are threads of a made-up process for each engine; times are
 * microseconds since the session's start.
 */
#ifndef PM_VIEW_CHROME_TRACE_H
#define PM_VIEW_CHROME_TRACE_H

#include <stdio.h>

#include "reader/reader.h"

/* Streams to out. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_view_chrome(const struct pm_session *session, FILE *out, struct pm_error *err);

#endif
