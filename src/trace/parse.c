/*
 * The outer structure of a trace file, piece by piece (see parse.h). One thread.
 */
#include "trace/parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum pm_parse_result pm_parse_bad(struct pm_parse *parse, uint32_t at, const char *expected)
{
    if (at >= parse->used)
        return PM_PARSE_MORE;
    parse->bad_at = at;
    parse->expected = expected;
    return PM_PARSE_BAD;
}

void pm_parse_skip_space(struct pm_parse *parse)
{
    const uint8_t *text = parse->text;
    uint32_t p = parse->p;
    while (text[p] == ' ' || text[p] == '\n' || text[p] == '\r' || text[p] == '\t')
        p++;
    parse->p = p;
}

/* ---- values and keys of the outer object ----------------------------------------------------- */

enum pm_parse_result pm_parse_skip_value(struct pm_parse *parse)
{
    const uint32_t *at = parse->scan.at;
    const uint8_t *text = parse->text;
    uint8_t first = text[parse->p];
    if (first == '"') {
        if (parse->i + 1 >= parse->scan.n)
            return PM_PARSE_MORE;
        parse->p = at[parse->i + 1] + 1;
        parse->i += 2;
        return PM_PARSE_OK;
    }
    if (first == '{' || first == '[') {
        uint32_t depth = 0;
        do {
            if (parse->i >= parse->scan.n)
                return PM_PARSE_MORE;
            uint8_t b = text[at[parse->i++]];
            if (b != '"')
                depth += (uint32_t)((b & 4) != 0 ? -1 : 1);
        } while (depth > 0);
        parse->p = at[parse->i - 1] + 1;
        return PM_PARSE_OK;
    }
    if (memchr("0123456789-tfnNIi", first, 17) == NULL)
        return pm_parse_bad(parse, parse->p, "a value");
    uint32_t p = parse->p;
    while (p < parse->used &&
           (isalnum(text[p]) || text[p] == '.' || text[p] == '+' || text[p] == '-'))
        p++;
    if (p == parse->used)
        return PM_PARSE_MORE;
    /* A quote or an opening bracket here would leave the scan's idea of strings. */
    if (text[p] > ' ' && text[p] != ',' && text[p] != ']' && text[p] != '}')
        return pm_parse_bad(parse, p, "the end of a value");
    parse->p = p;
    return PM_PARSE_OK;
}

enum pm_parse_result pm_parse_key(struct pm_parse *parse, struct pm_span *ret_key)
{
    if (parse->text[parse->p] != '"')
        return pm_parse_bad(parse, parse->p, "a key in quotes");
    uint32_t open = parse->p;
    enum pm_parse_result result = pm_parse_skip_value(parse);
    if (result != PM_PARSE_OK)
        return result;
    *ret_key = (struct pm_span){open + 1, parse->p - open - 2};
    pm_parse_skip_space(parse);
    if (parse->text[parse->p] != ':')
        return pm_parse_bad(parse, parse->p, "a colon after a key");
    parse->p++;
    pm_parse_skip_space(parse);
    return parse->p >= parse->used ? PM_PARSE_MORE : PM_PARSE_OK;
}

enum pm_parse_result pm_parse_next(struct pm_parse *parse, char close, bool *ret_closed)
{
    pm_parse_skip_space(parse);
    uint8_t b = parse->text[parse->p];
    *ret_closed = b == (uint8_t)close;
    if (*ret_closed)
        parse->i++;
    else if (b != ',')
        return pm_parse_bad(parse, parse->p, close == '}' ? "a comma or `}`" : "a comma or `]`");
    parse->p++;
    if (!*ret_closed)
        pm_parse_skip_space(parse);
    return PM_PARSE_OK;
}

/* ---- the states ------------------------------------------------------------------------------ */

static enum pm_parse_result at_start(struct pm_parse *parse)
{
    if (parse->base == 0 && parse->p == 0) {
        if (parse->used < 3)
            return PM_PARSE_MORE;
        if (memcmp(parse->text, "\xEF\xBB\xBF", 3) == 0) /* a byte order mark */
            parse->p = 3;
    }
    pm_parse_skip_space(parse);
    parse->whole = parse->p;
    uint8_t b = parse->text[parse->p];
    if (b != '{' && b != '[')
        return pm_parse_bad(parse, parse->p, "the `{` or `[` that a trace begins with");
    parse->array_only = b == '[';
    parse->state = parse->array_only ? PM_IN_EVENTS : PM_AT_KEY;
    parse->i++;
    parse->whole = ++parse->p;
    return PM_PARSE_OK;
}

static bool key_is(const struct pm_parse *parse, struct pm_span key, const char *name)
{
    uint8_t plain[128];
    if (parse->scan.backslash && key.len <= sizeof(plain) &&
        memchr(parse->text + key.at, '\\', key.len) != NULL) {
        size_t n = pm_value_unescape(parse->text + key.at, key.len, plain);
        return n == strlen(name) && memcmp(plain, name, n) == 0;
    }
    return key.len == strlen(name) && memcmp(parse->text + key.at, name, key.len) == 0;
}

static enum pm_parse_result whole_member(struct pm_parse *parse, struct pm_span key)
{
    enum pm_parse_result result = pm_parse_skip_value(parse);
    if (result != PM_PARSE_OK)
        return result;
    parse->whole = parse->p;
    parse->status = parse->on_member(parse, key.at - 1, parse->p);
    return parse->status != 0 ? PM_PARSE_FAILED : PM_PARSE_OK;
}

static enum pm_parse_result at_key(struct pm_parse *parse)
{
    struct pm_span key;
    bool taken = false;
    pm_parse_skip_space(parse);
    while (parse->text[parse->p] == ',') {
        parse->p++;
        pm_parse_skip_space(parse);
    }
    parse->whole = parse->p;
    if (parse->text[parse->p] == '}') {
        parse->i++;
        parse->whole = ++parse->p;
        parse->state = PM_AT_END;
        return PM_PARSE_OK;
    }
    enum pm_parse_result result = pm_parse_key(parse, &key);
    if (result != PM_PARSE_OK)
        return result;
    uint8_t first = parse->text[parse->p];
    if (first == '[' && key_is(parse, key, "traceEvents")) {
        /* A second one replaces the first, as it would in Python. */
        struct pm_trace *trace = parse->trace;
        trace->events.n = 0;
        trace->all_events = trace->flow_events = trace->incomplete = 0;
        memset(trace->counted, 0, sizeof(trace->counted));
        parse->state = PM_IN_EVENTS;
        parse->i++;
        parse->whole = ++parse->p;
        return PM_PARSE_OK;
    }
    if (parse->on_member != NULL)
        return whole_member(parse, key);
    result = pm_parse_header(parse, key, &taken);
    if (result == PM_PARSE_OK && !taken) {
        if (first == '{' || first == '[') {
            parse->state = PM_IN_SKIP;
            parse->skip_depth = 0;
            parse->whole = parse->p;
            return PM_PARSE_OK;
        }
        result = pm_parse_skip_value(parse);
    }
    if (result == PM_PARSE_OK)
        parse->whole = parse->p;
    return result;
}

static enum pm_parse_result in_events(struct pm_parse *parse)
{
    struct pm_event event;
    for (;;) {
        pm_parse_skip_space(parse);
        while (parse->text[parse->p] == ',') {
            parse->p++;
            pm_parse_skip_space(parse);
        }
        parse->whole = parse->p;
        uint8_t b = parse->text[parse->p];
        if (__builtin_expect(b != '{', 0)) {
            if (b == ']') {
                parse->i++;
                parse->whole = ++parse->p;
                parse->events_done = true;
                parse->state = parse->array_only ? PM_AT_END : PM_AT_KEY;
                return PM_PARSE_OK;
            }
            enum pm_parse_result result = pm_parse_skip_value(parse);
            if (result != PM_PARSE_OK)
                return result;
            continue;
        }
        enum pm_parse_result result = pm_parse_event(parse, &event);
        if (result != PM_PARSE_OK)
            return result;
        parse->whole = parse->p;
        parse->last_whole = parse->base + parse->p;
        int err = parse->on_event(parse, &event);
        parse->trace->all_events++;
        if (__builtin_expect(err != 0, 0)) {
            parse->status = err;
            return PM_PARSE_FAILED;
        }
    }
}

/* A value that may be larger than any piece: brackets are counted, nothing is kept. */
static enum pm_parse_result in_skip(struct pm_parse *parse)
{
    const uint32_t *at = parse->scan.at;
    while (parse->i < parse->scan.n) {
        uint8_t b = parse->text[at[parse->i]];
        if (b == '"') {
            if (parse->i + 1 >= parse->scan.n) {
                parse->whole = at[parse->i];
                return PM_PARSE_MORE;
            }
            parse->i += 2;
            continue;
        }
        parse->skip_depth += (uint32_t)((b & 4) != 0 ? -1 : 1);
        parse->i++;
        if (parse->skip_depth == 0) {
            parse->whole = parse->p = at[parse->i - 1] + 1;
            parse->state = PM_AT_KEY;
            return PM_PARSE_OK;
        }
    }
    /* Backslashes outside of strings are damage, which must not depend on where a piece ends: the
     * scan takes the byte after one for escaped. */
    uint32_t whole = (uint32_t)parse->used;
    while (whole > parse->p && parse->text[whole - 1] == '\\')
        whole--;
    parse->whole = parse->p = whole;
    return PM_PARSE_MORE;
}

static enum pm_parse_result walk(struct pm_parse *parse)
{
    enum pm_parse_result result;
    do {
        switch (parse->state) {
        case PM_AT_START:
            result = at_start(parse);
            break;
        case PM_AT_KEY:
            result = at_key(parse);
            break;
        case PM_IN_EVENTS:
            result = in_events(parse);
            break;
        case PM_IN_SKIP:
            result = in_skip(parse);
            break;
        case PM_AT_END:
        default:
            return PM_PARSE_OK;
        }
    } while (result == PM_PARSE_OK);
    return result;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

/* Makes room for at least want bytes behind the used ones. */
static int make_room(struct pm_parse *parse, size_t want)
{
    size_t size = parse->size;
    if (size - parse->used >= want)
        return 0;
    while (size - parse->used < want)
        size *= 2;
    if (size > PM_PARSE_MAX_ITEM * 2ull)
        return -PM_ELIMIT;
    uint8_t *text = realloc(parse->text, size + PM_SCAN_PADDING);
    if (text == NULL)
        return -PM_ENOMEM;
    parse->text = text;
    uint32_t *at = realloc(parse->scan.at, (size + PM_SCAN_PADDING) * sizeof(*at));
    if (at == NULL)
        return -PM_ENOMEM;
    parse->scan.at = at;
    parse->size = size;
    return 0;
}

/* Drops what is done with, reads on and scans. *ret_ended: nothing more came. */
static int refill(struct pm_parse *parse, bool *ret_ended)
{
    size_t keep = parse->used - parse->whole;
    memmove(parse->text, parse->text + parse->whole, keep);
    parse->base += parse->whole;
    parse->used = keep;
    parse->whole = 0;
    int err = make_room(parse, parse->chunk);
    if (err != 0)
        return err;
    size_t before = parse->used;
    while (parse->used - before < parse->chunk) {
        int64_t got = pm_trace_source_read(parse->source, parse->text + parse->used,
                                           parse->chunk - (parse->used - before));
        if (got < 0)
            return (int)got;
        if (got == 0)
            break;
        parse->used += (size_t)got;
    }
    *ret_ended = parse->used == before;
    memset(parse->text + parse->used, 0, PM_SCAN_PADDING);
    pm_scan_text(&parse->scan, parse->text, parse->used, (enum pm_scan_kind)parse->scan_kind);
    for (unsigned k = 0; k < PM_SCAN_PADDING; k++)
        parse->scan.at[parse->scan.n + k] = (uint32_t)parse->used;
    parse->i = 0;
    parse->p = 0;
    return 0;
}

/* Reads and counts the rest of the text. */
static int drain(struct pm_parse *parse, uint64_t *ret_bytes)
{
    uint64_t total = parse->base + parse->used;
    for (;;) {
        int64_t got = pm_trace_source_read(parse->source, parse->text, parse->size);
        if (got < 0)
            return (int)got;
        if (got == 0)
            break;
        total += (uint64_t)got;
    }
    *ret_bytes = total;
    return 0;
}

static void note_loss(struct pm_parse *parse, int code, uint64_t at, const char *expected)
{
    struct pm_trace *trace = parse->trace;
    struct pm_trace_loss *loss = &trace->loss;
    *loss = (struct pm_trace_loss){.code = code, .at = at, .after_events = parse->events_done};
    loss->lost_bytes = trace->json_bytes > parse->last_whole && !parse->events_done
                           ? trace->json_bytes - parse->last_whole
                           : 0;
    size_t n = expected != NULL ? strnlen(expected, sizeof(loss->expected) - 1) : 0;
    if (n > 0)
        memcpy(loss->expected, expected, n);
    if (trace->source.gzip && trace->source.state != PM_INFLATE_COMPLETE) {
        loss->in_gzip = true;
        loss->gzip_at = trace->source.consumed;
        loss->gzip_lost = trace->source.file_bytes > trace->source.consumed
                              ? trace->source.file_bytes - trace->source.consumed
                              : 0;
        if (trace->source.state == PM_INFLATE_DAMAGED)
            loss->code = -PM_ECORRUPT;
    }
}

int pm_parse_run(struct pm_parse *parse)
{
    struct pm_trace *trace = parse->trace;
    enum pm_parse_result result = PM_PARSE_MORE;
    bool ended = false;
    int err = 0;
    if (parse->chunk == 0)
        parse->chunk = PM_PARSE_CHUNK;
    parse->size = parse->chunk + 16384;
    parse->text = malloc(parse->size + PM_SCAN_PADDING);
    parse->scan.at = malloc((parse->size + PM_SCAN_PADDING) * sizeof(*parse->scan.at));
    if (parse->text == NULL || parse->scan.at == NULL)
        err = -PM_ENOMEM;
    while (err == 0 && result == PM_PARSE_MORE && !ended) {
        err = refill(parse, &ended);
        if (err == 0 && !(ended && parse->used == 0))
            result = walk(parse);
    }
    uint64_t bad_at = parse->base + parse->bad_at;
    int limit = 0;
    if (err == -PM_ELIMIT) { /* one item larger than we take: what came before it is kept */
        limit = err;
        err = 0;
    }
    if (err == 0 && result == PM_PARSE_FAILED)
        err = parse->status;
    if (err == 0)
        err = drain(parse, &trace->json_bytes);
    pm_trace_source_how_ended(parse->source, &trace->source);
    if (err == 0) {
        bool cut_gzip = trace->source.state != PM_INFLATE_COMPLETE;
        if (limit != 0)
            note_loss(parse, limit, parse->base, "an event of at most 64 MiB");
        else if (result == PM_PARSE_BAD)
            note_loss(parse, -PM_ECORRUPT, bad_at, parse->expected);
        else if (result == PM_PARSE_MORE || cut_gzip)
            note_loss(parse, -PM_ETRUNCATED, trace->json_bytes, NULL);
    }
    free(parse->text);
    free(parse->scan.at);
    free(parse->scratch);
    parse->text = NULL;
    parse->scan.at = NULL;
    parse->scratch = NULL;
    return err;
}
