/*
 * Devices: busy time, idle time and its reasons (see gpu.h). One thread.
 */
#include "trace/gpu_parts.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DEVICES 256

const char *pm_idle_name(enum pm_idle idle)
{
    static const char *const names[PM_IDLES] = {
        [PM_IDLE_HOST] = "host",     [PM_IDLE_SYNC] = "sync", [PM_IDLE_LAUNCH] = "launch",
        [PM_IDLE_KERNEL] = "kernel", [PM_IDLE_WAIT] = "wait", [PM_IDLE_UNKNOWN] = "unknown",
    };
    return names[idle];
}

bool pm_call_synchronises(const char *name)
{
    return strstr(name, "Synchronize") != NULL ||
           (strstr(name, "Memcpy") != NULL && strstr(name, "Async") == NULL);
}

bool pm_call_allocates(const char *name)
{
    return strstr(name, "Malloc") != NULL || strstr(name, "Free") != NULL ||
           strstr(name, "HostAlloc") != NULL || strstr(name, "MemCreate") != NULL ||
           strstr(name, "MemUnmap") != NULL || strstr(name, "MemMap") != NULL;
}

bool pm_call_replays(const char *name)
{
    return strstr(name, "GraphLaunch") != NULL;
}

int32_t pm_gpu_device_of(const struct pm_trace *trace, uint32_t event)
{
    const struct pm_trace_work *work = &trace->work[trace->events.extra[event]];
    if (work->device >= 0)
        return work->device;
    const char *pid = pm_trace_text(trace, trace->tracks[pm_trace_track_of(trace, event)].pid);
    long id = strtol(pid, NULL, 10);
    return id < 0 || id > INT32_MAX ? 0 : (int32_t)id;
}

/* ---- calls that wait, by thread and time ----------------------------------------------------- */

struct waiting {
    uint32_t track;
    int64_t begin, end;
};

static int by_track(const void *a, const void *b)
{
    const struct waiting *x = a, *y = b;
    if (x->track != y->track)
        return x->track < y->track ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int collect_waiting(const struct pm_gpu_parts *parts, struct waiting **ret, uint32_t *ret_n)
{
    const struct pm_trace *trace = parts->trace;
    uint32_t n = 0, room = 0;
    struct waiting *list = NULL;
    for (uint32_t row = 0; row < trace->events.n; row++) {
        if (pm_trace_kind_of(trace, row) != PM_KIND_RUNTIME ||
            (parts->flags[trace->events.name[row]] & PM_CALL_SYNC) == 0)
            continue;
        if (n == room) {
            room = room == 0 ? 256 : room * 2;
            struct waiting *more = realloc(list, room * sizeof(*more));
            if (more == NULL) {
                free(list);
                return -PM_ENOMEM;
            }
            list = more;
        }
        list[n++] = (struct waiting){pm_trace_track_of(trace, row), trace->events.ts_ns[row],
                                     pm_trace_end_ns(trace, row)};
    }
    if (n > 0)
        qsort(list, n, sizeof(*list), by_track);
    *ret = list;
    *ret_n = n;
    return 0;
}

/* How much of [begin, end) the thread spent waiting. */
static int64_t waited(const struct waiting *list, uint32_t n, uint32_t track, int64_t begin,
                      int64_t end)
{
    uint32_t low = 0, high = n;
    int64_t sum = 0, covered = begin;
    while (low < high) { /* the first call of the track that begins at `begin` or later */
        uint32_t middle = low + (high - low) / 2;
        if (list[middle].track < track ||
            (list[middle].track == track && list[middle].begin < begin))
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0 && list[low - 1].track == track)
        low--; /* it may reach in */
    for (; low < n && list[low].track == track && list[low].begin < end; low++) {
        int64_t from = list[low].begin > covered ? list[low].begin : covered;
        int64_t to = list[low].end < end ? list[low].end : end;
        if (to > from) {
            sum += to - from;
            covered = to;
        }
    }
    return sum;
}

/* ---- the sweep ------------------------------------------------------------------------------- */

/* Ends of the unions so far, per device. */
struct ends {
    int64_t busy, kernel, compute, collective, copy;
};

static void extend(int64_t *sum, int64_t *end, int64_t begin, int64_t stop)
{
    if (begin >= *end)
        *sum += stop - begin;
    else if (stop > *end)
        *sum += stop - *end;
    if (stop > *end)
        *end = stop;
}

static int find_device(struct pm_gpu *gpu, int32_t id, uint32_t *ret)
{
    for (uint32_t d = 0; d < gpu->n_devices; d++)
        if (gpu->devices[d].id == id) {
            *ret = d;
            return 0;
        }
    if (gpu->n_devices == MAX_DEVICES)
        return -PM_ELIMIT;
    struct pm_gpu_device *devices = realloc(gpu->devices, (gpu->n_devices + 1) * sizeof(*devices));
    if (devices == NULL)
        return -PM_ENOMEM;
    gpu->devices = devices;
    *ret = gpu->n_devices++;
    devices[*ret] = (struct pm_gpu_device){.id = id};
    return 0;
}

/* A gap on a device before the work at entry k of the tree. */
static void explain_gap(const struct pm_gpu_parts *parts, struct pm_gpu_device *device, uint32_t k,
                        int64_t begin, int64_t end, const struct waiting *list, uint32_t n_list)
{
    const struct pm_trace *trace = parts->trace;
    int64_t part[PM_IDLES] = {0}, gap = end - begin;
    uint32_t launch = parts->tree->launch[k];
    if (launch == PM_NONE) {
        part[PM_IDLE_UNKNOWN] = gap;
    } else {
        int64_t launched = trace->events.ts_ns[launch];
        if (launched <= begin) {
            part[gap <= PM_IDLE_KERNEL_NS ? PM_IDLE_KERNEL : PM_IDLE_WAIT] = gap;
        } else {
            if (launched > end)
                launched = end;
            part[PM_IDLE_LAUNCH] = end - launched;
            part[PM_IDLE_SYNC] =
                waited(list, n_list, pm_trace_track_of(trace, launch), begin, launched);
            part[PM_IDLE_HOST] = launched - begin - part[PM_IDLE_SYNC];
        }
    }
    enum pm_idle largest = PM_IDLE_HOST;
    for (enum pm_idle i = 0; i < PM_IDLES; i++) {
        device->idle_ns[i] += part[i];
        if (part[i] > part[largest])
            largest = i;
    }
    device->gaps[largest]++;
    if (gap > device->longest_gap_ns) {
        device->longest_gap_ns = gap;
        device->longest_gap_at_ns = begin;
    }
}

static int sweep(struct pm_gpu_parts *parts, const struct waiting *list, uint32_t n_list)
{
    const struct pm_trace *trace = parts->trace;
    const struct pm_tree *tree = parts->tree;
    struct pm_gpu *gpu = parts->gpu;
    struct ends *ends = calloc(MAX_DEVICES, sizeof(*ends));
    int err = ends == NULL ? -PM_ENOMEM : 0;
    for (uint32_t k = 0; k < tree->n_device && err == 0; k++) {
        uint32_t row = tree->device[k], d;
        enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
        if (!pm_kind_is_work(kind))
            continue;
        err = find_device(gpu, pm_gpu_device_of(trace, row), &d);
        if (err != 0)
            break;
        struct pm_gpu_device *device = &gpu->devices[d];
        int64_t begin = trace->events.ts_ns[row], end = pm_trace_end_ns(trace, row);
        if (device->events++ == 0) {
            device->first_ns = begin;
            ends[d] = (struct ends){begin, begin, begin, begin, begin};
        } else if (begin > ends[d].busy) {
            explain_gap(parts, device, k, ends[d].busy, begin, list, n_list);
        }
        extend(&device->busy_ns, &ends[d].busy, begin, end);
        device->last_ns = ends[d].busy;
        if (kind != PM_KIND_KERNEL) {
            extend(&device->copy_ns, &ends[d].copy, begin, end);
            continue;
        }
        extend(&device->kernel_ns, &ends[d].kernel, begin, end);
        if (pm_gpu_class_of(parts, row) == PM_CLASS_COLLECTIVE)
            extend(&device->collective_ns, &ends[d].collective, begin, end);
        else
            extend(&device->compute_ns, &ends[d].compute, begin, end);
    }
    free(ends);
    return err;
}

/* ---- all of it ------------------------------------------------------------------------------- */

unsigned pm_gpu_class_of(struct pm_gpu_parts *parts, uint32_t row)
{
    uint32_t name = parts->trace->events.name[row];
    if (pm_trace_kind_of(parts->trace, row) != PM_KIND_KERNEL)
        return PM_CLASS_COPY;
    if (parts->class_of[name] == 0)
        parts->class_of[name] =
            (uint8_t)(pm_classes_find(parts->classes, pm_trace_text(parts->trace, name)) + 1);
    return parts->class_of[name] - 1u;
}

/* What the runtime calls do, once per name. */
static void flag_names(struct pm_gpu_parts *parts)
{
    const struct pm_trace *trace = parts->trace;
    for (uint32_t row = 0; row < trace->events.n; row++) {
        uint32_t name = trace->events.name[row];
        if (pm_trace_kind_of(trace, row) != PM_KIND_RUNTIME || parts->flags[name] != 0)
            continue;
        const char *text = pm_trace_text(trace, name);
        parts->flags[name] =
            (uint8_t)(PM_CALL_SEEN | (pm_call_synchronises(text) ? PM_CALL_SYNC : 0) |
                      (pm_call_allocates(text) ? PM_CALL_ALLOC : 0) |
                      (pm_call_replays(text) ? PM_CALL_REPLAY : 0));
    }
}

int pm_gpu_build(struct pm_gpu *gpu, const struct pm_tree *tree, const struct pm_classes *classes)
{
    struct pm_gpu_parts parts = {
        .gpu = gpu, .tree = tree, .trace = tree->trace, .classes = classes};
    struct waiting *list = NULL;
    uint32_t n_list = 0;
    *gpu = (struct pm_gpu){0};
    parts.flags = calloc(tree->trace->strings.n, 1);
    parts.class_of = calloc(tree->trace->strings.n, 1);
    int err = parts.flags == NULL || parts.class_of == NULL ? -PM_ENOMEM : 0;
    if (err == 0) {
        flag_names(&parts);
        err = collect_waiting(&parts, &list, &n_list);
    }
    if (err == 0)
        err = sweep(&parts, list, n_list);
    if (err == 0)
        err = pm_gpu_add_kernels(&parts);
    if (err == 0)
        err = pm_gpu_add_calls(&parts);
    free(list);
    free(parts.flags);
    free(parts.class_of);
    if (err != 0)
        pm_gpu_release(gpu);
    return err;
}

void pm_gpu_release(struct pm_gpu *gpu)
{
    free(gpu->devices);
    free(gpu->kernels);
    free(gpu->copies);
    free(gpu->graphs);
    *gpu = (struct pm_gpu){0};
}
