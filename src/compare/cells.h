/*
 * What a comparison keeps of a session: sums per composition and stretch of time. Used by the
 * collectors and the estimator of this room, one thread; owns its memory.
 *
 *              block 0             block 1             block 2 …      (stretches of so many
 *   decode 8   n, sums of values   …                                   observations, in order)
 *   decode 9   …
 *   mixed  …   …
 *
 * An observation is a step or a request. Its composition (key) says what work it was; only
 * observations of the same composition are ever compared. Its values are what it took; its
 * covariates are what differs within a composition. Blocks keep the order of time, for the
 * bootstrap. When there would be too many of them, neighbours are merged: the length of a block
 * doubles, so that memory does not grow with the session.
 */
#ifndef PM_COMPARE_CELLS_H
#define PM_COMPARE_CELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "compare/tails.h"

#define PM_CELL_VALUES 10    /* durations of an observation, ns */
#define PM_CELL_COVARIATES 4 /* sizes of it */
#define PM_BLOCK_SUMS 24     /* sums of a block over all compositions */
#define PM_TALLY_BLOCKS 512  /* at most, even */
#define PM_TALLY_CELLS 65536 /* then blocks are merged, down to PM_TALLY_BLOCKS_MIN */
#define PM_TALLY_BLOCKS_MIN 64
#define PM_STRATA_MAX 8192
#define PM_STRATUM_NONE UINT32_MAX

/* The compositions met on either side, numbered in order of appearance. */
struct pm_strata {
    uint64_t *keys;
    uint32_t *index; /* open addressing: number + 1 */
    uint32_t n, capacity, index_size;
};

void pm_strata_release(struct pm_strata *strata);
/* The number of a key, a new one where needed; PM_STRATUM_NONE past the ceiling. */
PM_MUST_USE int pm_strata_find(struct pm_strata *strata, uint64_t key, uint32_t *ret_stratum);

struct pm_cell {
    uint32_t stratum;
    uint32_t n;                    /* observations; those merged never overflow it: saturates */
    double values[PM_CELL_VALUES]; /* sums, ns */
    double covariates[PM_CELL_COVARIATES]; /* sums */
    uint32_t present[PM_CELL_VALUES];      /* observations that have the value */
};

/* Second moments of one composition in a whole tally, for the slopes of values over covariates. */
struct pm_moments {
    double xx[PM_CELL_COVARIATES][PM_CELL_COVARIATES];
    double xy[PM_CELL_COVARIATES][PM_CELL_VALUES];
};

struct pm_block {
    struct pm_cell *cells;
    uint32_t n, capacity;
    uint64_t observations;
    double sums[PM_BLOCK_SUMS];
    struct pm_tails tails;
};

/* The observations of one engine, in order of time. */
struct pm_tally {
    struct pm_strata *strata; /* shared by all tallies of a comparison */
    struct pm_block *blocks;
    uint32_t n_blocks;
    uint64_t per_block; /* observations in a full block, a power of two */
    size_t n_cells;
    uint64_t observations, unplaced; /* the latter: of compositions past the ceiling */
    struct pm_moments *moments;      /* by stratum */
    uint32_t n_moments;
    uint32_t *place; /* by stratum: cell of the last block + 1 */
    uint32_t n_place;
};

struct pm_observation {
    uint64_t key;
    double values[PM_CELL_VALUES];
    bool present[PM_CELL_VALUES];
    double covariates[PM_CELL_COVARIATES];
    double sums[PM_BLOCK_SUMS]; /* added to those of the block */
    bool tails;                 /* percentiles of the values are wanted, too */
};

PM_MUST_USE int pm_tally_init(struct pm_tally *ret_tally, struct pm_strata *strata);
void pm_tally_release(struct pm_tally *tally);
PM_MUST_USE int pm_tally_add(struct pm_tally *tally, const struct pm_observation *seen);

/* Sizes as classes: v itself below `exact` (a power of two, at least 2^bits), then 2^bits classes
 * per doubling. lower gives the least value of a class. */
unsigned pm_size_class(uint64_t value, unsigned exact, unsigned bits);
uint64_t pm_size_class_lower(unsigned class_number, unsigned exact, unsigned bits);

#endif
