/*
 * profilemate serve: the figures of this host's running servers by HTTP, for Prometheus, scripts
 * and a browser; or in a file, for node_exporter. Sessions are found and kept as `top` does it
 * (top_servers.c); everything else is the serve room's.
 */
#include "serve/serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/sd_file.h"
#include "cmd/top.h"
#include "otlp/otlp.h"
#include "serve/metrics.h"
#include "serve/request.h"

#define SEND_BUFFER_BYTES                                                                          \
    131072 /* of a connection: a slow reader holds no more of the kernel's                         \
            */

static struct serve_options {
    bool once;
    const char *listen, *token_file, *allow_host, *textfile, *interval, *dir, *otlp, *sd_file,
        *sd_target;
} options;

static const struct pm_option option_table[] = {
    {'l', "listen", PM_OPTION_TEXT, "ADDR:PORT", &options.listen,
     "listen here (default 127.0.0.1:9810); beyond loopback a token is needed"},
    {0, "token-file", PM_OPTION_TEXT, "FILE", &options.token_file,
     "ask for the token in this file, of 16 to 256 letters, digits and -._~+/="},
    {0, "allow-host", PM_OPTION_TEXT, "NAMES", &options.allow_host,
     "names that a request may call this server by, with commas between"},
    {0, "textfile", PM_OPTION_TEXT, "FILE", &options.textfile,
     "write the metrics to this file, for node_exporter; without --listen nothing else"},
    {0, "otlp", PM_OPTION_TEXT, "URL", &options.otlp,
     "push metrics, and a span per request, to this OpenTelemetry collector (OTLP/HTTP); without "
     "--listen nothing else"},
    {0, "sd-file", PM_OPTION_TEXT, "FILE", &options.sd_file,
     "name this server in FILE while it serves, for file_sd_configs of a Prometheus"},
    {0, "sd-target", PM_OPTION_TEXT, "HOST:PORT", &options.sd_target,
     "with --sd-file: what to name (default: this machine's name, or where it listens)"},
    {'1', "once", PM_OPTION_FLAG, "", &options.once, "with --textfile: write it once, and leave"},
    {'i', "interval", PM_OPTION_TEXT, "SEC", &options.interval,
     "with --textfile and --otlp: write or push metrics this often (default 15; 1 to 3600)"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look here only (default: the whole host)"},
};
static const char *const synopsis[] = {"[options] [SESSION|PID]", NULL};
static const char *const examples[] = {
    "profilemate serve",
    "the page and the metrics on http://127.0.0.1:9810/",
    "profilemate serve --listen 0.0.0.0:9810 --token-file /etc/profilemate.token",
    "for a Prometheus on another machine",
    "profilemate serve --textfile /var/lib/node_exporter/profilemate.prom",
    "no port: node_exporter tells of the file",
    "profilemate serve --otlp http://localhost:4318",
    "no port: metrics and traces go to a collector",
    "curl -s http://127.0.0.1:9810/api/sessions | jq '.sessions[].state'",
    "how each server is",
    NULL,
};
static const struct pm_usage usage = {
    .command = "serve",
    .synopsis = synopsis,
    .intro = "Serves the figures of running vLLM servers by HTTP: a live page at /, metrics for\n"
             "Prometheus at /metrics, JSON below /api/, a stream of states at /events. It reads\n"
             "the sessions' files from outside: a server that hangs is told of too. Without\n"
             "SESSION or PID: all servers of this host, those that start later as well.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "It ends with Ctrl-C or SIGTERM. Exit code: 0; 1 when it could not serve; 2 for a "
             "misuse.",
    .max_operands = 1,
};

/* ---- which sessions ---- */

static struct pm_top top;

static void refresh(void *arg)
{
    struct pm_top *servers = arg;
    pm_top_refresh(servers);
    pm_top_look(servers);
}

static size_t count(void *arg)
{
    return ((struct pm_top *)arg)->n_servers;
}

static const struct pm_live *at(void *arg, size_t i)
{
    return ((struct pm_top *)arg)->servers[i].live;
}

/* ---- where to listen ---- */

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } at;
    socklen_t bytes;
    bool loopback;
};

static bool read_port(const char *text, uint16_t *ret_port)
{
    const size_t digits = strspn(text, "0123456789");
    const unsigned long port = strtoul(text, NULL, 10);
    if (digits == 0 || digits > 5 || text[digits] != '\0' || port > 65535)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

/* ADDR:PORT, [ADDR6]:PORT, ADDR, :PORT, PORT; localhost is an address too. */
static bool read_address(const char *text, struct address *ret_address)
{
    char host[64] = "127.0.0.1";
    uint16_t port = PM_SERVE_PORT;
    const char *end = text[0] == '[' ? strchr(text, ']') : NULL;
    const char *colon = strrchr(end != NULL ? end : text, ':');
    const size_t bytes = colon != NULL ? (size_t)(colon - text) : strlen(text);

    if (read_port(text, &port)) {
        /* a port alone */
    } else {
        if (colon != NULL && !read_port(colon + 1, &port))
            return false;
        if (bytes >= sizeof(host))
            return false;
        if (bytes > 0)
            snprintf(host, sizeof(host), "%.*s", (int)bytes, text);
    }
    if (strcmp(host, "localhost") == 0)
        snprintf(host, sizeof(host), "127.0.0.1");
    *ret_address = (struct address){.bytes = sizeof(struct sockaddr_in)};
    ret_address->at.in.sin_family = AF_INET;
    ret_address->at.in.sin_port = htons(port);
    if (inet_pton(AF_INET, host, &ret_address->at.in.sin_addr) == 1) {
        ret_address->loopback = ntohl(ret_address->at.in.sin_addr.s_addr) >> 24 == 127;
        return true;
    }
    const size_t length = strlen(host);
    if (host[0] != '[' || host[length - 1] != ']')
        return false;
    host[length - 1] = '\0';
    ret_address->bytes = sizeof(struct sockaddr_in6);
    ret_address->at.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET6, host + 1, &ret_address->at.in6.sin6_addr) != 1)
        return false;
    ret_address->loopback = IN6_IS_ADDR_LOOPBACK(&ret_address->at.in6.sin6_addr);
    return true;
}

static void address_text(const struct address *address, char *out, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    if (address->at.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &address->at.in6.sin6_addr, host, sizeof(host));
        snprintf(out, size, "[%s]:%u", host, ntohs(address->at.in6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &address->at.in.sin_addr, host, sizeof(host));
        snprintf(out, size, "%s:%u", host, ntohs(address->at.in.sin_port));
    }
}

/* What a Prometheus has to ask, where nothing else was given. */
static void own_target(const struct address *address, struct pm_sd_target *ret_target)
{
    char text[96];
    const bool six = address->at.any.sa_family == AF_INET6;
    const bool every = six ? IN6_IS_ADDR_UNSPECIFIED(&address->at.in6.sin6_addr)
                           : address->at.in.sin_addr.s_addr == htonl(INADDR_ANY);
    address_text(address, text, sizeof(text));
    *strrchr(text, ':') = '\0';
    pm_sd_target_of(text, every, ntohs(six ? address->at.in6.sin6_port : address->at.in.sin_port),
                    ret_target);
}

/* PM_EXIT_OK, or a complaint. The address is then the one that it got (port 0: any). */
static int listen_at(struct address *address, int *ret_fd)
{
    const int one = 1, send_bytes = SEND_BUFFER_BYTES;
    char text[96];
    address_text(address, text, sizeof(text));
    const int fd = socket(address->at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return pm_complain("cannot listen on %s, %s", text, strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
    if (bind(fd, &address->at.any, address->bytes) != 0 || listen(fd, 1024) != 0) {
        const int number = errno;
        close(fd);
        return pm_complain("cannot listen on %s, %s, choose another address with --listen", text,
                           number == EADDRINUSE ? "something listens there already"
                                                : strerror(number));
    }
    address->bytes = sizeof(address->at);
    (void)getsockname(fd, &address->at.any, &address->bytes);
    *ret_fd = fd;
    return PM_EXIT_OK;
}

/* ---- the token ---- */

static int read_token(const char *path, char *out, size_t size)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pm_complain("the token cannot be read from %s, %s", path, strerror(errno));
    const ssize_t bytes = read(fd, out, size - 1);
    const bool known = fstat(fd, &st) == 0;
    close(fd);
    if (bytes < 0 || !known)
        return pm_complain("the token cannot be read from %s, %s", path, strerror(errno));
    out[bytes] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    if (!pm_serve_token_is_valid(out))
        return pm_complain("%s has no token in its first line, put 16 to 256 letters, digits or "
                           "-._~+/= there (for one: openssl rand -hex 24)",
                           path);
    if (S_ISREG(st.st_mode) && (st.st_mode & S_IROTH) != 0)
        fprintf(stderr, "profilemate: every user can read the token in %s, better: chmod o-r\n",
                path);
    return PM_EXIT_OK;
}

/* ---- the file ---- */

static bool read_interval(unsigned *ret_sec)
{
    char *end = NULL;
    const unsigned long sec = options.interval != NULL ? strtoul(options.interval, &end, 10) : 15;
    if (options.interval != NULL &&
        (end == options.interval || *end != '\0' || options.interval[0] == '-'))
        return false;
    *ret_sec = (unsigned)sec;
    return sec >= 1 && sec <= 3600;
}

/* ---- the collector ---- */

struct pushing {
    struct pm_otlp *otlp;       /* NULL: none is wanted */
    char told[256];             /* the trouble that was told of last */
    uint64_t dropped, rejected; /* as told: again when they have doubled */
};

static void tell_of_push(struct pushing *pushing, const struct pm_otlp_counts *counts)
{
    const uint64_t dropped = counts->dropped_spans + counts->dropped_pushes;
    if (strcmp(counts->trouble, pushing->told) != 0) {
        if (counts->trouble[0] != '\0')
            (void)pm_complain("the collector: %s", counts->trouble);
        else
            fprintf(stderr, "profilemate: the collector takes it again\n");
        snprintf(pushing->told, sizeof(pushing->told), "%s", counts->trouble);
    }
    const uint64_t rejected = counts->rejected_spans + counts->rejected_points;
    if (rejected > pushing->rejected * 2 || (rejected > 0 && pushing->rejected == 0)) {
        (void)pm_complain("the collector: %s", counts->partial);
        pushing->rejected = rejected;
    }
    if (dropped > pushing->dropped * 2 || (dropped > 0 && pushing->dropped == 0)) {
        (void)pm_complain("%llu spans and %llu pushes of metrics were dropped so far, see that the "
                          "collector takes them",
                          (unsigned long long)counts->dropped_spans,
                          (unsigned long long)counts->dropped_pushes);
        pushing->dropped = dropped;
    }
}

static int begin_push(struct pushing *pushing, uint64_t interval_ns)
{
    struct pm_error err = {""};
    const struct pm_otlp_options how = {.url = options.otlp,
                                        .headers = getenv("OTEL_EXPORTER_OTLP_HEADERS"),
                                        .interval_ns = interval_ns};
    return pm_otlp_open(&pushing->otlp, &how, &err) == 0 ? PM_EXIT_OK : pm_complain("%s", err.text);
}

static void end_push(struct pushing *pushing)
{
    struct pm_otlp_counts counts;
    if (pushing->otlp == NULL)
        return;
    pm_otlp_close(pushing->otlp, 3000, &counts);
    pushing->otlp = NULL;
    tell_of_push(pushing, &counts);
}

/* ---- after each refresh ---- */

/* Written after a refresh, when it is time. */
struct textfile {
    uint64_t interval_ns, written_ns;
    bool failed; /* it was told */
    struct pushing pushing;
};

static int write_textfile(const struct pm_serve *serve, struct textfile *file)
{
    struct pm_error err = {""};
    const bool failed = pm_serve_textfile(serve, options.textfile, &err) != 0;
    file->written_ns = pm_clock_vdso_ns();
    /* One line, not one every time: it may get better by itself. */
    if (failed && !file->failed)
        (void)pm_complain("%s", err.text);
    file->failed = failed;
    return failed ? PM_EXIT_FAILED : PM_EXIT_OK;
}

static void after_refresh(void *arg, const struct pm_serve *serve)
{
    struct textfile *file = arg;
    if (file->pushing.otlp != NULL) {
        struct pm_otlp_counts counts;
        pm_otlp_gather(file->pushing.otlp, serve);
        pm_otlp_counts(file->pushing.otlp, &counts);
        tell_of_push(&file->pushing, &counts);
    }
    if (options.textfile == NULL)
        return;
    if (file->written_ns == 0 || pm_clock_vdso_ns() - file->written_ns >= file->interval_ns)
        (void)write_textfile(serve, file);
}

static int textfile_alone(struct pm_serve *serve, struct textfile *file, int stop_fd)
{
    struct pollfd wait = {.fd = stop_fd, .events = POLLIN};
    for (;;) {
        pm_serve_refresh(serve, 0);
        if (options.once)
            return write_textfile(serve, file);
        if (poll(&wait, 1, 1000) > 0)
            return PM_EXIT_OK;
    }
}

/* ---- all of it ---- */

/* SIGTERM and SIGINT as a descriptor that is readable. */
static int stop_descriptor(void)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    if (sigprocmask(SIG_BLOCK, &ends, NULL) != 0)
        return -1;
    (void)signal(SIGPIPE, SIG_IGN); /* clients come and go */
    return signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* As many descriptors as there may be connections; where that is not allowed there are fewer. */
static void raise_limit(void)
{
    struct rlimit limit;
    const rlim_t wanted = PM_SERVE_CLIENTS + 512;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur =
        limit.rlim_max == RLIM_INFINITY || limit.rlim_max > wanted ? wanted : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int serve_http(struct pm_serve *serve, struct address *address, const char *token,
                      int stop_fd)
{
    struct pm_error err = {""};
    struct pm_sd_target target = {.address = ""};
    char text[96];
    struct pm_serve_http http = {
        .token = token, .names = options.allow_host, .stop_fd = stop_fd, .tick_ms = 1000};

    if (pm_serve_check(&err) != 0)
        return pm_complain("%s", err.text);
    int code = listen_at(address, &http.listen_fd);
    if (code != PM_EXIT_OK)
        return code;
    raise_limit();
    address_text(address, text, sizeof(text));
    if (options.sd_target == NULL || !pm_sd_target_given(options.sd_target, &target))
        own_target(address, &target);
    if (options.sd_file != NULL && (code = pm_sd_file_write(options.sd_file, &target)) != 0) {
        close(http.listen_fd);
        return code;
    }
    printf("http://%s/\n", text);
    if (fflush(stdout) != 0) {
        close(http.listen_fd);
        code = pm_finish_stdout();
    } else if (pm_serve_run(serve, &http, &err) != 0) {
        code = pm_complain("%s", err.text);
    }
    if (options.sd_file != NULL)
        pm_sd_file_remove(options.sd_file, &target);
    return code;
}

static bool wants_http(void)
{
    return (options.textfile == NULL && options.otlp == NULL) || options.listen != NULL;
}

static int check(struct address *ret_address, struct textfile *ret_file)
{
    unsigned interval_sec;
    if (!read_address(options.listen != NULL ? options.listen : "127.0.0.1", ret_address))
        return pm_misuse("serve", "--listen=%.60s is not valid, give ADDR:PORT or [ADDR6]:PORT",
                         options.listen);
    if (!read_interval(&interval_sec))
        return pm_misuse("serve", "--interval=%.40s is not valid, give seconds from 1 to 3600",
                         options.interval);
    if (options.textfile == NULL && options.once)
        return pm_misuse("serve", "--once is for --textfile, give that too");
    if (options.once && options.otlp != NULL)
        return pm_misuse("serve", "--once does not go with --otlp, choose one");
    if (options.textfile == NULL && options.otlp == NULL && options.interval != NULL)
        return pm_misuse("serve", "--interval is for --textfile and --otlp, give one of them too");
    if (options.once && options.listen != NULL)
        return pm_misuse("serve", "--once does not go with --listen, choose one");
    struct pm_sd_target target;
    if (options.sd_file != NULL && !wants_http())
        return pm_misuse("serve", "--sd-file names what is listened on, give --listen too");
    if (options.sd_target != NULL && options.sd_file == NULL)
        return pm_misuse("serve", "--sd-target is for --sd-file, give that too");
    if (options.sd_target != NULL && !pm_sd_target_given(options.sd_target, &target))
        return pm_misuse("serve", "--sd-target=%.100s is not valid, give HOST:PORT",
                         options.sd_target);
    if (!ret_address->loopback && options.token_file == NULL)
        return pm_misuse("serve",
                         "%.60s is beyond this machine, give a token with --token-file, or listen "
                         "on 127.0.0.1",
                         options.listen);
    ret_file->interval_ns = interval_sec * 1000000000ull - 500000000ull;
    return PM_EXIT_OK;
}

static int serve_until_stopped(struct pm_serve *serve, struct address *address, const char *token,
                               struct textfile *file)
{
    const int stop_fd = stop_descriptor();
    if (stop_fd < 0)
        return pm_complain("cannot wait for signals, %s", strerror(errno));
    if (options.textfile != NULL || options.otlp != NULL) {
        serve->refreshed = after_refresh;
        serve->refreshed_arg = file;
    }
    int code = options.otlp != NULL ? begin_push(&file->pushing, file->interval_ns) : PM_EXIT_OK;
    if (code == PM_EXIT_OK)
        code = wants_http() ? serve_http(serve, address, token, stop_fd)
                            : textfile_alone(serve, file, stop_fd);
    end_push(&file->pushing);
    close(stop_fd);
    return code;
}

int pm_cmd_serve(int argc, char **argv)
{
    char token[PM_SERVE_TOKEN_MAX + 16];
    struct address address;
    struct textfile file = {0};
    struct pm_serve serve = {.source = {.arg = &top, .refresh = refresh, .count = count, .at = at}};
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);

    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    int code = check(&address, &file);
    if (code == PM_EXIT_OK && options.token_file != NULL)
        code = read_token(options.token_file, token, sizeof(token));
    if (code == PM_EXIT_OK)
        code = pm_top_choose(&top, options.dir, first < argc ? argv[first] : NULL);
    if (top.all) { /* none is looked at before others: each that has ended goes in its time */
        top.follow = false;
        top.selected = SIZE_MAX;
    }
    if (code == PM_EXIT_OK)
        code =
            serve_until_stopped(&serve, &address, options.token_file != NULL ? token : NULL, &file);
    pm_top_release(&top);
    return code;
}
