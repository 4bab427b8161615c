/* The clock: the steering's arithmetic on made-up histories, and the real one against
 * CLOCK_MONOTONIC. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/clock_steer.h"

#define SECOND 1000000000ull

/* A machine whose counter runs at some frequency, off from the nominal one by some ppm. */
struct machine {
    struct pm_clock_line line;
    struct pm_clock_reading base;
    uint64_t rate;
};

static uint64_t line_at(const struct pm_clock_line *line, uint64_t tick)
{
    return line->mono_ns + (uint64_t)(((unsigned __int128)(tick - line->tick) * line->mult) >> 32);
}

static enum pm_clock_verdict step(struct machine *machine, uint64_t tick, uint64_t mono_ns,
                                  uint64_t width_ns)
{
    struct pm_clock_reading now = {tick, mono_ns, width_ns};
    struct pm_clock_line next;
    uint64_t rate;
    enum pm_clock_verdict verdict =
        pm_clock_judge(&machine->line, &machine->base, machine->rate, &now, &next, &rate);
    if (verdict == PM_CLOCK_STEER) {
        if (machine->line.mult != 0) /* continuous: both lines agree where they meet */
            assert_true(line_at(&machine->line, tick) == line_at(&next, tick));
        machine->line = next;
        machine->rate = rate;
        machine->base = now;
    }
    return verdict;
}

static void settles(void **state)
{
    (void)state;
    struct machine machine = {.base = {.tick = 5000, .mono_ns = 1000, .width_ns = 30}};
    assert_int_equal(step(&machine, 5000, 1010, 30), PM_CLOCK_KEEP);
    assert_int_equal(step(&machine, 5000 + 3 * 9999999, 1000 + 9999999, 30), PM_CLOCK_KEEP);
    assert_int_equal(step(&machine, 5000 + 3 * 20000000, 1000 + 20000000, 30), PM_CLOCK_STEER);
    assert_true(machine.line.mult == (1ull << 32) / 3);
    /* a reading that was interrupted cannot judge */
    uint64_t tick = machine.base.tick, mono = machine.base.mono_ns;
    assert_int_equal(step(&machine, tick + 3 * SECOND, mono + SECOND, 60000), PM_CLOCK_KEEP);
    assert_int_equal(step(&machine, tick + 3 * SECOND, mono + SECOND, 1000), PM_CLOCK_STEER);
}

/* An hour of a counter whose rate wanders by 20 ppm as a warming crystal does: the error against
 * the true time stays below 50 us, and goes to almost nothing once the rate is steady. */
static void follows(void **state)
{
    (void)state;
    struct machine machine = {.base = {.tick = 0, .mono_ns = 0, .width_ns = 20}};
    uint64_t tick = 0, mono = 0;
    for (int second = 0; second < 3600; second++) {
        int ppm = second < 1800 ? second % 40 - 20 : 7;
        tick += 2500000000ull + (uint64_t)((int64_t)2500 * ppm);
        mono += SECOND;
        uint64_t noise = (uint64_t)(second * 7919 % 40);
        assert_int_equal(step(&machine, tick, mono + noise, 40), PM_CLOCK_STEER);
        int64_t error = (int64_t)(line_at(&machine.line, tick) - mono);
        if (second > 5)
            assert_true(error > -50000 && error < 50000);
        if (second > 1830)
            assert_true(error > -200 && error < 200);
    }
}

static void gives_up(void **state)
{
    (void)state;
    for (int direction = -1; direction <= 1; direction += 2) {
        struct machine machine = {.base = {.tick = 0, .mono_ns = 0, .width_ns = 20}};
        assert_int_equal(step(&machine, SECOND, SECOND, 20), PM_CLOCK_STEER);
        /* 150 ppm is drift, 250 ppm is another machine */
        uint64_t tick = 2 * SECOND + (uint64_t)(direction * 150000);
        assert_int_equal(step(&machine, tick, 2 * SECOND, 20), PM_CLOCK_STEER);
        tick += SECOND + (uint64_t)(direction * 450000);
        assert_int_equal(step(&machine, tick, 3 * SECOND, 20), PM_CLOCK_GIVE_UP);
    }
    struct machine machine = {.base = {.tick = 7 * SECOND, .mono_ns = 0, .width_ns = 20}};
    assert_int_equal(step(&machine, 6 * SECOND, SECOND, 20), PM_CLOCK_GIVE_UP); /* went back */
    assert_int_equal(step(&machine, 7 * SECOND, SECOND, 20), PM_CLOCK_GIVE_UP); /* stands */
    assert_int_equal(step(&machine, 7 * SECOND + 100, SECOND, 20), PM_CLOCK_GIVE_UP); /* 100 Hz */
}

/* A machine that slept for five hours, or was stopped and started elsewhere. CLOCK_MONOTONIC does
 * not count a sleep; the counter may have gone on, stood still, or begun anew. Where both went on
 * together nothing has to change; elsewhere the counter is given up, so that no time recorded after
 * it is hours off. */
static void a_jump_of_hours(void **state)
{
    (void)state;
    const uint64_t hours = 5 * 3600 * SECOND;
    const struct {
        uint64_t ticks, mono_ns;
        enum pm_clock_verdict want;
    } cases[] = {
        {hours + SECOND, hours + SECOND, PM_CLOCK_STEER},
        {hours + SECOND, SECOND, PM_CLOCK_GIVE_UP},
        {SECOND, hours + SECOND, PM_CLOCK_GIVE_UP},
        {0 - 2 * SECOND, SECOND, PM_CLOCK_GIVE_UP},
        {0 - 2 * SECOND, hours, PM_CLOCK_GIVE_UP},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct machine machine = {.base = {.tick = 9 * SECOND, .mono_ns = 0, .width_ns = 20}};
        assert_int_equal(step(&machine, 10 * SECOND, SECOND, 20), PM_CLOCK_STEER);
        assert_int_equal(
            step(&machine, 10 * SECOND + cases[i].ticks, SECOND + cases[i].mono_ns, 20),
            cases[i].want);
    }
}

static void real_clock(void **state)
{
    (void)state;
    uint64_t tick, mono, real;
    pm_clock_init();
    pm_clock_init();
    uint64_t before = pm_clock_vdso_ns();
    assert_true(pm_clock_steer(&tick, &mono, &real));
    assert_true(mono >= before && mono <= pm_clock_vdso_ns());
    assert_true(pm_clock_steer(NULL, NULL, NULL));
    int64_t skew = (int64_t)(real - mono) - (int64_t)(pm_clock_real_ns() - pm_clock_vdso_ns());
    assert_true(skew > -1000000000 && skew < 1000000000);
    /* past the settling time the map is in force where the kernel trusts the counter */
    struct timespec pause = {.tv_nsec = 15000000};
    bool ticks = tick != 0;
    for (int i = 0; i < 12000 && ticks && strcmp(pm_clock_name(), "monotonic") == 0; i++) {
        nanosleep(&pause, NULL);
        assert_true(pm_clock_steer(NULL, NULL, NULL));
    }
    assert_true(!ticks == (strcmp(pm_clock_name(), "monotonic") == 0));
    /* never back, and close to the clock it follows: a millisecond would be another clock */
    uint64_t last = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t low = pm_clock_vdso_ns(), now = pm_clock_now_ns(), high = pm_clock_vdso_ns();
        assert_true(now >= last);
        assert_true(now + 1000000 > low && now < high + 1000000);
        last = now;
    }
    assert_int_equal(pm_clock_elapsed(5, 9), 4);
    assert_int_equal(pm_clock_elapsed(9, 5), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settles),         cmocka_unit_test(follows),    cmocka_unit_test(gives_up),
        cmocka_unit_test(a_jump_of_hours), cmocka_unit_test(real_clock),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
