"""Convert an AnyValue to its text in the normal form: an integer in decimal, true or false, a double in shortest round-trip
form (NaN, Infinity, -Infinity), bytes in base64, and arrays and key-value lists as JSON.
"""

from base64 import b64encode
from typing import Final

from librt.strings import BytesWriter, read_f64_le
from mypy_extensions import i64

from adapters.codec.text import text_within
from adapters.codec.wire import Cursor, field_size, put_bytes, put_varint
from adapters.otlp.any_value_json import JsonWriter, non_finite_text
from adapters.otlp.any_value_tags import ARRAY, BOOL, BYTES, DOUBLE, INT, KVLIST, STRING
from adapters.rules import Rules

# A limit that no text exceeds.
_ALL: Final = 1 << 60


def put_string_value(writer: BytesWriter, text: bytes) -> None:
    """Write an AnyValue that holds a string, with its length before it."""
    put_varint(writer, field_size(len(text)))
    put_bytes(writer, STRING, text)


def text_of(cursor: Cursor, start: i64, end: i64, rules: Rules) -> bytes:
    """Return the text of a checked AnyValue in the normal form. Rest as `rules` say."""
    cursor.position = start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        if tag == STRING:
            return cursor.buffer[cursor.start : cursor.position]
        if tag == INT:
            return str(int(cursor.value)).encode()
        if tag == BOOL:
            return b"true" if cursor.value else b"false"
        if tag == DOUBLE:
            return double_text(read_f64_le(cursor.buffer, cursor.start)).encode()
        if tag == BYTES:
            return b64encode(cursor.buffer[cursor.start : cursor.position])
        if tag == ARRAY or tag == KVLIST:
            return _json_of(cursor, start, end, _ALL, rules)
    return b""


def beginning_of(cursor: Cursor, start: i64, end: i64, bytes_max: i64, rules: Rules) -> bytes:
    """Return the beginning of the text of bytes, an array or a key-value list: at most `bytes_max`, and whole characters.

    Only the necessary part of the value is read, so a repetition of a key behind that part has no effect.
    """
    cursor.position = start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        text = b""
        if tag == BYTES:
            text = b64encode(cursor.buffer[cursor.start : min(cursor.position, cursor.start + bytes_max)])
        elif tag == ARRAY or tag == KVLIST:
            text = _json_of(cursor, start, end, bytes_max, rules)
        else:
            continue
        return text_within(text, bytes_max) if len(text) > bytes_max else text
    return b""


def double_text(value: float) -> str:
    """Return the shortest text that reads back as the same double; NaN and infinities as OTLP/JSON writes them."""
    return repr(value) if value - value == 0.0 else non_finite_text(value).decode()


def _json_of(cursor: Cursor, start: i64, end: i64, bytes_max: i64, rules: Rules) -> bytes:
    json = JsonWriter(cursor, rules, bytes_max)
    json.put(start, end)
    return json.writer.getvalue()
