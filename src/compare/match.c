/*
 * The estimator. See match.h for its formula.
 */
#include "compare/match.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/slopes.h"

void pm_match_release(struct pm_match *match)
{
    free(match->own_keys);
    free(match->kinds);
    for (unsigned side = 0; side < 2; side++) {
        free(match->sums[side]);
        free(match->counts[side]);
        free(match->lengths[side]);
        free(match->tails[side]);
    }
    memset(match, 0, sizeof(*match));
}

/* ---- preparing ---- */

/* How much of a tally is of compositions that both sides have. */
static void weigh_cells(struct pm_match *match, unsigned side, const struct pm_tally *tally,
                        const uint8_t *seen)
{
    for (uint32_t b = 0; b < tally->n_blocks; b++)
        for (uint32_t c = 0; c < tally->blocks[b].n; c++) {
            const struct pm_cell *cell = &tally->blocks[b].cells[c];
            match->total_value[side] += cell->values[0];
            if (seen[cell->stratum] != 3)
                continue;
            match->matched[side] += cell->n;
            match->matched_value[side] += cell->values[0];
        }
}

/* Which strata both sides have; their numbers among these in places. */
static int find_common(struct pm_match *match, const struct pm_strata *strata, uint32_t *places)
{
    uint8_t *seen = calloc(strata->n + 1, 1);

    if (seen == NULL)
        return -PM_ENOMEM;
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < match->sides[side].n; t++) {
            const struct pm_tally *tally = match->sides[side].tallies[t];
            match->observations[side] += tally->observations;
            for (uint32_t b = 0; b < tally->n_blocks; b++)
                for (uint32_t c = 0; c < tally->blocks[b].n; c++)
                    seen[tally->blocks[b].cells[c].stratum] |= (uint8_t)(1u << side);
        }
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < match->sides[side].n; t++)
            weigh_cells(match, side, match->sides[side].tallies[t], seen);
    for (uint32_t s = 0; s < strata->n; s++) {
        places[s] = seen[s] == 3 ? match->n : PM_STRATUM_NONE;
        if (seen[s] != 3)
            continue;
        match->own_keys[match->n] = strata->keys[s];
        match->kinds[match->n] = match->kind_of(strata->keys[s]);
        match->n++;
    }
    free(seen);
    return 0;
}

/* From here on cells carry the number among the matched compositions. */
static void renumber(struct pm_match *match, const uint32_t *places)
{
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < match->sides[side].n; t++) {
            struct pm_tally *tally = match->sides[side].tallies[t];
            for (uint32_t b = 0; b < tally->n_blocks; b++) {
                struct pm_block *block = &tally->blocks[b];
                uint32_t kept = 0;
                for (uint32_t c = 0; c < block->n; c++) {
                    const uint32_t place = places[block->cells[c].stratum];
                    if (place == PM_STRATUM_NONE)
                        continue;
                    block->cells[kept] = block->cells[c];
                    block->cells[kept++].stratum = place;
                }
                block->n = kept;
            }
        }
}

static bool counts_tails(const struct pm_side *side)
{
    for (unsigned t = 0; t < side->n; t++)
        for (uint32_t b = 0; b < side->tallies[t]->n_blocks; b++)
            if (side->tallies[t]->blocks[b].tails.n > 0)
                return true;
    return false;
}

/* What the blocks of a tally have over the means of their compositions, value by value, gives the
 * length of the draws: the longest that any value asks for. */
static unsigned choose_length(const struct pm_match *match, unsigned side,
                              const struct pm_tally *tally, double *residuals)
{
    double longest = 1.0;

    for (unsigned v = 0; v < match->n_values; v++) {
        for (uint32_t b = 0; b < tally->n_blocks; b++) {
            const struct pm_block *block = &tally->blocks[b];
            double over = 0, n = 0;
            for (uint32_t c = 0; c < block->n; c++) {
                const struct pm_cell *cell = &block->cells[c];
                const size_t at = (size_t)cell->stratum * match->n_values + v;
                if (cell->present[v] == 0)
                    continue;
                over += cell->values[v] -
                        cell->present[v] * match->sums[side][at] / match->counts[side][at];
                n += cell->present[v];
            }
            residuals[b] = n > 0 ? over / n : 0.0;
        }
        const double length = pm_block_length(residuals, tally->n_blocks);
        if (length > longest)
            longest = length;
    }
    return (unsigned)ceil(longest);
}

int pm_match_make(struct pm_match *ret_match, const struct pm_side sides[2],
                  const struct pm_strata *strata, unsigned n_values,
                  unsigned (*kind_of)(uint64_t key))
{
    struct pm_match *match = ret_match;
    uint32_t *places = malloc((strata->n + 1) * sizeof(*places));
    double residuals[PM_TALLY_BLOCKS];
    size_t size;
    int rc = -PM_ENOMEM;

    memset(match, 0, sizeof(*match));
    match->sides[0] = sides[0];
    match->sides[1] = sides[1];
    match->n_values = n_values;
    match->kind_of = kind_of;
    match->own_keys = calloc(strata->n + 1, sizeof(*match->own_keys));
    match->kinds = calloc(strata->n + 1, sizeof(*match->kinds));
    if (places == NULL || match->own_keys == NULL || match->kinds == NULL)
        goto done;
    match->keys = match->own_keys;
    rc = find_common(match, strata, places);
    if (rc == 0)
        rc = pm_slopes_apply(match, places, strata->n);
    if (rc != 0)
        goto done;
    renumber(match, places);
    rc = -PM_ENOMEM;
    size = ((size_t)match->n + 1) * n_values;
    for (unsigned side = 0; side < 2; side++) {
        match->sums[side] = calloc(size, sizeof(double));
        match->counts[side] = calloc(size, sizeof(double));
        match->lengths[side] = calloc(sides[side].n + 1, sizeof(unsigned));
        if (match->sums[side] == NULL || match->counts[side] == NULL ||
            match->lengths[side] == NULL)
            goto done;
        if (!counts_tails(&sides[side]))
            continue;
        match->tails[side] = calloc((size_t)PM_TAIL_VALUES * PM_TAIL_CLASSES, sizeof(double));
        if (match->tails[side] == NULL)
            goto done;
    }
    pm_match_all(match);
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < sides[side].n; t++) {
            const unsigned length = choose_length(match, side, sides[side].tallies[t], residuals);
            match->lengths[side][t] = length;
            match->blocks[side] += (double)sides[side].tallies[t]->n_blocks / length;
        }
    rc = 0;
done:
    free(places);
    return rc;
}

/* ---- draws ---- */

static void clear(struct pm_match *match)
{
    const size_t size = (size_t)match->n * match->n_values * sizeof(double);
    for (unsigned side = 0; side < 2; side++) {
        memset(match->sums[side], 0, size);
        memset(match->counts[side], 0, size);
        memset(match->block_sums[side], 0, sizeof(match->block_sums[side]));
        if (match->tails[side] != NULL)
            memset(match->tails[side], 0,
                   (size_t)PM_TAIL_VALUES * PM_TAIL_CLASSES * sizeof(double));
    }
}

static void add_block(struct pm_match *match, unsigned side, const struct pm_block *block,
                      double times)
{
    const unsigned n_values = match->n_values;

    for (unsigned s = 0; s < PM_BLOCK_SUMS; s++)
        match->block_sums[side][s] += times * block->sums[s];
    if (match->tails[side] != NULL)
        pm_tails_spread(&block->tails, times, match->tails[side]);
    for (uint32_t c = 0; c < block->n; c++) {
        const struct pm_cell *cell = &block->cells[c];
        double *sums = match->sums[side] + (size_t)cell->stratum * n_values;
        double *counts = match->counts[side] + (size_t)cell->stratum * n_values;
        for (unsigned v = 0; v < n_values; v++) {
            sums[v] += times * cell->values[v];
            counts[v] += times * cell->present[v];
        }
    }
}

void pm_match_all(struct pm_match *match)
{
    clear(match);
    for (unsigned side = 0; side < 2; side++)
        for (unsigned t = 0; t < match->sides[side].n; t++)
            for (uint32_t b = 0; b < match->sides[side].tallies[t]->n_blocks; b++)
                add_block(match, side, &match->sides[side].tallies[t]->blocks[b], 1.0);
}

static unsigned below(uint64_t *rng, unsigned n)
{
    return (unsigned)((unsigned __int128)pm_random(rng) * n >> 64);
}

static void draw_tally(struct pm_match *match, unsigned side, unsigned t, uint64_t *rng)
{
    const struct pm_tally *tally = match->sides[side].tallies[t];
    const unsigned n = tally->n_blocks, length = match->lengths[side][t];
    uint16_t times[PM_TALLY_BLOCKS] = {0};

    if (n == 0)
        return;
    for (unsigned drawn = 0; drawn < n;) {
        unsigned at = below(rng, n);
        for (unsigned k = 0; k < length && drawn < n; k++, drawn++) {
            times[at]++;
            at = at + 1 == n ? 0 : at + 1;
        }
    }
    for (unsigned b = 0; b < n; b++)
        if (times[b] != 0)
            add_block(match, side, &tally->blocks[b], times[b]);
}

void pm_match_draw(struct pm_match *match, uint64_t *rng)
{
    clear(match);
    for (unsigned side = 0; side < 2; side++) {
        const struct pm_side *all = &match->sides[side];
        for (unsigned draw = 0; draw < all->n_sessions; draw++) {
            const unsigned session = all->n_sessions > 1 ? below(rng, all->n_sessions) : 0;
            for (unsigned t = 0; t < all->n; t++)
                if (all->sessions[t] == session)
                    draw_tally(match, side, t, rng);
        }
    }
}

void pm_match_estimate(const struct pm_match *match, unsigned kind, unsigned value,
                       struct pm_matched *ret_matched)
{
    struct pm_matched sum = {0};

    for (uint32_t m = 0; m < match->n; m++) {
        const size_t at = (size_t)m * match->n_values + value;
        const double a = match->counts[0][at], b = match->counts[1][at];
        if ((kind != PM_ALL_KINDS && match->kinds[m] != kind) || a <= 0 || b <= 0)
            continue;
        const double weight = a * b / (a + b);
        sum.weight += weight;
        sum.before += weight * match->sums[0][at] / a;
        sum.after += weight * match->sums[1][at] / b;
        sum.n[0] += a;
        sum.n[1] += b;
    }
    if (sum.weight > 0) {
        sum.before /= sum.weight;
        sum.after /= sum.weight;
    }
    *ret_matched = sum;
}

double pm_match_quantile(const struct pm_match *match, unsigned side, unsigned value, double q,
                         double *ret_n)
{
    *ret_n = 0;
    if (match->tails[side] == NULL)
        return NAN;
    return pm_tails_quantile(match->tails[side] + (size_t)value * PM_TAIL_CLASSES, q, ret_n);
}

/* (sum w)^2 / sum w^2 over the blocks of a tally, w being the weight of what a block has of the
 * quantity in the estimate: the number of blocks for equal ones, fewer where it comes in bunches.
 */
double pm_match_stretches(const struct pm_match *match, unsigned side, unsigned kind,
                          unsigned value)
{
    double stretches = 0;

    for (unsigned t = 0; t < match->sides[side].n; t++) {
        const struct pm_tally *tally = match->sides[side].tallies[t];
        double sum = 0, squares = 0;
        for (uint32_t b = 0; b < tally->n_blocks; b++) {
            double weight = 0;
            for (uint32_t c = 0; c < tally->blocks[b].n; c++) {
                const struct pm_cell *cell = &tally->blocks[b].cells[c];
                const size_t at = (size_t)cell->stratum * match->n_values + value;
                const double mine = match->counts[side][at], other = match->counts[!side][at];
                if ((kind == PM_ALL_KINDS || match->kinds[cell->stratum] == kind) &&
                    mine + other > 0)
                    weight += cell->present[value] * other / (mine + other);
            }
            sum += weight;
            squares += weight * weight;
        }
        if (squares > 0)
            stretches += sum * sum / squares / match->lengths[side][t];
    }
    return stretches;
}
