/*
 * The streaming JSON writer (see json.h). One thread at a time, writes into the caller's buffer.
 */
#include "base/json.h"

#include <string.h>

#include "base/number.h"
#include "base/utf8.h"

void pm_json_init(struct pm_json *json, struct pm_buf *buf, unsigned indent)
{
    *json = (struct pm_json){.buf = buf, .indent = indent};
}

static void misuse(struct pm_json *json)
{
    if (json->status == 0)
        json->status = -PM_EINVALID;
}

/* A new line at the present depth, where lines are wanted. */
static void new_line(struct pm_json *json)
{
    if (json->indent == 0)
        return;
    size_t blanks = (size_t)json->indent * json->depth;
    char *out = pm_buf_reserve(json->buf, blanks + 1);
    if (out == NULL)
        return;
    out[0] = '\n';
    memset(out + 1, ' ', blanks);
    pm_buf_advance(json->buf, blanks + 1);
}

/* The comma before a member, if it is not the first. */
static void begin_member(struct pm_json *json)
{
    if (json->filled[json->depth - 1])
        (void)pm_buf_add_char(json->buf, ',');
    json->filled[json->depth - 1] = true;
    new_line(json);
}

/* What stands before any value; false where none may come. */
static bool begin_value(struct pm_json *json)
{
    bool wrong = json->depth == 0 ? json->done : json->object[json->depth - 1] && !json->has_key;
    if (wrong || json->status != 0) {
        misuse(json);
        return false;
    }
    if (json->depth == 0)
        json->done = true;
    else if (!json->object[json->depth - 1])
        begin_member(json);
    json->has_key = false;
    return true;
}

static void open_level(struct pm_json *json, bool object)
{
    if (json->depth == PM_JSON_DEPTH)
        misuse(json);
    if (!begin_value(json))
        return;
    json->object[json->depth] = object;
    json->filled[json->depth] = false;
    json->depth++;
    (void)pm_buf_add_char(json->buf, object ? '{' : '[');
}

void pm_json_object(struct pm_json *json)
{
    open_level(json, true);
}

void pm_json_array(struct pm_json *json)
{
    open_level(json, false);
}

void pm_json_end(struct pm_json *json)
{
    if (json->status != 0 || json->depth == 0 || json->has_key) {
        misuse(json);
        return;
    }
    json->depth--;
    if (json->filled[json->depth])
        new_line(json);
    (void)pm_buf_add_char(json->buf, json->object[json->depth] ? '}' : ']');
}

int pm_json_finish(struct pm_json *json)
{
    if (json->depth != 0 || !json->done)
        misuse(json);
    if (json->status != 0)
        return json->status;
    return pm_buf_add_char(json->buf, '\n');
}

/* ---- text ---- */

/* Whether a byte stands for itself inside quotes. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void put_escape(struct pm_buf *buf, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *found = c != '\0' ? strchr(from, c) : NULL;
    if (found != NULL) {
        char pair[2] = {'\\', to[found - from]};
        (void)pm_buf_add(buf, pair, sizeof pair);
    } else {
        char code[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        (void)pm_buf_add(buf, code, sizeof code);
    }
}

static void put_quoted(struct pm_buf *buf, const char *text, size_t bytes)
{
    (void)pm_buf_add_char(buf, '"');
    for (size_t at = 0; at < bytes;) {
        size_t run = at;
        while (run < bytes && is_plain((unsigned char)text[run]))
            run++;
        (void)pm_buf_add(buf, text + at, run - at);
        at = run;
        if (at == bytes)
            break;
        size_t length = pm_utf8_length(text + at, bytes - at);
        if (length == 1)
            put_escape(buf, (unsigned char)text[at]);
        else if (length == 0)
            (void)pm_buf_add(buf, "\xef\xbf\xbd", 3);
        else
            (void)pm_buf_add(buf, text + at, length);
        at += length > 0 ? length : 1;
    }
    (void)pm_buf_add_char(buf, '"');
}

void pm_json_key(struct pm_json *json, const char *key)
{
    if (json->status != 0 || json->depth == 0 || !json->object[json->depth - 1] || json->has_key) {
        misuse(json);
        return;
    }
    begin_member(json);
    put_quoted(json->buf, key, strlen(key));
    (void)pm_buf_add(json->buf, ": ", json->indent > 0 ? 2 : 1);
    json->has_key = true;
}

void pm_json_text_bytes(struct pm_json *json, const char *text, size_t bytes)
{
    if (begin_value(json))
        put_quoted(json->buf, text, bytes);
}

void pm_json_text(struct pm_json *json, const char *text)
{
    if (text == NULL)
        pm_json_null(json);
    else
        pm_json_text_bytes(json, text, strlen(text));
}

/* ---- other values ---- */

void pm_json_raw(struct pm_json *json, const char *bytes, size_t n)
{
    if (begin_value(json))
        (void)pm_buf_add(json->buf, bytes, n);
}

void pm_json_null(struct pm_json *json)
{
    pm_json_raw(json, "null", 4);
}

void pm_json_bool(struct pm_json *json, bool value)
{
    pm_json_raw(json, value ? "true" : "false", value ? 4 : 5);
}

void pm_json_u64(struct pm_json *json, uint64_t value)
{
    char text[PM_NUMBER_MAX];
    pm_json_raw(json, text, (size_t)(pm_number_u64(text, value) - text));
}

void pm_json_i64(struct pm_json *json, int64_t value)
{
    char text[PM_NUMBER_MAX];
    pm_json_raw(json, text, (size_t)(pm_number_i64(text, value) - text));
}

void pm_json_fixed(struct pm_json *json, uint64_t value, unsigned scale, unsigned decimals)
{
    char text[PM_NUMBER_MAX];
    pm_json_raw(json, text, (size_t)(pm_number_fixed(text, value, scale, decimals) - text));
}

void pm_json_fixed_signed(struct pm_json *json, int64_t value, unsigned scale, unsigned decimals)
{
    char text[PM_NUMBER_MAX];
    pm_json_raw(json, text, (size_t)(pm_number_fixed_signed(text, value, scale, decimals) - text));
}

void pm_json_sec6(struct pm_json *json, uint64_t ns)
{
    pm_json_fixed(json, ns, 9, 6);
}

void pm_json_ms3(struct pm_json *json, uint64_t ns)
{
    pm_json_fixed(json, ns, 6, 3);
}

void pm_json_ratio(struct pm_json *json, uint64_t numerator, uint64_t factor, uint64_t denominator,
                   unsigned decimals)
{
    char text[PM_NUMBER_MAX];
    if (denominator == 0)
        pm_json_null(json);
    else
        pm_json_raw(
            json, text,
            (size_t)(pm_number_ratio(text, numerator, factor, denominator, decimals) - text));
}

void pm_json_double(struct pm_json *json, double value, unsigned decimals)
{
    char text[PM_NUMBER_MAX];
    if (!(value < 1e28 && value > -1e28))
        pm_json_null(json);
    else
        pm_json_raw(json, text, (size_t)(pm_number_double(text, value, decimals) - text));
}
