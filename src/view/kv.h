/*
 * The KV cache of an engine: what its files, its summary and the reports say of it. Used by kv.c
 * (the seeds' files), kv_report.c and the report's model; owns nothing.
 */
#ifndef PM_VIEW_KV_H
#define PM_VIEW_KV_H

#include "view/common.h"
#include "view/outfile.h"

struct pm_kv_sums {
    uint64_t rows;            /* steps that are held, a row each */
    uint64_t steps;           /* all of them */
    uint64_t used, total_sum; /* summed over the steps: blocks in use, and blocks there were */
    uint64_t allocated, revived, freed, evicted, dropped;
    uint64_t queried_tokens, hit_tokens, requeried_tokens, rehit_tokens;
    uint64_t eviction_rows;                 /* evictions that are held, a row each */
    uint64_t timed;                         /* evictions whose block's age is known */
    unsigned __int128 lifetime_ns, idle_ns; /* their sums */
    uint32_t total, peak;                   /* blocks, by the newest step */
    uint32_t now, evictable;                /* in use, and free but cached, at the newest step */
    bool caching;
    bool recycled;    /* older detail had to go … */
    bool from_totals; /* … but the sums are still of everything */
};

/* Walks an engine's steps and evictions; each becomes a row of its file, where that is not NULL
 * (headers included). An engine that does not exist, or had no such facts, gives zeros. */
PM_MUST_USE int pm_kv_walk(const struct pm_session *session, size_t engine,
                           struct pm_outfile *usage, struct pm_outfile *evictions,
                           struct pm_kv_sums *ret_sums);

/* Shares in per cent; -1 where there is nothing to divide by. */
double pm_kv_mean_pct(const struct pm_kv_sums *sums);
double pm_kv_peak_pct(const struct pm_kv_sums *sums);
double pm_kv_hit_pct(const struct pm_kv_sums *sums); /* of requests that were not preempted */

/* What the seeds' rule of thumb says of a peak: "over-provisioned", "roomy", "good", "nearly full",
 * "under-provisioned". */
const char *pm_kv_verdict(double peak_pct);

/* The section of a report; nothing where no step was seen. */
void pm_kv_report_text(struct pm_buf *buf, const struct pm_kv_sums *sums);
void pm_kv_report_json(struct pm_json *json, const struct pm_kv_sums *sums);

#endif
