/*
 * `profilemate serve`: the figures of running sessions by HTTP. The command gives the sessions and
 * says where to listen; everything else happens here, on its one thread, without a lock.
 *
 *   http.c      libmicrohttpd: connections, limits, who gets what
 *   request.c   what a request is answered with, decided from its bytes alone
 *   events.c    the stream of states: one text a second for all who listen
 *   api.c       JSON
 *   metrics.c   metrics, in the three forms of expose.h
 *   textfile.c  metrics into a file
 *
 * A round: the sessions are refreshed, at most once a second for the stream and ten times a second
 * for those who ask; what is told is never older than that.
 */
#ifndef PM_SERVE_SERVE_H
#define PM_SERVE_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "live/live.h"

#define PM_SERVE_PORT 9810
#define PM_SERVE_CLIENTS 1100       /* connections at a time */
#define PM_SERVE_LISTENERS 1000     /* of them, those that may listen to /events */
#define PM_SERVE_CLIENT_BYTES 16384 /* memory of one: its headers fit, or are refused */
#define PM_SERVE_IDLE_SEC 30        /* a connection that does not move is closed after so long */
#define PM_SERVE_BODY_MAX (256u << 20)

/* The sessions that are told of: whose they are is the caller's business. */
struct pm_serve_source {
    void *arg;
    void (*refresh)(void *arg); /* looks for new ones, refreshes all */
    size_t (*count)(void *arg);
    const struct pm_live *(*at)(void *arg, size_t i); /* i < count, oldest known first */
};

struct pm_serve {
    struct pm_serve_source source;
    uint64_t refreshed_ns; /* 0: never */
    uint64_t started_ns;
    uint64_t scrapes; /* of /metrics, ever */
    size_t clients;   /* connections now; of HTTP */
    size_t listeners; /* of /events, now */
    /* Called after each refresh on the same thread, for whoever else wants the figures; NULL: none.
     */
    void (*refreshed)(void *arg, const struct pm_serve *serve);
    void *refreshed_arg;
};

/* The sessions, not older than at_most_ns. */
void pm_serve_refresh(struct pm_serve *serve, uint64_t at_most_ns);
size_t pm_serve_count(const struct pm_serve *serve);
const struct pm_live *pm_serve_at(const struct pm_serve *serve, size_t i);

/* What a session is called in addresses and labels: its name, and more where an older one of the
 * same name is there too. The text lives as long as out. */
void pm_serve_id(const struct pm_serve *serve, size_t i, char *out, size_t size);
/* By that name; false: there is none. */
bool pm_serve_find(const struct pm_serve *serve, const char *id, size_t *ret_i);

/* ---- api.c: each appends one JSON document ---- */
PM_MUST_USE int pm_serve_sessions_json(const struct pm_serve *serve, struct pm_buf *buf);
/* What `top --once --json` prints of all of them, on one line, and their ids. */
PM_MUST_USE int pm_serve_state_json(const struct pm_serve *serve, struct pm_buf *buf);
PM_MUST_USE int pm_serve_session_json(const struct pm_serve *serve, size_t i, struct pm_buf *buf);
/* The last two minutes, second by second. */
PM_MUST_USE int pm_serve_seconds_json(const struct pm_serve *serve, size_t i, struct pm_buf *buf);
/* The data of the report's page (web/DATA.md) of the last seconds. */
PM_MUST_USE int pm_serve_report_json(const struct pm_serve *serve, size_t i, unsigned last_sec,
                                     struct pm_buf *buf, struct pm_error *err);

/* ---- http.c ---- */
struct pm_serve_http {
    int listen_fd;     /* bound and listening; owned by the server from here on */
    const char *token; /* NULL: none is asked for */
    const char *names; /* further names for the Host header, or NULL */
    int stop_fd;       /* readable when it is time to end */
    uint64_t tick_ms;  /* sessions are refreshed at least this often */
};
/* Serves until stop_fd is readable. 0, or -PM_E… with a sentence. -PM_EUNSUPPORTED: this build, or
 * this machine, has no libmicrohttpd. */
PM_MUST_USE int pm_serve_run(struct pm_serve *serve, const struct pm_serve_http *http,
                             struct pm_error *err);
/* Says beforehand whether it can. */
PM_MUST_USE int pm_serve_check(struct pm_error *err);

#endif
