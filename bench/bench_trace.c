/*
 * How fast torch traces are read and aggregated, on one core, and in how much memory. Run by
 * bench_trace.py, which makes the traces and runs the rivals:
 *
 *   bench_trace ROUNDS FILE    prints JSON: MB of JSON, seconds of CPU time for each stage (the
 * best round), peak memory
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "trace/gpu.h"
#include "trace/keys.h"
#include "trace/scan.h"

/* CPU time of all threads: what it costs, however busy the machine is. */
static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double wall_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void keep_best(double *best, double value)
{
    if (*best == 0 || value < *best)
        *best = value;
}

/* In KiB. Not getrusage: a child starts with its parent's peak there. */
static long peak(void)
{
    char line[256];
    long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof(line), status) != NULL)
        if (sscanf(line, "VmHWM: %ld kB", &kib) == 1)
            break;
    if (status != NULL)
        fclose(status);
    return kib;
}

int main(int argc, char **argv)
{
    struct pm_error err = {""};
    double best_load = 0, best_averages = 0, best_wall = 0, best_all = 0;
    uint64_t bytes = 0, events = 0;
    long rounds = argc == 3 ? strtol(argv[1], NULL, 10) : 0;
    if (rounds <= 0) {
        fprintf(stderr, "usage: bench_trace ROUNDS FILE\n");
        return 2;
    }
    long peak_kib = 0;
    for (long round = 0; round < rounds; round++) {
        struct pm_trace *trace;
        struct pm_tree tree;
        struct pm_keys keys;
        double wall = wall_seconds(), begin = cpu_seconds();
        if (pm_trace_load(&trace, argv[2], NULL, &err) != 0) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        double loaded = cpu_seconds();
        if (pm_tree_build(&tree, trace) != 0 || pm_keys_init(&keys, false, 0) != 0 ||
            pm_keys_add(&keys, &tree) != 0)
            return 1;
        double done = cpu_seconds();
        keep_best(&best_wall, wall_seconds() - wall);
        keep_best(&best_load, loaded - begin);
        keep_best(&best_averages, done - loaded);
        keep_best(&best_all, done - begin);
        bytes = trace->json_bytes;
        events = trace->all_events;
        pm_keys_release(&keys);
        pm_tree_release(&tree);
        pm_trace_free(trace);
        if (round == 0)
            peak_kib = peak();
    }
    printf("{\"json_bytes\": %" PRIu64 ", \"events\": %" PRIu64
           ", \"load_s\": %.6f, \"averages_s\": %.6f, \"cpu_s\": %.6f, \"wall_s\": %.6f, "
           "\"peak_bytes\": %ld, \"scan\": \"%s\"}\n",
           bytes, events, best_load, best_averages, best_all, best_wall, peak_kib * 1024,
           pm_scan_name(pm_scan_best()));
    return 0;
}
