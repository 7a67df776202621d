"""OTLP's messages as tables for a scanner, with an action for each tag.

The tables are made from the official descriptors, so they are never out of date.

A tag has exactly one action. A known field number with another wire type than its own raises `NonCanonical`; an unknown number
is skipped and kept. Source: opentelemetry-proto, and protobuf's encoding of its types.
"""

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from mypy_extensions import i64
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from adapters.errors import INVALID_RECORD, INVALID_TIMESTAMP, INVALID_VALUE, NESTED_TOO_DEEP

# Actions. The first ones read no payload.
ODD: Final = 0  # protobuf's own parser decides
SKIP: Final = 1  # unknown: ignored, kept
SCALAR: Final = 2  # any 64-bit varint, or fixed
RAW: Final = 3  # bytes
LAST_UNREAD: Final = RAW
INT32: Final = 4  # a varint that must fit int32
UINT32: Final = 5  # a varint that must fit uint32
BOOL: Final = 6
TEXT: Final = 7  # UTF-8
MESSAGE: Final = 8
ATTRIBUTE: Final = 9  # a KeyValue
BODY: Final = 10  # an AnyValue
PACKED_FIXED64: Final = 11  # left out if it has no elements: ClickHouse refuses it then
PACKED_VARINT: Final = 12
NAME: Final = 13  # UTF-8, with a rule about its length
# Fields of a histogram's point, packed like PACKED_FIXED64.
BUCKET_COUNTS: Final = 14
BOUNDS: Final = 15
# The id of a parent, a link or an exemplar: if it is invalid, the item is kept without it.
OTHER_TRACE_ID: Final = 16
OTHER_SPAN_ID: Final = 17
# Actions that only note something of an item or its envelope.
TIME: Final = 18
FIRST_NOTED: Final = TIME
OTHER_TIME: Final = 19  # a span's end, a log record's observed time
TRACE_ID: Final = 20
SPAN_ID: Final = 21
DATA: Final = 22  # a metric's gauge, sum, histogram, …
ITEM: Final = 23  # a metric's data point
TEMPORALITY: Final = 24
# Fields of a histogram's point: the total that its buckets must add up to, the count of zeros, the flags.
COUNT: Final = 25
ZERO_COUNT: Final = 26
FLAGS: Final = 27

# A field that the JSON adapter writes into an item instead of a value that does not fit: the reason's number, then the message.
# No .proto file may have a field of this number: protobuf reserves 19000 to 19999.
UNFIT: Final = 19999 << 3 | 2
UNFIT_TAG: Final = b"\xfa\xe1\x09"  # as encoded
UNFIT_REASONS: Final = frozenset({INVALID_RECORD, INVALID_TIMESTAMP, INVALID_VALUE, NESTED_TOO_DEEP})

# 1 << n, as 8 bytes each, for n from 0 to 63. Read from bytes, since mypyc shifts a literal 1 as a C int, of 32 bits.
BIT_MASKS: Final = b"".join([(2**n).to_bytes(8, "little") for n in range(64)])

_TABLE_SIZE: Final = 256  # every known tag of OTLP is below
_WIRE_TYPES: Final = (0, 1, 2, 5)

_VARINT_ACTIONS: Final = {
    FieldDescriptor.TYPE_INT64: SCALAR,
    FieldDescriptor.TYPE_UINT64: SCALAR,
    FieldDescriptor.TYPE_SINT64: SCALAR,
    FieldDescriptor.TYPE_INT32: INT32,
    FieldDescriptor.TYPE_ENUM: INT32,
    FieldDescriptor.TYPE_UINT32: UINT32,
    FieldDescriptor.TYPE_SINT32: UINT32,  # zigzag: as wide as uint32 on the wire
    FieldDescriptor.TYPE_BOOL: BOOL,
}
_FIXED64_TYPES: Final = (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_DOUBLE)
_FIXED32_TYPES: Final = (FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_FLOAT)
_NAMES: Final = ("Metric.name", "Span.name", "Event.name", "InstrumentationScope.name", "LogRecord.event_name")
_NOTES: Final = {
    "NumberDataPoint.time_unix_nano": TIME,
    "HistogramDataPoint.time_unix_nano": TIME,
    "ExponentialHistogramDataPoint.time_unix_nano": TIME,
    "SummaryDataPoint.time_unix_nano": TIME,
    "LogRecord.time_unix_nano": TIME,
    "LogRecord.observed_time_unix_nano": OTHER_TIME,
    "Span.parent_span_id": OTHER_SPAN_ID,
    "Link.trace_id": OTHER_TRACE_ID,
    "Link.span_id": OTHER_SPAN_ID,
    "Exemplar.trace_id": OTHER_TRACE_ID,
    "Exemplar.span_id": OTHER_SPAN_ID,
    "LogRecord.trace_id": TRACE_ID,
    "LogRecord.span_id": SPAN_ID,
    "Span.start_time_unix_nano": TIME,
    "Span.end_time_unix_nano": OTHER_TIME,
    "Span.trace_id": TRACE_ID,
    "Span.span_id": SPAN_ID,
    "Gauge.data_points": ITEM,
    "Sum.data_points": ITEM,
    "Histogram.data_points": ITEM,
    "ExponentialHistogram.data_points": ITEM,
    "Summary.data_points": ITEM,
    "Sum.aggregation_temporality": TEMPORALITY,
    "Histogram.aggregation_temporality": TEMPORALITY,
    "ExponentialHistogram.aggregation_temporality": TEMPORALITY,
    "HistogramDataPoint.count": COUNT,
    "HistogramDataPoint.bucket_counts": BUCKET_COUNTS,
    "HistogramDataPoint.explicit_bounds": BOUNDS,
    "HistogramDataPoint.flags": FLAGS,
    "ExponentialHistogramDataPoint.count": COUNT,
    "ExponentialHistogramDataPoint.zero_count": ZERO_COUNT,
    "ExponentialHistogramDataPoint.flags": FLAGS,
    "Metric.gauge": DATA,
    "Metric.sum": DATA,
    "Metric.histogram": DATA,
    "Metric.exponential_histogram": DATA,
    "Metric.summary": DATA,
}
# The actions of fields that may differ from their normal form.
_REWRITTEN: Final = (
    ATTRIBUTE,
    BODY,
    PACKED_FIXED64,
    PACKED_VARINT,
    BUCKET_COUNTS,
    BOUNDS,
    OTHER_TRACE_ID,
    OTHER_SPAN_ID,
)


class MessageTable:
    """A `MessageTable` describes one message type, by tables that are indexed by tag. `actions` has the action. `masks` has 8
    bytes each: the bit of a field that may occur only once, which members of a oneof share, or 0 if it may repeat. `children`
    has the table of a submessage, and this table itself for any other field."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.name: Final[str] = descriptor.name
        self.is_rewritten: bool = False  # its normal form may differ from what was sent
        self.has_temporality: bool = False
        # For a number's point, the bits of the fields that contain its value, or the flag that there is none.
        self.value_bits: i64 = 0
        self.has_buckets: bool = descriptor.name in ("HistogramDataPoint", "ExponentialHistogramDataPoint")
        # A metric is found by its name, so a metric with a too long name is rejected.
        self.cuts_name: bool = descriptor.name != "Metric"
        # The message belongs to many items, so an attribute that is nested too deep is left out.
        self.leaves_out: bool = descriptor.name in ("Resource", "InstrumentationScope", "Metric")
        # The message belongs to a point, which is kept without it if it is rejected.
        self.is_exemplar: bool = descriptor.name == "Exemplar"
        # The tag of `dropped_attributes_count`, if there is one: it counts the attributes beyond the limit.
        self.dropped_tag: i64 = 0
        actions = bytearray(_TABLE_SIZE)
        bits = [0] * _TABLE_SIZE
        self.children: Final[list[MessageTable]] = [self] * _TABLE_SIZE
        known = {field.number for field in descriptor.fields}
        for number in range(1, _TABLE_SIZE >> 3):
            for wire_type in _WIRE_TYPES:
                actions[number << 3 | wire_type] = ODD if number in known else SKIP
        for field in descriptor.fields:
            tag, action = _action(field, f"{descriptor.name}.{field.name}")
            actions[tag] = action
            if field.name == "dropped_attributes_count":
                self.dropped_tag = tag
            if field.containing_oneof is not None:
                bits[tag] = 32 + field.containing_oneof.index
            elif not field.is_repeated or action in (BUCKET_COUNTS, BOUNDS):  # these must be in one piece to be checked
                bits[tag] = field.number
            if descriptor.name == "NumberDataPoint" and field.name in ("as_double", "as_int", "flags"):
                self.value_bits |= 1 << bits[tag]
            if action in _REWRITTEN:
                self.is_rewritten = True
            elif action == TEMPORALITY:
                self.has_temporality = True
            elif action == MESSAGE or action == ITEM or action == DATA:
                assert field.message_type is not None
                child = message_of(field.message_type)
                self.children[tag] = child
                self.is_rewritten = self.is_rewritten or child.is_rewritten
        self.actions: Final[bytes] = bytes(actions)
        self.masks: Final[bytes] = b"".join([BIT_MASKS[bit * 8 : bit * 8 + 8] if bit else bytes(8) for bit in bits])


def _action(field: FieldDescriptor, name: str) -> tuple[int, int]:
    """Return the tag under which the official encoder writes a field, and its action."""
    kind = field.type
    if field.message_type is not None:
        action = {"KeyValue": ATTRIBUTE, "AnyValue": BODY}.get(field.message_type.name, MESSAGE)
        return field.number << 3 | 2, _NOTES.get(name, action)
    if kind == FieldDescriptor.TYPE_STRING:
        return field.number << 3 | 2, NAME if name in _NAMES else TEXT
    if kind == FieldDescriptor.TYPE_BYTES:
        return field.number << 3 | 2, _NOTES.get(name, RAW)
    if kind in _FIXED64_TYPES:
        if field.is_repeated:
            return field.number << 3 | 2, _NOTES.get(name, PACKED_FIXED64)
        return field.number << 3 | 1, _NOTES.get(name, SCALAR)
    if kind in _FIXED32_TYPES:
        return field.number << 3 | 5, SCALAR
    if field.is_repeated:
        return field.number << 3 | 2, PACKED_VARINT
    return field.number << 3, _NOTES.get(name, _VARINT_ACTIONS[kind])


_messages: Final[dict[str, MessageTable]] = {}


def message_of(descriptor: Descriptor) -> MessageTable:
    """Return the table of a message type."""
    message = _messages.get(descriptor.full_name)
    if message is None:
        message = _messages[descriptor.full_name] = MessageTable(descriptor)
    return message


METRIC: Final = message_of(metrics_pb2.Metric.DESCRIPTOR)
LOG_RECORD: Final = message_of(logs_pb2.LogRecord.DESCRIPTOR)
SPAN: Final = message_of(trace_pb2.Span.DESCRIPTOR)
RESOURCE: Final = message_of(resource_pb2.Resource.DESCRIPTOR)
SCOPE: Final = message_of(common_pb2.InstrumentationScope.DESCRIPTOR)
RESOURCE_ENVELOPE: Final = message_of(logs_pb2.ResourceLogs.DESCRIPTOR)  # the same for the three signals
SCOPE_ENVELOPE: Final = message_of(logs_pb2.ScopeLogs.DESCRIPTOR)
