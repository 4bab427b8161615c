/*
 * The parser's insides: walks the positions that the scan found and gathers one event at a time.
 * Shared by parse.c (the file's outer structure), event.c (one event), value.c (numbers and
 * strings), store.c (into the columns) and cut.c. One thread.
 *
 * Text comes in pieces. A piece ends anywhere; whatever is not whole (an event, a key with its
 * value) is moved to the front and scanned again with the next piece. So every function may look
 * at the whole item, and meeting the end simply means "not whole yet".
 */
#ifndef PM_TRACE_PARSE_H
#define PM_TRACE_PARSE_H

#include "trace/scan.h"
#include "trace/trace.h"

#define PM_PARSE_CHUNK (256u * 1024)
#define PM_PARSE_MAX_ITEM (64u * 1024 * 1024) /* a larger event ends the reading */

enum pm_parse_result {
    PM_PARSE_OK = 0,
    PM_PARSE_MORE = 1,   /* the text ends first */
    PM_PARSE_BAD = 2,    /* no JSON, or not of the expected form: at, expected */
    PM_PARSE_FAILED = 3, /* status */
};

/* A piece of the text. Values: as in the file, strings without their quotes. */
struct pm_span {
    uint32_t at, len;
};

/* What was found in an event; a field is valid when its bit is in `has`. */
enum pm_field {
    PM_HAS_PH = 1u << 0,
    PM_HAS_CAT = 1u << 1,
    PM_HAS_NAME = 1u << 2,
    PM_HAS_PID = 1u << 3,
    PM_HAS_TID = 1u << 4,
    PM_HAS_TS = 1u << 5,
    PM_HAS_DUR = 1u << 6,
    PM_HAS_EXT = 1u << 7,
    PM_HAS_CORR = 1u << 8,
    PM_HAS_SEQ = 1u << 9,
    PM_HAS_FWD = 1u << 10,
    PM_HAS_DIMS = 1u << 11,
    PM_HAS_STACK = 1u << 12,
    PM_HAS_CONCRETE = 1u << 13,
    PM_HAS_BYTES = 1u << 14,
    PM_HAS_STREAM = 1u << 15,
    PM_HAS_DEVICE = 1u << 16,
    PM_HAS_GRID = 1u << 17,
    PM_HAS_BLOCK = 1u << 18,
    PM_HAS_GRAPH_NODE = 1u << 19,
    PM_HAS_COLLECTIVE = 1u << 20,
    PM_HAS_OCCUPANCY = 1u << 21,
    PM_HAS_DEVICE_TYPE = 1u << 22,
    PM_HAS_ALLOCATED = 1u << 23,
    PM_HAS_LABEL = 1u << 24, /* args.name or args.labels of a metadata event */
    PM_HAS_DEVICE_ID = 1u << 25,
    PM_HAS_ARGS = ~0x7Fu, /* all that come from args */
};

struct pm_event {
    uint32_t has;
    struct pm_span ph, cat, name, pid, tid;
    struct pm_span dims, stack, concrete, collective, label, grid, block;
    int64_t ts_ns, dur_ns;
    uint64_t ext, corr, seq, fwd, stream_id;
    int64_t bytes;
    uint64_t allocated, graph_node;
    int64_t device, device_id, device_type;
    double occupancy;
    uint32_t begin, end; /* of the whole object in the text */
};

struct pm_parse;

/* Called for every member of the outer object but traceEvents, with the range of the text from its
 * key to the end of its value. 0 or -PM_E…, which ends the parse. */
typedef int (*pm_parse_member_fn)(struct pm_parse *parse, uint32_t begin, uint32_t end);

/* Called for every event of the file, in order. 0 or -PM_E…, which ends the parse. */
typedef int (*pm_parse_event_fn)(struct pm_parse *parse, struct pm_event *event);

enum pm_parse_state {
    PM_AT_START,
    PM_AT_KEY,    /* in the outer object, before a key or its end */
    PM_IN_EVENTS, /* in the array of events */
    PM_IN_SKIP,   /* inside a value of the outer object that does not matter */
    PM_AT_END,
};

struct pm_parse {
    struct pm_trace *trace;
    struct pm_trace_source *source;
    pm_parse_event_fn on_event;
    pm_parse_member_fn on_member; /* NULL: the header's facts are taken, the rest is skipped */
    void *arg;
    int scan_kind;
    bool want_flows; /* the callback looks at arrows ("ph": "s" and "f") too */

    uint8_t *text; /* used bytes, then PM_SCAN_PADDING zeros */
    size_t used, size, chunk;
    struct pm_scan scan;
    size_t scan_room;
    uint64_t base; /* offset in the JSON of text[0] */

    size_t i;       /* next position of the scan */
    uint32_t p;     /* next byte */
    uint32_t whole; /* up to here nothing needs to be looked at again */
    enum pm_parse_state state;
    uint32_t skip_depth;
    bool array_only; /* the file is an array of events, without an object around it */
    bool events_done;
    uint64_t last_whole; /* offset in the JSON behind the last whole event */

    const char *expected; /* of PM_PARSE_BAD */
    uint32_t bad_at;
    int status;

    /* store.c: */
    struct pm_span last_pid, last_tid; /* of last_key */
    char last_key[64];
    uint32_t last_track;
    uint8_t *scratch; /* decoded strings */
    size_t scratch_size;
};

/* Reads all of the source. 0, or -PM_ENOMEM, -PM_EIO, -PM_ELIMIT, -PM_EFORMAT; loss tells of
 * damage. */
PM_MUST_USE int pm_parse_run(struct pm_parse *parse);

/* event.c: the event whose `{` is at position i of the scan. Moves i and p behind it. */
enum pm_parse_result pm_parse_event(struct pm_parse *parse, struct pm_event *event);

/* Moves i and p behind the value that begins at p. */
enum pm_parse_result pm_parse_skip_value(struct pm_parse *parse);
/* Moves p to the next byte that is no white space. */
void pm_parse_skip_space(struct pm_parse *parse);
/* The key at p (p is at its quote), then the colon; p is then at the value. */
enum pm_parse_result pm_parse_key(struct pm_parse *parse, struct pm_span *ret_key);
/* Behind a value: a comma (then p is at what follows it) or the closing bracket (then p is behind
 * it, and *ret_closed is set). */
enum pm_parse_result pm_parse_next(struct pm_parse *parse, char close, bool *ret_closed);
enum pm_parse_result pm_parse_bad(struct pm_parse *parse, uint32_t at, const char *expected);

/* value.c: numbers. p is the first byte; each returns the first byte behind, or NULL when there is
 * no number. Odd values (NaN, infinities, too large) are counted in *odd. */
const uint8_t *pm_value_int(const uint8_t *p, int64_t *ret, uint64_t *odd);
/* Ids keep all 64 bits: negative ones as two's complement, larger ones as a hash. */
const uint8_t *pm_value_id(const uint8_t *p, uint64_t *ret, uint64_t *odd);
/* Microseconds with a fraction, as nanoseconds, rounded half away from zero. */
const uint8_t *pm_value_us(const uint8_t *p, int64_t *ret_ns, uint64_t *odd);
const uint8_t *pm_value_double(const uint8_t *p, double *ret, uint64_t *odd);

/* value.c: a string with its escapes taken out, into out (room for n bytes, never more than n are
 * needed); lone surrogates are written as their three bytes, unknown escapes kept as they are.
 * Returns the length. */
size_t pm_value_unescape(const uint8_t *text, size_t n, uint8_t *out);

/* store.c: into the columns of parse->trace; a pm_parse_event_fn. */
int pm_store_event(struct pm_parse *parse, struct pm_event *event);
/* The number of the string with escapes taken out. */
int pm_store_string(struct pm_parse *parse, struct pm_span span, uint32_t *ret);

/* header.c: distributedInfo, deviceProperties and the other facts about the file. The value is at
 * p; moves behind it. */
enum pm_parse_result pm_parse_header(struct pm_parse *parse, struct pm_span key, bool *ret_taken);

#endif
