"""Interpret a series' labels: `__name__` is the metric's name, `job` the service, `instance` the resource's
service.instance.id. The rest are the points' attributes. If there is no `job`, the attribute `service_name` is also the
service; if there is no `instance`, `service_instance_id` is also the instance. OpenTelemetry's exporter sends these.

2.0 caches a series from one request to the next, by the numbers of its symbols (symbol_ids.py). 1.0 reads the labels
each time (labels.py), which costs no more and needs no memory.

Invariants:
1. A `Series` depends only on the labels' bytes, not on a tenant, clock or setting
   (test_rules_are_asked_anew_of_remembered_series).
2. Memory is bounded, in entries and in bytes (test_the_cache_is_bounded_and_keeps_what_is_used).
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.text import quoted_utf8
from adapters.codec.wire import Cursor, NonCanonical, is_utf8, put_bytes
from adapters.errors import INVALID_LABELS, MISSING_METRIC_NAME
from adapters.record import UNKNOWN_SERVICE, put_attribute
from adapters.record_tags import RESOURCE
from adapters.rules import Rules

# There are two generations of half this size; a series used since the last change of generation is never forgotten.
CACHE_ENTRIES_MAX: Final = 131_072
CACHE_BYTES_MAX: Final = 64 << 20

# The bytes that an entry takes without its key and its labels: the objects, and its share of the dictionary.
_ENTRY_BYTES: Final = 400

# OpenMetrics: bucket, count and sum of a histogram or summary are counters.
_PARTS: Final = (b"_bucket", b"_count", b"_sum")

_NAME: Final = 0x0A
_VALUE: Final = 0x12


# A limit that no text exceeds.
WHOLE: Final = 1 << 60
# The most bytes of a character in UTF-8.
_CHARACTER_BYTES_MAX: Final = 4


def beginning(buffer: bytes, start: i64, end: i64, size_max: i64) -> bytes:
    """Return the text at start:end. If it has more than `size_max` bytes, return a beginning of whole characters that also has
    more. So a rule refuses the beginning as it would refuse the text, which is not copied."""
    if end - start > size_max + _CHARACTER_BYTES_MAX:
        end = start + size_max + _CHARACTER_BYTES_MAX
        while buffer[end] & 0xC0 == 0x80:
            end -= 1
    return buffer[start:end]


class Label:
    """A `Label` reads labels: after `read`, `name` and `value` are those of the label."""

    def __init__(self) -> None:
        self.name: bytes = b""
        self.value: bytes = b""

    def read(self, cursor: Cursor, start: i64, end: i64, key_bytes_max: i64 = WHOLE, value_bytes_max: i64 = WHOLE) -> None:
        """Read the Label at start:end. Of a name or value over its limit, only a beginning that is over the limit is kept.
        Moves the cursor. Raises NonCanonical, also if a text is not UTF-8."""
        buffer = cursor.buffer
        rules = cursor.rules
        self.name = b""
        self.value = b""
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            rules.read(0)  # one label can have millions of names: the last one counts
            if tag == _NAME or tag == _VALUE:
                if not is_utf8(buffer, cursor.start, cursor.position, rules):
                    raise NonCanonical(cursor.start)
                if tag == _NAME:
                    self.name = beginning(buffer, cursor.start, cursor.position, key_bytes_max)
                else:
                    self.value = beginning(buffer, cursor.start, cursor.position, value_bytes_max)
            elif tag >> 3 <= 2:
                raise NonCanonical(cursor.start)


class Series:
    """A `Series` holds the meaning of a series' labels."""

    def __init__(self) -> None:
        # Why none of its samples can be accepted, as a reason and in words; 0 if they can.
        self.reason: i64 = 0
        self.message: str = ""
        self.name: bytes = b""
        self.service_id: bytes = UNKNOWN_SERVICE
        # The resource of a TelemetryRecord, as a field.
        self.resource: bytes = b""
        # The encoded fields 7 of NumberDataPoint.
        self.attributes: bytes = b""
        self.attribute_count: i64 = 0
        # The sizes of the longest label name and value, also of labels that are not attributes.
        self.key_bytes_max: i64 = 0
        self.value_bytes_max: i64 = 0
        # Whether its name ends like those of the counters of a classic histogram or summary.
        self.is_part: bool = False
        # The size of the labels that it was read from.
        self.labels_bytes: i64 = 0

    def check(self, rules: Rules) -> i64:
        """Return 0, or the reason why none of its samples can be accepted."""
        if self.reason:
            return self.reason
        reason: i64 = rules.check_name(len(self.service_id))
        if reason == 0:
            reason = rules.check_name(len(self.name))
        if reason == 0:
            reason = rules.check_attribute_count(self.attribute_count)
        if reason == 0:
            reason = rules.check_attribute(self.key_bytes_max, self.value_bytes_max)
        return reason


# Longer labels may be most of the body, so each copy of them rests.
LARGE_BYTES: Final = 256 << 10


def read_series(cursor: Cursor, start: i64, end: i64) -> Series:
    """Return the series of the labels, fields 1 of a TimeSeries, at start:end. Moves the cursor. Raises NonCanonical."""
    series = Series()
    label = Label()
    seen: set[bytes] = set()
    attributes = BytesWriter()
    job = b""
    instance = b""
    service_name = b""
    service_instance = b""
    rules = cursor.rules
    is_large = end - start > LARGE_BYTES
    position: i64 = start
    while position < end:
        cursor.position = position
        cursor.field(end)
        position = cursor.position
        label.read(cursor, cursor.start, position)
        if is_large:
            rules.rest()
        name = label.name
        value = label.value
        if name and not value:
            continue  # an empty label is the same as no label
        key_bytes: i64 = len(name)
        value_bytes: i64 = len(value)
        series.key_bytes_max = max(series.key_bytes_max, key_bytes)
        series.value_bytes_max = max(series.value_bytes_max, value_bytes)
        if name in seen:
            if series.reason == 0:
                _refuse(series, f"label {quoted_utf8(name)} occurs twice")
        elif not name:
            _refuse(series, "a label has no name")
        elif name == b"__name__":
            series.name = value
        elif name == b"job":
            job = value
        elif name == b"instance":
            instance = value
        else:
            if name == b"service_name":
                service_name = value
            elif name == b"service_instance_id":
                service_instance = value
            series.attribute_count += 1
            put_attribute(attributes, 0x3A, name, value)
            if is_large:
                rules.rest()
        seen.add(name)
    if series.reason == 0 and not series.name:
        series.reason = MISSING_METRIC_NAME
        series.message = "label __name__ is missing or empty"
    series.is_part = series.name.endswith(_PARTS)
    series.labels_bytes = end - start
    series.attributes = attributes.getvalue()
    rules.read(len(series.attributes))
    job = job or service_name
    series.service_id = job or UNKNOWN_SERVICE
    series.resource = resource_of(job, instance or service_instance, rules)
    return series


def refused_series(reason: i64, message: str) -> Series:
    """Return a series that can't be accepted; only the reason is known."""
    series = Series()
    series.reason = reason
    series.message = message
    return series


def _refuse(series: Series, message: str) -> None:
    if series.reason == 0:
        series.reason = INVALID_LABELS
        series.message = message


def resource_of(job: bytes, instance: bytes, rules: Rules) -> bytes:
    """Return the resource of a TelemetryRecord as a field, or empty if job and instance are empty."""
    if not job and not instance:
        return b""
    attributes = BytesWriter()
    if job:
        put_attribute(attributes, 0x0A, b"service.name", job)
        rules.read(len(job))
    if instance:
        put_attribute(attributes, 0x0A, b"service.instance.id", instance)
        rules.read(len(instance))
    encoded = attributes.getvalue()
    rules.read(len(encoded))
    field = BytesWriter()
    put_bytes(field, RESOURCE, encoded)
    rules.read(len(encoded))
    resource = field.getvalue()
    rules.read(len(resource))
    return resource


class SeriesCache:
    """A `SeriesCache` holds series by bytes that identify their labels."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self.entries_max: Final[int] = entries_max // 2
        self.bytes_max: Final[int] = bytes_max // 2
        self.young: dict[bytes, Series] = {}
        self.old: dict[bytes, Series] = {}
        self.young_bytes: i64 = 0

    def get(self, labels: bytes) -> Series | None:
        series = self.young.get(labels)
        if series is None:
            series = self.old.get(labels)
            if series is not None:
                self.put(labels, series)
        return series

    def put(self, labels: bytes, series: Series) -> None:
        size: i64 = _ENTRY_BYTES + len(labels) + series.labels_bytes
        if len(self.young) >= self.entries_max or self.young_bytes + size > self.bytes_max:
            self.old = self.young
            self.young = {}
            self.young_bytes = 0
        if size <= self.bytes_max:
            self.young[labels] = series
            self.young_bytes += size
