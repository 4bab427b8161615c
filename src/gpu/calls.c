/* See calls.h. */
#include "gpu/calls.h"

#include <stdio.h>

void pm_gpu_fail(struct pm_gpu_calls *calls, const char *call, int result)
{
    if (pm_gpu_off(calls))
        return;
    calls->failed_call = call;
    calls->failed_result = result;
    if (calls->driver.take_error != NULL)
        (void)calls->driver.take_error();
}

bool pm_gpu_failed(const struct pm_gpu_calls *calls, char *out, size_t size)
{
    char what[96];
    if (!pm_gpu_off(calls))
        return false;
    pm_driver_result_text(&calls->driver, calls->failed_result, what, sizeof what);
    snprintf(out, size, "%s gave %s", calls->failed_call, what);
    return true;
}

void *pm_gpu_context(struct pm_gpu_calls *calls, int *ret_device, enum pm_event_outcome *ret_why)
{
    void *context;
    const int result = pm_driver_where(&calls->driver, &context, ret_device);
    *ret_why = PM_EVENT_NO_DEVICE;
    if (result == PM_GPU_SUCCESS)
        return context;
    pm_gpu_fail(calls, "asking for the device in use", result);
    *ret_why = PM_EVENT_OFF;
    return NULL;
}

bool pm_gpu_captured(struct pm_gpu_calls *calls, void *stream)
{
    int status = 0;
    const int result = calls->driver.stream_capturing(stream, &status);
    if (result != PM_GPU_SUCCESS && result != PM_GPU_CAPTURE_IMPLICIT)
        pm_gpu_fail(calls, "asking a stream for a capture", result);
    else if (result != PM_GPU_SUCCESS && calls->driver.take_error != NULL)
        (void)calls->driver.take_error();
    return result != PM_GPU_SUCCESS || status != 0;
}

bool pm_gpu_record(struct pm_gpu_calls *calls, void **event, void *stream, uint64_t *made)
{
    int result;
    if (*event == NULL) {
        result = calls->driver.event_create(event, 0); /* 0: with timing */
        if (result != PM_GPU_SUCCESS) {
            *event = NULL;
            pm_gpu_fail(calls, "making an event", result);
            return false;
        }
        ++*made;
    }
    result = calls->driver.event_record(*event, stream);
    if (result != PM_GPU_SUCCESS)
        pm_gpu_fail(calls, "recording an event", result);
    return result == PM_GPU_SUCCESS;
}

int pm_gpu_complete(struct pm_gpu_calls *calls, void *event)
{
    const int result = pm_driver_ready(&calls->driver, event);
    if (result == PM_GPU_SUCCESS || result == PM_GPU_NOT_READY)
        return result == PM_GPU_SUCCESS;
    pm_gpu_fail(calls, "asking whether an event is complete", result);
    return -1;
}

int pm_gpu_between(struct pm_gpu_calls *calls, void *from, void *to, uint64_t *ret_ns)
{
    float ms = 0;
    const int result = calls->driver.event_elapsed(&ms, from, to);
    if (result == PM_GPU_NOT_READY) {
        if (calls->driver.take_error != NULL)
            (void)calls->driver.take_error();
        return 0;
    }
    if (result != PM_GPU_SUCCESS) {
        pm_gpu_fail(calls, "asking for the time between two events", result);
        return 0;
    }
    *ret_ns = ms > 0 && ms < 1e10f ? (uint64_t)((double)ms * 1e6 + 0.5) : 0;
    return 1;
}

void pm_gpu_destroy(struct pm_gpu_calls *calls, void *event)
{
    if (event == NULL || pm_gpu_off(calls))
        return;
    const int result = calls->driver.event_destroy(event);
    if (result != PM_GPU_SUCCESS)
        pm_gpu_fail(calls, "destroying an event", result);
}
