/*
 * key_averages: calls and times by name, as torch.profiler's table has them
 * (torch/autograd/profiler_util.py EventList.key_averages), over one trace or several. Used by the
 * commands; one thread. Owns its strings, so traces may be freed once added.
 */
#ifndef PM_TRACE_KEYS_H
#define PM_TRACE_KEYS_H

#include "trace/tree.h"

struct pm_key {
    uint32_t name;           /* strings of struct pm_keys */
    uint32_t shapes;         /* as torch prints them, 0 unless grouped by shape */
    uint32_t stack;          /* frames, innermost first, '\n' between; 0 unless grouped by stack */
    bool on_device;          /* a kernel, a copy, …; else something on a CPU thread */
    bool annotation;         /* record_function and the like */
    enum pm_trace_kind kind; /* of the first event */
    uint64_t calls;
    int64_t self_cpu_ns, cpu_ns, self_device_ns, device_ns;
    int64_t cpu_bytes, self_cpu_bytes, device_bytes, self_device_bytes;
    uint64_t flops;
    int64_t first_ns; /* start of the first event */
    uint32_t order;   /* breaks ties of first_ns */
};

struct pm_keys {
    struct pm_intern strings;
    struct pm_key *rows;
    uint32_t n, room;
    uint32_t *table, mask; /* finds rows by what they are grouped by */
    bool by_shape;
    unsigned by_stack; /* frames to tell apart; 0: none */
    bool has_device, has_memory, has_device_memory, has_flops;
    int64_t total_self_cpu_ns;    /* what shares are of */
    int64_t total_self_device_ns; /* without annotations */
};

PM_MUST_USE int pm_keys_init(struct pm_keys *keys, bool by_shape, unsigned by_stack);
void pm_keys_release(struct pm_keys *keys);

/* Adds the events of a trace. */
PM_MUST_USE int pm_keys_add(struct pm_keys *keys, const struct pm_tree *tree);

enum pm_key_sort {
    PM_SORT_NONE, /* by first appearance */
    PM_SORT_SELF_CPU,
    PM_SORT_CPU,
    PM_SORT_CPU_MEAN,
    PM_SORT_SELF_DEVICE,
    PM_SORT_DEVICE,
    PM_SORT_DEVICE_MEAN,
    PM_SORT_CALLS,
    PM_SORT_SELF_CPU_BYTES,
    PM_SORT_CPU_BYTES,
    PM_SORT_SELF_DEVICE_BYTES,
    PM_SORT_DEVICE_BYTES,
    PM_SORT_FLOPS,
    PM_SORT_NAME,
};

/* "self_cpu", torch's "self_cpu_time_total", "cuda_time_total", "count" and the like; false when
 * there is no such key. */
bool pm_key_sort_find(const char *text, enum pm_key_sort *ret);
/* The i-th accepted word, NULL at the end. */
const char *pm_key_sort_word(size_t i);

/* Sorts the rows, largest first (names: ascending); equal ones stay in order of appearance. Nothing
 * may be added afterwards. */
void pm_keys_sort(struct pm_keys *keys, enum pm_key_sort by);

static inline const char *pm_key_text(const struct pm_keys *keys, uint32_t string)
{
    return pm_intern_text(&keys->strings, string);
}

/* flops.c: floating-point operations of an operator, by torch's own formulas
 * (torch/csrc/profiler/util.cpp computeFlops); 0 where it has none. dims and concrete are the JSON
 * of "Input Dims" and "Concrete Inputs", concrete may be "". */
uint64_t pm_flops(const char *name, const char *dims, const char *concrete);

/* flops.c: "Input Dims" as torch groups by it: "[[32, 64], []]", lists of tensors as []. Returns
 * the length, cut to size - 1. */
size_t pm_shapes_text(const char *dims, char *out, size_t size);

#endif
