/*
 * The HTTP server of `serve`: libmicrohttpd, turned by hand on the one thread (serve.h). Owns the
 * connections' own memory; answers are made when they are asked for and go with their connection.
 */
#include "serve/serve.h"

#ifndef PM_HAVE_MHD

int pm_serve_check(struct pm_error *err)
{
    return pm_error_set(err, -PM_EUNSUPPORTED,
                        "this build has no HTTP server, install libmicrohttpd-dev (its Debian "
                        "name) and build again, or use --textfile");
}

int pm_serve_run(struct pm_serve *serve, const struct pm_serve_http *http, struct pm_error *err)
{
    (void)serve, (void)http;
    return pm_serve_check(err);
}

#else

#include "serve/server.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"

/* From a request's first line to its end; one at a time on a connection. */
struct exchange {
    bool begun;
    char target[PM_SERVE_TARGET_MAX + 2];
};

struct headers {
    struct pm_serve_request *request;
};

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct pm_serve_request *request = ((struct headers *)cls)->request;
    const struct {
        const char *name;
        const char **into;
    } known[] = {{"Host", &request->host},
                 {"Authorization", &request->authorization},
                 {"Cookie", &request->cookie},
                 {"Accept", &request->accept}};
    (void)kind;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcasecmp(name, known[i].name) == 0) {
            request->twice = request->twice || *known[i].into != NULL;
            *known[i].into = value != NULL ? value : "";
        }
    if (strcasecmp(name, "Transfer-Encoding") == 0 ||
        (strcasecmp(name, "Content-Length") == 0 && value != NULL && strcmp(value, "0") != 0))
        request->has_body = true;
    return MHD_YES;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload_data,
                              size_t *upload_data_size, void **con_cls)
{
    struct server *server = cls;
    struct exchange *exchange = *con_cls;
    struct pm_serve_decision decision;
    (void)url, (void)version, (void)upload_data;

    if (exchange == NULL) /* no memory for it */
        return MHD_NO;
    struct pm_serve_request request = {.method = method, .target = exchange->target};
    server->mhd.get_connection_values(connection, MHD_HEADER_KIND, take_header,
                                      &(struct headers){&request});
    if (!exchange->begun) {
        exchange->begun = true;
        if (!request.has_body)
            return MHD_YES; /* called again when the request is whole */
    }
    if (*upload_data_size != 0 && !request.has_body)
        return MHD_NO;
    pm_serve_decide(&server->rules, &request, &decision);
    return pm_serve_answer(server, connection, &decision);
}

/* The line as it came, before anything is decoded. */
static void *begin_exchange(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct server *server = cls;
    const union MHD_ConnectionInfo *info =
        server->mhd.get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct exchange *exchange = info != NULL ? info->socket_context : NULL;
    if (exchange != NULL) {
        exchange->begun = false;
        snprintf(exchange->target, sizeof(exchange->target), "%s", uri);
    }
    return exchange;
}

/* What an exchange needs is its connection's: of a request that breaks off no end is told. */
static void begin_or_end(void *cls, struct MHD_Connection *connection, void **socket_context,
                         enum MHD_ConnectionNotificationCode code)
{
    struct server *server = cls;
    (void)connection;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = calloc(1, sizeof(struct exchange));
        server->serve->clients++;
    } else {
        free(*socket_context);
        *socket_context = NULL;
        server->serve->clients--;
    }
}

/* It has nothing to say to a person who did not ask. */
static void stay_quiet(void *cls, const char *format, va_list arguments)
{
    (void)cls, (void)format, (void)arguments;
}

/* ---- its life ---- */

static int start(struct server *server, const struct pm_serve_http *http, struct pm_error *err)
{
    server->daemon = server->mhd.start_daemon(
        MHD_USE_EPOLL | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, handle, server,
        MHD_OPTION_EXTERNAL_LOGGER, stay_quiet, NULL, MHD_OPTION_LISTEN_SOCKET, http->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)PM_SERVE_CLIENTS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)PM_SERVE_CLIENT_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)PM_SERVE_IDLE_SEC,
        MHD_OPTION_URI_LOG_CALLBACK, begin_exchange, server, MHD_OPTION_NOTIFY_CONNECTION,
        begin_or_end, server, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (server->daemon != NULL)
        return 0;
    close(http->listen_fd);
    return pm_error_set(err, -PM_EIO, "libmicrohttpd did not start");
}

static int turn(struct server *server, const struct pm_serve_http *http, struct pm_error *err)
{
    const union MHD_DaemonInfo *info =
        server->mhd.get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL)
        return pm_error_set(err, -PM_EUNSUPPORTED, "libmicrohttpd has no epoll here");
    const int epoll_fd = info->epoll_fd;
    uint64_t tick_ns = pm_clock_vdso_ns();

    for (;;) {
        const uint64_t now_ns = pm_clock_vdso_ns();
        if (now_ns >= tick_ns) {
            /* A little early: a tick that is a hair late must not be skipped. */
            pm_serve_refresh(server->serve, http->tick_ms * 900000);
            if (server->listeners != NULL)
                pm_listen_tell(server);
            tick_ns += http->tick_ms * 1000000;
            if (tick_ns < now_ns) /* the machine slept */
                tick_ns = now_ns;
        }
        MHD_UNSIGNED_LONG_LONG theirs_ms;
        uint64_t wait_ms = tick_ns > now_ns ? (tick_ns - now_ns) / 1000000 + 1 : 0;
        if (server->mhd.get_timeout(server->daemon, &theirs_ms) == MHD_YES && theirs_ms < wait_ms)
            wait_ms = theirs_ms;
        struct pollfd waits[2] = {{.fd = epoll_fd, .events = POLLIN},
                                  {.fd = http->stop_fd, .events = POLLIN}};
        (void)poll(waits, 2, (int)wait_ms); /* EINTR: another turn */
        if (waits[1].revents != 0)
            return 0;
        (void)server->mhd.run(server->daemon);
    }
}

static void stop(struct server *server)
{
    pm_listen_end(server);
    (void)server->mhd.run(server->daemon);
    (void)server->mhd.run(server->daemon);
    server->mhd.stop_daemon(server->daemon);
}

int pm_serve_check(struct pm_error *err)
{
    struct pm_mhd mhd;
    return pm_mhd_load(&mhd, err);
}

int pm_serve_run(struct pm_serve *serve, const struct pm_serve_http *http, struct pm_error *err)
{
    struct server server = {.serve = serve, .rules = {.token = http->token, .names = http->names}};
    int rc = pm_mhd_load(&server.mhd, err);

    if (rc != 0) {
        close(http->listen_fd);
        return rc;
    }
    pm_events_init(&server.events);
    pm_buf_init(&server.report.buf, PM_SERVE_BODY_MAX);
    rc = start(&server, http, err);
    if (rc == 0) {
        rc = turn(&server, http, err);
        stop(&server);
    }
    pm_buf_release(&server.report.buf);
    pm_events_release(&server.events);
    return rc;
}
#endif
