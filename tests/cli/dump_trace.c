/*
 * Prints what the trace reader has of each file, for the comparison with Python's json
 * (test_trace_json.py): "file PATH CODE EVENTS", then per kept event kind, times, ids and the name
 * in hexadecimal. Usage: dump_trace [chunk=N] [scan=N] FILE…
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace/trace.h"

static void print_hex(const struct pm_trace *trace, uint32_t string)
{
    const char *text = pm_trace_text(trace, string);
    putchar(' ');
    for (uint32_t i = 0; i < pm_intern_len(&trace->strings, string); i++)
        printf("%02x", (unsigned char)text[i]);
    putchar('.');
}

int main(int argc, char **argv)
{
    struct pm_trace_options options = {0};
    for (int i = 1; i < argc; i++) {
        struct pm_trace *trace;
        struct pm_error err = {""};
        if (strncmp(argv[i], "chunk=", 6) == 0) {
            options.chunk_bytes = strtoul(argv[i] + 6, NULL, 10);
            continue;
        }
        if (strncmp(argv[i], "scan=", 5) == 0) {
            options.scan = (int)strtol(argv[i] + 5, NULL, 10);
            continue;
        }
        int code = pm_trace_load(&trace, argv[i], &options, &err);
        if (code != 0) {
            printf("file %s %d 0\n", argv[i], code);
            continue;
        }
        printf("file %s %d %" PRIu64 "\n", argv[i], trace->loss.code, trace->all_events);
        for (uint32_t row = 0; row < trace->events.n; row++) {
            enum pm_trace_kind kind = pm_trace_kind_of(trace, row);
            const struct pm_trace_track *track = &trace->tracks[pm_trace_track_of(trace, row)];
            uint32_t link = trace->events.link[row];
            bool correlated = pm_kind_on_device(kind) || kind == PM_KIND_RUNTIME;
            printf("%s %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu64, pm_kind_name(kind),
                   trace->events.ts_ns[row], trace->events.dur_ns[row],
                   pm_trace_id_value(trace, trace->events.ext[row]),
                   correlated ? pm_trace_id_value(trace, link) : 0);
            print_hex(trace, trace->events.name[row]);
            print_hex(trace, track->pid);
            print_hex(trace, track->tid);
            print_hex(trace, kind <= PM_KIND_ANNOTATION
                                 ? trace->ops[trace->events.extra[row]].dims
                                 : 0);
            putchar('\n');
        }
        pm_trace_free(trace);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
