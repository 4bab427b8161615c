/*
 * Collective operations of one worker: per step, group of ranks and operation what Python called
 * (collective_step), what the device took for it where it has
 * events (collective_device), and what the replays of CUDA graphs did again (collective_capture,
 * times the replays that graph_pass tells). The walk is collective.c; its files and its part of the
 * reports are collective_report.c.
 */
#ifndef PM_VIEW_COLLECTIVE_H
#define PM_VIEW_COLLECTIVE_H

#include "session/collective_facts.h"
#include "view/common.h"
#include "view/outfile.h"

#define PM_COLLECTIVE_GROUP_MAX 64
#define PM_COLLECTIVE_ROWS_MAX 256u /* groups times operations; others are not told apart */

/* One operation of one group. */
struct pm_collective_row {
    char group[PM_COLLECTIVE_GROUP_MAX]; /* "tp"; "tp:1" where there are several */
    unsigned operation;                  /* enum pm_collective_operation */
    struct pm_samples samples;           /* the host's time per step; until the walk's end */
    struct pm_samples device_samples;    /* … and the device's */
    struct pm_stats stats;               /* of the device's where there are any, else the host's */
    uint64_t calls, bytes, host_ns;      /* called by Python, of the detail held */
    uint64_t timed_calls, total_ns;      /* of these, by the clock that the stats are of */
    uint64_t device_calls, device_ns;    /* in steps all of whose calls have events */
    uint64_t captured_calls, captured_bytes; /* of graphs, times their replays */
    uint64_t failed;                         /* steps in which a call raised */
};

struct pm_collectives {
    struct pm_collective_row *rows; /* in the order in which they were met */
    size_t n_rows;
    uint64_t lines; /* of collective_timing.csv */
    uint64_t calls, bytes, host_ns, timed_calls, total_ns, captured_calls,
        captured_bytes;                    /* sums over the rows */
    uint64_t outside_calls, outside_bytes; /* between steps: start-up, warm-up, dummy steps */
    bool device;                           /* the worker runs on one: the host's are launches */
    bool by_device;                        /* times are the device's own, by its events */
    bool recycled;                         /* older steps had to go */
};

/* Walks the facts of worker n of an engine (one that does not exist has none); each step, group and
 * operation also becomes a row of collective_timing.csv where file is not NULL. Release
 * *ret_collectives in any case. */
PM_MUST_USE int pm_collective_walk(const struct pm_session *session, size_t engine, unsigned n,
                                   struct pm_outfile *file, struct pm_collectives *ret_collectives);
void pm_collective_release(struct pm_collectives *collectives);

/* Whose the times are: "device", "launch" (the host's, on a device without events), "host". */
const char *pm_collective_clock(const struct pm_collectives *collectives);

/* "all_reduce", …; "unknown". */
const char *pm_collective_operation_name(unsigned operation);

/* A section of the text report, and "collectives" of the JSON one: nothing, and null, where the
 * worker exchanged nothing. */
PM_MUST_USE int pm_collective_report_text(const struct pm_session *session, size_t engine,
                                          unsigned n, bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_collective_report_json(const struct pm_session *session, size_t engine,
                                          unsigned n, struct pm_json *json);

#endif
