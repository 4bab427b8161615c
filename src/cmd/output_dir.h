/*
 * Folders that `run` has others write into, or writes into itself: traces of torch's profiler,
 * request logs.
 */
#ifndef PM_CMD_OUTPUT_DIR_H
#define PM_CMD_OUTPUT_DIR_H

#include <limits.h>
#include <stdint.h>

#include "base/error.h"

/* Makes path and what is missing above it, looks whether files can be made there, and gives it
 * without links and relative parts. 0, or -PM_E… with a sentence. */
PM_MUST_USE int pm_output_dir(const char *path, char absolute[PATH_MAX], struct pm_error *err);

/* The traces and tables of torch's profiler that lie in a folder (*.pt.trace.json, .gz,
 * *profiler_out*.txt), changed at or after since_real_ns. */
struct pm_trace_file {
    char name[256];
    uint64_t bytes, changed_ns; /* CLOCK_REALTIME */
};
struct pm_trace_files {
    struct pm_trace_file *list; /* oldest first */
    size_t count;
    uint64_t bytes; /* of all */
};
/* What cannot be read counts as nothing. Free with pm_trace_files_release. */
void pm_trace_files(const char *dir, uint64_t since_real_ns, struct pm_trace_files *ret_files);
void pm_trace_files_release(struct pm_trace_files *files);

#endif
