/*
 * The stream of states (server-sent events): one text a second, shared by all who listen. Used by
 * http.c, one thread. Owns the texts.
 *
 * A listener reads at its own speed and, when it is through, gets the newest text: one who is slow
 * skips some. Texts that somebody still reads are kept, the last few of them only: one who has not
 * read a text while PM_EVENTS_KEPT newer ones came is let go. So memory is bounded by so many
 * texts, whatever the listeners do.
 */
#ifndef PM_SERVE_EVENTS_H
#define PM_SERVE_EVENTS_H

#include "serve/serve.h"

#define PM_EVENTS_KEPT 8
#define PM_EVENT_MAX (64u << 20)

struct pm_event {
    uint64_t number; /* 0: none */
    struct pm_buf text;
};

struct pm_events {
    struct pm_event kept[PM_EVENTS_KEPT]; /* by number */
    uint64_t newest;                      /* number; 0: none yet */
    uint64_t made_ns;
};

/* Where a listener is. Zeroed to begin with. */
struct pm_event_place {
    uint64_t number; /* of the text that it reads, or has read */
    size_t offset;   /* how far */
};

void pm_events_init(struct pm_events *events);
void pm_events_release(struct pm_events *events);

/* Makes the next text. 0, or why not; then the one before stays the newest. */
PM_MUST_USE int pm_events_make(struct pm_events *events, const struct pm_serve *serve,
                               uint64_t now_ns);

/* Copies what comes next: bytes; 0: nothing until the next text is made; -1: what it was reading is
 * gone. */
long pm_events_read(const struct pm_events *events, struct pm_event_place *place, char *out,
                    size_t size);

#endif
