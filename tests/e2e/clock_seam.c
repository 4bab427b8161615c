/*
 * Loaded before a server by tests/e2e/test_faults_server.py: clocks that can be moved while it runs.
 *
 * CLOCK_SEAM names a file of two 64-bit numbers, nanoseconds added to the wall clock of the whole process, and to
 * CLOCK_MONOTONIC as the profiler's extension alone sees it: timeouts that others compute are handed to the kernel,
 * whose clock stays, so theirs must too. Any thread; owns the mapping.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CLOCK_SEAM");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (fd < 0)
        return;
    void *page = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        moved = page;
}

static void move(struct timespec *ts, int64_t ns)
{
    int64_t nsec = ts->tv_nsec + ns % 1000000000;
    ts->tv_sec += ns / 1000000000 + (nsec >= 1000000000) - (nsec < 0);
    ts->tv_nsec = (nsec + 1000000000) % 1000000000;
}

static int is_ours(void *caller)
{
    Dl_info info;
    return dladdr(caller, &info) != 0 && info.dli_fname != NULL && strstr(info.dli_fname, "sitecustomize") != NULL;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    if (real_clock_gettime == NULL) /* called before our constructor */
        real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, ts);
    if (result != 0 || moved == NULL)
        return result;
    if (clock == CLOCK_REALTIME && moved[0] != 0)
        move(ts, moved[0]);
    if (clock == CLOCK_MONOTONIC && moved[1] != 0 && is_ours(__builtin_return_address(0)))
        move(ts, moved[1]);
    return result;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
        return 0;
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *ret_now)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ret_now != NULL)
        *ret_now = ts.tv_sec;
    return ts.tv_sec;
}
