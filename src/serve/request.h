/*
 * What a request to `serve` is answered with, decided from its line and its headers alone: pure, so
 * that a test and a fuzzer can ask it anything. Called by http.c, one thread; owns nothing.
 *
 * The order of the checks: length, method, Host, path, token, what is asked for. A path that is
 * not one of ours is told apart from one that needs a token only to those who have it.
 */
#ifndef PM_SERVE_REQUEST_H
#define PM_SERVE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#define PM_SERVE_TARGET_MAX 1024 /* bytes of a path with its query */
#define PM_SERVE_ID_MAX 300
#define PM_SERVE_TOKEN_MIN 16
#define PM_SERVE_TOKEN_MAX 256
#define PM_SERVE_COOKIE "profilemate_token"
#define PM_SERVE_LAST_SEC 60      /* of a report, where the request does not say */
#define PM_SERVE_LAST_SEC_MAX 600 /* and the most that it may ask for */

/* X(NAME, path); those without a path are found by more than that */
#define PM_SERVE_ROUTES(X)                                                                         \
    X(PAGE, "/")                                                                                   \
    X(HEALTH, "/healthz")                                                                          \
    X(METRICS, "/metrics")                                                                         \
    X(EVENTS, "/events")                                                                           \
    X(SESSIONS, "/api/sessions")                                                                   \
    X(SESSION, NULL) /* /api/sessions/ID */                                                        \
    X(REPORT, NULL)  /* /api/sessions/ID/report */                                                 \
    X(SECONDS, NULL) /* /api/sessions/ID/seconds */                                                \
    X(LOGIN, NULL)   /* /?token=…: the token becomes a cookie */                                 \
    X(REFUSED, NULL) /* the status says why */

enum pm_serve_route {
#define PM_SERVE_ROUTE_ENUM(name, path) PM_ROUTE_##name,
    PM_SERVE_ROUTES(PM_SERVE_ROUTE_ENUM)
#undef PM_SERVE_ROUTE_ENUM
        PM_SERVE_ROUTE_COUNT
};

/* How metrics are written. */
enum pm_serve_format {
    PM_FORMAT_TEXT,        /* Prometheus text 0.0.4 */
    PM_FORMAT_OPENMETRICS, /* OpenMetrics 1.0 */
    PM_FORMAT_PROTOBUF,    /* io.prometheus.client.MetricFamily, delimited */
    PM_FORMAT_OTLP,        /* Metric messages of a ScopeMetrics; never asked for by a request */
};

/* What holds for this server. */
struct pm_serve_rules {
    const char *token; /* NULL: none is asked for */
    const char *names; /* further names that a Host header may have, with commas between; or NULL */
};

/* NULL: not sent. */
struct pm_serve_request {
    const char *method, *target;
    const char *host, *authorization, *cookie, *accept;
    bool twice;    /* one of these headers came twice */
    bool has_body; /* it has, or announces, a body */
};

struct pm_serve_decision {
    enum pm_serve_route route;
    unsigned status;      /* 200, 303 (LOGIN) or, with REFUSED, why not */
    const char *sentence; /* with REFUSED: for the one who asked */
    bool head;            /* no body is to be sent */
    enum pm_serve_format format;
    unsigned last_sec;        /* REPORT */
    char id[PM_SERVE_ID_MAX]; /* SESSION, REPORT, SECONDS */
};

void pm_serve_decide(const struct pm_serve_rules *rules, const struct pm_serve_request *request,
                     struct pm_serve_decision *ret_decision);

/* Whether a text can be a token: letters, digits and -._~+/= (RFC 6750), of the lengths above. */
bool pm_serve_token_is_valid(const char *token);

#endif
