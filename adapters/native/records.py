"""Validate records of the native API, sort them into groups of one service and type, and pack the groups into messages."""

from itertools import islice
from typing import Final

from librt.strings import BytesWriter, write_f64_le, write_i64_le
from mypy_extensions import i64

from adapters.batch_builder import METRIC_BYTES_MAX, BatchBuilder
from adapters.checked_attributes import CheckedAttributes
from adapters.codec.json_array import Elements
from adapters.codec.json_reader import SLICE_BYTES
from adapters.codec.rfc3339 import BEYOND, INVALID, parse_time
from adapters.codec.text import hex_id, is_no_id, quoted, shortened_name
from adapters.codec.wire import field_size, put_bytes, put_varint, varint_size
from adapters.errors import (
    INVALID_ATTRIBUTES,
    INVALID_BODY,
    INVALID_METRIC_NAME,
    INVALID_RECORD,
    INVALID_SERVICE_ID,
    INVALID_TIMESTAMP,
    INVALID_TRACE_ID,
    INVALID_TYPE,
    INVALID_VALUE,
    MISSING_BODY,
    MISSING_METRIC_NAME,
    MISSING_SERVICE_ID,
    MISSING_TIMESTAMP,
    MISSING_VALUE,
    RECORD_TOO_LARGE,
    TIMESTAMP_IN_FUTURE,
    TIMESTAMP_TOO_OLD,
)
from adapters.native.members import missing_member_message, unknown_members
from adapters.native.values import NestedValues, NotFinite, is_double, shown, with_long_numbers
from adapters.record import (
    LOGS,
    METRICS,
    TYPE_EVENT,
    TYPE_LOG,
    TYPE_METRIC,
    TYPE_NAMES,
    Adapted,
    Header,
    Rejection,
    put_attribute,
)
from adapters.record_tags import RESOURCE
from adapters.repairs import ATTRIBUTES_DROPPED, MEMBER_UNKNOWN, NAME_TRUNCATED
from adapters.rules import Rules

# Fields of a LogRecord.
_LOG_ATTRIBUTES: Final = 0x32
_DROPPED_TAG: Final = 0x38

# The bytes that a record counts as read: about the size of its text.
RECORD_BYTES: Final = 256

TYPES: Final[dict[bytes, int]] = {name.encode(): number for number, name in enumerate(TYPE_NAMES) if number}
_TYPES_SHOWN: Final = ", ".join(TYPE_NAMES[1:])
SEVERITIES: Final[dict[str, int]] = {
    "trace": 1,
    "debug": 5,
    "info": 9,
    "information": 9,
    "notice": 10,
    "warn": 13,
    "warning": 13,
    "error": 17,
    "critical": 21,
    "fatal": 21,
}
SEVERITY_KEYS: Final[tuple[bytes, ...]] = (b"severity_text", b"severity", b"level")
_NO_ATTRIBUTES: Final[dict[str, object]] = {}
_NO_EXTRAS: Final[dict[str, bytes]] = {}
_NO_INDICES: Final[list[int]] = []


class Metric:
    """A `Metric` holds the points of one name in one group."""

    def __init__(self, name: bytes) -> None:
        self.name: Final = name
        # The first point, which is the only one of most metrics; and the others.
        self.point: bytes = b""
        self.index: i64 = 0
        self.more: list[bytes] | None = None
        self.more_indices: list[int] = _NO_INDICES

    def add(self, point: bytes, index: i64) -> None:
        """Add the point of the record at `index` of its batch."""
        if not self.point:
            self.point = point
            self.index = index
            return
        more = self.more
        if more is None:
            more = self.more = []
            self.more_indices = []
        more.append(point)
        self.more_indices.append(index)


class Group:
    """A `Group` holds the items of one service and type, which become one record."""

    def __init__(self, service_id: bytes, type_: i64) -> None:
        self.service_id: Final = service_id
        self.type: i64 = type_
        self.metrics: Final[dict[bytes, Metric]] = {}
        self.logs: Final[list[bytes]] = []
        self.indices: Final[list[int]] = []

    def resource(self) -> bytes:
        """Return the resource of a TelemetryRecord as a field. It has one attribute: service.name."""
        attributes = BytesWriter()
        put_attribute(attributes, 0x0A, b"service.name", self.service_id)
        field = BytesWriter()
        put_bytes(field, RESOURCE, attributes.getvalue())
        return field.getvalue()


class RecordAdapter:
    """A `RecordAdapter` validates records one by one, sorts them into groups, and packs the groups into messages."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        self.body: Final = body
        self.is_batch: bool = False
        # A record whose text is longer exceeds every message: a byte takes at most six in JSON, and seldom more than one.
        self.record_bytes_max: i64 = max(SLICE_BYTES, 8 * message_bytes_max, 2 * rules.item_bytes_max)
        self.elements: Elements | None = None  # a batch's elements, made when the first is needed
        self.rules: Final = rules
        self.builder: Final = BatchBuilder(header, rules, message_bytes_max)
        # The groups by type, then by service.
        self.groups: Final[list[dict[bytes, Group]]] = [{} for _ in TYPE_NAMES]
        # The groups that have items, in the order of their first items.
        self.metric_groups: Final[list[Group]] = []
        self.log_groups: Final[list[Group]] = []
        self.item = BytesWriter()
        self.exemplar = BytesWriter()
        # The points of the metric that is being packed.
        self.points = BytesWriter()
        self.index: i64 = 0
        # The current record's type (0 unknown), its error message unless the rules have one, and the attributes that we add.
        self.type: i64 = 0
        self.message: str = ""
        self.extras: dict[str, bytes] = _NO_EXTRAS
        self.nested: Final = NestedValues(rules)
        self.attributes: Final = CheckedAttributes(rules)
        # The repairs of the records that are not packed yet, by index.
        self.repairs: Final[dict[int, dict[int, int]]] = {}

    def add(self, record: object) -> None:
        """Take or reject the next record."""
        self.message = ""
        self.type = 0
        self.rules.read(RECORD_BYTES)
        reason: i64
        if isinstance(record, dict):
            reason = self._take(record)
            if reason == 0:
                unknown = unknown_members(record)
                if unknown:
                    self.rules.repair_pending(MEMBER_UNKNOWN, unknown)
            else:
                self.message = self.message or missing_member_message(reason, record)
        else:
            self.message = f"a record must be a JSON object; got {shown(record)}"
            if isinstance(record, list):
                self.message += ": an array of records is for /api/v1/telemetry/batch, by itself"
            reason = INVALID_RECORD
        repairs = self.rules.take_pending()
        if reason:
            self.builder.type = self.type
            self._reject(self.index, reason, self.message, self._service_of(record))
        elif repairs is not None:
            self.repairs[self.index] = repairs
        self.index += 1

    def note_unknown_of_last(self, unknown: i64) -> None:
        """Note that the record that was added last has `unknown` members that the API does not have."""
        self.repairs[self.index - 1] = {MEMBER_UNKNOWN: unknown}

    def reject_large(self, message: str) -> None:
        """Reject the next record, which is too large to be read. `message` is "" if its bytes are the cause."""
        self.builder.type = 0
        self._reject(self.index, RECORD_TOO_LARGE, message, b"")
        self.index += 1

    def _reject(self, index: i64, reason: i64, message: str, service_id: bytes) -> None:
        self.repairs.pop(index, None)
        builder = self.builder
        builder.index = index
        builder.reject(reason, message, service_id, self._payload(index))

    def _payload(self, index: i64) -> bytes:
        """Return the text of a record, or empty if the budget has no room for it."""
        builder = self.builder
        if not builder.keeps(1):
            return b""
        if not self.is_batch:
            return self.body if builder.keeps(len(self.body)) else b""
        elements = self._find(index)
        return self.body[elements.start : elements.end] if builder.keeps(elements.end - elements.start) else b""

    def _find(self, index: i64) -> Elements:
        """Return the elements of the batch, moved to the element at `index`."""
        elements = self.elements
        if elements is None:
            elements = self.elements = Elements(self.body, self.rules)
        for n in range(len(elements.bounds) // 2, index):
            elements.find(n)
            self.rules.read(elements.end - elements.start)
        elements.find(index)
        return elements

    def _text(self) -> bytes:
        """Return the text of the current record, exactly as sent."""
        if not self.is_batch:
            return self.body
        elements = self._find(self.index)
        return self.body[elements.start : elements.end]

    def _service_of(self, record: object) -> bytes:
        """Return the service of a record that is rejected, or empty if it has no valid one."""
        service_id = record.get("service_id") if isinstance(record, dict) else None
        if not isinstance(service_id, str):
            return b""
        service = service_id.encode()
        return b"" if self.rules.check_name(len(service)) else service

    def finish(self) -> Adapted:
        """Pack all groups of one signal before those of the other, so that a message is only cut when it is full."""
        builder = self.builder
        rejected_before = len(builder.out.rejections)
        for group in self.metric_groups:
            builder.open_record(METRICS, group.type, group.service_id, group.resource())
            builder.open_group(b"")
            for metric in group.metrics.values():
                self.rules.read(len(metric.point))
                self._pack_metric(group.service_id, metric)
        for group in self.log_groups:
            builder.open_record(LOGS, group.type, group.service_id, group.resource())
            builder.open_group(b"")
            for log, index in zip(group.logs, group.indices, strict=True):
                self.rules.read(len(log))
                if not builder.add(log, 1, 0):
                    self._reject(index, RECORD_TOO_LARGE, "", group.service_id)
        for repairs in self.repairs.values():
            self.rules.count_repairs(repairs)
        adapted = builder.finish()
        if len(adapted.rejections) > rejected_before:
            adapted.rejections.sort(key=_index_of)  # the last ones were found while packing, so out of order
        return adapted

    def _pack_metric(self, service_id: bytes, metric: Metric) -> None:
        """Add a metric's points to the open group, as the fewest metrics that fit into messages."""
        more = metric.more
        if more is None:
            if not self._add_point(metric.name, metric.point):
                self._reject(metric.index, RECORD_TOO_LARGE, "", service_id)
            return
        builder = self.builder
        points = self.points
        points.truncate(0)
        # The tags and lengths of the metric and of its gauge take up to 16 bytes.
        own_bytes: i64 = field_size(len(metric.name)) + 16
        points_bytes_max: i64 = min(builder.capacity() - own_bytes, METRIC_BYTES_MAX)
        points_max: i64 = builder.points_max(builder.group_row_bytes, own_bytes, points_bytes_max)
        count: i64 = 0
        for point, index in zip([metric.point, *more], [int(metric.index), *metric.more_indices], strict=True):
            self.rules.read(len(point))
            need: i64 = field_size(len(point))
            if count and (count == points_max or len(points) + need > points_bytes_max):
                self._add_points(metric.name, count)
                count = 0
            if need > points_bytes_max:
                if not self._add_point(metric.name, point):
                    self._reject(index, RECORD_TOO_LARGE, "", service_id)
                continue
            put_bytes(points, 0x0A, point)
            count += 1
        if count:
            self._add_points(metric.name, count)

    def _add_points(self, name: bytes, count: i64) -> None:
        """Add a metric of all `points`, which fit a message, and empty `points`."""
        item = self.item
        item.truncate(0)
        put_bytes(item, 0x0A, name)
        put_bytes(item, 0x2A, self.points.getvalue())
        own_bytes: i64 = len(item) - len(self.points)
        self.points.truncate(0)
        taken = self.builder.add(item.getvalue(), count, own_bytes)
        assert taken

    def _add_point(self, name: bytes, point: bytes) -> bool:
        """Add a metric of one point. Return False if it is too large."""
        builder = self.builder
        point_bytes: i64 = field_size(len(point))
        metric_bytes: i64 = field_size(len(name)) + field_size(point_bytes)
        if not builder.begin(metric_bytes, 1, metric_bytes - point_bytes):
            return False
        metric = builder.message
        put_bytes(metric, 0x0A, name)
        metric.append(0x2A)
        put_varint(metric, point_bytes)
        put_bytes(metric, 0x0A, point)
        return True

    def _take(self, record: dict[str, object]) -> i64:
        """Validate a record in the order of the API's table, and encode it. Return 0, or the reason for its rejection."""
        rules = self.rules
        kind = record.get("type")
        type_: i64 = TYPE_METRIC
        if kind is not None:
            type_ = TYPES.get(kind.encode(), 0) if isinstance(kind, str) else 0
        self.type = type_

        service_id = record.get("service_id")
        if service_id is None:
            return MISSING_SERVICE_ID
        if not isinstance(service_id, str):
            return self._wrong_value("service_id must be a string", service_id, INVALID_SERVICE_ID)
        if not service_id:
            return MISSING_SERVICE_ID
        service = service_id.encode()
        if rules.cuts_names and rules.check_name(len(service)):
            service = self._name_within(service)
        reason: i64
        if type_ == 0:
            reason = rules.check_name(len(service))
            return reason or self._wrong_value(f"type must be one of {_TYPES_SHOWN}", kind, INVALID_TYPE)
        group = self.group_of(type_, service)
        if group is None:
            return rules.check_name(len(service))
        is_log = type_ == TYPE_LOG or type_ == TYPE_EVENT

        metric_name = record.get("metric_name")
        name = b""
        if metric_name is not None:
            if not isinstance(metric_name, str):
                return self._wrong_value("metric_name must be a string", metric_name, INVALID_METRIC_NAME)
            name = metric_name.encode()
        metric: Metric | None = None
        if not is_log:
            if not name:
                return MISSING_METRIC_NAME
            metric = group.metrics.get(name)
        if name and metric is None:
            reason = rules.check_name(len(name))
            if reason and is_log and rules.cuts_names:
                name = self._name_within(name)
            elif reason:
                return reason

        number = record.get("value")
        value = 0.0
        if isinstance(number, float):
            value = number
        elif number is not None:
            if isinstance(number, bool) or not isinstance(number, int):
                return self._wrong_value("value must be a finite float64", number, INVALID_VALUE)
            try:
                value = float(number)
            except OverflowError:
                return self._wrong_value("value must be a finite float64", NotFinite(str(number)), INVALID_VALUE)
        elif not is_log:
            return MISSING_VALUE

        body = record.get("body")
        text = ""
        if body is not None:
            if not isinstance(body, str):
                return self._wrong_value("body must be a string", body, INVALID_BODY)
            text = body
        elif is_log:
            return MISSING_BODY

        trace_id = record.get("trace_id")
        trace = b""
        extras = _NO_EXTRAS
        if trace_id is not None:
            if not isinstance(trace_id, str):
                return self._wrong_value("trace_id must be a string", trace_id, INVALID_TRACE_ID)
            if trace_id:
                trace = hex_id(trace_id, 16)
                if not trace and not is_no_id(trace_id.encode()):
                    extras = {"infrasage.trace_id": trace_id.encode()}

        timestamp = record.get("timestamp")
        if timestamp is None:
            return MISSING_TIMESTAMP
        if not isinstance(timestamp, str):
            return self._wrong_value("timestamp must be an RFC 3339 string", timestamp, INVALID_TIMESTAMP)
        time_unix_nano: i64 = parse_time(timestamp.encode())
        reason = self._check_time(time_unix_nano, timestamp, is_log)
        if reason:
            return reason

        tags = record.get("attributes")
        attributes = _NO_ATTRIBUTES
        if tags is not None:
            if not isinstance(tags, dict):
                return self._wrong_value("attributes must be an object", tags, INVALID_ATTRIBUTES)
            attributes = tags

        if is_log:
            if number is not None:
                extras = dict(extras)
                extras["infrasage.value"] = repr(value).encode()
            if name and type_ == TYPE_LOG:
                extras = dict(extras)
                extras["infrasage.metric_name"] = name
            self.extras = extras
            return self._take_log(group, name, text.encode(), trace, time_unix_nano, attributes)
        if body is not None:
            extras = dict(extras)
            extras["infrasage.body"] = text.encode()
        self.extras = extras
        reason = self._encode_point(value, trace, time_unix_nano, attributes)
        if reason:
            return reason
        if metric is None:
            metric = self.new_metric(group, name)
        metric.add(self.item.getvalue(), self.index)
        return 0

    def group_of(self, type_: i64, service_id: bytes) -> Group | None:
        """Return the group of a type and service; None if the service's name is too long."""
        groups = self.groups[type_]
        group = groups.get(service_id)
        if group is None and not self.rules.check_name(len(service_id)):
            group = groups[service_id] = Group(service_id, type_)
        return group

    def new_metric(self, group: Group, name: bytes) -> Metric:
        """Add a new metric to its group, and return it."""
        if not group.metrics:
            self.metric_groups.append(group)
        metric = group.metrics[name] = Metric(name)
        return metric

    def add_log(self, group: Group, log: bytes) -> None:
        """Add the log record of the current record."""
        if not group.logs:
            self.log_groups.append(group)
        group.logs.append(log)
        group.indices.append(self.index)

    def _name_within(self, name: bytes) -> bytes:
        """Return a shortened name of a service or event, and count the repair."""
        self.rules.repair_pending(NAME_TRUNCATED)
        return shortened_name(name, self.rules.name_bytes_max, self.rules)

    def _wrong_value(self, rule: str, got: object, reason: i64) -> i64:
        self.message = f"{rule}; got {shown(got)}"
        return reason

    def _check_time(self, time_unix_nano: i64, timestamp: str, is_log: bool) -> i64:
        if time_unix_nano > 0 and time_unix_nano != BEYOND:
            return self.rules.check_record_time(time_unix_nano, is_log)
        if time_unix_nano == INVALID:
            return self._wrong_value("timestamp must be RFC 3339", timestamp, INVALID_TIMESTAMP)
        if time_unix_nano == BEYOND:
            return TIMESTAMP_IN_FUTURE
        if self.rules.check_record_time(1, is_log) == 0:  # the window reaches back beyond what the record can hold
            self.message = "Timestamp is not after 1970-01-01T00:00:00Z"
        return TIMESTAMP_TOO_OLD

    def _encode_point(self, value: float, trace: bytes, time_unix_nano: i64, attributes: dict[str, object]) -> i64:
        """Write a NumberDataPoint into `item`. Return 0 or a reason."""
        self.put_point(value, trace, time_unix_nano)
        return self._put_attributes(0x3A, attributes)

    def put_point(self, value: float, trace: bytes, time_unix_nano: i64) -> None:
        """Write a NumberDataPoint without its attributes into `item`."""
        item = self.item
        item.truncate(0)
        item.append(0x19)
        write_i64_le(item, time_unix_nano)
        item.append(0x21)
        write_f64_le(item, value)
        if trace:
            exemplar = self.exemplar
            exemplar.truncate(0)
            exemplar.append(0x11)
            write_i64_le(exemplar, time_unix_nano)
            exemplar.append(0x19)
            write_f64_le(exemplar, value)
            put_bytes(exemplar, 0x2A, trace)
            put_bytes(item, 0x2A, exemplar.getvalue())

    def _take_log(
        self, group: Group, name: bytes, text: bytes, trace: bytes, time_unix_nano: i64, attributes: dict[str, object]
    ) -> i64:
        """Write a LogRecord, and add it to its group. Return 0 or a reason."""
        item = self.item
        item.truncate(0)
        item.append(0x09)
        write_i64_le(item, time_unix_nano)
        if attributes:
            self._put_severity(attributes)
        body_bytes: i64 = 1 + varint_size(len(text)) + len(text)
        item.append(0x2A)
        put_varint(item, body_bytes)
        put_bytes(item, 0x0A, text)
        reason: i64 = self._put_attributes(0x32, attributes)
        if reason:
            return reason
        if trace:
            put_bytes(item, 0x4A, trace)
        if self.type == TYPE_EVENT:
            if not name:
                named = attributes.get("event.name")
                name = named.encode() if isinstance(named, str) and named else b"event"
                reason = self.rules.check_name(len(name))
                if reason and self.rules.cuts_names:
                    name = self._name_within(name)
                elif reason:
                    return reason
            put_bytes(item, 0x62, name)
        self.add_log(group, item.getvalue())
        return 0

    def _put_severity(self, attributes: dict[str, object]) -> None:
        for key in SEVERITY_KEYS:
            severity = attributes.get(key.decode())
            if isinstance(severity, str) and severity:
                self.put_severity(severity)
                return

    def put_severity(self, severity: str) -> None:
        """Write a log record's severity into `item`."""
        number: i64 = SEVERITIES.get(severity.lower(), 0)
        if number:
            self.item.append(0x10)
            put_varint(self.item, number)
        put_bytes(self.item, 0x1A, severity.encode())

    def _put_attributes(self, tag: i64, attributes: dict[str, object]) -> i64:
        """Write the sent attributes, then those that we add, as fields `tag` of `item`. Return 0 or a reason."""
        item = self.item
        rules = self.rules
        extras = self.extras
        nested = self.nested
        written = self.attributes
        written.begin(item, tag)
        quoted_attributes: dict[str, object] | None = None
        reason: i64
        count: i64 = len(attributes)
        if count > rules.attributes_max:
            # Keep the attributes that were sent first.
            attributes = dict(islice(attributes.items(), int(rules.attributes_max)))
            rules.repair_pending(ATTRIBUTES_DROPPED, count - rules.attributes_max)
        for key, value in attributes.items():
            if isinstance(value, str):
                text = value.encode()
            elif value is None:
                text = b""
            elif isinstance(value, bool):
                text = b"true" if value else b"false"
            elif isinstance(value, int):
                text = str(value).encode()
            elif isinstance(value, float) and is_double(value):
                text = repr(value).encode()
            elif isinstance(value, NotFinite) and value.is_integer:
                text = value.token.encode()
            else:
                reason = nested.check(value)
                if reason == INVALID_ATTRIBUTES:
                    return self._wrong_value(f"attribute {quoted(key)} must be finite", nested.not_finite, reason)
                if reason:
                    return reason
                if not nested.is_exact and quoted_attributes is None:
                    quoted_attributes = with_long_numbers(self._text(), attributes, rules)
                text = nested.json(value, None if quoted_attributes is None else quoted_attributes[key])
            if not extras or key not in extras:
                reason = written.put(key.encode(), text)
                if reason:
                    return reason
        for extra, text in extras.items():
            reason = written.put(extra.encode(), text)
            if reason:
                return reason
        written.end()
        if count > rules.attributes_max and tag == _LOG_ATTRIBUTES:
            item.append(_DROPPED_TAG)
            put_varint(item, count - rules.attributes_max)
        return 0


def _index_of(rejection: Rejection) -> int:
    return rejection.index
