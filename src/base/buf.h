/*
 * A growing byte buffer with a ceiling set at birth. Used by the writers of CSV, JSON and reports;
 * one thread at a time. Owns its bytes.
 *
 * Failures stick: after the first one (no memory, or the ceiling) nothing more is added and every
 * verb returns that code, so that a writer may check once at its end (pm_buf_status). The bytes
 * kept are then whole appends, never half of one.
 */
#ifndef PM_BASE_BUF_H
#define PM_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct pm_buf {
    char *data;     /* not NUL-terminated, see pm_buf_text; NULL while nothing was added */
    size_t used;    /* bytes in use */
    size_t size;    /* bytes allocated */
    size_t ceiling; /* never more than this many */
    int status;     /* 0 or the first failure */
};

/* Empty, allocates nothing. A ceiling of 0 counts as 1. */
void pm_buf_init(struct pm_buf *buf, size_t ceiling_bytes);

/* Frees the bytes; the buffer is then as after pm_buf_init with the same ceiling. */
void pm_buf_release(struct pm_buf *buf);

/* Forgets the bytes and a failure, keeps the memory. */
void pm_buf_clear(struct pm_buf *buf);

/* 0, -PM_ENOMEM or -PM_ELIMIT. */
static inline int pm_buf_status(const struct pm_buf *buf)
{
    return buf->status;
}

/* The slow half of pm_buf_reserve. */
char *pm_buf_grow(struct pm_buf *buf, size_t bytes);

/* Room for bytes more, to be filled and then counted with pm_buf_advance; NULL after a failure. */
static inline char *pm_buf_reserve(struct pm_buf *buf, size_t bytes)
{
    if (__builtin_expect(buf->size - buf->used >= bytes && buf->status == 0 && buf->size != 0, 1))
        return buf->data + buf->used;
    return pm_buf_grow(buf, bytes);
}
static inline void pm_buf_advance(struct pm_buf *buf, size_t bytes)
{
    buf->used += bytes;
}

/* These return pm_buf_status. */
int pm_buf_add(struct pm_buf *buf, const void *bytes, size_t n);
int pm_buf_add_text(struct pm_buf *buf, const char *text);
int pm_buf_add_char(struct pm_buf *buf, char c);
int pm_buf_printf(struct pm_buf *buf, const char *format, ...) PM_PRINTF(2, 3);

/* The bytes as text with a NUL after them (not counted); "" after a failure to make room for it. */
const char *pm_buf_text(struct pm_buf *buf);

/* Writes all bytes to a descriptor, however often it takes, and clears the buffer. 0, the buffer's
 * failure, or that of write (-PM_ENOSPACE, -PM_EIO, …); bytes not yet written are then kept. */
PM_MUST_USE int pm_buf_flush(struct pm_buf *buf, int fd);

#endif
