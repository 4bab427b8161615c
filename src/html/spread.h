/*
 * How durations are spread: count, mean, extremes, the percentiles p50 to p99.9, and a histogram to
 * draw. Exact while the values fit into memory; beyond that percentiles come from buckets 1/128 of
 * an octave wide, good to 0.4 %. Used by the writers of the page's data, one thread; owns its
 * memory.
 */
#ifndef PM_HTML_SPREAD_H
#define PM_HTML_SPREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "session/layout.h"

#define PM_SPREAD_HELD (1u << 18) /* values (with their weights) that are held exactly */
#define PM_SPREAD_FINE 128        /* buckets per octave */

struct pm_spread {
    struct pm_spread_value {
        uint64_t ns, count;
    } * held;
    size_t n_held, room;
    bool exact;
    uint64_t count, min, max;
    unsigned __int128 sum;
    struct pm_hist hist; /* to draw: 8 buckets per octave */
    uint64_t *fine;      /* NULL while exact */
};

void pm_spread_init(struct pm_spread *ret_spread);
void pm_spread_release(struct pm_spread *spread);

/* count values of so many nanoseconds. */
PM_MUST_USE int pm_spread_add(struct pm_spread *spread, uint64_t ns, uint64_t count);

/* {"count":…,"exact":…,"mean":…,"min":…,"p50":…,"p90":…,"p99":…,"p999":…,"max":…,
 *  "bins":[[k, count],…]}
 * in microseconds; bin k holds the nanoseconds v with 2^((k-2)/8) < v <= 2^((k-1)/8). Percentiles
 * by linear interpolation between ranks. Null where there is no value. Sorts what is held. */
void pm_spread_json(struct pm_json *json, struct pm_spread *spread);

#endif
