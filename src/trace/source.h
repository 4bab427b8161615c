/*
 * The bytes of a trace, from a file: plain, or gzip inflated on a thread of its own with a few
 * pieces in flight. Used by load.c and cut.c. The reader is one thread; the helper thread is the
 * source's own and ends with it. Memory stays under 2 MiB whatever the file's size.
 */
#ifndef PM_TRACE_SOURCE_H
#define PM_TRACE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "trace/inflate.h"

struct pm_trace_source;

/* How the source ended; valid after a read returned 0. */
struct pm_trace_source_end {
    bool gzip;
    enum pm_inflate_end state; /* PM_INFLATE_COMPLETE for a plain file */
    uint64_t file_bytes;       /* size of the file */
    uint64_t consumed;         /* of them, those that were understood */
    uint64_t trailing;         /* behind the last gzip member */
    uint32_t members;
};

struct pm_trace_source_options {
    enum pm_inflate_library library;
    bool one_thread; /* inflate in the reader's thread */
};

/* Opens a file (gzip is told by its first two bytes, not by its name). options may be NULL.
 * -PM_ENOTFOUND, -PM_EPERMISSION, -PM_EIO, -PM_ENOMEM with the sentence in err. */
PM_MUST_USE int pm_trace_source_open(struct pm_trace_source **ret, const char *path,
                                     const struct pm_trace_source_options *options,
                                     struct pm_error *err);

/* The same over bytes in memory, which must outlive the source. */
PM_MUST_USE int pm_trace_source_memory(struct pm_trace_source **ret, const void *bytes, size_t n,
                                       const struct pm_trace_source_options *options);

void pm_trace_source_close(struct pm_trace_source *source);

/* Up to n bytes; 0 at the end, or -PM_E…. */
int64_t pm_trace_source_read(struct pm_trace_source *source, uint8_t *out, size_t n);

void pm_trace_source_how_ended(const struct pm_trace_source *source,
                               struct pm_trace_source_end *ret);

#endif
