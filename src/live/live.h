/*
 * A session followed while its server runs: rates and percentiles over the last seconds and in
 * total, who is served now, what each process does, and whether the server still gets on. For
 * `top`, `postmortem`, and whoever serves these figures; one thread. The server is not touched:
 * everything is read from the session's files and from /proc.
 *
 *   pm_live_open      finds where the last two minutes begin, reads no older records
 *   pm_live_refresh   what has come since; cursors go on where they stopped
 *   pm_live_view      the figures as of the last refresh, until the next one
 *
 * Time. `now` is CLOCK_MONOTONIC for a session of which a process runs on this machine, else the
 * newest moment in its records: the last seconds of a server that is gone are those before its end.
 */
#ifndef PM_LIVE_LIVE_H
#define PM_LIVE_LIVE_H

#include "live/proc.h"
#include "live/sums.h"
#include "reader/reader.h"
#include "reader/requests.h"
#include "session/doing.h"

#define PM_LIVE_WINDOW_NS 10000000000ull
#define PM_LIVE_HISTORY 120 /* seconds of the small graphs */
#define PM_LIVE_STEPS 32    /* newest steps kept */
#define PM_LIVE_ENDED 32    /* newest requests that ended */

/* X(NAME, what it is, total: schema, field) */
#define PM_LIVE_METRICS(X)                                                                         \
    X(ttft, "arrival to first output, as the engine core sees it", "request", "ttft_ns")           \
    X(tpot, "first to last output by the output tokens but one", "request", "tpot_ns")             \
    X(itl, "between two outputs of a request", NULL, NULL)                                         \
    X(queue, "queued to started", "request", "queue_ns")                                           \
    X(e2e, "arrival to the end", "request", "e2e_ns")                                              \
    X(step, "execute_model entered to the end of the step", "worker_step", "total_ns")
enum pm_live_metric {
#define PM_LIVE_METRIC_ENUM(name, doc, schema, field) PM_LIVE_##name,
    PM_LIVE_METRICS(PM_LIVE_METRIC_ENUM)
#undef PM_LIVE_METRIC_ENUM
        PM_LIVE_METRIC_COUNT
};

struct pm_live_quantiles {
    uint64_t count;             /* 0: the rest is meaningless */
    double p50, p95, p99, mean; /* ns */
};

/* Sums per second of the clock, newest last. */
struct pm_live_second {
    double in_tokens, out_tokens, steps; /* per second */
    double running, waiting, kv;         /* last level in it; kv 0..1; < 0: none in it */
};

struct pm_live_step {
    uint64_t step, start_ns, end_ns; /* schedule() entered; its output taken in, 0: not yet */
    uint32_t sched_ns, model_ns, worker_ns, update_ns;
    uint32_t requests, tokens, outputs, running, waiting;
    uint8_t phase; /* enum pm_phase_class */
    bool has_worker, failed;
};

struct pm_live_request {
    char id[PM_REQUEST_ID_MAX];
    const char *phase; /* "waiting", "prefill", "decode", "preempted" */
    uint64_t age_ns;   /* since it arrived (was queued) */
    uint64_t gap_ns;   /* since its last output; 0: none yet */
    uint64_t ttft_ns;  /* 0: no output yet */
    uint64_t queue_ns; /* so far, where it has not started */
    uint32_t prompt_tokens, cached_tokens, output_tokens, max_tokens, preemptions;
};

struct pm_live_rank {
    int rank;
    unsigned process; /* place in the view's processes */
    struct pm_live_rank_sums window, total;
    uint64_t last_ns; /* end of its newest step */
    uint64_t last_step;
    uint8_t forward_clock; /* of its newest forward times, as in struct pm_step: 0 none, 1 wall, 2
                              sync, 3 events */
};

struct pm_live_engine {
    unsigned number;
    int process;  /* place in the view's processes; -1: no scheduler was found */
    bool stepped; /* it has had a step */

    /* levels, as of the newest step */
    uint32_t running, waiting, max_requests, max_tokens;
    uint32_t batch_requests, batch_tokens; /* in that step */
    bool has_kv;
    uint32_t kv_used, kv_total, kv_evictable, kv_peak;

    struct pm_live_sums window, total;
    struct pm_live_quantiles window_quantiles[PM_LIVE_METRIC_COUNT];
    struct pm_live_quantiles total_quantiles[PM_LIVE_METRIC_COUNT]; /* from histograms */
    uint64_t no_work_ns; /* of the window, when it had no request */
    uint64_t aborted;    /* of window.finished */
    struct pm_live_rank *ranks;
    size_t n_ranks;
    struct pm_live_second seconds[PM_LIVE_HISTORY];
    struct pm_live_request *requests; /* not over, in the order in which they came */
    size_t n_requests, capacity_requests;
    struct pm_live_step steps[PM_LIVE_STEPS]; /* newest last */
    size_t n_steps;
    struct pm_request ended[PM_LIVE_ENDED]; /* newest last */
    size_t n_ended;
    uint64_t last_ns; /* newest sign of a step: its schedule(), model, or update */
};

struct pm_live_process {
    struct pm_process_info info;
    bool visible; /* proc is filled */
    struct pm_proc proc;
    struct pm_thread_state threads[PM_THREAD_WORDS];
    char thread_kernel[PM_THREAD_WORDS]; /* state letters; 0: not told */
    size_t n_threads;
    double cpu; /* share of one core since the refresh before; < 0: not known */
};

enum pm_live_health {
    PM_LIVE_STARTING, /* no step yet */
    PM_LIVE_IDLE,     /* nothing to do */
    PM_LIVE_SERVING,
    PM_LIVE_STALLED, /* requests wait, and no step has come */
    PM_LIVE_STOPPED, /* a process is stopped, or its helper thread is not heard of */
    PM_LIVE_BROKEN,  /* a process of it is gone while others run */
    PM_LIVE_ENDED_WELL,
    PM_LIVE_KILLED,
    PM_LIVE_HEALTHS
};
const char *pm_live_health_text(enum pm_live_health health);

struct pm_live_view {
    const struct pm_session *session;
    const struct pm_session_info *info;
    uint64_t now_ns;
    bool running;            /* some process lives */
    bool here;               /* the session is of this machine, since its last start */
    uint64_t window_from_ns; /* the last seconds begin here; they end with now */
    uint64_t seconds_from_ns;
    enum pm_live_health health;
    char sentence[512]; /* what is wrong; "": nothing */
    struct pm_live_engine *engines;
    size_t n_engines;
    struct pm_live_process *processes;
    size_t n_processes;
};

struct pm_live;

/* 0, or -PM_E… with a sentence in err. at_ns: the moment to take as now, for tests; 0: the clock.
 */
PM_MUST_USE int pm_live_open(struct pm_live **ret_live, const char *path, uint64_t at_ns,
                             struct pm_error *err);
/* 0; -PM_E…: the session cannot be read any more (it was removed). */
PM_MUST_USE int pm_live_refresh(struct pm_live *live, uint64_t at_ns, struct pm_error *err);
const struct pm_live_view *pm_live_view(const struct pm_live *live);
void pm_live_close(struct pm_live *live);

/* The totals since a process began, as of the last refresh: of the scheduler of an engine (place in
 * the view; n -1), or of its n-th rank. false: there are none. */
bool pm_live_process_totals(const struct pm_live *live, size_t engine, int n,
                            const struct pm_process **ret_process,
                            const struct pm_totals **ret_totals);

/* What a thread does, in words: "in the model"; and as one word for files. */
const char *pm_live_doing_text(unsigned doing);
const char *pm_live_doing_word(unsigned doing);
/* The thread of a process that has said last what it does; NULL: none has. */
const struct pm_thread_state *pm_live_main_thread(const struct pm_live_process *process);

/* Writes one session's figures as one JSON object. requests: with those that are not over. */
struct pm_json;
void pm_live_json(struct pm_json *json, const struct pm_live_view *view, bool requests);

/* Whether any process of the session in this folder holds its lock; reads no records. */
bool pm_live_runs(const char *path);

#endif
