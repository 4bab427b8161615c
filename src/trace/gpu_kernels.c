/*
 * Kernels by name and class, copies by direction (see gpu.h). One thread.
 */
#include "trace/gpu_parts.h"

#include <stdlib.h>
#include <string.h>

/* ROCm has the size of a copy with the call that made it. */
static uint64_t bytes_of(const struct pm_gpu_parts *parts, uint32_t k)
{
    const struct pm_trace *trace = parts->trace;
    uint64_t bytes = trace->work[trace->events.extra[parts->tree->device[k]]].bytes;
    if (bytes == 0 && parts->tree->launch[k] != PM_NONE)
        bytes = trace->work[trace->events.extra[parts->tree->launch[k]]].bytes;
    return bytes;
}

static int add_copy(struct pm_gpu *gpu, uint32_t *room, uint32_t name, int64_t ns, uint64_t bytes)
{
    uint32_t i = 0;
    while (i < gpu->n_copies && gpu->copies[i].name != name)
        i++;
    if (i == gpu->n_copies) {
        if (i == *room) {
            *room = *room == 0 ? 16 : *room * 2;
            struct pm_gpu_copy *copies = realloc(gpu->copies, *room * sizeof(*copies));
            if (copies == NULL)
                return -PM_ENOMEM;
            gpu->copies = copies;
        }
        gpu->copies[gpu->n_copies++] = (struct pm_gpu_copy){.name = name};
    }
    gpu->copies[i].calls++;
    gpu->copies[i].ns += ns;
    if (bytes > 0) {
        gpu->copies[i].bytes += bytes;
        gpu->copies[i].ns_with_bytes += ns;
    }
    return 0;
}

static int by_kernel_time(const void *a, const void *b)
{
    const struct pm_gpu_kernel *x = a, *y = b;
    if (x->ns != y->ns)
        return x->ns < y->ns ? 1 : -1;
    return x->name < y->name ? -1 : x->name > y->name;
}

static int by_copy_time(const void *a, const void *b)
{
    const struct pm_gpu_copy *x = a, *y = b;
    return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

/* The entry of the kernel's name, made when it is new. */
static int find_kernel(struct pm_gpu_parts *parts, uint32_t *index, uint32_t *room, uint32_t row,
                       struct pm_gpu_kernel **ret)
{
    struct pm_gpu *gpu = parts->gpu;
    uint32_t name = parts->trace->events.name[row];
    if (index[name] == 0) {
        if (gpu->n_kernels == *room) {
            *room = *room == 0 ? 64 : *room * 2;
            struct pm_gpu_kernel *kernels = realloc(gpu->kernels, *room * sizeof(*kernels));
            if (kernels == NULL)
                return -PM_ENOMEM;
            gpu->kernels = kernels;
        }
        gpu->kernels[gpu->n_kernels++] = (struct pm_gpu_kernel){
            .name = name,
            .class = pm_gpu_class_of(parts, row),
            .kind = pm_trace_kind_of(parts->trace, row),
            .min_ns = INT64_MAX,
        };
        index[name] = gpu->n_kernels;
    }
    *ret = &gpu->kernels[index[name] - 1];
    return 0;
}

int pm_gpu_add_kernels(struct pm_gpu_parts *parts)
{
    const struct pm_trace *trace = parts->trace;
    const struct pm_tree *tree = parts->tree;
    struct pm_gpu *gpu = parts->gpu;
    uint32_t room = 0, copy_room = 0;
    uint32_t *index = calloc(trace->strings.n, sizeof(*index)); /* per string: entry + 1 */
    int err = index == NULL ? -PM_ENOMEM : 0;
    for (uint32_t k = 0; k < tree->n_device && err == 0; k++) {
        uint32_t row = tree->device[k];
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        int64_t ns = trace->events.dur_ns[row];
        struct pm_gpu_kernel *kernel;
        if (!pm_kind_is_work(kind))
            continue;
        if (kind != PM_KIND_KERNEL)
            err = add_copy(gpu, &copy_room, trace->events.name[row], ns, bytes_of(parts, k));
        if (err == 0)
            err = find_kernel(parts, index, &room, row, &kernel);
        if (err != 0)
            break;
        float occupancy = trace->work[trace->events.extra[row]].occupancy_pct;
        kernel->calls++;
        kernel->ns += ns;
        if (ns < kernel->min_ns)
            kernel->min_ns = ns;
        if (ns > kernel->max_ns)
            kernel->max_ns = ns;
        if (occupancy >= 0) {
            kernel->occupancy_sum += (double)occupancy * (double)ns;
            kernel->occupancy_ns += ns;
        }
        gpu->classes[kernel->class].calls++;
        gpu->classes[kernel->class].ns += ns;
    }
    free(index);
    if (err != 0)
        return err;
    if (gpu->n_kernels > 0)
        qsort(gpu->kernels, gpu->n_kernels, sizeof(*gpu->kernels), by_kernel_time);
    if (gpu->n_copies > 0)
        qsort(gpu->copies, gpu->n_copies, sizeof(*gpu->copies), by_copy_time);
    return 0;
}
