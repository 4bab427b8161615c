/*
 * What a trace suggests: the bottlenecks of the profiling guide and a few more, each with the
 * figures that it rests on and what to do. Used by the command; pure but for its texts.
 */
#ifndef PM_TRACE_FINDINGS_H
#define PM_TRACE_FINDINGS_H

#include "trace/gpu.h"
#include "trace/keys.h"

struct pm_finding {
    const char *id;     /* "cpu-bound" */
    const char *title;  /* "The GPU waits for the CPU" */
    char evidence[768]; /* a sentence with figures, without a full stop */
    const char *remedy; /* what to do */
    double weight;      /* share of the time that it concerns, 0 to 1: the order */
};

#define PM_FINDINGS_MAX 16

struct pm_findings {
    char where[32]; /* put before the evidence: "rank 3: ", or "" */
    struct pm_finding list[PM_FINDINGS_MAX];
    unsigned n;
};

/* Adds the findings of one trace; of two with one id the weightier one stays. keys hold its
 * averages (sorted in any way). */
void pm_findings_add(struct pm_findings *findings, const struct pm_trace *trace,
                     const struct pm_gpu *gpu, const struct pm_classes *classes,
                     const struct pm_keys *keys);

/* Of several ranks: each one's busy and collective time. */
struct pm_rank_times {
    int32_t rank;
    int64_t span_ns, compute_ns, collective_ns;
};
void pm_findings_add_ranks(struct pm_findings *findings, const struct pm_rank_times *ranks,
                           size_t n);

/* The weightiest first. */
void pm_findings_sort(struct pm_findings *findings);

#endif
