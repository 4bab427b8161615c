/* Numbers as text against exact arithmetic: long division by hand for integers, printf with enough
 * digits for doubles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/number.h"

static uint64_t random_state = 2463534242u;
static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}
/* Of every magnitude alike. */
static uint64_t random_any(void)
{
    return random64() >> (random64() % 64);
}

static const char *ended(char *text, const char *end)
{
    assert_true(end - text <= PM_NUMBER_MAX);
    text[end - text] = '\0';
    return text;
}
#define TEXT(call) ended(text, call)

static void integers(void **state)
{
    (void)state;
    char text[PM_NUMBER_MAX + 1], want[64];
    for (uint64_t power = 1; power != 0; power = power > UINT64_MAX / 10 ? 0 : power * 10)
        for (int64_t near = -1; near <= 1; near++) {
            uint64_t value = power + (uint64_t)near;
            snprintf(want, sizeof want, "%llu", (unsigned long long)value);
            assert_string_equal(TEXT(pm_number_u64(text, value)), want);
        }
    for (int i = 0; i < 100000; i++) {
        uint64_t value = random_any();
        snprintf(want, sizeof want, "%llu", (unsigned long long)value);
        assert_string_equal(TEXT(pm_number_u64(text, value)), want);
        snprintf(want, sizeof want, "%lld", (long long)value);
        assert_string_equal(TEXT(pm_number_i64(text, (int64_t)value)), want);
    }
    assert_string_equal(TEXT(pm_number_u64(text, UINT64_MAX)), "18446744073709551615");
    assert_string_equal(TEXT(pm_number_i64(text, INT64_MIN)), "-9223372036854775808");
}

/* value / 10^scale by the digits of value, rounded half up at the wanted place. */
static void fixed_by_digits(char *out, uint64_t value, unsigned scale, unsigned decimals)
{
    char digits[64], wide[64];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
    size_t pad = strlen(digits) <= scale ? scale + 1 - strlen(digits) : 0;
    memset(wide, '0', pad + 1); /* one more for a carry */
    snprintf(wide + pad + 1, sizeof wide - pad - 1, "%s", digits);
    size_t whole = strlen(wide) - scale, keep = whole + (decimals < scale ? decimals : scale);
    bool up = wide[keep] >= '5'; /* NUL where all digits are kept */
    wide[keep] = '\0';
    for (size_t i = keep; up; i--) {
        up = wide[i - 1] == '9';
        wide[i - 1] = up ? '0' : (char)(wide[i - 1] + 1);
    }
    const char *at = wide;
    size_t left = whole;
    while (left > 1 && *at == '0') {
        at++;
        left--;
    }
    int used = snprintf(out, 64, "%.*s", (int)left, at);
    if (decimals > 0)
        used += snprintf(out + used, 64 - (size_t)used, ".%s", at + left);
    for (; decimals > scale; decimals--)
        used += snprintf(out + used, 64 - (size_t)used, "0");
}

static void fixed(void **state)
{
    (void)state;
    char text[PM_NUMBER_MAX + 1], want[64];
    assert_string_equal(TEXT(pm_number_ms3(text, 45230400)), "45.230");
    assert_string_equal(TEXT(pm_number_ms3(text, 45230500)), "45.231");
    assert_string_equal(TEXT(pm_number_ms3(text, 499)), "0.000");
    assert_string_equal(TEXT(pm_number_ms3(text, 500)), "0.001");
    assert_string_equal(TEXT(pm_number_ms6(text, 1)), "0.000001");
    assert_string_equal(TEXT(pm_number_sec6(text, 1999999500)), "2.000000");
    assert_string_equal(TEXT(pm_number_sec6(text, UINT64_MAX)), "18446744073.709552");
    assert_string_equal(TEXT(pm_number_sec6_signed(text, -499)), "0.000000");
    assert_string_equal(TEXT(pm_number_sec6_signed(text, -500)), "-0.000001");
    assert_string_equal(TEXT(pm_number_fixed(text, 7, 0, 2)), "7.00");
    assert_string_equal(TEXT(pm_number_fixed(text, 75, 1, 0)), "8");
    assert_string_equal(TEXT(pm_number_fixed(text, UINT64_MAX, 0, 18)),
                        "18446744073709551615.000000000000000000");
    assert_string_equal(TEXT(pm_number_fixed_signed(text, INT64_MIN, 0, 18)),
                        "-9223372036854775808.000000000000000000");
    for (int i = 0; i < 200000; i++) {
        uint64_t value = random_any();
        unsigned scale = (unsigned)(random64() % 19), decimals = (unsigned)(random64() % 19);
        fixed_by_digits(want, value, scale, decimals);
        assert_string_equal(TEXT(pm_number_fixed(text, value, scale, decimals)), want);
    }
    for (int i = 0; i < 100000; i++) {
        uint64_t value = random_any();
        fixed_by_digits(want, value, 9, 6);
        assert_string_equal(TEXT(pm_number_sec6(text, value)), want);
        fixed_by_digits(want, value, 6, 3);
        assert_string_equal(TEXT(pm_number_ms3(text, value)), want);
        fixed_by_digits(want, value, 6, 6);
        assert_string_equal(TEXT(pm_number_ms6(text, value)), want);
    }
}

static void ratios(void **state)
{
    (void)state;
    char text[PM_NUMBER_MAX + 1], want[64];
    assert_string_equal(TEXT(pm_number_ratio(text, 1, 100, 0, 2)), "nan");
    assert_string_equal(TEXT(pm_number_ratio(text, 0, 100, 7, 2)), "0.00");
    assert_string_equal(TEXT(pm_number_ratio(text, 1, 100, 3, 2)), "33.33");
    assert_string_equal(TEXT(pm_number_ratio(text, 2, 100, 3, 2)), "66.67");
    assert_string_equal(TEXT(pm_number_ratio(text, 1, 1, 8, 2)), "0.13"); /* 0.125: away from 0 */
    assert_string_equal(TEXT(pm_number_ratio(text, 128, 1000000000, 45230000, 1)), "2830.0");
    assert_string_equal(TEXT(pm_number_ratio(text, UINT64_MAX, 1000000000, 1, 9)),
                        "18446744073.709551615");
    assert_string_equal(TEXT(pm_number_ratio(text, 1, 1, UINT64_MAX, 9)), "0.000000000");
    for (int i = 0; i < 100000; i++) {
        static const uint64_t factors[] = {1, 100, 1000, 1000000000};
        uint64_t a = random_any() >> 4, b = random_any() | 1, factor = factors[random64() % 4];
        unsigned decimals = (unsigned)(random64() % 7);
        unsigned __int128 units = (unsigned __int128)a * factor;
        for (unsigned d = 0; d < decimals; d++)
            units *= 10;
        units = (2 * units + b) / ((unsigned __int128)2 * b);
        if (units > UINT64_MAX)
            continue;
        fixed_by_digits(want, (uint64_t)units, decimals, decimals);
        assert_string_equal(TEXT(pm_number_ratio(text, a, factor, b, decimals)), want);
    }
}

/* What rounding half away from zero gives, from all digits of the double (at most 1074). */
static void double_by_digits(char *out, double value, unsigned decimals)
{
    static char all[2048];
    snprintf(all, sizeof all, "0%.1080f", fabs(value));
    char *point = strchr(all, '.');
    memmove(point, point + 1, strlen(point)); /* digits only */
    size_t keep = (size_t)(point - all) + decimals;
    bool up = all[keep] >= '5';
    all[keep] = '\0';
    for (size_t i = keep; up; i--) {
        up = all[i - 1] == '9';
        all[i - 1] = up ? '0' : (char)(all[i - 1] + 1);
    }
    char *at = all;
    while (at + 1 < point && *at == '0')
        at++;
    bool zero = strspn(at, "0") == strlen(at);
    snprintf(out, 64, "%s%.*s%s%.20s", signbit(value) && !zero ? "-" : "", (int)(point - at), at,
             decimals > 0 ? "." : "", point);
}

static void doubles(void **state)
{
    (void)state;
    char text[PM_NUMBER_MAX + 1], want[64];
    static const double some[] = {0.0,     -0.0,   0.5,       0.125,  0.375,
                                  2.5,     1e15,   -1e15,     1e18,   1e19,
                                  1e22,    9e27,   1e-300,    5e-324, 0.00005,
                                  1.0 / 3, -2.675, 0.9999995, 1e9,    4503599627370496.5,
                                  -0.0004, 99.995};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        for (unsigned decimals = 0; decimals <= 9; decimals++) {
            double_by_digits(want, some[i], decimals);
            assert_string_equal(TEXT(pm_number_double(text, some[i], decimals)), want);
        }
    assert_string_equal(TEXT(pm_number_double(text, 0.125, 2)), "0.13");
    assert_string_equal(TEXT(pm_number_double(text, -0.001, 2)), "0.00");
    assert_string_equal(TEXT(pm_number_double(text, NAN, 2)), "nan");
    assert_string_equal(TEXT(pm_number_double(text, -INFINITY, 2)), "-inf");
    assert_string_equal(TEXT(pm_number_double(text, 1e28, 2)), "inf");
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random64();
        double value;
        if (i % 2) {
            memcpy(&value, &bits, sizeof value);
            if (!(fabs(value) < 1e28))
                continue;
        } else {
            value = (double)(int64_t)random_any() / (double)(1ull << (random64() % 60));
        }
        unsigned decimals = (unsigned)(random64() % 10);
        double_by_digits(want, value, decimals);
        assert_string_equal(TEXT(pm_number_double(text, value, decimals)), want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers),
        cmocka_unit_test(fixed),
        cmocka_unit_test(ratios),
        cmocka_unit_test(doubles),
    };
    return cmocka_run_group_tests_name("number", tests, NULL, NULL);
}
