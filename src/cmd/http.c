/* See http.h. One thread; owns the socket of the request under way. */
#include "cmd/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t pm_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void pm_http_cancel(struct pm_http *http)
{
    if (http->fd >= 0)
        close(http->fd);
    http->fd = -1;
}

static int end(struct pm_http *http, int result)
{
    pm_http_cancel(http);
    return result;
}

int pm_http_begin(struct pm_http *http, const struct pm_server *server, const char *method,
                  const char *path, const char *body, uint64_t timeout_ms)
{
    const bool key = server->api_key[0] != '\0';
    *http = (struct pm_http){.fd = -1, .deadline_ms = pm_now_ms() + timeout_ms};
    int bytes =
        snprintf(http->out, sizeof(http->out),
                 "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                 "User-Agent: profilemate\r\nAccept: */*\r\n%s%s%s%sContent-Length: %zu"
                 "\r\n\r\n%s",
                 method, path, key ? "Authorization: Bearer " : "", server->api_key,
                 key ? "\r\n" : "", body != NULL ? "Content-Type: application/json\r\n" : "",
                 body != NULL ? strlen(body) : 0, body != NULL ? body : "");
    if (bytes < 0 || (size_t)bytes >= sizeof(http->out))
        return -PM_EINVALID;
    http->out_bytes = (size_t)bytes;
    http->fd = socket(server->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (http->fd < 0)
        return -PM_EIO;
    /* What becomes of it, pm_http_step sees. */
    if (connect(http->fd, &server->address.any, server->address_bytes) < 0 &&
        errno != EINPROGRESS && errno != EAGAIN)
        http->deadline_ms = 0;
    return 0;
}

static int connection(struct pm_http *http)
{
    int error = 0;
    socklen_t bytes = sizeof(error);
    struct sockaddr_storage peer;
    socklen_t peer_bytes = sizeof(peer);
    if (getsockopt(http->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0 || error != 0)
        return end(http, PM_HTTP_REFUSED);
    if (getpeername(http->fd, (struct sockaddr *)&peer, &peer_bytes) < 0)
        return PM_HTTP_WAITING;
    http->connected = true;
    return PM_HTTP_WAITING;
}

/* "HTTP/1.1 200" */
static int status(const struct pm_http *http)
{
    const char *in = http->in;
    if (memcmp(in, "HTTP/1.", 7) != 0 || in[8] != ' ')
        return PM_HTTP_BROKEN;
    int value = 0;
    for (int i = 9; i < 12; i++) {
        if (in[i] < '0' || in[i] > '9')
            return PM_HTTP_BROKEN;
        value = value * 10 + in[i] - '0';
    }
    return value >= 100 && value < 600 ? value : PM_HTTP_BROKEN;
}

static int receive(struct pm_http *http)
{
    while (http->in_bytes < 12) {
        ssize_t n = recv(http->fd, http->in + http->in_bytes, 12 - http->in_bytes, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return PM_HTTP_WAITING;
        if (n <= 0)
            return end(http, PM_HTTP_BROKEN);
        http->in_bytes += (size_t)n;
    }
    return end(http, status(http));
}

int pm_http_step(struct pm_http *http)
{
    if (http->fd < 0)
        return PM_HTTP_BROKEN;
    if (http->deadline_ms == 0)
        return end(http, PM_HTTP_REFUSED);
    int result = http->connected ? PM_HTTP_WAITING : connection(http);
    while (result == PM_HTTP_WAITING && http->connected && http->sent < http->out_bytes) {
        ssize_t n =
            send(http->fd, http->out + http->sent, http->out_bytes - http->sent, MSG_NOSIGNAL);
        if (n > 0)
            http->sent += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return end(http, PM_HTTP_BROKEN);
    }
    if (result == PM_HTTP_WAITING && http->connected && http->sent == http->out_bytes)
        result = receive(http);
    if (result == PM_HTTP_WAITING && pm_now_ms() >= http->deadline_ms)
        return end(http, PM_HTTP_TIMEOUT);
    return result;
}
