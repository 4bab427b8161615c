/*
 * The helper thread and what it does each round: heartbeat, clock, totals, roll-ups, the next
 * segments. Pure C, all signals blocked, 256 KiB of stack, asleep on a futex for at most 100 ms.
 *
 * A round may also be made by the caller (pm_recorder_round, and where there is no thread):
 * helper_lock makes it one at a time.
 */
#include "recorder/internal.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STACK_BYTES (256u * 1024u)

/* ---- sleeping and waking: a word and a futex, whose timeouts no change of the date moves ---- */

static void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000u),
                               .tv_nsec = (long)(ns % 1000000000u)};
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &timeout, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void pm_rec_wake(struct pm_recorder *rec)
{
    if (rec->threaded && atomic_exchange_explicit(&rec->wake, 1, memory_order_release) == 0)
        futex_wake(&rec->wake);
}

/* ---- a round ---- */

/* One thread of the process at a time steers the clock; a second recorder's skips its turn. */
static atomic_flag steering = ATOMIC_FLAG_INIT;

static void write_clock(struct pm_recorder *rec, const struct pm_triple *triple)
{
    pm_rec_keep_enter(rec, 8 + sizeof *triple, PM_REC_HELPER);
    void *payload = pm_rec_begin(rec, PM_STREAM_KEEP, sizeof *triple);
    if (payload != NULL) {
        memcpy(payload, triple, sizeof *triple);
        pm_rec_end(rec, PM_STREAM_KEEP, PM_SCHEMA_CLOCK, sizeof *triple);
    }
    pm_rec_keep_leave(rec);
}

static void steer(struct pm_recorder *rec, uint64_t now_ns)
{
    if (now_ns - rec->steered_ns < PM_REC_STEER_NS ||
        atomic_flag_test_and_set_explicit(&steering, memory_order_acquire))
        return;
    struct pm_triple triple;
    bool sound = pm_clock_steer(&triple.tick, &triple.mono_ns, &triple.real_ns);
    bool ticks = strcmp(pm_clock_name(), "monotonic") != 0;
    atomic_flag_clear_explicit(&steering, memory_order_release);
    rec->steered_ns = now_ns;
    if (!ticks)
        triple.tick = 0;
    if (!sound)
        atomic_fetch_or_explicit(&rec->head->state, PM_STATE_MONOTONIC, memory_order_relaxed);
    if (!sound || now_ns - rec->clock_ns >= PM_REC_CLOCK_NS) {
        rec->clock_ns = now_ns;
        write_clock(rec, &triple);
    }
}

/* A minute; doubled each time that half of what KEEP may still take is gone, so that roll-ups reach
 * to the end of any run, only further apart. */
static uint64_t rollup_interval_ns(const struct pm_recorder *rec)
{
    uint64_t allowed = rec->ceiling_bytes / 2;
    uint64_t used = (uint64_t)rec->lanes[PM_STREAM_KEEP].slots * rec->segment_bytes;
    uint64_t interval_ns = PM_REC_ROLLUP_NS;
    for (unsigned doubled = 0; doubled < 10 && used > allowed / 2; doubled++) {
        used = used > allowed / 2 ? used - allowed / 2 : 0;
        allowed -= allowed / 2;
        interval_ns *= 2;
    }
    return interval_ns;
}

/* The KEEP stream needs its next segment only when half of this one is used: it grows slowly. */
static bool keep_half_used(struct pm_recorder *rec)
{
    pthread_mutex_lock(&rec->keep_lock);
    const struct pm_rec_out *out = &rec->hot->out[PM_STREAM_KEEP];
    bool half = (size_t)(out->end - out->cursor) < rec->segment_bytes / 2;
    pthread_mutex_unlock(&rec->keep_lock);
    return half;
}

/* Between publishing and this no slot may be taken again: the order of these calls is the promise
 * that no total is lost. */
static void follow_and_collect(struct pm_recorder *rec)
{
    pm_rec_follow(rec);
    pm_rec_collect(rec);
}

void pm_rec_round(struct pm_recorder *rec)
{
    pthread_mutex_lock(&rec->helper_lock);
    uint64_t now_ns = pm_clock_vdso_ns();
    steer(rec, now_ns);
    follow_and_collect(rec);
    if (now_ns - rec->rollup_ns >= rollup_interval_ns(rec)) {
        rec->rollup_ns = now_ns;
        pm_rec_rollup(rec);
    }
    for (unsigned stream = 0; stream < PM_STREAM_COUNT && rec->threaded; stream++) {
        /* Streams in use only; the first segment of the others is made when a record comes. */
        if (rec->lanes[stream].next_index == 0 && stream != PM_STREAM_CORE)
            continue;
        if (stream == PM_STREAM_KEEP && !keep_half_used(rec))
            continue;
        (void)pm_rec_prepare(rec, (enum pm_stream)stream);
    }
    pthread_mutex_unlock(&rec->helper_lock);
}

void pm_rec_make_now(struct pm_recorder *rec, enum pm_stream stream)
{
    pthread_mutex_lock(&rec->helper_lock);
    follow_and_collect(rec);
    if (stream != PM_STREAM_KEEP && stream != PM_STREAM_CORE && rec->threaded)
        pm_rec_reserve(rec);
    (void)pm_rec_prepare(rec, stream);
    pthread_mutex_unlock(&rec->helper_lock);
}

/* ---- the thread ---- */

static void *helper_main(void *arg)
{
    struct pm_recorder *rec = arg;
    /* A thread of this class never takes the processor from the one that just woke it, which is the
     * server's, at its next segment. */
    struct sched_param none = {0};
    if (sched_getscheduler(0) == SCHED_OTHER)
        (void)sched_setscheduler(0, SCHED_BATCH, &none);
    while (atomic_load_explicit(&rec->stop, memory_order_acquire) == 0) {
        atomic_store_explicit(&rec->head->heartbeat_ns, pm_clock_vdso_ns(), memory_order_relaxed);
        pm_rec_round(rec);
        if (atomic_exchange_explicit(&rec->wake, 0, memory_order_acquire) == 0)
            futex_wait(&rec->wake, 0, PM_REC_ROUND_NS);
    }
    atomic_store_explicit(&rec->done, 1, memory_order_release);
    futex_wake(&rec->done);
    /* Whoever leaves second frees it; in the usual case pm_rec_thread_stop joins and frees. */
    if (atomic_exchange_explicit(&rec->left, 1, memory_order_acq_rel) != 0)
        pm_rec_free(rec);
    return NULL;
}

void pm_rec_thread_start(struct pm_recorder *rec)
{
    rec->thread_tried = true;
    if (!rec->threaded)
        return;
    sigset_t all, old;
    sigfillset(&all);
    if (pthread_sigmask(SIG_BLOCK, &all, &old) != 0) {
        rec->threaded = false;
        return;
    }
    pthread_attr_t attr;
    int errnum = pthread_attr_init(&attr);
    if (errnum == 0) {
        (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
        errnum = pthread_create(&rec->thread, &attr, helper_main, rec);
        /* A program with much thread-local storage may need more than that. */
        if (errnum == EINVAL)
            errnum = pthread_create(&rec->thread, NULL, helper_main, rec);
        pthread_attr_destroy(&attr);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (errnum != 0) {
        rec->threaded = false; /* segments are then made by the caller */
        return;
    }
    rec->started = true;
    (void)pthread_setname_np(rec->thread, "profilemate");
}

bool pm_rec_thread_stop(struct pm_recorder *rec)
{
    if (!rec->started)
        return true;
    atomic_store_explicit(&rec->stop, 1, memory_order_release);
    pm_rec_wake(rec);
    uint64_t give_up_ns = pm_clock_vdso_ns() + PM_REC_CLOSE_NS;
    while (atomic_load_explicit(&rec->done, memory_order_acquire) == 0) {
        uint64_t now_ns = pm_clock_vdso_ns();
        if (now_ns >= give_up_ns) {
            pthread_detach(rec->thread);
            if (atomic_exchange_explicit(&rec->left, 1, memory_order_acq_rel) != 0)
                pm_rec_free(rec); /* it ended just now */
            return false;
        }
        futex_wait(&rec->done, 0, give_up_ns - now_ns);
    }
    pthread_join(rec->thread, NULL);
    rec->started = false;
    return true;
}
