/*
 * The machine of torch_profile.h. Owns the request under way; speaks on stderr in sentences that
 * begin with "profilemate:".
 */
#include "cmd/torch_profile.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/output_dir.h"
#include "session/attrs.h"
#include "session/function_facts.h"

#define IDLE_TICK_MS 250
#define WINDOW_TICK_MS 20 /* steps are counted so closely: a step takes about as long */
#define CALL_TICK_MS 10
#define HEALTH_EVERY_MS 500
#define HEALTH_TIMEOUT_MS 5000
#define START_TIMEOUT_MS 60000
#define QUIET_MS 10000 /* a server without a step for so long has fallen quiet */
#define LATE_MS 1000   /* for steps that began before the answer to /start_profile was read */
#define PILOT_STEPS 10 /* how much a step takes on disk is learned from so many */

enum phase {
    SEEKING,   /* no session, no server that answers yet */
    WAITING,   /* for requests, or for the next window's time */
    STARTING,  /* /start_profile is under way */
    PROFILING, /* it is on */
    STOPPING,  /* /stop_profile is under way */
    DONE,      /* nothing more will be done */
};

struct pm_torch {
    struct pm_torch_plan plan;
    struct pm_follow *follow;
    enum phase phase;
    struct pm_http http;
    bool calling; /* http is under way */
    bool ending;  /* no further windows */
    unsigned windows, traces;
    uint64_t next_ms; /* of /health, or of the next window */
    uint64_t from;    /* requests that have to end before the window begins */
    /* the window */
    bool pilot;
    bool may_be_on;                   /* the server may be profiling */
    uint64_t steps;                   /* at most */
    uint64_t steps_asked;             /* counted when /start_profile was sent, */
    uint64_t steps_on;                /* when it was answered, */
    uint64_t steps_seen;              /* and last */
    uint64_t requests_on;             /* ended when it was answered */
    uint64_t steps_off, requests_off; /* counted when /stop_profile was sent */
    uint64_t step_ms, start_ms, stop_ms, stop_until_ms, shown_ms;
    uint64_t start_real_ns; /* of the window: older files are not its */
    uint64_t first_real_ns; /* of the run */
    double bytes_per_step;  /* as the last window showed; 0: not known */
};

static void say(const char *format, ...) PM_PRINTF(1, 2);
static void say(const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stderr, "profilemate: ");
    pm_print_clean(stderr, line);
    fprintf(stderr, "\n");
}

static uint64_t real_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME_COARSE, &ts); /* the clock of files' times */
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct pm_torch *pm_torch_new(const struct pm_torch_plan *plan, struct pm_follow *follow)
{
    struct pm_torch *torch = calloc(1, sizeof(*torch));
    if (torch == NULL)
        return NULL;
    torch->plan = *plan;
    torch->follow = follow;
    torch->http.fd = -1;
    torch->from = plan->from;
    torch->first_real_ns = real_ns();
    return torch;
}

void pm_torch_free(struct pm_torch *torch)
{
    if (torch == NULL)
        return;
    pm_http_cancel(&torch->http);
    free(torch);
}

bool pm_torch_busy(const struct pm_torch *torch)
{
    return torch->phase == STARTING || torch->phase == PROFILING || torch->phase == STOPPING;
}

static void give_up(struct pm_torch *torch)
{
    pm_http_cancel(&torch->http);
    torch->calling = false;
    torch->phase = DONE;
}

static bool call(struct pm_torch *torch, const char *method, const char *path, const char *body,
                 uint64_t timeout_ms)
{
    torch->calling =
        pm_http_begin(&torch->http, &torch->plan.server, method, path, body, timeout_ms) == 0;
    return torch->calling;
}

/* ---- before a window ------------------------------------------------------------------------- */

/* Where the traces really go: a --profiler-config of the command's own wins over ours. */
static bool server_profiles(struct pm_torch *torch)
{
    const char *kind = pm_follow_attr(torch->follow, PM_ATTR_TORCH_PROFILER);
    if (kind == NULL) {
        say("this server was not set up for torch's profiler, nothing is profiled: `profilemate "
            "doctor` says how the extension gets in");
        return false;
    }
    if (strcmp(kind, "torch") != 0) {
        say("the command's own --profiler-config asks for the %s profiler, not torch's: leave it "
            "away, or --torch-profile",
            kind);
        return false;
    }
    const char *dir = pm_follow_attr(torch->follow, PM_ATTR_TORCH_PROFILER_DIR);
    if (dir != NULL && strcmp(dir, torch->plan.dir) != 0) {
        say("the command's own --profiler-config is used, the traces go to %s", dir);
        snprintf(torch->plan.dir, sizeof(torch->plan.dir), "%s", dir);
    }
    return true;
}

static void seek(struct pm_torch *torch, uint64_t now_ms)
{
    if (!torch->calling) {
        /* Only our own server is asked: somebody else's may listen on the same port. */
        if (now_ms >= torch->next_ms && pm_follow_attr(torch->follow, PM_ATTR_PYTHON) != NULL)
            (void)call(torch, "GET", "/health", NULL, HEALTH_TIMEOUT_MS);
        if (now_ms >= torch->next_ms)
            torch->next_ms = now_ms + HEALTH_EVERY_MS;
        return;
    }
    int status = pm_http_step(&torch->http);
    if (status == PM_HTTP_WAITING)
        return;
    torch->calling = false;
    if (status != 200)
        return;
    torch->next_ms = 0;
    torch->phase = WAITING;
    if (!server_profiles(torch))
        give_up(torch);
}

/* How many steps a window may have, so that the traces stay below their limit. */
static void size_window(struct pm_torch *torch)
{
    torch->steps = torch->plan.steps;
    torch->pilot = false;
    if (torch->plan.size_limit == 0 || torch->plan.steps <= PILOT_STEPS)
        return;
    if (torch->bytes_per_step <= 0) {
        torch->pilot = true;
        torch->steps = PILOT_STEPS;
        return;
    }
    double fit = 0.9 * (double)torch->plan.size_limit / torch->bytes_per_step;
    if (fit < 1)
        fit = 1;
    if (fit < (double)torch->steps) {
        torch->steps = (uint64_t)fit;
        say("a step takes %.2f MB of trace: this window is %llu steps, to stay below --size-limit",
            torch->bytes_per_step / 1048576.0, (unsigned long long)torch->steps);
    }
}

static void await(struct pm_torch *torch, uint64_t now_ms)
{
    char body[64];
    if (torch->ending) {
        give_up(torch);
        return;
    }
    if (now_ms < torch->next_ms || pm_follow_requests(torch->follow) < torch->from)
        return;
    size_window(torch);
    /* Taken by 0.32 and newer; the others have VLLM_PROFILER_MAX_ITERS. */
    snprintf(body, sizeof(body), "{\"max_iterations\": %llu}", (unsigned long long)torch->steps);
    torch->start_real_ns = real_ns();
    torch->start_ms = now_ms;
    torch->steps_asked = pm_follow_steps(torch->follow);
    if (!call(torch, "POST", "/start_profile", body, START_TIMEOUT_MS)) {
        say("cannot ask the server to start its profiler, the API key is too long");
        give_up(torch);
        return;
    }
    torch->may_be_on = true;
    torch->phase = STARTING;
}

/* ---- a window -------------------------------------------------------------------------------- */

static void begin_stop(struct pm_torch *torch, uint64_t now_ms, uint64_t limit_ms)
{
    pm_http_cancel(&torch->http);
    torch->steps_off = pm_follow_steps(torch->follow);
    torch->requests_off = pm_follow_requests(torch->follow);
    torch->stop_ms = torch->shown_ms = now_ms;
    torch->stop_until_ms = now_ms + limit_ms;
    torch->phase = STOPPING;
    if (!call(torch, "POST", "/stop_profile", NULL, limit_ms))
        give_up(torch);
}

/* Before Python 3.12 function tracing and torch's stacks need the same thing of the interpreter. */
static void tell_of_functions(struct pm_torch *torch)
{
    const char *how = pm_follow_attr(torch->follow, PM_ATTR_FUNCTIONS);
    if (how != NULL && strcmp(how, "PyEval_SetProfile") == 0 && torch->windows == 0 &&
        strcmp(torch->plan.mode, "light") != 0)
        say("functions are not traced in the window: before Python 3.12 torch's stacks take "
            "their place, and torch's trace has the functions of that time");
}

static void started(struct pm_torch *torch, uint64_t now_ms)
{
    int status = pm_http_step(&torch->http);
    if (status == PM_HTTP_WAITING)
        return;
    torch->calling = false;
    if (status == 200) {
        pm_follow_poll(torch->follow, false);
        torch->steps_on = torch->steps_seen = pm_follow_steps(torch->follow);
        torch->requests_on = pm_follow_requests(torch->follow);
        torch->step_ms = now_ms;
        torch->phase = PROFILING;
        say("torch profiler on (%s%s) after %llu requests and %llu steps, for at most %llu steps",
            torch->plan.mode, torch->pilot ? ", a short window to learn how large traces get" : "",
            (unsigned long long)torch->requests_on, (unsigned long long)torch->steps_on,
            (unsigned long long)torch->steps);
        tell_of_functions(torch);
    } else if (status == PM_HTTP_TIMEOUT) {
        say("the server did not answer /start_profile within %d s, it is told to stop again",
            START_TIMEOUT_MS / 1000);
        torch->ending = true;
        begin_stop(torch, now_ms, torch->plan.flush_ms);
    } else {
        if (status == 404)
            say("this server has no /start_profile (%s), nothing is profiled: `profilemate "
                "doctor -- COMMAND` says why",
                torch->plan.server.shown);
        else if (status > 0)
            say("the server answered /start_profile with %d, nothing is profiled: its log says "
                "why",
                status);
        else
            say("the connection to the server at %s broke at /start_profile, nothing is profiled",
                torch->plan.server.shown);
        torch->may_be_on = status < 0;
        give_up(torch);
    }
}

/* Whether the window is over. */
static bool is_over(struct pm_torch *torch, uint64_t now_ms)
{
    const uint64_t steps = pm_follow_steps(torch->follow);
    const uint64_t requests = pm_follow_requests(torch->follow);
    if (steps != torch->steps_seen) {
        torch->steps_seen = steps;
        torch->step_ms = now_ms;
    }
    const uint64_t quiet_ms = now_ms - torch->step_ms;
    const uint64_t length = torch->plan.to - torch->plan.from;
    if (torch->ending || steps - torch->steps_on >= torch->steps)
        return true;
    if (steps - torch->steps_asked >= torch->steps && quiet_ms >= LATE_MS)
        return true;
    if (torch->plan.to > 0 && !torch->pilot && requests >= torch->from + length)
        return true;
    return torch->plan.ends_when_quiet && steps > torch->steps_asked && quiet_ms >= QUIET_MS;
}

static void next_window(struct pm_torch *torch, uint64_t now_ms)
{
    const bool again = torch->pilot || torch->plan.every_ms > 0;
    if (!again || torch->ending) {
        give_up(torch);
        return;
    }
    torch->phase = WAITING;
    torch->next_ms = torch->pilot ? now_ms : torch->start_ms + torch->plan.every_ms;
    if (!torch->pilot) /* the next window's requests count from its own beginning */
        torch->from = 0;
}

/* Older windows' traces go first; the newest window's stay. */
static void keep_limit(struct pm_torch *torch)
{
    struct pm_trace_files all;
    char path[PATH_MAX + 256];
    unsigned removed = 0;
    if (torch->plan.size_limit == 0)
        return;
    pm_trace_files(torch->plan.dir, torch->first_real_ns, &all);
    for (size_t i = 0; i < all.count && all.bytes > torch->plan.size_limit; i++) {
        if (all.list[i].changed_ns >= torch->start_real_ns)
            break;
        snprintf(path, sizeof(path), "%s/%s", torch->plan.dir, all.list[i].name);
        if (unlink(path) == 0) {
            all.bytes -= all.list[i].bytes;
            removed++;
        }
    }
    if (removed > 0)
        say("removed %u older trace%s of this run, to stay below --size-limit", removed,
            removed == 1 ? "" : "s");
    if (all.bytes > torch->plan.size_limit)
        say("the traces take %.1f MB, more than --size-limit: give fewer --steps",
            (double)all.bytes / 1048576.0);
    pm_trace_files_release(&all);
}

static void tell_files(struct pm_torch *torch, uint64_t now_ms)
{
    struct pm_trace_files files;
    uint64_t steps = torch->steps_off - torch->steps_asked;
    uint64_t requests = torch->requests_off - torch->requests_on;
    pm_trace_files(torch->plan.dir, torch->start_real_ns, &files);
    if (steps > torch->steps)
        steps = torch->steps;
    torch->windows++;
    torch->traces += (unsigned)files.count;
    say("torch profiler off after %llu step%s and %llu request%s, written in %.1f s",
        (unsigned long long)steps, steps == 1 ? "" : "s", (unsigned long long)requests,
        requests == 1 ? "" : "s", (double)(now_ms - torch->stop_ms) / 1000.0);
    for (size_t i = 0; i < files.count; i++)
        say("  %s/%s (%.1f MB)", torch->plan.dir, files.list[i].name,
            (double)files.list[i].bytes / 1048576.0);
    if (files.count == 0)
        say("but no trace has appeared in %s: the server's log says why", torch->plan.dir);
    if (files.count > 0 && steps > 0)
        torch->bytes_per_step = (double)files.bytes / (double)steps;
    pm_trace_files_release(&files);
    keep_limit(torch);
}

static void clear_progress(void)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
}

/* A flush takes minutes, of a big model: every second on a terminal, else every five. */
static void progress(struct pm_torch *torch, uint64_t now_ms)
{
    const bool terminal = isatty(STDERR_FILENO) != 0;
    if (now_ms - torch->shown_ms < (terminal ? 1000u : 5000u))
        return;
    struct pm_trace_files files;
    torch->shown_ms = now_ms;
    pm_trace_files(torch->plan.dir, torch->start_real_ns, &files);
    fprintf(stderr, "%sprofilemate: the server writes its trace: %llu s, %.1f MB so far%s",
            terminal ? "\r" : "", (unsigned long long)((now_ms - torch->stop_ms) / 1000),
            (double)files.bytes / 1048576.0, terminal ? "\033[K" : "\n");
    fflush(stderr);
    pm_trace_files_release(&files);
}

static void stopped(struct pm_torch *torch, uint64_t now_ms)
{
    int status = pm_http_step(&torch->http);
    if (status == PM_HTTP_WAITING) {
        progress(torch, now_ms);
        return;
    }
    torch->calling = false;
    clear_progress();
    if (status == 200) {
        torch->may_be_on = false;
        tell_files(torch, now_ms);
        next_window(torch, now_ms);
        return;
    }
    if (status == PM_HTTP_TIMEOUT)
        say("the server did not answer /stop_profile within %.0f s (--flush-timeout), it may still "
            "be writing to %s; it is not waited for",
            (double)(torch->stop_until_ms - torch->stop_ms) / 1000.0, torch->plan.dir);
    else if (status > 0)
        say("the server answered /stop_profile with %d: its log says why", status);
    else
        say("the connection to the server at %s broke at /stop_profile, this window's trace may be "
            "missing",
            torch->plan.server.shown);
    give_up(torch);
}

/* ---- the face -------------------------------------------------------------------------------- */

int pm_torch_step(struct pm_torch *torch)
{
    const uint64_t now_ms = pm_now_ms();
    switch (torch->phase) {
    case SEEKING:
        seek(torch, now_ms);
        break;
    case WAITING:
        await(torch, now_ms);
        break;
    case STARTING:
        started(torch, now_ms);
        break;
    case PROFILING:
        if (is_over(torch, now_ms))
            begin_stop(torch, now_ms, torch->plan.flush_ms);
        break;
    case STOPPING:
        stopped(torch, now_ms);
        break;
    case DONE:
        break;
    }
    if (torch->calling)
        return CALL_TICK_MS;
    return torch->phase == PROFILING || (torch->phase == WAITING && torch->next_ms <= now_ms)
               ? WINDOW_TICK_MS
               : IDLE_TICK_MS;
}

void pm_torch_end(struct pm_torch *torch, uint64_t limit_ms)
{
    const uint64_t now_ms = pm_now_ms();
    torch->ending = true;
    if (torch->plan.flush_ms > limit_ms)
        torch->plan.flush_ms = limit_ms;
    if (torch->phase == STOPPING && torch->stop_until_ms > now_ms + limit_ms) {
        torch->stop_until_ms = now_ms + limit_ms;
        torch->http.deadline_ms = torch->stop_until_ms;
    }
    if (torch->phase == STARTING && torch->http.deadline_ms > now_ms + limit_ms)
        torch->http.deadline_ms = now_ms + limit_ms;
    if (!pm_torch_busy(torch))
        give_up(torch);
}

void pm_torch_report(struct pm_torch *torch)
{
    clear_progress();
    if (pm_torch_busy(torch) || (torch->may_be_on && torch->windows == 0))
        say("the server ended while it was profiled: this window's trace is lost, or was written "
            "by the server itself to %s",
            torch->plan.dir);
    else if (torch->phase == SEEKING)
        say("no server answered at %s, nothing was profiled; --server names another address",
            torch->plan.server.shown);
    else if (torch->phase == WAITING && torch->windows == 0)
        say("nothing was profiled: %llu requests ended, the window was to begin after %llu",
            (unsigned long long)pm_follow_requests(torch->follow), (unsigned long long)torch->from);
    else if (torch->traces > 0)
        say("read the traces with: profilemate trace %s/*.trace.json*", torch->plan.dir);
    give_up(torch);
}
