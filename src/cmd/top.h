/*
 * What `profilemate top` knows: the servers that it follows, and what the person chose. Shared by
 * its command (top.c), its list of servers (top_servers.c), its sheet (top_draw.c) and its terminal
 * (top_screen.c). One thread.
 */
#ifndef PM_CMD_TOP_H
#define PM_CMD_TOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cmd/canvas.h"
#include "live/discover.h"
#include "live/live.h"

#define PM_TOP_SERVERS 256

struct pm_top_server {
    struct pm_live *live;
    char path[4096];
    dev_t device;
    ino_t inode;
    uint64_t ended_at_ns; /* first seen without a process; 0: runs */
    bool pinned;          /* asked for by name: stays when it has ended */
};

/* X(KEY, heading, how) of the requests' table */
enum pm_top_sort {
    PM_TOP_SORT_AGE,
    PM_TOP_SORT_PHASE,
    PM_TOP_SORT_PROMPT,
    PM_TOP_SORT_OUTPUT,
    PM_TOP_SORT_PREEMPTED,
    PM_TOP_SORT_TTFT,
    PM_TOP_SORT_GAP,
    PM_TOP_SORT_COUNT
};

struct pm_top {
    struct pm_top_server servers[PM_TOP_SERVERS];
    size_t n_servers, selected;
    size_t engine; /* of the chosen server */
    struct pm_discover *discover;
    const char *dir;    /* --dir */
    bool all;           /* every server of the host is listed, not one that was named */
    bool follow;        /* when the one shown has ended, the next one is shown */
    uint64_t at_ns;     /* tests: the moment to take as now */
    uint64_t looked_ns; /* when the host was looked through */

    /* what the person chose */
    enum pm_top_sort sort;
    bool reverse, paused, help, typing;
    char filter[64];
    size_t scroll;
    unsigned interval_ms;
    char note[160]; /* said in the last line for a while */
    char clock[16]; /* of the day, "" in tests */
};

/* ---- top_servers.c ---- */
/* What was asked for: a session, the id of a process, or NULL for all servers of the host. The exit
 * code; where it is not PM_EXIT_OK, a complaint was said. */
int pm_top_choose(struct pm_top *top, const char *dir, const char *meant);
/* Adds a session by its folder. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_top_add(struct pm_top *top, const char *path, bool pinned, struct pm_error *err);
/* Looks for servers that have come, follows a restart, forgets what is long over. */
void pm_top_look(struct pm_top *top);
/* Refreshes all of them; those that cannot be read any more go. */
void pm_top_refresh(struct pm_top *top);
void pm_top_release(struct pm_top *top);
/* The figures of the chosen one; NULL: there is none. */
const struct pm_live_view *pm_top_view(const struct pm_top *top);

/* ---- top_draw.c ---- */
/* Draws everything onto the sheet. */
void pm_top_draw(struct pm_canvas *canvas, struct pm_top *top);

/* ---- top_requests.c ---- */
/* The requests of an engine that pass the filter, in the chosen order: places in engine->requests.
 * Free with free(); NULL where there are none or no memory. */
uint32_t *pm_top_order(const struct pm_top *top, const struct pm_live_engine *engine,
                       size_t *ret_count);
/* Draws their table from a row on. */
void pm_top_draw_requests(struct pm_canvas *canvas, struct pm_top *top,
                          const struct pm_live_engine *engine, int row, int end);

/* Spans and counts as short text. */
void pm_top_span(double ns, char *out, size_t size);
void pm_top_age(uint64_t ns, char *out, size_t size);
void pm_top_count(double value, char *out, size_t size);
void pm_top_bytes(uint64_t bytes, char *out, size_t size);

/* ---- top_screen.c ---- */
/* Runs the screen until the person leaves. 0; -PM_EUNSUPPORTED: no terminal that it can use. */
PM_MUST_USE int pm_top_screen(struct pm_top *top, bool colour);

#endif
