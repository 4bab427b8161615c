/* Schemas: text out and in, hostile text, and accumulation against sums made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "session/hist.h"
#include "session/schema.h"
#include "torture.h"

struct sample {
    uint64_t at_ns;
    uint64_t dur_ns;
    int64_t delta;
    double share;
    uint32_t name;
    int32_t engine;
    uint16_t tokens;
    uint8_t phase;
    uint8_t flags;
};

static const struct pm_field fields[] = {
    PM_FIELD(struct sample, at_ns, U64, "ns", TIME, PM_AGG_NONE, "when it began"),
    PM_FIELD(struct sample, dur_ns, U64, "ns", DURATION, PM_AGG_HIST, "how long it took"),
    PM_FIELD(struct sample, delta, I64, "ns", DURATION, PM_AGG_SUM | PM_AGG_HIST, "signed"),
    PM_FIELD(struct sample, share, F64, "", GAUGE, PM_AGG_NONE, ""),
    PM_FIELD(struct sample, name, STR, "", ID, PM_AGG_NONE, "of the request"),
    PM_FIELD(struct sample, engine, I32, "", ID, PM_AGG_SUM, "rank"),
    PM_FIELD(struct sample, tokens, U16, "tokens", COUNT, PM_AGG_SUM, "scheduled"),
    PM_FIELD(struct sample, phase, U8, "", ID, PM_AGG_CLASS, "prefill or decode"),
    PM_FIELD(struct sample, flags, U8, "", FLAGS, PM_AGG_NONE, "tab\there, line\nthere"),
};
static const struct pm_schema schema = {
    .name = "sample",
    .stream = PM_STREAM_CORE,
    .payload_bytes = sizeof(struct sample),
    .classes = 2,
    .doc = "One sample, µs and all",
    .fields = fields,
    .n_fields = sizeof fields / sizeof fields[0],
};

static void round_trip(void **state)
{
    (void)state;
    char text[4096], again[4096];
    size_t bytes = pm_schema_to_text(&schema, text, sizeof text);
    assert_int_equal(bytes, strlen(text));
    assert_non_null(strstr(text, "schema\tsample\tcore\t48\t2\tOne sample, µs and all\n"));
    assert_non_null(strstr(text, "field\tdur_ns\tU64\t8\tns\tduration\thist\thow long it took\n"));
    assert_non_null(strstr(text, "\tnone\ttab here, line there\n"));

    struct pm_schema *back;
    assert_int_equal(pm_schema_from_text(text, bytes, &back), 0);
    assert_string_equal(back->name, "sample");
    assert_int_equal(back->n_fields, schema.n_fields);
    for (size_t i = 0; i < back->n_fields; i++) {
        assert_string_equal(back->fields[i].name, fields[i].name);
        assert_int_equal(back->fields[i].type, fields[i].type);
        assert_int_equal(back->fields[i].offset, fields[i].offset);
        assert_string_equal(back->fields[i].unit, fields[i].unit);
        assert_int_equal(back->fields[i].kind, fields[i].kind);
    }
    assert_int_equal(pm_schema_to_text(back, again, sizeof again), bytes);
    assert_string_equal(text, again);
    free(back);

    /* as snprintf: any size, always ended */
    for (size_t size = 0; size <= bytes + 1; size++) {
        memset(again, 'x', sizeof again);
        assert_int_equal(pm_schema_to_text(&schema, again, size), bytes);
        if (size > 0) {
            assert_int_equal(strlen(again), size <= bytes ? size - 1 : bytes);
            assert_memory_equal(again, text, size <= bytes ? size - 1 : bytes);
        }
        assert_int_equal(again[size], 'x');
    }
}

static int parse(const char *text)
{
    struct pm_schema *back = NULL;
    int status = pm_schema_from_text(text, strlen(text), &back);
    if (status != 0)
        assert_null(back);
    free(back);
    return status;
}

#define HEAD "schema\ts\tcore\t16\t1\tdoc\n"
#define FIELD(name, type, offset, kind, agg)                                                       \
    "field\t" name "\t" type "\t" offset "\tns\t" kind "\t" agg "\tdoc\n"

static void refused(void **state)
{
    (void)state;
    assert_int_equal(parse(HEAD), 0);
    assert_int_equal(parse(HEAD FIELD("a", "U64", "8", "time", "none")), 0);
    static const char *const bad[] = {
        "",
        "\n",
        "schema",
        "schema\ts\tcore\t16\t1\tdoc",                /* no end of line */
        "schema\t\tcore\t16\t1\tdoc\n",               /* no name */
        "schema\ta b\tcore\t16\t1\tdoc\n",            /* name */
        "schema\ts\tcores\t16\t1\tdoc\n",             /* stream */
        "schema\ts\tcore\t65536\t1\tdoc\n",           /* payload */
        "schema\ts\tcore\t-1\t1\tdoc\n",              /* payload */
        "schema\ts\tcore\t16\t0\tdoc\n",              /* no class */
        "schema\ts\tcore\t16\t256\tdoc\n",            /* classes */
        "schema\ts\tcore\t16\t2\tdoc\n",              /* classes without a field */
        "schema\ts\tcore\t16\t1\tdoc\tmore\n",        /* a cell too many */
        "schema\ts\tcore\t16\t1\n",                   /* a cell too few */
        "schema\ts\tcore\t16\t1\td\x01oc\n",          /* control character */
        "schema\ts\tcore\t16\t1\td\x7foc\n",          /* control character */
        HEAD "\n",                                    /* empty line */
        HEAD HEAD,                                    /* no field */
        HEAD FIELD("a", "U63", "0", "time", "none"),  /* type */
        HEAD FIELD("a", "U64", "9", "time", "none"),  /* beyond the payload */
        HEAD FIELD("a", "U8", "16", "time", "none"),  /* beyond the payload */
        HEAD FIELD("a", "U64", "0", "times", "none"), /* kind */
        HEAD FIELD("a", "U64", "0", "time", "most"),  /* agg */
        HEAD FIELD("a", "F64", "0", "time", "sum"),   /* sum of a double */
        HEAD FIELD("a", "STR", "0", "id", "hist"),    /* histogram of names */
        HEAD FIELD("a", "U16", "0", "id", "class"),   /* class is a u8 */
        HEAD FIELD("a", "U8", "0", "id", "none") FIELD("a", "U8", "1", "id", "none"), /* twice */
        HEAD FIELD("a", "U8", "0", "id", "class") FIELD("b", "U8", "1", "id", "class"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(parse(bad[i]), -PM_ECORRUPT);
    struct pm_schema *back;
    assert_int_equal(pm_schema_from_text("schema\ts\0\n", 10, &back), -PM_ECORRUPT);

    /* 64 fields are fine, 65 are not */
    static char text[8192];
    for (int count = 64; count <= 65; count++) {
        size_t used = (size_t)snprintf(text, sizeof text, HEAD);
        for (int i = 0; i < count; i++)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     "field\tf%d\tU8\t0\t\tid\tnone\t\n", i);
        assert_int_equal(parse(text), count == 64 ? 0 : -PM_ECORRUPT);
    }
    static char large[70000];
    memset(large, 'x', sizeof large);
    memcpy(large, HEAD, sizeof HEAD - 2);
    large[sizeof large - 1] = '\n';
    assert_int_equal(pm_schema_from_text(large, sizeof large, &back), -PM_ECORRUPT);
}

/* Every prefix and every single changed byte either parses or is refused; the sanitizers watch. */
static void total(void **state)
{
    (void)state;
    char text[4096];
    size_t bytes = pm_schema_to_text(&schema, text, sizeof text);
    for (size_t length = 0; length < bytes; length++) {
        char *exact = malloc(length + 1);
        memcpy(exact, text, length);
        struct pm_schema *back = NULL;
        if (pm_schema_from_text(exact, length, &back) == 0) {
            assert_int_equal(exact[length - 1], '\n');
            free(back);
        }
        free(exact);
    }
    for (size_t at = 0; at < bytes; at++)
        for (int change = 0; change < 8; change++) {
            char saved = text[at];
            text[at] = (char)(saved ^ 1 << change);
            struct pm_schema *back;
            if (pm_schema_from_text(text, bytes, &back) == 0) {
                for (size_t i = 0; i < back->n_fields; i++)
                    assert_true(back->fields[i].offset + pm_type_bytes(back->fields[i].type) <=
                                back->payload_bytes);
                free(back);
            }
            text[at] = saved;
        }
}

static void accumulates(void **state)
{
    (void)state;
    uint32_t n_values, n_hists;
    pm_schema_series(&schema, &n_values, &n_hists);
    assert_int_equal(n_values, 2 * (1 + 4)); /* count, dur_ns, delta, engine, tokens */
    assert_int_equal(n_hists, 2 * 2);
    uint64_t values[10] = {0}, want[10] = {0};
    static struct pm_hist hists[4], want_hists[4];
    memset(hists, 0, sizeof hists);
    memset(want_hists, 0, sizeof want_hists);
    for (unsigned i = 0; i < 500; i++) {
        struct sample sample = {.at_ns = i,
                                .dur_ns = i * 977u,
                                .delta = i % 3 == 0 ? -(int64_t)i : (int64_t)i,
                                .engine = (int32_t)(i % 5) - 1,
                                .tokens = (uint16_t)(i * 31),
                                .phase = (uint8_t)(i % 4)}; /* 2 and 3: beyond the last class */
        pm_schema_accumulate(&schema, &sample, values, hists);
        unsigned class_value = i % 4 == 0 ? 0 : 1;
        uint64_t *row = want + 5 * class_value;
        row[0] += 1;
        row[1] += sample.dur_ns;
        row[2] += (uint64_t)sample.delta;
        row[3] += (uint64_t)(int64_t)sample.engine;
        row[4] += sample.tokens;
        pm_hist_add(&want_hists[2 * class_value], sample.dur_ns);
        pm_hist_add(&want_hists[2 * class_value + 1],
                    sample.delta < 0 ? 0 : (uint64_t)sample.delta);
    }
    assert_memory_equal(values, want, sizeof values);
    assert_memory_equal(hists, want_hists, sizeof hists);
}

static void gets(void **state)
{
    (void)state;
    struct sample sample = {.at_ns = UINT64_MAX,
                            .delta = -2,
                            .share = 1.5,
                            .name = 7,
                            .engine = -1,
                            .tokens = 65535,
                            .phase = 255};
    /* payloads in a file need no alignment */
    unsigned char shifted[sizeof sample + 1];
    memcpy(shifted + 1, &sample, sizeof sample);
    uint64_t bits;
    memcpy(&bits, &sample.share, sizeof bits);
    const uint64_t want[] = {UINT64_MAX, 0, (uint64_t)-2, bits, 7, (uint64_t)-1, 65535, 255, 0};
    for (size_t i = 0; i < schema.n_fields; i++)
        assert_true(pm_field_get(&fields[i], shifted + 1) == want[i]);
    struct pm_field odd = {.type = (enum pm_type)99};
    assert_int_equal(pm_field_get(&odd, shifted), 0);
    assert_int_equal(pm_type_bytes((enum pm_type)99), 0);
}

static void no_memory(void **state)
{
    (void)state;
    char text[4096];
    size_t bytes = pm_schema_to_text(&schema, text, sizeof text);
    TORTURE(n)
    {
        struct pm_schema *back = NULL;
        int status = pm_schema_from_text(text, bytes, &back);
        assert_int_equal(status, n == 1 ? -PM_ENOMEM : 0);
        free(back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),  cmocka_unit_test(refused), cmocka_unit_test(total),
        cmocka_unit_test(accumulates), cmocka_unit_test(gets),    cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}
