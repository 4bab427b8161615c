/*
 * profilemate top: what running servers do now, as a screen, as text or as JSON. Everything is read
 * from the sessions' files and /proc: it answers also when the server does not.
 */
#include "cmd/top.h"

#include <errno.h>
#include <locale.h>
#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "cmd/cmd.h"
#include "cmd/options.h"

static struct top_options {
    bool once, json, batch, no_requests;
    const char *interval, *dir;
    long count;
} options = {.count = -1};

static const struct pm_option option_table[] = {
    {'1', "once", PM_OPTION_FLAG, "", &options.once, "print one screen, and leave"},
    {'b', "batch", PM_OPTION_FLAG, "", &options.batch,
     "print screen after screen, as for a log; also without a terminal"},
    {'j', "json", PM_OPTION_FLAG, "", &options.json,
     "print JSON: one document with --once, else one line each time"},
    {'i', "interval", PM_OPTION_TEXT, "SEC", &options.interval,
     "refresh this often (default 1; 0.1 to 60)"},
    {'n', "count", PM_OPTION_WHOLE, "N", &options.count, "leave after so many screens"},
    {0, "no-requests", PM_OPTION_FLAG, "", &options.no_requests,
     "with --json: leave the list of running requests out"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look here only (default: where sessions go)"},
};
static const char *const synopsis[] = {"[options] [SESSION|PID]", NULL};
static const char *const examples[] = {
    "profilemate top",
    "every server on this host",
    "profilemate top 4711",
    "the server that process 4711 belongs to, also one in a container",
    "profilemate top --once --json | jq '.sessions[0].engines[0].window.ttft'",
    "the time to first token over the last 10 seconds",
    "profilemate top --batch --interval 5 >> server.log",
    "a screen every 5 seconds, into a file",
    NULL,
};
static const struct pm_usage usage = {
    .command = "top",
    .synopsis = synopsis,
    .intro =
        "Shows what running vLLM servers do: tokens, batch, queue, KV cache, times per request,\n"
        "where a step's time goes, processes, and the requests under way. It reads the\n"
        "sessions' files from outside: a server that hangs is shown too, with what it hangs\n"
        "in. Without SESSION or PID: all servers of this host.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro =
        "Keys: h help, q leave, s sort, r reverse, / filter, p pause, Tab next server, e next\n"
        "engine, + and - faster and slower. Without colours: NO_COLOR=1.\n"
        "Exit code: 0; 1 when there is no such server, or none runs (--once, --batch); 2 for a "
        "misuse.",
    .max_operands = 1,
};

/* ---- text and JSON --------------------------------------------------------------------------- */

static int from_environment(const char *name, int otherwise)
{
    const char *value = getenv(name);
    const long number = value != NULL ? strtol(value, NULL, 10) : 0;
    return number >= 5 && number <= 1000 ? (int)number : otherwise;
}

/* COLUMNS and LINES say how large; else the terminal; else 80 by 24. */
static void sheet_size(int *ret_width, int *ret_height)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20 || size.ws_row < 10)
        size = (struct winsize){.ws_col = 80, .ws_row = 24};
    *ret_width = from_environment("COLUMNS", size.ws_col);
    *ret_height = from_environment("LINES", size.ws_row);
}

static int print_screen(struct pm_top *top)
{
    struct pm_canvas canvas = {.ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0};
    int width, height;
    sheet_size(&width, &height);
    if (pm_canvas_size(&canvas, width, height) != 0)
        return pm_complain("cannot draw, out of memory, free some");
    pm_top_draw(&canvas, top);
    pm_canvas_print(&canvas, stdout);
    pm_canvas_release(&canvas);
    return pm_finish_stdout();
}

static int print_json(const struct pm_top *top)
{
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, 1u << 30);
    pm_json_init(&json, &buf, options.once ? 2 : 0);
    pm_json_object(&json);
    pm_json_key(&json, "sessions");
    pm_json_array(&json);
    for (size_t i = 0; i < top->n_servers; i++)
        pm_live_json(&json, pm_live_view(top->servers[i].live), !options.no_requests);
    pm_json_end(&json);
    pm_json_end(&json);
    const int error = pm_json_finish(&json);
    if (error == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    if (error != 0)
        return pm_complain("cannot tell the servers, %s, free some memory", pm_strerror(error));
    return pm_finish_stdout();
}

static void wait_ms(unsigned ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static int print_all(struct pm_top *top)
{
    const long count = options.once ? 1 : options.count;
    int code = PM_EXIT_OK;
    for (long i = 0; code == PM_EXIT_OK && (count < 0 || i < count); i++) {
        if (i > 0) {
            wait_ms(top->interval_ms);
            pm_top_refresh(top);
            pm_top_look(top);
            if (!options.json)
                putchar('\n');
        }
        code = options.json ? print_json(top) : print_screen(top);
    }
    return code;
}

/* ---- the command ------------------------------------------------------------------------------
 */

static bool read_interval(unsigned *ret_ms)
{
    char *end = NULL;
    const double sec = options.interval != NULL ? strtod(options.interval, &end) : 1;
    if (options.interval != NULL && (end == options.interval || *end != '\0'))
        return false;
    if (!(sec >= 0.1 && sec <= 60))
        return false;
    *ret_ms = (unsigned)(sec * 1000 + 0.5);
    return true;
}

static int run_screen(struct pm_top *top)
{
    const char *no_color = getenv("NO_COLOR");
    const int rc = pm_top_screen(top, no_color == NULL || no_color[0] == '\0');
    if (rc == 0)
        return PM_EXIT_OK;
    if (rc == -PM_EUNSUPPORTED)
        return pm_complain("cannot use this terminal (TERM=%s), set TERM to one that this machine "
                           "knows, or use --batch",
                           getenv("TERM") != NULL ? getenv("TERM") : "");
    return pm_complain("the screen failed, %s", pm_strerror(rc));
}

int pm_cmd_top(int argc, char **argv)
{
    static struct pm_top top;
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    if (!read_interval(&top.interval_ms))
        return pm_misuse("top", "--interval=%.40s is not valid, give seconds from 0.1 to 60",
                         options.interval);
    setlocale(LC_CTYPE, "");
    const bool prints =
        options.once || options.batch || options.json || options.count >= 0 || !isatty(1);
    int code = pm_top_choose(&top, options.dir, first < argc ? argv[first] : NULL);
    if (code == PM_EXIT_OK && prints && top.n_servers == 0)
        code = pm_complain("no server with ProfileMate runs on this host, name the session of one "
                           "that has ended (`profilemate sessions` lists them)");
    else if (code == PM_EXIT_OK)
        code = prints ? print_all(&top) : run_screen(&top);
    pm_top_release(&top);
    return code;
}
