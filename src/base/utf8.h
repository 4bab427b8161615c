/*
 * Well-formed UTF-8 (Unicode 15, table 3-7), one character at a time. Pure, any thread.
 */
#ifndef PM_BASE_UTF8_H
#define PM_BASE_UTF8_H

#include <stddef.h>

/* Length of the well-formed character at text (1 to 4), 0 where there is none within bytes. */
static inline size_t pm_utf8_length(const char *text, size_t bytes)
{
    const unsigned char *s = (const unsigned char *)text;
    if (bytes == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    size_t length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (bytes < length)
        return 0;
    /* the second byte keeps out overlong forms, surrogates and what lies beyond U+10FFFF */
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

#endif
