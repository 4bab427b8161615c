/* The structural scan: all kinds find what a loop over the bytes finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "trace/scan.h"

#define MAX 4096

/* Byte by byte, as RFC 8259 says it. */
static size_t naive(const uint8_t *text, size_t n, uint32_t *at, bool *ret_inside)
{
    size_t found = 0;
    bool inside = false, escaped = false;
    for (size_t i = 0; i < n; i++) {
        bool skip = escaped;
        escaped = text[i] == '\\' && !escaped;
        if (text[i] == '"' && !skip) {
            at[found++] = (uint32_t)i;
            inside = !inside;
        } else if (!inside && memchr("{}[]", text[i], 4) != NULL) {
            at[found++] = (uint32_t)i;
        }
    }
    *ret_inside = inside;
    return found;
}

static void check(const char *bytes, size_t n)
{
    static uint8_t text[MAX + PM_SCAN_PADDING];
    static uint32_t at[MAX + PM_SCAN_PADDING], expected[MAX];
    bool inside;
    memset(text, '"', sizeof(text)); /* what is behind the text must not matter */
    memcpy(text, bytes, n);
    size_t count = naive(text, n, expected, &inside);
    for (enum pm_scan_kind kind = PM_SCAN_BEST; kind <= PM_SCAN_AVX2; kind++) {
        struct pm_scan scan = {.at = at};
        if (!pm_scan_available(kind))
            continue;
        pm_scan_text(&scan, text, n, kind);
        if (scan.n != count || memcmp(at, expected, count * sizeof(*at)) != 0)
            fail_msg("%s finds %zu of %zu in %.*s", pm_scan_name(kind), scan.n, count, (int)n,
                     bytes);
        assert_true(scan.in_string == inside);
        assert_true(scan.backslash == (memchr(bytes, '\\', n) != NULL));
    }
}

static void known_texts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{}",
        "{\"a b\": [1, 2], \"c{[\": \"}]\"}",
        "\"unfinished {",
        "\"\\\"{\\\\\"{}",
        "\\\"{\"", /* a backslash outside strings escapes too: no JSON, but the same everywhere */
        "[\"\xC3\xA4\xFF\", {}]",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        check(texts[i], strlen(texts[i]));
}

/* Runs of backslashes of every length, at every place around the borders of 64-byte blocks. */
static void backslashes(void **state)
{
    (void)state;
    char text[400];
    for (size_t run = 0; run < 70; run++)
        for (size_t at = 50; at < 70; at++) {
            memset(text, ' ', sizeof(text));
            text[at] = '"';
            memset(text + at + 1, '\\', run);
            text[at + 1 + run] = '"';
            text[at + 2 + run] = '{';
            text[at + 3 + run] = '"';
            check(text, sizeof(text));
        }
}

static void random_texts(void **state)
{
    (void)state;
    static const char letters[] = "{}[]\"\\:, a\n";
    char text[700];
    srand(7);
    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)(rand() % (int)sizeof(text));
        int quotes = rand() % 4;
        for (size_t i = 0; i < n; i++) {
            text[i] = letters[rand() % (int)(sizeof(letters) - 1)];
            if (text[i] == '"' && rand() % 4 < quotes)
                text[i] = 'x';
        }
        check(text, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_texts),
        cmocka_unit_test(backslashes),
        cmocka_unit_test(random_texts),
    };
    return cmocka_run_group_tests_name("trace_scan", tests, NULL, NULL);
}
