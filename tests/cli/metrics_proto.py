"""The messages of io.prometheus.client (https://github.com/prometheus/client_model, metrics.proto), as far as they are read
here, as classes of Google's protobuf; and the quantile of a native histogram as Prometheus computes it."""

from __future__ import annotations

import math

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "io.prometheus.client"
KINDS = {"string": 9, "double": 1, "uint64": 4, "uint32": 13, "int64": 3, "sint32": 17, "sint64": 18, "message": 11, "enum": 14}
MESSAGES = {
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Gauge": {"value": (1, "double")},
    "Counter": {"value": (1, "double")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Bucket": {"cumulative_count": (1, "uint64"), "upper_bound": (2, "double")},
    "Histogram": {
        "sample_count": (1, "uint64"), "sample_sum": (2, "double"), "bucket": (3, "[Bucket]"), "schema": (5, "sint32"),
        "zero_threshold": (6, "double"), "zero_count": (7, "uint64"), "positive_span": (12, "[BucketSpan]"),
        "positive_delta": (13, "[sint64]"),
    },
    "Metric": {
        "label": (1, "[LabelPair]"), "gauge": (2, "Gauge"), "counter": (3, "Counter"), "histogram": (7, "Histogram"),
        "timestamp_ms": (6, "int64"),
    },
    "MetricFamily": {
        "name": (1, "string"), "help": (2, "string"), "type": (3, "MetricType"), "metric": (4, "[Metric]"), "unit": (5, "string"),
    },
}  # fmt: skip
TYPES = ("COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM", "GAUGE_HISTOGRAM")


def _family_class():
    file = descriptor_pb2.FileDescriptorProto(name="metrics.proto", package=PACKAGE, syntax="proto2")
    file.enum_type.add(name="MetricType").value.extend(
        descriptor_pb2.EnumValueDescriptorProto(name=name, number=i) for i, name in enumerate(TYPES)
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated, kind = kind.startswith("["), kind.strip("[]")
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in KINDS:
                added.type = KINDS[kind]
            else:
                added.type = KINDS["enum" if kind == "MetricType" else "message"]
                added.type_name = f".{PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.MetricFamily"))


MetricFamily = _family_class()


def families(data: bytes) -> list:
    """Of delimited messages."""
    found, at = [], 0
    while at < len(data):
        length = shift = 0
        while True:
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append(MetricFamily.FromString(data[at : at + length]))
        at += length
    return found


def native_buckets(histogram) -> list[tuple[float, float, int]]:
    """Lower and upper bound in seconds, and count, of each that is not empty."""
    base = 2.0 ** (2.0**-histogram.schema)
    index, count, found, deltas = 0, 0, [], iter(histogram.positive_delta)
    for span in histogram.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            found.append((base ** (index - 1), base**index, count))
            index += 1
    assert next(deltas, None) is None
    return found


def native_quantile(histogram, q: float) -> float:
    """histogram_quantile of Prometheus 2: the place in the bucket in a straight line."""
    buckets = native_buckets(histogram)
    rank = q * sum(count for *_, count in buckets)
    for lower, upper, count in buckets:
        if rank <= count:
            return lower + (upper - lower) * rank / count
        rank -= count
    return math.nan
