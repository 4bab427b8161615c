/*
 * Steps of a trace: what each one took on the CPU and on the devices. Used by the command; one
 * thread.
 *
 * A step is an annotation: vLLM's `execute_…` of a worker, else torch's `ProfilerStep#N`, or those
 * of a given prefix. Work on a device belongs to the step during which it was launched, until the
 * next step begins: sampling comes after vLLM's annotation has ended.
 */
#ifndef PM_TRACE_STEPS_H
#define PM_TRACE_STEPS_H

#include "trace/classes.h"
#include "trace/tree.h"

struct pm_step {
    uint32_t name; /* string of the trace */
    uint32_t track;
    int64_t ts_ns;
    int64_t cpu_ns;    /* of the annotation */
    int64_t period_ns; /* to the next step's begin; of the last one as long as the annotation */
    uint64_t works;    /* kernels and copies */
    int64_t device_ns; /* their sum */
    int64_t busy_ns;   /* their union, per device, summed over devices */
    int64_t window_ns; /* a device was busy, with whatever work, during the period */
    int64_t collective_ns, copy_ns; /* sums */
    int64_t first_ns, last_ns;      /* begin of the first, end of the last */
};

struct pm_steps {
    struct pm_step *steps; /* by begin */
    uint32_t n;
    uint64_t works_outside; /* launched before the first step, or unknown */
};

/* prefix may be NULL. */
PM_MUST_USE int pm_steps_build(struct pm_steps *steps, const struct pm_tree *tree,
                               const struct pm_classes *classes, const char *prefix);
void pm_steps_release(struct pm_steps *steps);

#endif
