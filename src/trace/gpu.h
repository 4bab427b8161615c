/*
 * What the devices did: busy and idle time and why it was idle, kernels by class, copies, launches,
 * graph replays. One trace; used by the command. Owns its arrays; one thread.
 */
#ifndef PM_TRACE_GPU_H
#define PM_TRACE_GPU_H

#include "trace/classes.h"
#include "trace/tree.h"

/* Why a device stood still between two pieces of work. A gap is split where its parts have
 * different reasons. */
enum pm_idle {
    PM_IDLE_HOST,    /* the next piece had not been launched yet: the CPU is late */
    PM_IDLE_SYNC,    /* likewise, while that thread waited in a synchronising call */
    PM_IDLE_LAUNCH,  /* from the launch call until the piece began, the queue being empty */
    PM_IDLE_KERNEL,  /* launched in time, gap of at most PM_IDLE_KERNEL_NS: the device's own pace */
    PM_IDLE_WAIT,    /* launched in time, longer: waits for an event or another stream */
    PM_IDLE_UNKNOWN, /* the launch is not in the trace */
    PM_IDLES,
};
#define PM_IDLE_KERNEL_NS 10000
const char *pm_idle_name(enum pm_idle idle);

struct pm_gpu_device {
    int32_t id;                /* as the events say; else their pid */
    uint64_t events;           /* kernels and copies */
    int64_t first_ns, last_ns; /* begin of the first, end of the last */
    int64_t busy_ns;    /* something ran: all times below are of unions, never counted twice */
    int64_t kernel_ns;  /* a kernel ran */
    int64_t compute_ns; /* a kernel other than a collective ran */
    int64_t collective_ns;
    int64_t copy_ns; /* a copy or fill ran */
    int64_t idle_ns[PM_IDLES];
    uint64_t gaps[PM_IDLES]; /* gaps whose largest part had that reason */
    int64_t longest_gap_ns, longest_gap_at_ns;
};

static inline int64_t pm_gpu_span_ns(const struct pm_gpu_device *device)
{
    return device->last_ns - device->first_ns;
}
/* Collectives with no other kernel at the same time. */
static inline int64_t pm_gpu_exposed_ns(const struct pm_gpu_device *device)
{
    return device->kernel_ns - device->compute_ns;
}

struct pm_gpu_class {
    uint64_t calls;
    int64_t ns; /* the sum */
};

struct pm_gpu_kernel {
    uint32_t name; /* string of the trace */
    unsigned class;
    enum pm_trace_kind kind;
    uint64_t calls;
    int64_t ns, min_ns, max_ns;
    double occupancy_sum; /* weighted by time, of those that have it */
    int64_t occupancy_ns;
};

struct pm_gpu_copy {
    uint32_t name; /* "Memcpy HtoD (Pageable -> Device)" */
    uint64_t calls, bytes;
    int64_t ns, ns_with_bytes;
};

/* Launch calls with something launched. */
struct pm_gpu_launches {
    uint64_t calls;                                   /* distinct calls */
    int64_t call_ns;                                  /* spent in them */
    uint64_t works;                                   /* kernels and copies that they launched */
    uint64_t short_works;                             /* shorter than the call that launched them */
    int64_t delay_p50_ns, delay_p95_ns, delay_max_ns; /* end of the call to begin of the work */
    double delay_mean_ns;
    uint64_t synchronous; /* calls that returned only after their work had ended */
};

/* Replays that ran the same number of kernels. */
struct pm_gpu_graph {
    uint32_t kernels; /* and copies, per replay */
    uint64_t replays;
    int64_t call_ns; /* in the launch calls */
    int64_t work_ns; /* sum of the kernels */
    int64_t span_ns; /* begin of the first to end of the last, summed over replays */
};

struct pm_gpu {
    struct pm_gpu_device *devices;
    uint32_t n_devices;
    struct pm_gpu_class classes[PM_CLASSES_MAX];
    struct pm_gpu_kernel *kernels; /* most time first */
    uint32_t n_kernels;
    struct pm_gpu_copy *copies; /* likewise */
    uint32_t n_copies;
    struct pm_gpu_launches launches;
    struct pm_gpu_graph *graphs; /* most replays first */
    uint32_t n_graphs;
    uint64_t sync_calls; /* cudaDeviceSynchronize and the like */
    int64_t sync_ns;
    uint64_t alloc_calls; /* cudaMalloc, cudaFree and the like */
    int64_t alloc_ns;
};

PM_MUST_USE int pm_gpu_build(struct pm_gpu *gpu, const struct pm_tree *tree,
                             const struct pm_classes *classes);
void pm_gpu_release(struct pm_gpu *gpu);

/* What a runtime call does, by its name. */
bool pm_call_synchronises(const char *name);
bool pm_call_allocates(const char *name);
bool pm_call_replays(const char *name);

/* The device that an event ran on: an index below n_devices. */
int32_t pm_gpu_device_of(const struct pm_trace *trace, uint32_t event);

#endif
