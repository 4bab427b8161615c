/*
 * What the host does round a step, one row an operation: cpu_operations_timing.csv (cpu.c). The
 * operations come from sources, each in order of time, which are merged: the scheduler, the worker,
 * what update_from_output took (cpu_sources.c), and what other probes add as a row of
 * cpu_sources.def.
 */
#ifndef PM_VIEW_CPU_H
#define PM_VIEW_CPU_H

#include "view/common.h"

#define PM_CPU_OPERATIONS_MAX 32
#define PM_CPU_TAGS_MAX 3

struct pm_cpu_op {
    const char *operation; /* a name that lives as long as the program */
    uint64_t at_ns, dur_ns;
    /* The context, which is written as key=value;key=value: step first where there is a step. A key
     * that ends in _ms has nanoseconds here. */
    struct {
        const char *key; /* NULL: no more of them */
        uint64_t value;
    } tags[PM_CPU_TAGS_MAX];
};

/* A stream of operations. next: 1: *ret_op; 0: the end; < 0: error. */
struct pm_cpu_source {
    int (*next)(struct pm_cpu_source *source, struct pm_cpu_op *ret_op);
    void (*close)(struct pm_cpu_source *source); /* frees it */
};

/* Opens a source for the files of worker n of an engine (both may not exist: then *ret_source is
 * NULL, and so it is where there is nothing for this rank). sampler: the engine's own operations
 * belong to these files. 0 or -PM_E…. */
typedef int (*pm_cpu_open_fn)(struct pm_cpu_source **ret_source, const struct pm_session *session,
                              size_t engine, unsigned n, bool sampler);

#define X(function)                                                                                \
    int function(struct pm_cpu_source **ret_source, const struct pm_session *session,              \
                 size_t engine, unsigned n, bool sampler);
#include "view/cpu_sources.def"
#undef X

/* Samples of each operation seen, in the order in which they were. */
struct pm_cpu_sums {
    unsigned n;
    uint64_t rows;
    bool recycled;
    struct {
        const char *operation;
        struct pm_samples samples;
        struct pm_stats stats; /* after pm_cpu_stats */
    } operations[PM_CPU_OPERATIONS_MAX];
};

struct pm_outfile;

/* Walks all sources; each operation also becomes a CSV row where file is not NULL. Release the sums
 * with pm_cpu_release, whatever it returned. */
PM_MUST_USE int pm_cpu_walk(const struct pm_session *session, size_t engine, unsigned n,
                            struct pm_outfile *file, struct pm_cpu_sums *ret_sums);

/* Statistics of each operation. *ret_source as pm_forward_stats says. */
PM_MUST_USE int pm_cpu_stats(const struct pm_session *session, size_t engine, unsigned n,
                             struct pm_cpu_sums *sums, const char **ret_source);
void pm_cpu_release(struct pm_cpu_sums *sums);

#endif
