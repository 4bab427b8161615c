/* The answers of `serve` (server.h): their headers, and a body for each route. */
#ifdef PM_HAVE_MHD
#include "serve/server.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "serve/metrics.h"
#include "serve/page.h"

static void put_header(struct server *server, struct MHD_Response *response, const char *name,
                       const char *value)
{
    (void)server->mhd.add_response_header(response, name, value);
}

void pm_answer_headers(struct server *server, struct MHD_Response *response, const char *type,
                       const char *policy)
{
    if (type != NULL)
        put_header(server, response, "Content-Type", type);
    put_header(server, response, "Cache-Control", "no-store");
    put_header(server, response, "Content-Security-Policy",
               policy != NULL ? policy : "default-src 'none'; frame-ancestors 'none'; sandbox");
    put_header(server, response, "X-Content-Type-Options", "nosniff");
    put_header(server, response, "X-Frame-Options", "DENY");
    put_header(server, response, "Referrer-Policy", "no-referrer");
    put_header(server, response, "Cross-Origin-Resource-Policy", "same-origin");
    put_header(server, response, "Cross-Origin-Opener-Policy", "same-origin");
}

enum MHD_Result pm_answer_queue(struct server *server, struct MHD_Connection *connection,
                                unsigned status, struct MHD_Response *response)
{
    const enum MHD_Result result = server->mhd.queue_response(connection, status, response);
    server->mhd.destroy_response(response);
    return result;
}

enum MHD_Result pm_answer_bytes(struct server *server, struct MHD_Connection *connection,
                                const char *type, const void *bytes, size_t n)
{
    union {
        const void *in;
        void *out;
    } body = {.in = bytes};
    struct MHD_Response *response =
        server->mhd.create_response_from_buffer(n, body.out, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    pm_answer_headers(server, response, type, NULL);
    return pm_answer_queue(server, connection, MHD_HTTP_OK, response);
}

/* The buffer's bytes, which the answer owns from here on. */
static enum MHD_Result answer_buf(struct server *server, struct MHD_Connection *connection,
                                  const char *type, struct pm_buf *buf)
{
    struct MHD_Response *response =
        buf->used == 0
            ? server->mhd.create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT)
            : server->mhd.create_response_from_buffer(buf->used, buf->data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL)
        return MHD_NO;
    if (buf->used != 0)
        *buf = (struct pm_buf){.ceiling = buf->ceiling};
    pm_answer_headers(server, response, type, NULL);
    return pm_answer_queue(server, connection, MHD_HTTP_OK, response);
}

enum MHD_Result pm_answer_refusal(struct server *server, struct MHD_Connection *connection,
                                  unsigned status, const char *sentence)
{
    char text[512];
    const int bytes = snprintf(text, sizeof(text), "%s\n", sentence);
    struct MHD_Response *response = server->mhd.create_response_from_buffer(
        bytes < (int)sizeof(text) ? (size_t)bytes : sizeof(text) - 1, text, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    pm_answer_headers(server, response, "text/plain; charset=utf-8", NULL);
    if (status == 401)
        put_header(server, response, "WWW-Authenticate", "Bearer realm=\"profilemate\"");
    if (status == 405)
        put_header(server, response, "Allow", "GET, HEAD");
    if (status == 503)
        put_header(server, response, "Retry-After", "5");
    return pm_answer_queue(server, connection, status, response);
}

static enum MHD_Result answer_page(struct server *server, struct MHD_Connection *connection)
{
    struct pm_serve_page page;
    pm_serve_page(&page);
    union {
        const void *in;
        void *out;
    } body = {.in = page.bytes};
    struct MHD_Response *response =
        server->mhd.create_response_from_buffer(page.n_bytes, body.out, MHD_RESPMEM_PERSISTENT);
    if (response == NULL)
        return MHD_NO;
    pm_answer_headers(server, response, "text/html; charset=utf-8", page.policy);
    return pm_answer_queue(server, connection, MHD_HTTP_OK, response);
}

/* The token as a cookie, and on to the page without it in the address. */
static enum MHD_Result answer_login(struct server *server, struct MHD_Connection *connection)
{
    char cookie[PM_SERVE_TOKEN_MAX + 128];
    struct MHD_Response *response =
        server->mhd.create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (response == NULL)
        return MHD_NO;
    snprintf(cookie, sizeof(cookie), PM_SERVE_COOKIE "=%s; HttpOnly; SameSite=Strict; Path=/",
             server->rules.token);
    pm_answer_headers(server, response, NULL, NULL);
    put_header(server, response, "Set-Cookie", cookie);
    put_header(server, response, "Location", "/");
    return pm_answer_queue(server, connection, MHD_HTTP_SEE_OTHER, response);
}

static enum MHD_Result answer_made(struct server *server, struct MHD_Connection *connection, int rc,
                                   const char *type, struct pm_buf *buf)
{
    enum MHD_Result result;
    if (rc == 0)
        result = answer_buf(server, connection, type, buf);
    else
        result = pm_answer_refusal(server, connection, 503, pm_strerror(rc));
    pm_buf_release(buf);
    return result;
}

static enum MHD_Result answer_metrics(struct server *server, struct MHD_Connection *connection,
                                      enum pm_serve_format format)
{
    struct pm_buf buf;
    pm_buf_init(&buf, PM_SERVE_BODY_MAX);
    server->serve->scrapes++;
    const int rc = pm_serve_metrics(server->serve, format, &buf);
    return answer_made(server, connection, rc, pm_serve_metrics_type(format), &buf);
}

static enum MHD_Result answer_report(struct server *server, struct MHD_Connection *connection,
                                     const struct pm_serve_decision *decision, size_t i)
{
    const uint64_t now_ns = pm_clock_vdso_ns();
    struct pm_error err = {""};

    if (server->report.made_ns == 0 || now_ns - server->report.made_ns > PM_SERVE_REPORT_NS ||
        server->report.last_sec != decision->last_sec ||
        strcmp(server->report.id, decision->id) != 0) {
        server->report.made_ns = 0;
        pm_buf_clear(&server->report.buf);
        if (pm_serve_report_json(server->serve, i, decision->last_sec, &server->report.buf, &err) !=
            0)
            return pm_answer_refusal(server, connection, 503, err.text);
        server->report.made_ns = pm_clock_vdso_ns();
        server->report.last_sec = decision->last_sec;
        snprintf(server->report.id, sizeof(server->report.id), "%s", decision->id);
    }
    return pm_answer_bytes(server, connection, "application/json", server->report.buf.data,
                           server->report.buf.used);
}

static enum MHD_Result answer_session(struct server *server, struct MHD_Connection *connection,
                                      const struct pm_serve_decision *decision)
{
    struct pm_buf buf;
    size_t i;
    if (!pm_serve_find(server->serve, decision->id, &i))
        return pm_answer_refusal(server, connection, 404,
                                 "there is no such session, /api/sessions lists those that run");
    if (decision->route == PM_ROUTE_REPORT)
        return answer_report(server, connection, decision, i);
    pm_buf_init(&buf, PM_SERVE_BODY_MAX);
    const int rc = decision->route == PM_ROUTE_SECONDS
                       ? pm_serve_seconds_json(server->serve, i, &buf)
                       : pm_serve_session_json(server->serve, i, &buf);
    return answer_made(server, connection, rc, "application/json", &buf);
}

static enum MHD_Result answer_sessions(struct server *server, struct MHD_Connection *connection)
{
    struct pm_buf buf;
    pm_buf_init(&buf, PM_SERVE_BODY_MAX);
    const int rc = pm_serve_sessions_json(server->serve, &buf);
    return answer_made(server, connection, rc, "application/json", &buf);
}

enum MHD_Result pm_serve_answer(struct server *server, struct MHD_Connection *connection,
                                const struct pm_serve_decision *decision)
{
    switch (decision->route) {
    case PM_ROUTE_REFUSED:
        return pm_answer_refusal(server, connection, decision->status, decision->sentence);
    case PM_ROUTE_PAGE:
        return answer_page(server, connection);
    case PM_ROUTE_HEALTH:
        return pm_answer_bytes(server, connection, "text/plain", "ok\n", 3);
    case PM_ROUTE_LOGIN:
        return answer_login(server, connection);
    case PM_ROUTE_EVENTS:
        return pm_listen(server, connection, decision->head);
    default:
        break;
    }
    pm_serve_refresh(server->serve, PM_SERVE_FRESH_NS);
    switch (decision->route) {
    case PM_ROUTE_METRICS:
        return answer_metrics(server, connection, decision->format);
    case PM_ROUTE_SESSIONS:
        return answer_sessions(server, connection);
    default:
        return answer_session(server, connection, decision);
    }
}
#endif
