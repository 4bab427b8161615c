/* Decides what a request is answered with (request.h). */
#include "serve/request.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOKEN_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="
#define ID_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"

bool pm_serve_token_is_valid(const char *token)
{
    const size_t bytes = strlen(token);
    return bytes >= PM_SERVE_TOKEN_MIN && bytes <= PM_SERVE_TOKEN_MAX &&
           strspn(token, TOKEN_CHARS) == bytes;
}

static void refuse(struct pm_serve_decision *decision, unsigned status, const char *sentence)
{
    decision->route = PM_ROUTE_REFUSED;
    decision->status = status;
    decision->sentence = sentence;
}

/* ---- the token ---- */

/* Takes as long whatever the bytes are: it looks at all that a token can have. */
static bool same_token(const char *token, const char *given, size_t bytes)
{
    const size_t length = strlen(token);
    unsigned differs = length != bytes;
    for (size_t i = 0; i < PM_SERVE_TOKEN_MAX; i++) {
        const unsigned char ours = (unsigned char)token[i < length ? i : 0];
        const unsigned char theirs = i < bytes ? (unsigned char)given[i] : 0;
        differs |= (unsigned)(i < length) & (unsigned)(ours != theirs);
    }
    return differs == 0;
}

static bool bearer(const char *token, const char *header)
{
    if (header == NULL || strncasecmp(header, "Bearer ", 7) != 0)
        return false;
    const char *given = header + 7 + strspn(header + 7, " ");
    return same_token(token, given, strcspn(given, " \t"));
}

/* The value of our cookie among others: name=value; name=value. */
static bool cookie_has(const char *token, const char *header)
{
    const size_t name = sizeof(PM_SERVE_COOKIE) - 1;
    while (header != NULL && *header != '\0') {
        header += strspn(header, " ;");
        const size_t bytes = strcspn(header, ";");
        if (bytes > name && strncmp(header, PM_SERVE_COOKIE "=", name + 1) == 0 &&
            same_token(token, header + name + 1, bytes - name - 1))
            return true;
        header += bytes;
    }
    return false;
}

/* ---- Host ---- */

static bool is_listed(const char *names, const char *name, size_t bytes)
{
    while (names != NULL && *names != '\0') {
        const size_t length = strcspn(names, ",");
        if (length == bytes && bytes > 0 && strncasecmp(names, name, bytes) == 0)
            return true;
        names += length + (names[length] == ',');
    }
    return false;
}

/* A page of another site can have its own name point here, and then reads what we answer (DNS
 * rebinding). It cannot do so with an address, nor with a name that is not its own. */
static bool host_is_ours(const struct pm_serve_rules *rules, const char *host)
{
    struct in6_addr address;
    char name[256];
    size_t bytes = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    const char *port;

    if (bytes > strlen(host) || bytes >= sizeof(name))
        return false;
    port = host + bytes;
    if (port[0] == ':' && strspn(port + 1, "0123456789") == strlen(port + 1) && strlen(port) <= 6)
        port = "";
    if (port[0] != '\0')
        return false;
    memcpy(name, host, bytes);
    name[bytes] = '\0';
    if (name[0] == '[') {
        name[bytes - 1] = '\0';
        return inet_pton(AF_INET6, name + 1, &address) == 1;
    }
    return inet_pton(AF_INET, name, &address) == 1 || strcasecmp(name, "localhost") == 0 ||
           is_listed(rules->names, name, bytes);
}

/* ---- Accept ---- */

/* The weight of a media type in an Accept header in thousandths; 0: it is not named. with: a
 * parameter that has to be there, or NULL. */
static unsigned weight(const char *accept, const char *type, const char *with)
{
    const size_t length = strlen(type);
    unsigned best = 0;
    while (*accept != '\0') {
        accept += strspn(accept, " \t,");
        const size_t bytes = strcspn(accept, ",");
        const char *at = accept;
        char part[256];
        accept += bytes;
        if (bytes < length || bytes >= sizeof(part))
            continue;
        memcpy(part, at, bytes);
        part[bytes] = '\0';
        if (strncasecmp(part, type, length) != 0 || strchr("; \t", part[length]) == NULL)
            continue;
        if (with != NULL && strcasestr(part, with) == NULL)
            continue;
        const char *q = strcasestr(part, ";q=");
        const double value = q != NULL ? strtod(q + 3, NULL) : 1;
        const unsigned thousandths = value >= 1 ? 1000u : value > 0 ? (unsigned)(value * 1000) : 0u;
        best = thousandths > best ? thousandths : best;
    }
    return best;
}

static enum pm_serve_format format_of(const char *accept)
{
    if (accept == NULL)
        return PM_FORMAT_TEXT;
    const unsigned text = weight(accept, "text/plain", NULL);
    const unsigned open = weight(accept, "application/openmetrics-text", NULL);
    const unsigned family = weight(accept, "application/vnd.google.protobuf",
                                   "proto=io.prometheus.client.MetricFamily");
    const unsigned delimited =
        weight(accept, "application/vnd.google.protobuf", "encoding=delimited");
    const unsigned proto = family < delimited ? family : delimited;
    if (proto > 0 && proto >= open && proto >= text)
        return PM_FORMAT_PROTOBUF;
    return open > 0 && open >= text ? PM_FORMAT_OPENMETRICS : PM_FORMAT_TEXT;
}

/* ---- the path ---- */

static const struct {
    const char *path;
    enum pm_serve_route route;
} routes[] = {
#define X(name, path) {path, PM_ROUTE_##name},
    PM_SERVE_ROUTES(X)
#undef X
};

/* The number of a value such as "60s" or "60"; 0: it is none, or too many. */
static unsigned seconds_of(const char *text, size_t bytes)
{
    unsigned value = 0;
    if (bytes > 1 && text[bytes - 1] == 's')
        bytes--;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9' || value > PM_SERVE_LAST_SEC_MAX)
            return 0;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value <= PM_SERVE_LAST_SEC_MAX ? value : 0;
}

static void find_session(struct pm_serve_decision *decision, const char *path, size_t bytes)
{
    static const struct {
        const char *rest;
        enum pm_serve_route route;
    } parts[] = {
        {"", PM_ROUTE_SESSION}, {"/report", PM_ROUTE_REPORT}, {"/seconds", PM_ROUTE_SECONDS}};
    size_t length = 0;

    while (length < bytes && strchr(ID_CHARS, path[length]) != NULL)
        length++;
    if (length == 0 || length >= sizeof(decision->id) || path[0] == '.')
        return;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strlen(parts[i].rest) == bytes - length &&
            memcmp(parts[i].rest, path + length, bytes - length) == 0)
            decision->route = parts[i].route;
    memcpy(decision->id, path, length);
    decision->id[length] = '\0';
}

static void find_route(struct pm_serve_decision *decision, const char *path, size_t bytes)
{
    static const char sessions[] = "/api/sessions/";
    decision->route = PM_ROUTE_REFUSED;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (routes[i].path != NULL && strlen(routes[i].path) == bytes &&
            memcmp(routes[i].path, path, bytes) == 0)
            decision->route = routes[i].route;
    if (bytes >= sizeof(sessions) && memcmp(path, sessions, sizeof(sessions) - 1) == 0)
        find_session(decision, path + sizeof(sessions) - 1, bytes - (sizeof(sessions) - 1));
}

/* A query's names and values: those that a route does not know it does not mind. */
static void read_query(struct pm_serve_decision *decision, const char *query)
{
    while (decision->route == PM_ROUTE_REPORT && *query != '\0') {
        const size_t bytes = strcspn(query, "&");
        if (bytes > 5 && strncmp(query, "last=", 5) == 0) {
            decision->last_sec = seconds_of(query + 5, bytes - 5);
            if (decision->last_sec == 0) {
                refuse(decision, 400, "last is not valid, give 1s to 600s");
                return;
            }
        }
        query += bytes + (query[bytes] == '&');
    }
}

/* ---- all of it ---- */

static void decide(const struct pm_serve_rules *rules, const struct pm_serve_request *request,
                   struct pm_serve_decision *decision)
{
    const bool has_token = rules->token != NULL && bearer(rules->token, request->authorization);
    const char *target = request->target != NULL ? request->target : "";

    if (strlen(target) > PM_SERVE_TARGET_MAX) {
        refuse(decision, 414, "the path is too long");
        return;
    }
    if (request->twice) {
        refuse(decision, 400, "a header that may come once came twice");
        return;
    }
    if (request->host == NULL) {
        refuse(decision, 400, "the request has no Host header");
        return;
    }
    if (!has_token && !host_is_ours(rules, request->host)) {
        refuse(decision, 421,
               "the Host header has a name that this server does not know, use its address, or "
               "start it with --allow-host NAME");
        return;
    }
    if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0) {
        refuse(decision, 405, "only GET and HEAD are answered");
        return;
    }
    if (request->has_body) {
        refuse(decision, 413, "a request has no body here");
        return;
    }
    const size_t bytes = strcspn(target, "?");
    const char *query = target[bytes] == '?' ? target + bytes + 1 : "";
    find_route(decision, target, bytes);
    /* The page has no figures in it: it asks for them, with the token that it is given. */
    if (decision->route == PM_ROUTE_HEALTH || (decision->route == PM_ROUTE_PAGE && *query == '\0'))
        return;
    if (rules->token != NULL && !has_token && !cookie_has(rules->token, request->cookie)) {
        if (decision->route == PM_ROUTE_PAGE && strncmp(query, "token=", 6) == 0 &&
            same_token(rules->token, query + 6, strlen(query + 6))) {
            decision->route = PM_ROUTE_LOGIN;
            decision->status = 303;
            return;
        }
        refuse(decision, 401,
               "a token is needed: Authorization: Bearer TOKEN, or /?token=TOKEN for a cookie");
        return;
    }
    if (decision->route == PM_ROUTE_REFUSED)
        refuse(decision, 404, "there is nothing here, / is the page, /metrics has the metrics");
    else
        read_query(decision, query);
}

void pm_serve_decide(const struct pm_serve_rules *rules, const struct pm_serve_request *request,
                     struct pm_serve_decision *ret_decision)
{
    *ret_decision = (struct pm_serve_decision){.status = 200,
                                               .head = strcmp(request->method, "HEAD") == 0,
                                               .format = format_of(request->accept),
                                               .last_sec = PM_SERVE_LAST_SEC};
    decide(rules, request, ret_decision);
}
