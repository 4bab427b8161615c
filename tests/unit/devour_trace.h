/*
 * Reads and analyses the bytes of a trace in every way that the program can, for tests that feed
 * damaged ones: nothing may crash, hang or disagree.
 */
#ifndef PM_TESTS_DEVOUR_TRACE_H
#define PM_TESTS_DEVOUR_TRACE_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace/findings.h"
#include "trace/scan.h"
#include "trace/stacks.h"
#include "trace/steps.h"

#define DEVOUR_MUST(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static int devour_line(void *arg, const char *line, size_t n)
{
    *(uint64_t *)arg += n;
    DEVOUR_MUST(n >= 4 && line[n - 1] == '\n' && memchr(line, '\n', n) == line + n - 1);
    return 0;
}

static void devour_keys(const struct pm_tree *tree, bool by_shape, unsigned by_stack,
                        struct pm_keys *keys)
{
    int64_t self = 0;
    uint64_t calls = 0;
    DEVOUR_MUST(pm_keys_init(keys, by_shape, by_stack) == 0);
    DEVOUR_MUST(pm_keys_add(keys, tree) == 0);
    for (uint32_t i = 0; i < keys->n; i++) {
        self += keys->rows[i].self_cpu_ns;
        calls += keys->rows[i].calls;
        DEVOUR_MUST(keys->rows[i].calls > 0);
        DEVOUR_MUST(strlen(pm_key_text(keys, keys->rows[i].name)) < 1u << 30);
    }
    DEVOUR_MUST(self == keys->total_self_cpu_ns);
    DEVOUR_MUST(calls >= tree->n_device);
    for (enum pm_key_sort by = PM_SORT_NONE; by <= PM_SORT_NAME; by++)
        pm_keys_sort(keys, by);
}

static void devour_gpu(const struct pm_gpu *gpu)
{
    for (uint32_t d = 0; d < gpu->n_devices; d++) {
        const struct pm_gpu_device *device = &gpu->devices[d];
        int64_t idle = 0, span = pm_gpu_span_ns(device);
        for (enum pm_idle i = 0; i < PM_IDLES; i++) {
            DEVOUR_MUST(device->idle_ns[i] >= 0);
            idle += device->idle_ns[i];
        }
        DEVOUR_MUST(device->busy_ns + idle == span);
        DEVOUR_MUST(device->kernel_ns <= device->busy_ns && device->copy_ns <= device->busy_ns);
        DEVOUR_MUST(device->compute_ns <= device->kernel_ns &&
                    device->collective_ns <= device->kernel_ns);
    }
}

/* Times beyond what a sum of them can hold are for loaders, not for analyses: clamped ones occur
 * only in damaged files. */
static bool devour_sane(const struct pm_trace *trace)
{
    for (uint32_t row = 0; row < trace->events.n; row++)
        if (llabs(trace->events.ts_ns[row]) >= PM_TRACE_MAX_NS ||
            trace->events.dur_ns[row] > INT64_MAX / 4 / (int64_t)trace->events.n)
            return false;
    return true;
}

static void devour_analyses(struct pm_trace *trace, const struct pm_classes *classes)
{
    struct pm_tree tree;
    struct pm_keys keys, grouped;
    struct pm_gpu gpu;
    struct pm_steps steps;
    struct pm_findings findings = {0};
    uint64_t bytes = 0;
    bool nesting;
    DEVOUR_MUST(pm_tree_build(&tree, trace) == 0);
    devour_keys(&tree, false, 0, &keys);
    devour_keys(&tree, true, 3, &grouped);
    if (devour_sane(trace))
        DEVOUR_MUST(keys.total_self_cpu_ns == grouped.total_self_cpu_ns);
    DEVOUR_MUST(pm_gpu_build(&gpu, &tree, classes) == 0);
    if (devour_sane(trace))
        devour_gpu(&gpu);
    DEVOUR_MUST(pm_steps_build(&steps, &tree, classes, NULL) == 0);
    pm_findings_add(&findings, trace, &gpu, classes, &keys);
    pm_findings_sort(&findings);
    for (int device = 0; device < 2; device++) {
        int err = pm_folded(&tree, device == 1, devour_line, &bytes, &nesting);
        DEVOUR_MUST(err == 0 || err == -PM_ELIMIT);
    }
    pm_steps_release(&steps);
    pm_gpu_release(&gpu);
    pm_keys_release(&grouped);
    pm_keys_release(&keys);
    pm_tree_release(&tree);
}

/* Loads with two piece sizes and kinds of scan, which must agree; then analyses. Returns whether
 * there was a trace. */
static bool devour_trace(const uint8_t *bytes, size_t n, size_t chunk,
                         const struct pm_classes *classes)
{
    struct pm_trace *trace = NULL, *other = NULL;
    struct pm_error err = {""};
    struct pm_trace_options options = {.source = {PM_INFLATE_BEST, true}};
    struct pm_trace_options small = {
        .source = {PM_INFLATE_BEST, true}, .scan = PM_SCAN_PLAIN, .chunk_bytes = chunk + 1};
    char text[640];
    int code = pm_trace_load_memory(&trace, bytes, n, "fuzz", &options, &err);
    int other_code = pm_trace_load_memory(&other, bytes, n, "fuzz", &small, &err);
    /* How much a library gives out before it notices damage depends on the room it was given. */
    bool gzip = n >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B;
    DEVOUR_MUST(gzip || code == other_code);
    if (code != 0 || other_code != 0) {
        DEVOUR_MUST(code == 0 || code == -PM_EFORMAT);
        DEVOUR_MUST(other_code == 0 || other_code == -PM_EFORMAT);
        DEVOUR_MUST(err.text[0] != '\0');
        pm_trace_free(code == 0 ? trace : other_code == 0 ? other : NULL);
        return false;
    }
    if (gzip && trace->loss.in_gzip && trace->loss.code == -PM_ECORRUPT) {
        pm_trace_free(other);
        devour_analyses(trace, classes);
        pm_trace_free(trace);
        return true;
    }
    DEVOUR_MUST(trace->events.n == other->events.n && trace->all_events == other->all_events);
    DEVOUR_MUST(trace->loss.code == other->loss.code && trace->loss.at == other->loss.at);
    DEVOUR_MUST(trace->loss.lost_bytes == other->loss.lost_bytes);
    DEVOUR_MUST(trace->odd_numbers == other->odd_numbers);
    for (uint32_t row = 0; row < trace->events.n; row++) {
        DEVOUR_MUST(trace->events.ts_ns[row] == other->events.ts_ns[row]);
        DEVOUR_MUST(trace->events.dur_ns[row] == other->events.dur_ns[row]);
        DEVOUR_MUST(trace->events.name[row] == other->events.name[row]);
        DEVOUR_MUST(trace->events.where[row] == other->events.where[row]);
    }
    DEVOUR_MUST(pm_trace_loss_text(trace, text, sizeof(text)) == (trace->loss.code != 0));
    pm_trace_free(other);
    devour_analyses(trace, classes);
    pm_trace_free(trace);
    return true;
}

#endif
