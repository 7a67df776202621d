"""The slow twin of adapters/prometheus: plain protobuf code that defines what is right, for remote write 1.0 and 2.0."""

import math
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from infrasage.prometheus.v1 import write_pb2
from infrasage.prometheus.v2 import write_pb2 as write_v2_pb2
from infrasage.v1 import telemetry_pb2
from infrasage.v1.telemetry_v1_pb2 import TelemetryBatchV1, TelemetryRecordV1
from opentelemetry.proto.metrics.v1 import metrics_pb2
from support.references.remote_write import varint

from adapters import errors
from collector.ingest.validate import LimitRules, Limits

STALE = struct.pack("<Q", 0x7FF0000000000002)
NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created", "_info")
TYPES = ["", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"]
BUCKETS_MAX = 65_536
METRIC_BYTES_MAX = 65_536
INT64_MAX = 2**63 - 1


class Refused(Exception):
    """Why an item can't be taken."""

    def __init__(self, reason: int) -> None:
        self.reason = reason


def is_stale(value: float) -> bool:
    return struct.pack("<d", value) == STALE


class Expected(NamedTuple):
    """What becomes of a request."""

    batch: TelemetryBatchV1  # in one message, however large
    rejections: list[tuple[int, int]]  # index, reason
    written: tuple[int, int, int]  # samples, histograms, exemplars


class Description(NamedTuple):
    type: int = 0
    help: str = ""
    unit: str = ""


class Exemplar(NamedTuple):
    labels: list[tuple[str, str]]
    value: float
    timestamp: int
    reason: int = 0


class Sent(NamedTuple):
    """A series of either version, its references resolved. `reason`: why they can't be."""

    labels: list[tuple[str, str]]
    samples: Sequence[Any]
    histograms: Sequence[Any]
    exemplars: list[Exemplar]
    description: Description
    reason: int = 0
    created: int = 0


def reference(request: write_pb2.WriteRequest, limits: Limits, now: int, header: dict[str, Any]) -> Expected:
    """Of a request of remote write 1.0."""
    twin = _Twin(telemetry_pb2.SOURCE_PROMETHEUS_WRITE_V1, LimitRules(limits, now), header)
    families = [(entry, Description(entry.type, entry.help, entry.unit)) for entry in request.metadata]
    by_name = {entry.metric_family_name: n for n, (entry, _) in enumerate(families)}
    described = set()
    for series in request.timeseries:
        labels = [(label.name, label.value) for label in series.labels]
        exemplars = [
            Exemplar([(label.name, label.value) for label in exemplar.labels], exemplar.value, exemplar.timestamp)
            for exemplar in series.exemplars
        ]
        name = next((value for name, value in reversed(labels) if name == "__name__"), "")
        found = None
        for family in (name, *(name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))):
            if family in by_name:
                found = by_name[family]
                break
        description = Description() if found is None else families[found][1]
        if twin.take(Sent(labels, series.samples, series.histograms, exemplars, description)):
            described.add(found)
    for n, (entry, description) in enumerate(families):
        if n not in described:
            twin.take_described(read_labels([("__name__", entry.metric_family_name)], twin.rules), description, 0)
    return twin.expected()


def reference_v2(request: write_v2_pb2.Request, limits: Limits, now: int, header: dict[str, Any]) -> Expected:
    """Of a request of remote write 2.0 whose first symbol is empty."""
    twin = _Twin(telemetry_pb2.SOURCE_PROMETHEUS_WRITE_V2, LimitRules(limits, now), header)
    symbols = list(request.symbols)

    def resolved(refs: Sequence[int]) -> tuple[list[tuple[str, str]], int]:
        if len(refs) % 2 or any(ref >= len(symbols) for ref in refs):
            return [], errors.INVALID_SERIES
        return [(symbols[refs[n]], symbols[refs[n + 1]]) for n in range(0, len(refs), 2)], 0

    for series in request.timeseries:
        labels, reason = resolved(series.labels_refs)
        metadata = series.metadata
        texts = [symbols[ref] if 0 < ref < len(symbols) else "" for ref in (metadata.help_ref, metadata.unit_ref)]
        description = Description(metadata.type, texts[0], texts[1])
        exemplars = []
        for exemplar in series.exemplars:
            its_labels, its_reason = resolved(exemplar.labels_refs)
            exemplars.append(Exemplar(its_labels, exemplar.value, exemplar.timestamp, its_reason))
        twin.take(
            Sent(labels, series.samples, series.histograms, exemplars, description, reason, series.created_timestamp),
            is_v2=True,
        )
    return twin.expected()


def points_of(metric: metrics_pb2.Metric) -> Any:
    return getattr(metric, metric.WhichOneof("data") or "gauge").data_points


class Labels(NamedTuple):
    reason: int
    name: str
    job: str
    instance: str
    attributes: list[tuple[str, str]]


def read_labels(labels: list[tuple[str, str]], rules: LimitRules) -> Labels:
    reason = 0
    labels = [(name, value) for name, value in labels if value or not name]  # one without a value is not there
    names = [name for name, _ in labels]
    own = ("__name__", "job", "instance")
    first = dict(reversed(labels))
    attributes = [(name, value) for name, value in labels if name not in own]
    job = first.get("job") or first.get("service_name", "")
    instance = first.get("instance") or first.get("service_instance_id", "")
    if len(set(names)) < len(names) or "" in names:
        reason = errors.INVALID_LABELS
    elif not first.get("__name__"):
        reason = errors.MISSING_METRIC_NAME
    else:
        reason = (
            rules.check_name(len((job or "unknown_service").encode()))
            or rules.check_name(len(first["__name__"].encode()))
            or rules.check_attribute_count(len(attributes))
            or rules.check_attribute(max(len(name.encode()) for name in names), max(len(text.encode()) for _, text in labels))
        )
    return Labels(reason, first.get("__name__", ""), job, instance, attributes)


class Shape(NamedTuple):
    """What a metric is beside its points: the field of Metric, and what is in there."""

    kind: str
    temporality: int = 0
    is_monotonic: bool = False
    reset_hint: str = ""


GAUGE = Shape("gauge")
COUNTER = Shape("sum", temporality=2, is_monotonic=True)


def shape_of_samples(name: str, type_: int) -> Shape:
    """In 2.0; in 1.0 all are gauges."""
    is_part = name.endswith(("_bucket", "_count", "_sum"))
    if type_ == write_v2_pb2.Metadata.METRIC_TYPE_COUNTER:
        return COUNTER
    if type_ in (write_v2_pb2.Metadata.METRIC_TYPE_HISTOGRAM, write_v2_pb2.Metadata.METRIC_TYPE_SUMMARY) and is_part:
        return COUNTER
    return GAUGE


class _Twin:
    def __init__(self, source: int, rules: LimitRules, header: dict[str, Any]) -> None:
        self.rules = rules
        self.source: Any = source
        self.header = header
        self.batch = TelemetryBatchV1()
        self.records: dict[tuple[str, str], TelemetryRecordV1] = {}
        self.rejections: list[tuple[int, int]] = []
        self.index = 0
        self.written = [0, 0, 0]

    def expected(self) -> Expected:
        for record in self.batch.records:
            record.item_count = sum(len(points_of(metric)) for metric in record.metrics)
        samples, histograms, exemplars = self.written
        return Expected(self.batch, self.rejections, (samples, histograms, exemplars))

    def take(self, series: Sent, *, is_v2: bool = False) -> bool:
        """Whether there is an item in it."""
        labels = read_labels(series.labels, self.rules)
        reason = series.reason or labels.reason
        if is_v2 and series.samples and series.histograms:
            reason = reason or errors.INVALID_SERIES
        items: list[Any] = [*series.samples, *series.histograms]
        if not items and not series.exemplars:
            if is_v2:
                self.take_described(labels, series.description, reason)
            return is_v2
        if not items:
            items = [None]
        shares: list[list[Exemplar]] = [[] for _ in items]
        for exemplar in series.exemplars:
            shares[nearest(items, exemplar.timestamp)].append(exemplar)
        for item, share in zip(items, shares, strict=True):
            try:
                point, shape = self.point_of(labels, series, item, share, reason, is_v2=is_v2)
                self.put(labels, series.description, point, shape)
                self.written[2] += len(point.exemplars)
                if item is not None:
                    self.written[item.DESCRIPTOR.name != "Sample"] += 1
            except Refused as refused:
                self.rejections.append((self.index, refused.reason))
            self.index += 1
        return True

    def point_of(
        self, labels: Labels, series: Sent, item: Any, share: list[Exemplar], reason: int, *, is_v2: bool
    ) -> tuple[Any, Shape]:
        """Of an item with its exemplars; of those alone, where it is None. `reason`: why it can't be taken."""
        faults = [sent.reason or self.check_exemplar(exemplar_of(sent)) for sent in share]
        sound = [sent for sent, fault in zip(share, faults, strict=True) if not fault]
        if item is None and not sound:
            reason = reason or faults[0]
        if reason:
            raise Refused(reason)
        shape = shape_of_samples(labels.name, series.description.type) if is_v2 else GAUGE
        start = nanoseconds((item is not None and is_v2 and item.start_timestamp) or series.created)
        point: Any
        if item is None:
            point = metrics_pb2.NumberDataPoint(as_double=NAN, flags=1)
            point.time_unix_nano = self.check_time(max(exemplar.timestamp for exemplar in share))
            point.start_time_unix_nano = start
        elif item.DESCRIPTOR.name == "Sample":
            point = metrics_pb2.NumberDataPoint(as_double=item.value, flags=int(is_stale(item.value)))
            point.time_unix_nano = self.check_time(item.timestamp)
            point.start_time_unix_nano = start
        else:
            point, shape = histogram_point(item, self.check_time(item.timestamp), start)
        point.exemplars.extend(exemplar_of(sent) for sent in sound)
        return point, shape

    def take_described(self, labels: Labels, description: Description, reason: int) -> None:
        """A series of which only this is known."""
        says_something = description.help or description.unit or description.type in range(1, len(TYPES))
        if self.source == telemetry_pb2.SOURCE_PROMETHEUS_WRITE_V2 and not says_something:
            reason = reason or errors.INVALID_SERIES
        reason = reason or labels.reason
        self.index += 1
        if reason:
            self.rejections.append((self.index - 1, reason))
            return
        point = metrics_pb2.SummaryDataPoint(time_unix_nano=self.header["received_time_unix_nano"], flags=1)
        self.put(labels, description, point, Shape("summary"))

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

    def put(self, labels: Labels, description: Description, point: Any, shape: Shape) -> None:
        key = (labels.job, labels.instance)
        if key not in self.records:
            record = self.records[key] = self.batch.records.add(
                service_id=labels.job or "unknown_service",
                type=telemetry_pb2.TYPE_METRIC,
                source=self.source,
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
        metric = metrics_pb2.Metric(name=labels.name, description=description.help, unit=description.unit)
        if description.type in range(1, len(TYPES)):
            metric.metadata.add(key="prometheus.type").value.string_value = TYPES[description.type]
        if shape.reset_hint:
            metric.metadata.add(key="prometheus.reset_hint").value.string_value = shape.reset_hint
        data = getattr(metric, shape.kind)
        data.SetInParent()
        if shape.temporality:
            data.aggregation_temporality = shape.temporality
        if shape.is_monotonic:
            data.is_monotonic = True
        if record.metrics:
            last = metrics_pb2.Metric()
            last.CopyFrom(record.metrics[-1])
            del points_of(last)[:]
            filled = sum(framed_bytes(other) for other in points_of(record.metrics[-1]))
            has_room = filled + framed_bytes(point) <= METRIC_BYTES_MAX
            if has_room and last.SerializeToString() == metric.SerializeToString():
                points_of(record.metrics[-1]).append(point)
                return
        points_of(metric).append(point)
        record.metrics.append(metric)


def nearest(items: list[Any], time_ms: int) -> int:
    """Which item an exemplar belongs to: the first of those nearest in time."""
    if items == [None]:
        return 0
    return min(range(len(items)), key=lambda n: abs(items[n].timestamp - time_ms))


def framed_bytes(point: Any) -> int:
    """With its tag and length."""
    size: int = point.ByteSize()
    return 1 + len(varint(size)) + size


def nanoseconds(time_ms: int) -> int:
    """Of a start timestamp: 0 where the record can't hold it."""
    return time_ms * 10**6 if 0 < time_ms <= INT64_MAX // 10**6 else 0


def identifier(text: str | None, size: int) -> bytes:
    if text is None or len(text) != 2 * size or not all(character in "0123456789abcdefABCDEF" for character in text):
        return b""
    number = int(text, 16)
    return number.to_bytes(size, "big") if number else b""


ZEROS = {"0" * digits for digits in range(1, 33)}


def exemplar_of(sent: Exemplar) -> metrics_pb2.Exemplar:
    attributes: dict[str, str] = {}
    for name, value in sent.labels:
        if value:
            attributes.pop(name, None)
            attributes[name] = value
    for name in ("trace_id", "span_id"):
        if attributes.get(name, "") in ZEROS:
            del attributes[name]
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


def histogram_point(sent: Any, time: int, start: int) -> tuple[Any, Shape]:
    """Of a Histogram of either version."""
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
    temporality = 0 if sent.reset_hint == write_pb2.Histogram.GAUGE else 2
    hint = {write_pb2.Histogram.YES: "yes", write_pb2.Histogram.NO: "no"}.get(sent.reset_hint, "")
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
    point.start_time_unix_nano = start
    return point, Shape("histogram" if custom else "exponential_histogram", temporality, reset_hint=hint)
