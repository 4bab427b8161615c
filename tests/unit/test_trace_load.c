/* Reading traces: values, oddities of JSON, pieces of any size, gzip, damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "trace/scan.h"
#include "trace/trace.h"

static struct pm_trace *load_with(const char *text, size_t n,
                                  const struct pm_trace_options *options)
{
    struct pm_trace *trace = NULL;
    struct pm_error err = {""};
    int code = pm_trace_load_memory(&trace, text, n, "test", options, &err);
    if (code != 0)
        fail_msg("%s: %.200s", err.text, text);
    return trace;
}

static struct pm_trace *load(const char *text)
{
    return load_with(text, strlen(text), NULL);
}

static const char *name(const struct pm_trace *trace, uint32_t row)
{
    return pm_trace_text(trace, trace->events.name[row]);
}

#define EVENTS(text) "{\"traceEvents\": [" text "]}"
#define X "\"ph\": \"X\", \"name\": \"n\", \"ts\": 1, \"dur\": 2"

static const char whole[] =
    "{\"schemaVersion\": 1, \"distributedInfo\": {\"backend\": \"nccl\", \"rank\": 3, "
    "\"world_size\": 8},\n"
    " \"deviceProperties\": [{\"id\": 0, \"name\": \"NVIDIA H\", \"totalGlobalMem\": 85899345920, "
    "\"numSms\": 132}, {\"id\": 1}], \"with_stack\": 1, \"record_shapes\": 0,\n"
    " \"other\": [{\"deep\": [[\"]}\", {}]]}, 1], \"baseTimeNanoseconds\": 1700000000000000000,\n"
    " \"traceEvents\": [\n"
    "  {\"ph\": \"M\", \"name\": \"thread_name\", \"ts\": 0, \"pid\": 7, \"tid\": 8, \"args\": "
    "{\"name\": \"worker\"}},\n"
    "  {\"ph\": \"X\", \"cat\": \"cpu_op\", \"name\": \"aten::mm\", \"pid\": 7, \"tid\": 8, "
    "\"ts\": 1000.5,"
    " \"dur\": 20.125, \"args\": {\"External id\": 5, \"Sequence number\": 0, \"Fwd thread id\": "
    "1, "
    "\"Input Dims\": [[2, 3], [3, 4]], \"Unknown\": {\"a\": [1]}}},\n"
    "  {\"ph\": \"X\", \"cat\": \"cuda_runtime\", \"name\": \"cudaLaunchKernel\", \"pid\": 7, "
    "\"tid\": 8, "
    "\"ts\": 1005, \"dur\": 1, \"args\": {\"External id\": 5, \"correlation\": 99}},\n"
    "  {\"ph\": \"s\", \"id\": 99, \"pid\": 7, \"tid\": 8, \"ts\": 1005, \"cat\": \"ac2g\", "
    "\"name\": "
    "\"ac2g\"},\n"
    "  {\"ph\": \"X\", \"cat\": \"kernel\", \"name\": \"void gemm<float>(int)\", \"pid\": 0, "
    "\"tid\": \"stream "
    "7\", \"ts\": 1010, \"dur\": 5, \"args\": {\"External id\": 5, \"device\": 0, \"stream\": 7, "
    "\"correlation\": 99, \"grid\": [8, 2, 1], \"block\": [128, 1, 1], \"bytes\": 4096, \"graph "
    "node id\": "
    "12, \"est. achieved occupancy %\": 37, \"Collective name\": \"allreduce\"}},\n"
    "  {\"ph\": \"i\", \"cat\": \"cpu_instant_event\", \"s\": \"t\", \"name\": \"[memory]\", "
    "\"pid\": 7, "
    "\"tid\": 8, \"ts\": 1011, \"args\": {\"Total Allocated\": 64, \"Bytes\": -16, \"Device Id\": "
    "-1, "
    "\"Device Type\": 0}},\n"
    "  {\"ph\": \"f\", \"id\": 99, \"pid\": 0, \"tid\": 7, \"ts\": 1010, \"cat\": \"ac2g\", "
    "\"name\": "
    "\"ac2g\", \"bp\": \"e\"}\n"
    " ], \"traceName\": \"/tmp/x\\\\y.json\", \"displayTimeUnit\": \"ms\"}\n";

static void check_whole(const struct pm_trace *trace)
{
    const struct pm_trace_events *e = &trace->events;
    assert_int_equal(trace->loss.code, 0);
    assert_int_equal(trace->rank, 3);
    assert_int_equal(trace->world_size, 8);
    assert_int_equal(trace->n_gpus, 2);
    assert_string_equal(pm_trace_text(trace, trace->gpus[0].name), "NVIDIA H");
    assert_int_equal(trace->gpus[0].multiprocessors, 132);
    assert_true(trace->with_stack && !trace->record_shapes);
    assert_true(trace->base_ns == 1700000000000000000ll);
    assert_string_equal(pm_trace_text(trace, trace->trace_name), "/tmp/x\\y.json");
    assert_int_equal(trace->all_events, 7);
    assert_int_equal(trace->flow_events, 2);
    assert_int_equal(e->n, 4);

    assert_string_equal(name(trace, 0), "aten::mm");
    assert_int_equal(pm_trace_kind_of(trace, 0), PM_KIND_CPU_OP);
    assert_true(e->ts_ns[0] == 1000500 && e->dur_ns[0] == 20125);
    assert_int_equal(pm_trace_id_value(trace, e->ext[0]), 5);
    assert_int_equal(e->link[0], PM_TRACE_BACKWARD | 1);
    assert_string_equal(pm_trace_text(trace, trace->ops[e->extra[0]].dims), "[[2, 3], [3, 4]]");
    const struct pm_trace_track *track = &trace->tracks[pm_trace_track_of(trace, 0)];
    assert_string_equal(pm_trace_text(trace, track->pid), "7");
    assert_string_equal(pm_trace_text(trace, track->tid), "8");
    assert_string_equal(pm_trace_text(trace, track->name), "worker");

    assert_int_equal(pm_trace_kind_of(trace, 1), PM_KIND_RUNTIME);
    assert_int_equal(pm_trace_track_of(trace, 1), pm_trace_track_of(trace, 0));
    assert_int_equal(e->link[1], e->link[2]);
    assert_int_equal(pm_trace_id_value(trace, e->link[1]), 99);

    const struct pm_trace_work *work = &trace->work[e->extra[2]];
    assert_int_equal(pm_trace_kind_of(trace, 2), PM_KIND_KERNEL);
    assert_int_equal(work->device, 0);
    assert_int_equal(pm_trace_id_value(trace, work->stream), 7);
    assert_int_equal(work->blocks, 16);
    assert_int_equal(work->threads, 128);
    assert_int_equal(work->bytes, 4096);
    assert_int_equal(work->graph_node, 12);
    assert_true(work->occupancy_pct == 37);
    assert_string_equal(pm_trace_text(trace, work->collective), "allreduce");
    track = &trace->tracks[pm_trace_track_of(trace, 2)];
    assert_string_equal(pm_trace_text(trace, track->tid), "stream 7");

    const struct pm_trace_memory *memory = &trace->memory[e->extra[3]];
    assert_int_equal(pm_trace_kind_of(trace, 3), PM_KIND_MEMORY);
    assert_true(memory->bytes == -16 && memory->allocated == 64 && memory->device_type == 0);
}

static void a_whole_trace(void **state)
{
    (void)state;
    struct pm_trace *trace = load(whole);
    check_whole(trace);
    assert_int_equal(trace->json_bytes, sizeof(whole) - 1);
    pm_trace_free(trace);
}

/* Pieces of every size, with every kind of scan, give the same. */
static void pieces_of_any_size(void **state)
{
    (void)state;
    for (size_t chunk = 1; chunk < 1500; chunk += chunk < 40 ? 1 : 37)
        for (int scan = PM_SCAN_PLAIN; scan <= PM_SCAN_AVX2; scan++) {
            struct pm_trace_options options = {.scan = scan, .chunk_bytes = chunk};
            if (!pm_scan_available((enum pm_scan_kind)scan))
                continue;
            struct pm_trace *trace = load_with(whole, sizeof(whole) - 1, &options);
            check_whole(trace);
            pm_trace_free(trace);
        }
}

static void an_array_without_an_object(void **state)
{
    (void)state;
    struct pm_trace *trace =
        load("\xEF\xBB\xBF [{" X "}, {" X ", \"cat\": \"kernel\"}, {}, null, 3, \"x\"]");
    assert_int_equal(trace->events.n, 2);
    assert_int_equal(trace->all_events, 3);
    assert_int_equal(pm_trace_kind_of(trace, 0), PM_KIND_CPU_OP);
    assert_int_equal(pm_trace_kind_of(trace, 1), PM_KIND_KERNEL);
    pm_trace_free(trace);
}

/* As in Python, the last one counts. */
static void duplicate_keys(void **state)
{
    (void)state;
    struct pm_trace *trace =
        load("{\"traceEvents\": [{" X "}, {" X "}], \"traceEvents\": [{\"name\": \"first\", " X
             ", \"ts\": 7, \"args\": {\"External id\": 1}, \"args\": {\"External id\": 4, "
             "\"External id\": 5}},"
             "{" X ", \"args\": {\"External id\": 1}, \"args\": 3}, {" X ", \"ts\": null}]}");
    assert_int_equal(trace->events.n, 2);
    assert_string_equal(name(trace, 0), "n");
    assert_true(trace->events.ts_ns[0] == 7000);
    assert_int_equal(pm_trace_id_value(trace, trace->events.ext[0]), 5);
    assert_int_equal(trace->events.ext[1], 0);
    assert_int_equal(trace->incomplete, 1);
    pm_trace_free(trace);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
        bool odd;
    } times[] = {
        {"0", 0, false},
        {"-3", -3000, false},
        {"1712195495519689.0", 1712195495519689000, false},
        {"4458677052061.431", 4458677052061431, false},
        {"1.0004", 1000, false},
        {"1.0005", 1001, false},
        {"-1.0005", -1001, false},
        {"1.00049999999999999999", 1000, false},
        {"12345678", 12345678000, false},
        {"1234567.25", 1234567250, false},
        {"1e3", 1000000, false},
        {"1.5E+3", 1500000, false},
        {"25e-1", 2500, false},
        {"9e300", PM_TRACE_MAX_NS, true},
        {"-9e300", -PM_TRACE_MAX_NS, true},
        {"123456789012345678901234567890", PM_TRACE_MAX_NS, true},
        {"NaN", 0, true},
        {"-nan", 0, true},
        {"Infinity", PM_TRACE_MAX_NS, true},
        {"-Infinity", -PM_TRACE_MAX_NS, true},
        {"inf", PM_TRACE_MAX_NS, true},
        {"\"12.5\"", 12500, false}, /* in quotes, as some writers have it */
    };
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        char text[256];
        snprintf(text, sizeof(text),
                 EVENTS("{\"ph\": \"X\", \"name\": \"n\", \"ts\": %s, \"dur\": 1}"), times[i].text);
        struct pm_trace *trace = load(text);
        assert_int_equal(trace->events.n, 1);
        if (trace->events.ts_ns[0] != times[i].ns)
            fail_msg("%s is %lld", times[i].text, (long long)trace->events.ts_ns[0]);
        assert_int_equal(trace->odd_numbers > 0, times[i].odd);
        pm_trace_free(trace);
    }
}

/* Ids of any size: equal ones stay equal, different ones different. */
static void ids(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "1",          "2147483645",           "2147483646",           "2147483647",
        "2147483648", "9223372036854775807",  "18446744073709551615", "18446744073709551616",
        "-2",         "18446744073709551617", "\"0x7f0000000000\"",   "\"17\"",
    };
    uint32_t seen[sizeof(texts) / sizeof(texts[0])];
    char text[8192] = "[";
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        for (int twice = 0; twice < 2; twice++)
            snprintf(text + strlen(text), sizeof(text) - strlen(text),
                     "%s{" X ", \"cat\": \"kernel\", \"args\": {\"correlation\": %s}}",
                     i + (size_t)twice == 0 ? "" : ",", texts[i]);
    snprintf(text + strlen(text), sizeof(text) - strlen(text), "]");
    struct pm_trace *trace = load(text);
    for (uint32_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        seen[i] = trace->events.link[2 * i];
        assert_int_equal(seen[i], trace->events.link[2 * i + 1]);
        assert_true(seen[i] != 0);
        for (uint32_t k = 0; k < i; k++)
            assert_true(seen[k] != seen[i]);
    }
    assert_true(pm_trace_id_value(trace, seen[5]) == INT64_MAX);
    assert_true(pm_trace_id_value(trace, seen[6]) == UINT64_MAX);
    pm_trace_free(trace);
}

static void strings(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } texts[] = {
        {"plain", "plain"},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
        {"\\u0041\\u00e4\\u20AC", "A\xC3\xA4\xE2\x82\xAC"},
        {"\\ud83d\\ude00", "\xF0\x9F\x98\x80"},
        {"\\ud83d", "\xED\xA0\xBD"},                    /* a lone surrogate stays one */
        {"\\ude00\\ud83d", "\xED\xB8\x80\xED\xA0\xBD"}, /* in the wrong order */
        {"\\x \\u12", "\\x \\u12"},                     /* no escapes: kept as they are */
        {"\xFF\xFE broken", "\xFF\xFE broken"},         /* shown as U+FFFD, kept as it is */
        {"{[]}", "{[]}"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char text[256];
        snprintf(text, sizeof(text), EVENTS("{\"p\\u0068\": \"X\", \"name\": \"%s\", \"ts\": 1}"),
                 texts[i].json);
        struct pm_trace *trace = load(text);
        assert_int_equal(trace->events.n, 1);
        assert_string_equal(name(trace, 0), texts[i].text);
        pm_trace_free(trace);
    }
}

static void nesting_without_end(void **state)
{
    (void)state;
    enum { DEPTH = 200000 };
    char *text = malloc(4 * DEPTH + 200);
    int n = snprintf(text, 200, "{\"deep\": ");
    memset(text + n, '[', DEPTH);
    memset(text + n + DEPTH, ']', DEPTH);
    n += 2 * DEPTH;
    n += snprintf(text + n, 200, ", \"traceEvents\": [{" X ", \"args\": {\"deep\": ");
    memset(text + n, '[', DEPTH / 2);
    memset(text + n + DEPTH / 2, ']', DEPTH / 2);
    n += DEPTH;
    n += snprintf(text + n, 100, "}}, {" X "}]}");
    struct pm_trace *trace = load_with(text, (size_t)n, NULL);
    assert_int_equal(trace->events.n, 2);
    assert_int_equal(trace->loss.code, 0);
    pm_trace_free(trace);
    free(text);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Every prefix is read or refused with a sentence; what is kept is what stands before the cut. */
static void every_prefix(void **state)
{
    (void)state;
    uint64_t most = 0;
    for (size_t n = 0; n < sizeof(whole) - 3; n++) {
        struct pm_trace *trace = NULL;
        struct pm_error err = {""};
        char *copy = malloc(n + 1), text[512]; /* of its own, so that a sanitizer sees overreads */
        memcpy(copy, whole, n);
        struct pm_trace_options options = {.chunk_bytes = n % 2 == 0 ? 64 : 0};
        int code = pm_trace_load_memory(&trace, copy, n, "cut", &options, &err);
        free(copy);
        if (code != 0) {
            assert_int_equal(code, -PM_EFORMAT);
            assert_non_null(strstr(err.text, "cut"));
            assert_int_equal(most, 0); /* once there were events, never refused */
            continue;
        }
        assert_int_equal(trace->loss.code, -PM_ETRUNCATED);
        assert_true(pm_trace_loss_text(trace, text, sizeof(text)));
        assert_int_equal(trace->json_bytes, n);
        assert_true(trace->all_events >= most && trace->all_events <= 7);
        most = trace->all_events;
        if (!trace->loss.after_events && trace->all_events > 0) {
            assert_int_equal(whole[n - trace->loss.lost_bytes - 1], '}');
            assert_int_equal(trace->loss.at, n);
        }
        pm_trace_free(trace);
    }
    assert_int_equal(most, 7);
}

static void says_where_it_is_damaged(void **state)
{
    (void)state;
    char text[512];
    const char *bad = EVENTS("{" X "}, {" X "}, {" X ", oops}, {" X "}");
    struct pm_trace *trace = load(bad);
    assert_int_equal(trace->events.n, 2);
    assert_int_equal(trace->loss.code, -PM_ECORRUPT);
    assert_int_equal(trace->loss.lost_bytes, strlen(strstr(bad, ", {" X ", oops")));
    assert_true(pm_trace_loss_text(trace, text, sizeof(text)));
    assert_non_null(strstr(text, "2 events"));
    pm_trace_free(trace);
}

/* A quote that nobody opened: where reading stops must not depend on the pieces. */
static void a_lost_quote(void **state)
{
    (void)state;
    static const char bad[] = EVENTS("{" X "}, id\": 16101, \"tid\": 16101, \"args\": {\"a\": 1}}");
    for (size_t chunk = 1; chunk < sizeof(bad); chunk++) {
        struct pm_trace_options options = {.chunk_bytes = chunk};
        struct pm_trace *trace = load_with(bad, sizeof(bad) - 1, &options);
        assert_int_equal(trace->events.n, 1);
        assert_int_equal(trace->loss.code, -PM_ECORRUPT);
        assert_int_equal(trace->loss.at, strstr(bad, "id\":") + 2 - bad);
        pm_trace_free(trace);
    }
}

static void refuses_what_is_no_trace(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "   ",
                                        "hello",
                                        "{\"a\": 1}",
                                        "\177ELF",
                                        "{\"traceEvents\": 3}",
                                        "\x1f\x8b\x08"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct pm_trace *trace;
        struct pm_error err = {""};
        assert_int_equal(pm_trace_load_memory(&trace, texts[i], strlen(texts[i]), "x", NULL, &err),
                         -PM_EFORMAT);
        assert_non_null(strstr(err.text, "trace"));
    }
}

/* ---- gzip ------------------------------------------------------------------------------------ */

static size_t compress_text(const char *text, size_t n, unsigned char *out, size_t room)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)text;
    z.avail_in = (unsigned)n;
    z.next_out = out;
    z.avail_out = (unsigned)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static bool has_library(enum pm_inflate_library library)
{
    struct pm_inflate gz;
    if (pm_inflate_init(&gz, NULL, NULL, library) != 0)
        return false;
    pm_inflate_release(&gz);
    return true;
}

/* Members of every split, both libraries, with and without a thread. */
static void gzip_of_several_members(void **state)
{
    (void)state;
    unsigned char packed[8192];
    for (size_t split = 0; split <= sizeof(whole) - 1; split += 97)
        for (int library = PM_INFLATE_ZLIB; library <= PM_INFLATE_ISAL; library++) {
            if (!has_library((enum pm_inflate_library)library))
                continue;
            struct pm_trace_options options = {
                .source = {(enum pm_inflate_library)library, split % 2 == 0}};
            size_t n = compress_text(whole, split, packed, sizeof(packed));
            n += compress_text(whole + split, sizeof(whole) - 1 - split, packed + n,
                               sizeof(packed) - n);
            memcpy(packed + n, "\0\0\0", 3);
            struct pm_trace *trace = load_with((const char *)packed, n + 3, &options);
            check_whole(trace);
            assert_int_equal(trace->source.members, 2);
            assert_int_equal(trace->source.trailing, 3);
            assert_int_equal(trace->source.consumed, n);
            pm_trace_free(trace);
        }
}

static void gzip_cut_or_damaged(void **state)
{
    (void)state;
    unsigned char packed[8192];
    size_t n = compress_text(whole, sizeof(whole) - 1, packed, sizeof(packed));
    for (int library = PM_INFLATE_ZLIB; library <= PM_INFLATE_ISAL; library++) {
        struct pm_trace_options options = {.source = {(enum pm_inflate_library)library, true}};
        size_t read = 0;
        if (!has_library((enum pm_inflate_library)library))
            continue;
        for (size_t cut = 1; cut < n; cut++) {
            struct pm_trace *trace = NULL;
            struct pm_error err = {""};
            unsigned char *copy = malloc(cut);
            memcpy(copy, packed, cut);
            int code = pm_trace_load_memory(&trace, copy, cut, "x", &options, &err);
            free(copy);
            if (code == 0) {
                assert_true(trace->loss.in_gzip);
                read++;
            } else {
                assert_int_equal(code, -PM_EFORMAT);
            }
            pm_trace_free(code == 0 ? trace : NULL);
        }
        assert_true(read > 20);
        packed[n - 5] ^= 1; /* the checksum */
        struct pm_trace *trace = load_with((const char *)packed, n, &options);
        assert_int_equal(trace->loss.code, -PM_ECORRUPT);
        assert_true(trace->loss.in_gzip && trace->loss.after_events);
        assert_int_equal(trace->events.n, 4);
        pm_trace_free(trace);
        packed[n - 5] ^= 1;
    }
}

/* ---- size ------------------------------------------------------------------------------------ */

static void many_events(void **state)
{
    (void)state;
    enum { N = 60000 };
    char *text = malloc((size_t)N * 128);
    size_t n = (size_t)snprintf(text, 100, "{\"traceEvents\": [");
    for (int i = 0; i < N; i++)
        n += (size_t)snprintf(
            text + n, 128,
            "%s{\"ph\": \"X\", \"name\": \"op%d\", \"pid\": %d, \"tid\": %d, \"ts\": %d, "
            "\"dur\": 1}",
            i == 0 ? "" : ",\n", i % 977, i % 3, i % 41, i);
    n += (size_t)snprintf(text + n, 10, "]}");
    struct pm_trace *trace = load_with(text, n, NULL);
    assert_int_equal(trace->events.n, N);
    assert_int_equal(trace->n_tracks, 3 * 41);
    for (uint32_t i = 0; i < N; i++) {
        char expected[32];
        snprintf(expected, sizeof(expected), "op%d", (int)i % 977);
        assert_string_equal(name(trace, i), expected);
        assert_true(trace->events.ts_ns[i] == (int64_t)i * 1000);
        snprintf(expected, sizeof(expected), "%d", (int)i % 41);
        assert_string_equal(pm_trace_text(trace, trace->tracks[pm_trace_track_of(trace, i)].tid),
                            expected);
    }
    pm_trace_free(trace);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_trace),
        cmocka_unit_test(pieces_of_any_size),
        cmocka_unit_test(an_array_without_an_object),
        cmocka_unit_test(duplicate_keys),
        cmocka_unit_test(numbers),
        cmocka_unit_test(ids),
        cmocka_unit_test(strings),
        cmocka_unit_test(nesting_without_end),
        cmocka_unit_test(every_prefix),
        cmocka_unit_test(says_where_it_is_damaged),
        cmocka_unit_test(a_lost_quote),
        cmocka_unit_test(refuses_what_is_no_trace),
        cmocka_unit_test(gzip_of_several_members),
        cmocka_unit_test(gzip_cut_or_damaged),
        cmocka_unit_test(many_events),
    };
    return cmocka_run_group_tests_name("trace_load", tests, NULL, NULL);
}
