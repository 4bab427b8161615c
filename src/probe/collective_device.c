/*
 * See collective_device.h. The pairs of a step are one chain (gpu/chain.h). A time's tag is the
 * group's place in a table of names that only grows, and the operation: a group that is made anew
 * where another one lay cannot take its times.
 */
#include "probe/collective_device.h"

#include <string.h>

#include "probe/collective.h"
#include "probe/device.h"
#include "probe/device_chain.h"
#include "probe/probe.h"
#include "session/attrs.h"
#include "session/collective_schema.h"

#define NAMES_MAX 64u
#define OPERATION_BITS 4u
#define TAGS (NAMES_MAX << OPERATION_BITS)
#define OPERATION_OF(tag) ((tag) & ((1u << OPERATION_BITS) - 1))

static const enum pm_device_miss_what what = PM_DEVICE_MISS_COLLECTIVES;

struct sum {
    uint64_t ns;
    uint32_t calls;
};

static struct {
    char names[NAMES_MAX][PM_COLLECTIVE_NAME_MAX];
    uint32_t strings[NAMES_MAX]; /* in the recorder; 0: not yet */
    uint32_t n_names;
    struct sum sums[TAGS]; /* of the chain whose times are being told */
    struct pm_worker_now now;
    bool in_step; /* and on a device */
    bool said, told;
} state;

/* UINT32_MAX: no more are told apart. */
static uint32_t name_of(const char *group)
{
    for (uint32_t i = 0; i < state.n_names; i++)
        if (strcmp(state.names[i], group) == 0)
            return i;
    if (state.n_names == NAMES_MAX)
        return UINT32_MAX;
    memcpy(state.names[state.n_names], group, strnlen(group, PM_COLLECTIVE_NAME_MAX - 1));
    return state.n_names++;
}

/* ---- read back ------------------------------------------------------------------------------- */

static void record(const struct pm_chain_of *of, uint32_t tag, const struct sum *sum)
{
    struct pm_recorder *rec = pm_facts();
    const uint32_t name = tag >> OPERATION_BITS;
    if (rec == NULL)
        return;
    if (state.strings[name] == 0)
        state.strings[name] =
            pm_recorder_string(rec, PM_STREAM_CORE, state.names[name], strlen(state.names[name]));
    struct pm_collective_device *room =
        pm_recorder_reserve(rec, pm_facts_schema(&pm_collective_device_schema));
    if (room == NULL)
        return;
    *room = (struct pm_collective_device){
        .step = of->step,
        .at_ns = of->begun_ns,
        .device_ns = sum->ns,
        .calls = sum->calls,
        .group = state.strings[name],
        .instance = of->instance,
        .operation = (uint8_t)OPERATION_OF(tag),
    };
    pm_recorder_commit(rec, room);
}

static void told(const struct pm_chain_of *of, uint32_t tag, uint64_t ns, void *arg)
{
    (void)arg;
    if (tag < TAGS) {
        state.sums[tag].ns += ns;
        state.sums[tag].calls++;
        return;
    }
    for (uint32_t i = 0; i < state.n_names << OPERATION_BITS; i++) {
        if (state.sums[i].calls > 0)
            record(of, i, &state.sums[i]);
        state.sums[i] = (struct sum){0};
    }
    if (!state.told)
        pm_facts_attr(PM_ATTR_COLLECTIVE_CLOCK, "device");
    state.told = true;
}

/* ---- a step ---------------------------------------------------------------------------------- */

void pm_collective_device_step(const struct pm_worker_now *now)
{
    state.now = *now;
    state.in_step = now->device;
}

uint32_t pm_collective_device_begin(uint64_t now_ns)
{
    uint32_t pair = PM_COLLECTIVE_NO_PAIR;
    if (!state.in_step || pm_device_captures()) /* it is counted for the graph */
        return pair;
    if (!pm_device_chain_is_open(what)) {
        const struct pm_chain_of of = {
            .step = state.now.step,
            .begun_ns = now_ns,
            .instance = state.now.instance,
            .phase = state.now.phase,
        };
        if (!pm_device_chain_begin(what, &of, told))
            return pair;
    }
    if (pm_device_chain_mark(what, false, PM_CHAIN_NO_MARK, 0, &pair) != PM_EVENT_RECORDED)
        return PM_COLLECTIVE_NO_PAIR;
    return pair;
}

void pm_collective_device_end(uint32_t pair, enum pm_collective_operation operation,
                              const char *group)
{
    if (!state.said)
        pm_facts_attr(PM_ATTR_COLLECTIVE_CLOCK, state.now.device ? "launch" : "host");
    state.said = true;
    const uint32_t name = pair != PM_COLLECTIVE_NO_PAIR ? name_of(group) : UINT32_MAX;
    if (name != UINT32_MAX)
        (void)pm_device_chain_mark(what, false, pair, name << OPERATION_BITS | operation, NULL);
}

void pm_collective_device_step_end(bool all, uint64_t now_ns)
{
    if (!state.in_step)
        return;
    state.in_step = false;
    pm_device_chain_end(what);
    pm_device_chain_read(what, all, now_ns);
}

void pm_collective_device_reset(void)
{
    memset(&state, 0, sizeof state);
}
