/* See sampling_cost.h. */
#include "view/sampling_cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "session/hist.h"

#define GREEDY_BIT (1u << PM_SAMPLING_GREEDY)
#define TEMPERATURE_BIT (1u << PM_SAMPLING_TEMPERATURE)
#define PER_SIDE 5u /* durations that a stratum needs for its median to count */
#define Z95 1.959964

struct stratum {
    uint32_t bits;  /* settings */
    uint32_t place; /* clock and class of batch size */
    uint64_t steps;
    uint32_t held, stride;
    uint32_t values[PM_SAMPLING_HELD]; /* ns; in order once settled */
    double median, half;               /* settled: and half the width of its 95 % interval */
};

#define INDEX (2 * PM_SAMPLING_STRATA_MAX) /* a power of two, at most half full */

struct pm_sampling_costs {
    struct stratum **strata; /* settled: by place, then bits */
    size_t n, room;
    uint16_t index[INDEX]; /* place in strata + 1, by hash; until settled */
};

int pm_sampling_costs_open(struct pm_sampling_costs **ret_costs)
{
    struct pm_sampling_costs *costs = calloc(1, sizeof(*costs));
    if (costs == NULL)
        return -PM_ENOMEM;
    *ret_costs = costs;
    return 0;
}

void pm_sampling_costs_close(struct pm_sampling_costs *costs)
{
    if (costs == NULL)
        return;
    for (size_t i = 0; i < costs->n; i++)
        free(costs->strata[i]);
    free(costs->strata);
    free(costs);
}

/* 0 with *ret_stratum NULL: there are too many. */
static int find(struct pm_sampling_costs *costs, uint32_t bits, uint32_t place,
                struct stratum **ret_stratum)
{
    const uint64_t key = (uint64_t)place << 32 | bits;
    uint32_t slot = (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 40) % INDEX;

    *ret_stratum = NULL;
    for (; costs->index[slot] != 0; slot = (slot + 1) % INDEX) {
        struct stratum *each = costs->strata[costs->index[slot] - 1];
        if (each->bits == bits && each->place == place) {
            *ret_stratum = each;
            return 0;
        }
    }
    if (costs->n == PM_SAMPLING_STRATA_MAX)
        return 0;
    if (costs->n == costs->room) {
        const size_t room = costs->room != 0 ? costs->room * 2 : 64;
        struct stratum **more = realloc(costs->strata, room * sizeof(struct stratum *));
        if (more == NULL)
            return -PM_ENOMEM;
        costs->strata = more;
        costs->room = room;
    }
    struct stratum *stratum = calloc(1, sizeof(*stratum));
    if (stratum == NULL)
        return -PM_ENOMEM;
    stratum->bits = bits;
    stratum->place = place;
    stratum->stride = 1;
    costs->strata[costs->n++] = *ret_stratum = stratum;
    costs->index[slot] = (uint16_t)costs->n;
    return 0;
}

int pm_sampling_costs_add(struct pm_sampling_costs *costs, uint32_t bits, uint32_t requests,
                          unsigned clock, uint64_t dur_ns)
{
    struct stratum *stratum;
    const int rc = find(costs, bits, clock << 16 | pm_hist_bucket(requests), &stratum);

    if (rc != 0 || stratum == NULL)
        return rc;
    if (stratum->steps++ % stratum->stride != 0)
        return 0;
    if (stratum->held == PM_SAMPLING_HELD) { /* every other one goes, so that all times count */
        for (uint32_t i = 0; i < PM_SAMPLING_HELD / 2; i++)
            stratum->values[i] = stratum->values[2 * i];
        stratum->held = PM_SAMPLING_HELD / 2;
        stratum->stride *= 2;
    }
    stratum->values[stratum->held++] = dur_ns < UINT32_MAX ? (uint32_t)dur_ns : UINT32_MAX;
    return 0;
}

static int by_value(const void *left, const void *right)
{
    const uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static int by_key(const void *left, const void *right)
{
    const struct stratum *a = *(struct stratum *const *)left, *b = *(struct stratum *const *)right;
    if (a->place != b->place)
        return a->place < b->place ? -1 : 1;
    return a->bits < b->bits ? -1 : a->bits > b->bits;
}

/* The median, and half the distance of the two order statistics that enclose it with 95 %. */
static void settle_one(struct stratum *stratum)
{
    const double n = stratum->held, reach = Z95 / 2 * sqrt(n);
    qsort(stratum->values, stratum->held, sizeof(*stratum->values), by_value);
    const uint32_t middle = stratum->held / 2;
    stratum->median = stratum->held % 2 != 0
                          ? stratum->values[middle]
                          : ((double)stratum->values[middle - 1] + stratum->values[middle]) / 2;
    const double low = floor((n - 1) / 2 - reach), high = ceil((n - 1) / 2 + reach);
    const uint32_t from = low > 0 ? (uint32_t)low : 0;
    const uint32_t to = high < n - 1 ? (uint32_t)high : stratum->held - 1;
    stratum->half = ((double)stratum->values[to] - stratum->values[from]) / 2;
}

void pm_sampling_costs_settle(struct pm_sampling_costs *costs)
{
    for (size_t i = 0; i < costs->n; i++)
        settle_one(costs->strata[i]);
    if (costs->n > 0)
        qsort(costs->strata, costs->n, sizeof(*costs->strata), by_key);
}

static const struct stratum *at(const struct pm_sampling_costs *costs, uint32_t bits,
                                uint32_t place)
{
    struct stratum key_value, *key = &key_value;
    if (costs->n == 0)
        return NULL;
    key_value.bits = bits;
    key_value.place = place;
    struct stratum *const *found =
        bsearch(&key, costs->strata, costs->n, sizeof(*costs->strata), by_key);
    return found != NULL ? *found : NULL;
}

/* Settings that are in the same strata as this one. */
static uint32_t together_with(const struct pm_sampling_costs *costs, unsigned setting)
{
    uint32_t together = 0;
    for (unsigned other = 0; other < PM_SAMPLING_ALL; other++) {
        bool same = other != PM_SAMPLING_GREEDY;
        for (size_t i = 0; i < costs->n && same; i++)
            same = (costs->strata[i]->bits >> other & 1) == (costs->strata[i]->bits >> setting & 1);
        together |= same ? 1u << other : 0;
    }
    return together;
}

struct sums {
    double weight, cost, variance;
};

static void compare(const struct stratum *with, const struct stratum *without, struct sums *sums)
{
    if (without == NULL || with->held < PER_SIDE || without->held < PER_SIDE)
        return;
    const double n1 = (double)with->steps, n0 = (double)without->steps;
    const double weight = n1 * n0 / (n1 + n0);
    const double a = with->half / Z95, b = without->half / Z95;
    sums->weight += weight;
    sums->cost += weight * (with->median - without->median);
    sums->variance += weight * weight * (a * a + b * b);
}

/* Whether a stratum has a partner of its own among those without (or with) the group. */
static unsigned partners(const struct pm_sampling_costs *costs, const struct stratum *stratum,
                         uint32_t group, bool has, const struct stratum *ret_partners[2])
{
    const uint32_t rest = has ? stratum->bits & ~group : stratum->bits | group;
    const bool either = (group & TEMPERATURE_BIT) != 0; /* what is not drawn is greedy */
    unsigned n = 0;
    if (either) {
        const uint32_t ways[2] = {rest & ~GREEDY_BIT, rest | GREEDY_BIT};
        for (unsigned i = 0; i < 2; i++)
            if ((ret_partners[n] = at(costs, ways[i], stratum->place)) != NULL)
                n++;
    } else if ((ret_partners[0] = at(costs, rest, stratum->place)) != NULL) {
        n = 1;
    }
    return n;
}

void pm_sampling_costs_tell(const struct pm_sampling_costs *costs, unsigned setting,
                            struct pm_sampling_cost *ret_cost)
{
    struct pm_sampling_cost cost = {0};
    struct sums sums = {0};
    const struct stratum *found[2];

    cost.together = together_with(costs, setting) | 1u << setting;
    for (size_t i = 0; i < costs->n; i++) {
        const struct stratum *stratum = costs->strata[i];
        const bool has = (stratum->bits >> setting & 1) != 0;
        const unsigned n = partners(costs, stratum, cost.together, has, found);
        bool matched = false;
        for (unsigned k = 0; k < n; k++) {
            matched = matched || (found[k]->held >= PER_SIDE && stratum->held >= PER_SIDE);
            if (has)
                compare(stratum, found[k], &sums);
        }
        *(has ? &cost.with : &cost.without) += stratum->steps;
        if (matched)
            *(has ? &cost.matched_with : &cost.matched_without) += stratum->steps;
    }
    if (cost.with == 0) {
        cost.verdict = PM_SAMPLING_NEVER;
        cost.together = 1u << setting;
    } else if (cost.without == 0) {
        cost.verdict = PM_SAMPLING_ALWAYS;
    } else if (sums.weight <= 0) {
        cost.verdict = PM_SAMPLING_UNLIKE;
    } else if (cost.matched_with < PM_SAMPLING_LEAST || cost.matched_without < PM_SAMPLING_LEAST) {
        cost.verdict = PM_SAMPLING_TOO_FEW;
    } else {
        cost.cost_ns = sums.cost / sums.weight;
        cost.error_ns = Z95 * sqrt(sums.variance) / sums.weight;
        cost.verdict = fabs(cost.cost_ns) > cost.error_ns ? PM_SAMPLING_TOLD : PM_SAMPLING_SMALL;
    }
    *ret_cost = cost;
}
