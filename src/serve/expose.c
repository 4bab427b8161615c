/* The three forms of metrics (expose.h). */
#include "serve/expose.h"

#include <stdio.h>
#include <string.h>

#include "serve/expose_otlp.h"
#include "view/openmetrics.h"
#include "view/perfetto_proto.h"

void pm_labels_add(struct pm_labels *labels, const char *name, const char *value)
{
    if (labels->count == PM_LABELS_MAX)
        return;
    labels->at[labels->count].name = name;
    labels->at[labels->count++].value = value;
}

void pm_expose_begin(struct pm_expose *expose, enum pm_serve_format format, struct pm_buf *buf)
{
    *expose = (struct pm_expose){.format = format, .buf = buf};
}

/* What samples of a family have behind its name. */
static const char *suffix(const struct pm_family *family)
{
    return family->type == PM_FAMILY_COUNTER ? "_total"
           : family->type == PM_FAMILY_INFO  ? "_info"
                                             : "";
}

/* ---- protobuf: field numbers are those of metrics.proto ---- */

enum { FAMILY_NAME = 1, FAMILY_HELP = 2, FAMILY_TYPE = 3, FAMILY_METRIC = 4, FAMILY_UNIT = 5 };
enum { TYPE_COUNTER = 0, TYPE_GAUGE = 1, TYPE_HISTOGRAM = 4 };
enum { METRIC_LABEL = 1, METRIC_GAUGE = 2, METRIC_COUNTER = 3, METRIC_HISTOGRAM = 7 };
enum { HISTOGRAM_COUNT = 1, HISTOGRAM_SUM = 2, HISTOGRAM_BUCKET = 3, HISTOGRAM_SCHEMA = 5 };
enum { HISTOGRAM_ZERO_THRESHOLD = 6, HISTOGRAM_ZERO_COUNT = 7, HISTOGRAM_SPAN = 12 };
enum { HISTOGRAM_DELTA = 13, BUCKET_COUNT = 1, BUCKET_BOUND = 2, SPAN_OFFSET = 1, SPAN_LENGTH = 2 };

/* A signed number as sint32 and sint64 have it. */
static void put_signed(struct pm_buf *buf, unsigned field, int64_t value)
{
    pm_proto_u64(buf, field, ((uint64_t)value << 1) ^ (value < 0 ? ~0ull : 0ull));
}

static void end_message(struct pm_expose *expose)
{
    if (expose->open && expose->format == PM_FORMAT_PROTOBUF)
        pm_proto_end(expose->buf, expose->begun);
    if (expose->open && expose->format == PM_FORMAT_OTLP)
        pm_otlp_form_end(expose);
    expose->open = false;
}

static void begin_message(struct pm_expose *expose, const struct pm_family *family)
{
    static const char room[4] = {0};
    static const unsigned types[] = {[PM_FAMILY_COUNTER] = TYPE_COUNTER,
                                     [PM_FAMILY_GAUGE] = TYPE_GAUGE,
                                     [PM_FAMILY_HISTOGRAM] = TYPE_HISTOGRAM,
                                     [PM_FAMILY_INFO] = TYPE_GAUGE};
    char name[160];
    snprintf(name, sizeof(name), "profilemate_%s%s", family->name, suffix(family));
    (void)pm_buf_add(expose->buf, room, sizeof(room)); /* its length, put in at its end */
    expose->begun = expose->buf->used;
    pm_proto_text(expose->buf, FAMILY_NAME, name);
    pm_proto_text(expose->buf, FAMILY_HELP, family->help);
    pm_proto_u64(expose->buf, FAMILY_TYPE, types[family->type]);
    if (family->unit[0] != '\0')
        pm_proto_text(expose->buf, FAMILY_UNIT, family->unit);
}

/* Opens a Metric and puts its labels; the result goes to pm_proto_end. */
static size_t begin_metric(struct pm_expose *expose, const struct pm_labels *labels)
{
    const size_t metric = pm_proto_begin(expose->buf, FAMILY_METRIC);
    for (size_t i = 0; i < labels->count; i++) {
        const size_t label = pm_proto_begin(expose->buf, METRIC_LABEL);
        pm_proto_text(expose->buf, 1, labels->at[i].name);
        pm_proto_text(expose->buf, 2, labels->at[i].value);
        pm_proto_end(expose->buf, label);
    }
    return metric;
}

static void put_message(struct pm_expose *expose, const struct pm_labels *labels, double value)
{
    const size_t metric = begin_metric(expose, labels);
    const size_t inner = pm_proto_begin(
        expose->buf, expose->family.type == PM_FAMILY_COUNTER ? METRIC_COUNTER : METRIC_GAUGE);
    pm_proto_double(expose->buf, 1, value);
    pm_proto_end(expose->buf, inner);
    pm_proto_end(expose->buf, metric);
}

/*
 * A native histogram of schema 3: bucket i holds 2^((i-1)/8) < seconds <= 2^(i/8), eight to a power
 * of two as ours, which count nanoseconds. 10^9 is 2^(239.18/8): ours lie a fifth of a bucket off
 * the others' bounds, and each goes where most of it is, so that a quantile is 1.6 % too large at
 * most, beside the width of a bucket.
 */
#define NATIVE_SCHEMA 3
#define NATIVE_SHIFT 239
#define NATIVE_ZERO 1e-9 /* nothing shorter is measured */

static void put_native(struct pm_buf *buf, const struct pm_hist *hist)
{
    int64_t before = 0;
    int last = 0;
    bool any = false;

    put_signed(buf, HISTOGRAM_SCHEMA, NATIVE_SCHEMA);
    pm_proto_double(buf, HISTOGRAM_ZERO_THRESHOLD, NATIVE_ZERO);
    pm_proto_u64(buf, HISTOGRAM_ZERO_COUNT, 0);
    for (unsigned b = 1; b < PM_HIST_BUCKETS;) {
        unsigned end = b;
        while (end < PM_HIST_BUCKETS && hist->buckets[end] != 0)
            end++;
        if (end == b) {
            b++;
            continue;
        }
        const int index = (int)b - 1 - NATIVE_SHIFT;
        const size_t span = pm_proto_begin(buf, HISTOGRAM_SPAN);
        put_signed(buf, SPAN_OFFSET, any ? index - last : index);
        pm_proto_u64(buf, SPAN_LENGTH, end - b);
        pm_proto_end(buf, span);
        last = index + (int)(end - b);
        any = true;
        b = end;
    }
    if (!any) { /* an empty span tells that it is a native one all the same */
        const size_t span = pm_proto_begin(buf, HISTOGRAM_SPAN);
        put_signed(buf, SPAN_OFFSET, 0);
        pm_proto_u64(buf, SPAN_LENGTH, 0);
        pm_proto_end(buf, span);
    }
    for (unsigned b = 1; b < PM_HIST_BUCKETS; b++)
        if (hist->buckets[b] != 0) {
            put_signed(buf, HISTOGRAM_DELTA, (int64_t)hist->buckets[b] - before);
            before = (int64_t)hist->buckets[b];
        }
}

/* ---- text ---- */

static void put_head(struct pm_expose *expose, const struct pm_family *family)
{
    static const char *const open_types[] = {"counter", "gauge", "histogram", "info"};
    static const char *const types[] = {"counter", "gauge", "histogram", "gauge"};
    const bool open = expose->format == PM_FORMAT_OPENMETRICS;
    const char *more = open ? "" : suffix(family);
    struct pm_buf *buf = expose->buf;

    (void)pm_buf_printf(buf, "# HELP profilemate_%s%s %s\n", family->name, more, family->help);
    (void)pm_buf_printf(buf, "# TYPE profilemate_%s%s %s\n", family->name, more,
                        open ? open_types[family->type] : types[family->type]);
    if (open && family->unit[0] != '\0')
        (void)pm_buf_printf(buf, "# UNIT profilemate_%s %s\n", family->name, family->unit);
}

static void put_labels(struct pm_buf *buf, const struct pm_labels *labels, const char *bound)
{
    char before = '{';
    for (size_t i = 0; i < labels->count; i++) {
        (void)pm_buf_printf(buf, "%c%s=\"", before, labels->at[i].name);
        pm_metric_escape(buf, labels->at[i].value);
        (void)pm_buf_add_char(buf, '"');
        before = ',';
    }
    if (bound != NULL) {
        (void)pm_buf_printf(buf, "%cle=\"%s\"", before, bound);
        before = ',';
    }
    (void)pm_buf_add_text(buf, before == '{' ? " " : "} ");
}

static void put_sample(struct pm_expose *expose, const char *behind, const struct pm_labels *labels,
                       const char *bound)
{
    (void)pm_buf_printf(expose->buf, "profilemate_%s%s", expose->family.name, behind);
    put_labels(expose->buf, labels, bound);
}

static void put_histogram_text(struct pm_expose *expose, const struct pm_labels *labels,
                               const uint64_t below[PM_METRIC_BOUNDS], uint64_t count,
                               uint64_t sum_ns)
{
    for (unsigned i = 0; i < PM_METRIC_BOUNDS; i++) {
        struct pm_buf bound;
        pm_buf_init(&bound, 64);
        pm_metric_seconds(&bound, 1ull << (PM_METRIC_FIRST_BOUND + i));
        put_sample(expose, "_bucket", labels, pm_buf_text(&bound));
        (void)pm_buf_printf(expose->buf, "%llu\n", (unsigned long long)below[i]);
        pm_buf_release(&bound);
    }
    put_sample(expose, "_bucket", labels, "+Inf");
    (void)pm_buf_printf(expose->buf, "%llu\n", (unsigned long long)count);
    put_sample(expose, "_count", labels, NULL);
    (void)pm_buf_printf(expose->buf, "%llu\n", (unsigned long long)count);
    put_sample(expose, "_sum", labels, NULL);
    pm_metric_seconds(expose->buf, sum_ns);
    (void)pm_buf_add_char(expose->buf, '\n');
}

/* ---- the verbs ---- */

void pm_expose_family(struct pm_expose *expose, const struct pm_family *family)
{
    end_message(expose);
    expose->family = *family;
}

/* A family is begun by its first sample: one without any is not told of. */
static void need_family(struct pm_expose *expose)
{
    if (expose->open)
        return;
    expose->open = true;
    if (expose->format == PM_FORMAT_PROTOBUF)
        begin_message(expose, &expose->family);
    else if (expose->format == PM_FORMAT_OTLP)
        pm_otlp_form_begin(expose);
    else
        put_head(expose, &expose->family);
}

void pm_expose_count(struct pm_expose *expose, const struct pm_labels *labels, uint64_t value)
{
    need_family(expose);
    if (expose->format == PM_FORMAT_PROTOBUF) {
        put_message(expose, labels, (double)value);
        return;
    }
    if (expose->format == PM_FORMAT_OTLP) {
        pm_otlp_form_number(expose, labels, (double)value);
        return;
    }
    put_sample(expose, suffix(&expose->family), labels, NULL);
    (void)pm_buf_printf(expose->buf, "%llu\n", (unsigned long long)value);
}

void pm_expose_seconds(struct pm_expose *expose, const struct pm_labels *labels, uint64_t ns)
{
    need_family(expose);
    if (expose->format == PM_FORMAT_PROTOBUF) {
        put_message(expose, labels, (double)ns / 1e9);
        return;
    }
    if (expose->format == PM_FORMAT_OTLP) {
        pm_otlp_form_number(expose, labels, (double)ns / 1e9);
        return;
    }
    put_sample(expose, suffix(&expose->family), labels, NULL);
    pm_metric_seconds(expose->buf, ns);
    (void)pm_buf_add_char(expose->buf, '\n');
}

void pm_expose_number(struct pm_expose *expose, const struct pm_labels *labels, double value)
{
    need_family(expose);
    if (expose->format == PM_FORMAT_PROTOBUF) {
        put_message(expose, labels, value);
        return;
    }
    if (expose->format == PM_FORMAT_OTLP) {
        pm_otlp_form_number(expose, labels, value);
        return;
    }
    put_sample(expose, suffix(&expose->family), labels, NULL);
    (void)pm_buf_printf(expose->buf, "%.15g\n", value);
}

void pm_expose_histogram(struct pm_expose *expose, const struct pm_labels *labels,
                         const struct pm_hist *hist, uint64_t sum_ns)
{
    uint64_t below[PM_METRIC_BOUNDS];
    const uint64_t count = pm_metric_buckets(hist, below);

    need_family(expose);
    if (expose->format == PM_FORMAT_OTLP) {
        pm_otlp_form_histogram(expose, labels, hist, sum_ns);
        return;
    }
    if (expose->format != PM_FORMAT_PROTOBUF) {
        put_histogram_text(expose, labels, below, count, sum_ns);
        return;
    }
    const size_t metric = begin_metric(expose, labels);
    const size_t inner = pm_proto_begin(expose->buf, METRIC_HISTOGRAM);
    pm_proto_u64(expose->buf, HISTOGRAM_COUNT, count);
    pm_proto_double(expose->buf, HISTOGRAM_SUM, (double)sum_ns / 1e9);
    for (unsigned i = 0; i < PM_METRIC_BOUNDS; i++) {
        const size_t bucket = pm_proto_begin(expose->buf, HISTOGRAM_BUCKET);
        pm_proto_u64(expose->buf, BUCKET_COUNT, below[i]);
        pm_proto_double(expose->buf, BUCKET_BOUND,
                        (double)(1ull << (PM_METRIC_FIRST_BOUND + i)) / 1e9);
        pm_proto_end(expose->buf, bucket);
    }
    put_native(expose->buf, hist);
    pm_proto_end(expose->buf, inner);
    pm_proto_end(expose->buf, metric);
}

int pm_expose_end(struct pm_expose *expose)
{
    end_message(expose);
    if (expose->format == PM_FORMAT_OPENMETRICS)
        (void)pm_buf_add_text(expose->buf, "# EOF\n");
    return pm_buf_status(expose->buf);
}
