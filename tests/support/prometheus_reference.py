"""The slow twin of adapters/prometheus/write_v1: plain protobuf code that defines what is right."""

import math
import struct
from itertools import pairwise
from typing import Any, NamedTuple

from infrasage.prometheus.v1 import write_pb2
from infrasage.v1 import telemetry_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

from adapters import errors
from collector.validate import LimitRules, Limits

STALE = struct.pack("<Q", 0x7FF0000000000002)
NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created", "_info")
BUCKETS_MAX = 65_536
INT64_MAX = 2**63 - 1


class Refused(Exception):
    """Why an item can't be taken."""

    def __init__(self, reason: int) -> None:
        self.reason = reason


def is_stale(value: float) -> bool:
    return struct.pack("<d", value) == STALE


def reference(
    request: write_pb2.WriteRequest, limits: Limits, now: int, header: dict[str, Any]
) -> tuple[telemetry_pb2.TelemetryBatch, list[tuple[int, int]]]:
    """The batch of what is accepted, in one message however large; and (index, reason) of what is not."""
    twin = _Twin(request, LimitRules(limits, now), header)
    for series in request.timeseries:
        twin.take(series)
    for record in twin.batch.records:
        record.item_count = sum(len(points_of(metric)) for metric in record.metrics)
    return twin.batch, twin.rejections


def points_of(metric: metrics_pb2.Metric) -> Any:
    return getattr(metric, metric.WhichOneof("data") or "gauge").data_points


class Labels(NamedTuple):
    reason: int
    name: str
    job: str
    instance: str
    attributes: list[tuple[str, str]]


def read_labels(series: write_pb2.TimeSeries, rules: LimitRules) -> Labels:
    reason = 0
    names = [label.name for label in series.labels]
    own = ("__name__", "job", "instance")
    first = {label.name: label.value for label in reversed(series.labels)}
    attributes = [(label.name, label.value) for label in series.labels if label.name not in own]
    if len(set(names)) < len(names) or any(
        not label.name or (not label.value and label.name != "__name__") for label in series.labels
    ):
        reason = errors.INVALID_LABELS
    elif not first.get("__name__"):
        reason = errors.MISSING_METRIC_NAME
    else:
        reason = (
            rules.check_name(len((first.get("job") or "unknown_service").encode()))
            or rules.check_name(len(first["__name__"].encode()))
            or rules.check_attribute_count(len(attributes))
            or rules.check_attribute(
                max(len(label.name.encode()) for label in series.labels),
                max(len(label.value.encode()) for label in series.labels),
            )
        )
    return Labels(reason, first.get("__name__", ""), first.get("job", ""), first.get("instance", ""), attributes)


class _Twin:
    def __init__(self, request: write_pb2.WriteRequest, rules: LimitRules, header: dict[str, Any]) -> None:
        self.rules = rules
        self.header = header
        self.batch = telemetry_pb2.TelemetryBatch()
        self.records: dict[tuple[str, str], telemetry_pb2.TelemetryRecord] = {}
        self.rejections: list[tuple[int, int]] = []
        self.index = 0
        self.families = {entry.metric_family_name: entry for entry in request.metadata}

    def take(self, series: write_pb2.TimeSeries) -> None:
        labels = read_labels(series, self.rules)
        exemplars = [exemplar_of(exemplar) for exemplar in series.exemplars]
        items: list[Any] = in_wire_order(series)
        if not items and exemplars:
            items = [None]
        shares: list[list[metrics_pb2.Exemplar]] = [[] for _ in items]
        for exemplar, sent in zip(exemplars, series.exemplars, strict=True):
            shares[nearest(items, sent.timestamp)].append(exemplar)
        for item, share in zip(items, shares, strict=True):
            try:
                point, kind, temporality = self.point_of(labels, series, item, share)
                point.exemplars.extend(share)
                self.put(labels, point, kind, temporality)
            except Refused as refused:
                self.rejections.append((self.index, refused.reason))
            self.index += 1

    def point_of(
        self, labels: Labels, series: write_pb2.TimeSeries, item: Any, exemplars: list[metrics_pb2.Exemplar]
    ) -> tuple[Any, str, int]:
        """The point, the field of Metric that it is for, and its temporality."""
        reason = labels.reason
        for exemplar in exemplars:
            reason = reason or self.check_exemplar(exemplar)
        if reason:
            raise Refused(reason)
        if item is None:
            point = metrics_pb2.NumberDataPoint(as_double=NAN, flags=1)
            point.time_unix_nano = self.check_time(max(exemplar.timestamp for exemplar in series.exemplars))
            return point, "gauge", 0
        if isinstance(item, write_pb2.Sample):
            point = metrics_pb2.NumberDataPoint(as_double=item.value, flags=int(is_stale(item.value)))
            point.time_unix_nano = self.check_time(item.timestamp)
            return point, "gauge", 0
        return histogram_point(item, self.check_time(item.timestamp), dict(labels.attributes))

    def check_time(self, time_ms: int) -> int:
        if time_ms < 0:
            raise Refused(errors.TIMESTAMP_TOO_OLD)
        if time_ms * 10**6 > INT64_MAX:
            raise Refused(errors.TIMESTAMP_IN_FUTURE)
        reason = self.rules.check_time(time_ms * 10**6)
        if reason:
            raise Refused(reason)
        return time_ms * 10**6

    def check_exemplar(self, exemplar: metrics_pb2.Exemplar) -> int:
        reason = self.rules.check_attribute_count(len(exemplar.filtered_attributes))
        for attribute in exemplar.filtered_attributes:
            reason = reason or self.rules.check_attribute(
                len(attribute.key.encode()), len(attribute.value.string_value.encode())
            )
        return reason

    def put(self, labels: Labels, point: Any, kind: str, temporality: int) -> None:
        key = (labels.job, labels.instance)
        if key not in self.records:
            record = self.records[key] = self.batch.records.add(
                service_id=labels.job or "unknown_service",
                type=telemetry_pb2.TYPE_METRIC,
                source=telemetry_pb2.SOURCE_PROMETHEUS_WRITE_V1,
                **self.header,
            )
            for name, value in (("service.name", labels.job), ("service.instance.id", labels.instance)):
                if value:
                    record.resource.attributes.add(key=name).value.string_value = value
        record = self.records[key]
        # This series' attributes come before what the histogram has added.
        added = list(point.attributes)
        del point.attributes[:]
        for name, value in labels.attributes:
            point.attributes.add(key=name).value.string_value = value
        point.attributes.extend(added)
        last = record.metrics[-1] if record.metrics else None
        same = last is not None and last.name == labels.name and last.WhichOneof("data") == kind
        if not same or getattr(getattr(last, kind), "aggregation_temporality", 0) != temporality:
            last = record.metrics.add(name=labels.name)
            for family in (
                labels.name,
                *(labels.name.removesuffix(suffix) for suffix in SUFFIXES if labels.name.endswith(suffix)),
            ):
                if family in self.families:
                    last.description = self.families[family].help
                    last.unit = self.families[family].unit
                    break
            getattr(last, kind).SetInParent()
            if temporality:
                getattr(last, kind).aggregation_temporality = temporality
        assert last is not None
        points_of(last).append(point)


def nearest(items: list[Any], time_ms: int) -> int:
    """Which item an exemplar belongs to: the first of those nearest in time."""
    if items == [None]:
        return 0
    return min(range(len(items)), key=lambda n: abs(items[n].timestamp - time_ms))


def in_wire_order(series: write_pb2.TimeSeries) -> list[Any]:
    """Samples and histograms as protobuf writes them."""
    return [*series.samples, *series.histograms]


def identifier(text: str | None, size: int) -> bytes:
    if text is None or len(text) != 2 * size or not all(character in "0123456789abcdefABCDEF" for character in text):
        return b""
    number = int(text, 16)
    return number.to_bytes(size, "big") if number else b""


def exemplar_of(sent: write_pb2.Exemplar) -> metrics_pb2.Exemplar:
    attributes: dict[str, str] = {}
    for label in sent.labels:
        attributes.pop(label.name, None)
        attributes[label.name] = label.value
    made = metrics_pb2.Exemplar(as_double=sent.value)
    made.trace_id = identifier(attributes.get("trace_id"), 16)
    made.span_id = identifier(attributes.get("span_id"), 8)
    if 0 < sent.timestamp <= INT64_MAX // 10**6:
        made.time_unix_nano = sent.timestamp * 10**6
    for name, value in attributes.items():
        if not (name == "trace_id" and made.trace_id) and not (name == "span_id" and made.span_id):
            made.filtered_attributes.add(key=name).value.string_value = value
    return made


def require(truth: bool) -> None:
    if not truth:
        raise Refused(errors.INVALID_HISTOGRAM)


def buckets_of(spans: Any, counts: list[Any], custom: bool) -> dict[int, Any]:
    """Counts by Prometheus's index."""
    require(sum(span.length for span in spans) == len(counts))
    buckets: dict[int, Any] = {}
    index = 0
    left = iter(counts)
    for n, span in enumerate(spans):
        require(span.offset >= 0 or (n == 0 and not custom))
        index += span.offset
        for _ in range(span.length):
            buckets[index] = next(left)
            index += 1
    return buckets


def running(deltas: Any) -> list[int]:
    counts = []
    last = 0
    for delta in deltas:
        last += delta
        require(0 <= last <= INT64_MAX)
        counts.append(last)
    return counts


def histogram_point(sent: write_pb2.Histogram, time: int, attributes: dict[str, str]) -> tuple[Any, str, int]:
    """The point, the field of Metric that it is for, and its temporality."""
    custom = sent.schema == -53
    is_float = sent.WhichOneof("count") == "count_float"
    require(custom or -4 <= sent.schema <= 8)
    positive: list[Any]
    negative: list[Any]
    if is_float:
        require(not sent.zero_count_int and not sent.positive_deltas and not sent.negative_deltas)
        count, zero_count = sent.count_float, sent.zero_count_float
        positive, negative = list(sent.positive_counts), list(sent.negative_counts)
    else:
        zero_is_zero = struct.pack("<d", sent.zero_count_float) == bytes(8)
        require(zero_is_zero and not sent.positive_counts and not sent.negative_counts)
        count, zero_count = sent.count_int, sent.zero_count_int
        positive, negative = running(sent.positive_deltas), running(sent.negative_deltas)
    numbers = [count, zero_count, *positive, *negative]
    require(all(0 <= number < (9.2e18 if is_float else 2**63) for number in numbers))
    if custom:
        bounds = list(sent.custom_values)
        require(all(math.isfinite(bound) for bound in bounds))
        require(all(low < high for low, high in pairwise(bounds)))
        require(not zero_count and struct.pack("<d", zero_count if is_float else 0.0) == bytes(8))
        require(struct.pack("<d", sent.zero_threshold) == bytes(8))
        require(not sent.negative_spans and not negative)
    else:
        require(not sent.custom_values)
    low, high = buckets_of(sent.negative_spans, negative, custom), buckets_of(sent.positive_spans, positive, custom)
    total = zero_count + sum(negative) + sum(positive)
    if is_float:
        slack = 1e-6 * max(count, total)
        require(total - count <= slack and (math.isnan(sent.sum) or count - total <= slack))
    else:
        require(total <= count if math.isnan(sent.sum) else total == count)
    temporality = 0 if sent.reset_hint == write_pb2.Histogram.GAUGE else 2
    flags = int(is_stale(sent.sum))
    exact = ""
    if is_float and any(number != round(number) for number in numbers):
        shift = 0 if custom else -1
        sides = [",".join(f'"{index + shift}":{value!r}' for index, value in side.items()) for side in (high, low)]
        exact = f'{{"count":{count!r},"zero_count":{zero_count!r},"positive":{{{sides[0]}}},"negative":{{{sides[1]}}}}}'

    point: Any
    if custom:
        require(all(index <= len(bounds) for index in high))
        point = metrics_pb2.HistogramDataPoint(time_unix_nano=time, count=round(count), sum=sent.sum, flags=flags)
        point.explicit_bounds.extend(bounds)
        point.bucket_counts.extend(round(high.get(index, 0)) for index in range(len(bounds) + 1))
    else:
        point = metrics_pb2.ExponentialHistogramDataPoint(time_unix_nano=time, count=round(count), sum=sent.sum, flags=flags)
        point.scale = sent.schema
        point.zero_count = round(zero_count)
        point.zero_threshold = sent.zero_threshold
        for side, made in ((high, point.positive), (low, point.negative)):
            if side:
                require(min(side) > -(2**31) and min(side) < 2**31 and max(side) - min(side) < BUCKETS_MAX)
                made.offset = min(side) - 1
                made.bucket_counts.extend(round(side.get(index, 0)) for index in range(min(side), max(side) + 1))
    if exact:
        point.attributes.add(key="infrasage.float_histogram").value.string_value = exact
    return point, "histogram" if custom else "exponential_histogram", temporality
