/*
 * A session as a timeline: tracks, slices, instants, counters and flows, told one after another to
 * whoever writes them in some format (chrome_trace.c, perfetto_trace.c). Streaming: what is held at
 * a time are the requests that are not over. One thread.
 *
 * Tracks: one per process (beneath it the scheduler, each worker, and one for every table of the
 * session whose records have a beginning and a length), and one per request, beneath its engine's
 * requests. Counters: queues, batches, and every gauge that a table has, KV cache blocks among
 * them. Flows lead from a step to the requests that it prefilled, or that began to decode in it.
 *
 * Events of one track come in no order of time, but nest: an outer one is told before what is in
 * it.
 */
#ifndef PM_VIEW_TIMELINE_H
#define PM_VIEW_TIMELINE_H

#include "view/common.h"

enum pm_timeline_kind {
    PM_TIMELINE_PROCESS,
    PM_TIMELINE_THREAD,   /* of a process */
    PM_TIMELINE_REQUESTS, /* of an engine: the parent of its requests */
    PM_TIMELINE_REQUEST,
    PM_TIMELINE_COUNTER, /* of a process */
};

struct pm_timeline_track {
    enum pm_timeline_kind kind;
    uint64_t id, parent; /* unique in the timeline; parent 0: none */
    uint32_t pid, tid;   /* for formats that know nothing else; of requests they are made up */
    const char *name;
    const char *unit; /* of a counter: "requests", "blocks", … */
};

struct pm_timeline_arg {
    const char *name;
    const char *text; /* NULL: value */
    uint64_t value;
};

#define PM_TIMELINE_ARGS_MAX 64

struct pm_timeline_event {
    const struct pm_timeline_track *track;
    const char *category, *name;
    uint64_t at_ns, dur_ns; /* CLOCK_MONOTONIC; an instant has no dur_ns */
    const struct pm_timeline_arg *args;
    size_t n_args;
    const uint64_t *flows_out; /* flows that begin here */
    size_t n_flows_out;
    uint64_t flow_in; /* the flow that ends here, 0: none */
};

/* Returns of all: 0 or -PM_E…, which ends the walk. */
struct pm_timeline_sink {
    int (*track)(void *arg, const struct pm_timeline_track *track); /* before its first event */
    int (*slice)(void *arg, const struct pm_timeline_event *event);
    int (*instant)(void *arg, const struct pm_timeline_event *event);
    int (*counter)(void *arg, const struct pm_timeline_track *track, uint64_t at_ns, double value);
    void *arg;
};

PM_MUST_USE int pm_timeline_walk(const struct pm_session *session,
                                 const struct pm_timeline_sink *sink);

/* ---- inside: the parts of the walk ---- */

struct pm_timeline {
    const struct pm_session *session;
    const struct pm_timeline_sink *sink;
    uint64_t end_ns; /* the newest moment of the session: what is not over ends here */
};

/* Identity of a track or a flow from what it is of; never 0. */
uint64_t pm_timeline_id(const char *kind, uint64_t a, uint64_t b, const char *text);

/* The track of a process. */
uint64_t pm_timeline_process_id(const struct pm_process *process);

/* The track of a request of an engine; name is borrowed. */
struct pm_timeline_track pm_timeline_request(unsigned engine, const char *id);

/* The flow from a step to a request. */
uint64_t pm_timeline_flow(unsigned engine, uint64_t step, const char *id);

PM_MUST_USE int pm_timeline_requests(struct pm_timeline *t,
                                     size_t engine); /* timeline_requests.c */
PM_MUST_USE int pm_timeline_scheduler(struct pm_timeline *t, size_t engine); /* timeline_steps.c */
PM_MUST_USE int pm_timeline_worker(struct pm_timeline *t, size_t engine, unsigned n);
PM_MUST_USE int pm_timeline_tables(struct pm_timeline *t); /* timeline_tables.c */

#endif
