/*
 * The clock: decides for or against the tick counter, reads the clocks together, and steers.
 * pm_clock_init is called at activation, pm_clock_steer by the recorder's helper thread; reading
 * (clock.h) is free for every thread at any time. Owns the eight maps below.
 */
#include "base/clock.h"
#include "base/clock_steer.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct pm_clock_map pm_clock_maps[PM_CLOCK_MAPS];
_Atomic uint32_t pm_clock_index;

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define TRIES 5
#define RATE_MIN (1ull << 26) /* 64 GHz */
#define RATE_MAX (1ull << 44) /* 244 kHz */

/* What the steering remembers; touched by pm_clock_init and pm_clock_steer only. */
static struct {
    bool initialised;
    bool sound; /* the tick counter may be used */
    struct pm_clock_reading base;
    struct pm_clock_line line;
    uint64_t rate;
} steering;

/* ---- arithmetic (clock_steer.h) ---- */

/* Whether b differs from a by more than ppm. */
static bool differs(uint64_t a, uint64_t b, uint64_t ppm)
{
    uint64_t gap = a > b ? a - b : b - a;
    return (unsigned __int128)gap * 1000000u > (unsigned __int128)a * ppm;
}

enum pm_clock_verdict pm_clock_judge(const struct pm_clock_line *line,
                                     const struct pm_clock_reading *base, uint64_t rate,
                                     const struct pm_clock_reading *now,
                                     struct pm_clock_line *ret_line, uint64_t *ret_rate)
{
    if (now->tick <= base->tick)
        /* equal readings of a slow counter are too soon; a counter that went back is broken */
        return now->tick == base->tick && now->mono_ns - base->mono_ns < PM_CLOCK_SETTLE_NS
                   ? PM_CLOCK_KEEP
                   : PM_CLOCK_GIVE_UP;
    uint64_t span_ns = now->mono_ns - base->mono_ns;
    if (span_ns < PM_CLOCK_SETTLE_NS)
        return PM_CLOCK_KEEP;
    /* the rate's own error must be well below what counts as a step */
    if ((base->width_ns + now->width_ns) > span_ns / 1000000u * (PM_CLOCK_STEP_PPM / 4))
        return PM_CLOCK_KEEP;

    unsigned __int128 wide = ((unsigned __int128)span_ns << 32) / (now->tick - base->tick);
    if (wide < RATE_MIN || wide > RATE_MAX)
        return PM_CLOCK_GIVE_UP;
    uint64_t measured = (uint64_t)wide;
    if (rate != 0 && differs(rate, measured, PM_CLOCK_STEP_PPM))
        return PM_CLOCK_GIVE_UP;

    struct pm_clock_line next = {.tick = now->tick, .mono_ns = now->mono_ns, .mult = measured};
    if (line->mult != 0) {
        next.mono_ns = line->mono_ns +
                       (uint64_t)(((unsigned __int128)(now->tick - line->tick) * line->mult) >> 32);
        /* the offset, made up for within the horizon but at most at the rate that counts as a step
         */
        int64_t limit = PM_CLOCK_HORIZON_NS / 1000000 * PM_CLOCK_STEP_PPM;
        int64_t offset = (int64_t)(now->mono_ns - next.mono_ns);
        offset = offset > limit ? limit : offset < -limit ? -limit : offset;
        next.mult += (uint64_t)(int64_t)((__int128)measured * offset / PM_CLOCK_HORIZON_NS);
    }
    *ret_line = next;
    *ret_rate = measured;
    return PM_CLOCK_STEER;
}

/* ---- clocks ---- */

uint64_t pm_clock_real_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Whether the kernel itself keeps time with the counter that pm_clock_tick reads: it has then
 * checked that the counter is constant, runs in idle states and agrees between cores. */
static bool kernel_trusts_ticks(void)
{
#if defined(__x86_64__)
    static const char wanted[] = "tsc";
#elif defined(__aarch64__)
    static const char wanted[] = "arch_sys_counter";
#else
    return false;
#endif
#if defined(__x86_64__) || defined(__aarch64__)
    char text[64];
    int fd = open(CLOCKSOURCE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t bytes = read(fd, text, sizeof text - 1);
    close(fd);
    if (bytes <= 0)
        return false;
    text[bytes] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return strcmp(text, wanted) == 0;
#endif
}

/* Reads the clocks together: the monotonic one between the two halves of the narrowest try. The
 * reading's tick is the earlier one, so that the line through it is late rather than early by the
 * width, and the first switch from CLOCK_MONOTONIC never takes time back. */
static void read_clocks(struct pm_clock_reading *ret_reading, uint64_t *ret_real_ns)
{
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        uint64_t before_ns = pm_clock_vdso_ns();
        uint64_t tick = pm_clock_tick();
        uint64_t mono_ns = pm_clock_vdso_ns();
        uint64_t real_ns = pm_clock_real_ns();
        uint64_t after_ns = pm_clock_vdso_ns();
        if (after_ns - before_ns >= narrowest)
            continue;
        narrowest = after_ns - before_ns;
        ret_reading->tick = tick;
        ret_reading->mono_ns = mono_ns;
        ret_reading->width_ns = mono_ns - before_ns;
        /* realtime was read between mono_ns and after_ns: bring it back to mono_ns */
        *ret_real_ns = real_ns - (after_ns - mono_ns) / 2;
    }
}

/* Puts a line in force. */
static void publish(const struct pm_clock_line *line)
{
    uint32_t next = atomic_load_explicit(&pm_clock_index, memory_order_relaxed) + 1;
    struct pm_clock_map *map = &pm_clock_maps[next % PM_CLOCK_MAPS];
    atomic_store_explicit(&map->tick, line->tick, memory_order_relaxed);
    atomic_store_explicit(&map->mono_ns, line->mono_ns, memory_order_relaxed);
    atomic_store_explicit(&map->mult, line->mult, memory_order_relaxed);
    atomic_store_explicit(&pm_clock_index, next, memory_order_release);
}

void pm_clock_init(void)
{
    if (steering.initialised)
        return;
    uint64_t real_ns;
    steering.initialised = true;
    steering.sound = kernel_trusts_ticks();
    read_clocks(&steering.base, &real_ns);
}

bool pm_clock_steer(uint64_t *ret_tick, uint64_t *ret_mono_ns, uint64_t *ret_real_ns)
{
    struct pm_clock_reading now;
    struct pm_clock_line next;
    uint64_t real_ns, rate;
    bool gave_up = false;

    pm_clock_init();
    read_clocks(&now, &real_ns);
    if (steering.sound)
        switch (pm_clock_judge(&steering.line, &steering.base, steering.rate, &now, &next, &rate)) {
        case PM_CLOCK_KEEP:
            break;
        case PM_CLOCK_STEER:
            steering.base = now;
            steering.line = next;
            steering.rate = rate;
            publish(&next);
            break;
        case PM_CLOCK_GIVE_UP:
            steering.sound = false;
            gave_up = true;
            memset(&steering.line, 0, sizeof steering.line);
            publish(&steering.line);
            break;
        }
    if (ret_tick != NULL)
        *ret_tick = steering.sound ? now.tick : 0;
    if (ret_mono_ns != NULL)
        *ret_mono_ns = now.mono_ns;
    if (ret_real_ns != NULL)
        *ret_real_ns = real_ns;
    return !gave_up;
}

const char *pm_clock_name(void)
{
    const struct pm_clock_map *map =
        &pm_clock_maps[atomic_load_explicit(&pm_clock_index, memory_order_acquire) % PM_CLOCK_MAPS];
    if (atomic_load_explicit(&map->mult, memory_order_relaxed) == 0)
        return "monotonic";
#if defined(__aarch64__)
    return "cntvct";
#else
    return "tsc";
#endif
}
