/*
 * One engine, and one worker, followed from record to record. Inside the live room; used by
 * live.c, one thread.
 *
 * What comes is put into buckets of a quarter of a second, by the moment at which it happened, so
 * that the last seconds are sums of whole buckets; single values (for percentiles) go into rings
 * that hold those of the last seconds. Totals are the process's live totals plus every fact after
 * them, added as it is walked.
 */
#ifndef PM_LIVE_FOLLOW_H
#define PM_LIVE_FOLLOW_H

#include "live/live.h"
#include "reader/facts.h"
#include "reader/steps.h"

#define PM_LIVE_BUCKET_NS 250000000ull
#define PM_LIVE_BUCKETS (4 * PM_LIVE_HISTORY + 4)
#define PM_LIVE_SAMPLES_MAX (1u << 17)

/* A ring of values with their moments. */
struct pm_live_sample {
    uint64_t at_ns, value_ns;
    uint32_t weight;
};
struct pm_live_samples {
    struct pm_live_sample *rows;
    size_t capacity, first, count;
};

struct pm_live_bucket {
    uint64_t number; /* moment / PM_LIVE_BUCKET_NS */
    struct pm_live_sums sums;
    uint64_t no_work_ns, aborted;
    bool has_level, has_kv;
    uint32_t running, waiting, kv_used, kv_total;
};
struct pm_live_rank_bucket {
    uint64_t number;
    struct pm_live_rank_sums sums;
};

/* The totals of one process, kept up to date. */
struct pm_live_totals {
    const struct pm_process *process;
    struct pm_totals totals;
    uint64_t covers; /* of stream CORE: facts below it are in the totals already */
    uint64_t next;   /* number of the fact that comes next */
    uint32_t *value_at, *hist_at;
};

/* Where the worker's steps wait for the moment of their synchronisation. */
#define PM_LIVE_PENDING 64

/* The forward time that a step was counted with, until its device's events tell. */
struct pm_live_counted {
    uint64_t step, end_ns, forward_ns;
};
#define PM_LIVE_COUNTED 2048

struct pm_follow_rank {
    const struct pm_process *process;
    unsigned instance;
    int rank;
    struct pm_cursor *cursor; /* NULL with shares */
    struct pm_fact_map worker, sync, device;
    const struct pm_field *graph_outcome, *graph_at, *graph_instance;
    int graph;
    struct pm_live_totals *totals;
    struct pm_live_rank_bucket buckets[PM_LIVE_BUCKETS];
    struct pm_worker_step pending[PM_LIVE_PENDING];
    struct pm_live_counted *counted; /* of PM_LIVE_COUNTED; NULL: no device events */
    uint64_t forward_ns, replayed, eager;
    uint64_t told_step;    /* the newest that the device's events told of, + 1 */
    uint8_t forward_clock; /* of the newest forward time */
    uint64_t last_ns, last_step;
    struct pm_live_samples steps; /* of the metric `step` */
    struct pm_follow_engine *engine;
    bool shares; /* its records come by the engine's walk, its totals are the engine's */
};

struct pm_follow_engine {
    const struct pm_engine *which;
    size_t place; /* of pm_session_engine */
    struct pm_requests *requests;
    struct pm_fact_map sched, update, queued, open, kv, member;
    struct pm_live_totals *totals;
    struct pm_live_bucket buckets[PM_LIVE_BUCKETS];
    struct pm_live_samples samples[PM_LIVE_METRIC_COUNT];
    struct pm_follow_rank **own_ranks; /* workers of the same process */
    size_t n_own_ranks;
    bool knows_requests;       /* some were seen: the probe is on */
    bool past_head;            /* the first segment's keyframe is behind */
    uint64_t open_now;         /* requests not over, as counted on the walk */
    uint64_t no_work_from_ns;  /* 0: it has work */
    uint64_t outputs_until_ns; /* first outputs up to here are among the samples */
    uint64_t newest_output_ns;
    struct pm_live_step steps[PM_LIVE_STEPS];
    uint64_t n_steps; /* ever; the newest lie in the ring */
    struct pm_request ended[PM_LIVE_ENDED];
    uint64_t n_ended;
    struct pm_sched_step newest;
    bool stepped, has_kv;
    struct pm_kv_step_levels {
        uint32_t used, total, evictable, peak;
    } kv_level;
    uint64_t last_ns;
    int error; /* of the walk */
};

/* ---- judge.c ---- */
/* Fills health and sentence of a view that is complete else. */
void pm_live_judge(struct pm_live_view *view);

/* ---- totals.c ---- */
PM_MUST_USE int pm_live_totals_open(struct pm_live_totals *ret_totals,
                                    const struct pm_process *process);
void pm_live_totals_close(struct pm_live_totals *totals);
/* A record of stream CORE as it is walked. */
PM_MUST_USE int pm_live_totals_add(struct pm_live_totals *totals, const struct pm_record *record);
/* The sum of a field over the classes from first_class on; field "": how many records. */
uint64_t pm_live_total(const struct pm_live_totals *totals, const char *schema, const char *field,
                       unsigned first_class);
uint64_t pm_live_total_class(const struct pm_live_totals *totals, const char *schema,
                             unsigned class_value);
/* Quantiles of a field from its histograms, zeros (it did not happen) left out. */
void pm_live_total_quantiles(const struct pm_live_totals *totals, const char *schema,
                             const char *field, struct pm_live_quantiles *ret_quantiles);

/* ---- samples.c ---- */
void pm_live_samples_add(struct pm_live_samples *samples, uint64_t at_ns, uint64_t value_ns,
                         uint32_t weight);
/* Of those in [from, to); scratch grows as needed. Percentiles as NumPy's default, of the values
 * repeated by their weights. */
void pm_live_samples_quantiles(const struct pm_live_samples *samples, uint64_t from_ns,
                               uint64_t to_ns, struct pm_live_quantiles *ret_quantiles);
/* Forgets those before. */
void pm_live_samples_forget(struct pm_live_samples *samples, uint64_t before_ns);
void pm_live_samples_free(struct pm_live_samples *samples);

/* ---- follow_engine.c, follow_rank.c ---- */
PM_MUST_USE int pm_follow_engine_open(struct pm_follow_engine *engine,
                                      const struct pm_session *session, uint64_t from_ns);
PM_MUST_USE int pm_follow_engine_poll(struct pm_follow_engine *engine, uint64_t now_ns);
void pm_follow_engine_close(struct pm_follow_engine *engine);
/* Fills the figures; ranks are the caller's. */
PM_MUST_USE int pm_follow_engine_show(const struct pm_follow_engine *engine, uint64_t from_ns,
                                      uint64_t now_ns, struct pm_live_engine *ret_engine);

PM_MUST_USE int pm_follow_rank_open(struct pm_follow_rank *rank, uint64_t from_ns);
PM_MUST_USE int pm_follow_rank_poll(struct pm_follow_rank *rank);
void pm_follow_rank_close(struct pm_follow_rank *rank);
void pm_follow_rank_record(struct pm_follow_rank *rank, const struct pm_record *record);
void pm_follow_rank_show(const struct pm_follow_rank *rank, uint64_t from_ns, uint64_t now_ns,
                         struct pm_live_rank *ret_rank);

#endif
