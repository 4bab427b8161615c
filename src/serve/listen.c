/* Those who listen to /events (server.h): each has its own place in the shared texts (events.h). */
#ifdef PM_HAVE_MHD
#include "serve/server.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"

#define SECOND_NS 1000000000ull
#define EVENT_BLOCK_BYTES 8192

struct listener {
    struct server *server;
    struct MHD_Connection *connection;
    struct listener *next, **link;
    struct pm_event_place place;
    bool waits; /* suspended until the next text */
};

/* One that has not taken a text while so many newer ones came will not: its connection is closed
 * from here, by what libmicrohttpd then finds of it. */
static void let_go_of_the_slow(struct server *server)
{
    for (struct listener *l = server->listeners; l != NULL; l = l->next) {
        const union MHD_ConnectionInfo *info;
        if (l->waits || l->place.number == 0 ||
            server->events.newest - l->place.number < PM_EVENTS_KEPT)
            continue;
        info = server->mhd.get_connection_info(l->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (info != NULL)
            (void)shutdown(info->connect_fd, SHUT_RDWR);
    }
}

static void wake(struct server *server)
{
    for (struct listener *l = server->listeners; l != NULL; l = l->next)
        if (l->waits) {
            l->waits = false;
            server->mhd.resume_connection(l->connection);
        }
}

void pm_listen_tell(struct server *server)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    if (pm_events_make(&server->events, server->serve, now_ns) != 0)
        return; /* out of memory: the next one may fit */
    let_go_of_the_slow(server);
    wake(server);
}

void pm_listen_end(struct server *server)
{
    server->ending = true;
    wake(server);
}

static ssize_t read_events(void *cls, uint64_t pos, char *out, size_t size)
{
    struct listener *listener = cls;
    struct server *server = listener->server;
    (void)pos;
    if (server->ending)
        return MHD_CONTENT_READER_END_OF_STREAM;
    const long bytes = pm_events_read(&server->events, &listener->place, out, size);
    if (bytes < 0)
        return MHD_CONTENT_READER_END_WITH_ERROR; /* too slow, see events.h */
    if (bytes == 0) {
        listener->waits = true;
        server->mhd.suspend_connection(listener->connection);
    }
    return (ssize_t)bytes;
}

static void drop_listener(void *cls)
{
    struct listener *listener = cls;
    *listener->link = listener->next;
    if (listener->next != NULL)
        listener->next->link = listener->link;
    listener->server->serve->listeners--;
    free(listener);
}

enum MHD_Result pm_listen(struct server *server, struct MHD_Connection *connection, bool head)
{
    static const char type[] = "text/event-stream";
    if (head)
        return pm_answer_bytes(server, connection, type, "", 0);
    if (server->serve->listeners >= PM_SERVE_LISTENERS)
        return pm_answer_refusal(server, connection, 503,
                                 "too many listen already, come again later");
    if (server->events.newest == 0 ||
        pm_clock_vdso_ns() - server->events.made_ns > SECOND_NS + SECOND_NS / 2) {
        pm_serve_refresh(server->serve, PM_SERVE_FRESH_NS);
        pm_listen_tell(server);
    }
    struct listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL)
        return MHD_NO;
    listener->server = server;
    listener->connection = connection;
    struct MHD_Response *response = server->mhd.create_response_from_callback(
        MHD_SIZE_UNKNOWN, EVENT_BLOCK_BYTES, read_events, listener, drop_listener);
    if (response == NULL) {
        free(listener);
        return MHD_NO;
    }
    listener->next = server->listeners;
    listener->link = &server->listeners;
    if (listener->next != NULL)
        listener->next->link = &listener->next;
    server->listeners = listener;
    server->serve->listeners++;
    pm_answer_headers(server, response, type, NULL);
    (void)server->mhd.add_response_header(response, "X-Accel-Buffering",
                                          "no"); /* nginx: pass it on at once */
    return pm_answer_queue(server, connection, MHD_HTTP_OK, response);
}
#endif
