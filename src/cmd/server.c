/*
 * The server's address from its command line (see server.h). Pure but for reading vLLM's --config
 * file and resolving a name of this machine.
 */
#include "cmd/server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 1024

/* What is taken from the command line, then from its --config file where it is not there. */
enum what { HOST, PORT, UDS, API_KEY, KEYFILE, CERTFILE, CONFIG, N_WHAT };
static const char *const names[N_WHAT] = {"host",        "port",         "uds",   "api-key",
                                          "ssl-keyfile", "ssl-certfile", "config"};

struct found {
    char value[N_WHAT][VALUE_MAX];
};

/* Whether text begins with a name, `_` counting as `-` (as vLLM's parser takes it); its length. */
static size_t begins(const char *text, const char *name)
{
    size_t i = 0;
    for (; name[i] != '\0'; i++)
        if (text[i] != name[i] && !(text[i] == '_' && name[i] == '-'))
            return 0;
    return i;
}

static void keep(struct found *found, enum what what, const char *value, size_t bytes)
{
    if (bytes > 1 && (value[0] == '"' || value[0] == '\'') && value[bytes - 1] == value[0]) {
        value++;
        bytes -= 2;
    }
    if (bytes < VALUE_MAX)
        snprintf(found->value[what], VALUE_MAX, "%.*s", (int)bytes, value);
}

static void look_at_words(struct found *found, char *const *command)
{
    for (size_t i = 0; command[i] != NULL; i++) {
        if (strncmp(command[i], "--", 2) != 0)
            continue;
        for (int what = 0; what < N_WHAT; what++) {
            size_t bytes = begins(command[i] + 2, names[what]);
            const char *rest = command[i] + 2 + bytes;
            if (bytes == 0)
                continue;
            if (*rest == '=')
                keep(found, (enum what)what, rest + 1, strlen(rest + 1));
            else if (*rest == '\0' && command[i + 1] != NULL)
                keep(found, (enum what)what, command[i + 1], strlen(command[i + 1]));
        }
    }
}

/* Top-level `name: value` lines of a YAML file; the command line wins. */
static void look_at_config(struct found *found)
{
    FILE *file = found->value[CONFIG][0] != '\0' ? fopen(found->value[CONFIG], "re") : NULL;
    char line[VALUE_MAX + 64];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        for (int what = 0; what < N_WHAT; what++) {
            size_t bytes = begins(line, names[what]);
            if (bytes == 0 || line[bytes] != ':' || found->value[what][0] != '\0')
                continue;
            const char *value = line + bytes + 1;
            value += strspn(value, " \t[");
            size_t length = value[0] == '"' || value[0] == '\''
                                ? strcspn(value + 1, value[0] == '"' ? "\"" : "'") + 2
                                : strcspn(value, "#], \t");
            keep(found, (enum what)what, value, length);
        }
    }
    if (file != NULL)
        fclose(file);
}

static int unix_address(struct pm_server *server, const char *path, struct pm_error *err)
{
    if (strlen(path) >= sizeof(server->address.un.sun_path))
        return pm_error_set(err, -PM_EINVALID, "the socket's path %.100s... is too long", path);
    memset(&server->address, 0, sizeof(server->address));
    server->address.un.sun_family = AF_UNIX;
    memcpy(server->address.un.sun_path, path, strlen(path) + 1);
    server->address_bytes = sizeof(server->address.un);
    snprintf(server->shown, sizeof(server->shown), "%.150s", path);
    return 0;
}

static int ip_address(struct pm_server *server, const char *host, const char *port,
                      struct pm_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *info;
    if (host[0] == '\0' || strcmp(host, "0.0.0.0") == 0)
        host = "127.0.0.1";
    else if (strcmp(host, "::") == 0)
        host = "::1";
    char *end;
    long number = strtol(port, &end, 10);
    if (port[0] == '\0' || *end != '\0' || number < 1 || number > 65535)
        return pm_error_set(err, -PM_EINVALID, "%.40s is no port of a server", port);
    if (getaddrinfo(host, port, &hints, &info) != 0)
        return pm_error_set(err, -PM_EINVALID, "the server's host %.100s has no address here",
                            host);
    memset(&server->address, 0, sizeof(server->address));
    memcpy(&server->address, info->ai_addr, info->ai_addrlen);
    server->address_bytes = info->ai_addrlen;
    freeaddrinfo(info);
    snprintf(server->shown, sizeof(server->shown),
             strchr(host, ':') != NULL ? "[%.120s]:%ld" : "%.120s:%ld", host, number);
    return 0;
}

int pm_server_from_command(struct pm_server *ret_server, char *const *command,
                           const char *env_api_key, struct pm_error *err)
{
    struct found *found = calloc(1, sizeof(*found));
    struct pm_server server;
    memset(&server, 0, sizeof(server));
    if (found == NULL)
        return pm_error_set(err, -PM_ENOMEM, "out of memory");
    look_at_words(found, command);
    look_at_config(found);
    const char *key = found->value[API_KEY][0] != '\0' ? found->value[API_KEY]
                      : env_api_key != NULL            ? env_api_key
                                                       : "";
    int rc = 0;
    if (strlen(key) >= sizeof(server.api_key) || strpbrk(key, "\r\n") != NULL)
        rc = pm_error_set(err, -PM_EINVALID, "the server's API key is too long, or has a line end");
    else
        memcpy(server.api_key, key, strlen(key) + 1);
    server.tls = found->value[KEYFILE][0] != '\0' || found->value[CERTFILE][0] != '\0';
    if (rc == 0)
        rc = found->value[UDS][0] != '\0'
                 ? unix_address(&server, found->value[UDS], err)
                 : ip_address(&server, found->value[HOST],
                              found->value[PORT][0] != '\0' ? found->value[PORT] : "8000", err);
    free(found);
    if (rc == 0)
        *ret_server = server;
    return rc;
}

int pm_server_from_url(struct pm_server *server, const char *url, struct pm_error *err)
{
    static const char http[] = "http://", local[] = "unix:";
    char host[256];
    if (strncmp(url, local, sizeof(local) - 1) == 0)
        return unix_address(server, url + sizeof(local) - 1, err);
    server->tls = strncmp(url, "https://", 8) == 0;
    if (server->tls)
        return 0;
    if (strncmp(url, http, sizeof(http) - 1) == 0)
        url += sizeof(http) - 1;
    size_t bytes = strcspn(url, "/");
    const char *colon = memrchr(url, ':', bytes);
    if (colon == NULL || colon == url || (size_t)(colon - url) >= sizeof(host))
        return pm_error_set(err, -PM_EINVALID,
                            "%.100s is no address of a server, give http://HOST:PORT or unix:PATH",
                            url);
    char port[16];
    snprintf(port, sizeof(port), "%.*s",
             (int)(url + bytes - colon - 1 < 8 ? url + bytes - colon - 1 : 8), colon + 1);
    bool bracketed = url[0] == '[' && colon[-1] == ']';
    snprintf(host, sizeof(host), "%.*s", (int)(colon - url) - (bracketed ? 2 : 0),
             url + (bracketed ? 1 : 0));
    return ip_address(server, host, port, err);
}
