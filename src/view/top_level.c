/*
 * Finds the members of a JSON object without building it: metadata.json keeps what somebody else
 * put there. Called by metadata.c; pure, total on any bytes.
 */
#include "view/common.h"

#include <string.h>

struct scan {
    const char *at, *end;
};

static void skip_blanks(struct scan *scan)
{
    while (scan->at < scan->end && strchr(" \t\r\n", *scan->at) != NULL && *scan->at != '\0')
        scan->at++;
}

/* At a quote: goes behind the closing one. */
static bool skip_string(struct scan *scan)
{
    scan->at++;
    while (scan->at < scan->end && *scan->at != '"') {
        if ((unsigned char)*scan->at < 0x20)
            return false;
        scan->at += *scan->at == '\\' ? 2 : 1;
    }
    if (scan->at >= scan->end)
        return false;
    scan->at++;
    return true;
}

/* [-] digits [. digits] [e [+-] digits] (RFC 8259). */
static bool is_number(const char *text, size_t bytes)
{
    size_t i = bytes > 0 && text[0] == '-', from = i;
    for (; i < bytes && text[i] >= '0' && text[i] <= '9'; i++)
        ;
    if (i == from || (text[from] == '0' && i > from + 1))
        return false;
    if (i < bytes && text[i] == '.') {
        for (from = ++i; i < bytes && text[i] >= '0' && text[i] <= '9'; i++)
            ;
        if (i == from)
            return false;
    }
    if (i < bytes && (text[i] == 'e' || text[i] == 'E')) {
        i += 1 + (i + 1 < bytes && (text[i + 1] == '+' || text[i + 1] == '-'));
        for (from = i; i < bytes && text[i] >= '0' && text[i] <= '9'; i++)
            ;
        if (i == from)
            return false;
    }
    return i == bytes;
}

static bool is_scalar(const char *text, size_t bytes)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (bytes == strlen(words[i]) && memcmp(text, words[i], bytes) == 0)
            return true;
    return is_number(text, bytes);
}

static bool next_is(struct scan *scan, char c)
{
    skip_blanks(scan);
    if (scan->at >= scan->end || *scan->at != c)
        return false;
    scan->at++;
    return true;
}

static bool skip_value(struct scan *scan, unsigned depth);

/* The members of an object or the elements of an array, up to its end. */
static bool skip_members(struct scan *scan, char closing, unsigned depth)
{
    if (next_is(scan, closing))
        return true;
    do {
        if (closing == '}') {
            skip_blanks(scan);
            if (scan->at >= scan->end || *scan->at != '"' || !skip_string(scan) ||
                !next_is(scan, ':'))
                return false;
        }
        if (!skip_value(scan, depth))
            return false;
    } while (next_is(scan, ','));
    return next_is(scan, closing);
}

static bool skip_value(struct scan *scan, unsigned depth)
{
    skip_blanks(scan);
    if (scan->at >= scan->end || depth > 32)
        return false;
    if (*scan->at == '"')
        return skip_string(scan);
    if (next_is(scan, '{'))
        return skip_members(scan, '}', depth + 1);
    if (next_is(scan, '['))
        return skip_members(scan, ']', depth + 1);
    const char *from = scan->at;
    while (scan->at < scan->end && strchr(" \t\r\n,:]}[{\"", *scan->at) == NULL)
        scan->at++;
    return is_scalar(from, (size_t)(scan->at - from));
}

int pm_json_members(const char *text, size_t bytes,
                    void (*fn)(const char *key, size_t key_bytes, const char *value,
                               size_t value_bytes, void *arg),
                    void *arg)
{
    struct scan scan = {text, text + bytes};

    skip_blanks(&scan);
    if (scan.at >= scan.end || *scan.at++ != '{')
        return -PM_ECORRUPT;
    skip_blanks(&scan);
    if (scan.at < scan.end && *scan.at == '}')
        return 0;
    for (;;) {
        skip_blanks(&scan);
        const char *key = scan.at + 1;
        if (scan.at >= scan.end || *scan.at != '"' || !skip_string(&scan))
            return -PM_ECORRUPT;
        const size_t key_bytes = (size_t)(scan.at - 1 - key);
        skip_blanks(&scan);
        if (scan.at >= scan.end || *scan.at++ != ':')
            return -PM_ECORRUPT;
        skip_blanks(&scan);
        const char *value = scan.at;
        if (!skip_value(&scan, 0))
            return -PM_ECORRUPT;
        fn(key, key_bytes, value, (size_t)(scan.at - value), arg);
        skip_blanks(&scan);
        if (scan.at >= scan.end || (*scan.at != ',' && *scan.at != '}'))
            return -PM_ECORRUPT;
        if (*scan.at++ == '}')
            return 0;
    }
}
