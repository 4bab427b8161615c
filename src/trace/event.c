/*
 * One event (see parse.h): the hot path of the trace reader.
 *
 * It goes from quote to quote with the positions of the scan: a key is two of them. Members have to
 * be parted as JSON wants it; inside values that nobody uses only brackets and quotes have to come
 * in pairs. One thread.
 */
#include "trace/parse.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

struct cursor {
    const uint8_t *text;
    const uint32_t *at; /* positions, with entries that point to the end behind them */
    uint32_t i, p;
    uint32_t end;
};

INLINE uint64_t load8(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

/* Whether the key is this literal. */
#define IS(literal) (memcmp(key, literal, sizeof(literal) - 1) == 0)

INLINE bool is_space(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The key at position i and the colon; p is then at the value. */
INLINE enum pm_parse_result key_at(struct cursor *c, uint32_t *ret_key, uint32_t *ret_len)
{
    uint32_t open = c->at[c->i], close = c->at[c->i + 1];
    if (close >= c->end)
        return PM_PARSE_MORE;
    c->i += 2;
    *ret_key = open + 1;
    *ret_len = close - open - 1;
    uint32_t p = close + 1;
    while (is_space(c->text[p]))
        p++;
    if (c->text[p] != ':') {
        c->p = p;
        return p >= c->end ? PM_PARSE_MORE : PM_PARSE_BAD;
    }
    p++;
    while (is_space(c->text[p]))
        p++;
    c->p = p;
    return p >= c->end ? PM_PARSE_MORE : PM_PARSE_OK;
}

/* Whether all bytes from `from` to `to` are white space (or controls, which nobody minds). */
INLINE bool is_blank(const uint8_t *text, uint32_t from, uint32_t to)
{
    const uint64_t high = 0x8080808080808080ull, up = 0x5F5F5F5F5F5F5F5Full;
    for (; to - from >= 8; from += 8) {
        uint64_t v = load8(text + from);
        if (((v | ((v & ~high) + up)) & high) != 0)
            return false;
    }
    for (; from < to; from++)
        if (text[from] > ' ')
            return false;
    return true;
}

/* Whether a position is where the next member, or the end of the object, stands: behind the last
 * value there is a comma, or for the end nothing. */
INLINE bool is_next(const struct cursor *c, uint32_t at, uint8_t b, bool first)
{
    uint32_t p = c->p;
    if (b == '"' && !first) {
        while (is_space(c->text[p]))
            p++;
        if (c->text[p] != ',')
            return false;
        p++;
    }
    return p <= at && is_blank(c->text, p, at);
}

/* Skips the value at p. */
INLINE enum pm_parse_result skip(struct cursor *c)
{
    uint8_t first = c->text[c->p];
    if (first == '"') {
        uint32_t close = c->at[c->i + 1];
        if (close >= c->end)
            return PM_PARSE_MORE;
        c->i += 2;
        c->p = close + 1;
        return PM_PARSE_OK;
    }
    if (first != '{' && first != '[') {
        uint32_t p = c->p;
        /* Letters, digits, signs and the point. */
        while ((c->text[p] > ',' && c->text[p] != '}' && c->text[p] != ']') || c->text[p] == '+')
            p++;
        if (p >= c->end)
            return PM_PARSE_MORE;
        if (p == c->p)
            return PM_PARSE_BAD;
        c->p = p;
        return PM_PARSE_OK;
    }
    uint32_t depth = 0;
    for (;;) {
        uint32_t at = c->at[c->i];
        if (at >= c->end)
            return PM_PARSE_MORE;
        c->i++;
        uint8_t b = c->text[at];
        if (b == '"')
            continue;
        depth +=
            (uint32_t)((b & 4) != 0 ? -1 : 1); /* ] 5D and } 7D have bit 2, [ 5B and { 7B not */
        if (depth == 0) {
            c->p = at + 1;
            return PM_PARSE_OK;
        }
    }
}

/* A string value: its span. Anything else is skipped, and *ret_is is false. */
INLINE enum pm_parse_result string_at(struct cursor *c, struct pm_span *ret, bool *ret_is)
{
    *ret_is = c->text[c->p] == '"';
    if (!*ret_is)
        return skip(c);
    uint32_t open = c->at[c->i], close = c->at[c->i + 1];
    if (close >= c->end)
        return PM_PARSE_MORE;
    c->i += 2;
    c->p = close + 1;
    *ret = (struct pm_span){open + 1, close - open - 1};
    return PM_PARSE_OK;
}

/* An array: its span, brackets included. */
INLINE enum pm_parse_result array_at(struct cursor *c, struct pm_span *ret, bool *ret_is)
{
    uint32_t begin = c->p;
    *ret_is = c->text[begin] == '[';
    enum pm_parse_result result = skip(c);
    if (result == PM_PARSE_OK && *ret_is)
        *ret = (struct pm_span){begin, c->p - begin};
    return result;
}

/* A number, also in quotes; read is pm_value_int or one like it. */
#define NUMBER(read, dest, bit)                                                                    \
    do {                                                                                           \
        event->has &= ~(uint32_t)(bit);                                                            \
        const uint8_t *first = c->text + c->p;                                                     \
        const uint8_t *behind = read(*first == '"' ? first + 1 : first, (dest), odd);              \
        if (behind != NULL)                                                                        \
            event->has |= (bit);                                                                   \
        if (behind == NULL || *first == '"') {                                                     \
            enum pm_parse_result r = skip(c);                                                      \
            if (r != PM_PARSE_OK)                                                                  \
                return r;                                                                          \
        } else {                                                                                   \
            c->p = (uint32_t)(behind - c->text);                                                   \
        }                                                                                          \
    } while (0)

#define TEXT(bit, dest, take)                                                                      \
    do {                                                                                           \
        bool is;                                                                                   \
        enum pm_parse_result r = take(c, &(dest), &is);                                            \
        if (r != PM_PARSE_OK)                                                                      \
            return r;                                                                              \
        event->has = is ? event->has | (bit) : event->has & ~(uint32_t)(bit);                      \
    } while (0)

/* One member of args. */
static inline enum pm_parse_result argument(struct cursor *c, const uint8_t *key, uint32_t len,
                                            struct pm_event *event, uint64_t *odd)
{
    switch (len) {
    case 4:
        if (IS("name"))
            TEXT(PM_HAS_LABEL, event->label, string_at);
        else if (IS("grid"))
            TEXT(PM_HAS_GRID, event->grid, array_at);
        else if (IS("size")) /* of a copy, where ROCm has it */
            NUMBER(pm_value_int, &event->bytes, PM_HAS_BYTES);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 5:
        if (IS("bytes") || IS("Bytes"))
            NUMBER(pm_value_int, &event->bytes, PM_HAS_BYTES);
        else if (IS("block"))
            TEXT(PM_HAS_BLOCK, event->block, array_at);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 6:
        if (IS("device"))
            NUMBER(pm_value_int, &event->device, PM_HAS_DEVICE);
        else if (IS("stream"))
            NUMBER(pm_value_id, &event->stream_id, PM_HAS_STREAM);
        else if (IS("labels"))
            TEXT(PM_HAS_LABEL, event->label, string_at);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 9:
        if (IS("Device Id"))
            NUMBER(pm_value_int, &event->device_id, PM_HAS_DEVICE_ID);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 10:
        if (IS("Input Dims") || IS("Input dims"))
            TEXT(PM_HAS_DIMS, event->dims, array_at);
        else if (IS("Call stack"))
            TEXT(PM_HAS_STACK, event->stack, string_at);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 11:
        if (IS("External id") || IS("external id"))
            NUMBER(pm_value_id, &event->ext, PM_HAS_EXT);
        else if (IS("correlation"))
            NUMBER(pm_value_id, &event->corr, PM_HAS_CORR);
        else if (IS("Device Type"))
            NUMBER(pm_value_int, &event->device_type, PM_HAS_DEVICE_TYPE);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 13:
        if (IS("Fwd thread id"))
            NUMBER(pm_value_id, &event->fwd, PM_HAS_FWD);
        else if (IS("graph node id"))
            NUMBER(pm_value_id, &event->graph_node, PM_HAS_GRAPH_NODE);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 15:
        if (IS("Sequence number"))
            NUMBER(pm_value_id, &event->seq, PM_HAS_SEQ);
        else if (IS("Concrete Inputs"))
            TEXT(PM_HAS_CONCRETE, event->concrete, array_at);
        else if (IS("Collective name"))
            TEXT(PM_HAS_COLLECTIVE, event->collective, string_at);
        else if (IS("Total Allocated"))
            NUMBER(pm_value_id, &event->allocated, PM_HAS_ALLOCATED);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 25:
        if (IS("est. achieved occupancy %"))
            NUMBER(pm_value_double, &event->occupancy, PM_HAS_OCCUPANCY);
        else
            return skip(c);
        return PM_PARSE_OK;
    default:
        return skip(c);
    }
}

/* A key with escapes in it, or none: its bytes. Keys of interest are short. */
static const uint8_t *plain_key(const uint8_t *key, uint32_t *len, uint8_t out[160])
{
    if (memchr(key, '\\', *len) == NULL)
        return key;
    if (*len > 150) {
        *len = 0;
        return key;
    }
    *len = (uint32_t)pm_value_unescape(key, *len, out);
    memset(out + *len, 0, 8);
    return out;
}

static enum pm_parse_result arguments(struct cursor *c, bool escapes, struct pm_event *event,
                                      uint64_t *odd)
{
    uint8_t room[160];
    c->i++;
    c->p++;
    for (bool first = true;; first = false) {
        uint32_t at = c->at[c->i], name, len;
        uint8_t b = c->text[at];
        if (__builtin_expect(!is_next(c, at, b, first), 0))
            return at >= c->end ? PM_PARSE_MORE : PM_PARSE_BAD;
        if (b == '}') {
            c->i++;
            c->p = at + 1;
            return PM_PARSE_OK;
        }
        if (b != '"') {
            c->p = at;
            return at >= c->end ? PM_PARSE_MORE : PM_PARSE_BAD;
        }
        enum pm_parse_result result = key_at(c, &name, &len);
        if (result != PM_PARSE_OK)
            return result;
        const uint8_t *key = c->text + name;
        if (__builtin_expect(escapes, 0))
            key = plain_key(key, &len, room);
        result = argument(c, key, len, event, odd);
        if (__builtin_expect(result != PM_PARSE_OK, 0))
            return result;
    }
}

/* A pid or a tid: the raw text of a number, a string with its quotes. */
INLINE enum pm_parse_result raw_at(struct cursor *c, struct pm_span *ret, bool *ret_is)
{
    uint32_t begin = c->p;
    if (c->text[begin] == '"') {
        enum pm_parse_result result = string_at(c, ret, ret_is);
        *ret = (struct pm_span){begin, ret->len + 2};
        return result;
    }
    uint32_t p = begin;
    while (c->text[p] > ' ' && c->text[p] != ',' && c->text[p] != '}' && c->text[p] != '{' &&
           c->text[p] != '[' && c->text[p] != ']')
        p++;
    *ret = (struct pm_span){begin, p - begin};
    *ret_is = p > begin;
    if (!*ret_is)
        return skip(c);
    c->p = p;
    return PM_PARSE_OK;
}

/* One member of the event. */
INLINE enum pm_parse_result member(struct cursor *c, const uint8_t *key, uint32_t len, bool escapes,
                                   struct pm_event *event, uint64_t *odd)
{
    switch (len) {
    case 2:
        if (IS("ph"))
            TEXT(PM_HAS_PH, event->ph, string_at);
        else if (IS("ts"))
            NUMBER(pm_value_us, &event->ts_ns, PM_HAS_TS);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 3:
        if (IS("cat"))
            TEXT(PM_HAS_CAT, event->cat, string_at);
        else if (IS("pid"))
            TEXT(PM_HAS_PID, event->pid, raw_at);
        else if (IS("tid"))
            TEXT(PM_HAS_TID, event->tid, raw_at);
        else if (IS("dur"))
            NUMBER(pm_value_us, &event->dur_ns, PM_HAS_DUR);
        else
            return skip(c);
        return PM_PARSE_OK;
    case 4:
        if (IS("name")) {
            TEXT(PM_HAS_NAME, event->name, string_at);
            return PM_PARSE_OK;
        }
        if (IS("args")) {
            event->has &= ~(uint32_t)PM_HAS_ARGS;
            if (c->text[c->p] == '{')
                return arguments(c, escapes, event, odd);
        }
        return skip(c);
    default:
        return skip(c);
    }
}

/* An arrow, by the `ph` that torch writes first: nobody needs the rest of it. */
INLINE bool is_flow(const struct cursor *c, const struct pm_event *event)
{
    uint8_t ph = c->text[event->ph.at];
    return event->ph.len == 1 && (ph == 's' || ph == 't' || ph == 'f');
}

/* Moves to the bracket that closes the event. */
INLINE enum pm_parse_result rest(struct cursor *c)
{
    uint32_t depth = 1;
    for (;; c->i++) {
        uint32_t at = c->at[c->i];
        if (at >= c->end)
            return PM_PARSE_MORE;
        uint8_t b = c->text[at];
        if (b != '"')
            depth += (uint32_t)((b & 4) != 0 ? -1 : 1);
        if (depth == 0) {
            c->p = at;
            return PM_PARSE_OK;
        }
    }
}

enum pm_parse_result pm_parse_event(struct pm_parse *parse, struct pm_event *event)
{
    struct cursor cursor = {parse->text, parse->scan.at, (uint32_t)parse->i, parse->p,
                            (uint32_t)parse->used};
    struct cursor *c = &cursor;
    uint64_t *odd = &parse->trace->odd_numbers;
    uint64_t odd_before = *odd;
    bool escapes = parse->scan.backslash;
    uint8_t room[160];
    enum pm_parse_result result;
    event->has = 0;
    event->begin = c->at[c->i];
    c->i++;
    c->p = event->begin + 1;
    for (bool first = true;; first = false) {
        uint32_t at = c->at[c->i], name, len;
        uint8_t b = c->text[at];
        if (__builtin_expect(!is_next(c, at, b, first), 0)) {
            result = at >= c->end ? PM_PARSE_MORE : PM_PARSE_BAD;
            break;
        }
        if (b == '}') {
            c->i++;
            event->end = at + 1;
            parse->i = c->i;
            parse->p = event->end;
            return PM_PARSE_OK;
        }
        if (__builtin_expect(b != '"', 0)) {
            c->p = at;
            result = at >= c->end ? PM_PARSE_MORE : PM_PARSE_BAD;
            break;
        }
        result = key_at(c, &name, &len);
        if (__builtin_expect(result != PM_PARSE_OK, 0))
            break;
        const uint8_t *key = c->text + name;
        if (__builtin_expect(escapes, 0))
            key = plain_key(key, &len, room);
        result = member(c, key, len, escapes, event, odd);
        if (__builtin_expect(result != PM_PARSE_OK, 0))
            break;
        if (event->has == PM_HAS_PH && !parse->want_flows && is_flow(c, event)) {
            result = rest(c);
            if (result != PM_PARSE_OK)
                break;
        }
    }
    *odd = odd_before; /* the event is read again, or lost */
    if (result == PM_PARSE_BAD)
        return pm_parse_bad(parse, c->p, "a key, a value or the end of an event");
    return result;
}
