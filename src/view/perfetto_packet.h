/*
 * Perfetto's packets, for whoever writes a sequence of them: the field numbers of
 * protos/perfetto/trace of the Perfetto project, and a packet's begin and end on its way into a
 * file.
 */
#ifndef PM_VIEW_PERFETTO_PACKET_H
#define PM_VIEW_PERFETTO_PACKET_H

#include <stdio.h>

#include "view/perfetto_proto.h"

/* Trace, TracePacket */
enum {
    TRACE_PACKET = 1,
    PACKET_CLOCK_SNAPSHOT = 6,
    PACKET_TIMESTAMP = 8,
    PACKET_SEQUENCE_ID = 10,
    PACKET_TRACK_EVENT = 11,
    PACKET_INTERNED_DATA = 12,
    PACKET_SEQUENCE_FLAGS = 13,
    PACKET_DEFAULTS = 59,
    PACKET_TRACK_DESCRIPTOR = 60,
    DEFAULTS_CLOCK_ID = 58,
    SEQUENCE_CLEARED = 1,
    SEQUENCE_NEEDS_STATE = 2,
};
/* Sequences of one file, each with interned names of its own. */
enum { SEQUENCE_OF_SESSION = 1, SEQUENCE_OF_TORCH = 2 };
/* ClockSnapshot, and BuiltinClock */
enum { SNAPSHOT_CLOCKS = 1, SNAPSHOT_PRIMARY = 2, CLOCK_ID = 1, CLOCK_TIMESTAMP = 2 };
enum { CLOCK_REAL = 1, CLOCK_MONO = 3 };
/* TrackDescriptor, ProcessDescriptor, CounterDescriptor */
enum {
    TRACK_UUID = 1,
    TRACK_NAME = 2,
    TRACK_PROCESS = 3,
    TRACK_PARENT = 5,
    TRACK_COUNTER = 8,
    TRACK_CHILD_ORDERING = 11,
    ORDER_CHRONOLOGICAL = 2,
    PROCESS_PID = 1,
    PROCESS_NAME = 6,
    COUNTER_UNIT_NAME = 6,
};
/* TrackEvent, DebugAnnotation */
enum {
    EVENT_CATEGORY_IID = 3,
    EVENT_ANNOTATION = 4,
    EVENT_TYPE = 9,
    EVENT_NAME_IID = 10,
    EVENT_TRACK = 11,
    EVENT_CATEGORY = 22,
    EVENT_NAME = 23,
    EVENT_DOUBLE_COUNTER = 44,
    EVENT_FLOW = 47,
    EVENT_FLOW_ENDS = 48,
    TYPE_BEGIN = 1,
    TYPE_END = 2,
    TYPE_INSTANT = 3,
    TYPE_COUNTER = 4,
    ANNOTATION_NAME_IID = 1,
    ANNOTATION_UINT = 3,
    ANNOTATION_TEXT = 6,
    ANNOTATION_NAME = 10,
};
/* InternedData: in all three messages 1 is the number and 2 the name */
enum { INTERNED_CATEGORIES = 1, INTERNED_NAMES = 2, INTERNED_ANNOTATIONS = 3 };

/* Packets on their way out; buf is the caller's to initialise and to release. */
struct pm_packets {
    FILE *out;
    struct pm_buf buf;
    unsigned sequence;
};

/* Writes what is held; with at_least 0 all of it. 0 or -PM_E…. */
PM_MUST_USE int pm_packets_spill(struct pm_packets *packets, size_t at_least);
/* Begins a packet of the sequence; flags: SEQUENCE_… The result is for pm_packet_end. */
PM_MUST_USE size_t pm_packet_begin(struct pm_packets *packets, unsigned flags);
/* A failure sticks in the buffer, and in the stream: the next spill tells it, too. */
int pm_packet_end(struct pm_packets *packets, size_t packet);

#endif
