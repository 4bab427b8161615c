/*
 * A libcuda.so.1 for tests: it looks like the driver as far as ProfileMate may use it, its clock is
 * scripted, and every function that waits fails the test. Built by tests/gpu/stand_in.py as a
 * shared library; loaded by the extension through PROFILEMATE_TEST_DRIVER, by the unit tests, by
 * bench/bench_events.c.
 *
 * Each call is a line of the file that STAND_IN_LOG names (nothing is written without it):
 *   <pid> <thread> <call> <arguments> <result>
 *
 * Time. Events are numbered as they are recorded. An event is complete when STAND_IN_BEHIND further
 * ones have been recorded, and at once with 0; stand_in_idle() completes all. STAND_IN_LATE=s:n
 * keeps stream s that much further behind. The stream reaches an event at a moment of its own: the
 * k-th event of a stream comes STAND_IN_GAPS[k mod n] µs after the one before ("30,4000,500,700":
 * waiting, model, after, sampling).
 *
 * STAND_IN_HOST=1: instead, each stream works as a device does, by the host's clock: it does what
 * stand_in_work() gave it, one thing after the other, and comes by an event when all before it is
 * done. stand_in_left() tells how long it still has to do.
 *
 * Errors. STAND_IN_FAIL=call:result[:n]: the n-th call of it (from 1), and each one after, gives
 * result. Captures. stand_in_capture(1 or 0): while one is under way a call that breaks it ends the
 * process.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define EVENTS_MAX 65536
#define STREAMS_MAX 16
#define NOT_READY 600
#define CONTEXT_LOST 700
#define BAD_HANDLE 400

struct event {
    bool live;
    uint64_t order;  /* number of its record in the process; 0: not recorded */
    unsigned stream; /* index */
    double at_us;
    int made_by;
};

static struct event events[EVENTS_MAX];
static struct {
    void *handle;
    uint64_t recorded;
    double now_us; /* by the host's clock: all that it was given is done then */
    uint64_t late;
} streams[STREAMS_MAX];
static unsigned n_events, n_streams;
static uint64_t recorded, idle_until;
static int captured, context = 1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *call, unsigned long a, unsigned long b, int result)
{
    static FILE *log;
    static int log_pid;
    const char *path = getenv("STAND_IN_LOG");
    if (path == NULL)
        return;
    if (log == NULL || log_pid != getpid()) {
        log = fopen(path, "ae");
        log_pid = getpid();
    }
    if (log == NULL)
        abort();
    fprintf(log, "%d %ld %s %lx %lx %d\n", getpid(), syscall(SYS_gettid), call, a, b, result);
    fflush(log);
}

/* What the script wants the call to give; 0: go on. */
static int scripted(const char *call)
{
    static struct {
        const char *call;
        uint64_t n;
    } seen[32];
    const char *script = getenv("STAND_IN_FAIL");
    const size_t bytes = strlen(call);
    if (script == NULL || strncmp(script, call, bytes) != 0 || script[bytes] != ':')
        return 0;
    unsigned i = 0;
    while (seen[i].call != NULL && strcmp(seen[i].call, call) != 0)
        i++;
    seen[i].call = call;
    char *rest;
    const int result = (int)strtol(script + bytes + 1, &rest, 10);
    const uint64_t from = *rest == ':' ? strtoull(rest + 1, NULL, 10) : 1;
    return ++seen[i].n >= from ? result : 0;
}

/* A call that no profiler may make. */
static int never(const char *call)
{
    say(call, 0, 0, -1);
    fprintf(stderr, "stand-in libcuda: %s was called\n", call);
    abort();
}

/* A call that would break a capture that is under way. */
static void not_in_capture(const char *call)
{
    if (captured > 0) {
        say(call, 0, 0, -1);
        fprintf(stderr, "stand-in libcuda: %s was called during a capture\n", call);
        abort();
    }
}

static double gap_us(uint64_t k)
{
    const char *script = getenv("STAND_IN_GAPS");
    double gaps[64];
    unsigned n = 0;
    for (const char *at = script != NULL ? script : "30,4000,500,700"; *at != '\0' && n < 64;) {
        char *end;
        gaps[n++] = strtod(at, &end);
        at = *end == ',' ? end + 1 : end;
    }
    return n > 0 ? gaps[k % n] : 1;
}

static unsigned stream_of(void *handle)
{
    for (unsigned i = 0; i < n_streams; i++)
        if (streams[i].handle == handle)
            return i;
    if (n_streams == STREAMS_MAX)
        abort();
    streams[n_streams].handle = handle;
    const char *late = getenv("STAND_IN_LATE");
    char *rest;
    if (late != NULL && strtoull(late, &rest, 10) == (uintptr_t)handle && *rest == ':')
        streams[n_streams].late = strtoull(rest + 1, NULL, 10);
    return n_streams++;
}

static bool by_host(void)
{
    static int known; /* 1: no, 2: yes */
    if (known == 0)
        known = getenv("STAND_IN_HOST") != NULL ? 2 : 1;
    return known == 2;
}

static double host_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static bool complete(const struct event *event)
{
    if (by_host())
        return event->at_us <= host_us();
    const char *behind = getenv("STAND_IN_BEHIND");
    const uint64_t far =
        (behind != NULL ? strtoull(behind, NULL, 10) : 0) + streams[event->stream].late;
    return event->order <= idle_until || event->order + far <= recorded;
}

/* A handle is an event's number and a mark, so that an address of something else is noticed. */
static struct event *event_of(void *handle)
{
    const uintptr_t number = (uintptr_t)handle;
    if (number >> 32 != 0xe7e7 || (number & 0xffffffff) >= n_events ||
        !events[number & 0xffffffff].live)
        return NULL;
    return &events[number & 0xffffffff];
}

/* ---- what a profiler may call ---------------------------------------------------------------- */

EXPORT int cuEventCreate(void **event, unsigned flags)
{
    int result = scripted("cuEventCreate");
    not_in_capture("cuEventCreate");
    pthread_mutex_lock(&lock);
    if (result == 0 && (flags & 2) != 0) /* CU_EVENT_DISABLE_TIMING */
        abort();
    if (result == 0) {
        if (n_events == EVENTS_MAX)
            abort();
        events[n_events] = (struct event){.live = true, .made_by = getpid()};
        *event = (void *)((uintptr_t)0xe7e7 << 32 | n_events++);
    }
    pthread_mutex_unlock(&lock);
    say("cuEventCreate", result == 0 ? (unsigned long)*event : 0, flags, result);
    return result;
}

EXPORT int cuEventRecord(void *handle, void *stream)
{
    int result = scripted("cuEventRecord");
    not_in_capture("cuEventRecord");
    pthread_mutex_lock(&lock);
    struct event *event = event_of(handle);
    if (event == NULL || event->made_by != getpid())
        result = result != 0 ? result : BAD_HANDLE;
    if (result == 0) {
        event->stream = stream_of(stream);
        if (!by_host())
            streams[event->stream].now_us += gap_us(streams[event->stream].recorded++);
        else if (streams[event->stream].now_us < host_us())
            streams[event->stream].now_us = host_us();
        event->at_us = streams[event->stream].now_us;
        event->order = ++recorded;
    }
    pthread_mutex_unlock(&lock);
    say("cuEventRecord", (unsigned long)handle, (unsigned long)stream, result);
    return result;
}

EXPORT int cuEventQuery(void *handle)
{
    int result = scripted("cuEventQuery");
    not_in_capture("cuEventQuery");
    pthread_mutex_lock(&lock);
    const struct event *event = event_of(handle);
    if (result == 0)
        result = event == NULL || event->order == 0 || event->made_by != getpid() ? BAD_HANDLE
                 : complete(event)                                                ? 0
                                                                                  : NOT_READY;
    pthread_mutex_unlock(&lock);
    say("cuEventQuery", (unsigned long)handle, 0, result);
    return result;
}

EXPORT int cuEventElapsedTime(float *ms, void *from, void *to)
{
    int result = scripted("cuEventElapsedTime");
    not_in_capture("cuEventElapsedTime");
    pthread_mutex_lock(&lock);
    const struct event *a = event_of(from), *b = event_of(to);
    if (result == 0)
        result = a == NULL || b == NULL || a->order == 0 || b->order == 0 ? BAD_HANDLE
                 : complete(a) && complete(b)                             ? 0
                                                                          : NOT_READY;
    if (result == 0)
        *ms = (float)((b->at_us - a->at_us) / 1e3);
    pthread_mutex_unlock(&lock);
    say("cuEventElapsedTime", (unsigned long)from, (unsigned long)to, result);
    return result;
}

EXPORT int cuEventDestroy_v2(void *handle)
{
    int result = scripted("cuEventDestroy_v2");
    not_in_capture("cuEventDestroy_v2");
    pthread_mutex_lock(&lock);
    struct event *event = event_of(handle);
    if (result == 0 && (event == NULL || event->made_by != getpid()))
        result = BAD_HANDLE;
    if (result == 0)
        event->live = false;
    pthread_mutex_unlock(&lock);
    say("cuEventDestroy_v2", (unsigned long)handle, 0, result);
    return result;
}

EXPORT int cuStreamIsCapturing(void *stream, int *status) /* allowed at any time */
{
    const int result = scripted("cuStreamIsCapturing");
    *status = captured > 1 ? 1 : 0; /* 2: the caller's own stream is */
    say("cuStreamIsCapturing", (unsigned long)stream, (unsigned long)*status, result);
    return result;
}

EXPORT int cuCtxGetCurrent(void **ret_context)
{
    const int result = scripted("cuCtxGetCurrent");
    *ret_context = (void *)(uintptr_t)(context != 0 ? 0xc0de0 + (unsigned)context : 0);
    return result;
}

EXPORT int cuCtxGetDevice(int *device)
{
    const int result = scripted("cuCtxGetDevice");
    *device = context - 1;
    return result;
}

EXPORT int cuGetErrorName(int result, const char **name)
{
    *name = result == CONTEXT_LOST ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_SCRIPTED";
    return 0;
}

/* ---- what it may not --------------------------------------------------------------------------
 */

#define NEVER(name)                                                                                \
    EXPORT int name(void);                                                                         \
    int name(void)                                                                                 \
    {                                                                                              \
        return never(#name);                                                                       \
    }
NEVER(cuEventSynchronize)
NEVER(cuStreamSynchronize)
NEVER(cuStreamQuery)
NEVER(cuStreamWaitEvent)
NEVER(cuStreamWaitEvent_ptsz)
NEVER(cuCtxSynchronize)
NEVER(cuInit)
NEVER(cuCtxCreate_v2)
NEVER(cuCtxSetCurrent)
NEVER(cuCtxPushCurrent_v2)
NEVER(cuDevicePrimaryCtxRetain)
NEVER(cuMemAlloc_v2)
NEVER(cuMemcpyDtoH_v2)
NEVER(cuMemcpyHtoD_v2)
NEVER(cuLaunchHostFunc)
NEVER(cuStreamAddCallback)
NEVER(cuStreamBeginCapture_v2)
NEVER(cuStreamEndCapture)

/* ---- the test's own ----------------------------------------------------------------------------
 */

EXPORT void stand_in_idle(void);
EXPORT void stand_in_capture(int how);
EXPORT void stand_in_context(int number);
EXPORT unsigned stand_in_live(void);
EXPORT void stand_in_work(void *stream, double us);
EXPORT double stand_in_left(void *stream);

/* All that was recorded is complete. */
void stand_in_idle(void)
{
    idle_until = recorded;
}

/* 0: none; 1: somewhere in the process; 2: of the stream that will be asked about. */
void stand_in_capture(int how)
{
    captured = how;
}

/* The calling thread's device, from 1; 0: none is in use. */
void stand_in_context(int number)
{
    context = number;
}

/* Events made and not destroyed. */
unsigned stand_in_live(void)
{
    unsigned live = 0;
    for (unsigned i = 0; i < n_events; i++)
        live += events[i].live;
    return live;
}

/* STAND_IN_HOST: so much more to do for a stream. */
void stand_in_work(void *stream, double us)
{
    pthread_mutex_lock(&lock);
    const unsigned at = stream_of(stream);
    if (streams[at].now_us < host_us())
        streams[at].now_us = host_us();
    streams[at].now_us += us;
    pthread_mutex_unlock(&lock);
}

/* Microseconds until it has nothing to do; 0: it has nothing. */
double stand_in_left(void *stream)
{
    pthread_mutex_lock(&lock);
    const double left = streams[stream_of(stream)].now_us - host_us();
    pthread_mutex_unlock(&lock);
    return left > 0 ? left : 0;
}
