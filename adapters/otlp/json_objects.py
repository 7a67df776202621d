"""Convert any OTLP/JSON to OTLP/protobuf, by a parser that makes Python objects of it.

It says what is accepted, repaired and rejected, and in which words. What is plain is read without objects
(adapters/otlp/json_scan.py), to the same bytes.
"""

import binascii
from typing import Final

import orjson
from google.protobuf.descriptor import Descriptor
from librt.strings import BytesWriter, write_f64_le, write_i32_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.json_reader import SLICE_BYTES, JsonSlices, NotJson, may_hold_many_containers
from adapters.codec.text import quoted
from adapters.codec.wire import put_bytes, put_signed_varint, put_varint
from adapters.errors import INVALID_JSON, INVALID_RECORD, Malformed
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
    fields_of,
)
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
_QUOTE: Final = 0x22
_OPENING_BRACE: Final = 0x7B
_CLOSING_BRACE: Final = 0x7D
_OPENING_BRACKET: Final = 0x5B
_CLOSING_BRACKET: Final = 0x5D
# Of objects that are larger than a slice, in each other.
_DEPTH_MAX: Final = 100
_SHOWN_CHARACTERS_MAX: Final = 40
_STRING_VALUE_TAG: Final = 0x0A  # of an AnyValue
# What a value that does not fit takes beside its bytes: about 7 us, for its message and an exception.
_UNFIT_COST_BYTES: Final = 2 << 10
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
            _put_member_of(writer, fields, field, entry, notes)


def _put_member_of(writer: BytesWriter, fields: Fields, field: Field, entry: object, notes: Notes) -> None:
    """A field of a message that is no item. What does not fit an envelope is left out: a value, or an element."""
    start: i64 = len(writer)
    if isinstance(entry, list) and field.kind == MESSAGE and field.repeated and (fields.is_envelope or fields.is_request):
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                _put_element(writer, field, element, notes)
    elif fields.is_envelope:
        try:
            put_member(writer, field, entry, notes)
        except Unfit:
            writer.truncate(start)
            notes.left_out += 1
            notes.rules.read(_UNFIT_COST_BYTES)
    else:
        put_member(writer, field, entry, notes)


def _put_element(writer: BytesWriter, field: Field, element: object, notes: Notes) -> None:
    """An element of an envelope's list. What is no item, where one must be, is one that is rejected."""
    start: i64 = len(writer)
    try:
        put_field(writer, field, element, notes)
    except Unfit as unfit:
        writer.truncate(start)
        notes.rules.read(_UNFIT_COST_BYTES)
        if field.fields().is_item:
            put_bytes(writer, field.tag, _rejection(unfit))
        else:
            notes.left_out += 1


def _rejection(unfit: Unfit) -> bytes:
    """What an item has that is to be rejected."""
    writer = BytesWriter()
    put_bytes(writer, UNFIT, bytes((unfit.reason,)) + unfit.message.encode())
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
                writer.write(_rejection(unfit))
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
            put_bytes(writer, field.tag, _bytes_of(field, value))
        except Unfit:
            notes.ids += 1
            notes.rules.read(_UNFIT_COST_BYTES)
    elif kind == HEX or kind == BYTES:
        put_bytes(writer, field.tag, _bytes_of(field, value))
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


def _bytes_of(field: Field, value: object) -> bytes:
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


class LargeRequest:
    """A request that is too large to be parsed at once. What is larger than a slice is read member by member."""

    def __init__(self, body: bytes, name: str, rules: Rules, notes: Notes) -> None:
        self.name: Final = name
        self.notes: Final = notes
        self.size_bytes: Final = len(body)
        self.slices: Final = JsonSlices(body, rules)
        self.text: Final = body
        self.rules: Final = rules

    def to_wire(self, descriptor: Descriptor) -> bytes:
        """Raises NotJson, Unfit, Malformed."""
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
        fields = fields_of(descriptor, self.rules.json_forms)
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
                if not fields.is_item:
                    self.notes.skip(fields, key)
            else:
                if key in seen:
                    raise Malformed(INVALID_JSON, f"cannot decode {self.name}: {field.name} occurs twice in one object")
                seen.add(key)
            written: i64 = len(writer)
            try:
                self._put_value(writer, fields, field, depth)
            except Unfit as unfit:
                if not unfit.is_read or not (fields.is_item or fields.is_envelope):
                    unfit.is_read = False  # the cursor is within this object
                    raise
                writer.truncate(written)
                if fields.is_item:
                    writer.write(_rejection(unfit))
                else:
                    self.notes.left_out += 1
            if not slices.goes_on(_CLOSING_BRACE):
                return

    def _put_value(self, writer: BytesWriter, fields: Fields, field: Field | None, depth: int) -> None:
        """The value at the cursor, a member's of a message with `fields`. `field`: None where it is unknown."""
        slices = self.slices
        first: i64 = slices.peek()
        start: i64 = slices.position
        if slices.skip_value(SLICE_BYTES):
            value = self._loaded(self.text[start : slices.position])
            if field is not None and value is not None:
                if fields.is_item:
                    put_member(writer, field, value, self.notes)
                else:
                    _put_member_of(writer, fields, field, value, self.notes)
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
            self._put_elements(writer, fields, field, depth)
        else:
            raise Unfit(f"{field.name} must be {'an array' if field.repeated else 'an object'}", is_read=False)

    def _put_elements(self, writer: BytesWriter, fields: Fields, field: Field, depth: int) -> None:
        """The array of messages that begins at the cursor. Moves behind it."""
        slices = self.slices
        is_lenient = fields.is_envelope or fields.is_request
        unfit: Unfit | None = None
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
                    elif is_lenient:
                        _put_element(writer, field, element, self.notes)
                    elif unfit is None:  # else the item is rejected, and the rest only read
                        try:
                            put_field(writer, field, element, self.notes)
                        except Unfit as found:
                            unfit = found
                self.rules.rest()
                if slices.peek() == _CLOSING_BRACKET:
                    slices.position += 1
                    break
                continue
            if slices.peek() != _OPENING_BRACE:
                raise Unfit(f"{field.name} must hold objects", is_read=False)
            inner = BytesWriter()
            self._put_message(inner, field.message, depth + 1)
            self._put_bytes(writer, field, inner.getvalue())
            if not slices.goes_on(_CLOSING_BRACKET):
                break
        if unfit is not None:
            raise unfit

    def _put_large(self, writer: BytesWriter, field: Field, first: i64) -> None:
        """The value at the cursor, which is larger than a slice, of a field that holds no messages."""
        if field.repeated:
            if first != _OPENING_BRACKET:
                raise Unfit(f"{field.name} must be an array", is_read=False)
            inner = BytesWriter()
            self._put_scalars(inner if field.packed else writer, field)
            if len(inner):
                self._put_bytes(writer, field, inner.getvalue())
        elif field.kind == TEXT and first == _QUOTE:
            self._put_bytes(writer, field, self._text())
        elif field.kind == BYTES and first == _QUOTE:
            self._put_bytes(writer, field, self._base64(field))
        else:
            raise Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes", is_read=False)

    def _put_bytes(self, writer: BytesWriter, field: Field, content: bytes) -> None:
        """Put what may be as large as the body, between two rests: each of the messages that it is in is a copy."""
        self.rules.rest()
        put_bytes(writer, field.tag, content)
        self.rules.rest()

    def _put_scalars(self, writer: BytesWriter, field: Field) -> None:
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
                        put_scalar(writer, field, element)
                    else:
                        put_field(writer, field, element, self.notes)
                    self.rules.read(0)
                if slices.peek() == _CLOSING_BRACKET:
                    slices.position += 1
                    return
                continue
            if field.kind != TEXT or slices.peek() != _QUOTE:
                raise Unfit(f"{field.name} has a value of more than {SLICE_BYTES} bytes", is_read=False)
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

    def _base64(self, field: Field) -> bytes:
        """Return the bytes that the string at the cursor has in base64. Moves behind it."""
        content = BytesWriter()
        unread = ""
        is_padded = False
        self.slices.open_string()
        while self.slices.is_in_string:
            text = self._next_text()
            digits = text.rstrip("=")
            if "=" in digits or (is_padded and digits):
                raise Unfit(f"{field.name} must be base64", is_read=False)
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
            _check_number(error, self.notes)
            where = f"{error.msg} before byte {self.slices.position}"
            raise Malformed(INVALID_JSON, f"cannot decode {self.name}: {self.size_bytes} bytes, {where}") from None


def _check_number(error: orjson.JSONDecodeError, notes: Notes) -> None:
    """Raise Inexact where the text may be JSON but for a number that the parser refuses: one beyond a double."""
    if not notes.is_exact and _BEYOND_A_DOUBLE in error.msg:
        raise Inexact


def converted(body: bytes, descriptor: Descriptor, rules: Rules, notes: Notes) -> bytes:
    """Raises Malformed, Inexact."""
    name = descriptor.name
    try:
        if len(body) > SLICE_BYTES or may_hold_many_containers(body):
            return LargeRequest(body, name, rules, notes).to_wire(descriptor)
        value = orjson.loads(body)
        if not isinstance(value, dict):
            raise Malformed(INVALID_JSON, f"cannot decode {name}: it must be a JSON object")
        writer = BytesWriter()
        put_message(writer, fields_of(descriptor, rules.json_forms), value, notes)
        return writer.getvalue()
    except orjson.JSONDecodeError as error:
        _check_number(error, notes)
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {len(body)} bytes, {error}") from None
    except NotJson as found:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {len(body)} bytes, not JSON at byte {found.position}") from None
    except Unfit as unfit:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: {unfit.message}") from None
    except RecursionError:
        raise Malformed(INVALID_JSON, f"cannot decode {name}: nested too deep") from None
