/*
 * Launches, graph replays, calls that wait or allocate (see gpu.h). One thread.
 */
#include "trace/gpu_parts.h"

#include <stdlib.h>
#include <string.h>

/* ---- graph replays --------------------------------------------------------------------------- */

struct replay {
    uint32_t launch; /* row of the runtime call */
    uint32_t kernels;
    int64_t work_ns, first_ns, last_ns;
};

static int by_launch(const void *a, const void *b)
{
    uint32_t x = ((const struct replay *)a)->launch, y = ((const struct replay *)b)->launch;
    return (x > y) - (x < y);
}

static int by_kernels(const void *a, const void *b)
{
    uint32_t x = ((const struct replay *)a)->kernels, y = ((const struct replay *)b)->kernels;
    return x < y ? 1 : x > y ? -1 : by_launch(a, b);
}

static int by_replays(const void *a, const void *b)
{
    const struct pm_gpu_graph *x = a, *y = b;
    if (x->replays != y->replays)
        return x->replays < y->replays ? 1 : -1;
    return x->kernels < y->kernels ? 1 : x->kernels > y->kernels ? -1 : 0;
}

/* Replays that ran anything, in the order of the file. */
static int collect_replays(struct pm_gpu_parts *parts, struct replay **ret, uint32_t *ret_n)
{
    const struct pm_trace *trace = parts->trace;
    uint32_t n = 0;
    for (uint32_t row = 0; row < trace->events.n; row++)
        n += pm_trace_kind_of(trace, row) == PM_KIND_RUNTIME &&
             (parts->flags[trace->events.name[row]] & PM_CALL_REPLAY) != 0;
    *ret = NULL;
    *ret_n = 0;
    if (n == 0)
        return 0;
    struct replay *replays = calloc(n, sizeof(*replays));
    if (replays == NULL)
        return -PM_ENOMEM;
    n = 0;
    for (uint32_t row = 0; row < trace->events.n; row++)
        if (pm_trace_kind_of(trace, row) == PM_KIND_RUNTIME &&
            (parts->flags[trace->events.name[row]] & PM_CALL_REPLAY) != 0)
            replays[n++].launch = row;
    for (uint32_t k = 0; k < parts->tree->n_device; k++) {
        uint32_t row = parts->tree->device[k];
        struct replay key = {.launch = parts->tree->launch[k]};
        if (!pm_kind_is_work(pm_trace_kind_of(trace, row)) || key.launch == PM_NONE)
            continue;
        struct replay *replay = bsearch(&key, replays, n, sizeof(key), by_launch);
        if (replay == NULL)
            continue;
        if (replay->kernels++ == 0)
            replay->first_ns = replay->last_ns = trace->events.ts_ns[row];
        if (pm_trace_end_ns(trace, row) > replay->last_ns)
            replay->last_ns = pm_trace_end_ns(trace, row);
        replay->work_ns += trace->events.dur_ns[row];
    }
    *ret = replays;
    *ret_n = n;
    return 0;
}

static int add_graphs(struct pm_gpu_parts *parts)
{
    struct pm_gpu *gpu = parts->gpu;
    struct replay *replays;
    uint32_t n;
    int err = collect_replays(parts, &replays, &n);
    if (err != 0 || n == 0)
        return err;
    qsort(replays, n, sizeof(*replays), by_kernels);
    gpu->graphs = calloc(n, sizeof(*gpu->graphs));
    if (gpu->graphs == NULL) {
        free(replays);
        return -PM_ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || replays[i].kernels != replays[i - 1].kernels)
            gpu->graphs[gpu->n_graphs++].kernels = replays[i].kernels;
        struct pm_gpu_graph *graph = &gpu->graphs[gpu->n_graphs - 1];
        graph->replays++;
        graph->call_ns += parts->trace->events.dur_ns[replays[i].launch];
        graph->work_ns += replays[i].work_ns;
        graph->span_ns += replays[i].last_ns - replays[i].first_ns;
    }
    free(replays);
    qsort(gpu->graphs, gpu->n_graphs, sizeof(*gpu->graphs), by_replays);
    return 0;
}

/* ---- launches -------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int add_launches(struct pm_gpu_parts *parts)
{
    const struct pm_trace *trace = parts->trace;
    const struct pm_tree *tree = parts->tree;
    struct pm_gpu_launches *launches = &parts->gpu->launches;
    uint32_t *seen = calloc(trace->events.n / 32 + 1, sizeof(*seen)); /* bit per row */
    int64_t *delays = malloc(((size_t)tree->n_device + 1) * sizeof(*delays));
    uint32_t n = 0;
    double sum = 0;
    if (seen == NULL || delays == NULL) {
        free(seen);
        free(delays);
        return -PM_ENOMEM;
    }
    for (uint32_t k = 0; k < tree->n_device; k++) {
        uint32_t row = tree->device[k], call = tree->launch[k];
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        if (!pm_kind_is_work(kind) || call == PM_NONE)
            continue;
        int64_t call_end = pm_trace_end_ns(trace, call);
        launches->works++;
        launches->short_works += trace->events.dur_ns[row] < trace->events.dur_ns[call];
        if ((seen[call / 32] >> call % 32 & 1) != 0)
            continue; /* a later kernel of a graph */
        seen[call / 32] |= 1u << call % 32;
        int64_t delay = trace->events.ts_ns[row] - call_end;
        delays[n++] = delay > 0 ? delay : 0;
        sum += (double)delays[n - 1];
        launches->call_ns += trace->events.dur_ns[call];
        launches->synchronous += kind == PM_KIND_KERNEL && call_end >= pm_trace_end_ns(trace, row);
    }
    launches->calls = n;
    if (n > 0) {
        qsort(delays, n, sizeof(*delays), ascending);
        launches->delay_mean_ns = sum / n;
        launches->delay_p50_ns = delays[(n - 1) / 2];
        launches->delay_p95_ns = delays[(uint64_t)(n - 1) * 95 / 100];
        launches->delay_max_ns = delays[n - 1];
    }
    free(seen);
    free(delays);
    return 0;
}

static void add_other_calls(struct pm_gpu_parts *parts)
{
    const struct pm_trace *trace = parts->trace;
    for (uint32_t row = 0; row < trace->events.n; row++) {
        if (pm_trace_kind_of(trace, row) != PM_KIND_RUNTIME)
            continue;
        uint8_t flags = parts->flags[trace->events.name[row]];
        if ((flags & PM_CALL_SYNC) != 0) {
            parts->gpu->sync_calls++;
            parts->gpu->sync_ns += trace->events.dur_ns[row];
        }
        if ((flags & PM_CALL_ALLOC) != 0) {
            parts->gpu->alloc_calls++;
            parts->gpu->alloc_ns += trace->events.dur_ns[row];
        }
    }
}

int pm_gpu_add_calls(struct pm_gpu_parts *parts)
{
    add_other_calls(parts);
    int err = add_launches(parts);
    return err != 0 ? err : add_graphs(parts);
}
