/*
 * Numbers as text, fast: integers and fixed-point decimals, for CSV and JSON. Pure, any thread. No
 * locale, no floating point on the way for integers.
 *
 * Each function writes to out without a NUL and returns the end; PM_NUMBER_MAX bytes always
 * suffice. Rounding is half away from zero. All digits are exact.
 */
#ifndef PM_BASE_NUMBER_H
#define PM_BASE_NUMBER_H

#include <stdint.h>

#define PM_NUMBER_MAX 40

char *pm_number_u64(char *out, uint64_t value);
char *pm_number_i64(char *out, int64_t value);

/* value / 10^scale with decimals digits after the point (0: no point); scale and decimals 0..18.
 * pm_number_fixed(out, 45230400, 6, 3): 45.230 */
char *pm_number_fixed(char *out, uint64_t value, unsigned scale, unsigned decimals);
char *pm_number_fixed_signed(char *out, int64_t value, unsigned scale, unsigned decimals);

/* Nanoseconds as seconds with 6 decimals, milliseconds with 3, milliseconds with 6. */
char *pm_number_sec6(char *out, uint64_t ns);
char *pm_number_sec6_signed(char *out, int64_t ns);
char *pm_number_ms3(char *out, uint64_t ns);
char *pm_number_ms6(char *out, uint64_t ns);

/* numerator * factor / denominator with decimals (0..9) digits, exactly rounded; factor at most
 * 10^9; `nan` where the denominator is 0; saturates at 2^64 - 1 units of the last digit. Per cent:
 * factor 100; tokens per second of tokens and ns: factor 1000000000. */
char *pm_number_ratio(char *out, uint64_t numerator, uint64_t factor, uint64_t denominator,
                      unsigned decimals);

/* A double with decimals (0..9) digits: means and deviations. Rounds the exact value of the double;
 * `nan` as such, `inf` and `-inf` from a magnitude of 10^28. Never `-0`. */
char *pm_number_double(char *out, double value, unsigned decimals);

#endif
