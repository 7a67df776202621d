"""Convert values of OTLP/JSON, as Python objects, to OTLP/protobuf.

This module decides what is accepted, repaired and rejected, and with which message. adapters/otlp/json_large.py reads bodies.
Plain bodies are converted without objects (adapters/otlp/json_scan.py), to the same bytes.
"""

import re
from decimal import Decimal
from math import isinf
from typing import Final

import orjson
from librt.strings import BytesWriter, write_f64_le, write_i32_le, write_i64_le
from mypy_extensions import i64

from adapters.codec.json_numbers import is_whole
from adapters.codec.json_reader import BEYOND_A_DOUBLE
from adapters.codec.wire import put_bytes, put_signed_varint, put_varint
from adapters.otlp.json_bytes import BYTE_MAX, bytes_in_other_form, bytes_of
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
from adapters.otlp.json_notes import Inexact, Notes, Unfit

_INTEGER_DIGITS_MAX: Final = 20
# A double of at least this size may have been an integer of more digits: a parser makes doubles of integers beyond 64 bits.
_EXACT_BELOW: Final = 2.0**63
STRING_VALUE_TAG: Final = 0x0A  # a field of an AnyValue
# A number of JSON: RFC 8259, 6.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def put_message(writer: BytesWriter, fields: Fields, value: dict[str, object], notes: Notes) -> bool:
    """Write the fields of a message. A misfit in an item rejects the item; a misfit in an envelope is left out. Return whether
    the message is complete; if it is not, a misfit is noted."""
    by_name = fields.by_name
    if fields.is_item:
        # A log record, a span or a point.
        for key, entry in value.items():
            field = by_name.get(key)
            if field is not None and entry is not None:
                start: i64 = len(writer)
                if not put_member(writer, field, entry, notes):
                    writer.truncate(start)
                    writer.write(notes.rejection())
        return True
    if fields.is_metric:
        notes.begin_metric()
    for key, entry in value.items():
        field = by_name.get(key)
        if field is None:
            notes.skip(fields, key)
            continue
        notes.lists += field.holds_items
        if entry is not None and not put_member_of(writer, fields, field, entry, notes):
            return False
    if fields.is_metric:
        notes.end_metric(writer)
    return True


def put_member_of(writer: BytesWriter, fields: Fields, field: Field, entry: object, notes: Notes) -> bool:
    """Write a field of a message that is not an item. A value or an element that does not fit an envelope is left out."""
    start: i64 = len(writer)
    if isinstance(entry, list) and field.kind == MESSAGE and field.repeated and (fields.is_envelope or fields.is_request):
        for element in entry:
            if element is None:
                notes.nulls += 1
            else:
                put_element(writer, fields, field, element, notes)
        return True
    if put_member(writer, field, entry, notes):
        notes.has_data = notes.has_data or (field.is_metric_data and bool(entry))
        return True
    if not fields.is_envelope:
        return False
    writer.truncate(start)
    put_unfit(writer, fields, field, notes, is_empty=_is_empty(entry))
    return True


def put_element(writer: BytesWriter, fields: Fields, field: Field, element: object, notes: Notes) -> None:
    """Write an element of an envelope's list. If it must be an item and does not fit, it becomes a rejected item."""
    start: i64 = len(writer)
    if put_field(writer, field, element, notes):
        return
    writer.truncate(start)
    put_unfit_element(writer, fields, field, notes, is_empty=_is_empty(element))


def _is_empty(value: object) -> bool:
    """Return whether a value is empty, so that it can't hold items: some languages write an empty list as an empty object,
    others an empty object as an empty list."""
    return isinstance(value, (dict, list, str)) and not value


def put_unfit_element(
    writer: BytesWriter, fields: Fields, field: Field, notes: Notes, unfit: Unfit | None = None, *, is_empty: bool = False
) -> None:
    """Do what `put_unfit` does, for an element of a list. If the element should be an item, it has been counted already."""
    if field.is_item:
        put_bytes(writer, field.tag, notes.rejection(unfit))
    else:
        put_unfit(writer, fields, field, notes, unfit, is_empty=is_empty)


def put_unfit(
    writer: BytesWriter, fields: Fields, field: Field, notes: Notes, unfit: Unfit | None = None, *, is_empty: bool = False
) -> None:
    """Replace a value that does not fit an envelope, because of `unfit` or the misfit that was noted last. If the value would
    hold items, write a rejected item, or else nothing."""
    if is_empty or not field.holds_items:
        notes.leave_out()
    elif field.is_metric_data:
        # Written at the end of the metric, if that has no other data; as a gauge, which needs nothing but its points.
        if not notes.lost_data:
            lost = BytesWriter()
            _put_rejected_item(lost, fields.holder or field, notes, unfit)
            notes.lost_data = lost.getvalue()
    else:
        _put_rejected_item(writer, field, notes, unfit)


def _put_rejected_item(writer: BytesWriter, field: Field, notes: Notes, unfit: Unfit | None) -> None:
    """Write a rejected item, with the messages around it that an item in this field has."""
    if field.is_item:
        notes.count_item()
        put_bytes(writer, field.tag, notes.rejection(unfit))
        return
    holder = field.fields().holder
    assert holder is not None
    inner = BytesWriter()
    _put_rejected_item(inner, holder, notes, unfit)
    put_bytes(writer, field.tag, inner.getvalue())


def put_member(writer: BytesWriter, field: Field, entry: object, notes: Notes) -> bool:
    """Write a field with all of its values. Return False if one does not fit, which is noted.

    Languages that have one kind of table for both, like Lua and PHP, write an empty list as an object, or an empty object as a
    list.
    """
    if not field.repeated:
        if field.kind == MESSAGE and isinstance(entry, list) and not entry:
            entry = {}
        return put_field(writer, field, entry, notes)
    if isinstance(entry, dict) and not entry:
        return True
    if not isinstance(entry, list):
        if field.is_exemplar:
            notes.put_unfit_exemplar(writer, field)
            return True
        return notes.refuse(field, "an array", entry)
    if field.packed:
        inner = BytesWriter()
        for element in entry:
            if element is None:
                notes.nulls += 1
            elif not put_scalar(inner, field, element, notes):
                return False
        if len(inner):  # a packed list without elements is not written
            put_bytes(writer, field.tag, inner.getvalue())
        return True
    for element in entry:
        if element is None:
            notes.nulls += 1
        elif not put_field(writer, field, element, notes):
            if not field.is_exemplar:
                return False
            notes.put_unfit_exemplar(writer, field)
    return True


def put_field(writer: BytesWriter, field: Field, value: object, notes: Notes) -> bool:
    """Write a field that is not packed, with its tag. Return False if the value does not fit, which is noted."""
    kind = field.kind
    if kind == MESSAGE:
        if field.is_item:
            notes.count_item()
        if not isinstance(value, dict):
            return notes.refuse(field, "an object", value)
        inner = BytesWriter()
        if not put_message(inner, field.fields(), value, notes):
            return False
        put_bytes(writer, field.tag, inner.getvalue())
        return True
    if kind == TEXT:
        if not isinstance(value, str):
            return notes.refuse(field, "a string", value)
        put_bytes(writer, field.tag, value.encode())
        return True
    if kind == HEX or kind == BYTES:
        content = bytes_of(field, value)
        if content is not None:
            put_bytes(writer, field.tag, content)
            return True
        content = bytes_in_other_form(field, value)
        if content is not None:
            notes.forms += 1
            put_bytes(writer, field.tag, content)
            return True
        if kind == HEX and not field.is_required_id:  # any value that is not an id is left out
            notes.ids += 1
            notes.rules.read(0)
            return True
        expected = "hex" if kind == HEX else "base64"
        if isinstance(value, (list, dict)):
            expected += f", or {field.id_bytes} numbers" if kind == HEX else ", or numbers"
            expected += f" from 0 to {BYTE_MAX}"
        return notes.refuse(field, expected, value)
    if field.is_attribute_integer:
        return _put_attribute_integer(writer, field, value, notes)
    start: i64 = len(writer)
    put_varint(writer, field.tag)
    fits = put_scalar(writer, field, value, notes)
    if field.is_temporality:
        drop_zero(writer, start)
    return fits


def drop_zero(writer: BytesWriter, start: i64) -> None:
    """Remove the field that was written from `start` on, with a tag of one byte, if it is 0, which is its default."""
    if len(writer) == start + 2 and writer[start + 1] == 0:
        writer.truncate(start)


def _put_attribute_integer(writer: BytesWriter, field: Field, value: object, notes: Notes) -> bool:
    """Write an AnyValue's integer, or its decimal text if it is beyond 64 bits. Return False if the value does not fit."""
    number = _whole_number(value)
    if isinstance(value, float) and not notes.is_exact and not -_EXACT_BELOW < value < _EXACT_BELOW:
        raise Inexact
    if number is not None and field.low <= number <= field.high:
        put_varint(writer, field.tag)
        signed: i64 = number
        put_signed_varint(writer, signed)
        return True
    text = ""
    if isinstance(value, str):
        text = _decimal_text(value)
    elif number is not None:
        text = _decimal_text(repr(value))
    if not text:
        return notes.refuse(field, f"an integer from {field.low} to {field.high}", value)
    notes.integers += 1
    put_bytes(writer, STRING_VALUE_TAG, text.encode())
    return True


def put_scalar(writer: BytesWriter, field: Field, value: object, notes: Notes) -> bool:
    """Write a number or a boolean, without a tag. Return False if the value does not fit, which is noted."""
    kind = field.kind
    if kind == DOUBLE:
        double = _double_of(value)
        if double is None:
            return notes.refuse(field, "a number", value)
        write_f64_le(writer, double)
        return True
    if kind == BOOL:
        if not isinstance(value, bool):
            return notes.refuse(field, "true or false", value)
        writer.append(1 if value else 0)
        return True
    number = _integer_of(field, value)
    if number is None:
        kinds = "an integer"
        if field.kind == VARINT and field.high == 2**31 - 1:
            kinds = "an enum's name, or an integer" if field.enum_names else "an enum's integer"
        return notes.refuse(field, f"{kinds} from {field.low} to {field.high}", value)
    signed: i64 = number if number < 2**63 else number - 2**64
    if kind == FIXED64:
        write_i64_le(writer, signed)
    elif kind == FIXED32:
        write_i32_le(writer, number if number < 2**31 else number - 2**32)
    elif kind == ZIGZAG:
        put_varint(writer, signed * 2 if signed >= 0 else -signed * 2 - 1)
    else:
        put_signed_varint(writer, signed)
    return True


def _double_of(value: object) -> float | None:
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        if value == "NaN" or value == "Infinity" or value == "-Infinity":
            return float(value)
        return _number_in(value)
    return None


def _number_in(text: str) -> float | None:
    """Return the JSON number in a string; None if it is not a number, or beyond a double."""
    if _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return None if isinf(number) else number


def _whole_number(value: object) -> int | None:
    """Return a value's integer, from a number or the text of a number; None if it is not an integer."""
    number = value
    if isinstance(value, str):
        if is_whole(value):
            return int(value) if len(value) <= _INTEGER_DIGITS_MAX else None
        number = _number_in(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _decimal_text(text: str) -> str:
    """Return all digits of the integer that a text is as a JSON number, with an exponent too (JavaScript writes 1e+21). Return
    an empty text if it is not an integer, or is beyond a double and has an exponent."""
    if is_whole(text):
        return text
    if _number_in(text) is None:
        return ""
    number = Decimal(text)
    whole = number.to_integral_value()
    return f"{whole:f}" if whole == number else ""


def _integer_of(field: Field, value: object) -> int | None:
    number = field.enum_names.get(value) if isinstance(value, str) else None
    if number is None:
        number = _whole_number(value)
    if isinstance(value, float) and value == -_EXACT_BELOW:
        return None  # the integer may have been below int64: a double does not have enough digits
    return number if number is not None and field.low <= number <= field.high else None


def check_number(error: orjson.JSONDecodeError, notes: Notes) -> None:
    """Raise Inexact if the parser refused a number beyond a double, since the text may otherwise be JSON."""
    if not notes.is_exact and BEYOND_A_DOUBLE in error.msg:
        raise Inexact
