"""OTLP's messages as tables for a reader of JSON: the field of each member's name, and the kind of its value.

The tables are made from the official descriptors, so they are never out of date.
"""

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from mypy_extensions import i64

from adapters.codec.json_scanner import JsonName
from adapters.errors import INVALID_RECORD, INVALID_TIMESTAMP, INVALID_VALUE

TEXT: Final = 0
BYTES: Final = 1
HEX: Final = 2
DOUBLE: Final = 3
BOOL: Final = 4
MESSAGE: Final = 5
VARINT: Final = 6
ZIGZAG: Final = 7
FIXED64: Final = 8
FIXED32: Final = 9

# The forms that are read in addition to those of the specification.
SNAKE_CASE: Final = 1  # names of fields as in the .proto files
ENUM_NAMES: Final = 2  # an enum's name in the place of its number

_HEX_FIELDS: Final = ("trace_id", "span_id", "parent_span_id")
_KINDS: Final = {
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_DOUBLE: DOUBLE,
    FieldDescriptor.TYPE_BOOL: BOOL,
    FieldDescriptor.TYPE_MESSAGE: MESSAGE,
    FieldDescriptor.TYPE_INT32: VARINT,
    FieldDescriptor.TYPE_UINT32: VARINT,
    FieldDescriptor.TYPE_INT64: VARINT,
    FieldDescriptor.TYPE_UINT64: VARINT,
    FieldDescriptor.TYPE_ENUM: VARINT,
    FieldDescriptor.TYPE_SINT32: ZIGZAG,
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_SFIXED64: FIXED64,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
}
_WIRE_TYPES: Final = {DOUBLE: 1, FIXED64: 1, FIXED32: 5, BOOL: 0, VARINT: 0, ZIGZAG: 0}
_RANGES: Final = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
}
_INT32_RANGE: Final = (-(2**31), 2**31 - 1)
_REQUESTS: Final = ("ExportLogsServiceRequest", "ExportTraceServiceRequest", "ExportMetricsServiceRequest")
_ENVELOPES: Final = (
    *("ResourceLogs", "ResourceSpans", "ResourceMetrics", "Resource", "EntityRef"),
    *("ScopeLogs", "ScopeSpans", "ScopeMetrics", "InstrumentationScope"),
    *("Metric", "Gauge", "Sum", "Histogram", "ExponentialHistogram", "Summary"),
)
# The text that follows an unknown name when it is reported: where its value belongs.
HINTS: Final = {
    **dict.fromkeys(("resourceSpans", "resource_spans"), ", which is for /v1/traces"),
    **dict.fromkeys(("resourceLogs", "resource_logs"), ", which is for /v1/logs"),
    **dict.fromkeys(("resourceMetrics", "resource_metrics"), ", which is for /v1/metrics"),
    **dict.fromkeys(("instrumentationLibrarySpans", "instrumentation_library_spans"), ": OTLP 1.0 has scopeSpans"),
    **dict.fromkeys(("instrumentationLibraryLogs", "instrumentation_library_logs"), ": OTLP 1.0 has scopeLogs"),
    **dict.fromkeys(("instrumentationLibraryMetrics", "instrumentation_library_metrics"), ": OTLP 1.0 has scopeMetrics"),
    **dict.fromkeys(("intGauge", "doubleGauge", "int_gauge", "double_gauge"), ": OTLP 1.0 has gauge"),
    **dict.fromkeys(("intSum", "doubleSum", "int_sum", "double_sum"), ": OTLP 1.0 has sum"),
    **dict.fromkeys(("intHistogram", "doubleHistogram", "int_histogram", "double_histogram"), ": OTLP 1.0 has histogram"),
}
# A request with a member of this name is a record of the native API.
NATIVE_NAME: Final = "service_id"
_HOLD_ITEMS: Final = frozenset(_ENVELOPES) - {"Resource", "EntityRef", "InstrumentationScope"}
_ITEMS: Final = (
    "LogRecord",
    "Span",
    "NumberDataPoint",
    "HistogramDataPoint",
    "ExponentialHistogramDataPoint",
    "SummaryDataPoint",
)


class Field:
    """A `Field` describes one field of a message."""

    def __init__(self, descriptor: FieldDescriptor, forms: int) -> None:
        """Read the field's descriptor. `forms` are the forms that are read in addition to those of the specification."""
        assert descriptor.containing_type is not None
        self.name: Final[str] = f"{descriptor.containing_type.name}.{descriptor.json_name}"
        self.kind: Final[int] = HEX if descriptor.name in _HEX_FIELDS else _KINDS[descriptor.type]
        self.repeated: Final[bool] = descriptor.is_repeated
        self.low, self.high = _RANGES.get(descriptor.type, _INT32_RANGE)
        packed = self.repeated and self.kind in _WIRE_TYPES
        self.packed: Final[bool] = packed
        self.tag: Final[int] = descriptor.number << 3 | (2 if packed else _WIRE_TYPES.get(self.kind, 2))
        self.message: Final[Descriptor | None] = descriptor.message_type
        self.message_name: Final[str] = descriptor.message_type.name if descriptor.message_type is not None else ""
        self.is_item: Final[bool] = self.message_name in _ITEMS
        # Whether its value has items, or is an item.
        self.holds_items: Final[bool] = self.is_item or self.message_name in _HOLD_ITEMS
        # Whether it is a gauge, a sum, …: a metric has one of them.
        self.is_metric_data: Final[bool] = self.holds_items and descriptor.containing_type.name == "Metric"
        # Whether it is an exemplar, which is left out of its point if it does not fit.
        self.is_exemplar: Final[bool] = self.message_name == "Exemplar"
        self.is_attribute: Final[bool] = self.message_name == "KeyValue"
        self.is_any_value: Final[bool] = self.message_name == "AnyValue"
        # The tag, the kind, the number's range as far as an int64 can hold it, and a bit that no other field of the message
        # has, all as native integers.
        self.wire_tag: Final[i64] = self.tag
        self.wire_kind: Final[i64] = self.kind
        self.least: Final[i64] = self.low
        self.most: Final[i64] = min(self.high, 2**63 - 1)
        self.bit: Final[i64] = 2**descriptor.index
        self._forms: Final = forms
        self._fields: Fields | None = None
        names: dict[str, int] = {}
        if descriptor.enum_type is not None and forms & ENUM_NAMES:
            names = {value.name: value.number for value in descriptor.enum_type.values}
        self.enum_names: Final[dict[str, int]] = names
        # Whether a span without this id is rejected. Without any other id, the item is kept.
        self.is_required_id: Final[bool] = self.name in ("Span.traceId", "Span.spanId")
        # Whether it is a temporality. A 0, which means none, is not written, so that the metric is read in one pass.
        self.is_temporality: Final[bool] = descriptor.name == "aggregation_temporality"
        # The size of an id.
        self.id_bytes: Final[int] = 16 if descriptor.name == "trace_id" else 8
        # Whether it is an attribute's integer, which may become text; and the reason to reject an item if a value does not fit.
        self.is_attribute_integer: Final[bool] = self.name == "AnyValue.intValue"
        is_number = self.kind not in (TEXT, BYTES, HEX, MESSAGE)
        is_time = descriptor.name.endswith("time_unix_nano")
        self.reason: Final[int] = INVALID_TIMESTAMP if is_time else INVALID_VALUE if is_number else INVALID_RECORD

    def fields(self) -> "Fields":
        """Return the fields of the field's message type."""
        fields = self._fields
        if fields is None:
            assert self.message is not None
            fields = self._fields = fields_of(self.message, self._forms)
        return fields


class Name(JsonName):
    """A `Name` is a name that a field has in JSON."""

    def __init__(self, name: str, field: Field) -> None:
        super().__init__(name)
        self.field: Final = field
        # The name that followed this one in the message that was read last: senders write their fields in one order.
        self.follower: Name = self


class Fields:
    """A `Fields` holds the fields of a message type, by name."""

    def __init__(self, descriptor: Descriptor, forms: int) -> None:
        self.name: Final[str] = descriptor.name
        self.by_name: Final[dict[str, Field]] = {field.json_name: Field(field, forms) for field in descriptor.fields}
        if forms & SNAKE_CASE:
            for field in descriptor.fields:
                self.by_name[field.name] = self.by_name[field.json_name]
        # A value that does not fit an item is noted in the item, which is rejected, and its neighbours are kept.
        self.is_item: Final[bool] = descriptor.name in _ITEMS
        # A value that does not fit an envelope is left out, since it belongs to many items.
        self.is_envelope: Final[bool] = descriptor.name in _ENVELOPES
        # A request has nothing but its list, so only elements of the list can be left out.
        self.is_request: Final[bool] = descriptor.name in _REQUESTS
        self.is_metric: Final[bool] = descriptor.name == "Metric"
        # The first field that holds items.
        holders = [field for field in self.by_name.values() if field.holds_items]
        self.holder: Final[Field | None] = holders[0] if holders else None
        # Senders may have fields of their own next to the items of a request.
        self.holds_items: Final[bool] = bool(holders) and not self.is_request
        self.names: Final[dict[bytes, Name]] = {name.encode(): Name(name, field) for name, field in self.by_name.items()}
        # The name before the first one.
        self.head: Final = Name("", next(iter(self.by_name.values())))
        self.head.follower = next(iter(self.names.values()))

    def item_names(self) -> frozenset[bytes]:
        """Return the names, in quotes, of the fields that hold items, of this message and of those in it."""
        found: set[bytes] = set()
        for name, field in self.by_name.items():
            if field.holds_items:
                found.add(f'"{name}"'.encode())
                if not field.is_item:
                    found |= field.fields().item_names()
        return frozenset(found)


# The fields of each message type, by the forms that are read.
_messages: Final[list[dict[str, Fields]]] = [{}, {}, {}, {}]


def fields_of(descriptor: Descriptor, forms: int) -> Fields:
    """Return the fields of a message type, by the names that are read."""
    messages = _messages[forms]
    fields = messages.get(descriptor.full_name)
    if fields is None:
        fields = messages[descriptor.full_name] = Fields(descriptor, forms)
    return fields
