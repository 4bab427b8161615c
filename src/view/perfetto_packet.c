/*
 * Perfetto's packets (perfetto_packet.h), and texts in protocol buffers.
 */
#include "view/perfetto_packet.h"

#include "base/utf8.h"
#include "view/outfile.h"

void pm_proto_text(struct pm_buf *buf, unsigned field, const char *text)
{
    const size_t bytes = strlen(text), begun = pm_proto_begin(buf, field);
    for (size_t i = 0; i < bytes;) {
        const size_t length = pm_utf8_length(text + i, bytes - i);
        if (length > 0)
            (void)pm_buf_add(buf, text + i, length);
        else
            (void)pm_buf_add_text(buf, "\xef\xbf\xbd");
        i += length > 0 ? length : 1;
    }
    pm_proto_end(buf, begun);
}

int pm_packets_spill(struct pm_packets *packets, size_t at_least)
{
    struct pm_buf *buf = &packets->buf;
    int rc = pm_buf_status(buf);
    if (rc != 0 || buf->used < at_least)
        return rc;
    if (buf->used > 0 && fwrite(buf->data, 1, buf->used, packets->out) != buf->used)
        rc = -PM_EIO;
    pm_buf_clear(buf);
    return rc;
}

size_t pm_packet_begin(struct pm_packets *packets, unsigned flags)
{
    const size_t packet = pm_proto_begin(&packets->buf, TRACE_PACKET);
    pm_proto_u64(&packets->buf, PACKET_SEQUENCE_ID, packets->sequence);
    pm_proto_u64(&packets->buf, PACKET_SEQUENCE_FLAGS, flags);
    return packet;
}

int pm_packet_end(struct pm_packets *packets, size_t packet)
{
    pm_proto_end(&packets->buf, packet);
    return pm_packets_spill(packets, PM_OUTFILE_SPILL_BYTES);
}
