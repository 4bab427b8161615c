/*
 * The scopes that the probe scopes (scopes.c) knows, by the names that the settings use. Pure C,
 * any thread.
 */
#ifndef PM_PROBE_SCOPE_NAMES_H
#define PM_PROBE_SCOPE_NAMES_H

#include <stddef.h>
#include <stdint.h>

enum pm_scope {
    PM_SCOPE_STEP,
    PM_SCOPE_MODEL,
    PM_SCOPE_ATTENTION,
    PM_SCOPE_SAMPLING,
    PM_SCOPE_SCHEDULING,
    PM_SCOPE_OUTPUT,
    PM_SCOPES
};
#define PM_SCOPE_BIT(scope) (1u << (scope))
/* What VLLM_PROFILING_NVTX=1 draws: all but what there is of every layer. */
#define PM_SCOPES_BY_DEFAULT ((PM_SCOPE_BIT(PM_SCOPES) - 1) & ~PM_SCOPE_BIT(PM_SCOPE_ATTENTION))

extern const struct pm_scope_name {
    const char *name;
    uint32_t argb; /* of its ranges */
} pm_scopes[PM_SCOPES];

/* The PM_SCOPE_BIT of each name in a list with commas between; "all" stands for all of them. The
 * first that is none is put into unknown, where that is empty. */
unsigned pm_scopes_parse(const char *text, char *unknown, size_t size);

#endif
