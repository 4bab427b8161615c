/*
 * The largest gap since any moment of the past, without a word per moment: a stack of suffix
 * maxima. Every request of a batch gets its outputs at the same moments, so the longest time
 * between two outputs of a request is the largest gap since its first one.
 *
 * push is amortised constant time, since takes the logarithm of what is held. Used by the engine
 * core's probe and by the reader, one thread each; plain data, all zero is empty.
 *
 *   gaps pushed:  5  2  9  1  4  3        held (at, gap):  (3, 9) (5, 4) (6, 3)
 *   at:           1  2  3  4  5  6        since(3) = 4, since(2) = 9
 */
#ifndef PM_BASE_GAPS_H
#define PM_BASE_GAPS_H

#include <stdint.h>

/* Held are gaps each smaller than all before it: of n random ones about ln(n). Where there are
 * more, neighbours are as good as alike and the smallest makes room. */
#define PM_GAPS_MAX 128

struct pm_gaps {
    uint32_t n;
    struct {
        uint64_t at, gap_ns;
    } held[PM_GAPS_MAX]; /* at grows, gap_ns shrinks */
};

/* at: larger than in every call before. */
void pm_gaps_push(struct pm_gaps *gaps, uint64_t at, uint64_t gap_ns);

/* The largest gap pushed at a moment larger than `after`; 0 where there is none. */
uint64_t pm_gaps_since(const struct pm_gaps *gaps, uint64_t after);

#endif
