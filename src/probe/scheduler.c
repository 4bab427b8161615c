/* See scheduler.h. */
#include "probe/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "probe/probe.h"

#define SCHEDULERS_MAX 4 /* live at a time in one process; the oldest makes room */

static struct pm_scheduler schedulers[SCHEDULERS_MAX];
static uint16_t n_instances;

static void scheduler_clear(struct pm_scheduler *scheduler)
{
    pm_members_clear(&scheduler->members);
    for (uint32_t i = 0; i < PM_FLIGHTS; i++) {
        free(scheduler->flights[i].opens.slots);
        free(scheduler->flights[i].closes.slots);
    }
    free(scheduler->ended.slots);
    memset(scheduler, 0, sizeof *scheduler);
}

struct pm_scheduler *pm_scheduler_add(const PyObject *self)
{
    struct pm_scheduler *place = &schedulers[0];
    for (size_t i = 0; i < SCHEDULERS_MAX; i++) {
        struct pm_scheduler *each = &schedulers[i];
        if (each->self == self || each->self == NULL) {
            place = each;
            break;
        }
        if (each->instance < place->instance)
            place = each;
    }
    scheduler_clear(place);
    place->self = self;
    place->instance = n_instances++;
    place->members.with_lives = pm_facts_settings()->preemption;
    return place;
}

struct pm_scheduler *pm_scheduler_known(const PyObject *self)
{
    for (size_t i = 0; i < SCHEDULERS_MAX; i++) {
        if (schedulers[i].self == self)
            return &schedulers[i];
    }
    return NULL;
}

struct pm_scheduler *pm_scheduler_of(const PyObject *self)
{
    struct pm_scheduler *known = pm_scheduler_known(self);
    return known != NULL ? known : pm_scheduler_add(self);
}

struct pm_scheduler *pm_scheduler_at(size_t i)
{
    return i < SCHEDULERS_MAX ? &schedulers[i] : NULL;
}

void pm_scheduler_reset(void)
{
    for (size_t i = 0; i < SCHEDULERS_MAX; i++)
        scheduler_clear(&schedulers[i]);
    n_instances = 0;
}

struct pm_flight *pm_flight_begin(struct pm_scheduler *scheduler, uint64_t step)
{
    struct pm_flight *flight = &scheduler->flights[scheduler->next_flight++ % PM_FLIGHTS];
    flight->output = NULL;
    flight->step = step;
    flight->requests = flight->gives = flight->spec_tokens = 0;
    flight->dropped = false;
    flight->opens.n = flight->closes.n = 0;
    return flight;
}

struct pm_flight *pm_flight_of(struct pm_scheduler *scheduler, const PyObject *output)
{
    for (uint32_t i = 1; i <= PM_FLIGHTS; i++) {
        struct pm_flight *flight = &scheduler->flights[(scheduler->next_flight - i) % PM_FLIGHTS];
        if (flight->output == output)
            return output != NULL ? flight : NULL;
    }
    return NULL;
}

struct pm_flight *pm_flight_at(struct pm_scheduler *scheduler, uint64_t step)
{
    for (uint32_t i = 1; i <= PM_FLIGHTS; i++) {
        struct pm_flight *flight = &scheduler->flights[(scheduler->next_flight - i) % PM_FLIGHTS];
        if (flight->output != NULL && flight->step == step)
            return flight;
    }
    return NULL;
}

bool pm_slots_add(struct pm_slots *slots, uint32_t slot)
{
    if (slots->n == slots->room) {
        const uint32_t room = slots->room != 0 ? slots->room * 2 : 64;
        uint32_t *more = realloc(slots->slots, sizeof *more * room);
        if (more == NULL)
            return false;
        slots->slots = more;
        slots->room = room;
    }
    slots->slots[slots->n++] = slot;
    return true;
}
