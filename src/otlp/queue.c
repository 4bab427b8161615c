/* See queue.h. */
#include "otlp/queue.h"

#include <stdlib.h>
#include <time.h>

int pm_otlp_queue_init(struct pm_otlp_queue *queue)
{
    pthread_condattr_t attr;
    *queue = (struct pm_otlp_queue){0};
    if (pthread_mutex_init(&queue->lock, NULL) != 0)
        return -PM_ENOMEM;
    int errnum = pthread_condattr_init(&attr);
    if (errnum == 0) {
        (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        errnum = pthread_cond_init(&queue->changed, &attr);
        pthread_condattr_destroy(&attr);
    }
    if (errnum != 0)
        pthread_mutex_destroy(&queue->lock);
    return errnum == 0 ? 0 : -PM_ENOMEM;
}

void pm_otlp_batch_free(struct pm_otlp_batch *batch)
{
    pm_buf_release(&batch->body);
    free(batch);
}

/* lock held */
static void count_dropped(struct pm_otlp_queue *queue, enum pm_otlp_kind kind, uint64_t spans)
{
    queue->counts.dropped_spans += spans;
    queue->counts.dropped_pushes += kind == PM_OTLP_METRICS;
}

void pm_otlp_queue_release(struct pm_otlp_queue *queue)
{
    while (queue->first != NULL) {
        struct pm_otlp_batch *batch = queue->first;
        queue->first = batch->next;
        pm_otlp_batch_free(batch);
    }
    pthread_cond_destroy(&queue->changed);
    pthread_mutex_destroy(&queue->lock);
}

/* Takes the first batch of a kind out; NULL: there is none. lock held */
static struct pm_otlp_batch *unlink_kind(struct pm_otlp_queue *queue, enum pm_otlp_kind kind)
{
    for (struct pm_otlp_batch **at = &queue->first; *at != NULL; at = &(*at)->next)
        if ((*at)->kind == kind) {
            struct pm_otlp_batch *batch = *at;
            *at = batch->next;
            queue->bytes -= batch->body.used;
            return batch;
        }
    return NULL;
}

static void drop(struct pm_otlp_queue *queue, struct pm_otlp_batch *batch)
{
    count_dropped(queue, batch->kind, batch->spans);
    pm_otlp_batch_free(batch);
}

void pm_otlp_queue_put(struct pm_otlp_queue *queue, enum pm_otlp_kind kind, struct pm_buf *body,
                       uint64_t spans)
{
    struct pm_otlp_batch *batch = malloc(sizeof(*batch)), *old;
    pthread_mutex_lock(&queue->lock);
    if (batch == NULL || pm_buf_status(body) != 0 || body->used > PM_OTLP_QUEUE_BYTES) {
        count_dropped(queue, kind, spans);
        pm_buf_release(body);
        free(batch);
    } else {
        *batch = (struct pm_otlp_batch){.kind = kind, .body = *body, .spans = spans};
        /* Older metrics say nothing that these do not: replaced, not lost. */
        if (kind == PM_OTLP_METRICS && (old = unlink_kind(queue, kind)) != NULL)
            pm_otlp_batch_free(old);
        while (queue->bytes + batch->body.used > PM_OTLP_QUEUE_BYTES &&
               (old = unlink_kind(queue, PM_OTLP_TRACES)) != NULL)
            drop(queue, old);
        struct pm_otlp_batch **last = &queue->first;
        while (*last != NULL)
            last = &(*last)->next;
        *last = batch;
        queue->bytes += batch->body.used;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
}

struct pm_otlp_batch *pm_otlp_queue_take(struct pm_otlp_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->first == NULL && !queue->ending)
        pthread_cond_wait(&queue->changed, &queue->lock);
    struct pm_otlp_batch *batch = queue->first;
    if (batch != NULL) {
        queue->first = batch->next;
        queue->bytes -= batch->body.used;
        batch->next = NULL;
    }
    pthread_mutex_unlock(&queue->lock);
    return batch;
}

void pm_otlp_queue_back(struct pm_otlp_queue *queue, struct pm_otlp_batch *batch)
{
    pthread_mutex_lock(&queue->lock);
    bool stale = false;
    for (const struct pm_otlp_batch *at = queue->first; at != NULL; at = at->next)
        stale = stale || (batch->kind == PM_OTLP_METRICS && at->kind == PM_OTLP_METRICS);
    if (stale) {
        pm_otlp_batch_free(batch);
    } else if (queue->bytes + batch->body.used > PM_OTLP_QUEUE_BYTES) {
        drop(queue, batch);
    } else {
        batch->next = queue->first;
        queue->first = batch;
        queue->bytes += batch->body.used;
    }
    pthread_mutex_unlock(&queue->lock);
}

bool pm_otlp_queue_sleep(struct pm_otlp_queue *queue, uint64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&queue->lock);
    int errnum = 0;
    while (!queue->ending && errnum == 0)
        errnum = pthread_cond_timedwait(&queue->changed, &queue->lock, &until);
    const bool ending = queue->ending;
    pthread_mutex_unlock(&queue->lock);
    return !ending;
}

void pm_otlp_queue_end(struct pm_otlp_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->ending = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

bool pm_otlp_queue_ending(struct pm_otlp_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    const bool ending = queue->ending;
    pthread_mutex_unlock(&queue->lock);
    return ending;
}
