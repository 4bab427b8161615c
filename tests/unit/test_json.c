/* The JSON writer and the buffer below it: exact text, escapes, misuse, ceilings, no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/utf8.h"
#include "torture.h"

static struct pm_buf buf;
static struct pm_json json;

static void begin(unsigned indent)
{
    pm_buf_release(&buf);
    pm_buf_init(&buf, 1 << 20);
    pm_json_init(&json, &buf, indent);
}

static int release(void **state)
{
    (void)state;
    pm_buf_release(&buf);
    return 0;
}

static void sample(void)
{
    pm_json_object(&json);
    pm_json_key(&json, "count");
    pm_json_u64(&json, UINT64_MAX);
    pm_json_key(&json, "empty");
    pm_json_object(&json);
    pm_json_end(&json);
    pm_json_key(&json, "list");
    pm_json_array(&json);
    pm_json_i64(&json, -5);
    pm_json_null(&json);
    pm_json_bool(&json, true);
    pm_json_bool(&json, false);
    pm_json_array(&json);
    pm_json_end(&json);
    pm_json_end(&json);
    pm_json_key(&json, "mean_ms");
    pm_json_ms3(&json, 45230400);
    pm_json_key(&json, "at");
    pm_json_sec6(&json, 1500000000);
    pm_json_key(&json, "pct");
    pm_json_ratio(&json, 1, 100, 3, 2);
    pm_json_key(&json, "none");
    pm_json_ratio(&json, 1, 100, 0, 2);
    pm_json_key(&json, "std");
    pm_json_double(&json, 0.125, 2);
    pm_json_key(&json, "nan");
    pm_json_double(&json, __builtin_nan(""), 2);
    pm_json_key(&json, "inf");
    pm_json_double(&json, __builtin_inf(), 2);
    pm_json_key(&json, "delta");
    pm_json_fixed_signed(&json, -1500, 3, 1);
    pm_json_key(&json, "raw");
    pm_json_raw(&json, "[1]", 3);
    pm_json_key(&json, "text");
    pm_json_text(&json, NULL);
    pm_json_end(&json);
}

static void shapes(void **state)
{
    (void)state;
    begin(0);
    sample();
    assert_int_equal(pm_json_finish(&json), 0);
    assert_string_equal(pm_buf_text(&buf),
                        "{\"count\":18446744073709551615,\"empty\":{},\"list\":[-5,null,true,false,"
                        "[]],\"mean_ms\":45.230,\"at\":1.500000,\"pct\":33.33,\"none\":null,"
                        "\"std\":0.13,\"nan\":null,\"inf\":null,\"delta\":-1.5,\"raw\":[1],"
                        "\"text\":null}\n");
    begin(2);
    pm_json_object(&json);
    pm_json_key(&json, "a");
    pm_json_array(&json);
    pm_json_u64(&json, 1);
    pm_json_object(&json);
    pm_json_end(&json);
    pm_json_end(&json);
    pm_json_key(&json, "b");
    pm_json_bool(&json, true);
    pm_json_end(&json);
    assert_int_equal(pm_json_finish(&json), 0);
    assert_string_equal(pm_buf_text(&buf),
                        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": true\n}\n");
}

static const char *quoted(const char *text, size_t bytes)
{
    begin(0);
    pm_json_text_bytes(&json, text, bytes);
    assert_int_equal(pm_json_finish(&json), 0);
    return pm_buf_text(&buf);
}
#define QUOTED(text) quoted(text, sizeof text - 1)
#define BAD "\xef\xbf\xbd"

static void escapes(void **state)
{
    (void)state;
    assert_string_equal(QUOTED(""), "\"\"\n");
    assert_string_equal(QUOTED("a\"b\\c/\b\f\n\r\t\x01\x1f\x7f"),
                        "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"\n");
    assert_string_equal(QUOTED("a\0b"), "\"a\\u0000b\"\n");
    assert_string_equal(QUOTED("µ漢😀"), "\"µ漢😀\"\n");
    assert_string_equal(QUOTED("\x80z"), "\"" BAD "z\"\n");       /* stray continuation */
    assert_string_equal(QUOTED("\xc0\xaf"), "\"" BAD BAD "\"\n"); /* overlong */
    assert_string_equal(QUOTED("\xe0\x9f\xbf"), "\"" BAD BAD BAD "\"\n");
    assert_string_equal(QUOTED("\xed\xa0\x80"), "\"" BAD BAD BAD "\"\n"); /* surrogate */
    assert_string_equal(QUOTED("\xf4\x90\x80\x80"), "\"" BAD BAD BAD BAD "\"\n");
    assert_string_equal(QUOTED("\xff"), "\"" BAD "\"\n");
    assert_string_equal(QUOTED("ab\xe6\xbc"), "\"ab" BAD BAD "\"\n"); /* cut off */
    assert_string_equal(QUOTED("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"),
                        "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"\n");
    begin(0);
    pm_json_object(&json);
    pm_json_key(&json, "\"\xff");
    pm_json_text(&json, "x");
    pm_json_end(&json);
    assert_int_equal(pm_json_finish(&json), 0);
    assert_string_equal(pm_buf_text(&buf), "{\"\\\"" BAD "\":\"x\"}\n");
}

/* pm_utf8_length against a decoder written the long way round. */
static size_t slow_length(const unsigned char *s, size_t bytes)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (bytes == 0)
        return 0;
    size_t length = s[0] < 0x80             ? 1
                    : (s[0] & 0xe0) == 0xc0 ? 2
                    : (s[0] & 0xf0) == 0xe0 ? 3
                    : (s[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
    if (length == 0 || length > bytes)
        return 0;
    uint32_t code = length == 1 ? s[0] : s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0
                                                                                        : length;
}

static void utf8(void **state)
{
    (void)state;
    static const unsigned char tails[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0};
    for (unsigned first = 0; first < 256; first++)
        for (size_t a = 0; a < sizeof tails; a++)
            for (size_t b = 0; b < sizeof tails; b++)
                for (size_t c = 0; c < sizeof tails; c++)
                    for (size_t bytes = 0; bytes <= 4; bytes++) {
                        unsigned char s[4] = {(unsigned char)first, tails[a], tails[b], tails[c]};
                        assert_int_equal(pm_utf8_length((const char *)s, bytes),
                                         slow_length(s, bytes));
                    }
}

static void misuse(void **state)
{
    (void)state;
    begin(0);
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID); /* nothing */
    begin(0);
    pm_json_end(&json);
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID);
    begin(0);
    pm_json_object(&json);
    pm_json_u64(&json, 1); /* no key */
    pm_json_end(&json);
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID);
    begin(0);
    pm_json_object(&json);
    pm_json_key(&json, "a");
    pm_json_end(&json); /* no value */
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID);
    begin(0);
    pm_json_array(&json);
    pm_json_key(&json, "a"); /* key in an array */
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID);
    begin(0);
    pm_json_u64(&json, 1);
    pm_json_u64(&json, 2); /* two values */
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID);
    begin(0);
    pm_json_object(&json); /* left open */
    assert_int_equal(pm_json_finish(&json), -PM_EINVALID);
    for (int depth = PM_JSON_DEPTH; depth <= PM_JSON_DEPTH + 1; depth++) {
        begin(1);
        for (int i = 0; i < depth; i++)
            pm_json_array(&json);
        for (int i = 0; i < depth; i++)
            pm_json_end(&json);
        assert_int_equal(pm_json_finish(&json), depth == PM_JSON_DEPTH ? 0 : -PM_EINVALID);
    }
}

static void ceilings(void **state)
{
    (void)state;
    begin(0);
    sample();
    assert_int_equal(pm_json_finish(&json), 0);
    size_t whole = buf.used;
    for (size_t ceiling = 0; ceiling <= whole; ceiling++) {
        pm_buf_release(&buf);
        pm_buf_init(&buf, ceiling);
        pm_json_init(&json, &buf, 0);
        sample();
        assert_int_equal(pm_json_finish(&json), ceiling < whole ? -PM_ELIMIT : 0);
        assert_true(buf.used <= (ceiling > 0 ? ceiling : 1));
        assert_int_equal(strlen(pm_buf_text(&buf)), buf.used);
        assert_true(pm_buf_add_char(&buf, 'x') != 0); /* full, or failed for good */
    }
    /* asking for the text does not raise the ceiling */
    pm_buf_release(&buf);
    pm_buf_init(&buf, 4);
    assert_int_equal(pm_buf_add_text(&buf, "abcd"), 0);
    assert_string_equal(pm_buf_text(&buf), "abcd");
    assert_int_equal(pm_buf_add_char(&buf, 'e'), -PM_ELIMIT);
    assert_string_equal(pm_buf_text(&buf), "abcd");
    pm_buf_clear(&buf);
    assert_int_equal(pm_buf_status(&buf), 0);
    assert_int_equal(pm_buf_add(&buf, "xyz", 3), 0);
    assert_string_equal(pm_buf_text(&buf), "xyz");
    assert_int_equal(pm_buf_add(&buf, NULL, 0), 0);
}

static void printing(void **state)
{
    (void)state;
    char large[2000];
    memset(large, 'q', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    pm_buf_release(&buf);
    pm_buf_init(&buf, 2100);
    for (int width = 250; width < 260; width++) {
        pm_buf_clear(&buf);
        assert_int_equal(pm_buf_printf(&buf, "%*d", width, 7), 0);
        assert_int_equal(buf.used, width);
        assert_int_equal(pm_buf_text(&buf)[width - 1], '7');
    }
    pm_buf_clear(&buf);
    assert_int_equal(pm_buf_printf(&buf, "%s-%s", large, "end"), 0);
    assert_int_equal(buf.used, 2003);
    assert_int_equal(pm_buf_printf(&buf, "%s", large), -PM_ELIMIT);
    assert_int_equal(buf.used, 2003); /* never half an append */
}

static void flushing(void **state)
{
    (void)state;
    char path[] = "/tmp/pm_test_json_XXXXXX", back[16] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    pm_buf_release(&buf);
    pm_buf_init(&buf, 100);
    assert_int_equal(pm_buf_flush(&buf, fd), 0);
    assert_int_equal(pm_buf_add_text(&buf, "hello"), 0);
    assert_int_equal(pm_buf_flush(&buf, fd), 0);
    assert_int_equal(buf.used, 0);
    assert_int_equal(pread(fd, back, sizeof back, 0), 5);
    assert_string_equal(back, "hello");
    close(fd);
    int full = open("/dev/full", O_WRONLY);
    if (full >= 0) {
        assert_int_equal(pm_buf_add_text(&buf, "kept"), 0);
        assert_int_equal(pm_buf_flush(&buf, full), -PM_ENOSPACE);
        assert_string_equal(pm_buf_text(&buf), "kept");
        close(full);
    }
    assert_int_equal(pm_buf_flush(&buf, -1), -PM_EIO);
}

static void no_memory(void **state)
{
    (void)state;
    TORTURE(n)
    {
        begin(0);
        sample();
        for (int i = 0; i < 3; i++)
            (void)pm_buf_printf(&buf, "%1000d", i);
        int status = pm_json_finish(&json);
        assert_true(status == 0 || status == -PM_ENOMEM);
        assert_int_equal(status, pm_buf_status(&buf));
        (void)pm_buf_text(&buf);
        pm_buf_release(&buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(shapes, release),   cmocka_unit_test_teardown(escapes, release),
        cmocka_unit_test_teardown(utf8, release),     cmocka_unit_test_teardown(misuse, release),
        cmocka_unit_test_teardown(ceilings, release), cmocka_unit_test_teardown(printing, release),
        cmocka_unit_test_teardown(flushing, release), cmocka_unit_test_teardown(no_memory, release),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
