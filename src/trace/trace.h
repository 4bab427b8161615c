/*
 * A torch (Kineto) trace in memory: one row per event in columns, strings kept once.
 *
 * Filled by load.c from the JSON that torch.profiler writes, read by the analyses (analyse.h). One
 * thread at a time. Times are integer nanoseconds, as exact as the file has them.
 *
 * Only what the analyses need is kept: complete events (`"ph": "X"`), memory events, names of
 * processes and threads. Flow arrows are counted and dropped; they repeat what `correlation` says.
 */
#ifndef PM_TRACE_TRACE_H
#define PM_TRACE_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "trace/intern.h"
#include "trace/source.h"

/* Times beyond this, 146 years either way, are taken for this; durations for half of it. */
#define PM_TRACE_MAX_NS ((int64_t)1 << 62)

/* What an event is, by its category ("cat"), as libkineto's ActivityType.cpp names them. */
enum pm_trace_kind {
    PM_KIND_OTHER,          /* an unknown category: counted as an operator */
    PM_KIND_CPU_OP,         /* cpu_op, and events without a category (autograd's own export) */
    PM_KIND_ANNOTATION,     /* user_annotation */
    PM_KIND_PYTHON,         /* python_function */
    PM_KIND_RUNTIME,        /* cuda_runtime, cuda_driver, and other *_runtime, *_driver */
    PM_KIND_OVERHEAD,       /* overhead: the profiler's own */
    PM_KIND_KERNEL,         /* kernel */
    PM_KIND_MEMCPY,         /* gpu_memcpy */
    PM_KIND_MEMSET,         /* gpu_memset */
    PM_KIND_SYNC,           /* cuda_sync: a stream or device that waits */
    PM_KIND_GPU_ANNOTATION, /* gpu_user_annotation */
    PM_KIND_DEVICE_OTHER,   /* categories of other accelerators */
    PM_KIND_MEMORY,         /* the instant event [memory] */
    PM_KIND_OOM,            /* the instant event [OutOfMemory] */
    PM_KIND_SPAN,           /* Trace: the profiler's window; not an activity */
    PM_KINDS,
};

/* Runs on a device (as torch's deviceTypeFromActivity). */
static inline bool pm_kind_on_device(enum pm_trace_kind kind)
{
    return kind >= PM_KIND_KERNEL && kind <= PM_KIND_DEVICE_OTHER;
}
/* Occupies the device: kernels and copies, not waits and annotations. */
static inline bool pm_kind_is_work(enum pm_trace_kind kind)
{
    return kind == PM_KIND_KERNEL || kind == PM_KIND_MEMCPY || kind == PM_KIND_MEMSET;
}
/* Ran on a CPU thread and has a duration. */
static inline bool pm_kind_on_cpu(enum pm_trace_kind kind)
{
    return kind <= PM_KIND_OVERHEAD;
}

#define PM_TRACE_TRACK_BITS 24
#define PM_TRACE_MAX_TRACKS (1u << PM_TRACE_TRACK_BITS)

/* The columns; all have `n` rows, in the order of the file. */
struct pm_trace_events {
    uint32_t n, room;
    int64_t *ts_ns, *dur_ns;
    uint32_t *name;    /* string */
    uint32_t *where;   /* kind << 24 | track */
    uint32_t *ext;     /* "External id" as a pm_trace_id; 0: none */
    uint32_t *link;    /* on a device and runtime: "correlation" as a pm_trace_id; operators:
                          PM_TRACE_BACKWARD and sequence number + 1 */
    uint32_t *extra;   /* operators: row of ops; on a device: row of work; memory: row of memory */
    uint32_t *ordinal; /* position among all events of the file; NULL unless asked for */
};
#define PM_TRACE_BACKWARD 0x80000000u

/* What an operator was called with; equal ones share a row. Row 0: nothing known. */
struct pm_trace_op {
    uint32_t dims;     /* string: "Input Dims" as JSON */
    uint32_t stack;    /* string: "Call stack" as written, `;` between frames */
    uint32_t concrete; /* string: "Concrete Inputs" as JSON, of convolutions only */
};

/* What is known of an event on a device. Row 0: nothing. */
struct pm_trace_work {
    uint64_t bytes;      /* of a copy */
    uint32_t stream;     /* pm_trace_id */
    int32_t device;      /* -1: unknown */
    uint32_t blocks;     /* of the grid, saturating */
    uint32_t threads;    /* of a block */
    uint32_t graph_node; /* "graph node id", 0: none */
    uint32_t collective; /* string: "Collective name" */
    float occupancy_pct; /* "est. achieved occupancy %", negative: unknown */
};

struct pm_trace_memory {
    int64_t bytes;       /* negative: freed */
    uint64_t allocated;  /* "Total Allocated" */
    int32_t device_type; /* 0: CPU, 1: CUDA, as c10::DeviceType */
    int32_t device;
};

/* A thread, a stream or a pseudo-track: a pid and a tid as the file has them. */
struct pm_trace_track {
    uint32_t pid, tid; /* strings, the raw JSON values; numbers without quotes */
    uint32_t name;     /* string: its thread_name */
    uint32_t process;  /* string: its process_name */
    uint32_t labels;   /* string: its process_labels, "GPU 0" */
};

/* What could not be read. */
struct pm_trace_loss {
    int code;            /* 0; -PM_ETRUNCATED: cut off; -PM_ECORRUPT: damaged; -PM_ELIMIT */
    uint64_t at;         /* byte of the JSON where reading stopped */
    uint64_t lost_bytes; /* of the JSON, from the end of the last whole event on */
    bool in_gzip;        /* the compressed file itself is cut off or damaged, at … */
    uint64_t gzip_at;    /* … this byte; what follows is not in lost_bytes */
    uint64_t gzip_lost;  /* compressed bytes that were not understood */
    bool after_events;   /* all events had been read */
    char expected[96];   /* "a value", "the end of a string" */
};

struct pm_trace_gpu {
    int32_t id;
    uint32_t name; /* string */
    uint64_t memory_bytes;
    uint32_t multiprocessors;
};
#define PM_TRACE_MAX_GPUS 64

struct pm_trace {
    char path[4096];
    struct pm_intern strings;
    struct pm_intern raw; /* the pieces of tracks, "pid\0tid" */
    struct pm_trace_events events;
    struct pm_trace_op *ops;
    uint32_t n_ops, room_ops;
    uint32_t *op_table, op_mask; /* finds equal rows of ops */
    struct pm_trace_work *work;
    uint32_t n_work, room_work;
    struct pm_trace_memory *memory;
    uint32_t n_memory, room_memory;
    struct pm_trace_track *tracks;
    uint32_t n_tracks, room_tracks;
    struct pm_intern wide; /* numbers of 31 bits and more, see pm_trace_id_value */

    int64_t base_ns; /* "baseTimeNanoseconds" */
    int32_t rank;    /* "distributedInfo"; -1: not given */
    int32_t world_size;
    uint32_t trace_name;                                        /* string */
    bool with_stack, record_shapes, profile_memory, with_flops; /* as the file claims */
    struct pm_trace_gpu gpus[PM_TRACE_MAX_GPUS];
    uint32_t n_gpus;

    uint64_t json_bytes;  /* of text read */
    uint64_t all_events;  /* objects in traceEvents */
    uint64_t flow_events; /* of them, arrows */
    uint64_t counted[PM_KINDS];
    uint64_t incomplete;  /* without a name or a time, left out */
    uint64_t odd_numbers; /* NaN, infinite, or beyond what fits: taken as 0 or as the limit */
    struct pm_trace_loss loss;
    struct pm_trace_source_end source;
};

static inline enum pm_trace_kind pm_trace_kind_of(const struct pm_trace *trace, uint32_t event)
{
    return (enum pm_trace_kind)(trace->events.where[event] >> PM_TRACE_TRACK_BITS);
}
static inline uint32_t pm_trace_track_of(const struct pm_trace *trace, uint32_t event)
{
    return trace->events.where[event] & (PM_TRACE_MAX_TRACKS - 1);
}
static inline int64_t pm_trace_end_ns(const struct pm_trace *trace, uint32_t event)
{
    return trace->events.ts_ns[event] + trace->events.dur_ns[event];
}
static inline const char *pm_trace_text(const struct pm_trace *trace, uint32_t string)
{
    return pm_intern_text(&trace->strings, string);
}

/* Ids of any size in 32 bits: 0 for "none", number + 1 while below 2^31 - 2, else the top bit and
 * a row of `wide`. Equal ids stay equal. */
uint64_t pm_trace_id_value(const struct pm_trace *trace, uint32_t id);

/* "cpu_op" and so on. */
const char *pm_kind_name(enum pm_trace_kind kind);

struct pm_trace_options {
    struct pm_trace_source_options source;
    int scan;           /* enum pm_scan_kind; 0: the best */
    bool ordinals;      /* fill events.ordinal */
    size_t chunk_bytes; /* of text at a time; 0: the default */
};

/* Reads a trace; options may be NULL. A file that is cut off or damaged is read up to there and
 * is no failure: see loss. -PM_EFORMAT when there is nothing of a trace in it; else the failures of
 * pm_trace_source_open, -PM_ENOMEM and -PM_ELIMIT. The sentence is in err. */
PM_MUST_USE int pm_trace_load(struct pm_trace **ret, const char *path,
                              const struct pm_trace_options *options, struct pm_error *err);

/* The same from bytes in memory; name is for messages. */
PM_MUST_USE int pm_trace_load_memory(struct pm_trace **ret, const void *bytes, size_t n,
                                     const char *name, const struct pm_trace_options *options,
                                     struct pm_error *err);
void pm_trace_free(struct pm_trace *trace);

/* Writes what was lost as one sentence without a full stop; false (and "") when nothing was. */
bool pm_trace_loss_text(const struct pm_trace *trace, char *out, size_t size);

#endif
