/*
 * How many requests were there over time. See levels.h.
 */
#include "compare/levels.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS 65536u
#define FIRST_SLOT_NS 10000000ull

int pm_levels_init(struct pm_levels *ret_levels, uint64_t start_ns)
{
    struct pm_levels levels = {.start_ns = start_ns, .slot_ns = FIRST_SLOT_NS};
    levels.slots = calloc(SLOTS, sizeof(*levels.slots));
    if (levels.slots == NULL)
        return -PM_ENOMEM;
    *ret_levels = levels;
    return 0;
}

void pm_levels_release(struct pm_levels *levels)
{
    free(levels->slots);
    memset(levels, 0, sizeof(*levels));
}

static uint64_t slot_of(const struct pm_levels *levels, uint64_t at_ns)
{
    return at_ns > levels->start_ns ? (at_ns - levels->start_ns) / levels->slot_ns : 0;
}

static void fold(struct pm_levels *levels)
{
    for (uint32_t i = 0; i < SLOTS / 2; i++) {
        const struct pm_level_slot a = levels->slots[2 * i], b = levels->slots[2 * i + 1];
        levels->slots[i].sum = a.sum + b.sum;
        levels->slots[i].beside = a.beside + b.beside;
        levels->slots[i].n = a.n + b.n;
    }
    memset(levels->slots + SLOTS / 2, 0, SLOTS / 2 * sizeof(*levels->slots));
    levels->slot_ns *= 2;
    levels->used = (levels->used + 1) / 2;
}

void pm_levels_add(struct pm_levels *levels, uint64_t at_ns, double level, double beside)
{
    while (slot_of(levels, at_ns) >= SLOTS)
        fold(levels);
    const uint32_t slot = (uint32_t)slot_of(levels, at_ns);
    levels->slots[slot].sum += level;
    levels->slots[slot].beside += beside;
    levels->slots[slot].n += 1;
    if (slot >= levels->used)
        levels->used = slot + 1;
}

void pm_levels_seal(struct pm_levels *levels)
{
    for (uint32_t i = 1; i < levels->used; i++) {
        levels->slots[i].sum += levels->slots[i - 1].sum;
        levels->slots[i].beside += levels->slots[i - 1].beside;
        levels->slots[i].n += levels->slots[i - 1].n;
    }
}

void pm_levels_mean(const struct pm_levels *levels, uint64_t from_ns, uint64_t to_ns,
                    double *ret_level, double *ret_beside)
{
    static const struct pm_level_slot nothing;
    uint64_t from = slot_of(levels, from_ns);
    uint64_t to = slot_of(levels, to_ns > from_ns ? to_ns : from_ns);

    *ret_level = *ret_beside = 0.0;
    if (levels->used == 0)
        return;
    if (to >= levels->used)
        to = levels->used - 1;
    if (from > to)
        from = to;
    const struct pm_level_slot *end = &levels->slots[to];
    for (;; from--) { /* further back as long as there is nothing */
        const struct pm_level_slot *begin = from > 0 ? &levels->slots[from - 1] : &nothing;
        if (end->n > begin->n) {
            *ret_level = (end->sum - begin->sum) / (end->n - begin->n);
            *ret_beside = (end->beside - begin->beside) / (end->n - begin->n);
            return;
        }
        if (from == 0)
            return;
    }
}
