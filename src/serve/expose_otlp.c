/* See expose_otlp.h. Field numbers are those of opentelemetry-proto 1.x. One thread; owns nothing.
 */
#include "serve/expose_otlp.h"

#include <stdio.h>
#include <string.h>

#include "view/perfetto_proto.h"

enum { SCOPE_METRIC = 2 };
enum { METRIC_NAME = 1, METRIC_HELP = 2, METRIC_UNIT = 3, METRIC_GAUGE = 5, METRIC_SUM = 7 };
enum { METRIC_EXPONENTIAL = 10, DATA_POINT = 1, DATA_TEMPORALITY = 2, DATA_MONOTONIC = 3 };
enum { POINT_TIME = 3, POINT_DOUBLE = 4, POINT_ATTRIBUTE = 7 };
enum { HIST_ATTRIBUTE = 1, HIST_COUNT = 4, HIST_SUM = 5, HIST_SCALE = 6, HIST_ZERO = 7 };
enum { HIST_POSITIVE = 8, BUCKETS_OFFSET = 1, BUCKETS_COUNTS = 2, CUMULATIVE = 2 };
enum { KEY = 1, VALUE = 2, ANY_TEXT = 1, ANY_INT = 3, ANY_DOUBLE = 4 };

/* 10^9 is 2^(239.18/8), see put_native of expose.c: the same shift. OpenTelemetry's bucket i holds
 * 2^(i/8) < seconds <= 2^((i+1)/8), one less than Prometheus's number. */
#define SCALE 3
#define SHIFT 240

static void put_signed(struct pm_buf *buf, unsigned field, int64_t value)
{
    pm_proto_u64(buf, field, ((uint64_t)value << 1) ^ (value < 0 ? ~0ull : 0ull));
}

/* A KeyValue up to its value; what is open is closed by end_pair. */
struct pair {
    size_t whole, any;
};

static struct pair begin_pair(struct pm_buf *buf, unsigned field, const char *key)
{
    struct pair pair = {.whole = pm_proto_begin(buf, field)};
    pm_proto_text(buf, KEY, key);
    pair.any = pm_proto_begin(buf, VALUE);
    return pair;
}

static void end_pair(struct pm_buf *buf, struct pair pair)
{
    pm_proto_end(buf, pair.any);
    pm_proto_end(buf, pair.whole);
}

void pm_otlp_text(struct pm_buf *buf, unsigned field, const char *key, const char *value)
{
    const struct pair pair = begin_pair(buf, field, key);
    pm_proto_text(buf, ANY_TEXT, value);
    end_pair(buf, pair);
}

void pm_otlp_int(struct pm_buf *buf, unsigned field, const char *key, uint64_t value)
{
    const struct pair pair = begin_pair(buf, field, key);
    pm_proto_u64(buf, ANY_INT, value);
    end_pair(buf, pair);
}

void pm_otlp_double(struct pm_buf *buf, unsigned field, const char *key, double value)
{
    const struct pair pair = begin_pair(buf, field, key);
    pm_proto_double(buf, ANY_DOUBLE, value);
    end_pair(buf, pair);
}

void pm_otlp_form_begin(struct pm_expose *expose)
{
    const struct pm_family *family = &expose->family;
    const bool ratio = strcmp(family->unit, "ratio") == 0;
    char name[160];
    snprintf(name, sizeof(name), "profilemate_%s%s", family->name,
             family->type == PM_FAMILY_INFO ? "_info" : "");
    expose->begun = pm_proto_begin(expose->buf, SCOPE_METRIC);
    pm_proto_text(expose->buf, METRIC_NAME, name);
    pm_proto_text(expose->buf, METRIC_HELP, family->help);
    if (family->unit[0] != '\0') /* as UCUM writes it */
        pm_proto_text(expose->buf, METRIC_UNIT,
                      strcmp(family->unit, "seconds") == 0 ? "s"
                      : strcmp(family->unit, "bytes") == 0 ? "By"
                      : ratio                              ? "1"
                                                           : family->unit);
    expose->data =
        pm_proto_begin(expose->buf, family->type == PM_FAMILY_COUNTER     ? METRIC_SUM
                                    : family->type == PM_FAMILY_HISTOGRAM ? METRIC_EXPONENTIAL
                                                                          : METRIC_GAUGE);
}

void pm_otlp_form_end(struct pm_expose *expose)
{
    if (expose->family.type == PM_FAMILY_COUNTER || expose->family.type == PM_FAMILY_HISTOGRAM)
        pm_proto_u64(expose->buf, DATA_TEMPORALITY, CUMULATIVE);
    if (expose->family.type == PM_FAMILY_COUNTER)
        pm_proto_u64(expose->buf, DATA_MONOTONIC, 1);
    pm_proto_end(expose->buf, expose->data);
    pm_proto_end(expose->buf, expose->begun);
}

static size_t begin_point(struct pm_expose *expose, const struct pm_labels *labels, unsigned field)
{
    const size_t point = pm_proto_begin(expose->buf, DATA_POINT);
    for (size_t i = 0; i < labels->count; i++)
        pm_otlp_text(expose->buf, field, labels->at[i].name, labels->at[i].value);
    pm_proto_fixed64(expose->buf, POINT_TIME, expose->now_ns);
    return point;
}

void pm_otlp_form_number(struct pm_expose *expose, const struct pm_labels *labels, double value)
{
    const size_t point = begin_point(expose, labels, POINT_ATTRIBUTE);
    pm_proto_double(expose->buf, POINT_DOUBLE, value);
    pm_proto_end(expose->buf, point);
}

void pm_otlp_form_histogram(struct pm_expose *expose, const struct pm_labels *labels,
                            const struct pm_hist *hist, uint64_t sum_ns)
{
    struct pm_buf *buf = expose->buf;
    unsigned first = 1, last = 0;
    uint64_t count = 0;
    for (unsigned b = 1; b < PM_HIST_BUCKETS; b++) {
        if (hist->buckets[b] == 0)
            continue;
        first = last == 0 ? b : first;
        last = b;
        count += hist->buckets[b];
    }
    const size_t point = begin_point(expose, labels, HIST_ATTRIBUTE);
    pm_proto_fixed64(buf, HIST_COUNT, count);
    pm_proto_double(buf, HIST_SUM, (double)sum_ns / 1e9);
    put_signed(buf, HIST_SCALE, SCALE);
    pm_proto_fixed64(buf, HIST_ZERO, 0);
    if (last != 0) {
        const size_t positive = pm_proto_begin(buf, HIST_POSITIVE);
        put_signed(buf, BUCKETS_OFFSET, (int64_t)first - 1 - SHIFT);
        const size_t counts = pm_proto_begin(buf, BUCKETS_COUNTS); /* packed */
        for (unsigned b = first; b <= last; b++)
            pm_proto_varint(buf, hist->buckets[b]);
        pm_proto_end(buf, counts);
        pm_proto_end(buf, positive);
    }
    pm_proto_end(buf, point);
}
