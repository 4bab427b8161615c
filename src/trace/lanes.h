/*
 * The timeline of a trace for a drawing: each thread's and stream's events as slices in rows,
 * thinned to a given number. Used by the page of `profilemate trace`; one thread. Owns its arrays;
 * names are strings of the trace.
 *
 * Where there are too many events, those shorter than a grain become blocks: a block stands for
 * all short events of a row within one grain, and says how many and how long they ran. Nothing
 * longer than the grain is ever left out or joined. In one stretch nothing is joined at all.
 */
#ifndef PM_TRACE_LANES_H
#define PM_TRACE_LANES_H

#include "trace/classes.h"
#include "trace/trace.h"

#define PM_LANES_DEPTH_MAX 64   /* rows of a track; what lies deeper is counted only */
#define PM_LANES_TRACKS_MAX 256 /* tracks, those with most events */

struct pm_lane_slice {
    int64_t ts_ns, dur_ns;
    int64_t busy_ns; /* the sum of its events; dur_ns where it is one */
    uint32_t name;   /* of the longest of them */
    uint32_t events;
    uint8_t depth;
    uint8_t kind;  /* enum pm_trace_kind of the longest */
    uint8_t class; /* of kernels and copies: the one with most time in it */
};

struct pm_lane {
    uint32_t track; /* of the trace */
    bool device;
    int32_t device_id; /* of a device's track */
    uint64_t stream;
    bool has_stream;
    uint64_t events;   /* all of them */
    uint64_t too_deep; /* of them, not drawn */
    unsigned depth;    /* rows */
    uint32_t first, n; /* slices */
};

struct pm_lanes {
    struct pm_lane *lanes; /* devices first, then by how many events they have */
    uint32_t n;
    uint32_t left_out; /* tracks */
    struct pm_lane_slice *slices;
    size_t n_slices;
    int64_t grain_ns;                   /* 0: every event is there */
    int64_t whole_from_ns, whole_to_ns; /* with a grain: from here to there every event is there */
};

/* About `most` slices at most; a track has one at least for each grain in which something ran.
 * from_ns to to_ns is what to show whole; it ends earlier where that would take more than a third
 * of the slices. */
PM_MUST_USE int pm_lanes_build(struct pm_lanes *lanes, const struct pm_trace *trace,
                               const struct pm_classes *classes, size_t most, int64_t from_ns,
                               int64_t to_ns);
void pm_lanes_release(struct pm_lanes *lanes);

#endif
