/*
 * The facts of memory on disk (schema "memory_sample"): what the worker's process holds after each
 * phase of its start, and every so many steps. Written by src/probe/memory.c, read by
 * src/view/memory.c by name. Pure C.
 *
 * On a device these are torch's allocator statistics of it. On a CPU torch keeps none: allocated is
 * the process's resident memory (/proc/self/statm), its peak the kernel's (getrusage), and what is
 * reserved is not known.
 */
#ifndef PM_SESSION_MEMORY_FACTS_H
#define PM_SESSION_MEMORY_FACTS_H

#include <stdint.h>

#define PM_MEMORY_PHASES(X)                                                                        \
    X(SERVING, "serving")         /* between steps */                                              \
    X(WEIGHTS, "weights")         /* load_model */                                                 \
    X(PROFILE_RUN, "profile_run") /* determine_available_memory */                                 \
    X(KV_CACHE, "kv_cache")       /* initialize_from_config */                                     \
    X(WARM_UP, "warm_up")         /* compile_or_warm_up_model: CUDA graphs are captured in it */
enum pm_memory_phase {
#define PM_MEMORY_ENUM(name, text) PM_MEMORY_##name,
    PM_MEMORY_PHASES(PM_MEMORY_ENUM)
#undef PM_MEMORY_ENUM
        PM_MEMORY_PHASES_COUNT
};

#define PM_MEMORY_CPU (-1)

struct pm_memory_sample {
    uint64_t at_ns;
    uint64_t dur_ns;       /* the phase took; serving: 0 */
    uint64_t step;         /* serving: the step after which, as worker_step numbers it */
    uint64_t before_bytes; /* allocated when the phase began; serving: 0 */
    uint64_t allocated_bytes;
    uint64_t reserved_bytes; /* by torch from the device; CPU: 0 */
    uint64_t peak_bytes;     /* greatest allocated since torch's count of it was reset */
    int32_t device;          /* its index; PM_MEMORY_CPU */
    uint16_t instance;       /* n-th worker of the process */
    uint8_t phase;           /* enum pm_memory_phase */
    uint8_t reserved;
};

#endif
