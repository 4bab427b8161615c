/*
 * How many requests were there over time, and how much prompt was computed beside them: a table of
 * bounded size, whose slots double in length as the time seen grows. Filled by the steps, asked by
 * the requests. Owns its memory.
 */
#ifndef PM_COMPARE_LEVELS_H
#define PM_COMPARE_LEVELS_H

#include <stdint.h>

#include "base/error.h"

struct pm_levels {
    struct pm_level_slot {
        double sum, beside, n; /* once sealed: of all slots up to this one */
    } * slots;
    uint64_t start_ns, slot_ns;
    uint32_t used;
};

PM_MUST_USE int pm_levels_init(struct pm_levels *ret_levels, uint64_t start_ns);
void pm_levels_release(struct pm_levels *levels);
/* Times need not grow; those before the start count as the start. */
void pm_levels_add(struct pm_levels *levels, uint64_t at_ns, double level, double beside);
/* No more is added: from here on levels can be asked for. */
void pm_levels_seal(struct pm_levels *levels);
/* The mean of the levels added between two moments, by whole slots; where there is none, the last
 * one before; 0 where there is none either. */
void pm_levels_mean(const struct pm_levels *levels, uint64_t from_ns, uint64_t to_ns,
                    double *ret_level, double *ret_beside);

#endif
