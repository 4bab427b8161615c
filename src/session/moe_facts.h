/*
 * The facts of mixture-of-experts layers on disk: what the probe moe records in the worker
 * (src/probe/moe.c) and src/view/moe.c follows by name. Pure C.
 *
 *   moe_layer    one per MoE layer of a loaded model, and again at the head of each segment: its
 *                name, its size, and whether its selections can be seen
 *   moe_counts   what a layer's experts (or pairs of experts) were selected since the last one, up
 *                to PM_MOE_DELTAS cells in a record; cells that did not change have no record
 *   moe_totals   the same cells since the model was loaded: at the head of each segment, so that
 *                sums stay exact when older segments had to go
 *   moe_time     one per call of a layer, where that can be timed (stream custom)
 *
 * Cells of selections are the experts, 0 up. Cells of co-selection are the pairs a < b of experts,
 * see pm_moe_pair. A selection is one expert chosen for one token of a step: warm-up, dummy runs
 * and padding are not counted. Records of one flush share their at_ns.
 */
#ifndef PM_SESSION_MOE_FACTS_H
#define PM_SESSION_MOE_FACTS_H

#include <stdint.h>

#define PM_MOE_DELTAS 32
#define PM_MOE_TOTALS 16

/* Co-selection is kept for layers of at most so many experts … */
#define PM_MOE_PAIR_EXPERTS 64u
/* … and so many pairs in all the layers of a worker: beyond that a segment's head, which repeats
 * the sums, would fill it. */
#define PM_MOE_PAIR_CELLS 32768u

/* How a layer's selections are seen. */
enum pm_moe_seen {
    PM_MOE_UNSEEN = 0, /* they are not, see enum pm_moe_why */
    PM_MOE_HOST = 1,   /* on the host, as the router returns them: no work for a device */
    PM_MOE_TRACED = 2, /* by an operation of ours inside a compiled graph */
    PM_MOE_DEVICE = 3, /* added up on the device, inside captured graphs too */
};

/* Why they are not. */
enum pm_moe_why {
    PM_MOE_WHY_NONE = 0,
    PM_MOE_WHY_COMPILED = 1,   /* the router is compiled: it takes MOE_EXPERT_TRACKING=1 */
    PM_MOE_WHY_DEVICE = 2,     /* counting costs device work: it takes MOE_EXPERT_TRACKING=1 */
    PM_MOE_WHY_MONOLITHIC = 3, /* the kernel routes by itself and bypasses the router */
    PM_MOE_WHY_NO_HOOK = 4,    /* the router offers no capture function */
    PM_MOE_WHY_ROWS = 5,       /* which rows are this rank's tokens cannot be told: microbatches, or
                                  several data-parallel ranks, on a device */
    PM_MOE_WHY_FAILED = 6,     /* the counter could not be set up */
    PM_MOE_WHY_DRAFTER = 7,    /* a drafter's: its passes are not the tokens of steps */
};

struct pm_moe_layer {
    uint64_t at_ns;    /* the model was loaded */
    uint32_t name;     /* string: vLLM's name of the layer, "model.layers.7.mlp.experts" */
    uint32_t layer;    /* the number in that name */
    uint32_t experts;  /* logical ones, of all ranks */
    uint32_t top_k;    /* chosen per token */
    uint16_t instance; /* n-th worker of the process */
    uint16_t slot;     /* n-th MoE layer of that worker: what the other facts name it by */
    uint8_t seen;      /* enum pm_moe_seen */
    uint8_t why;       /* enum pm_moe_why */
    uint8_t pairs;     /* 1: co-selection is kept */
    uint8_t timed;     /* 1: its calls are timed */
};

/* What the cells of a record are. */
enum pm_moe_what { PM_MOE_SELECTIONS = 0, PM_MOE_PAIRS = 1 };

struct pm_moe_counts {
    uint64_t at_ns;
    uint32_t first; /* cell of n[0] */
    uint16_t instance;
    uint16_t slot;
    uint8_t what; /* enum pm_moe_what */
    uint8_t reserved[7];
    uint32_t n[PM_MOE_DELTAS];
};

struct pm_moe_totals {
    uint64_t at_ns;
    uint32_t first;
    uint16_t instance;
    uint16_t slot;
    uint8_t what;
    uint8_t reserved[7];
    uint64_t n[PM_MOE_TOTALS];
};

struct pm_moe_time {
    uint64_t at_ns; /* the layer was entered */
    uint32_t dur_ns;
    uint32_t tokens; /* of the step */
    uint16_t instance;
    uint16_t slot;
    uint32_t reserved;
};

/* The cell of the pair a < b of `experts` experts: pairs in order of a, then of b. */
static inline uint32_t pm_moe_pair(uint32_t experts, uint32_t a, uint32_t b)
{
    return a * (2 * experts - a - 1) / 2 + (b - a - 1);
}

static inline uint32_t pm_moe_pairs(uint32_t experts)
{
    return experts > 1 ? experts * (experts - 1) / 2 : 0;
}

#endif
