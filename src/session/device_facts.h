/*
 * What a device's own events tell of a step, on disk: recorded by the probe `device`, some steps
 * after the step itself, and joined with its worker_step by number (reader/steps.c).
 *
 *   device_step   the times of one step on the device      (schema "device_step")
 *   device_miss   what of a step has no events, and why    (schema "device_miss")
 *
 * Of steps that follow each other without a gap, wait_ns + gpu_ns + after_ns + sample_ns is all the
 * time of the device's stream.
 */
#ifndef PM_SESSION_DEVICE_FACTS_H
#define PM_SESSION_DEVICE_FACTS_H

#include <stdint.h>

#include "session/schema.h"

enum pm_device_flags {
    PM_DEVICE_HAS_WAIT = 1,   /* wait_ns is known */
    PM_DEVICE_HAS_SAMPLE = 2, /* after_ns and sample_ns are */
};

struct pm_device_step {
    uint64_t step;
    uint64_t at_ns;     /* host: the model's first event was recorded */
    uint64_t gpu_ns;    /* model start to model end; at least 1 */
    uint64_t wait_ns;   /* end of the step before to model start: the device had nothing to compute,
                           or prepared inputs */
    uint32_t after_ns;  /* model end to the start of sampling */
    uint32_t sample_ns; /* sampling */
    uint16_t device;    /* ordinal among those that the process sees */
    uint16_t instance;
    uint8_t phase; /* enum pm_phase_class, the worker's view */
    uint8_t flags; /* enum pm_device_flags */
    uint16_t reserved;
};

enum pm_device_miss_why {
    PM_DEVICE_MISS_POOL = 0,    /* too many steps were under way */
    PM_DEVICE_MISS_CAPTURE = 1, /* a graph was captured meanwhile */
    PM_DEVICE_MISS_DEVICE = 2,  /* no device in use, too many of them, or it changed in the step */
    PM_DEVICE_MISS_ERROR = 3,   /* the driver failed, or somebody's error was waiting to be seen */
    PM_DEVICE_MISS_COUNT = 4,
};

enum pm_device_miss_what {
    PM_DEVICE_MISS_STEP = 0,        /* the pairs round the model and sampling */
    PM_DEVICE_MISS_LAYERS = 1,      /* the borders between its modules */
    PM_DEVICE_MISS_COLLECTIVES = 2, /* the pairs round its collective operations, some or all */
    PM_DEVICE_MISS_WHATS = 3,
};

struct pm_device_miss {
    uint64_t step;
    uint64_t at_ns;
    uint16_t instance;
    uint8_t why;  /* enum pm_device_miss_why */
    uint8_t what; /* enum pm_device_miss_what */
    uint8_t reserved[4];
};

extern const struct pm_schema pm_device_step_schema, pm_device_miss_schema;

#endif
