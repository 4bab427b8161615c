/*
 * The facts of custom hooks on disk: one record per call of a callable that the user named in
 * VLLM_PROFILING_CUSTOM (schema "custom_call", stream custom). Written by src/probe/custom.c, read
 * by src/view/seed_custom.c by name. Pure C.
 */
#ifndef PM_SESSION_CUSTOM_FACTS_H
#define PM_SESSION_CUSTOM_FACTS_H

#include <stdint.h>

#define PM_CUSTOM_CLASSES 64 /* hooks that the totals tell apart */

enum pm_custom_flags {
    PM_CUSTOM_FAILED = 1, /* the call raised */
};

struct pm_custom_call {
    uint64_t start_ns; /* the original was called */
    uint64_t dur_ns;   /* to its return; of a coroutine, to its end */
    uint32_t name;     /* string: "pkg.mod:Class.method" */
    uint8_t hook;      /* n-th of the setting */
    uint8_t flags;     /* enum pm_custom_flags */
    uint16_t reserved;
};

#endif
