"""What a value of OTLP/JSON, as a Python object, becomes in OTLP/protobuf.

It says what is accepted, repaired and rejected, and in which words. Bodies are read by adapters/otlp/json_large.py. What is
plain is read without objects (adapters/otlp/json_scan.py), to the same bytes.
"""

import binascii
from typing import Final

import orjson
from librt.strings import BytesWriter, write_f64_le, write_i32_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.text import quoted
from adapters.codec.wire import put_bytes, put_signed_varint, put_varint
from adapters.errors import INVALID_RECORD
from adapters.otlp.field_tables import UNFIT
from adapters.otlp.json_fields import (
    BOOL,
    BYTES,
    DOUBLE,
    FIXED32,
    FIXED64,
    HEX,
    MESSAGE,
    TEXT,
    VARINT,
    ZIGZAG,
    Field,
    Fields,
)
from adapters.record import REJECTIONS_KEPT_MAX
from adapters.rules import Rules

_UNKNOWN_TOLD_MAX: Final = 5
_HINTS: Final = {
    **dict.fromkeys(("resourceSpans", "resource_spans"), ", which is for /v1/traces"),
    **dict.fromkeys(("resourceLogs", "resource_logs"), ", which is for /v1/logs"),
    **dict.fromkeys(("resourceMetrics", "resource_metrics"), ", which is for /v1/metrics"),
    **dict.fromkeys(("instrumentationLibrarySpans", "instrumentation_library_spans"), ": OTLP 1.0 has scopeSpans"),
    **dict.fromkeys(("instrumentationLibraryLogs", "instrumentation_library_logs"), ": OTLP 1.0 has scopeLogs"),
    **dict.fromkeys(("instrumentationLibraryMetrics", "instrumentation_library_metrics"), ": OTLP 1.0 has scopeMetrics"),
}
_INTEGER_DIGITS_MAX: Final = 20
# A parser makes doubles of integers from here on.
_EXACT_BELOW: Final = 2.0**63
_SHOWN_CHARACTERS_MAX: Final = 40
_STRING_VALUE_TAG: Final = 0x0A  # of an AnyValue
# What a value that does not fit takes beside its bytes: about 7 us, for its message and an exception.
_UNFIT_COST_BYTES: Final = 2 << 10
# An item has at most 16 fields, and the first of them that does not fit says why.
_UNFIT_WITH_WORDS_MAX: Final = 16 * REJECTIONS_KEPT_MAX
_BEYOND_A_DOUBLE: Final = "number is infinity"  # in orjson's words


class Notes:
    """What is repaired of one body while it is read."""

    def __init__(self, rules: Rules, *, is_exact: bool) -> None:
        """`is_exact`: long numbers are in quotes, so that none has lost digits."""
        self.rules: Final = rules
        self.is_exact: Final = is_exact
        self.nulls: int = 0
        self.integers: int = 0
        self.ids: int = 0
        self.left_out: int = 0
        # Values, each of an item that is to be rejected.
        self.unfit: int = 0
        # The first fields that no message has: reported if nothing was taken.
        self.unknown: Final[list[str]] = []

    def skip(self, fields: Fields, name: str) -> None:
        """Note a field that is unknown."""
        if len(self.unknown) < _UNKNOWN_TOLD_MAX:
            self.unknown.append(f"{fields.name} has no field {quoted(name)}{_HINTS.get(name, '')}")


class Unfit(Exception):
    """A value that its field can't hold."""

    def __init__(self, message: str, reason: int = INVALID_RECORD, *, is_read: bool = True) -> None:
        """`is_read`: the cursor, if there is one, is behind the value."""
        super().__init__(message)
        self.message: str = message
        self.reason: int = reason
        self.is_read: bool = is_read


class Inexact(Exception):
    """A number was met that the parser can't hold, and its digits are to be read."""


def _unfit(field: Field, wanted: str, value: object) -> Unfit:
    shown = orjson.dumps(value).decode()
    if len(shown) > _SHOWN_CHARACTERS_MAX:
        shown = shown[:_SHOWN_CHARACTERS_MAX] + "…"
    return Unfit(f"{field.name} must be {wanted}; got {shown}", field.reason)


def put_message(writer: BytesWriter, fields: Fields, value: dict[str, object], notes: Notes) -> None:
    if fields.is_item:
        _put_item(writer, fields, value, notes)
        return
    by_name = fields.by_name
    for key, entry in value.items():
        field = by_name.get(key)
        if field is None:
            notes.skip(fields, key)
        elif entry is not None:
            put_member_of(writer, fields, field, entry, notes)


def put_member_of(writer: BytesWriter, fields: Fields, field: Field, entry: object, notes: Notes) -> None:
    """A field of a message that is no item. What does not fit an envelope is left out: a value, or an element."""
    start: i64 = len(writer)
    if isinstance(entry, list) and field.kind == MESSAGE and field.repeated and (fields.is_envelope or fields.is_request):
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                put_element(writer, field, element, notes)
    elif fields.is_envelope:
        try:
            put_member(writer, field, entry, notes)
        except Unfit:
            writer.truncate(start)
            notes.left_out += 1
            notes.rules.read(_UNFIT_COST_BYTES)
    else:
        put_member(writer, field, entry, notes)


def put_element(writer: BytesWriter, field: Field, element: object, notes: Notes) -> None:
    """An element of an envelope's list. What is no item, where one must be, is one that is rejected."""
    start: i64 = len(writer)
    try:
        put_field(writer, field, element, notes)
    except Unfit as unfit:
        writer.truncate(start)
        notes.rules.read(_UNFIT_COST_BYTES)
        if field.fields().is_item:
            put_bytes(writer, field.tag, rejection(unfit, notes))
        else:
            notes.left_out += 1


def rejection(unfit: Unfit, notes: Notes) -> bytes:
    """What an item has that is to be rejected. The reason in words follows as long as it may be kept: of millions of items of
    two bytes, the words are thirty times as much."""
    notes.unfit += 1
    words = unfit.message.encode() if notes.unfit <= _UNFIT_WITH_WORDS_MAX else b""
    writer = BytesWriter()
    put_bytes(writer, UNFIT, bytes((unfit.reason,)) + words)
    return writer.getvalue()


def _put_item(writer: BytesWriter, fields: Fields, value: dict[str, object], notes: Notes) -> None:
    """A log record, a span or a point."""
    by_name = fields.by_name
    for key, entry in value.items():
        field = by_name.get(key)
        if field is not None and entry is not None:
            start: i64 = len(writer)
            try:
                put_member(writer, field, entry, notes)
            except Unfit as unfit:
                writer.truncate(start)
                writer.write(rejection(unfit, notes))
                notes.rules.read(_UNFIT_COST_BYTES)


def put_member(writer: BytesWriter, field: Field, entry: object, notes: Notes) -> None:
    """A field with all of its values."""
    if not field.repeated:
        put_field(writer, field, entry, notes)
    elif not isinstance(entry, list):
        raise _unfit(field, "an array", entry)
    elif field.packed:
        inner = BytesWriter()
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                put_scalar(inner, field, element)
        if len(inner):  # a packed list without elements is none
            put_bytes(writer, field.tag, inner.getvalue())
    else:
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                put_field(writer, field, element, notes)


def put_field(writer: BytesWriter, field: Field, value: object, notes: Notes) -> None:
    """A field that is not packed, tag and all."""
    kind = field.kind
    if kind == MESSAGE:
        if not isinstance(value, dict):
            raise _unfit(field, "an object", value)
        inner = BytesWriter()
        put_message(inner, field.fields(), value, notes)
        put_bytes(writer, field.tag, inner.getvalue())
    elif kind == TEXT:
        if not isinstance(value, str):
            raise _unfit(field, "a string", value)
        put_bytes(writer, field.tag, value.encode())
    elif kind == HEX and isinstance(value, str) and not field.is_required_id:
        try:
            put_bytes(writer, field.tag, bytes_of(field, value))
        except Unfit:
            notes.ids += 1
            notes.rules.read(_UNFIT_COST_BYTES)
    elif kind == HEX or kind == BYTES:
        put_bytes(writer, field.tag, bytes_of(field, value))
    elif field.is_attribute_integer:
        _put_attribute_integer(writer, field, value, notes)
    else:
        start: i64 = len(writer)
        put_varint(writer, field.tag)
        try:
            put_scalar(writer, field, value)
        except Unfit:
            writer.truncate(start)
            raise


def _put_attribute_integer(writer: BytesWriter, field: Field, value: object, notes: Notes) -> None:
    """An AnyValue's integer; beyond 64 bits, its decimal text."""
    number = _whole_number(value)
    if isinstance(value, float) and not notes.is_exact and not -_EXACT_BELOW < value < _EXACT_BELOW:
        raise Inexact
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


def bytes_of(field: Field, value: object) -> bytes:
    wanted = "hex" if field.kind == HEX else "base64"
    if not isinstance(value, str):
        raise _unfit(field, wanted, value)
    try:
        if field.kind == HEX:
            return binascii.unhexlify(value)
        # Either alphabet, padded or not, as protobuf's JSON mapping has it.
        standard = value.replace("-", "+").replace("_", "/").rstrip("=")
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise _unfit(field, wanted, value) from None


def put_scalar(writer: BytesWriter, field: Field, value: object) -> None:
    kind = field.kind
    if kind == DOUBLE:
        write_f64_le(writer, _double_of(field, value))
        return
    if kind == BOOL:
        if not isinstance(value, bool):
            raise _unfit(field, "true or false", value)
        writer.append(1 if value else 0)
        return
    number = _integer_of(field, value)
    signed: i64 = number if number < 2**63 else number - 2**64
    if kind == FIXED64:
        write_i64_le(writer, signed)
    elif kind == FIXED32:
        write_i32_le(writer, number if number < 2**31 else number - 2**32)
    elif kind == ZIGZAG:
        put_varint(writer, signed * 2 if signed >= 0 else -signed * 2 - 1)
    else:
        put_signed_varint(writer, signed)


def _double_of(field: Field, value: object) -> float:
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


def _integer_of(field: Field, value: object) -> int:
    number = _whole_number(value)
    if number is None and isinstance(value, str):
        number = field.enum_names.get(value)
    if isinstance(value, float) and value == -_EXACT_BELOW:
        number = None  # of more digits than a double has, or less than an int64 may be
    if number is None or not field.low <= number <= field.high:
        kind = "an integer"
        if field.kind == VARINT and field.high == 2**31 - 1:
            kind = "an enum's name, or an integer" if field.enum_names else "an enum's integer"
        raise _unfit(field, f"{kind} from {field.low} to {field.high}", value)
    return number


def check_number(error: orjson.JSONDecodeError, notes: Notes) -> None:
    """Raise Inexact where the text may be JSON but for a number that the parser refuses: one beyond a double."""
    if not notes.is_exact and _BEYOND_A_DOUBLE in error.msg:
        raise Inexact
