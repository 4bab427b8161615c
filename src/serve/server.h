/*
 * The HTTP server's parts, inside the serve room: http.c turns it and takes requests, answer.c
 * makes the answers, listen.c those of /events. All on the one thread; only where libmicrohttpd was
 * there when this was built.
 */
#ifndef PM_SERVE_SERVER_H
#define PM_SERVE_SERVER_H

#include "serve/events.h"
#include "serve/mhd.h"
#include "serve/request.h"
#include "serve/serve.h"

#define PM_SERVE_FRESH_NS 100000000ull   /* figures that somebody asks for are no older */
#define PM_SERVE_REPORT_NS 2000000000ull /* one report is made at most this often */

struct listener;

struct server {
    struct pm_mhd mhd;
    struct MHD_Daemon *daemon;
    struct pm_serve *serve;
    struct pm_serve_rules rules;
    struct pm_events events;
    struct listener *listeners;
    bool ending;
    struct { /* the newest report: asked for by many, made once */
        struct pm_buf buf;
        char id[PM_SERVE_ID_MAX];
        unsigned last_sec;
        uint64_t made_ns;
    } report;
};

/* ---- answer.c ---- */
/* Headers that every answer has. type NULL: it has no body; policy NULL: it is no page. */
void pm_answer_headers(struct server *server, struct MHD_Response *response, const char *type,
                       const char *policy);
/* Hands the answer over, which is its connection's from here on. */
enum MHD_Result pm_answer_queue(struct server *server, struct MHD_Connection *connection,
                                unsigned status, struct MHD_Response *response);
/* A body that is copied; a sentence that says why there is none. */
enum MHD_Result pm_answer_bytes(struct server *server, struct MHD_Connection *connection,
                                const char *type, const void *bytes, size_t n);
enum MHD_Result pm_answer_refusal(struct server *server, struct MHD_Connection *connection,
                                  unsigned status, const char *sentence);
/* Whatever was decided. */
enum MHD_Result pm_serve_answer(struct server *server, struct MHD_Connection *connection,
                                const struct pm_serve_decision *decision);

/* ---- listen.c ---- */
enum MHD_Result pm_listen(struct server *server, struct MHD_Connection *connection, bool head);
/* Makes the next text, and lets those go on who wait for it. */
void pm_listen_tell(struct server *server);
/* Ends all that listen: a suspended connection may not be closed. */
void pm_listen_end(struct server *server);

#endif
