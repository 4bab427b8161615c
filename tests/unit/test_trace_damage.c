/* Damaged traces: seeded changes to a small one, plain and compressed, read and analysed in full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "devour_trace.h"

/* Two steps of a made-up server: Python frames, operators, launches, a graph, memory, flows. */
static size_t make_trace(char *out, size_t room)
{
    size_t n = (size_t)snprintf(
        out, room,
        "{\"schemaVersion\": 1, \"distributedInfo\": {\"rank\": 1, \"world_size\": 2},\n"
        "\"deviceProperties\": [{\"id\": 0, \"name\": \"GPU\", \"numSms\": 10}], \"traceEvents\": "
        "[\n"
        "{\"ph\": \"M\", \"name\": \"process_name\", \"pid\": 1, \"tid\": 0, \"ts\": 0, \"args\": "
        "{\"name\": \"python\"}}");
    for (int step = 0; step < 2; step++) {
        int t = 1000 + 500 * step, id = 10 * step;
        n += (size_t)snprintf(
            out + n, room - n,
            ",\n{\"ph\": \"X\", \"cat\": \"python_function\", \"name\": \"model.py(1): forward\", "
            "\"pid\": 1, "
            "\"tid\": 1, \"ts\": %d, \"dur\": 300, \"args\": {\"Python id\": 1}},\n"
            "{\"ph\": \"X\", \"cat\": \"user_annotation\", \"name\": \"ProfilerStep#%d\", \"pid\": "
            "1, \"tid\": "
            "1, \"ts\": %d.5, \"dur\": 290, \"args\": {\"External id\": %d}},\n"
            "{\"ph\": \"X\", \"cat\": \"cpu_op\", \"name\": \"aten::addmm\", \"pid\": 1, \"tid\": "
            "1, \"ts\": %d, "
            "\"dur\": 40.25, \"args\": {\"External id\": %d, \"Sequence number\": %d, \"Fwd thread "
            "id\": 0, "
            "\"Input Dims\": [[4], [2, 3], [3, 4], [[1], [2]]], \"Call stack\": \"a.py;b.py\"}},\n"
            "{\"ph\": \"X\", \"cat\": \"cuda_runtime\", \"name\": \"cudaLaunchKernel\", \"pid\": "
            "1, \"tid\": 1, "
            "\"ts\": %d, \"dur\": 5, \"args\": {\"External id\": %d, \"correlation\": %d}},\n"
            "{\"ph\": \"s\", \"id\": 1, \"pid\": 1, \"tid\": 1, \"ts\": %d, \"cat\": \"ac2g\", "
            "\"name\": "
            "\"ac2g\"},\n"
            "{\"ph\": \"X\", \"cat\": \"kernel\", \"name\": \"flash_fwd_kernel\", \"pid\": 0, "
            "\"tid\": 7, "
            "\"ts\": %d, \"dur\": 50, \"args\": {\"External id\": %d, \"device\": 0, \"stream\": "
            "7, "
            "\"correlation\": %d, \"grid\": [2, 1, 1], \"block\": [32, 1, 1]}},\n",
            t, step, t, id + 1, t + 10, id + 2, step, t + 15, id + 2, id + 3, t + 15, t + 25,
            id + 2, id + 3);
        n += (size_t)snprintf(
            out + n, room - n,
            "{\"ph\": \"X\", \"cat\": \"cuda_runtime\", \"name\": \"cudaGraphLaunch\", \"pid\": 1, "
            "\"tid\": 1, "
            "\"ts\": %d, \"dur\": 9, \"args\": {\"correlation\": %d}},\n"
            "{\"ph\": \"X\", \"cat\": \"kernel\", \"name\": \"ncclDevKernel_AllReduce\", \"pid\": "
            "0, \"tid\": 7, "
            "\"ts\": %d, \"dur\": 30, \"args\": {\"device\": 0, \"correlation\": %d, \"graph node "
            "id\": 1}},\n"
            "{\"ph\": \"X\", \"cat\": \"gpu_memcpy\", \"name\": \"Memcpy DtoH (Device -> "
            "Pageable)\", \"pid\": "
            "0, \"tid\": 7, \"ts\": %d, \"dur\": 3, \"args\": {\"device\": 0, \"correlation\": %d, "
            "\"bytes\": "
            "4096}},\n"
            "{\"ph\": \"X\", \"cat\": \"cuda_runtime\", \"name\": \"cudaStreamSynchronize\", "
            "\"pid\": 1, "
            "\"tid\": 1, \"ts\": %d, \"dur\": 60, \"args\": {\"correlation\": %d}},\n"
            "{\"ph\": \"X\", \"cat\": \"cpu_op\", \"name\": \"AddmmBackward0\", \"pid\": 1, "
            "\"tid\": 2, \"ts\": "
            "%d, \"dur\": 7, \"args\": {\"External id\": %d, \"Sequence number\": %d, \"Fwd thread "
            "id\": 1}},\n"
            "{\"ph\": \"i\", \"s\": \"t\", \"cat\": \"cpu_instant_event\", \"name\": \"[memory]\", "
            "\"pid\": 1, "
            "\"tid\": 1, \"ts\": %d, \"args\": {\"Bytes\": 512, \"Device Type\": %d, \"Device "
            "Id\": 0, \"Total "
            "Allocated\": 1024}}",
            t + 60, id + 4, t + 90, id + 4, t + 130, id + 4, t + 80, id + 5, t + 200, id + 6, step,
            t + 12, step);
    }
    n += (size_t)snprintf(out + n, room - n, "\n], \"traceName\": \"a\\u00e4\\\\b\"}\n");
    assert_true(n < room);
    return n;
}

static size_t rounds(size_t otherwise)
{
    const char *text = getenv("PM_TEST_ROUNDS");
    long n = text != NULL ? strtol(text, NULL, 10) : 0;
    return n > 0 ? (size_t)n : otherwise;
}

/* What a damaged disk, a bad program or an attacker would put there. */
static size_t change(uint8_t *bytes, size_t n, size_t room)
{
    static const char *const pieces[] = {
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "1e999",
        "-",
        "\\ud800",
        "\xFF",
        "\x00",
        "99999999999999999999999",
        "NaN",
        "\"ts\": ",
        "\"args\": {",
        "\"cat\": \"kernel\"",
        "\n",
        "0.5",
    };
    size_t at = n > 0 ? (size_t)rand() % n : 0, len, to;
    switch (rand() % 6) {
    case 0:
        bytes[at] = (uint8_t)rand();
        return n;
    case 1:
        bytes[at] ^= (uint8_t)(1 << rand() % 8);
        return n;
    case 2: /* cut out */
        len = (size_t)rand() % (n - at < 40 ? n - at + 1 : 40);
        memmove(bytes + at, bytes + at + len, n - at - len);
        return n - len;
    case 3: { /* put in */
        const char *piece = pieces[(size_t)rand() % (sizeof(pieces) / sizeof(pieces[0]))];
        len = piece[0] == '\0' ? 1 : strlen(piece);
        if (n + len > room)
            return n;
        memmove(bytes + at + len, bytes + at, n - at);
        memcpy(bytes + at, piece, len);
        return n + len;
    }
    case 4: /* copy over */
        to = (size_t)rand() % n;
        len = (size_t)rand() % 60;
        if (at + len <= n && to + len <= n)
            memmove(bytes + to, bytes + at, len);
        return n;
    default: /* another digit */
        for (; at < n; at++)
            if (bytes[at] >= '0' && bytes[at] <= '9') {
                bytes[at] = (uint8_t)('0' + rand() % 10);
                break;
            }
        return n;
    }
}

static void changed_bytes(void **state)
{
    (void)state;
    static char sound[16384];
    static struct pm_classes classes;
    size_t n = make_trace(sound, sizeof(sound)), read = 0, all = rounds(3000);
    assert_int_equal(pm_classes_init(&classes, NULL, NULL), 0);
    assert_true(devour_trace((const uint8_t *)sound, n, 100, &classes));
    srand(11);
    for (size_t round = 0; round < all; round++) {
        uint8_t work[sizeof(sound) + 512];
        size_t len = n;
        memcpy(work, sound, n);
        for (int changes = 1 + rand() % 4; changes > 0 && len > 0; changes--)
            len = change(work, len, sizeof(work));
        uint8_t *copy = malloc(len + 1); /* of its own, so that a sanitizer sees overreads */
        memcpy(copy, work, len);
        read += devour_trace(copy, len, (size_t)rand() % 3000, &classes);
        free(copy);
    }
    assert_true(read > all / 2);
    pm_classes_release(&classes);
}

static void changed_gzip(void **state)
{
    (void)state;
    static char sound[16384];
    static struct pm_classes classes;
    uint8_t packed[16384];
    size_t n = make_trace(sound, sizeof(sound)), all = rounds(3000) / 3;
    uLongf size = sizeof(packed);
    z_stream z = {0};
    assert_int_equal(pm_classes_init(&classes, NULL, NULL), 0);
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)sound;
    z.avail_in = (uInt)n;
    z.next_out = packed;
    z.avail_out = (uInt)size;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size -= z.avail_out;
    deflateEnd(&z);
    srand(13);
    for (size_t round = 0; round < all; round++) {
        uint8_t work[sizeof(packed) + 512];
        size_t len = size;
        memcpy(work, packed, size);
        for (int changes = 1 + rand() % 3; changes > 0 && len > 2; changes--)
            len = change(work, len, sizeof(work));
        uint8_t *copy = malloc(len + 1);
        memcpy(copy, work, len);
        devour_trace(copy, len, 500, &classes);
        free(copy);
    }
    pm_classes_release(&classes);
}

/* What fuzzing found: an event without a name in a stack, a gzip stream cut off behind all events,
 * and damage that was read otherwise where a piece of the text ended behind a backslash. */
static void found_by_fuzzing(void **state)
{
    static const char *const texts[] = {
        "{\"traceEvents\": [{\"ph\": \"X\", \"name\": \"\", \"pid\": 1, \"tid\": 1, \"ts\": 1, "
        "\"dur\": 5}]}",
        "{\"a\": [ 1, \\\"[\\\\\"]\", \\\"{ ], \"traceEvents\": [{\"ph\": \"X\", \"name\": \"b\", "
        "\"ts\": 1}]}",
    };
    static struct pm_classes classes;
    uint8_t packed[512];
    (void)state;
    assert_int_equal(pm_classes_init(&classes, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        for (size_t chunk = 0; chunk < 90; chunk++)
            (void)devour_trace((const uint8_t *)texts[i], strlen(texts[i]), chunk, &classes);
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)texts[0];
    z.avail_in = (uInt)strlen(texts[0]);
    z.next_out = packed;
    z.avail_out = sizeof(packed);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    const size_t size = sizeof(packed) - z.avail_out;
    deflateEnd(&z);
    for (size_t cut = 1; cut < 9; cut++) /* of the eight bytes behind the stream */
        for (size_t chunk = 0; chunk < 200; chunk += 7)
            assert_true(devour_trace(packed, size - cut, chunk, &classes));
    pm_classes_release(&classes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changed_bytes),
        cmocka_unit_test(changed_gzip),
        cmocka_unit_test(found_by_fuzzing),
    };
    return cmocka_run_group_tests_name("trace_damage", tests, NULL, NULL);
}
