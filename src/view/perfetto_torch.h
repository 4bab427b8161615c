/*
 * A torch trace within a session's Perfetto trace, on the session's clock: Kineto's times are those
 * of CLOCK_REALTIME (`baseTimeNanoseconds` + `ts`), the session's of CLOCK_MONOTONIC, and each
 * recorded process read both clocks at one moment. Called by perfetto_trace.c.
 */
#ifndef PM_VIEW_PERFETTO_TORCH_H
#define PM_VIEW_PERFETTO_TORCH_H

#include <stdio.h>

#include "reader/reader.h"
#include "trace/trace.h"

/* What came of it. */
struct pm_torch_placed {
    uint64_t events;          /* slices that were written */
    uint64_t crowded;         /* left out: more overlapped on one track than it has lanes */
    int64_t begin_ns, end_ns; /* since the session's start */
    bool same_process;        /* one of the session's processes wrote the trace */
};

/* Streams packets to out, after those of the session. 0, -PM_EINVALID with a sentence where the
 * trace lies outside of the session's time, or -PM_E…. */
PM_MUST_USE int pm_perfetto_torch(const struct pm_session *session, const struct pm_trace *trace,
                                  FILE *out, struct pm_torch_placed *ret, struct pm_error *err);

#endif
