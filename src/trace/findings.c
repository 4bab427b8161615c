/*
 * Findings (see findings.h). The thresholds stand beside their reasons.
 */
#include "trace/findings.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shares of time from which a finding is worth a reader's while. */
#define ATTENTION_SHARE 0.35 /* of kernel time */
#define TRANSFER_SHARE 0.05  /* of a device's span spent in copies over the bus alone */
#define PAGEABLE_SHARE 0.01  /* the same for copies from pageable memory, which block the CPU */
#define HOST_SHARE 0.20      /* of a device's span idle because nothing was launched */
#define SYNC_SHARE 0.05
#define ALLOC_SHARE 0.02    /* of the trace's span in driver allocations */
#define EXPOSED_SHARE 0.10  /* of busy time in collectives that nothing hides */
#define SHORT_SHARE 0.50    /* of launches whose kernel is shorter than the launch */
#define BLOCKING_SHARE 0.80 /* of launches that returned after their kernel */
#define OPERATOR_SHARE 0.30 /* of CPU time in one operator, in traces without a device */
#define FEW_LAUNCHES 50     /* fewer prove nothing */

static struct pm_finding *add(struct pm_findings *findings, const char *id, const char *title,
                              const char *remedy, double weight)
{
    unsigned i = 0;
    while (i < findings->n && strcmp(findings->list[i].id, id) != 0)
        i++;
    if (i == PM_FINDINGS_MAX || (i < findings->n && findings->list[i].weight >= weight))
        return NULL;
    if (i == findings->n)
        findings->n++;
    findings->list[i] =
        (struct pm_finding){.id = id, .title = title, .remedy = remedy, .weight = weight};
    memcpy(findings->list[i].evidence, findings->where, sizeof(findings->where));
    return &findings->list[i];
}

/* finding may be NULL: it was not worth keeping. */
static void PM_PRINTF(2, 3) evidence(struct pm_finding *finding, const char *format, ...)
{
    va_list args;
    if (finding == NULL)
        return;
    size_t n = strlen(finding->evidence);
    va_start(args, format);
    vsnprintf(finding->evidence + n, sizeof(finding->evidence) - n, format, args);
    va_end(args);
}

static double ms(int64_t ns)
{
    return (double)ns / 1e6;
}

static double share(int64_t part, int64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0;
}

/* A kernel's name, cut where its template arguments begin, and to fit a line. */
static void short_name(const char *name, char out[64])
{
    if (strncmp(name, "void ", 5) == 0)
        name += 5;
    size_t n = strcspn(name, "<(");
    if (n < 8)
        n = strlen(name);
    if (n > 60)
        n = 60;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)name[i] < 0x20 || (unsigned char)name[i] > 0x7E ? '?' : name[i];
    out[n] = '\0';
}

static const struct pm_gpu_kernel *longest_of(const struct pm_gpu *gpu, unsigned class)
{
    for (uint32_t i = 0; i < gpu->n_kernels; i++)
        if (gpu->kernels[i].class == class)
            return &gpu->kernels[i];
    return NULL;
}

/* ---- the four of the guide ------------------------------------------------------------------- */

static void long_attention(struct pm_findings *findings, const struct pm_trace *trace,
                           const struct pm_gpu *gpu)
{
    int64_t all = 0;
    for (unsigned c = 0; c < PM_CLASSES_MAX; c++)
        all += c == PM_CLASS_COPY ? 0 : gpu->classes[c].ns;
    double part = share(gpu->classes[PM_CLASS_ATTENTION].ns, all);
    const struct pm_gpu_kernel *kernel = longest_of(gpu, PM_CLASS_ATTENTION);
    char name[64];
    if (part < ATTENTION_SHARE || kernel == NULL)
        return;
    short_name(pm_trace_text(trace, kernel->name), name);
    struct pm_finding *finding =
        add(findings, "long-attention", "Attention takes much of the GPU time",
            "choose a faster attention backend (FlashAttention or FlashInfer), lower "
            "--max-model-len or the context that requests send, store the KV cache in 8 bits "
            "(--kv-cache-dtype fp8)",
            part);
    evidence(
        finding,
        "attention kernels take %.1f %% of kernel time (%.2f of %.2f ms); the longest, %s, ran "
        "%" PRIu64 " times, %.1f us on average, %.1f us at most",
        part * 100, ms(gpu->classes[PM_CLASS_ATTENTION].ns), ms(all), name, kernel->calls,
        (double)kernel->ns / 1e3 / (double)kernel->calls, (double)kernel->max_ns / 1e3);
}

static void transfers(struct pm_findings *findings, const struct pm_trace *trace,
                      const struct pm_gpu *gpu)
{
    int64_t span = 0, bus = 0, pageable = 0;
    uint64_t calls = 0, bytes = 0, pageable_calls = 0;
    for (uint32_t d = 0; d < gpu->n_devices; d++)
        span += pm_gpu_span_ns(&gpu->devices[d]);
    for (uint32_t i = 0; i < gpu->n_copies; i++) {
        const struct pm_gpu_copy *copy = &gpu->copies[i];
        const char *name = pm_trace_text(trace, copy->name);
        if (strstr(name, "HtoD") == NULL && strstr(name, "DtoH") == NULL)
            continue;
        bus += copy->ns;
        calls += copy->calls;
        bytes += copy->bytes;
        if (strstr(name, "Pageable") != NULL) {
            pageable += copy->ns;
            pageable_calls += copy->calls;
        }
    }
    double part = share(bus, span);
    if (part < TRANSFER_SHARE && share(pageable, span) < PAGEABLE_SHARE)
        return;
    struct pm_finding *finding =
        add(findings, "transfers", "Copies between CPU and GPU take time",
            "batch small copies into one, use pinned memory so that copies run beside kernels, "
            "keep inputs on the GPU between steps; with KV offloading or --cpu-offload-gb less "
            "of it",
            part);
    evidence(finding,
             "%" PRIu64 " copies over the bus took %.2f ms, %.1f %% of the GPU's time span, for "
             "%.1f MB (%.2f GB/s); %" PRIu64 " of them (%.2f ms) from or to pageable memory",
             calls, ms(bus), part * 100, (double)bytes / 1e6,
             bus > 0 ? (double)bytes / (double)bus : 0, pageable_calls, ms(pageable));
}

static void cpu_bound(struct pm_findings *findings, const struct pm_gpu *gpu)
{
    int64_t span = 0, host = 0, sync = 0, launch = 0, longest = 0;
    uint64_t gaps = 0;
    for (uint32_t d = 0; d < gpu->n_devices; d++) {
        const struct pm_gpu_device *device = &gpu->devices[d];
        span += pm_gpu_span_ns(device);
        host += device->idle_ns[PM_IDLE_HOST];
        sync += device->idle_ns[PM_IDLE_SYNC];
        launch += device->idle_ns[PM_IDLE_LAUNCH];
        gaps += device->gaps[PM_IDLE_HOST] + device->gaps[PM_IDLE_LAUNCH];
        if (device->longest_gap_ns > longest)
            longest = device->longest_gap_ns;
    }
    double part = share(host + launch, span), part_sync = share(sync, span);
    if (part >= HOST_SHARE) {
        struct pm_finding *finding =
            add(findings, "cpu-bound", "The GPU waits for the CPU",
                "raise the batch (--max-num-seqs, --max-num-batched-tokens), let CUDA graphs work "
                "(no --enforce-eager), keep asynchronous scheduling on, move tokenization and "
                "other preprocessing to other cores",
                part);
        evidence(finding,
                 "the GPU was idle for %.1f %% of its time span because the next kernel was not "
                 "launched yet (%.2f ms) or had just been (%.2f ms), in %" PRIu64
                 " gaps; the longest gap of all lasted %.2f ms",
                 part * 100, ms(host), ms(launch), gaps, ms(longest));
    }
    if (part_sync >= SYNC_SHARE) {
        struct pm_finding *finding =
            add(findings, "synchronisation", "The CPU waits for the GPU, then the GPU for the CPU",
                "look for .item(), .cpu(), print of tensors and explicit synchronize() between "
                "launches (the operators above cudaStreamSynchronize in the table)",
                part_sync);
        evidence(finding,
                 "for %.1f %% of its time span (%.2f ms) the GPU was idle while the launching "
                 "thread still sat in a synchronising call; %" PRIu64
                 " such calls took %.2f ms of CPU time",
                 part_sync * 100, ms(sync), gpu->sync_calls, ms(gpu->sync_ns));
    }
}

static void memory_bound(struct pm_findings *findings, const struct pm_gpu *gpu, int64_t span)
{
    double part = share(gpu->alloc_ns, span);
    if (part < ALLOC_SHARE)
        return;
    struct pm_finding *finding =
        add(findings, "memory-bound", "Allocating and freeing GPU memory takes time",
            "leave the caching allocator room: a smaller KV cache (--gpu-memory-utilization), "
            "quantized weights, PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; profile after "
            "the warm-up",
            part);
    evidence(finding,
             "%" PRIu64 " calls that allocate or free memory took %.2f ms, %.1f %% of the trace",
             gpu->alloc_calls, ms(gpu->alloc_ns), part * 100);
}

/* ---- further ones ---------------------------------------------------------------------------- */

static void launches(struct pm_findings *findings, const struct pm_gpu *gpu)
{
    const struct pm_gpu_launches *l = &gpu->launches;
    if (l->calls < FEW_LAUNCHES)
        return;
    double blocking = (double)l->synchronous / (double)l->calls;
    if (blocking >= BLOCKING_SHARE) {
        struct pm_finding *finding =
            add(findings, "launch-blocking", "Kernel launches are synchronous",
                "unset CUDA_LAUNCH_BLOCKING (AMD_SERIALIZE_KERNEL on ROCm) and profile again: "
                "with it, times of a trace say little about normal running",
                1);
        evidence(finding,
                 "%" PRIu64 " of %" PRIu64
                 " launch calls returned only after their kernel had ended",
                 l->synchronous, l->calls);
    }
    double shorter = (double)l->short_works / (double)l->works;
    if (shorter >= SHORT_SHARE && gpu->n_graphs == 0) {
        struct pm_finding *finding =
            add(findings, "short-kernels", "Kernels are shorter than their launches",
                "let CUDA graphs and compilation work (no --enforce-eager, a larger "
                "cudagraph_capture_sizes), or raise the batch",
                shorter * 0.5);
        evidence(finding,
                 "%" PRIu64 " of %" PRIu64
                 " kernels and copies ran shorter than the call that launched them (%.1f us on "
                 "average); no CUDA graph was replayed",
                 l->short_works, l->works, (double)l->call_ns / 1e3 / (double)l->calls);
    }
}

static void communication(struct pm_findings *findings, const struct pm_gpu *gpu)
{
    int64_t busy = 0, exposed = 0, collective = 0;
    for (uint32_t d = 0; d < gpu->n_devices; d++) {
        busy += gpu->devices[d].busy_ns;
        exposed += pm_gpu_exposed_ns(&gpu->devices[d]);
        collective += gpu->devices[d].collective_ns;
    }
    double part = share(exposed, busy);
    if (part < EXPOSED_SHARE)
        return;
    struct pm_finding *finding =
        add(findings, "communication", "Collectives are not hidden behind computation",
            "compare the ranks (give all their files): one that is late makes the others wait; "
            "else fewer tensor-parallel ranks, a faster link, or quantized all-reduce",
            part);
    evidence(finding,
             "collectives ran for %.2f ms, of which %.2f ms (%.1f %% of busy time) with no other "
             "kernel at the same time",
             ms(collective), ms(exposed), part * 100);
}

/* Traces of a CPU: one operator that dominates. */
static void one_operator(struct pm_findings *findings, const struct pm_keys *keys)
{
    const struct pm_key *most = NULL;
    if (keys->has_device)
        return;
    for (uint32_t i = 0; i < keys->n; i++)
        if (keys->rows[i].kind == PM_KIND_CPU_OP &&
            (most == NULL || keys->rows[i].self_cpu_ns > most->self_cpu_ns))
            most = &keys->rows[i];
    if (most == NULL)
        return;
    double part = share(most->self_cpu_ns, keys->total_self_cpu_ns);
    char name[64];
    if (part < OPERATOR_SHARE)
        return;
    short_name(pm_key_text(keys, most->name), name);
    struct pm_finding *finding =
        add(findings, "one-operator", "One operator takes much of the CPU time",
            "see its shapes (--group-by-shape) and callers (--group-by-stack 5); for matrix "
            "products check the number of threads and the data type",
            part);
    evidence(finding, "%s takes %.1f %% of the CPU time (%.2f ms in %" PRIu64 " calls)", name,
             part * 100, ms(most->self_cpu_ns), most->calls);
}

static int64_t span_of(const struct pm_trace *trace)
{
    int64_t first = INT64_MAX, last = INT64_MIN;
    for (uint32_t row = 0; row < trace->events.n; row++) {
        if (pm_trace_kind_of(trace, row) == PM_KIND_SPAN)
            continue;
        if (trace->events.ts_ns[row] < first)
            first = trace->events.ts_ns[row];
        if (pm_trace_end_ns(trace, row) > last)
            last = pm_trace_end_ns(trace, row);
    }
    return last > first ? last - first : 0;
}

void pm_findings_add(struct pm_findings *findings, const struct pm_trace *trace,
                     const struct pm_gpu *gpu, const struct pm_classes *classes,
                     const struct pm_keys *keys)
{
    (void)classes;
    long_attention(findings, trace, gpu);
    transfers(findings, trace, gpu);
    cpu_bound(findings, gpu);
    memory_bound(findings, gpu, span_of(trace));
    launches(findings, gpu);
    communication(findings, gpu);
    one_operator(findings, keys);
}

void pm_findings_add_ranks(struct pm_findings *findings, const struct pm_rank_times *ranks,
                           size_t n)
{
    size_t slow = 0, fast = 0;
    if (n < 2)
        return;
    for (size_t i = 1; i < n; i++) {
        if (ranks[i].compute_ns > ranks[slow].compute_ns)
            slow = i;
        if (ranks[i].compute_ns < ranks[fast].compute_ns)
            fast = i;
    }
    double part = share(ranks[slow].compute_ns - ranks[fast].compute_ns, ranks[slow].compute_ns);
    if (part < 0.1)
        return;
    struct pm_finding *finding =
        add(findings, "straggler", "Ranks do not have the same work",
            "look at the slow rank's device (clocks, other tenants), at expert balance and at "
            "how layers are split",
            part * share(ranks[slow].compute_ns, ranks[slow].span_ns));
    evidence(finding,
             "rank %d computed for %.2f ms, rank %d for %.2f ms (%.1f %% less) and sat in "
             "collectives for %.2f ms against %.2f ms",
             ranks[slow].rank, ms(ranks[slow].compute_ns), ranks[fast].rank,
             ms(ranks[fast].compute_ns), part * 100, ms(ranks[fast].collective_ns),
             ms(ranks[slow].collective_ns));
}

static int by_weight(const void *a, const void *b)
{
    const struct pm_finding *x = a, *y = b;
    return x->weight < y->weight ? 1 : x->weight > y->weight ? -1 : strcmp(x->id, y->id);
}

void pm_findings_sort(struct pm_findings *findings)
{
    if (findings->n > 1)
        qsort(findings->list, findings->n, sizeof(findings->list[0]), by_weight);
}
