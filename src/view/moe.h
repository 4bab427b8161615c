/*
 * The experts of one worker's MoE layers: how often each was chosen, with whom, how even that was
 * over time, and how long the layers took (moe.c). For its files (moe_files.c) and its part of the
 * reports (moe_report.c).
 */
#ifndef PM_VIEW_MOE_H
#define PM_VIEW_MOE_H

#include "session/moe_facts.h"
#include "view/common.h"

/* One layer. */
struct pm_moe_sum {
    struct pm_moe_layer fact;
    char name[256];
    uint64_t *n;      /* selections by expert: fact.experts of them */
    uint64_t *pairs;  /* by pm_moe_pair; NULL where they are not kept */
    uint64_t *part;   /* of n, what came with the newest flush … */
    uint64_t part_ns; /* … at this moment; 0: none */
    uint64_t selections;
    uint64_t calls, time_ns; /* that were timed, and are held */
};

struct pm_moe_sums {
    struct pm_moe_sum *layers; /* in order of their slots */
    size_t n_layers;
    uint64_t selections, flushes, calls;
    uint64_t steps;      /* with tokens, that the worker executed: all of them */
    bool running;        /* the worker is: its newest counts are still to come */
    bool recycled_times; /* older calls had to go */
    const char *reason;  /* what the worker says of selections that cannot be seen; NULL: nothing */
    const char *in_graph; /* what it says of counting inside graphs; NULL: it does not */
};

/* How even the choices of a layer are. */
struct pm_moe_balance {
    double mean, std;
    uint64_t min, max;
    uint32_t chosen; /* experts chosen at least once */
    double max_min;  /* max / min, an expert that was never chosen counting as one selection */
    double balance; /* mean / max: 1 where all are alike, 1/experts where one has all; 0: nothing */
};
void pm_moe_balance_of(const uint64_t *n, uint32_t experts, struct pm_moe_balance *ret_balance);

/* What a walk tells as it goes; any may be NULL. Each returns 0, or -PM_E… to end the walk. */
struct pm_moe_tell {
    /* The selections of a layer between two flushes: layer->part, at layer->part_ns. */
    int (*part)(void *arg, const struct pm_moe_sum *layer);
    int (*call)(void *arg, const struct pm_moe_sum *layer, const struct pm_moe_time *time);
    void *arg;
};

/* Walks the facts of worker n of an engine (one that does not exist has none). tell may be NULL.
 * Release *ret_sums in any case. */
PM_MUST_USE int pm_moe_walk(const struct pm_session *session, size_t engine, unsigned n,
                            const struct pm_moe_tell *tell, struct pm_moe_sums *ret_sums);
void pm_moe_sums_release(struct pm_moe_sums *sums);

/* Whether selections were seen: 1 of every layer, 0 not (of all), -1 there is nothing to see (no
 * MoE layers, or nothing has run yet). *ret_why: a sentence with 0, else NULL. */
int pm_moe_observable(const struct pm_moe_sums *sums, const char **ret_why);

/* A section of the text report, and "moe" of the JSON one: nothing, and null, for a worker without
 * MoE layers. */
PM_MUST_USE int pm_moe_report_text(const struct pm_session *session, size_t engine, unsigned n,
                                   bool colour, struct pm_buf *buf);
PM_MUST_USE int pm_moe_report_json(const struct pm_session *session, size_t engine, unsigned n,
                                   struct pm_json *json);

/* The members of one layer, as in moe_summary.json, into an open object. */
void pm_moe_put_layer(struct pm_json *json, const struct pm_moe_sum *layer);

#endif
