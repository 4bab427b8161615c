/* The stream of states (events.h). */
#include "serve/events.h"

#include <string.h>

void pm_events_init(struct pm_events *events)
{
    *events = (struct pm_events){0};
    for (size_t i = 0; i < PM_EVENTS_KEPT; i++)
        pm_buf_init(&events->kept[i].text, PM_EVENT_MAX);
}

void pm_events_release(struct pm_events *events)
{
    for (size_t i = 0; i < PM_EVENTS_KEPT; i++)
        pm_buf_release(&events->kept[i].text);
}

int pm_events_make(struct pm_events *events, const struct pm_serve *serve, uint64_t now_ns)
{
    const uint64_t number = events->newest + 1;
    struct pm_event *event = &events->kept[number % PM_EVENTS_KEPT];

    events->made_ns = now_ns;
    event->number = 0;
    pm_buf_clear(&event->text);
    (void)pm_buf_printf(&event->text, "event: state\nid: %llu\ndata: ", (unsigned long long)number);
    int rc = pm_serve_state_json(serve, &event->text);
    if (rc == 0)
        rc = pm_buf_add_char(&event->text, '\n'); /* the JSON ends its line, this the event */
    if (rc != 0)
        return rc;
    event->number = number;
    events->newest = number;
    return 0;
}

long pm_events_read(const struct pm_events *events, struct pm_event_place *place, char *out,
                    size_t size)
{
    const struct pm_event *event = &events->kept[place->number % PM_EVENTS_KEPT];
    const bool half = place->offset > 0;

    if (half && event->number != place->number)
        return -1;
    if (!half) {
        if (place->number == events->newest)
            return 0;
        place->number = events->newest;
        event = &events->kept[place->number % PM_EVENTS_KEPT];
    }
    const size_t left = event->text.used - place->offset;
    const size_t bytes = left < size ? left : size;
    memcpy(out, event->text.data + place->offset, bytes);
    place->offset = bytes == left ? 0 : place->offset + bytes;
    return (long)bytes;
}
