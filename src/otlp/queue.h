/*
 * What waits to be pushed, oldest first, within PM_OTLP_QUEUE_BYTES. Of metrics only the newest
 * push is kept, since it holds all sums; of spans the oldest go first where there is no room.
 * Shared by the gathering and the sending thread; the lock is never held over anything that waits.
 */
#ifndef PM_OTLP_QUEUE_H
#define PM_OTLP_QUEUE_H

#include <pthread.h>
#include <stdbool.h>

#include "base/buf.h"
#include "otlp/otlp.h"

enum pm_otlp_kind { PM_OTLP_METRICS, PM_OTLP_TRACES };

struct pm_otlp_batch {
    struct pm_otlp_batch *next;
    enum pm_otlp_kind kind;
    struct pm_buf body;
    uint64_t spans;
    uint64_t first_try_ns; /* 0: not tried yet */
};

struct pm_otlp_queue {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC */
    struct pm_otlp_batch *first;
    size_t bytes;
    bool ending;
    struct pm_otlp_counts counts;
};

PM_MUST_USE int pm_otlp_queue_init(struct pm_otlp_queue *queue);
void pm_otlp_queue_release(struct pm_otlp_queue *queue);

/* Takes the body over (also where it is dropped at once). */
void pm_otlp_queue_put(struct pm_otlp_queue *queue, enum pm_otlp_kind kind, struct pm_buf *body,
                       uint64_t spans);

/* Waits for the oldest batch and takes it out; NULL: it is time to end and nothing waits. */
struct pm_otlp_batch *pm_otlp_queue_take(struct pm_otlp_queue *queue);
/* Puts a batch that was taken back to the front, for another try; newer metrics win over it. */
void pm_otlp_queue_back(struct pm_otlp_queue *queue, struct pm_otlp_batch *batch);
/* Sleeps so long, or until the end is wanted: then false. */
bool pm_otlp_queue_sleep(struct pm_otlp_queue *queue, uint64_t ms);
void pm_otlp_batch_free(struct pm_otlp_batch *batch);

/* The end is wanted: sleepers wake. */
void pm_otlp_queue_end(struct pm_otlp_queue *queue);
bool pm_otlp_queue_ending(struct pm_otlp_queue *queue);

#endif
