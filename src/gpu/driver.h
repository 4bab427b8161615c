/*
 * A device's driver as a table of functions, looked up in a library that the process has already:
 * CUDA's libcuda.so.1 or ROCm's libamdhip64.so. Nothing is linked, and no library is loaded: a
 * process without a driver stays without one.
 *
 * The driver's own interface is used, not the runtime's (cudaEvent…): what it answers is left in no
 * "last error" that torch would find. HIP has no such second interface, which is why its errors are
 * looked at before a call and taken back after an expected one (pm_driver_clean, pm_driver_ready).
 *
 * Only functions that never wait are in the table. Sources: CUDA Driver API, "Event Management",
 * "Stream Management", "Context Management"; HIP Runtime API, the sections of the same names.
 * Called by events.c and the probe `device`, on the thread that runs the model. Pure C.
 */
#ifndef PM_GPU_DRIVER_H
#define PM_GPU_DRIVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum pm_driver_kind { PM_DRIVER_CUDA, PM_DRIVER_HIP };

/* Results that mean something to us; the same numbers in CUDA and HIP. */
#define PM_GPU_SUCCESS 0
#define PM_GPU_NOT_READY 600
#define PM_GPU_CAPTURE_IMPLICIT 906 /* the default stream, while another one is captured */

struct pm_driver {
    enum pm_driver_kind kind;
    const char *name; /* "cuda", "hip" */
    int (*event_create)(void **ret_event, unsigned flags);
    int (*event_record)(void *event, void *stream);
    int (*event_query)(void *event);
    int (*event_elapsed)(float *ret_ms, void *from, void *to);
    int (*event_destroy)(void *event);
    int (*stream_capturing)(void *stream, int *ret_status); /* 0: not */
    int (*current_context)(void **ret_context);             /* CUDA only */
    int (*current_device)(int *ret_device);
    int (*peek_error)(void); /* HIP only: what was left by a call, by whomever */
    int (*take_error)(void); /* HIP only: … and takes it away */
    int (*error_name)(int result, const char **ret_name); /* CUDA, may be NULL */
    const char *(*hip_error_name)(int result);            /* HIP, may be NULL */
};

/* The driver that this process works with. path NULL: of the libraries that are loaded, the first
 * one that has all functions and a device in use on the calling thread; else the library at path,
 * loaded (tests). 0, -PM_ENOTFOUND: none. */
PM_MUST_USE int pm_driver_find(struct pm_driver *ret_driver, const char *path);

/* What events belong to, on the calling thread: never NULL on success. *ret_device is the ordinal
 * among the devices that the process sees. Returns the driver's result; *ret_context is NULL where
 * no device is in use. */
int pm_driver_where(const struct pm_driver *driver, void **ret_context, int *ret_device);

/* No error of somebody else's is waiting to be seen: ours may come and be taken back. */
bool pm_driver_clean(const struct pm_driver *driver);

/* event_query, with the answer "not ready" taken back where it would be left behind. */
int pm_driver_ready(const struct pm_driver *driver, void *event);

/* "CUDA_ERROR_ILLEGAL_ADDRESS (700)", cut to size. */
void pm_driver_result_text(const struct pm_driver *driver, int result, char *out, size_t size);

#endif
