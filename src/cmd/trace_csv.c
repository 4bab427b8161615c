/*
 * The tables of `profilemate trace` as CSV: one table on stdout.
 */
#include "cmd/trace.h"

#include <inttypes.h>

static void field_us(int64_t ns)
{
    putchar(',');
    pm_trace_csv_us(ns);
}

static void print_keys(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    size_t shown = 0;
    puts(
        "name,calls,self_cpu_us,cpu_us,self_device_us,device_us,cpu_mean_us,device_mean_us,"
        "cpu_bytes,self_cpu_bytes,device_bytes,self_device_bytes,flops,on,kind,input_shapes,stack");
    for (uint32_t i = 0; i < set->keys.n; i++) {
        const struct pm_key *row = &set->keys.rows[i];
        if (!pm_trace_shows(set, how, row))
            continue;
        if (how->limit > 0 && shown++ == how->limit)
            break;
        int64_t calls = row->calls > 0 ? (int64_t)row->calls : 1;
        pm_trace_csv_field(pm_key_text(&set->keys, row->name));
        printf(",%" PRIu64, row->calls);
        field_us(row->self_cpu_ns);
        field_us(row->cpu_ns);
        field_us(row->self_device_ns);
        field_us(row->device_ns);
        field_us(row->cpu_ns / calls);
        field_us(row->device_ns / calls);
        printf(",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRIu64 ",%s,%s,",
               row->cpu_bytes, row->self_cpu_bytes, row->device_bytes, row->self_device_bytes,
               row->flops, row->on_device ? "device" : "cpu", pm_kind_name(row->kind));
        pm_trace_csv_field(pm_key_text(&set->keys, row->shapes));
        putchar(',');
        pm_trace_csv_field(pm_key_text(&set->keys, row->stack));
        putchar('\n');
    }
}

static void print_kernels(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    puts("rank,name,class,kind,calls,device_us,mean_us,min_us,max_us,occupancy_pct");
    for (size_t f = 0; f < set->n; f++) {
        const struct pm_trace_file *file = &set->files[f];
        for (uint32_t i = 0; i < file->gpu.n_kernels && (how->limit == 0 || i < how->limit); i++) {
            const struct pm_gpu_kernel *kernel = &file->gpu.kernels[i];
            printf("%" PRId32 ",", file->rank);
            pm_trace_csv_field(pm_trace_text(file->trace, kernel->name));
            putchar(',');
            pm_trace_csv_field(set->classes.names[kernel->class]);
            printf(",%s,%" PRIu64, pm_kind_name(kernel->kind), kernel->calls);
            field_us(kernel->ns);
            field_us(kernel->ns / (int64_t)kernel->calls);
            field_us(kernel->min_ns);
            field_us(kernel->max_ns);
            if (kernel->occupancy_ns > 0)
                printf(",%.1f\n", kernel->occupancy_sum / (double)kernel->occupancy_ns);
            else
                puts(",");
        }
    }
}

static void print_steps(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    puts("rank,step,name,start_us,cpu_us,period_us,device_busy_us,device_busy_pct,works,device_us,"
         "collective_us,copy_us");
    for (size_t f = 0; f < set->n; f++) {
        const struct pm_trace_file *file = &set->files[f];
        for (uint32_t i = 0; i < file->steps.n && (how->limit == 0 || i < how->limit); i++) {
            const struct pm_step *step = &file->steps.steps[i];
            printf("%" PRId32 ",%" PRIu32 ",", file->rank, i);
            pm_trace_csv_field(pm_trace_text(file->trace, step->name));
            field_us(step->ts_ns - file->first_ns);
            field_us(step->cpu_ns);
            field_us(step->period_ns);
            field_us(step->window_ns);
            printf(",%.2f", step->period_ns > 0
                                ? (double)step->window_ns * 100 / (double)step->period_ns
                                : 0);
            printf(",%" PRIu64, step->works);
            field_us(step->device_ns);
            field_us(step->collective_ns);
            field_us(step->copy_ns);
            putchar('\n');
        }
    }
}

static void print_findings(const struct pm_trace_set *set)
{
    puts("id,title,share_pct,evidence,remedy");
    for (unsigned i = 0; i < set->findings.n; i++) {
        const struct pm_finding *finding = &set->findings.list[i];
        pm_trace_csv_field(finding->id);
        putchar(',');
        pm_trace_csv_field(finding->title);
        printf(",%.2f,", finding->weight * 100);
        pm_trace_csv_field(finding->evidence);
        putchar(',');
        pm_trace_csv_field(finding->remedy);
        putchar('\n');
    }
}

void pm_trace_print_csv(const struct pm_trace_set *set, const struct pm_trace_how *how)
{
    if (how->kernels)
        print_kernels(set, how);
    else if (how->steps)
        print_steps(set, how);
    else if (how->findings)
        print_findings(set);
    else
        print_keys(set, how);
}
