/*
 * The calls of a driver that pools of events make (events.c, chain.c), with what both hold to: the
 * first error ends all calls for good, nothing is recorded on a stream that is being captured, an
 * event is made when it is first recorded. On whatever thread holds the GIL, which is the lock.
 * Pure C, owns nothing.
 */
#ifndef PM_GPU_CALLS_H
#define PM_GPU_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gpu/driver.h"

/* What became of a mark. */
enum pm_event_outcome {
    PM_EVENT_RECORDED,
    PM_EVENT_FULL,      /* the pool is exhausted: too much is under way */
    PM_EVENT_CAPTURE,   /* the stream is being captured */
    PM_EVENT_NO_DEVICE, /* the thread has no device in use, or there are too many */
    PM_EVENT_MOVED,     /* the step went on in another context than it began in */
    PM_EVENT_FOREIGN,   /* an error of somebody else's waits to be seen (HIP) */
    PM_EVENT_OFF,       /* events are off since an error */
    PM_EVENT_NONE,      /* no step is open, or it was given up before */
};

struct pm_gpu_calls {
    struct pm_driver driver;
    const char *failed_call; /* of the first error; NULL: none so far */
    int failed_result;
};

static inline bool pm_gpu_off(const struct pm_gpu_calls *calls)
{
    return calls->failed_call != NULL;
}

/* The driver is not asked for anything from here on; what it left for torch to find is ours and
 * taken away. call: "recording an event". */
void pm_gpu_fail(struct pm_gpu_calls *calls, const char *call, int result);

/* The first error: what was called and what the driver said, a sentence; false: none so far. */
bool pm_gpu_failed(const struct pm_gpu_calls *calls, char *out, size_t size);

/* The context in use on this thread, and its device's ordinal. NULL: *ret_why says why. */
void *pm_gpu_context(struct pm_gpu_calls *calls, int *ret_device, enum pm_event_outcome *ret_why);

/* Whether the stream is being captured; true as well where the driver will not say. */
bool pm_gpu_captured(struct pm_gpu_calls *calls, void *stream);

/* Records *event on the stream, made before where it is NULL (*made grows). False: off now. */
bool pm_gpu_record(struct pm_gpu_calls *calls, void **event, void *stream, uint64_t *made);

/* 1: the event is complete; 0: not yet; -1: the driver failed. */
int pm_gpu_complete(struct pm_gpu_calls *calls, void *event);

/* 1: *ret_ns, 0 where the answer makes no sense; 0: one of them is not there yet, or the driver
 * failed. */
int pm_gpu_between(struct pm_gpu_calls *calls, void *from, void *to, uint64_t *ret_ns);

/* Nothing where events are off, or event is NULL. */
void pm_gpu_destroy(struct pm_gpu_calls *calls, void *event);

#endif
