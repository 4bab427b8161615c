/*
 * What device events cost the host without the driver: bench_events LIBRARY [STEPS]
 *
 * LIBRARY is the stand-in driver (tests/gpu/stand_in.py builds it). Prints the time of a step with
 * its two pairs of events, reading back in batches included, the time of the driver's calls alone,
 * made as often, and the difference: ProfileMate's own part. Then chains, borders of layers and
 * pairs round collective operations, with a driver that does nothing. What a real driver adds (1
 * to 2.5 µs a record), and torch where it is asked for its stream, is measured by
 * tests/gpu/check_gpu.py.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "gpu/chain.h"
#include "gpu/events.h"

static uint64_t told;

static void tell(const struct pm_event_times *times, void *arg)
{
    (void)arg;
    told += times->model_ns != 0;
}

static double with_pool(struct pm_events *events, unsigned steps)
{
    const uint64_t begun = pm_clock_vdso_ns();
    for (unsigned i = 0; i < steps; i++) {
        const uint64_t now = pm_clock_now_ns();
        pm_events_begin(events, i, 0, 2);
        for (unsigned m = 0; m < PM_MARKS; m++)
            (void)pm_events_mark(events, (enum pm_event_mark)m, NULL, now);
        pm_events_end(events);
        if (pm_events_due(events, now))
            (void)pm_events_read(events, false, tell, NULL);
    }
    return (double)(pm_clock_vdso_ns() - begun) / steps;
}

/* The same calls of the driver, and nothing else. */
static double without(const struct pm_driver *driver, unsigned steps)
{
    void *events[PM_MARKS], *context;
    int device, status;
    float ms = 0;
    for (unsigned m = 0; m < PM_MARKS; m++)
        if (driver->event_create(&events[m], 0) != 0)
            abort();
    const uint64_t begun = pm_clock_vdso_ns();
    for (unsigned i = 0; i < steps; i++) {
        for (unsigned m = 0; m < PM_MARKS; m++)
            if (pm_driver_where(driver, &context, &device) != 0 ||
                driver->stream_capturing(NULL, &status) != 0 ||
                driver->event_record(events[m], NULL) != 0)
                abort();
        if (driver->event_query(events[3]) != 0)
            abort();
        for (unsigned m = 0; m < 4; m++)
            if (driver->event_elapsed(&ms, events[m / 2], events[m / 2 + 1]) != 0)
                abort();
    }
    return (double)(pm_clock_vdso_ns() - begun) / steps;
}

/* ---- chains ---- */

#define BORDERS 388u /* of a step: 194 modules */
#define PAIRS 65u    /* of a step: 32 layers with tensor parallelism */

static void tell_chain(const struct pm_chain_of *of, uint32_t tag, uint64_t ns, void *arg)
{
    (void)of;
    (void)arg;
    told += tag != PM_CHAIN_WHOLE && ns != 0;
}

static double with_chains(struct pm_chains *chains, unsigned steps, unsigned marks, bool pairs)
{
    const uint64_t begun = pm_clock_vdso_ns();
    for (unsigned i = 0; i < steps; i++) {
        const uint64_t now = pm_clock_now_ns();
        uint32_t last = PM_CHAIN_NO_MARK;
        pm_chains_begin(chains, &(struct pm_chain_of){.step = i, .begun_ns = now});
        for (unsigned m = 0; m < marks; m++) {
            const uint32_t from = pairs && m % 2 == 0 ? PM_CHAIN_NO_MARK : last;
            if (pm_chains_mark(chains, NULL, from, m, &last) != PM_EVENT_RECORDED)
                abort();
        }
        pm_chains_end(chains);
        if (pm_chains_due(chains, now))
            (void)pm_chains_read(chains, false, tell_chain, NULL);
    }
    return (double)(pm_clock_vdso_ns() - begun) / steps;
}

/* A driver that does nothing: what is left is ours, with the calls themselves. */
static int no_create(void **event, unsigned flags)
{
    static char event_there;
    (void)flags;
    *event = &event_there;
    return 0;
}

static int no_event(void *event)
{
    (void)event;
    return 0;
}

static int no_record(void *event, void *stream)
{
    (void)event;
    (void)stream;
    return 0;
}

static int no_elapsed(float *ms, void *from, void *to)
{
    (void)from;
    (void)to;
    *ms = 1;
    return 0;
}

static int no_capture(void *stream, int *status)
{
    (void)stream;
    *status = 0;
    return 0;
}

static int a_context(void **context)
{
    static char context_there;
    *context = &context_there;
    return 0;
}

static int a_device(int *device)
{
    *device = 0;
    return 0;
}

static void print_chains(const char *what, unsigned steps, unsigned marks, bool pairs)
{
    static const struct pm_driver nothing = {
        .kind = PM_DRIVER_CUDA,
        .name = "nothing",
        .event_create = no_create,
        .event_record = no_record,
        .event_query = no_event,
        .event_elapsed = no_elapsed,
        .event_destroy = no_event,
        .stream_capturing = no_capture,
        .current_context = a_context,
        .current_device = a_device,
    };
    struct pm_chains *chains;
    if (pm_chains_open(&chains, &nothing, 16384, 200) != 0)
        abort();
    (void)with_chains(chains, 100, marks, pairs); /* makes the events */
    double best = 1e18;
    for (int turn = 0; turn < 5; turn++) {
        const double ns = with_chains(chains, steps, marks, pairs);
        best = ns < best ? ns : best;
    }
    printf("%-20s %8.0f ns a step, %.1f ns a %s, recorded and read back, by a driver that does "
           "nothing\n",
           what, best, best / (pairs ? marks / 2 : marks), pairs ? "pair" : "border");
    pm_chains_close(chains);
}

int main(int argc, char **argv)
{
    const unsigned steps = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000000;
    struct pm_driver driver;
    struct pm_events *events;

    if (argc < 2 || steps == 0 || pm_driver_find(&driver, argv[1]) != 0 ||
        pm_events_open(&events, &driver, 100) != 0) {
        fprintf(stderr, "usage: bench_events LIBRARY [STEPS], with the stand-in driver\n");
        return 2;
    }
    (void)with_pool(events, steps / 10 + 1); /* makes the events */
    const double pool = with_pool(events, steps), bare = without(&driver, steps);
    printf("step with two pairs  %8.0f ns\nthe driver's calls   %8.0f ns\nours                 "
           "%8.0f ns a "
           "step, %.0f ns a pair\n",
           pool, bare, pool - bare, (pool - bare) / 2);
    pm_events_close(events);
    print_chains("layers: 388 borders", steps / 200 + 1, BORDERS, false);
    print_chains("65 collectives", steps / 50 + 1, 2 * PAIRS, true);
    return told == 0;
}
