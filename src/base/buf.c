/*
 * The growing byte buffer (see buf.h). One thread at a time.
 */
#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_BYTES 256

void pm_buf_init(struct pm_buf *buf, size_t ceiling_bytes)
{
    *buf = (struct pm_buf){.ceiling = ceiling_bytes > 0 ? ceiling_bytes : 1};
}

void pm_buf_release(struct pm_buf *buf)
{
    free(buf->data);
    pm_buf_init(buf, buf->ceiling);
}

void pm_buf_clear(struct pm_buf *buf)
{
    buf->used = 0;
    buf->status = 0;
}

char *pm_buf_grow(struct pm_buf *buf, size_t bytes)
{
    if (buf->status != 0)
        return NULL;
    if (buf->used > buf->ceiling || bytes > buf->ceiling - buf->used) {
        buf->status = -PM_ELIMIT;
        return NULL;
    }
    size_t wanted = buf->used + bytes;
    size_t size = buf->size < FIRST_BYTES ? FIRST_BYTES : buf->size;
    while (size < wanted)
        size = size > SIZE_MAX / 2 ? wanted : size * 2;
    if (size > buf->ceiling)
        size = buf->ceiling;
    if (size > buf->size) {
        char *data = realloc(buf->data, size);
        if (data == NULL) {
            buf->status = -PM_ENOMEM;
            return NULL;
        }
        buf->data = data;
        buf->size = size;
    }
    return buf->data + buf->used;
}

int pm_buf_add(struct pm_buf *buf, const void *bytes, size_t n)
{
    if (n == 0)
        return buf->status;
    char *out = pm_buf_reserve(buf, n);
    if (out == NULL)
        return buf->status;
    memcpy(out, bytes, n);
    pm_buf_advance(buf, n);
    return 0;
}

int pm_buf_add_text(struct pm_buf *buf, const char *text)
{
    return pm_buf_add(buf, text, strlen(text));
}

int pm_buf_add_char(struct pm_buf *buf, char c)
{
    char *out = pm_buf_reserve(buf, 1);
    if (out == NULL)
        return buf->status;
    *out = c;
    pm_buf_advance(buf, 1);
    return 0;
}

int pm_buf_printf(struct pm_buf *buf, const char *format, ...)
{
    char small[256];
    va_list args, again;
    if (buf->status != 0)
        return buf->status;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (length < 0) {
        buf->status = -PM_EINVALID;
    } else if ((size_t)length < sizeof small) {
        (void)pm_buf_add(buf, small, (size_t)length);
    } else {
        /* vsnprintf wants room for a NUL, which the ceiling does not count */
        char *large = malloc((size_t)length + 1);
        if (large == NULL) {
            buf->status = -PM_ENOMEM;
        } else {
            (void)vsnprintf(large, (size_t)length + 1, format, again);
            (void)pm_buf_add(buf, large, (size_t)length);
            free(large);
        }
    }
    va_end(again);
    return buf->status;
}

const char *pm_buf_text(struct pm_buf *buf)
{
    if (buf->used == buf->size) {
        /* one byte beyond the size, which stays as it is: the ceiling does not count the NUL */
        char *data = realloc(buf->data, buf->used + 1);
        if (data == NULL)
            return "";
        buf->data = data;
    }
    buf->data[buf->used] = '\0';
    return buf->data;
}

int pm_buf_flush(struct pm_buf *buf, int fd)
{
    size_t written = 0;
    int status = buf->status;
    while (status == 0 && written < buf->used) {
        ssize_t n = write(fd, buf->data + written, buf->used - written);
        if (n >= 0)
            written += (size_t)n;
        else if (errno != EINTR)
            status = pm_error_from_errno(errno);
    }
    buf->used -= written;
    if (written > 0 && buf->used > 0)
        memmove(buf->data, buf->data + written, buf->used);
    return status;
}
