/*
 * `profilemate trace` for a terminal: 100 columns.
 */
#include "cmd/trace.h"

#include <inttypes.h>
#include <string.h>

#define COLUMNS 100

static void heading(const char *text)
{
    printf("\n%s%s%s\n", pm_style(stdout, PM_BOLD), text, pm_style(stdout, PM_PLAIN));
}

/* ---- the averages ---------------------------------------------------------------------------- */

static void print_stack(const char *stack)
{
    char line[COLUMNS * 4 + 1];
    while (*stack != '\0') {
        char frame[1024];
        size_t n = strcspn(stack, "\n"), kept = n < sizeof(frame) ? n : sizeof(frame) - 1;
        memcpy(frame, stack, kept);
        frame[kept] = '\0';
        printf("%s    at %s%s\n", pm_style(stdout, PM_DIM), pm_trace_fit(frame, COLUMNS - 7, line),
               pm_style(stdout, PM_PLAIN));
        stack += n + (stack[n] == '\n');
    }
}

static void print_keys(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    const struct pm_keys *keys = &set->keys;
    bool device = keys->has_device, memory = keys->has_memory && !device,
         flops = keys->has_flops && (!device || how->sort == PM_SORT_FLOPS);
    int width =
        COLUMNS - 9 - 11 - 7 - 11 - (device ? 29 : 11) - (memory ? 22 : 0) - (flops ? 9 : 0);
    char name[COLUMNS * 4 + 1], a[24], b[24], c[24], d[24], e[24], f[24];
    size_t shown = 0, rows = 0;
    heading(how->layers ? "Modules" : "Operators, calls and kernels");
    printf("%-*s %8s %10s %6s %10s", width, "name", "calls", "self CPU", "", "CPU total");
    if (device)
        printf(" %10s %6s %10s", "self GPU", "", "GPU total");
    else
        printf(" %10s", "CPU mean");
    if (memory)
        printf(" %10s %10s", "self mem", "mem");
    printf("%s\n", flops ? "    FLOPs" : "");
    for (uint32_t i = 0; i < keys->n; i++) {
        const struct pm_key *row = &keys->rows[i];
        if (!pm_trace_shows(set, how, row))
            continue;
        rows++;
        if (how->limit > 0 && shown == how->limit)
            continue;
        shown++;
        const char *text = pm_key_text(keys, row->name);
        if (strncmp(text, "void ", 5) == 0 && row->on_device)
            text += 5;
        char marked[256];
        if (row->annotation && row->on_device) {
            snprintf(marked, sizeof(marked), "[GPU] %s", text);
            text = marked;
        }
        text = pm_trace_fit(text, (size_t)width, name);
        size_t used = 0; /* columns: bytes that do not continue a character */
        for (const char *p = text; *p != '\0'; p++)
            used += ((unsigned char)*p & 0xC0) != 0x80;
        printf("%s%*s %8s %10s %6s %10s", text, width - (int)used, "",
               pm_trace_count(row->calls, a), pm_trace_time(row->self_cpu_ns, b),
               pm_trace_percent(row->self_cpu_ns, keys->total_self_cpu_ns, c),
               pm_trace_time(row->cpu_ns, d));
        if (device)
            printf(" %10s %6s %10s", pm_trace_time(row->self_device_ns, e),
                   row->annotation
                       ? "-"
                       : pm_trace_percent(row->self_device_ns, keys->total_self_device_ns, f),
                   pm_trace_time(row->device_ns, a));
        else
            printf(" %10s",
                   pm_trace_time(row->cpu_ns / (int64_t)(row->calls > 0 ? row->calls : 1), e));
        if (memory)
            printf(" %10s %10s", pm_trace_bytes(row->self_cpu_bytes, a),
                   pm_trace_bytes(row->cpu_bytes, b));
        if (flops)
            printf(" %8s", row->flops > 0 ? pm_trace_count(row->flops, c) : "-");
        putchar('\n');
        if (keys->by_shape)
            printf("%s    %s%s\n", pm_style(stdout, PM_DIM),
                   pm_trace_fit(pm_key_text(keys, row->shapes), COLUMNS - 4, name),
                   pm_style(stdout, PM_PLAIN));
        print_stack(pm_key_text(keys, row->stack));
    }
    printf("self CPU in all %s", pm_trace_time(keys->total_self_cpu_ns, a));
    if (device)
        printf(", on devices %s", pm_trace_time(keys->total_self_device_ns, b));
    if (shown < rows)
        printf("; %zu more rows, --limit 0 shows them", rows - shown);
    putchar('\n');
    if (how->layers && rows == 0)
        puts("The trace has no modules: make it with with_stack=True.");
}

/* ---- devices --------------------------------------------------------------------------------- */

static const char *device_name(const struct pm_trace *trace, int32_t id)
{
    for (uint32_t i = 0; i < trace->n_gpus; i++)
        if (trace->gpus[i].id == id)
            return pm_trace_text(trace, trace->gpus[i].name);
    return "";
}

static void print_device(const struct pm_trace_file *file, const struct pm_gpu_device *device)
{
    static const char *const why[PM_IDLES] = {
        [PM_IDLE_HOST] = "nothing launched yet",
        [PM_IDLE_SYNC] = "CPU in a synchronising call",
        [PM_IDLE_LAUNCH] = "just launched, on its way",
        [PM_IDLE_KERNEL] = "between kernels (up to 10 us)",
        [PM_IDLE_WAIT] = "launched in time, waited for others",
        [PM_IDLE_UNKNOWN] = "launch not in the trace",
    };
    int64_t span = pm_gpu_span_ns(device);
    char a[24], b[24], c[24], name[COLUMNS * 4 + 1];
    printf("\n%sGPU %" PRId32
           "%s  %s  %s from its first kernel to its last, %s kernels and copies\n",
           pm_style(stdout, PM_BOLD), device->id, pm_style(stdout, PM_PLAIN),
           pm_trace_fit(device_name(file->trace, device->id), 30, name), pm_trace_time(span, a),
           pm_trace_count(device->events, b));
    printf("  %-37s %10s %7s\n", "busy", pm_trace_time(device->busy_ns, a),
           pm_trace_percent(device->busy_ns, span, b));
    printf("    %-35s %10s %7s\n", "computing", pm_trace_time(device->compute_ns, a),
           pm_trace_percent(device->compute_ns, span, b));
    if (device->collective_ns > 0)
        printf("    %-35s %10s %7s  %s of it beside computation\n", "collectives",
               pm_trace_time(device->collective_ns, a),
               pm_trace_percent(device->collective_ns, span, b),
               pm_trace_percent(device->collective_ns - pm_gpu_exposed_ns(device),
                                device->collective_ns, c));
    if (device->copy_ns > 0)
        printf("    %-35s %10s %7s  %s of it beside kernels\n", "copies",
               pm_trace_time(device->copy_ns, a), pm_trace_percent(device->copy_ns, span, b),
               pm_trace_percent(device->copy_ns - (device->busy_ns - device->kernel_ns),
                                device->copy_ns, c));
    printf("  %-37s %10s %7s  longest gap %s\n", "idle", pm_trace_time(span - device->busy_ns, a),
           pm_trace_percent(span - device->busy_ns, span, b),
           pm_trace_time(device->longest_gap_ns, c));
    for (enum pm_idle i = 0; i < PM_IDLES; i++)
        if (device->idle_ns[i] > 0)
            printf("    %-35s %10s %7s  %s gaps\n", why[i], pm_trace_time(device->idle_ns[i], a),
                   pm_trace_percent(device->idle_ns[i], span, b),
                   pm_trace_count(device->gaps[i], c));
}

static void print_classes(const struct pm_trace_set *set, const struct pm_trace_file *file)
{
    int64_t all = 0;
    char a[24], b[24], c[24];
    for (unsigned i = 0; i < set->classes.n; i++)
        all += file->gpu.classes[i].ns;
    printf("\n  %-12s %9s %10s %7s\n", "class", "calls", "time", "");
    for (unsigned i = 0; i < set->classes.n; i++) {
        const struct pm_gpu_class *class = &file->gpu.classes[i];
        if (class->calls > 0)
            printf("  %-12s %9s %10s %7s\n", set->classes.names[i], pm_trace_count(class->calls, a),
                   pm_trace_time(class->ns, b), pm_trace_percent(class->ns, all, c));
    }
}

static void print_copies(const struct pm_trace_file *file)
{
    char a[24], b[24], c[24], name[COLUMNS * 4 + 1];
    if (file->gpu.n_copies == 0)
        return;
    printf("\n  %-44s %9s %10s %10s %9s\n", "copies", "calls", "time", "bytes", "GB/s");
    for (uint32_t i = 0; i < file->gpu.n_copies; i++) {
        const struct pm_gpu_copy *copy = &file->gpu.copies[i];
        printf("  %-44s %9s %10s %10s ",
               pm_trace_fit(pm_trace_text(file->trace, copy->name), 44, name),
               pm_trace_count(copy->calls, a), pm_trace_time(copy->ns, b),
               copy->bytes > 0 ? pm_trace_bytes((int64_t)copy->bytes, c) : "-");
        if (copy->bytes > 0 && copy->ns_with_bytes > 0)
            printf("%9.2f\n", (double)copy->bytes / (double)copy->ns_with_bytes);
        else
            printf("%9s\n", "-");
    }
}

static void print_launches(const struct pm_trace_file *file)
{
    const struct pm_gpu *gpu = &file->gpu;
    char a[24], b[24], c[24], d[24], e[24];
    if (gpu->launches.calls > 0)
        printf("\n  launches: %s calls in %s (%s each) for %s kernels and copies;\n"
               "  from the call's end to the start: median %s, 95 %% %s, at most %s\n",
               pm_trace_count(gpu->launches.calls, a), pm_trace_time(gpu->launches.call_ns, b),
               pm_trace_time(gpu->launches.call_ns / (int64_t)gpu->launches.calls, c),
               pm_trace_count(gpu->launches.works, d), pm_trace_time(gpu->launches.delay_p50_ns, e),
               pm_trace_time(gpu->launches.delay_p95_ns, (char[24]){0}),
               pm_trace_time(gpu->launches.delay_max_ns, (char[24]){0}));
    if (gpu->sync_calls > 0)
        printf("  synchronising calls: %s in %s\n", pm_trace_count(gpu->sync_calls, a),
               pm_trace_time(gpu->sync_ns, b));
    if (gpu->alloc_calls > 0)
        printf("  allocating and freeing calls: %s in %s\n", pm_trace_count(gpu->alloc_calls, a),
               pm_trace_time(gpu->alloc_ns, b));
    if (file->n_unlaunched > 0)
        printf("  %s kernels and copies without an operator that launched them\n",
               pm_trace_count(file->n_unlaunched, a));
    if (gpu->n_graphs == 0)
        return;
    printf("\n  %-20s %9s %12s %12s %12s\n", "graph replays of", "replays", "call mean",
           "kernels mean", "span mean");
    for (uint32_t i = 0; i < gpu->n_graphs && i < 12; i++) {
        const struct pm_gpu_graph *graph = &gpu->graphs[i];
        int64_t n = (int64_t)graph->replays;
        printf("  %7" PRIu32 " kernels      %9" PRIu64 " %12s %12s %12s\n", graph->kernels,
               graph->replays, pm_trace_time(graph->call_ns / n, a),
               pm_trace_time(graph->work_ns / n, b), pm_trace_time(graph->span_ns / n, c));
    }
}

static void print_kernels(const struct pm_trace_set *set, const struct pm_trace_file *file,
                          const struct pm_trace_how *how)
{
    char name[COLUMNS * 4 + 1], a[24], b[24], c[24], d[24];
    int64_t all = 0;
    for (uint32_t i = 0; i < file->gpu.n_kernels; i++)
        all += file->gpu.kernels[i].ns;
    printf("\n%-45s %-10s %8s %10s %6s %10s\n", "kernel", "class", "calls", "time", "", "mean");
    for (uint32_t i = 0; i < file->gpu.n_kernels && (how->limit == 0 || i < how->limit); i++) {
        const struct pm_gpu_kernel *kernel = &file->gpu.kernels[i];
        const char *text = pm_trace_text(file->trace, kernel->name);
        if (strncmp(text, "void ", 5) == 0)
            text += 5;
        printf("%-45s %-10.10s %8s %10s %6s %10s\n", pm_trace_fit(text, 45, name),
               set->classes.names[kernel->class], pm_trace_count(kernel->calls, a),
               pm_trace_time(kernel->ns, b), pm_trace_percent(kernel->ns, all, c),
               pm_trace_time(kernel->ns / (int64_t)kernel->calls, d));
    }
    if (how->limit > 0 && file->gpu.n_kernels > how->limit)
        printf("%" PRIu32 " more kernels, --limit 0 shows them\n",
               file->gpu.n_kernels - (uint32_t)how->limit);
}

/* ---- steps, ranks, findings ------------------------------------------------------------------ */

static void print_steps(const struct pm_trace_file *file, const struct pm_trace_how *how)
{
    char name[COLUMNS * 4 + 1], a[24], b[24], c[24], d[24], e[24];
    if (file->steps.n == 0) {
        puts("\nNo steps: no annotation execute_… or ProfilerStep#…; --step-name names others.");
        return;
    }
    bool device = file->gpu.n_devices > 0;
    printf("\n%-36s %11s %11s", "step", "period", "CPU");
    if (device)
        printf(" %11s %7s %7s %10s", "GPU busy", "", "kernels", "their time");
    putchar('\n');
    for (uint32_t i = 0; i < file->steps.n && (how->limit == 0 || i < how->limit); i++) {
        const struct pm_step *step = &file->steps.steps[i];
        printf("%-36s %11s %11s", pm_trace_fit(pm_trace_text(file->trace, step->name), 36, name),
               pm_trace_time(step->period_ns, a), pm_trace_time(step->cpu_ns, b));
        if (device)
            printf(" %11s %7s %7" PRIu64 " %10s", pm_trace_time(step->window_ns, c),
                   pm_trace_percent(step->window_ns, step->period_ns, d), step->works,
                   pm_trace_time(step->device_ns, e));
        putchar('\n');
    }
    if (device)
        puts("GPU busy: while the step lasted, with any work; kernels: launched by the step.");
    if (how->limit > 0 && file->steps.n > how->limit)
        printf("%" PRIu32 " more steps, --limit 0 shows them\n",
               file->steps.n - (uint32_t)how->limit);
    if (file->steps.works_outside > 0)
        printf("%" PRIu64 " kernels and copies were launched before the first step\n",
               file->steps.works_outside);
}

static void print_ranks(const struct pm_trace_set *set)
{
    char a[24], b[24], c[24], d[24], e[24], name[COLUMNS * 4 + 1];
    heading("Ranks");
    printf("%6s %11s %11s %8s %11s %11s  %s\n", "rank", "span", "busy", "", "collectives", "idle",
           "file");
    for (size_t f = 0; f < set->n; f++) {
        const struct pm_trace_file *file = &set->files[f];
        const char *slash = strrchr(file->trace->path, '/');
        int64_t span = 0, busy = 0, collective = 0;
        for (uint32_t d2 = 0; d2 < file->gpu.n_devices; d2++) {
            span += pm_gpu_span_ns(&file->gpu.devices[d2]);
            busy += file->gpu.devices[d2].busy_ns;
            collective += file->gpu.devices[d2].collective_ns;
        }
        if (file->rank >= 0)
            printf("%6" PRId32, file->rank);
        else
            printf("%6s", "-");
        printf(" %11s %11s %8s %11s %11s  %s\n", pm_trace_time(span, a), pm_trace_time(busy, b),
               pm_trace_percent(busy, span, c), pm_trace_time(collective, d),
               pm_trace_time(span - busy, e),
               pm_trace_fit(slash != NULL ? slash + 1 : file->trace->path, 34, name));
    }
}

/* Text in lines of at most COLUMNS, indented; breaks at blanks. */
static void print_wrapped(const char *label, const char *text)
{
    size_t at = (size_t)printf("    %s", label);
    char clean[1024 * 4 + 1];
    pm_trace_fit(text, 1024, clean);
    for (char *p = clean; *p != '\0';) {
        size_t n = strcspn(p, " ");
        if (at + 1 + n > COLUMNS) {
            printf("\n     ");
            at = 5;
        }
        printf(" %.*s", (int)n, p);
        at += n + 1;
        p += n;
        p += *p == ' ';
    }
    putchar('\n');
}

static void print_findings(const struct pm_trace_set *set)
{
    heading("What to look into");
    if (set->findings.n == 0) {
        puts("Nothing stands out.");
        return;
    }
    for (unsigned i = 0; i < set->findings.n; i++) {
        const struct pm_finding *finding = &set->findings.list[i];
        printf("%s%u. %s%s  [%s]\n", pm_style(stdout, PM_YELLOW), i + 1, finding->title,
               pm_style(stdout, PM_PLAIN), finding->id);
        print_wrapped("Seen:", finding->evidence);
        print_wrapped("Do:  ", finding->remedy);
    }
}

static void print_file(const struct pm_trace_file *file)
{
    const struct pm_trace *trace = file->trace;
    const char *slash = strrchr(trace->path, '/');
    char name[COLUMNS * 4 + 1], a[24], b[24], c[24];
    printf("%s%s%s  %s events in %s of JSON, over %s", pm_style(stdout, PM_BOLD),
           pm_trace_fit(slash != NULL ? slash + 1 : trace->path, 48, name),
           pm_style(stdout, PM_PLAIN), pm_trace_count(trace->all_events, a),
           pm_trace_bytes((int64_t)trace->json_bytes, b),
           pm_trace_time(file->last_ns - file->first_ns, c));
    if (file->rank >= 0)
        printf(", rank %" PRId32, file->rank);
    putchar('\n');
}

void pm_trace_print_table(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    bool only_findings = how->findings && !how->steps && !how->kernels;
    for (size_t f = 0; f < set->n; f++)
        print_file(&set->files[f]);
    if (only_findings) {
        print_findings(set);
        return;
    }
    if (set->n > 1)
        print_ranks(set);
    for (size_t f = 0; f < set->n; f++) {
        const struct pm_trace_file *file = &set->files[f];
        bool detail = how->kernels || how->steps;
        if (set->n > 1 && !detail)
            continue;
        if (set->n > 1) {
            putchar('\n');
            print_file(file);
        }
        for (uint32_t d = 0; d < file->gpu.n_devices; d++)
            print_device(file, &file->gpu.devices[d]);
        if (file->gpu.n_devices > 0 && (how->kernels || !detail))
            print_classes(set, file);
        if (how->kernels) {
            print_copies(file);
            print_launches(file);
            print_kernels(set, file, how);
        }
        if (how->steps)
            print_steps(file, how);
    }
    if (!how->kernels && !how->steps)
        print_keys(set, how);
    print_findings(set);
}
