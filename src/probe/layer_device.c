/*
 * See layer_device.h. A pass is a chain of events on the stream that it began on. A module that
 * runs on another stream (shared experts beside the routed ones) has no time of its own: on the
 * pass's stream nothing of it happens, and what does goes to the module around it. A pass of which
 * an event is missing is given up, since its times would go to the wrong modules.
 */
#include "probe/layer_device.h"

#include <string.h>

#include "base/clock.h"
#include "probe/device_chain.h"
#include "probe/layer_sums.h"
#include "probe/probe.h"
#include "session/attrs.h"

#define BEGINS 0x80000000u /* in a tag beside the cell: a call of the module begins there */

static struct {
    struct pm_worker_now now; /* of the step */
    uint64_t generation;      /* of the cells */
    uint32_t tag;             /* whose the time is since the last event */
    uint32_t last;            /* that event's number in the chain */
    bool told;                /* the clock was said to be the device's */
} state;

static void told(const struct pm_chain_of *of, uint32_t tag, uint64_t ns, void *arg)
{
    (void)arg;
    if (of->key != state.generation || of->instance != state.now.instance)
        return; /* the cells are others */
    if (tag != PM_CHAIN_WHOLE) {
        pm_layer_device(tag & ~BEGINS, of->phase, (tag & BEGINS) != 0, ns);
        return;
    }
    pm_layer_device_pass(of->phase, ns);
    if (!state.told)
        pm_facts_attr(PM_ATTR_LAYER_CLOCK, "device");
    state.told = true;
}

static void border(uint32_t cell, bool begins)
{
    const enum pm_device_miss_what what = PM_DEVICE_MISS_LAYERS;
    const uint32_t tag = cell | (begins ? BEGINS : 0);
    const bool first = begins && pm_layer_now.depth == 1;
    if (first) {
        const struct pm_chain_of of = {
            .key = state.generation,
            .step = state.now.step,
            .begun_ns = pm_clock_now_ns(),
            .instance = state.now.instance,
            .phase = (uint8_t)pm_layer_phase(),
        };
        state.last = PM_CHAIN_NO_MARK;
        if (!pm_device_chain_begin(what, &of, told))
            return;
    }
    if (!pm_device_chain_is_open(what))
        return;
    const enum pm_event_outcome outcome =
        pm_device_chain_mark(what, true, state.last, state.tag, &state.last);
    if (outcome == PM_EVENT_RECORDED)
        state.tag = tag;
    else if (outcome != PM_EVENT_NONE)
        pm_device_chain_lose(what);
    if (cell == PM_LAYER_NONE)
        pm_device_chain_end(what);
}

void pm_layer_device_step(const struct pm_worker_now *now)
{
    if (state.now.instance != now->instance || !state.now.tokens)
        pm_facts_attr(PM_ATTR_LAYER_CLOCK, now->device ? "launch" : "host");
    if (state.now.instance != now->instance)
        state.told = false;
    state.now = *now;
    pm_layer_border = now->device ? border : NULL;
}

void pm_layer_device_read(bool all, uint64_t now_ns)
{
    pm_device_chain_read(PM_DEVICE_MISS_LAYERS, all, now_ns);
}

void pm_layer_device_stop(void)
{
    pm_device_chain_lose(PM_DEVICE_MISS_LAYERS);
}

void pm_layer_device_forget(void)
{
    const uint64_t generation = state.generation + 1;
    memset(&state, 0, sizeof state);
    state.generation = generation;
}
