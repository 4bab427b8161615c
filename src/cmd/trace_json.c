/*
 * `profilemate trace --format json`: one document with everything.
 */
#include "cmd/trace.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define DOCUMENT_MAX (2048ull * 1024 * 1024)

static void us(struct pm_json *json, const char *key, int64_t ns)
{
    pm_json_key(json, key);
    pm_json_fixed_signed(json, ns, 3, 3);
}
static void number(struct pm_json *json, const char *key, uint64_t value)
{
    pm_json_key(json, key);
    pm_json_u64(json, value);
}
static void text(struct pm_json *json, const char *key, const char *value)
{
    pm_json_key(json, key);
    pm_json_text(json, value);
}
static void begin(struct pm_json *json, const char *key, void (*open)(struct pm_json *json))
{
    pm_json_key(json, key);
    open(json);
}

static void write_devices(struct pm_json *json, const struct pm_gpu *gpu)
{
    begin(json, "devices", pm_json_array);
    for (uint32_t d = 0; d < gpu->n_devices; d++) {
        const struct pm_gpu_device *device = &gpu->devices[d];
        pm_json_object(json);
        pm_json_key(json, "id");
        pm_json_i64(json, device->id);
        number(json, "events", device->events);
        us(json, "span_us", pm_gpu_span_ns(device));
        us(json, "busy_us", device->busy_ns);
        us(json, "idle_us", pm_gpu_span_ns(device) - device->busy_ns);
        us(json, "kernel_us", device->kernel_ns);
        us(json, "compute_us", device->compute_ns);
        us(json, "collective_us", device->collective_ns);
        us(json, "exposed_collective_us", pm_gpu_exposed_ns(device));
        us(json, "copy_us", device->copy_ns);
        us(json, "longest_gap_us", device->longest_gap_ns);
        begin(json, "idle", pm_json_object);
        for (enum pm_idle i = 0; i < PM_IDLES; i++) {
            begin(json, pm_idle_name(i), pm_json_object);
            us(json, "us", device->idle_ns[i]);
            number(json, "gaps", device->gaps[i]);
            pm_json_end(json);
        }
        pm_json_end(json);
        pm_json_end(json);
    }
    pm_json_end(json);
}

/* How many of n entries are written. */
static uint32_t capped(uint32_t n, const struct pm_trace_how *how)
{
    return how->cap > 0 && n > how->cap ? (uint32_t)how->cap : n;
}

static void write_kernels(struct pm_json *json, const struct pm_trace_set *set,
                          const struct pm_trace_file *file, const struct pm_trace_how *how)
{
    begin(json, "classes", pm_json_object);
    for (unsigned i = 0; i < set->classes.n; i++) {
        if (file->gpu.classes[i].calls == 0)
            continue;
        begin(json, set->classes.names[i], pm_json_object);
        number(json, "calls", file->gpu.classes[i].calls);
        us(json, "us", file->gpu.classes[i].ns);
        pm_json_end(json);
    }
    pm_json_end(json);
    begin(json, "kernels", pm_json_array);
    for (uint32_t i = 0; i < capped(file->gpu.n_kernels, how); i++) {
        const struct pm_gpu_kernel *kernel = &file->gpu.kernels[i];
        pm_json_object(json);
        text(json, "name", pm_trace_text(file->trace, kernel->name));
        text(json, "class", set->classes.names[kernel->class]);
        text(json, "kind", pm_kind_name(kernel->kind));
        number(json, "calls", kernel->calls);
        us(json, "us", kernel->ns);
        us(json, "min_us", kernel->min_ns);
        us(json, "max_us", kernel->max_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
    begin(json, "copies", pm_json_array);
    for (uint32_t i = 0; i < capped(file->gpu.n_copies, how); i++) {
        const struct pm_gpu_copy *copy = &file->gpu.copies[i];
        pm_json_object(json);
        text(json, "name", pm_trace_text(file->trace, copy->name));
        number(json, "calls", copy->calls);
        us(json, "us", copy->ns);
        number(json, "bytes", copy->bytes);
        pm_json_key(json, "gb_per_s");
        if (copy->bytes > 0 && copy->ns_with_bytes > 0)
            pm_json_double(json, (double)copy->bytes / (double)copy->ns_with_bytes, 3);
        else
            pm_json_null(json);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void write_calls(struct pm_json *json, const struct pm_trace_file *file,
                        const struct pm_trace_how *how)
{
    const struct pm_gpu_launches *launches = &file->gpu.launches;
    begin(json, "launches", pm_json_object);
    number(json, "calls", launches->calls);
    us(json, "call_us", launches->call_ns);
    number(json, "works", launches->works);
    number(json, "shorter_than_call", launches->short_works);
    number(json, "synchronous", launches->synchronous);
    pm_json_key(json, "delay_mean_us");
    pm_json_double(json, launches->delay_mean_ns / 1e3, 3);
    us(json, "delay_p50_us", launches->delay_p50_ns);
    us(json, "delay_p95_us", launches->delay_p95_ns);
    us(json, "delay_max_us", launches->delay_max_ns);
    number(json, "without_operator", file->n_unlaunched);
    pm_json_end(json);
    begin(json, "synchronising_calls", pm_json_object);
    number(json, "calls", file->gpu.sync_calls);
    us(json, "us", file->gpu.sync_ns);
    pm_json_end(json);
    begin(json, "allocating_calls", pm_json_object);
    number(json, "calls", file->gpu.alloc_calls);
    us(json, "us", file->gpu.alloc_ns);
    pm_json_end(json);
    begin(json, "graph_replays", pm_json_array);
    for (uint32_t i = 0; i < capped(file->gpu.n_graphs, how); i++) {
        const struct pm_gpu_graph *graph = &file->gpu.graphs[i];
        pm_json_object(json);
        number(json, "kernels", graph->kernels);
        number(json, "replays", graph->replays);
        us(json, "call_us", graph->call_ns);
        us(json, "kernel_us", graph->work_ns);
        us(json, "span_us", graph->span_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void write_steps(struct pm_json *json, const struct pm_trace_file *file,
                        const struct pm_trace_how *how)
{
    begin(json, "steps", pm_json_array);
    for (uint32_t i = 0; i < capped(file->steps.n, how); i++) {
        const struct pm_step *step = &file->steps.steps[i];
        pm_json_object(json);
        text(json, "name", pm_trace_text(file->trace, step->name));
        us(json, "start_us", step->ts_ns - file->first_ns);
        us(json, "cpu_us", step->cpu_ns);
        us(json, "period_us", step->period_ns);
        number(json, "works", step->works);
        us(json, "device_us", step->device_ns);
        us(json, "launched_busy_us", step->busy_ns);
        us(json, "device_busy_us", step->window_ns);
        us(json, "collective_us", step->collective_ns);
        us(json, "copy_us", step->copy_ns);
        pm_json_end(json);
    }
    pm_json_end(json);
}

static void write_file(struct pm_json *json, const struct pm_trace_set *set,
                       const struct pm_trace_file *file, const struct pm_trace_how *how)
{
    const struct pm_trace *trace = file->trace;
    pm_json_object(json);
    text(json, "path", trace->path);
    pm_json_key(json, "rank");
    if (file->rank >= 0)
        pm_json_i64(json, file->rank);
    else
        pm_json_null(json);
    number(json, "json_bytes", trace->json_bytes);
    number(json, "events", trace->all_events);
    number(json, "flow_events", trace->flow_events);
    number(json, "incomplete_events", trace->incomplete);
    number(json, "odd_numbers", trace->odd_numbers);
    us(json, "span_us", file->last_ns - file->first_ns);
    pm_json_key(json, "start_ns");
    pm_json_i64(json, trace->base_ns + file->first_ns);
    begin(json, "counts", pm_json_object);
    for (enum pm_trace_kind kind = 0; kind < PM_KINDS; kind++)
        if (trace->counted[kind] > 0)
            number(json, pm_kind_name(kind), trace->counted[kind]);
    pm_json_end(json);
    pm_json_key(json, "loss");
    if (trace->loss.code == 0) {
        pm_json_null(json);
    } else {
        pm_json_object(json);
        text(json, "text", file->loss);
        number(json, "at_byte", trace->loss.at);
        number(json, "lost_bytes", trace->loss.lost_bytes);
        pm_json_end(json);
    }
    write_devices(json, &file->gpu);
    write_kernels(json, set, file, how);
    write_calls(json, file, how);
    write_steps(json, file, how);
    pm_json_end(json);
}

static void write_key(struct pm_json *json, const struct pm_keys *keys, const struct pm_key *row)
{
    pm_json_object(json);
    text(json, "name", pm_key_text(keys, row->name));
    number(json, "calls", row->calls);
    us(json, "self_cpu_us", row->self_cpu_ns);
    us(json, "cpu_us", row->cpu_ns);
    us(json, "self_device_us", row->self_device_ns);
    us(json, "device_us", row->device_ns);
    pm_json_key(json, "cpu_bytes"), pm_json_i64(json, row->cpu_bytes);
    pm_json_key(json, "self_cpu_bytes"), pm_json_i64(json, row->self_cpu_bytes);
    pm_json_key(json, "device_bytes"), pm_json_i64(json, row->device_bytes);
    pm_json_key(json, "self_device_bytes"), pm_json_i64(json, row->self_device_bytes);
    number(json, "flops", row->flops);
    text(json, "on", row->on_device ? "device" : "cpu");
    text(json, "kind", pm_kind_name(row->kind));
    if (keys->by_shape)
        text(json, "input_shapes", pm_key_text(keys, row->shapes));
    if (keys->by_stack > 0) {
        begin(json, "stack", pm_json_array);
        for (const char *p = pm_key_text(keys, row->stack); *p != '\0';) {
            size_t n = strcspn(p, "\n");
            pm_json_text_bytes(json, p, n);
            p += n + (p[n] == '\n');
        }
        pm_json_end(json);
    }
    pm_json_end(json);
}

void pm_trace_put_json(struct pm_json *json, const struct pm_trace_set *set,
                       const struct pm_trace_how *how)
{
    size_t shown = 0;
    begin(json, "files", pm_json_array);
    for (size_t f = 0; f < set->n; f++)
        write_file(json, set, &set->files[f], how);
    pm_json_end(json);
    us(json, "self_cpu_us", set->keys.total_self_cpu_ns);
    us(json, "self_device_us", set->keys.total_self_device_ns);
    pm_json_key(json, "has_device"), pm_json_bool(json, set->keys.has_device);
    pm_json_key(json, "has_memory"), pm_json_bool(json, set->keys.has_memory);
    begin(json, "key_averages", pm_json_array);
    for (uint32_t i = 0; i < set->keys.n; i++) {
        if (!pm_trace_shows(set, how, &set->keys.rows[i]))
            continue;
        if (how->limit > 0 && shown++ == how->limit)
            break;
        write_key(json, &set->keys, &set->keys.rows[i]);
    }
    pm_json_end(json);
    begin(json, "findings", pm_json_array);
    for (unsigned i = 0; i < set->findings.n; i++) {
        const struct pm_finding *finding = &set->findings.list[i];
        pm_json_object(json);
        text(json, "id", finding->id);
        text(json, "title", finding->title);
        pm_json_key(json, "share_pct"), pm_json_double(json, finding->weight * 100, 2);
        text(json, "evidence", finding->evidence);
        text(json, "remedy", finding->remedy);
        pm_json_end(json);
    }
    pm_json_end(json);
}

int pm_trace_print_json(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, DOCUMENT_MAX);
    pm_json_init(&json, &buf, 1);
    pm_json_object(&json);
    pm_trace_put_json(&json, set, how);
    pm_json_end(&json);
    int err = pm_json_finish(&json);
    if (err == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    return err != 0 ? pm_complain("cannot write the JSON, %s", pm_strerror(err)) : 0;
}
