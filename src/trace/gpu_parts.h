/*
 * What gpu.c, gpu_kernels.c and gpu_calls.c share while they fill a struct pm_gpu. One thread.
 */
#ifndef PM_TRACE_GPU_PARTS_H
#define PM_TRACE_GPU_PARTS_H

#include "trace/gpu.h"

#define PM_CALL_SEEN 1u
#define PM_CALL_SYNC 2u
#define PM_CALL_ALLOC 4u
#define PM_CALL_REPLAY 8u

struct pm_gpu_parts {
    struct pm_gpu *gpu;
    const struct pm_tree *tree;
    const struct pm_trace *trace;
    const struct pm_classes *classes;
    uint8_t *flags;    /* per string: PM_CALL_… of runtime calls */
    uint8_t *class_of; /* per string: class + 1, 0 while unknown */
};

/* The class of a kernel or copy. */
unsigned pm_gpu_class_of(struct pm_gpu_parts *parts, uint32_t row);

/* gpu_kernels.c: kernels, classes, copies. */
PM_MUST_USE int pm_gpu_add_kernels(struct pm_gpu_parts *parts);
/* gpu_calls.c: launches, graph replays, synchronising and allocating calls. */
PM_MUST_USE int pm_gpu_add_calls(struct pm_gpu_parts *parts);

#endif
