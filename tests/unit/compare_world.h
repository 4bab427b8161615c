/*
 * Steps of a made-up server whose speed wanders: load and noise are correlated in time, as they are
 * on real machines. For the tests of the comparison.
 */
#ifndef PM_TESTS_COMPARE_WORLD_H
#define PM_TESTS_COMPARE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compare/collect.h"
#include "compare/compare.h"
#include "compare/match.h"
#include "session/step_facts.h"

struct world {
    uint64_t rng;
    double batch; /* mean of the running requests; wanders round `load` */
    double load;
    double slow[3]; /* noise of three speeds: jitter, seconds, minutes; shares */
    uint64_t step, kv;
};

static inline double world_uniform(struct world *world)
{
    return (double)(pm_random(&world->rng) >> 11) / 9007199254740992.0;
}

static inline double world_normal(struct world *world)
{
    double sum = -6;
    for (unsigned i = 0; i < 12; i++)
        sum += world_uniform(world);
    return sum;
}

static inline void world_init(struct world *world, uint64_t seed, double load)
{
    *world = (struct world){.rng = seed, .batch = load, .load = load, .kv = 2000};
}

/* The next step; what it takes is what its work needs, times the noise of the moment. */
static inline void world_next(struct world *world, struct pm_step *step,
                              struct pm_step_beside *beside)
{
    memset(step, 0, sizeof(*step));
    memset(beside, 0, sizeof(*beside));
    world->slow[0] = 0.02 * world_normal(world);
    world->slow[1] = 0.98 * world->slow[1] + 0.2 * 0.02 * world_normal(world);
    world->slow[2] = 0.999 * world->slow[2] + 0.045 * 0.01 * world_normal(world);
    world->batch += 0.02 * (world->load - world->batch) + 0.3 * world_normal(world);
    if (world->batch < 1)
        world->batch = 1;
    const double noise = 1 + world->slow[0] + world->slow[1] + world->slow[2];
    const uint32_t decodes = (uint32_t)(world->batch + 0.5);
    const bool prefill = world_uniform(world) < 0.08;
    const uint32_t prompt = prefill ? (uint32_t)(64 + 400 * world_uniform(world)) : 0;
    const bool alone = prefill && world_uniform(world) < 0.4;

    step->step = world->step++;
    step->has_sched = step->has_worker = step->matched = true;
    step->decode_requests = step->decode_tokens = alone ? 0 : decodes;
    step->prefill_requests = prefill;
    step->prefill_tokens = prompt;
    step->requests = step->decode_requests + prefill;
    step->tokens = step->decode_tokens + prompt;
    step->phase = prefill ? PM_PHASE_PREFILL : PM_PHASE_DECODE;
    step->mixed = prefill && !alone;
    step->running = step->requests;
    step->waiting = alone; /* more follow: the gap behind it is no want of work */
    step->sched_ns = (uint32_t)(60e3 * noise + 1e3 * step->requests);
    step->pre_ns = (uint32_t)(200e3 * noise + 4e3 * step->requests);
    step->model_ns = (uint32_t)((5e6 + 40e3 * step->decode_requests + 18e3 * prompt +
                                 0.02 * (double)world->kv * 1e3) *
                                noise);
    step->forward_ns = step->model_ns;
    step->forward_clock = 1;
    step->post_ns = (uint32_t)(20e3 * noise);
    step->sample_ns = (uint32_t)(400e3 * noise + 5e3 * step->requests);
    beside->has_update = beside->has_kv = true;
    beside->update_ns = (uint64_t)(80e3 * noise + 2e3 * step->requests);
    beside->outputs = step->requests;
    beside->continued = step->decode_requests;
    world->kv = (uint64_t)(world->batch * 180 + 50 * world_uniform(world));
    beside->kv_used = world->kv / 16;
    beside->kv_total = 4096;
    beside->block_tokens = 16;
}

/* Puts a step behind the ones before it: schedule, run, take in the output, and a little between.
 */
static inline void world_place(struct pm_step *step, struct pm_step_beside *beside, uint64_t *now,
                               uint64_t *update_start, uint64_t *update_ns)
{
    beside->has_update_before = *update_start != 0;
    beside->before_start_ns = *update_start;
    beside->before_ns = *update_ns;
    step->sched_start_ns = *now + 10000;
    step->worker_start_ns = step->sched_start_ns + step->sched_ns + 15000;
    step->total_ns = step->pre_ns + step->model_ns + step->post_ns + step->sample_ns + 12000;
    beside->update_start_ns = step->worker_start_ns + step->total_ns + 5000;
    beside->gap_ns = beside->update_start_ns + beside->update_ns - *now;
    *update_start = beside->update_start_ns;
    *update_ns = beside->update_ns;
    *now = beside->update_start_ns + beside->update_ns;
}

struct world_step {
    struct pm_step step;
    struct pm_step_beside beside;
};

/* A session of these steps, in the order of `order`, blocks of `length` at a time. */
static inline void world_session(struct pm_compare_input *input, unsigned side, const char *name,
                                 const struct world_step *steps, const size_t *order, size_t n,
                                 size_t length, void (*slow)(struct pm_step *step))
{
    static const struct pm_known known = {.sched = true, .kv = true, .detail = true};
    struct pm_collected collected = {0};
    struct pm_step_walk walk = {0};
    uint64_t now = 1000000000, update_start = 0, update_ns = 0;

    assert_int_equal(pm_tally_init(&collected.steps, pm_compare_step_strata(input)), 0);
    assert_int_equal(pm_tally_init(&collected.requests, pm_compare_request_strata(input)), 0);
    for (size_t b = 0; b < n; b++)
        for (size_t i = 0; i < length; i++) {
            struct world_step one = steps[order[b] + i];
            struct pm_observation seen;
            if (slow != NULL)
                slow(&one.step);
            world_place(&one.step, &one.beside, &now, &update_start, &update_ns);
            pm_step_observe(&walk, &known, &one.step, &one.beside, &seen);
            collected.clocks[1]++;
            assert_int_equal(pm_tally_add(&collected.steps, &seen), 0);
        }
    assert_int_equal(pm_compare_add_collected(input, side, name, &collected), 0);
}

#endif
