/* See events.h. */
#include "gpu/events.h"

#include <stdlib.h>
#include <string.h>

enum state {
    OPEN,
    CLOSED, /* to be read */
    READ,
    GIVEN_UP, /* its events mean nothing; what follows it has no step before it */
};

struct place {
    void *events[PM_MARKS]; /* NULL: not made yet */
    void *streams[PM_MARKS];
    uint64_t step, begun_ns;
    uint16_t instance;
    uint8_t phase, marks; /* bits of those recorded */
    uint8_t state;        /* enum state */
    bool chained;         /* the place before it is of the step before it on this device */
};

struct context {
    void *context;
    int device;
    struct place *ring; /* of `capacity` */
    unsigned first, count;
    unsigned waiting; /* event pairs of CLOSED places */
    bool broken;      /* a step since the newest place has no place */
};

struct pm_events {
    struct pm_gpu_calls calls;
    unsigned batch, capacity;
    struct context contexts[PM_EVENTS_CONTEXTS];
    unsigned n_contexts;
    /* The open step. */
    uint64_t step;
    uint16_t instance;
    uint8_t phase;
    bool open, lost;    /* lost: open, and nothing more is recorded for it */
    struct context *at; /* where its place is; NULL: none yet */
    struct place *place;
    struct pm_events_counts counts;
};

int pm_events_open(struct pm_events **ret_events, const struct pm_driver *driver, unsigned batch)
{
    struct pm_events *events = calloc(1, sizeof *events);
    if (events == NULL)
        return -PM_ENOMEM;
    const unsigned most = 2 * (PM_EVENTS_STEPS - PM_EVENTS_AHEAD);
    events->calls.driver = *driver;
    events->batch = batch == 0 ? 1 : batch < most ? batch : most;
    events->capacity = (events->batch + 1) / 2 + PM_EVENTS_AHEAD;
    *ret_events = events;
    return 0;
}

static bool off(const struct pm_events *events)
{
    return pm_gpu_off(&events->calls);
}

bool pm_events_failed(const struct pm_events *events, char *out, size_t size)
{
    return pm_gpu_failed(&events->calls, out, size);
}

static unsigned pairs_of(const struct place *place)
{
    return (place->marks >> PM_MARK_SAMPLE_END & 1u) + 1u;
}

static struct place *place_at(const struct pm_events *events, const struct context *at, unsigned i)
{
    return &at->ring[(at->first + i) % events->capacity];
}

/* ---- recording ------------------------------------------------------------------------------ */

static void close_place(struct pm_events *events, bool good)
{
    struct place *place = events->place;
    const unsigned model = 1u << PM_MARK_MODEL | 1u << PM_MARK_MODEL_END;
    if (place == NULL)
        return;
    if (!(place->marks >> PM_MARK_SAMPLE & 1u) || !(place->marks >> PM_MARK_SAMPLE_END & 1u))
        place->marks &= (uint8_t)model;
    if (good && (place->marks & model) == model) {
        place->state = CLOSED;
        events->at->waiting += pairs_of(place);
        events->counts.steps++;
    } else {
        place->state = GIVEN_UP;
    }
    events->place = NULL;
    events->at = NULL;
}

void pm_events_begin(struct pm_events *events, uint64_t step, uint16_t instance, uint8_t phase)
{
    pm_events_end(events);
    events->step = step;
    events->instance = instance;
    events->phase = phase;
    events->open = true;
    events->lost = false;
}

void pm_events_end(struct pm_events *events)
{
    close_place(events, !events->lost);
    events->open = false;
}

bool pm_events_has(const struct pm_events *events, enum pm_event_mark mark)
{
    return events->place != NULL && (events->place->marks >> mark & 1u) != 0;
}

/* The rest of the step is not recorded, and what was is not used. */
static enum pm_event_outcome lose(struct pm_events *events, struct context *at,
                                  enum pm_event_outcome why)
{
    events->lost = true;
    /* Where its place would have been, or in any context, something is missing. */
    for (unsigned c = 0; events->place == NULL && c < events->n_contexts; c++)
        if (at == NULL || at == &events->contexts[c])
            events->contexts[c].broken = true;
    close_place(events, false);
    return why;
}

void pm_events_lose(struct pm_events *events)
{
    (void)lose(events, events->at, PM_EVENT_NONE);
}

/* The context in use, with a ring. NULL: *ret_why says why. */
static struct context *context_here(struct pm_events *events, enum pm_event_outcome *ret_why)
{
    int device;
    void *context = pm_gpu_context(&events->calls, &device, ret_why);
    if (context == NULL)
        return NULL;
    for (unsigned i = 0; i < events->n_contexts; i++)
        if (events->contexts[i].context == context)
            return &events->contexts[i];
    if (events->n_contexts == PM_EVENTS_CONTEXTS)
        return NULL;
    struct context *at = &events->contexts[events->n_contexts];
    *at = (struct context){.context = context, .device = device};
    at->ring = calloc(events->capacity, sizeof *at->ring);
    if (at->ring == NULL)
        return NULL;
    events->n_contexts++;
    return at;
}

static struct place *take_place(struct pm_events *events, struct context *at, uint64_t now_ns)
{
    if (at->count == events->capacity)
        return NULL;
    struct place *place = place_at(events, at, at->count);
    place->step = events->step;
    place->instance = events->instance;
    place->phase = events->phase;
    place->begun_ns = now_ns;
    place->marks = 0;
    place->state = OPEN;
    place->chained = at->count > 0 && !at->broken;
    at->broken = false;
    at->count++;
    events->at = at;
    events->place = place;
    return place;
}

enum pm_event_outcome pm_events_mark(struct pm_events *events, enum pm_event_mark mark,
                                     void *stream, uint64_t now_ns)
{
    enum pm_event_outcome why;

    if (off(events))
        return PM_EVENT_OFF;
    if (!events->open || events->lost)
        return PM_EVENT_NONE;
    if (!pm_driver_clean(&events->calls.driver))
        return lose(events, events->at, PM_EVENT_FOREIGN);
    struct context *at = context_here(events, &why);
    if (at == NULL || (events->at != NULL && events->at != at))
        return lose(events, events->at, at == NULL ? why : PM_EVENT_MOVED);
    if (pm_gpu_captured(&events->calls, stream))
        return lose(events, at, off(events) ? PM_EVENT_OFF : PM_EVENT_CAPTURE);
    struct place *place = events->place != NULL ? events->place : take_place(events, at, now_ns);
    if (place == NULL)
        return lose(events, at, PM_EVENT_FULL);
    if (!pm_gpu_record(&events->calls, &place->events[mark], stream, &events->counts.made))
        return lose(events, at, PM_EVENT_OFF);
    place->streams[mark] = stream;
    place->marks |= (uint8_t)(1u << mark);
    return PM_EVENT_RECORDED;
}

/* ---- reading back --------------------------------------------------------------------------- */

bool pm_events_due(const struct pm_events *events, uint64_t now_ns)
{
    for (unsigned c = 0; c < events->n_contexts && !off(events); c++) {
        const struct context *at = &events->contexts[c];
        if (at->waiting >= events->batch)
            return true;
        for (unsigned i = 0; i < at->count && i < 2; i++) { /* the first may be one kept */
            const struct place *place = place_at(events, at, i);
            if (place->state == CLOSED && now_ns > place->begun_ns + PM_EVENTS_OLD_NS)
                return true;
        }
    }
    return false;
}

/* The last mark that a place has. */
static enum pm_event_mark last_of(const struct place *place)
{
    return place->marks >> PM_MARK_SAMPLE_END & 1u ? PM_MARK_SAMPLE_END : PM_MARK_MODEL_END;
}

/* 1: the place's times; 0: not complete yet, or the driver failed. */
static int measure(struct pm_events *events, const struct context *at, const struct place *place,
                   const struct place *before, struct pm_event_times *times)
{
    void *const *e = place->events;
    *times = (struct pm_event_times){
        .step = place->step,
        .begun_ns = place->begun_ns,
        .device = (uint32_t)at->device,
        .instance = place->instance,
        .phase = place->phase,
        .has_sample = last_of(place) == PM_MARK_SAMPLE_END,
    };
    if (pm_gpu_between(&events->calls, e[PM_MARK_MODEL], e[PM_MARK_MODEL_END], &times->model_ns) !=
        1)
        return 0;
    if (times->model_ns == 0)
        times->model_ns = 1;
    if (times->has_sample && (pm_gpu_between(&events->calls, e[PM_MARK_MODEL_END],
                                             e[PM_MARK_SAMPLE], &times->after_ns) != 1 ||
                              pm_gpu_between(&events->calls, e[PM_MARK_SAMPLE],
                                             e[PM_MARK_SAMPLE_END], &times->sample_ns) != 1))
        return 0;
    /* Of two streams nothing follows: one may run while the other does. */
    if (place->chained && before != NULL && (before->state == READ || before->state == CLOSED) &&
        before->streams[last_of(before)] == place->streams[PM_MARK_MODEL])
        times->has_wait = pm_gpu_between(&events->calls, before->events[last_of(before)],
                                         e[PM_MARK_MODEL], &times->wait_ns) == 1;
    return off(events) ? 0 : 1;
}

/* Places of steps whose times are told, and are not needed for the step after them. */
static void release(const struct pm_events *events, struct context *at)
{
    while (at->count >= 2 && place_at(events, at, 0)->state >= READ &&
           place_at(events, at, 1)->state >= READ) {
        at->first = (at->first + 1) % events->capacity;
        at->count--;
    }
}

unsigned pm_events_read(struct pm_events *events, bool all, pm_events_tell tell, void *arg)
{
    void *behind[8]; /* streams whose oldest step is not complete */
    unsigned n_behind = 0, pairs = 0, told = 0;
    enum pm_event_outcome why;

    if (off(events) || !pm_driver_clean(&events->calls.driver))
        return 0;
    struct context *at = context_here(events, &why);
    if (at == NULL || at->waiting == 0 ||
        pm_gpu_captured(&events->calls,
                        place_at(events, at, at->count - 1)->streams[PM_MARK_MODEL]))
        return 0;
    events->counts.turns++;
    for (unsigned i = 0; i < at->count && (all || pairs < events->batch); i++) {
        struct place *place = place_at(events, at, i);
        const struct place *before = i > 0 ? place_at(events, at, i - 1) : NULL;
        struct pm_event_times times;
        bool skip = place->state != CLOSED;
        for (unsigned b = 0; b < n_behind && !skip; b++)
            skip = behind[b] == place->streams[last_of(place)];
        if (skip)
            continue;
        const int complete = pm_gpu_complete(&events->calls, place->events[last_of(place)]);
        if (complete < 0)
            break;
        if (complete == 0 || measure(events, at, place, before, &times) == 0) {
            if (off(events) || n_behind == sizeof behind / sizeof *behind)
                break;
            behind[n_behind++] = place->streams[last_of(place)];
            continue;
        }
        place->state = READ;
        at->waiting -= pairs_of(place);
        pairs += pairs_of(place);
        told++;
        events->counts.read++;
        tell(&times, arg);
    }
    release(events, at);
    return told;
}

/* ---- end ------------------------------------------------------------------------------------ */

void pm_events_count(const struct pm_events *events, struct pm_events_counts *ret_counts)
{
    *ret_counts = events->counts;
}

void pm_events_abandon(struct pm_events *events)
{
    for (unsigned c = 0; events != NULL && c < events->n_contexts; c++)
        free(events->contexts[c].ring);
    free(events);
}

void pm_events_close(struct pm_events *events)
{
    for (unsigned c = 0; events != NULL && c < events->n_contexts; c++) {
        const struct context *at = &events->contexts[c];
        for (unsigned i = 0; i < events->capacity; i++)
            for (unsigned m = 0; m < PM_MARKS; m++)
                pm_gpu_destroy(&events->calls, at->ring[i].events[m]);
    }
    pm_events_abandon(events);
}
