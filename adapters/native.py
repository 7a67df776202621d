"""The native JSON API: one record, or an array of them, as docs/use/api.md describes it.

Invariants:
1. Whatever the body, the result is an `Adapted` or a `RequestRefused` (test_any_bytes_are_read_or_refused).
2. A bad record never causes its neighbours to be rejected (test_bad_records_do_not_take_good_ones_down).

A metric, trace, profile or slo becomes a gauge point; its trace id an exemplar with the point's time and value. A log or event
becomes a log record; an event's name is its metric_name, else its attribute event.name, else "event". A member of a record for
which its OTLP message has no field is kept as an attribute: infrasage.metric_name, infrasage.value, infrasage.body, and
infrasage.trace_id where the trace id is not 32 hex digits; they win over attributes sent under the same keys. An attribute
severity_text, severity or level that is text also gives a log record its severity.

JSON is RFC 8259's, in UTF-8; null is absent; of a repeated name the last wins; whole numbers beyond 64 bits are doubles.

A rejected record's payload is its JSON to the byte: of a batch the array's element, without the space around it, else the body.
`adapt` reads it again.
"""

from itertools import islice
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Final

import orjson
from librt.strings import BytesWriter, write_f64_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.json_array import Elements
from adapters.codec.json_reader import SLICE_BYTES, JsonSlices, NotJson, may_hold_many_containers
from adapters.codec.rfc3339 import BEYOND, INVALID, parse_time
from adapters.codec.text import check_json_parts, hex_id, holds_more_objects, quoted, shortened, text_within
from adapters.codec.text_repair import repaired_json
from adapters.codec.wire import put_bytes, put_varint, varint_size
from adapters.errors import (
    ATTRIBUTE_VALUE_TOO_LONG,
    BATCH_TOO_LARGE,
    INVALID_ATTRIBUTES,
    INVALID_BODY,
    INVALID_JSON,
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
    NESTED_TOO_DEEP,
    RECORD_TOO_LARGE,
    TIMESTAMP_IN_FUTURE,
    TIMESTAMP_TOO_OLD,
    Malformed,
    RequestRefused,
)
from adapters.record import (
    LOGS,
    METRICS,
    TYPE_EVENT,
    TYPE_LOG,
    TYPE_METRIC,
    TYPE_NAMES,
    Adapted,
    BatchBuilder,
    Header,
    Rejection,
    put_attribute,
)
from adapters.repairs import ATTRIBUTES_DROPPED, CUT_KEY_PREFIX, VALUE_TRUNCATED
from adapters.rules import Rules

_NO_TRACE_ID: Final = "0" * 32
# Of a LogRecord.
_LOG_ATTRIBUTES: Final = 0x32
_DROPPED_TAG: Final = 0x38
_OPENING_BRACKET: Final = 0x5B
_OPENING_BRACE: Final = 0x7B
_CLOSING_BRACKET: Final = 0x5D
# Attributes may nest as deep as OTLP's; what is deeper is more likely a mistake than a tag.
NESTING_MAX: Final = 64
# Up to this size a body with NaN, an infinity or a number beyond float64 is read once more, several times slower, to name it.
NAMED_NUMBERS_BYTES_MAX: Final = SLICE_BYTES
# A metric's points are kept together up to this size, so that messages are filled well.
METRIC_BYTES_MAX: Final = 64 << 10

# More objects, arrays and members than this are no tags, and a parser takes 0.1 s for a million of them, without a pause.
RECORD_OBJECTS_MAX: Final = 1 << 17

# What a record counts as read: about what its text takes.
_RECORD_BYTES: Final = 256

_TYPES: Final[dict[str, int]] = {name: number for number, name in enumerate(TYPE_NAMES) if number}
_TYPES_SHOWN: Final = ", ".join(TYPE_NAMES[1:])
_SEVERITIES: Final[dict[str, int]] = {
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
_TOO_MANY_OBJECTS: Final = f"a record holds at most {RECORD_OBJECTS_MAX} objects, arrays and members; got more"
_SEVERITY_KEYS: Final = ("severity_text", "severity", "level")
_NO_ATTRIBUTES: Final[dict[str, object]] = {}
_NO_EXTRAS: Final[dict[str, bytes]] = {}
# Integers of more digits can be beyond 64 bits, where orjson too makes doubles of them.
_PLAIN_DIGITS_MAX: Final = 18


def adapt(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    """Adapt one JSON object. Raises Malformed if the body is not JSON."""
    try:
        return _adapt_one(body, header, rules, message_bytes_max)
    except Malformed:
        repaired = repaired_json(body, rules)
        if repaired is body:
            raise
    return _adapt_one(repaired, header, rules, message_bytes_max)


def _adapt_one(body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> Adapted:
    adapter = _Adapter(body, header, rules, message_bytes_max)
    if len(body) > adapter.record_bytes_max:
        check_json_parts(body, rules.request_elements_max, rules)
        adapter.reject_large("")
    elif holds_more_objects(body, RECORD_OBJECTS_MAX, rules):
        adapter.reject_large(_TOO_MANY_OBJECTS)
    else:
        adapter.add(_document(body, rules))
    return adapter.finish()


def adapt_batch(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    """A JSON array of at most `batch_items_max` records. Raises Malformed where the body is not JSON, RequestRefused where it
    is not an array or too long a one."""
    try:
        return _adapt_array(body, header, rules, message_bytes_max, batch_items_max)
    except Malformed:
        repaired = repaired_json(body, rules)
        if repaired is body:
            raise
    return _adapt_array(repaired, header, rules, message_bytes_max, batch_items_max)


def _adapt_array(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    if len(body) > SLICE_BYTES or may_hold_many_containers(body):
        return _adapt_in_slices(body, header, rules, message_bytes_max, batch_items_max)
    document = _document(body, rules)
    if not isinstance(document, list):
        raise RequestRefused(
            INVALID_RECORD, f"a batch must be a JSON array of records; got {_shown(document)}{_hint(document)}"
        )
    if len(document) > batch_items_max:
        raise RequestRefused(BATCH_TOO_LARGE, f"a batch holds at most {batch_items_max} records; got {len(document)}")
    adapter = _Adapter(body, header, rules, message_bytes_max)
    adapter.is_batch = True
    for record in document:
        adapter.add(record)
    return adapter.finish()


def _hint(document: object) -> str:
    """Return what to send instead of an object that holds the array."""
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, list):
                return f": send the array {quoted(name)} by itself"
    return ""


def _adapt_in_slices(body: bytes, header: Header, rules: Rules, message_bytes_max: int, batch_items_max: int) -> Adapted:
    """A batch that is too large to be parsed at once."""
    check_json_parts(body, rules.request_elements_max, rules)
    adapter = _Adapter(body, header, rules, message_bytes_max)
    adapter.is_batch = True
    slices = JsonSlices(body, rules)
    try:
        opening = slices.peek()
        if opening == _OPENING_BRACE:
            raise RequestRefused(
                INVALID_RECORD, "a batch must be a JSON array of records; got object: send the array by itself"
            )
        if opening != _OPENING_BRACKET:
            raise _malformed(body, f"no array of records at character {int(slices.position)}")
        slices.position += 1
        is_more = slices.peek() != _CLOSING_BRACKET
        if not is_more:
            slices.position += 1
        while is_more:
            is_more = _add_slice(adapter, slices)
            if adapter.index > batch_items_max:
                raise RequestRefused(BATCH_TOO_LARGE, f"a batch holds at most {batch_items_max} records; got more")
        slices.end()
    except NotJson as found:
        raise _malformed(body, f"not JSON at character {found.position}") from None
    return adapter.finish()


def _add_slice(adapter: "_Adapter", slices: JsonSlices) -> bool:
    """Take the next records of the array in which the cursor is. Whether there are more. Raises NotJson, Malformed."""
    start: i64 = slices.position
    piece = slices.next_elements()
    if not piece:
        if slices.skip_value(adapter.record_bytes_max, RECORD_OBJECTS_MAX):
            text = slices.text[start : slices.position]
            if holds_more_objects(text, RECORD_OBJECTS_MAX, slices.rules):
                adapter.reject_large(_TOO_MANY_OBJECTS)
            else:
                adapter.add(_parsed(text))
        else:
            slices.skip_value(slices.size, slices.size)
            adapter.reject_large(_TOO_MANY_OBJECTS if slices.position - start <= adapter.record_bytes_max else "")
        return slices.goes_on(_CLOSING_BRACKET)
    records = _parsed(piece)
    assert isinstance(records, list)
    for record in records:
        adapter.add(record)
    slices.rules.rest()
    if slices.peek() == _CLOSING_BRACKET:
        slices.position += 1
        return False
    return True


class _NotFinite:
    """Takes the place of a number without a finite float64 value: NaN, Infinity, -Infinity, 1e999."""

    def __init__(self, token: str) -> None:
        self.token: Final = token


def _float(token: str) -> object:
    value = float(token)
    return value if value - value == 0.0 else _NotFinite(token)


def _int(token: str) -> object:
    """Read a number as orjson does: exact in 64 bits, else a double. Python's own int() takes quadratic time."""
    if len(token) <= _PLAIN_DIGITS_MAX:
        return int(token)
    value = float(token)
    if -9.3e18 < value < 1.9e19:
        exact = int(token)
        if _INT64_MIN <= exact <= _UINT64_MAX:
            return exact
    return value if value - value == 0.0 else _NotFinite(token)


def _no_value(_: object) -> None:
    return None


_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1
_DECODER: Final = JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=_NotFinite)
_ENCODER: Final = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_CHECKER: Final = JSONEncoder(ensure_ascii=False, default=_no_value)


def _document(body: bytes, rules: Rules) -> object:
    """The body's JSON, numbers that are not finite as `_NotFinite`. Raises Malformed."""
    check_json_parts(body, rules.request_elements_max, rules)
    rules.rest()
    document = _parsed(body)
    rules.rest()
    return document


def _parsed(body: bytes) -> object:
    """The JSON of a body, or of a slice of one. Raises Malformed."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fault = error.msg
        position = error.pos
    try:
        text = body.decode()
    except UnicodeDecodeError as unreadable:
        raise _malformed(body, f"not UTF-8 at byte {unreadable.start}") from None
    if (
        text.startswith("NaN", position) or text.startswith("Infinity", position) or fault.startswith("number is infinity")
    ) and len(body) <= NAMED_NUMBERS_BYTES_MAX:
        return _document_with_names(body, text)
    raise _malformed(body, f"{fault} at character {position}")


def _document_with_names(body: bytes, text: str) -> object:
    """Python's own JSON reads these tokens; what else it takes that RFC 8259 or orjson don't is refused here."""
    try:
        document: object = _DECODER.decode(text)
        # orjson would have refused a lone surrogate, which UTF-8 has no bytes for.
        _CHECKER.encode(document).encode()
    except JSONDecodeError as error:
        raise _malformed(body, f"{error.msg} at character {error.pos}") from None
    except UnicodeEncodeError:
        raise _malformed(body, "a lone surrogate in a string") from None
    except RecursionError:
        raise _malformed(body, "nested too deep") from None
    return document


def _malformed(body: bytes, fault: str) -> Malformed:
    return Malformed(INVALID_JSON, f"cannot decode JSON: {len(body)} bytes, {fault}")


class _Metric:
    """The points of one name in one group."""

    def __init__(self, name: bytes) -> None:
        self.name: Final = name
        self.points: Final[list[bytes]] = []
        self.indices: Final[list[int]] = []


class _Group:
    """What goes into one record: the items of one service and type."""

    def __init__(self, service_id: bytes, type_: i64) -> None:
        self.service_id: Final = service_id
        self.type: i64 = type_
        self.metrics: Final[dict[str, _Metric]] = {}
        self.logs: Final[list[bytes]] = []
        self.indices: Final[list[int]] = []

    def resource(self) -> bytes:
        """Field 7 of TelemetryRecord: service.name."""
        attributes = BytesWriter()
        put_attribute(attributes, 0x0A, b"service.name", self.service_id)
        field = BytesWriter()
        put_bytes(field, 0x3A, attributes.getvalue())
        return field.getvalue()


class _Adapter:
    """Validates records one by one, sorts them into groups, and packs the groups into messages."""

    def __init__(self, body: bytes, header: Header, rules: Rules, message_bytes_max: int) -> None:
        self.body: Final = body
        self.is_batch: bool = False
        # A record whose text is longer exceeds every message: a byte takes at most six in JSON, and seldom more than one.
        self.record_bytes_max: i64 = max(SLICE_BYTES, 8 * message_bytes_max, 2 * rules.item_bytes_max)
        self.elements: Elements | None = None  # of a batch, as soon as one is asked for
        self.rules: Final = rules
        self.builder: Final = BatchBuilder(header, rules, message_bytes_max)
        # By type, then by service.
        self.groups: Final[list[dict[str, _Group]]] = [{} for _ in TYPE_NAMES]
        # Those that have items, in the order of their first.
        self.metric_groups: Final[list[_Group]] = []
        self.log_groups: Final[list[_Group]] = []
        self.item = BytesWriter()
        self.exemplar = BytesWriter()
        self.index: i64 = 0
        # Of the current record: its type (0 unknown), what is wrong if the rules can't say it, attributes of our own.
        self.type: i64 = 0
        self.message: str = ""
        self.extras: dict[str, bytes] = _NO_EXTRAS

    def add(self, record: object) -> None:
        """Take or reject the next record."""
        self.message = ""
        self.type = 0
        self.rules.read(_RECORD_BYTES)
        reason: i64
        if isinstance(record, dict):
            reason = self._take(record)
        else:
            self.message = f"a record must be a JSON object; got {_shown(record)}"
            reason = INVALID_RECORD
        if reason:
            self.builder.type = self.type
            self._reject(self.index, reason, self.message, self._service_of(record))
        self.index += 1

    def reject_large(self, message: str) -> None:
        """Reject the next record, which is too large to be read. `message`: "" where it is its bytes."""
        self.builder.type = 0
        self._reject(self.index, RECORD_TOO_LARGE, message, b"")
        self.index += 1

    def _reject(self, index: i64, reason: i64, message: str, service_id: bytes) -> None:
        builder = self.builder
        builder.index = index
        builder.reject(reason, message, service_id, self._payload(index))

    def _payload(self, index: i64) -> bytes:
        """The text of a record, if there is room for it."""
        builder = self.builder
        if not builder.keeps(1):
            return b""
        if not self.is_batch:
            return self.body if builder.keeps(len(self.body)) else b""
        elements = self.elements
        if elements is None:
            elements = self.elements = Elements(self.body)
        for n in range(len(elements.bounds) // 2, index):
            elements.find(n)
            self.rules.read(elements.end - elements.start)
        elements.find(index)
        return self.body[elements.start : elements.end] if builder.keeps(elements.end - elements.start) else b""

    def _service_of(self, record: object) -> bytes:
        """Return the service of a record that can't be accepted."""
        service_id = record.get("service_id") if isinstance(record, dict) else None
        if not isinstance(service_id, str):
            return b""
        service = service_id.encode()
        return b"" if self.rules.check_name(len(service)) else service

    def finish(self) -> Adapted:
        """Finish all groups of one signal before those of the other, so that a message is cut only where it is full."""
        builder = self.builder
        told = len(builder.out.rejections)
        for group in self.metric_groups:
            builder.open_group(METRICS, group.type, group.service_id, group.resource())
            for metric in group.metrics.values():
                self._pack_metric(group.service_id, metric)
        for group in self.log_groups:
            builder.open_group(LOGS, group.type, group.service_id, group.resource())
            for log, index in zip(group.logs, group.indices, strict=True):
                if not builder.add(log, 1, 0):
                    self._reject(index, RECORD_TOO_LARGE, "", group.service_id)
        adapted = builder.finish()
        if len(adapted.rejections) > told:
            adapted.rejections.sort(key=_index_of)  # found only now, so out of order
        return adapted

    def _pack_metric(self, service_id: bytes, metric: _Metric) -> None:
        """Add a metric's points to the open group, as few metrics as fit its messages."""
        builder = self.builder
        name = BytesWriter()
        put_bytes(name, 0x0A, metric.name)
        prefix = name.getvalue()
        points = BytesWriter()
        # The tags and lengths of the metric and of its gauge take up to 16 bytes.
        own_bytes: i64 = len(prefix) + 16
        points_bytes_max: i64 = min(builder.capacity() - own_bytes, METRIC_BYTES_MAX)
        points_max: i64 = builder.points_max(builder.group_row_bytes, own_bytes, points_bytes_max)
        count: i64 = 0
        for point, index in zip(metric.points, metric.indices, strict=True):
            need: i64 = 1 + varint_size(len(point)) + len(point)
            if count and (count == points_max or len(points) + need > points_bytes_max):
                taken = self._add_metric(prefix, points, count)
                assert taken
                count = 0
            put_bytes(points, 0x0A, point)
            count += 1
            if need > points_bytes_max:
                if not self._add_metric(prefix, points, 1):
                    self._reject(index, RECORD_TOO_LARGE, "", service_id)
                count = 0
        if count:
            taken = self._add_metric(prefix, points, count)
            assert taken

    def _add_metric(self, prefix: bytes, points: BytesWriter, count: i64) -> bool:
        """Empties `points`. False: too large, which only a point can be that is alone."""
        item = self.item
        item.truncate(0)
        item.write(prefix)
        put_bytes(item, 0x2A, points.getvalue())
        own_bytes: i64 = len(item) - len(points)
        points.truncate(0)
        return self.builder.add(item.getvalue(), count, own_bytes)

    def _take(self, record: dict[str, object]) -> i64:
        """Validate in the order of the API's table, and encode. 0, or why the record is rejected."""
        rules = self.rules
        kind = record.get("type")
        type_: i64 = TYPE_METRIC
        if kind is not None:
            type_ = _TYPES.get(kind, 0) if isinstance(kind, str) else 0
            self.type = type_
        else:
            self.type = type_

        service_id = record.get("service_id")
        if service_id is None:
            if isinstance(record.get("records"), list):
                self.message = "service_id is required; send an array of records to /api/v1/telemetry/batch, by itself"
            return MISSING_SERVICE_ID
        if not isinstance(service_id, str):
            return self._wrong("service_id must be a string", service_id, INVALID_SERVICE_ID)
        if not service_id:
            return MISSING_SERVICE_ID
        group = self.groups[type_].get(service_id)
        if group is None:
            service = service_id.encode()
            reason: i64 = rules.check_name(len(service))
            if reason:
                return reason
            if type_ == 0:
                return self._wrong(f"type must be one of {_TYPES_SHOWN}", kind, INVALID_TYPE)
            group = _Group(service, type_)
            self.groups[type_][service_id] = group
        is_log = type_ == TYPE_LOG or type_ == TYPE_EVENT

        metric_name = record.get("metric_name")
        name = ""
        if metric_name is not None:
            if not isinstance(metric_name, str):
                return self._wrong("metric_name must be a string", metric_name, INVALID_METRIC_NAME)
            name = metric_name
        metric: _Metric | None = None
        if not is_log:
            if not name:
                return MISSING_METRIC_NAME
            metric = group.metrics.get(name)
        name_bytes = b""
        if name and metric is None:
            name_bytes = name.encode()
            reason = rules.check_name(len(name_bytes))
            if reason:
                return reason

        number = record.get("value")
        value = 0.0
        if isinstance(number, float):
            value = number
        elif number is not None:
            if isinstance(number, bool) or not isinstance(number, int):
                return self._wrong("value must be a finite float64", number, INVALID_VALUE)
            value = float(number)
        elif not is_log:
            return MISSING_VALUE

        body = record.get("body")
        text = ""
        if body is not None:
            if not isinstance(body, str):
                return self._wrong("body must be a string", body, INVALID_BODY)
            text = body
        elif is_log:
            return MISSING_BODY

        trace_id = record.get("trace_id")
        trace = b""
        extras = _NO_EXTRAS
        if trace_id is not None:
            if not isinstance(trace_id, str):
                return self._wrong("trace_id must be a string", trace_id, INVALID_TRACE_ID)
            if trace_id:
                trace = hex_id(trace_id, 16)
                if not trace and trace_id != _NO_TRACE_ID:
                    extras = {"infrasage.trace_id": trace_id.encode()}

        timestamp = record.get("timestamp")
        if timestamp is None:
            return MISSING_TIMESTAMP
        if not isinstance(timestamp, str):
            return self._wrong("timestamp must be an RFC 3339 string", timestamp, INVALID_TIMESTAMP)
        time_unix_nano: i64 = parse_time(timestamp.encode())
        reason = self._check_time(time_unix_nano, timestamp)
        if reason:
            return reason

        tags = record.get("attributes")
        attributes = _NO_ATTRIBUTES
        if tags is not None:
            if not isinstance(tags, dict):
                return self._wrong("attributes must be an object", tags, INVALID_ATTRIBUTES)
            attributes = tags

        if is_log:
            if number is not None:
                extras = dict(extras)
                extras["infrasage.value"] = repr(value).encode()
            if name and type_ == TYPE_LOG:
                extras = dict(extras)
                extras["infrasage.metric_name"] = name_bytes
            self.extras = extras
            return self._take_log(group, name_bytes, text.encode(), trace, time_unix_nano, attributes)
        if body is not None:
            extras = dict(extras)
            extras["infrasage.body"] = text.encode()
        self.extras = extras
        reason = self._encode_point(value, trace, time_unix_nano, attributes)
        if reason:
            return reason
        if metric is None:
            if not group.metrics:
                self.metric_groups.append(group)
            metric = _Metric(name_bytes)
            group.metrics[name] = metric
        metric.points.append(self.item.getvalue())
        metric.indices.append(self.index)
        return 0

    def _wrong(self, rule: str, got: object, reason: i64) -> i64:
        self.message = f"{rule}; got {_shown(got)}"
        return reason

    def _check_time(self, time_unix_nano: i64, timestamp: str) -> i64:
        if time_unix_nano > 0 and time_unix_nano != BEYOND:
            return self.rules.check_time(time_unix_nano)
        if time_unix_nano == INVALID:
            return self._wrong("timestamp must be RFC 3339", timestamp, INVALID_TIMESTAMP)
        if time_unix_nano == BEYOND:
            return TIMESTAMP_IN_FUTURE
        if self.rules.check_time(1) == 0:  # the window reaches back beyond what the record can hold
            self.message = "Timestamp is not after 1970-01-01T00:00:00Z"
        return TIMESTAMP_TOO_OLD

    def _encode_point(self, value: float, trace: bytes, time_unix_nano: i64, attributes: dict[str, object]) -> i64:
        """A NumberDataPoint, into `item`."""
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
        return self._put_attributes(0x3A, attributes)

    def _take_log(
        self, group: _Group, name: bytes, text: bytes, trace: bytes, time_unix_nano: i64, attributes: dict[str, object]
    ) -> i64:
        """A LogRecord, into its group."""
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
                if reason:
                    return reason
            put_bytes(item, 0x62, name)
        if not group.logs:
            self.log_groups.append(group)
        group.logs.append(item.getvalue())
        group.indices.append(self.index)
        return 0

    def _put_severity(self, attributes: dict[str, object]) -> None:
        for key in _SEVERITY_KEYS:
            severity = attributes.get(key)
            if isinstance(severity, str) and severity:
                number: i64 = _SEVERITIES.get(severity.lower(), 0)
                if number:
                    self.item.append(0x10)
                    put_varint(self.item, number)
                put_bytes(self.item, 0x1A, severity.encode())
                return

    def _put_attributes(self, tag: i64, attributes: dict[str, object]) -> i64:
        """Write the attributes that were sent, then our own, as fields `tag` of `item`."""
        item = self.item
        rules = self.rules
        extras = self.extras
        reason: i64
        count: i64 = len(attributes)
        if count > rules.attributes_max:
            # Those that were sent first.
            attributes = dict(islice(attributes.items(), int(rules.attributes_max)))
            rules.repair(ATTRIBUTES_DROPPED, count - rules.attributes_max)
        for key, value in attributes.items():
            if isinstance(value, str):
                text = value.encode()
            elif value is None:
                text = b""
            elif isinstance(value, bool):
                text = b"true" if value else b"false"
            elif isinstance(value, int):
                text = str(value).encode()
            elif isinstance(value, float):
                text = repr(value).encode()
            else:
                reason = self._check_nested(key, value, 0)
                if reason:
                    return reason
                rules.rest()
                text = _ENCODER.encode(value).encode()
                rules.rest()
            if not extras or key not in extras:
                reason = self._put_text(tag, key.encode(), text)
                if reason:
                    return reason
        for extra, text in extras.items():
            reason = self._put_text(tag, extra.encode(), text)
            if reason:
                return reason
        if count > rules.attributes_max and tag == _LOG_ATTRIBUTES:
            item.append(_DROPPED_TAG)
            put_varint(item, count - rules.attributes_max)
        return 0

    def _put_text(self, tag: i64, key: bytes, text: bytes) -> i64:
        """An attribute, as field `tag` of `item`: 0, or why not. What is too long is cut, if that is allowed."""
        rules = self.rules
        reason: i64 = rules.check_attribute(len(key), len(text))
        if reason == ATTRIBUTE_VALUE_TOO_LONG and rules.truncates_values:
            rules.repair(VALUE_TRUNCATED)
            put_attribute(self.item, tag, key, text_within(text, rules.value_bytes_max))
            put_attribute(self.item, tag, CUT_KEY_PREFIX + key, str(len(text)).encode())
            return 0
        if reason:
            return reason
        put_attribute(self.item, tag, key, text)
        return 0

    def _check_nested(self, key: str, value: object, depth: i64) -> i64:
        """Whether an attribute's array or object can be written as JSON."""
        if isinstance(value, list):
            if depth >= NESTING_MAX:
                return NESTED_TOO_DEEP
            for member in value:
                self.rules.read(0)
                if not isinstance(member, str):
                    reason: i64 = self._check_nested(key, member, depth + 1)
                    if reason:
                        return reason
        elif isinstance(value, dict):
            if depth >= NESTING_MAX:
                return NESTED_TOO_DEEP
            for member in value.values():
                self.rules.read(0)
                if not isinstance(member, str):
                    reason = self._check_nested(key, member, depth + 1)
                    if reason:
                        return reason
        elif isinstance(value, _NotFinite):
            return self._wrong(f"attribute {quoted(key)} must be finite", value, INVALID_ATTRIBUTES)
        return 0


def _index_of(rejection: Rejection) -> int:
    return rejection.index


def _shown(value: object) -> str:
    """What was got instead: its JSON type and, shortened and escaped, itself."""
    if value is None:
        return "null"
    if isinstance(value, _NotFinite):
        return shortened(value.token)
    if isinstance(value, bool):
        return "boolean true" if value else "boolean false"
    if isinstance(value, (int, float)):
        return f"number {value!r}"
    if isinstance(value, str):
        return f"string {quoted(value)}"
    if isinstance(value, list):
        return f"array of {len(value)}"
    return "object"
