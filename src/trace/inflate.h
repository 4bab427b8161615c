/*
 * gzip, streamed: several members, bounded memory. ISA-L where the build has it (three to four
 * times faster), else zlib. Used by source.c; one thread at a time.
 */
#ifndef PM_TRACE_INFLATE_H
#define PM_TRACE_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Where the compressed bytes come from: fills out with at most n bytes; 0 at the end, or -PM_E…. */
typedef int64_t (*pm_inflate_read_fn)(void *arg, uint8_t *out, size_t n);

enum pm_inflate_end {
    PM_INFLATE_GOING,
    PM_INFLATE_COMPLETE, /* the last member is whole */
    PM_INFLATE_CUT,      /* the compressed bytes end inside a member */
    PM_INFLATE_DAMAGED,  /* they are no gzip from `consumed` on, or a checksum is wrong */
};

enum pm_inflate_library { PM_INFLATE_BEST, PM_INFLATE_ZLIB, PM_INFLATE_ISAL };

struct pm_inflate {
    pm_inflate_read_fn read;
    void *arg;
    uint8_t *input;   /* PM_INFLATE_INPUT bytes, the last few of the earlier piece before them */
    size_t next, end; /* what is left of the input */
    bool within;      /* inside a member */
    bool input_ended;
    int status; /* of read */
    enum pm_inflate_end state;
    uint64_t consumed; /* compressed bytes used up */
    uint64_t trailing; /* bytes behind the last member that are no gzip */
    uint32_t members;
    enum pm_inflate_library inflater;
    void *codec;
};

/* 0, -PM_ENOMEM, or -PM_EUNSUPPORTED when the build lacks that library. */
PM_MUST_USE int pm_inflate_init(struct pm_inflate *gz, pm_inflate_read_fn read, void *arg,
                                enum pm_inflate_library library);
void pm_inflate_release(struct pm_inflate *gz);

/* Up to n bytes of text; 0 at the end (see state), or the failure of read. What came before
 * damage is given out. */
int64_t pm_inflate_read(struct pm_inflate *gz, uint8_t *out, size_t n);

#endif
