/*
 * Reading a collector's answer: ExportMetricsServiceResponse and ExportTraceServiceResponse, which
 * have the same numbers. Total on any bytes; owns nothing.
 */
#include <stdio.h>
#include <string.h>

#include "otlp/send.h"

enum { PARTIAL_SUCCESS = 1, REJECTED = 1, WORDS = 2 };

struct bytes {
    const uint8_t *at;
    size_t left;
};

static bool varint(struct bytes *bytes, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && bytes->left > 0; shift += 7) {
        const uint8_t byte = *bytes->at++;
        bytes->left--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

/* One field: its number, and either a number or what lies in it. false: the end, or damage. */
static bool field(struct bytes *bytes, uint64_t *ret_field, uint64_t *ret_value,
                  struct bytes *ret_inner)
{
    uint64_t tag, length;
    *ret_inner = (struct bytes){0};
    *ret_value = 0;
    if (!varint(bytes, &tag))
        return false;
    *ret_field = tag >> 3;
    switch (tag & 7) {
    case 0:
        return varint(bytes, ret_value);
    case 2:
        if (!varint(bytes, &length) || length > bytes->left)
            return false;
        break;
    case 1:
        length = 8;
        break;
    case 5:
        length = 4;
        break;
    default:
        return false;
    }
    if (length > bytes->left)
        return false;
    *ret_inner = (struct bytes){bytes->at, (size_t)length};
    bytes->at += length;
    bytes->left -= (size_t)length;
    return true;
}

uint64_t pm_otlp_rejected(const uint8_t *body, size_t size, char *ret_words, size_t words_size)
{
    struct bytes whole = {body, size}, partial = {0}, inner;
    uint64_t number, value, rejected = 0;
    ret_words[0] = '\0';
    while (field(&whole, &number, &value, &inner))
        if (number == PARTIAL_SUCCESS)
            partial = inner;
    while (partial.at != NULL && field(&partial, &number, &value, &inner)) {
        if (number == REJECTED)
            rejected = value;
        else if (number == WORDS && inner.at != NULL)
            snprintf(ret_words, words_size, "%.*s", (int)(inner.left < 160 ? inner.left : 160),
                     (const char *)inner.at);
    }
    return rejected;
}
