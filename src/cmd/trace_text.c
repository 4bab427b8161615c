/*
 * Figures and names of `profilemate trace` as text.
 */
#include "cmd/trace.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/number.h"

/* The length of the UTF-8 character at p, 0 when it is none (RFC 3629). */
static size_t utf8(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xF0 && p[0] <= 0xF4  ? 4
               : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
               : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
                                             : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) ||
        (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return n;
}

const char *pm_trace_fit(const char *text, size_t columns, char *out)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = 0, used = 0, cut = 0;
    while (*p != '\0' && used < columns) {
        size_t bytes = utf8(p);
        if (used + 2 <= columns)
            cut = n; /* where two dots would still fit */
        if (bytes == 0 || *p < 0x20 || *p == 0x7F) {
            out[n++] = '?';
            p++;
        } else {
            memcpy(out + n, p, bytes);
            n += bytes;
            p += bytes;
        }
        used++;
    }
    if (*p != '\0' && columns >= 2) {
        memcpy(out + cut, "..", 2);
        n = cut + 2;
    }
    out[n] = '\0';
    return out;
}

const char *pm_trace_time(int64_t ns, char out[24])
{
    double value = (double)ns, size = fabs(value);
    if (size >= 1e9)
        snprintf(out, 24, "%.3fs", value / 1e9);
    else if (size >= 1e6)
        snprintf(out, 24, "%.3fms", value / 1e6);
    else
        snprintf(out, 24, "%.3fus", value / 1e3);
    return out;
}

const char *pm_trace_bytes(int64_t bytes, char out[24])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (fabs(value) >= 999.5 && unit < 4) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 24, unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return out;
}

const char *pm_trace_count(uint64_t n, char out[24])
{
    static const char units[] = " kMGTPE";
    double value = (double)n;
    unsigned unit = 0;
    if (n < 10000000) {
        snprintf(out, 24, "%" PRIu64, n);
        return out;
    }
    while (value >= 999.5 && unit < 6) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 24, "%.2f%c", value, units[unit]);
    return out;
}

const char *pm_trace_percent(int64_t part, int64_t whole, char out[24])
{
    if (whole <= 0)
        snprintf(out, 24, "-");
    else
        snprintf(out, 24, "%.1f%%", (double)part * 100 / (double)whole);
    return out;
}

void pm_trace_csv_field(const char *text)
{
    bool quoted = strpbrk(text, ",\"\r\n") != NULL;
    const unsigned char *p = (const unsigned char *)text;
    if (quoted)
        putchar('"');
    while (*p != '\0') {
        size_t n = utf8(p);
        if (n == 0) {
            fputs("\xEF\xBF\xBD", stdout); /* U+FFFD */
            p++;
            continue;
        }
        if (*p == '"')
            putchar('"');
        fwrite(p, 1, n, stdout);
        p += n;
    }
    if (quoted)
        putchar('"');
}

void pm_trace_csv_us(int64_t ns)
{
    char number[PM_NUMBER_MAX];
    fwrite(number, 1, (size_t)(pm_number_fixed_signed(number, ns, 3, 3) - number), stdout);
}
