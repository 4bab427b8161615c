/*
 * A small trace out of a large one: the events of a time range, byte for byte, with all that
 * stands around them. Used by the command; one thread. Reads the file twice.
 */
#ifndef PM_TRACE_CUT_H
#define PM_TRACE_CUT_H

#include "trace/tree.h"

struct pm_cut {
    const char *path, *out_path; /* out_path ending in .gz is compressed */
    int64_t from_ns, to_ns;      /* from the trace's first event on; ignored with a step */
    bool has_step;
    long step;               /* the number in ProfilerStep#N, else the n-th step from 0 on */
    const char *step_prefix; /* or NULL */
};

struct pm_cut_result {
    uint64_t events, kept;
    int64_t from_ns, to_ns; /* as above */
    uint64_t out_bytes;     /* of the file */
};

/* Kept are: CPU events that overlap the range; work on devices that was launched in it, also when
 * it ran later; everything without a time. The output appears under its name once it is whole.
 * -PM_ENOTFOUND when there is no such step. The sentence is in err. */
PM_MUST_USE int pm_trace_cut(const struct pm_cut *cut, struct pm_cut_result *ret,
                             struct pm_error *err);

#endif
