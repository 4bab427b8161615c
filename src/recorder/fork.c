/*
 * fork(): the child's copy of a recorder is mute, and touches neither the parent's file nor its
 * thread nor its locks.
 *
 * Two things happen at a fork. The kernel gives the child a zeroed struct pm_rec_hot
 * (MADV_WIPEONFORK) and none of the file's mappings (MADV_DONTFORK), even where the fork was a bare
 * system call. And our handler, which is registered once per process, puts anonymous pages where
 * the file's header and the open segments were: hooks that hold a pointer to the header, or were
 * between reserve and commit, go on writing there, to nobody.
 */
#include "recorder/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define RECORDERS_MAX 64

/* The recorders of this process. Places are taken and given back without a lock, so that a fork
 * never finds one held. */
static _Atomic(struct pm_recorder *) recorders[RECORDERS_MAX];
static pthread_once_t registered = PTHREAD_ONCE_INIT;

static void stand_in(struct pm_recorder *rec, unsigned i, void *base, size_t bytes)
{
    /* Another handler may have mapped something there meanwhile: not replaced, and then the pointer
     * is of no use anyway. */
    void *page = mmap(base, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (page == MAP_FAILED)
        return;
    if (page != base) { /* a kernel that does not know the flag takes the address as a hint */
        munmap(page, bytes);
        return;
    }
    rec->stand_in[i].base = base;
    rec->stand_in[i].bytes = bytes;
}

static void mute(struct pm_recorder *rec)
{
    rec->forked = true;
    memset(rec->hot, 0, sizeof *rec->hot); /* for kernels without MADV_WIPEONFORK */
    if (rec->head != NULL)
        stand_in(rec, 0, rec->head, rec->header_bytes);
    for (unsigned stream = 0; stream < PM_STREAM_COUNT; stream++) {
        struct pm_rec_segment *segment = rec->lanes[stream].current;
        if (segment != NULL)
            stand_in(rec, 1 + stream, segment->base, rec->segment_bytes);
    }
}

/* In the child of fork(), before it returns: only what a signal handler could do. */
static void in_child(void)
{
    int errnum = errno;
    for (unsigned i = 0; i < RECORDERS_MAX; i++) {
        struct pm_recorder *rec = atomic_load_explicit(&recorders[i], memory_order_acquire);
        if (rec != NULL)
            mute(rec);
        atomic_store_explicit(&recorders[i], NULL, memory_order_relaxed);
    }
    errno = errnum;
}

static void register_handler(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

int pm_rec_fork_watch(struct pm_recorder *rec)
{
    if (pthread_once(&registered, register_handler) != 0)
        return -PM_ENOMEM;
    for (unsigned i = 0; i < RECORDERS_MAX; i++) {
        struct pm_recorder *free_place = NULL;
        if (atomic_compare_exchange_strong_explicit(&recorders[i], &free_place, rec,
                                                    memory_order_acq_rel, memory_order_relaxed))
            return 0;
    }
    return -PM_ELIMIT;
}

void pm_rec_fork_forget(struct pm_recorder *rec)
{
    for (unsigned i = 0; i < RECORDERS_MAX; i++) {
        if (atomic_load_explicit(&recorders[i], memory_order_relaxed) == rec)
            atomic_store_explicit(&recorders[i], NULL, memory_order_release);
    }
}
