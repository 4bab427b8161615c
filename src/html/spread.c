/*
 * Percentiles of durations (see spread.h). Called by the files of this room that walk a session.
 */
#include "html/spread.h"

#include <stdlib.h>
#include <string.h>

#include "session/hist.h"

#define FINE_BUCKETS (64u * PM_SPREAD_FINE)

void pm_spread_init(struct pm_spread *ret_spread)
{
    memset(ret_spread, 0, sizeof(*ret_spread));
    ret_spread->exact = true;
    ret_spread->min = UINT64_MAX;
}

void pm_spread_release(struct pm_spread *spread)
{
    free(spread->held);
    free(spread->fine);
    spread->held = NULL;
    spread->fine = NULL;
}

/* Values below PM_SPREAD_FINE have a bucket each, then every octave has as many. */
static size_t fine_bucket(uint64_t ns)
{
    if (ns < PM_SPREAD_FINE)
        return (size_t)ns;
    const unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    return (size_t)(octave - 6) * PM_SPREAD_FINE +
           (size_t)(ns >> (octave - 7) & (PM_SPREAD_FINE - 1));
}

static double fine_middle(size_t bucket)
{
    if (bucket < PM_SPREAD_FINE)
        return (double)bucket;
    const unsigned octave = (unsigned)(bucket / PM_SPREAD_FINE) + 6;
    const double step = (double)(1ull << (octave - 7));
    return (double)(1ull << octave) + ((double)(bucket % PM_SPREAD_FINE) + 0.5) * step;
}

static int make_room(struct pm_spread *spread)
{
    if (spread->room == PM_SPREAD_HELD) {
        spread->fine = calloc(FINE_BUCKETS, sizeof(*spread->fine));
        if (spread->fine == NULL)
            return -PM_ENOMEM;
        for (size_t i = 0; i < spread->n_held; i++)
            spread->fine[fine_bucket(spread->held[i].ns)] += spread->held[i].count;
        free(spread->held);
        spread->held = NULL;
        spread->exact = false;
        return 0;
    }
    const size_t room = spread->room != 0 ? 2 * spread->room : 256;
    struct pm_spread_value *held = realloc(spread->held, room * sizeof(*held));
    if (held == NULL)
        return -PM_ENOMEM;
    spread->held = held;
    spread->room = room;
    return 0;
}

int pm_spread_add(struct pm_spread *spread, uint64_t ns, uint64_t count)
{
    if (count == 0)
        return 0;
    if (spread->exact && spread->n_held == spread->room) {
        const int rc = make_room(spread);
        if (rc != 0)
            return rc;
    }
    if (spread->exact)
        spread->held[spread->n_held++] = (struct pm_spread_value){ns, count};
    else
        spread->fine[fine_bucket(ns)] += count;
    spread->count += count;
    spread->sum += (unsigned __int128)ns * count;
    spread->min = ns < spread->min ? ns : spread->min;
    spread->max = ns > spread->max ? ns : spread->max;
    spread->hist.buckets[pm_hist_bucket(ns)] += count;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    const struct pm_spread_value *x = a, *y = b;
    return (x->ns > y->ns) - (x->ns < y->ns);
}

/* The value of a rank, 0 the least. */
static double at_rank(const struct pm_spread *spread, uint64_t rank)
{
    uint64_t below = 0;
    if (spread->exact) {
        for (size_t i = 0; i < spread->n_held; i++)
            if ((below += spread->held[i].count) > rank)
                return (double)spread->held[i].ns;
    } else {
        for (size_t i = 0; i < FINE_BUCKETS; i++)
            if ((below += spread->fine[i]) > rank) {
                const double middle = fine_middle(i);
                return middle < (double)spread->min   ? (double)spread->min
                       : middle > (double)spread->max ? (double)spread->max
                                                      : middle;
            }
    }
    return (double)spread->max;
}

static double quantile(const struct pm_spread *spread, double q)
{
    const double place = q * (double)(spread->count - 1);
    const uint64_t rank = (uint64_t)place;
    const double low = at_rank(spread, rank);
    const double share = place - (double)rank;
    return share > 0 ? low + share * (at_rank(spread, rank + 1) - low) : low;
}

static void put(struct pm_json *json, const char *key, double ns)
{
    pm_json_key(json, key);
    pm_json_double(json, ns / 1e3, 1);
}

void pm_spread_json(struct pm_json *json, struct pm_spread *spread)
{
    if (spread->count == 0) {
        pm_json_null(json);
        return;
    }
    if (spread->exact)
        qsort(spread->held, spread->n_held, sizeof(*spread->held), by_value);
    pm_json_object(json);
    pm_json_key(json, "count");
    pm_json_u64(json, spread->count);
    pm_json_key(json, "exact");
    pm_json_bool(json, spread->exact);
    put(json, "mean", (double)spread->sum / (double)spread->count);
    put(json, "min", (double)spread->min);
    put(json, "p50", quantile(spread, 0.5));
    put(json, "p90", quantile(spread, 0.9));
    put(json, "p99", quantile(spread, 0.99));
    put(json, "p999", quantile(spread, 0.999));
    put(json, "max", (double)spread->max);
    pm_json_key(json, "bins");
    pm_json_array(json);
    for (unsigned i = 0; i < PM_HIST_BUCKETS; i++) {
        if (spread->hist.buckets[i] == 0)
            continue;
        pm_json_array(json);
        pm_json_u64(json, i);
        pm_json_u64(json, spread->hist.buckets[i]);
        pm_json_end(json);
    }
    pm_json_end(json);
    pm_json_end(json);
}
