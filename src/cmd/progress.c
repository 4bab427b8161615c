/*
 * The line about work that takes long (progress.h). The thread only reads /proc/self/io and writes
 * to stderr.
 */
#include "cmd/progress.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FIRST_NS 1000000000ull
#define EVERY_NS 200000000ull
#define BAR 24

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Bytes that this process has read so far (proc(5), rchar); 0: not known. */
static uint64_t bytes_read(void)
{
    unsigned long long bytes = 0;
    FILE *io = fopen("/proc/self/io", "re");
    if (io == NULL)
        return 0;
    if (fscanf(io, "rchar: %llu", &bytes) != 1)
        bytes = 0;
    fclose(io);
    return bytes;
}

static void draw(struct pm_progress *p)
{
    const uint64_t bytes = bytes_read() - p->begun_bytes;
    const double seconds = (double)(now_ns() - p->begun_ns) / 1e9;
    char bar[BAR + 1];

    p->drawn = true;
    if (p->total == 0) {
        fprintf(stderr, "\r\033[K%s: %.0f s, %.2f GB read", p->what, seconds, (double)bytes / 1e9);
    } else {
        double share = (double)bytes / (double)p->total;
        share = share > 0.99 ? 0.99 : share;
        for (int i = 0; i < BAR; i++)
            bar[i] = (double)i < share * BAR ? '#' : '.';
        bar[BAR] = '\0';
        fprintf(stderr, "\r\033[K%s [%s] %2.0f %%, %.0f s", p->what, bar, share * 100, seconds);
    }
    fflush(stderr);
}

static void wait_ns(struct pm_progress *p, uint64_t ns)
{
    const uint64_t until = now_ns() + ns;
    const struct timespec at = {.tv_sec = (time_t)(until / 1000000000u),
                                .tv_nsec = (long)(until % 1000000000u)};
    while (!p->over && pthread_cond_timedwait(&p->wake, &p->lock, &at) != ETIMEDOUT)
        ;
}

static void *run(void *arg)
{
    struct pm_progress *p = arg;
    pthread_mutex_lock(&p->lock);
    wait_ns(p, FIRST_NS);
    while (!p->over) {
        draw(p);
        wait_ns(p, EVERY_NS);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool wanted(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && term != NULL && strcmp(term, "dumb") != 0;
}

void pm_progress_begin(struct pm_progress *p, const char *what, uint64_t total)
{
    pthread_condattr_t clock;
    sigset_t all, before;

    *p = (struct pm_progress){.what = what, .total = total};
    if (!wanted())
        return;
    p->begun_bytes = bytes_read();
    p->begun_ns = now_ns();
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &clock);
    pthread_condattr_destroy(&clock);
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    p->runs = pthread_create(&p->thread, NULL, run, p) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pm_progress_end(struct pm_progress *p)
{
    if (!p->runs)
        return;
    pthread_mutex_lock(&p->lock);
    p->over = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    p->runs = false;
    if (p->drawn) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
    }
}

uint64_t pm_progress_session_bytes(const struct pm_session *session)
{
    uint64_t bytes = 0;
    for (size_t p = 0; p < pm_session_process_count(session); p++) {
        char path[4096 + 300];
        struct stat st;
        snprintf(path, sizeof(path), "%s/records/%s", pm_session_info(session)->path,
                 pm_process_info(pm_session_process(session, p))->file);
        if (stat(path, &st) == 0)
            bytes += (uint64_t)st.st_size;
    }
    return bytes;
}
