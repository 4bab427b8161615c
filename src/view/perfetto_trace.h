/*
 * A session as a Perfetto trace (protobuf, https://perfetto.dev/docs/reference/trace-packet-proto),
 * for ui.perfetto.dev and trace_processor. Times are CLOCK_MONOTONIC, with a snapshot that tells
 * CLOCK_REALTIME.
 */
#ifndef PM_VIEW_PERFETTO_TRACE_H
#define PM_VIEW_PERFETTO_TRACE_H

#include <stdio.h>

#include "reader/reader.h"

/* Streams to out. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_view_perfetto(const struct pm_session *session, FILE *out, struct pm_error *err);

#endif
