/* See amounts.h. */
#include "cmd/amounts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A plain decimal number, no exponent, sign or blank; *ret_rest: what follows it. */
static bool number(const char *text, double *ret_value, const char **ret_rest)
{
    size_t whole = strspn(text, "0123456789");
    size_t bytes = whole;
    if (text[bytes] == '.')
        bytes += 1 + strspn(text + bytes + 1, "0123456789");
    if (whole == 0 || bytes > 24 || text[bytes] == '.')
        return false;
    char digits[32];
    memcpy(digits, text, bytes);
    digits[bytes] = '\0';
    *ret_value = strtod(digits, NULL);
    *ret_rest = text + bytes;
    return true;
}

bool pm_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char units[] = "kmgt";
    double value;
    const char *rest;
    if (!number(text, &value, &rest))
        return false;
    if (rest[0] != '\0' && strcasecmp(rest, "b") != 0) {
        char lower = (char)(rest[0] | 0x20);
        const char *unit = strchr(units, lower);
        if (unit == NULL)
            return false;
        for (const char *u = units; u <= unit; u++)
            value *= 1024;
        if (rest[1] != '\0' && strcasecmp(rest + 1, "b") != 0 && strcasecmp(rest + 1, "ib") != 0)
            return false;
    }
    if (value < 1 || value > 1e18)
        return false;
    *ret_bytes = (uint64_t)value;
    return true;
}

bool pm_parse_duration(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1e3},   {"ms", 1},     {"s", 1e3},    {"sec", 1e3},
                 {"m", 60e3}, {"min", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
    double value;
    const char *rest;
    if (!number(text, &value, &rest))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(rest, units[i].unit) == 0) {
            value *= units[i].ms;
            if (value < 1 || value > 1e15)
                return false;
            *ret_ms = (uint64_t)value;
            return true;
        }
    return false;
}

/* Digits up to stop, none: 0. */
static bool whole(const char *text, const char *stop, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (stop - text > 15)
        return false;
    for (; text < stop; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *ret_value = value;
    return true;
}

bool pm_parse_range(const char *text, uint64_t *ret_from, uint64_t *ret_to)
{
    uint64_t from = 0, to;
    const char *colon = strchr(text, ':'), *end = text + strlen(text);
    if (colon != NULL && !whole(text, colon, &from))
        return false;
    const char *second = colon != NULL ? colon + 1 : text;
    if (!whole(second, end, &to) || strcmp(text, ":") == 0 || text[0] == '\0')
        return false;
    bool open = colon != NULL && second == end;
    if (!open && to <= from)
        return false;
    *ret_from = from;
    *ret_to = open ? 0 : to;
    return true;
}
