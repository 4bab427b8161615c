/*
 * Numbers and strings of JSON (see parse.h). Pure.
 *
 * Numbers are read more widely than RFC 8259: Python's NaN, Infinity and -Infinity, and the nan
 * and inf that C++ prints.
 */
#include "trace/parse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static inline bool is_digit(uint8_t c)
{
    return (uint8_t)(c - '0') < 10;
}

/* The bytes that may stand in a number or a literal. */
static bool is_word(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '-' || c == '+';
}

/* The slow path for everything that is no plain integer or decimal. */
static const uint8_t *general(const uint8_t *p, double *ret, uint64_t *odd)
{
    char word[64];
    size_t n = 0;
    while (is_word(p[n]))
        n++;
    if (n == 0 || n >= sizeof(word)) {
        if (n == 0)
            return NULL;
        (*odd)++; /* a monster; its value does not matter */
        *ret = p[0] == '-' ? -INFINITY : INFINITY;
        return p + n;
    }
    memcpy(word, p, n);
    word[n] = '\0';
    bool negative = word[0] == '-';
    const char *rest = word + (negative ? 1 : 0);
    if (strcasecmp(rest, "nan") == 0 || strcasecmp(rest, "inf") == 0 ||
        strcasecmp(rest, "infinity") == 0) {
        (*odd)++;
        *ret = rest[0] == 'n' || rest[0] == 'N' ? (double)NAN : (double)INFINITY;
        if (negative)
            *ret = -*ret;
        return p + n;
    }
    if (!is_digit((uint8_t)rest[0]))
        return NULL;
    char *end;
    *ret = strtod(word, &end);
    return end == word + n ? p + n : NULL;
}

static int64_t clamp(double value, uint64_t *odd)
{
    if (isnan(value))
        return 0;
    if (value >= 9.2233720368547748e18 || value <= -9.2233720368547748e18) {
        (*odd)++;
        return value > 0 ? INT64_MAX : -INT64_MAX;
    }
    return (int64_t)value;
}

/* Eight digits at once: true when all eight bytes are digits. The sums of neighbours are formed
 * by multiplications: pairs, then fours, then all eight. */
static inline bool eight_digits(const uint8_t *p, uint64_t *ret)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t v;
    memcpy(&v, p, 8);
    v -= 0x3030303030303030ull;
    if (((v | (v + 0x7676767676767676ull)) & 0x8080808080808080ull) != 0)
        return false;
    v = v * 10 + (v >> 8); /* bytes 0, 2, 4, 6 hold two digits each */
    v = ((v & 0x000000FF000000FFull) * (100 + (1000000ull << 32)) +
         (v >> 16 & 0x000000FF000000FFull) * (1 + (10000ull << 32))) >>
        32;
    *ret = v;
    return true;
#else
    (void)p;
    (void)ret;
    return false;
#endif
}

/* Up to 18 digits. Reads up to 8 bytes further, which the padding allows. */
static inline const uint8_t *digits(const uint8_t *p, uint64_t *ret, unsigned *ret_n)
{
    uint64_t value = 0;
    unsigned n = 0;
    if (eight_digits(p, &value))
        n = 8;
    while (n < 18 && is_digit(p[n]))
        value = value * 10 + (uint64_t)(p[n++] - '0');
    *ret = value;
    *ret_n = n;
    return p + n;
}

const uint8_t *pm_value_int(const uint8_t *p, int64_t *ret, uint64_t *odd)
{
    uint64_t value;
    unsigned n;
    bool negative = *p == '-';
    const uint8_t *end = digits(p + (negative ? 1 : 0), &value, &n);
    if (n > 0 && !is_word(*end)) {
        *ret = negative ? -(int64_t)value : (int64_t)value;
        return end;
    }
    double real;
    end = general(p, &real, odd);
    if (end != NULL)
        *ret = clamp(real, odd);
    return end;
}

const uint8_t *pm_value_id(const uint8_t *p, uint64_t *ret, uint64_t *odd)
{
    uint64_t value;
    unsigned n;
    bool negative = *p == '-';
    const uint8_t *begin = p + (negative ? 1 : 0), *end = digits(begin, &value, &n);
    if (n > 0 && !is_word(*end)) {
        *ret = negative ? (uint64_t) - (int64_t)value : value;
        return end;
    }
    if (!is_digit(*begin))
        return NULL;
    uint64_t hash = 0xCBF29CE484222325ull;
    for (n = 0; is_word(p[n]); n++)
        hash = (hash ^ p[n]) * 0x100000001B3ull;
    /* 19 and 20 digits may still fit. */
    unsigned __int128 wide = 0;
    for (end = begin; is_digit(*end) && end - begin < 20; end++)
        wide = wide * 10 + (unsigned)(*end - '0');
    if (end == p + n && wide <= UINT64_MAX) {
        *ret = negative ? (uint64_t) - (int64_t)(uint64_t)wide : (uint64_t)wide;
        return end;
    }
    if (p[0] != '0' || (p[1] != 'x' && p[1] != 'X'))
        (*odd)++;
    *ret = hash | 1ull << 63;
    return p + n;
}

const uint8_t *pm_value_us(const uint8_t *p, int64_t *ret_ns, uint64_t *odd)
{
    uint64_t whole;
    unsigned n;
    bool negative = *p == '-';
    const uint8_t *end = digits(p + (negative ? 1 : 0), &whole, &n);
    if (n > 0 && whole < (uint64_t)PM_TRACE_MAX_NS / 1000) {
        uint64_t ns = whole * 1000;
        if (*end == '.' && is_digit(end[1])) {
            uint32_t scale = 100;
            for (end++; is_digit(*end); end++) {
                if (scale == 0) { /* the fourth digit rounds, the rest is beyond us */
                    ns += *end >= '5';
                    do
                        end++;
                    while (is_digit(*end));
                    break;
                }
                ns += (uint64_t)(*end - '0') * scale;
                scale /= 10;
            }
        }
        if (!is_word(*end)) {
            *ret_ns = negative ? -(int64_t)ns : (int64_t)ns;
            return end;
        }
    }
    double real;
    end = general(p, &real, odd);
    if (end == NULL)
        return NULL;
    if (fabs(real) * 1000 < (double)PM_TRACE_MAX_NS || isnan(real)) {
        *ret_ns = isnan(real) ? 0 : (int64_t)round(real * 1000);
        return end;
    }
    *odd += !isinf(real); /* infinities were counted above */
    *ret_ns = real < 0 ? -PM_TRACE_MAX_NS : PM_TRACE_MAX_NS;
    return end;
}

const uint8_t *pm_value_double(const uint8_t *p, double *ret, uint64_t *odd)
{
    uint64_t whole;
    unsigned n;
    const uint8_t *end = digits(p, &whole, &n);
    if (n > 0 && n < 16 && !is_word(*end)) {
        *ret = (double)whole;
        return end;
    }
    return general(p, ret, odd);
}

/* ---- strings --------------------------------------------------------------------------------- */

/* The value of four hexadecimal digits, or -1. */
static int32_t hex4(const uint8_t *p, size_t left)
{
    int32_t value = 0;
    if (left < 4)
        return -1;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t c = p[i], folded = (uint8_t)(c | 0x20);
        int digit;
        if (is_digit(c))
            digit = c - '0';
        else if (folded >= 'a' && folded <= 'f')
            digit = folded - 'a' + 10;
        else
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

static size_t put_utf8(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

size_t pm_value_unescape(const uint8_t *text, size_t n, uint8_t *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t made = 0;
    for (size_t i = 0; i < n;) {
        if (text[i] != '\\' || i + 1 == n) {
            out[made++] = text[i++];
            continue;
        }
        uint8_t c = text[i + 1];
        const char *simple = c != 0 ? strchr(from, c) : NULL;
        int32_t unit = c == 'u' ? hex4(text + i + 2, n - i - 2) : -1;
        if (simple != NULL) {
            out[made++] = (uint8_t)to[simple - from];
            i += 2;
        } else if (unit >= 0) {
            uint32_t point = (uint32_t)unit;
            i += 6;
            if (point >= 0xD800 && point < 0xDC00 && i + 1 < n && text[i] == '\\' &&
                text[i + 1] == 'u') {
                int32_t low = hex4(text + i + 2, n - i - 2);
                if (low >= 0xDC00 && low < 0xE000) {
                    point = 0x10000 + ((point - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
                    i += 6;
                }
            }
            made += put_utf8(out + made, point);
        } else {
            out[made++] = text[i++];
        }
    }
    return made;
}
