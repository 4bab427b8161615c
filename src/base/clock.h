/*
 * One clock for all facts: CLOCK_MONOTONIC nanoseconds.
 *
 * Reading it costs a TSC read and a multiplication where the kernel's own clocksource is the TSC,
 * and the vDSO call elsewhere. The map from ticks to nanoseconds is steered once a second by
 * pm_clock_steer (the recorder's helper thread): it is continuous, and a rate more than 200 ppm off
 * the one measured before gives the TSC up for good.
 */
#ifndef PM_BASE_CLOCK_H
#define PM_BASE_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* One straight piece of the map. Written only while another one is in force, read relaxed after the
 * index: a reader would have to sleep through PM_CLOCK_MAPS - 1 steerings between two of its own
 * instructions to see one change. */
struct pm_clock_map {
    _Atomic uint64_t tick;    /* at this tick … */
    _Atomic uint64_t mono_ns; /* … it was this late */
    _Atomic uint64_t mult;    /* ns per tick, 2^-32 units; 0: use CLOCK_MONOTONIC */
};

#define PM_CLOCK_MAPS 8
extern struct pm_clock_map pm_clock_maps[PM_CLOCK_MAPS];
extern _Atomic uint32_t pm_clock_index; /* which map is in force */

static inline uint64_t pm_clock_tick(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t tick;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(tick));
    return tick;
#else
    return 0;
#endif
}

static inline uint64_t pm_clock_vdso_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Now, in CLOCK_MONOTONIC ns. Never goes back within one thread, but for two rare cases: a tick
 * counter that differs between cores, and the moment in which the TSC is given up. Take
 * differences with pm_clock_elapsed. */
static inline uint64_t pm_clock_now_ns(void)
{
    struct pm_clock_map *map =
        &pm_clock_maps[atomic_load_explicit(&pm_clock_index, memory_order_acquire) % PM_CLOCK_MAPS];
    uint64_t mult = atomic_load_explicit(&map->mult, memory_order_relaxed);
    if (mult == 0)
        return pm_clock_vdso_ns();
    int64_t ticks =
        (int64_t)(pm_clock_tick() - atomic_load_explicit(&map->tick, memory_order_relaxed));
    return atomic_load_explicit(&map->mono_ns, memory_order_relaxed) +
           (uint64_t)(int64_t)(((__int128)ticks * (__int128)mult) >> 32);
}

/* end - start, 0 where end is the earlier one. */
static inline uint64_t pm_clock_elapsed(uint64_t start_ns, uint64_t end_ns)
{
    return end_ns > start_ns ? end_ns - start_ns : 0;
}

/* Decides whether the TSC is sound (clocksource file says tsc / arch_sys_counter) and takes the
 * first anchor. Until the first pm_clock_steer that has at least 10 ms behind it, CLOCK_MONOTONIC
 * is used. Idempotent. */
void pm_clock_init(void);

/* Reads the three clocks together (the tightest of a few tries) and steers the map. Returns false
 * when it gave the TSC up in this call. *ret_tick is 0 where the TSC is not in use. Any of the
 * outputs may be NULL. One thread at a time. */
bool pm_clock_steer(uint64_t *ret_tick, uint64_t *ret_mono_ns, uint64_t *ret_real_ns);

/* "tsc", "cntvct" or "monotonic": what pm_clock_now_ns reads now. */
const char *pm_clock_name(void);

/* CLOCK_REALTIME in ns. */
uint64_t pm_clock_real_ns(void);

#endif
