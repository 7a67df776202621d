"""Convert OTLP/JSON to OTLP/protobuf, so that one adapter serves both.

OTLP's own rules apply where they differ from protobuf's JSON mapping (the OTLP specification, "JSON Protobuf Encoding"): trace
and span ids are hex in any case, enums are integers only, keys are lowerCamelCase only, and unknown keys are ignored. With
`Rules.json_forms`, names of enums and keys in snake_case are read as well, as the OpenTelemetry Collector does. 64-bit
integers are numbers or strings, doubles may be "NaN", "Infinity" and "-Infinity", and null is absent.

Invariants:
1. JSON is converted to the protobuf of the same request (test_json_stands_for_the_same_request).
2. A value that does not fit rejects its own item only (test_what_does_not_fit_rejects_its_item_alone).
"""

import binascii
from typing import Final

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from librt.strings import BytesWriter, write_f64_le, write_i32_le, write_i64_le
from mypy_extensions import i64
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from adapters.codec.json_numbers import quote_long_integers
from adapters.codec.json_reader import SLICE_BYTES, JsonSlices, NotJson, may_hold_many_containers
from adapters.codec.text import check_json_parts, quoted
from adapters.codec.text_repair import repaired_json
from adapters.codec.wire import put_bytes, put_signed_varint, put_varint
from adapters.errors import INVALID_JSON, INVALID_RECORD, INVALID_TIMESTAMP, INVALID_VALUE, Malformed
from adapters.otlp.field_tables import UNFIT
from adapters.repairs import ID_DROPPED, INTEGER_BEYOND_64_BITS, NULL_LIST_ENTRY
from adapters.rules import NO_RULES, Rules

_TEXT: Final = 0
_BYTES: Final = 1
_HEX: Final = 2
_DOUBLE: Final = 3
_BOOL: Final = 4
_MESSAGE: Final = 5
_VARINT: Final = 6
_ZIGZAG: Final = 7
_FIXED64: Final = 8
_FIXED32: Final = 9

# What is read beside what the specification has.
SNAKE_CASE: Final = 1  # names of fields as in the .proto files
ENUM_NAMES: Final = 2  # an enum's name in the place of its number

_UNKNOWN_TOLD_MAX: Final = 5
_HINTS: Final = {
    **dict.fromkeys(("resourceSpans", "resource_spans"), ", which is for /v1/traces"),
    **dict.fromkeys(("resourceLogs", "resource_logs"), ", which is for /v1/logs"),
    **dict.fromkeys(("resourceMetrics", "resource_metrics"), ", which is for /v1/metrics"),
    **dict.fromkeys(("instrumentationLibrarySpans", "instrumentation_library_spans"), ": OTLP 1.0 has scopeSpans"),
    **dict.fromkeys(("instrumentationLibraryLogs", "instrumentation_library_logs"), ": OTLP 1.0 has scopeLogs"),
    **dict.fromkeys(("instrumentationLibraryMetrics", "instrumentation_library_metrics"), ": OTLP 1.0 has scopeMetrics"),
}
_HEX_FIELDS: Final = ("trace_id", "span_id", "parent_span_id")
_KINDS: Final = {
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.TYPE_BOOL: _BOOL,
    FieldDescriptor.TYPE_MESSAGE: _MESSAGE,
    FieldDescriptor.TYPE_INT32: _VARINT,
    FieldDescriptor.TYPE_UINT32: _VARINT,
    FieldDescriptor.TYPE_INT64: _VARINT,
    FieldDescriptor.TYPE_UINT64: _VARINT,
    FieldDescriptor.TYPE_ENUM: _VARINT,
    FieldDescriptor.TYPE_SINT32: _ZIGZAG,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_SFIXED64: _FIXED64,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
}
_WIRE_TYPES: Final = {_DOUBLE: 1, _FIXED64: 1, _FIXED32: 5, _BOOL: 0, _VARINT: 0, _ZIGZAG: 0}
_RANGES: Final = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
}
_INT32_RANGE: Final = (-(2**31), 2**31 - 1)
_INTEGER_DIGITS_MAX: Final = 20
# A parser makes doubles of integers from here on.
_EXACT_BELOW: Final = 2.0**63
_QUOTE: Final = 0x22
_OPENING_BRACE: Final = 0x7B
_CLOSING_BRACE: Final = 0x7D
_OPENING_BRACKET: Final = 0x5B
_CLOSING_BRACKET: Final = 0x5D
# Of objects that are larger than a slice, in each other.
_DEPTH_MAX: Final = 100
_SHOWN_CHARACTERS_MAX: Final = 40
_STRING_VALUE_TAG: Final = 0x0A  # of an AnyValue
_ITEMS: Final = (
    "LogRecord",
    "Span",
    "NumberDataPoint",
    "HistogramDataPoint",
    "ExponentialHistogramDataPoint",
    "SummaryDataPoint",
)


class _Field:
    def __init__(self, descriptor: FieldDescriptor, forms: int) -> None:
        """`forms`: what is read beside what the specification has."""
        assert descriptor.containing_type is not None
        self.name: Final[str] = f"{descriptor.containing_type.name}.{descriptor.json_name}"
        self.kind: Final[int] = _HEX if descriptor.name in _HEX_FIELDS else _KINDS[descriptor.type]
        self.repeated: Final[bool] = descriptor.is_repeated
        self.low, self.high = _RANGES.get(descriptor.type, _INT32_RANGE)
        packed = self.repeated and self.kind in _WIRE_TYPES
        self.packed: Final[bool] = packed
        self.tag: Final[int] = descriptor.number << 3 | (2 if packed else _WIRE_TYPES.get(self.kind, 2))
        self.message: Final[Descriptor | None] = descriptor.message_type
        self._forms: Final = forms
        self._fields: _Fields | None = None
        names: dict[str, int] = {}
        if descriptor.enum_type is not None and forms & ENUM_NAMES:
            names = {value.name: value.number for value in descriptor.enum_type.values}
        self.enum_names: Final[dict[str, int]] = names
        # Without it a span is rejected; without any other id the item is kept.
        self.is_required_id: Final[bool] = self.name in ("Span.traceId", "Span.spanId")
        # An attribute's integer, which may become text; and the reason for which an item is rejected where it does not fit.
        self.is_attribute_integer: Final[bool] = self.name == "AnyValue.intValue"
        is_number = self.kind not in (_TEXT, _BYTES, _HEX, _MESSAGE)
        is_time = descriptor.name.endswith("time_unix_nano")
        self.reason: Final[int] = INVALID_TIMESTAMP if is_time else INVALID_VALUE if is_number else INVALID_RECORD

    def fields(self) -> "_Fields":
        """Those of its message."""
        fields = self._fields
        if fields is None:
            assert self.message is not None
            fields = self._fields = _fields_of(self.message, self._forms)
        return fields


class _Fields:
    """The fields of a message type, by name."""

    def __init__(self, descriptor: Descriptor, forms: int) -> None:
        self.name: Final[str] = descriptor.name
        self.by_name: Final[dict[str, _Field]] = {field.json_name: _Field(field, forms) for field in descriptor.fields}
        if forms & SNAKE_CASE:
            for field in descriptor.fields:
                self.by_name[field.name] = self.by_name[field.json_name]
        # What does not fit such a message is noted in it: the item is rejected, and its neighbours are kept.
        self.is_item: Final[bool] = descriptor.name in _ITEMS


# By the forms that are read.
_messages: Final[list[dict[str, _Fields]]] = [{}, {}, {}, {}]


def _fields_of(descriptor: Descriptor, forms: int) -> _Fields:
    messages = _messages[forms]
    fields = messages.get(descriptor.full_name)
    if fields is None:
        fields = messages[descriptor.full_name] = _Fields(descriptor, forms)
    return fields


class _Notes:
    """What is repaired of one body while it is read."""

    def __init__(self, *, is_exact: bool) -> None:
        """`is_exact`: long integers are in quotes, so that none has lost digits."""
        self.is_exact: Final = is_exact
        self.nulls: int = 0
        self.integers: int = 0
        self.ids: int = 0
        # The first fields that no message has: reported if nothing was taken.
        self.unknown: Final[list[str]] = []

    def skip(self, fields: _Fields, name: str) -> None:
        """Note a field that is unknown."""
        if len(self.unknown) < _UNKNOWN_TOLD_MAX:
            self.unknown.append(f"{fields.name} has no field {quoted(name)}{_HINTS.get(name, '')}")


class _Unfit(Exception):
    """A value that its field can't hold."""

    def __init__(self, message: str, reason: int = INVALID_RECORD, *, is_read: bool = True) -> None:
        """`is_read`: the cursor, if there is one, is behind the value."""
        super().__init__(message)
        self.message: str = message
        self.reason: int = reason
        self.is_read: bool = is_read


class _Inexact(Exception):
    """An integer beyond 64 bits was met, and its digits are to be read."""


def _unfit(field: _Field, wanted: str, value: object) -> _Unfit:
    shown = orjson.dumps(value).decode()
    if len(shown) > _SHOWN_CHARACTERS_MAX:
        shown = shown[:_SHOWN_CHARACTERS_MAX] + "…"
    return _Unfit(f"{field.name} must be {wanted}; got {shown}", field.reason)


def _put_message(writer: BytesWriter, fields: _Fields, value: dict[str, object], notes: _Notes) -> None:
    if fields.is_item:
        _put_item(writer, fields, value, notes)
        return
    by_name = fields.by_name
    for key, entry in value.items():
        field = by_name.get(key)
        if field is None:
            notes.skip(fields, key)
        elif entry is not None:
            _put_member(writer, field, entry, notes)


def _put_item(writer: BytesWriter, fields: _Fields, value: dict[str, object], notes: _Notes) -> None:
    """A log record, a span or a point."""
    by_name = fields.by_name
    for key, entry in value.items():
        field = by_name.get(key)
        if field is not None and entry is not None:
            start: i64 = len(writer)
            try:
                _put_member(writer, field, entry, notes)
            except _Unfit as unfit:
                writer.truncate(start)
                put_bytes(writer, UNFIT, bytes((unfit.reason,)) + unfit.message.encode())


def _put_member(writer: BytesWriter, field: _Field, entry: object, notes: _Notes) -> None:
    """A field with all of its values."""
    if not field.repeated:
        _put_field(writer, field, entry, notes)
    elif not isinstance(entry, list):
        raise _unfit(field, "an array", entry)
    elif field.packed:
        inner = BytesWriter()
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                _put_scalar(inner, field, element)
        if len(inner):  # a packed list without elements is none
            put_bytes(writer, field.tag, inner.getvalue())
    else:
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                _put_field(writer, field, element, notes)


def _put_field(writer: BytesWriter, field: _Field, value: object, notes: _Notes) -> None:
    """A field that is not packed, tag and all."""
    kind = field.kind
    if kind == _MESSAGE:
        if not isinstance(value, dict):
            raise _unfit(field, "an object", value)
        inner = BytesWriter()
        _put_message(inner, field.fields(), value, notes)
        put_bytes(writer, field.tag, inner.getvalue())
    elif kind == _TEXT:
        if not isinstance(value, str):
            raise _unfit(field, "a string", value)
        put_bytes(writer, field.tag, value.encode())
    elif kind == _HEX and isinstance(value, str) and not field.is_required_id:
        try:
            put_bytes(writer, field.tag, _bytes_of(field, value))
        except _Unfit:
            notes.ids += 1
    elif kind == _HEX or kind == _BYTES:
        put_bytes(writer, field.tag, _bytes_of(field, value))
    elif field.is_attribute_integer:
        _put_attribute_integer(writer, field, value, notes)
    else:
        start: i64 = len(writer)
        put_varint(writer, field.tag)
        try:
            _put_scalar(writer, field, value)
        except _Unfit:
            writer.truncate(start)
            raise


def _put_attribute_integer(writer: BytesWriter, field: _Field, value: object, notes: _Notes) -> None:
    """An AnyValue's integer; beyond 64 bits, its decimal text."""
    number = _whole_number(value)
    if isinstance(value, float) and not notes.is_exact and not -_EXACT_BELOW < value < _EXACT_BELOW:
        raise _Inexact
    if number is not None and field.low <= number <= field.high:
        put_varint(writer, field.tag)
        signed: i64 = number
        put_signed_varint(writer, signed)
        return
    if isinstance(value, str):
        text = value if _is_decimal(value) else ""
    else:
        text = "" if number is None else str(number)
    if not text:
        raise _unfit(field, f"an integer from {field.low} to {field.high}", value)
    notes.integers += 1
    put_bytes(writer, _STRING_VALUE_TAG, text.encode())


def _is_decimal(text: str) -> bool:
    """Return whether a text is a whole number as JSON writes it."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and (digits[0] != "0" or digits == "0")


def _bytes_of(field: _Field, value: object) -> bytes:
    wanted = "hex" if field.kind == _HEX else "base64"
    if not isinstance(value, str):
        raise _unfit(field, wanted, value)
    try:
        if field.kind == _HEX:
            return binascii.unhexlify(value)
        # Either alphabet, padded or not, as protobuf's JSON mapping has it.
        standard = value.replace("-", "+").replace("_", "/").rstrip("=")
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise _unfit(field, wanted, value) from None


def _put_scalar(writer: BytesWriter, field: _Field, value: object) -> None:
    kind = field.kind
    if kind == _DOUBLE:
        write_f64_le(writer, _double_of(field, value))
        return
    if kind == _BOOL:
        if not isinstance(value, bool):
            raise _unfit(field, "true or false", value)
        writer.append(1 if value else 0)
        return
    number = _integer_of(field, value)
    signed: i64 = number if number < 2**63 else number - 2**64
    if kind == _FIXED64:
        write_i64_le(writer, signed)
    elif kind == _FIXED32:
        write_i32_le(writer, number if number < 2**31 else number - 2**32)
    elif kind == _ZIGZAG:
        put_varint(writer, signed * 2 if signed >= 0 else -signed * 2 - 1)
    else:
        put_signed_varint(writer, signed)


def _double_of(field: _Field, value: object) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        if value == "NaN" or value == "Infinity" or value == "-Infinity":
            return float(value)
        number = _number_in(value)
        if number is not None:
            return float(number)
    raise _unfit(field, "a number", value)


def _number_in(text: str) -> int | float | None:
    """The JSON number that a string is."""
    if text != text.strip():
        return None
    try:
        number = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return number if isinstance(number, (int, float)) and not isinstance(number, bool) else None


def _whole_number(value: object) -> int | None:
    """The integer that a value is: a number, or the text of one."""
    number = value
    if isinstance(value, str) and len(value) <= _INTEGER_DIGITS_MAX:
        if _is_decimal(value):
            return int(value)
        number = _number_in(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _integer_of(field: _Field, value: object) -> int:
    number = _whole_number(value)
    if number is None and isinstance(value, str):
        number = field.enum_names.get(value)
    if isinstance(value, float) and value == -_EXACT_BELOW:
        number = None  # of more digits than a double has, or less than an int64 may be
    if number is None or not field.low <= number <= field.high:
        kind = "an enum's integer" if field.kind == _VARINT and field.high == 2**31 - 1 else "an integer"
        raise _unfit(field, f"{kind} from {field.low} to {field.high}", value)
    return number


class _LargeRequest:
    """A request that is too large to be parsed at once. What is larger than a slice is read member by member."""

    def __init__(self, body: bytes, name: str, rules: Rules, notes: _Notes) -> None:
        self.name: Final = name
        self.notes: Final = notes
        self.size_bytes: Final = len(body)
        self.slices: Final = JsonSlices(body, rules)
        self.text: Final = body
        self.rules: Final = rules

    def to_wire(self, descriptor: Descriptor) -> bytes:
        """Raises NotJson, _Unfit, Malformed."""
        slices = self.slices
        if slices.peek() != _OPENING_BRACE:
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: it must be a JSON object")
        writer = BytesWriter()
        self._put_message(writer, descriptor, 0)
        slices.end()
        return writer.getvalue()

    def _put_message(self, writer: BytesWriter, descriptor: Descriptor, depth: int) -> None:
        """The object that begins at the cursor. Moves behind it."""
        if depth > _DEPTH_MAX:
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: nested too deep")
        slices = self.slices
        fields = _fields_of(descriptor, self.rules.json_forms)
        slices.expect(_OPENING_BRACE)
        if slices.peek() == _CLOSING_BRACE:
            slices.position += 1
            return
        seen: set[str] = set()
        while True:
            key = self._loaded(self._name())
            assert isinstance(key, str)
            field = fields.by_name.get(key)
            if field is None:
                self.notes.skip(fields, key)
            else:
                if key in seen:
                    raise Malformed(INVALID_JSON, f"cannot decode {self.name}: {field.name} occurs twice in one object")
                seen.add(key)
            written: i64 = len(writer)
            try:
                self._put_value(writer, field, depth)
            except _Unfit as unfit:
                if not fields.is_item or not unfit.is_read:
                    raise
                writer.truncate(written)
                put_bytes(writer, UNFIT, bytes((unfit.reason,)) + unfit.message.encode())
            if not slices.goes_on(_CLOSING_BRACE):
                return

    def _put_value(self, writer: BytesWriter, field: _Field | None, depth: int) -> None:
        """The value at the cursor, of a member. `field`: None where it is unknown, and so left out."""
        slices = self.slices
        first: i64 = slices.peek()
        start: i64 = slices.position
        if slices.skip_value(SLICE_BYTES):
            value = self._loaded(self.text[start : slices.position])
            if field is not None and value is not None:
                _put_member(writer, field, value, self.notes)
            self.rules.read(slices.position - start)
        elif field is None:
            self._skip(depth)
        elif field.message is None:
            self._put_large(writer, field, first)
        elif first == _OPENING_BRACE and not field.repeated:
            inner = BytesWriter()
            self._put_message(inner, field.message, depth + 1)
            self._put_bytes(writer, field, inner.getvalue())
        elif first == _OPENING_BRACKET and field.repeated:
            self._put_elements(writer, field, depth)
        else:
            raise _Unfit(f"{field.name} must be {'an array' if field.repeated else 'an object'}", is_read=False)

    def _put_elements(self, writer: BytesWriter, field: _Field, depth: int) -> None:
        """The array of messages that begins at the cursor. Moves behind it."""
        slices = self.slices
        slices.expect(_OPENING_BRACKET)
        assert field.message is not None
        if slices.peek() == _CLOSING_BRACKET:
            slices.position += 1
            return
        while True:
            piece = slices.next_elements()
            if piece:
                elements = self._loaded(piece)
                assert isinstance(elements, list)
                for element in elements:
                    if element is None:
                        self.notes.nulls += 1
                    else:
                        _put_field(writer, field, element, self.notes)
                self.rules.rest()
                if slices.peek() == _CLOSING_BRACKET:
                    slices.position += 1
                    return
                continue
            if slices.peek() != _OPENING_BRACE:
                raise _Unfit(f"{field.name} must hold objects", is_read=False)
            inner = BytesWriter()
            self._put_message(inner, field.message, depth + 1)
            self._put_bytes(writer, field, inner.getvalue())
            if not slices.goes_on(_CLOSING_BRACKET):
                return

    def _put_large(self, writer: BytesWriter, field: _Field, first: i64) -> None:
        """The value at the cursor, which is larger than a slice, of a field that holds no messages."""
        if field.repeated:
            if first != _OPENING_BRACKET:
                raise _Unfit(f"{field.name} must be an array", is_read=False)
            inner = BytesWriter()
            self._put_scalars(inner if field.packed else writer, field)
            if len(inner):
                self._put_bytes(writer, field, inner.getvalue())
        elif field.kind == _TEXT and first == _QUOTE:
            self._put_bytes(writer, field, self._text())
        elif field.kind == _BYTES and first == _QUOTE:
            self._put_bytes(writer, field, self._base64(field))
        else:
            raise _Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes", is_read=False)

    def _put_bytes(self, writer: BytesWriter, field: _Field, content: bytes) -> None:
        """Put what may be as large as the body, between two rests: each of the messages that it is in is a copy."""
        self.rules.rest()
        put_bytes(writer, field.tag, content)
        self.rules.rest()

    def _put_scalars(self, writer: BytesWriter, field: _Field) -> None:
        """The array at the cursor, of texts or numbers. Moves behind it."""
        slices = self.slices
        slices.expect(_OPENING_BRACKET)
        if slices.peek() == _CLOSING_BRACKET:
            slices.position += 1
            return
        while True:
            piece = slices.next_elements()
            if piece:
                elements = self._loaded(piece)
                assert isinstance(elements, list)
                for element in elements:
                    if element is None:
                        self.notes.nulls += 1
                    elif field.packed:
                        _put_scalar(writer, field, element)
                    else:
                        _put_field(writer, field, element, self.notes)
                    self.rules.read(0)
                if slices.peek() == _CLOSING_BRACKET:
                    slices.position += 1
                    return
                continue
            if field.kind != _TEXT or slices.peek() != _QUOTE:
                raise _Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes", is_read=False)
            put_bytes(writer, field.tag, self._text())
            if not slices.goes_on(_CLOSING_BRACKET):
                return

    def _text(self) -> bytes:
        """The string at the cursor. Moves behind it."""
        text = BytesWriter()
        self.slices.open_string()
        while self.slices.is_in_string:
            text.write(self._next_text().encode())
        return text.getvalue()

    def _next_text(self) -> str:
        text = self._loaded(self.slices.next_text())
        assert isinstance(text, str)
        return text

    def _base64(self, field: _Field) -> bytes:
        """Return the bytes that the string at the cursor has in base64. Moves behind it."""
        content = BytesWriter()
        unread = ""
        is_padded = False
        self.slices.open_string()
        while self.slices.is_in_string:
            text = self._next_text()
            digits = text.rstrip("=")
            if "=" in digits or (is_padded and digits):
                raise _Unfit(f"{field.name} must be base64", is_read=False)
            is_padded = is_padded or len(digits) < len(text)
            unread += digits
            whole = len(unread) // 4 * 4
            content.write(_bytes_of(field, unread[:whole]))
            unread = unread[whole:]
        content.write(_bytes_of(field, unread))
        return content.getvalue()

    def _skip(self, depth: int) -> None:
        """Check that the value at the cursor, which is larger than a slice, is JSON. Moves behind it."""
        if depth > _DEPTH_MAX:
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: nested too deep")
        slices = self.slices
        first: i64 = slices.peek()
        if first == _QUOTE:
            slices.open_string()
            while slices.is_in_string:
                self._next_text()
        elif first == _OPENING_BRACKET:
            slices.position += 1
            self._skip_elements(depth)
        elif first == _OPENING_BRACE:
            slices.position += 1
            if slices.peek() == _CLOSING_BRACE:
                slices.position += 1
                return
            while True:
                self._loaded(self._name())
                self._skip_value(depth)
                if not slices.goes_on(_CLOSING_BRACE):
                    return
        else:
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: a number of more than {SLICE_BYTES} bytes")

    def _skip_elements(self, depth: int) -> None:
        """Skip the elements of the array that has been opened. Moves behind it."""
        slices = self.slices
        if slices.peek() == _CLOSING_BRACKET:
            slices.position += 1
            return
        while True:
            piece = slices.next_elements()
            if not piece:
                self._skip(depth + 1)
                if not slices.goes_on(_CLOSING_BRACKET):
                    return
                continue
            self._loaded(piece)
            self.rules.rest()
            if slices.peek() == _CLOSING_BRACKET:
                slices.position += 1
                return

    def _skip_value(self, depth: int) -> None:
        """The value of a member that is unknown. Moves behind it."""
        slices = self.slices
        slices.peek()
        start: i64 = slices.position
        if slices.skip_value(SLICE_BYTES):
            self._loaded(self.text[start : slices.position])
            self.rules.read(slices.position - start)
        else:
            self._skip(depth + 1)

    def _name(self) -> bytes:
        """The name of the next member, in quotes. Moves behind its colon."""
        name = self.slices.name()
        if len(name) > SLICE_BYTES:
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: a member's name has more than {SLICE_BYTES} bytes")
        return name

    def _loaded(self, piece: bytes) -> object:
        try:
            return orjson.loads(piece)
        except orjson.JSONDecodeError as error:
            where = f"{error.msg} before byte {self.slices.position}"
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: {self.size_bytes} bytes, {where}") from None


def _converted(body: bytes, descriptor: Descriptor, rules: Rules, notes: _Notes) -> bytes:
    """Raises Malformed, _Inexact."""
    name = descriptor.name
    try:
        if len(body) > SLICE_BYTES or may_hold_many_containers(body):
            return _LargeRequest(body, name, rules, notes).to_wire(descriptor)
        value = orjson.loads(body)
        if not isinstance(value, dict):
            raise Malformed(INVALID_JSON, f"cannot decode {name}: it must be a JSON object")
        writer = BytesWriter()
        _put_message(writer, _fields_of(descriptor, rules.json_forms), value, notes)
        return writer.getvalue()
    except orjson.JSONDecodeError as error:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {len(body)} bytes, {error}") from None
    except NotJson as found:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {len(body)} bytes, not JSON at byte {found.position}") from None
    except _Unfit as unfit:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {unfit.message}") from None
    except RecursionError:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: nested too deep") from None


def _to_wire(body: bytes, descriptor: Descriptor, rules: Rules) -> bytes:
    check_json_parts(body, rules.request_elements_max, rules)
    notes = _Notes(is_exact=False)
    try:
        wire = _converted(body, descriptor, rules, notes)
    except _Inexact:
        notes = _Notes(is_exact=True)
        wire = _converted(quote_long_integers(body, rules), descriptor, rules, notes)
    except Malformed:
        repaired = repaired_json(body, rules)
        if repaired is body:
            raise
        return _to_wire(repaired, descriptor, rules)
    if notes.nulls:
        rules.repair(NULL_LIST_ENTRY, notes.nulls)
    if notes.unknown:
        rules.unknown_fields = notes.unknown
    if notes.ids:
        rules.repair(ID_DROPPED, notes.ids)
    if notes.integers:
        rules.repair(INTEGER_BEYOND_64_BITS, notes.integers)
    return wire


def metrics_to_wire(body: bytes, rules: Rules = NO_RULES) -> bytes:
    """Return the serialized ExportMetricsServiceRequest that the JSON in `body` describes. Raises Malformed, RequestRefused."""
    return _to_wire(body, ExportMetricsServiceRequest.DESCRIPTOR, rules)


def logs_to_wire(body: bytes, rules: Rules = NO_RULES) -> bytes:
    """Return the serialized ExportLogsServiceRequest that the JSON in `body` describes. Raises Malformed, RequestRefused."""
    return _to_wire(body, ExportLogsServiceRequest.DESCRIPTOR, rules)


def traces_to_wire(body: bytes, rules: Rules = NO_RULES) -> bytes:
    """Return the serialized ExportTraceServiceRequest that the JSON in `body` describes. Raises Malformed, RequestRefused."""
    return _to_wire(body, ExportTraceServiceRequest.DESCRIPTOR, rules)
