/*
 * The console (see console.h): keeps lines until the session is born, words the banner, and sees
 * to it that a line meant for the whole session comes from one process only. GIL held; owns the
 * kept lines.
 */
#include "hook/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hook/session.h"
#include "probe/device.h"
#include "session/attrs.h"

#define LINES_KEPT 48
#define LINE_MAX_BYTES 512
#define BANNER_MAX 8192
#define SAID_MAX 16384

struct line {
    bool once;
    char text[LINE_MAX_BYTES];
};

static struct line kept[LINES_KEPT];
static size_t kept_count;
static char said_file[PATH_MAX]; /* "" before the birth */
static bool verbose;

void pm_console_write(const char *text, size_t bytes)
{
    ssize_t written;
    do
        written = write(STDERR_FILENO, text, bytes);
    while (written < 0 && errno == EINTR);
}

static void print_line(const char *text)
{
    char out[LINE_MAX_BYTES + 1];
    int length = snprintf(out, sizeof out, "%s\n", text);
    if (length > 0)
        pm_console_write(out, (size_t)length < sizeof out ? (size_t)length : sizeof out - 1);
}

/* Whether this process is the first of the session to say text. Each appends its claim to one file
 * in a single write and looks whose claim stands first: no lock, nothing to wait for. */
static bool is_first(const char *text)
{
    char claim[LINE_MAX_BYTES + 32];
    int length = snprintf(claim, sizeof claim, "%s\t%d\n", text, (int)getpid());
    if (length <= 0 || (size_t)length >= sizeof claim)
        return false;
    int fd = open(said_file, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool first = false;
    static char said[SAID_MAX + 1];
    if (write(fd, claim, (size_t)length) == length) {
        ssize_t bytes = pread(fd, said, SAID_MAX, 0);
        said[bytes > 0 ? bytes : 0] = '\0';
        size_t text_bytes = strlen(text) + 1; /* with the tab */
        for (const char *at = said; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
            if (strncmp(at, claim, text_bytes) == 0) {
                first = strncmp(at, claim, (size_t)length) == 0;
                break;
            }
        }
    }
    close(fd);
    return first;
}

static void show(bool once, const char *text)
{
    if (!once || verbose || is_first(text))
        print_line(text);
}

static void PM_PRINTF(2, 0) keep_or_show(bool once, const char *format, va_list args)
{
    char text[LINE_MAX_BYTES];
    if (vsnprintf(text, sizeof text, format, args) < 0)
        return;
    if (said_file[0]) {
        show(once, text);
        return;
    }
    for (size_t i = 0; i < kept_count; i++) {
        if (strcmp(kept[i].text, text) == 0)
            return;
    }
    if (kept_count < LINES_KEPT) {
        kept[kept_count].once = once;
        memcpy(kept[kept_count].text, text, sizeof text);
        kept_count++;
    }
}

void pm_console_line(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    keep_or_show(false, format, args);
    va_end(args);
}

void pm_console_once(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    keep_or_show(true, format, args);
    va_end(args);
}

/* What forward times are measured by, in the words of the seeds' line: events of a device that has
 * them (vLLM says cuda for ROCm too), on another one the way to vLLM's own synchronisation, on a
 * CPU the model's call. */
static const char *events_mode(const struct pm_settings *settings)
{
    const char *device = pm_attributes_value(PM_ATTR_DEVICE);
    if (!settings->cuda_events || !settings->forward_pass)
        return "False";
    if (pm_device_stand_in() != NULL || (device && strcmp(device, "cuda") == 0))
        return "True";
    return device && strcmp(device, "cpu") == 0 ? "False (CPU: wall clock)"
                                                : "False (host clock, vLLM's synchronisation)";
}

static size_t banner(const struct pm_settings *settings, const char *dir, char *out, size_t size)
{
    const char *name = strrchr(dir, '/');
    name = name ? name + 1 : dir;
    if (strncmp(name, "session_", 8) == 0)
        name += 8;
    bool simple = settings->preset == PM_PRESET_SIMPLE;
    int length = snprintf(out, size, "%s\n  Session ID: %s\n  Output directory: %s\n",
                          simple ? "[Simple Profiler] Forward pass timing enabled"
                                 : "[sitecustomize] vLLM Comprehensive Instrumentation Loaded",
                          name, dir);
    const struct {
        const char *words;
        int value;
        const char *text; /* instead of value, or NULL */
    } rows[] = {
        {"CUDA graph tracking", settings->cuda_graph, NULL},
        {"KV cache tracking", settings->kv_cache, NULL},
        {"MoE expert tracking", settings->moe, NULL},
        {"Forward pass timing", settings->forward_pass, NULL},
        {"CUDA Events mode", 0, events_mode(settings)},
        {"CPU timing", settings->cpu_timing, NULL},
        {"Batch utilization tracking", settings->batch_utilization, NULL},
        {"Preemption tracking", settings->preemption, NULL},
        {"Encoder-decoder timing", settings->encoder_decoder, NULL},
    };
    size_t used = length > 0 && (size_t)length < size ? (size_t)length : 0;
    for (size_t i = 0; !simple && i < sizeof rows / sizeof rows[0]; i++) {
        const char *value = rows[i].value < 0 ? "auto" : rows[i].value ? "True" : "False";
        if (rows[i].text)
            value = rows[i].text;
        length = snprintf(out + used, size - used, "  %s: %s\n", rows[i].words, value);
        if (length > 0 && (size_t)length < size - used)
            used += (size_t)length;
    }
    return used;
}

void pm_console_born(const struct pm_settings *settings, const char *dir, bool made)
{
    verbose = settings->verbose || settings->debug;
    if (snprintf(said_file, sizeof said_file, "%s/records/console", dir) >= (int)sizeof said_file)
        said_file[0] = '\0';
    if (made) {
        char text[BANNER_MAX];
        pm_console_write(text, banner(settings, dir, text, sizeof text));
    }
    for (size_t i = 0; i < kept_count; i++)
        show(kept[i].once, kept[i].text);
    kept_count = 0;
}

void pm_console_verbose(bool on)
{
    verbose = on;
}

void pm_console_drop(void)
{
    kept_count = 0;
}
