/*
 * One HTTP request to a server of this machine, without waiting: begun, then stepped from a loop
 * that has other things to do. Used by `run` for the server's own endpoints.
 *
 * Our own rather than libcurl's: the whole need is a request with a tiny body and the three digits
 * of the answer's status, over loopback or a Unix socket; a library would have to be there wherever
 * the wheel is installed, slim containers included. No TLS, no redirects, no names but the ones
 * that need no resolver to wait for.
 */
#ifndef PM_CMD_HTTP_H
#define PM_CMD_HTTP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/error.h"

/* Where a server listens, as its command line tells (server.c). */
struct pm_server {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    } address;
    socklen_t address_bytes;
    char shown[160];    /* "127.0.0.1:8000", a path */
    char api_key[1024]; /* "": none */
    bool tls;           /* it wants https */
};

struct pm_http {
    int fd; /* -1: nothing under way */
    char out[2048];
    size_t out_bytes, sent;
    char in[64]; /* the beginning of the answer */
    size_t in_bytes;
    bool connected;
    uint64_t deadline_ms;
};

enum pm_http_result {
    PM_HTTP_WAITING = 0, /* step again later; a status (100 to 599) otherwise, or … */
    PM_HTTP_TIMEOUT = -1,
    PM_HTTP_REFUSED = -2, /* nobody listens there */
    PM_HTTP_BROKEN = -3,  /* the connection ended, or what came was no HTTP */
};

/* Begins `METHOD path` with a JSON body (NULL: none). 0, or -PM_E… when it does not fit. The answer
 * has to begin within timeout_ms. */
PM_MUST_USE int pm_http_begin(struct pm_http *http, const struct pm_server *server,
                              const char *method, const char *path, const char *body,
                              uint64_t timeout_ms);
/* enum pm_http_result or a status; whatever ends it also closes it. Never waits. */
int pm_http_step(struct pm_http *http);
/* Gives it up. */
void pm_http_cancel(struct pm_http *http);

/* CLOCK_MONOTONIC. */
uint64_t pm_now_ms(void);

#endif
