/*
 * Sums per composition and stretch of time. See cells.h.
 */
#include "compare/cells.h"

#include <stdlib.h>
#include <string.h>

/* ---- compositions ---- */

void pm_strata_release(struct pm_strata *strata)
{
    free(strata->keys);
    free(strata->index);
    memset(strata, 0, sizeof(*strata));
}

static uint32_t slot_of(const struct pm_strata *strata, uint64_t key)
{
    uint64_t mixed = key * 0x9E3779B97F4A7C15ull;
    uint32_t slot = (uint32_t)(mixed >> 40) & (strata->index_size - 1);
    while (strata->index[slot] != 0 && strata->keys[strata->index[slot] - 1] != key)
        slot = (slot + 1) & (strata->index_size - 1);
    return slot;
}

int pm_strata_find(struct pm_strata *strata, uint64_t key, uint32_t *ret_stratum)
{
    if (strata->index == NULL) {
        strata->index = calloc(2 * PM_STRATA_MAX, sizeof(*strata->index));
        if (strata->index == NULL)
            return -PM_ENOMEM;
        strata->index_size = 2 * PM_STRATA_MAX;
    }
    const uint32_t slot = slot_of(strata, key);
    if (strata->index[slot] != 0) {
        *ret_stratum = strata->index[slot] - 1;
        return 0;
    }
    if (strata->n == PM_STRATA_MAX) {
        *ret_stratum = PM_STRATUM_NONE;
        return 0;
    }
    if (strata->n == strata->capacity) {
        const uint32_t more = strata->capacity * 2 + 64;
        uint64_t *grown = realloc(strata->keys, more * sizeof(*grown));
        if (grown == NULL)
            return -PM_ENOMEM;
        strata->keys = grown;
        strata->capacity = more;
    }
    strata->keys[strata->n] = key;
    strata->index[slot] = ++strata->n;
    *ret_stratum = strata->n - 1;
    return 0;
}

unsigned pm_size_class(uint64_t value, unsigned exact, unsigned bits)
{
    if (value < exact)
        return (unsigned)value;
    const unsigned octave = 63u - (unsigned)__builtin_clzll(value);
    const unsigned first = (unsigned)__builtin_ctz(exact);
    const unsigned part = (unsigned)(value >> (octave - bits)) & ((1u << bits) - 1);
    return exact + ((octave - first) << bits) + part;
}

uint64_t pm_size_class_lower(unsigned class_number, unsigned exact, unsigned bits)
{
    if (class_number < exact)
        return class_number;
    const unsigned beyond = class_number - exact;
    const unsigned octave = (unsigned)__builtin_ctz(exact) + (beyond >> bits);
    if (octave > 63)
        return UINT64_MAX;
    return (1ull << octave) + ((uint64_t)(beyond & ((1u << bits) - 1)) << (octave - bits));
}

/* ---- a tally ---- */

int pm_tally_init(struct pm_tally *ret_tally, struct pm_strata *strata)
{
    struct pm_tally tally = {.strata = strata, .per_block = 1};
    tally.blocks = calloc(PM_TALLY_BLOCKS + 1, sizeof(*tally.blocks));
    if (tally.blocks == NULL)
        return -PM_ENOMEM;
    *ret_tally = tally;
    return 0;
}

static void release_block(struct pm_block *block)
{
    free(block->cells);
    pm_tails_release(&block->tails);
    memset(block, 0, sizeof(*block));
}

void pm_tally_release(struct pm_tally *tally)
{
    for (uint32_t b = 0; tally->blocks != NULL && b < tally->n_blocks; b++)
        release_block(&tally->blocks[b]);
    free(tally->blocks);
    free(tally->moments);
    free(tally->place);
    memset(tally, 0, sizeof(*tally));
}

static uint32_t add_count(uint32_t a, uint32_t b)
{
    return a + b < a ? UINT32_MAX : a + b;
}

static void add_cell(struct pm_cell *cell, const struct pm_cell *other)
{
    cell->n = add_count(cell->n, other->n);
    for (unsigned v = 0; v < PM_CELL_VALUES; v++) {
        cell->values[v] += other->values[v];
        cell->present[v] = add_count(cell->present[v], other->present[v]);
    }
    for (unsigned x = 0; x < PM_CELL_COVARIATES; x++)
        cell->covariates[x] += other->covariates[x];
}

/* The cell of a composition in a block, by the table of places; NULL without memory. */
static struct pm_cell *cell_of(struct pm_tally *tally, struct pm_block *block, uint32_t stratum)
{
    if (tally->place[stratum] != 0)
        return &block->cells[tally->place[stratum] - 1];
    if (block->n == block->capacity) {
        const uint32_t more = block->capacity * 2 + 4;
        struct pm_cell *grown = realloc(block->cells, more * sizeof(*grown));
        if (grown == NULL)
            return NULL;
        block->cells = grown;
        block->capacity = more;
    }
    struct pm_cell *cell = &block->cells[block->n++];
    memset(cell, 0, sizeof(*cell));
    cell->stratum = stratum;
    tally->place[stratum] = block->n;
    tally->n_cells++;
    return cell;
}

static void forget_places(struct pm_tally *tally, const struct pm_block *block)
{
    for (uint32_t c = 0; c < block->n; c++)
        tally->place[block->cells[c].stratum] = 0;
}

/* Merges each pair of neighbours; the places are those of no block then. */
static int merge_blocks(struct pm_tally *tally)
{
    uint32_t kept = 0;

    forget_places(tally, &tally->blocks[tally->n_blocks - 1]);
    for (uint32_t b = 0; b < tally->n_blocks; b += 2) {
        struct pm_block *into = &tally->blocks[b];
        if (b + 1 < tally->n_blocks) {
            struct pm_block *from = &tally->blocks[b + 1];
            for (uint32_t c = 0; c < into->n; c++)
                tally->place[into->cells[c].stratum] = c + 1;
            for (uint32_t c = 0; c < from->n; c++) {
                struct pm_cell *cell = cell_of(tally, into, from->cells[c].stratum);
                if (cell == NULL)
                    return -PM_ENOMEM;
                add_cell(cell, &from->cells[c]);
            }
            tally->n_cells -= from->n;
            into->observations += from->observations;
            for (unsigned s = 0; s < PM_BLOCK_SUMS; s++)
                into->sums[s] += from->sums[s];
            forget_places(tally, into);
            const int rc = pm_tails_merge(&into->tails, &from->tails);
            if (rc != 0)
                return rc;
            release_block(from);
        }
        if (kept != b) {
            tally->blocks[kept] = *into;
            memset(into, 0, sizeof(*into));
        }
        kept++;
    }
    tally->n_blocks = kept;
    tally->per_block *= 2;
    const struct pm_block *last = &tally->blocks[kept - 1];
    for (uint32_t c = 0; c < last->n; c++)
        tally->place[last->cells[c].stratum] = c + 1;
    return 0;
}

/* The tables by stratum, as long as there are strata. */
static int grow_tables(struct pm_tally *tally, uint32_t stratum)
{
    if (stratum < tally->n_place)
        return 0;
    uint32_t more = tally->n_place * 2 + 64;
    if (more <= stratum)
        more = stratum + 64;
    uint32_t *place = realloc(tally->place, more * sizeof(*place));
    if (place == NULL)
        return -PM_ENOMEM;
    tally->place = place;
    struct pm_moments *moments = realloc(tally->moments, more * sizeof(*moments));
    if (moments == NULL)
        return -PM_ENOMEM;
    tally->moments = moments;
    memset(place + tally->n_place, 0, (more - tally->n_place) * sizeof(*place));
    memset(moments + tally->n_moments, 0, (more - tally->n_moments) * sizeof(*moments));
    tally->n_place = tally->n_moments = more;
    return 0;
}

/* The block that the next observation belongs to. */
static int open_block(struct pm_tally *tally, struct pm_block **ret_block)
{
    int rc;

    if (tally->n_blocks > 0 && tally->blocks[tally->n_blocks - 1].observations < tally->per_block) {
        *ret_block = &tally->blocks[tally->n_blocks - 1];
        return 0;
    }
    while (tally->n_blocks == PM_TALLY_BLOCKS ||
           (tally->n_cells > PM_TALLY_CELLS && tally->n_blocks >= 2 * PM_TALLY_BLOCKS_MIN)) {
        rc = merge_blocks(tally);
        if (rc != 0)
            return rc;
        if (tally->blocks[tally->n_blocks - 1].observations < tally->per_block) {
            *ret_block = &tally->blocks[tally->n_blocks - 1];
            return 0;
        }
    }
    if (tally->n_blocks > 0)
        forget_places(tally, &tally->blocks[tally->n_blocks - 1]);
    *ret_block = &tally->blocks[tally->n_blocks++];
    return 0;
}

static void add_moments(struct pm_moments *moments, const struct pm_observation *seen)
{
    for (unsigned x = 0; x < PM_CELL_COVARIATES; x++) {
        for (unsigned z = 0; z < PM_CELL_COVARIATES; z++)
            moments->xx[x][z] += seen->covariates[x] * seen->covariates[z];
        for (unsigned v = 0; v < PM_CELL_VALUES; v++)
            if (seen->present[v])
                moments->xy[x][v] += seen->covariates[x] * seen->values[v];
    }
}

int pm_tally_add(struct pm_tally *tally, const struct pm_observation *seen)
{
    struct pm_block *block;
    uint32_t stratum;

    int rc = pm_strata_find(tally->strata, seen->key, &stratum);
    if (rc == 0 && stratum != PM_STRATUM_NONE)
        rc = grow_tables(tally, stratum);
    if (rc == 0)
        rc = open_block(tally, &block);
    if (rc != 0)
        return rc;
    tally->observations++;
    block->observations++;
    for (unsigned s = 0; s < PM_BLOCK_SUMS; s++)
        block->sums[s] += seen->sums[s];
    for (unsigned v = 0; rc == 0 && seen->tails && v < PM_CELL_VALUES; v++)
        if (seen->present[v])
            rc = pm_tails_add(&block->tails, v, seen->values[v]);
    if (rc != 0)
        return rc;
    if (stratum == PM_STRATUM_NONE) {
        tally->unplaced++;
        return 0;
    }
    struct pm_cell *cell = cell_of(tally, block, stratum);
    if (cell == NULL)
        return -PM_ENOMEM;
    cell->n = add_count(cell->n, 1);
    for (unsigned v = 0; v < PM_CELL_VALUES; v++)
        if (seen->present[v]) {
            cell->values[v] += seen->values[v];
            cell->present[v] = add_count(cell->present[v], 1);
        }
    for (unsigned x = 0; x < PM_CELL_COVARIATES; x++)
        cell->covariates[x] += seen->covariates[x];
    add_moments(&tally->moments[stratum], seen);
    return 0;
}
