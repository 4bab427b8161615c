/*
 * Protocol buffers, as much as a trace needs: fields appended to a pm_buf
 * (https://protobuf.dev/programming-guides/encoding/). A message within a message is made in place:
 * its length takes four bytes (a varint may be padded), so that it can be put in afterwards.
 * Failures stick in the buffer. One thread.
 */
#ifndef PM_VIEW_PERFETTO_PROTO_H
#define PM_VIEW_PERFETTO_PROTO_H

#include <string.h>

#include "base/buf.h"

#define PM_PROTO_LENGTH_MAX ((1u << 28) - 1) /* what four bytes of a varint hold */

static inline void pm_proto_varint(struct pm_buf *buf, uint64_t value)
{
    char *at = pm_buf_reserve(buf, 10);
    if (at == NULL)
        return;
    char *end = at;
    for (; value >= 0x80; value >>= 7)
        *end++ = (char)(value | 0x80);
    *end++ = (char)value;
    pm_buf_advance(buf, (size_t)(end - at));
}

static inline void pm_proto_u64(struct pm_buf *buf, unsigned field, uint64_t value)
{
    pm_proto_varint(buf, (uint64_t)field << 3 | 0);
    pm_proto_varint(buf, value);
}

static inline void pm_proto_fixed64(struct pm_buf *buf, unsigned field, uint64_t value)
{
    pm_proto_varint(buf, (uint64_t)field << 3 | 1);
    (void)pm_buf_add(buf, &value, sizeof(value));
}

static inline void pm_proto_double(struct pm_buf *buf, unsigned field, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    pm_proto_fixed64(buf, field, bits);
}

/* The bytes of a string field, which should be UTF-8. */
void pm_proto_text(struct pm_buf *buf, unsigned field, const char *text);

/* Opens a message field; the result goes to pm_proto_end. */
static inline size_t pm_proto_begin(struct pm_buf *buf, unsigned field)
{
    static const char room[4] = {0};
    pm_proto_varint(buf, (uint64_t)field << 3 | 2);
    (void)pm_buf_add(buf, room, sizeof(room));
    return buf->used;
}

static inline void pm_proto_end(struct pm_buf *buf, size_t begun)
{
    const size_t bytes = buf->used - begun;
    if (pm_buf_status(buf) != 0)
        return;
    char *at = buf->data + begun - 4;
    at[0] = (char)((bytes & 0x7f) | 0x80);
    at[1] = (char)((bytes >> 7 & 0x7f) | 0x80);
    at[2] = (char)((bytes >> 14 & 0x7f) | 0x80);
    at[3] = (char)(bytes >> 21 & 0x7f);
}

#endif
