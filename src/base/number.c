/*
 * Numbers as text (see number.h). Pure, any thread. Two digits at a time; scales and decimals are
 * compile-time constants in the formats that CSVs are made of, so that they hold no slow division.
 */
#include "base/number.h"

#include <stdbool.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                            "25262728293031323334353637383940414243444546474849"
                            "50515253545556575859606162636465666768697071727374"
                            "75767778798081828384858687888990919293949596979899";

/* clang-format off */
static const uint64_t powers[20] = {
    1ull, 10ull, 100ull, 1000ull, 10000ull, 100000ull, 1000000ull, 10000000ull, 100000000ull,
    1000000000ull, 10000000000ull, 100000000000ull, 1000000000000ull, 10000000000000ull,
    100000000000000ull, 1000000000000000ull, 10000000000000000ull, 100000000000000000ull,
    1000000000000000000ull, 10000000000000000000ull};
/* clang-format on */

/* Exactly count digits of value, leading zeros included. */
INLINE char *put_digits(char *out, uint64_t value, unsigned count)
{
    unsigned left = count;
    for (; left >= 2; left -= 2) {
        memcpy(out + left - 2, pairs + value % 100 * 2, 2);
        value /= 100;
    }
    if (left == 1)
        out[0] = (char)('0' + value % 10);
    return out + count;
}

/* How many digits value has, 1 for 0. 1233/4096 is log10(2) to the precision that 64 bits need. */
INLINE unsigned digits_of(uint64_t value)
{
    unsigned guess = (64u - (unsigned)__builtin_clzll(value | 1)) * 1233u >> 12;
    return guess + (value >= powers[guess] || guess == 0);
}

char *pm_number_u64(char *out, uint64_t value)
{
    return put_digits(out, value, digits_of(value));
}

char *pm_number_i64(char *out, int64_t value)
{
    if (value < 0)
        *out++ = '-';
    return pm_number_u64(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

/* units / 10^decimals, all decimals written. */
INLINE char *put_units(char *out, uint64_t units, unsigned decimals)
{
    if (decimals == 0)
        return pm_number_u64(out, units);
    uint64_t whole = units / powers[decimals];
    out = pm_number_u64(out, whole);
    *out++ = '.';
    return put_digits(out, units - whole * powers[decimals], decimals);
}

INLINE char *put_fixed(char *out, uint64_t value, unsigned scale, unsigned decimals)
{
    if (decimals > scale) {
        out = put_units(out, value, scale);
        if (scale == 0)
            *out++ = '.';
        memset(out, '0', decimals - scale);
        return out + (decimals - scale);
    }
    uint64_t divisor = powers[scale - decimals];
    uint64_t units = value / divisor;
    if (divisor > 1)
        units += value - units * divisor >= divisor / 2;
    return put_units(out, units, decimals);
}

/* The sign goes where any digit but 0 is left after rounding. */
INLINE char *put_fixed_signed(char *out, int64_t value, unsigned scale, unsigned decimals)
{
    if (value >= 0)
        return put_fixed(out, (uint64_t)value, scale, decimals);
    char *end = put_fixed(out + 1, 0 - (uint64_t)value, scale, decimals);
    for (const char *at = out + 1; at < end; at++)
        if (*at != '0' && *at != '.') {
            *out = '-';
            return end;
        }
    memmove(out, out + 1, (size_t)(end - out - 1));
    return end - 1;
}

char *pm_number_fixed(char *out, uint64_t value, unsigned scale, unsigned decimals)
{
    return put_fixed(out, value, scale, decimals);
}

char *pm_number_fixed_signed(char *out, int64_t value, unsigned scale, unsigned decimals)
{
    return put_fixed_signed(out, value, scale, decimals);
}

char *pm_number_sec6(char *out, uint64_t ns)
{
    return put_fixed(out, ns, 9, 6);
}

char *pm_number_sec6_signed(char *out, int64_t ns)
{
    return put_fixed_signed(out, ns, 9, 6);
}

char *pm_number_ms3(char *out, uint64_t ns)
{
    return put_fixed(out, ns, 6, 3);
}

char *pm_number_ms6(char *out, uint64_t ns)
{
    return put_fixed(out, ns, 6, 6);
}

char *pm_number_ratio(char *out, uint64_t numerator, uint64_t factor, uint64_t denominator,
                      unsigned decimals)
{
    uint64_t units, narrow;
    if (denominator == 0) {
        memcpy(out, "nan", 3);
        return out + 3;
    }
    /* factor * 10^decimals is at most 10^18 */
    if (!__builtin_mul_overflow(numerator, factor * powers[decimals], &narrow)) {
        units = narrow / denominator;
        uint64_t rest = narrow - units * denominator;
        units += rest >= denominator - rest;
    } else {
        unsigned __int128 wide = (unsigned __int128)numerator * (factor * powers[decimals]);
        unsigned __int128 quotient = wide / denominator;
        uint64_t rest = (uint64_t)(wide - quotient * denominator);
        quotient += rest >= denominator - rest;
        units = quotient > UINT64_MAX ? UINT64_MAX : (uint64_t)quotient;
    }
    return put_units(out, units, decimals);
}

static char *put_word(char *out, bool negative, const char *word)
{
    if (negative)
        *out++ = '-';
    memcpy(out, word, 3);
    return out + 3;
}

/* A double is mantissa * 2^exponent; times 10^decimals that is a whole number of 128 bits where the
 * magnitude is below 10^28, and what the shift drops decides the rounding. */
char *pm_number_double(char *out, double value, unsigned decimals)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bool negative = bits >> 63 != 0;
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t mantissa = bits & 0xfffffffffffffu;
    if (exponent == 0x7ff && mantissa != 0)
        return put_word(out, false, "nan");
    double magnitude = negative ? -value : value;
    if (magnitude >= 1e28)
        return put_word(out, negative, "inf");
    if (exponent != 0)
        mantissa |= 1ull << 52;
    else
        exponent = 1;
    exponent -= 1075;

    unsigned __int128 units = (unsigned __int128)mantissa * powers[decimals];
    if (exponent >= 0) {
        units <<= exponent;
    } else if (exponent < -126) {
        units = 0; /* below 2^83 / 2^127 */
    } else {
        unsigned __int128 half = (unsigned __int128)1 << (-exponent - 1);
        units = (units + half) >> -exponent;
    }
    if (negative && units != 0)
        *out++ = '-';
    /* two halves of at most 19 digits each */
    uint64_t scale = powers[19];
    unsigned __int128 high = units / scale;
    if (high == 0)
        return put_units(out, (uint64_t)units, decimals);
    uint64_t low = (uint64_t)(units - high * scale);
    out = pm_number_u64(out, (uint64_t)high);
    if (decimals == 0)
        return put_digits(out, low, 19);
    out = put_digits(out, low / powers[decimals], 19 - decimals);
    *out++ = '.';
    return put_digits(out, low % powers[decimals], decimals);
}
