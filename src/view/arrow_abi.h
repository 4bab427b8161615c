/*
 * The Arrow C data and C stream interfaces (arrow.apache.org/docs/format/CDataInterface.html and
 * CStreamInterface.html): three structs that libraries of one process hand each other, so that
 * columns are shared without a copy and without linking one another. The layouts are an ABI and
 * never change. Guarded as the specification asks, so that another copy does no harm.
 */
#ifndef PM_VIEW_ARROW_ABI_H
#define PM_VIEW_ARROW_ABI_H

#include <stdint.h>

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

/* What a column is. Who is given one calls release when done with it; release is NULL after. */
struct ArrowSchema {
    const char *format; /* "L": uint64, "u": UTF-8, "+s": struct, … */
    const char *name;
    const char *metadata; /* i32 pairs, then i32 length and bytes of each key and value */
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

/* What it holds. */
struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers; /* validity bits (NULL: all are there), then by format */
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE
/* Batches of one schema, one after another. Functions return 0 or an errno value. */
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out); /* release NULL: the end */
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};
#endif

_Static_assert(sizeof(struct ArrowSchema) == 9 * sizeof(int64_t), "part of the interface");
_Static_assert(sizeof(struct ArrowArray) == 10 * sizeof(int64_t), "part of the interface");
_Static_assert(sizeof(struct ArrowArrayStream) == 5 * sizeof(void *), "part of the interface");

#endif
