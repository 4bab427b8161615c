/*
 * How the tick counter is steered onto CLOCK_MONOTONIC: the arithmetic of clock.c, without clocks,
 * so that tests can feed it any history. Pure; one thread at a time.
 */
#ifndef PM_BASE_CLOCK_STEER_H
#define PM_BASE_CLOCK_STEER_H

#include <stdbool.h>
#include <stdint.h>

/* The clocks read together. */
struct pm_clock_reading {
    uint64_t tick;
    uint64_t mono_ns;
    uint64_t width_ns; /* the tick was read at most this long before or after mono_ns */
};

/* A straight piece of the map, as struct pm_clock_map. */
struct pm_clock_line {
    uint64_t tick, mono_ns, mult;
};

enum pm_clock_verdict {
    PM_CLOCK_KEEP,    /* too soon or too coarse to judge: go on with the line in force */
    PM_CLOCK_STEER,   /* *ret_line is the next line */
    PM_CLOCK_GIVE_UP, /* the ticks are not to be trusted */
};

#define PM_CLOCK_SETTLE_NS 10000000ull   /* a base shorter than this is not judged */
#define PM_CLOCK_STEP_PPM 200            /* a rate this far from the last one is a step */
#define PM_CLOCK_HORIZON_NS 1000000000ll /* an offset is made up for within this time */

/* Judges a reading against the last one that was accepted (base) and the line in force (mult 0:
 * none yet). rate is that of the last judgement, 0 before the first, in 2^-32 ns per tick; on
 * PM_CLOCK_STEER *ret_line and *ret_rate are set. The new line starts where the old one is at that
 * tick, so the time shown never jumps; its slope makes up for the offset. */
enum pm_clock_verdict pm_clock_judge(const struct pm_clock_line *line,
                                     const struct pm_clock_reading *base, uint64_t rate,
                                     const struct pm_clock_reading *now,
                                     struct pm_clock_line *ret_line, uint64_t *ret_rate);

#endif
