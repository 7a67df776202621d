"""Convert an AnyValue to its text in the normal form: an integer in decimal, true or false, a double in shortest round-trip
form (NaN, Infinity, -Infinity), bytes in base64, and arrays and key-value lists as JSON.
"""

from base64 import b64encode
from json.encoder import encode_basestring
from typing import Final

from librt.strings import BytesWriter, read_f64_le
from mypy_extensions import i64

from adapters.codec.text import text_within
from adapters.codec.wire import Cursor, put_bytes

# Fields of a KeyValue.
KEY: Final = 0x0A
VALUE: Final = 0x12
# Fields of an AnyValue.
STRING: Final = 0x0A
BOOL: Final = 0x10
INT: Final = 0x18
DOUBLE: Final = 0x21
ARRAY: Final = 0x2A
KVLIST: Final = 0x32
BYTES: Final = 0x3A
STRINDEX: Final = 0x40
KEY_STRINDEX: Final = 0x18  # of a KeyValue
# A limit that no text exceeds.
_ALL: Final = 1 << 60


def string_value(text: bytes) -> bytes:
    """Return an AnyValue that holds a string."""
    writer = BytesWriter()
    put_bytes(writer, STRING, text)
    return writer.getvalue()


def text_of(cursor: Cursor, start: i64, end: i64) -> bytes:
    """Return the text of a checked AnyValue in the normal form."""
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
            return _json_of(cursor, start, end, _ALL).encode()
    return b""


def beginning_of(cursor: Cursor, start: i64, end: i64, bytes_max: i64) -> bytes:
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
            text = _json_of(cursor, start, end, bytes_max).encode()
        else:
            continue
        return text_within(text, bytes_max) if len(text) > bytes_max else text
    return b""


def double_text(value: float) -> str:
    """Return the shortest text that reads back as the same double; NaN and infinities as OTLP/JSON writes them."""
    if value != value:
        return "NaN"
    if value == float("inf"):
        return "Infinity"
    if value == float("-inf"):
        return "-Infinity"
    return repr(value)


def _json_of(cursor: Cursor, start: i64, end: i64, room: i64) -> str:
    """Return a checked AnyValue as compact JSON. An empty value is null, and NaN and infinities are strings.

    If the JSON is longer than `room`, return a text that has the same beginning, and is also longer.
    """
    cursor.position = start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        first: i64 = cursor.start
        after: i64 = cursor.position
        if tag == STRING:
            return _json_text(cursor, first, after, room)
        if tag == INT:
            return str(int(cursor.value))
        if tag == BOOL:
            return "true" if cursor.value else "false"
        if tag == DOUBLE:
            value = read_f64_le(cursor.buffer, first)
            return double_text(value) if value - value == 0.0 else f'"{double_text(value)}"'
        if tag == BYTES:
            return '"' + b64encode(cursor.buffer[first : min(after, first + room)]).decode() + '"'
        if tag == ARRAY:
            return _json_array(cursor, first, after, room)
        if tag == KVLIST:
            return _json_object(cursor, first, after, room)
    return "null"


def _json_text(cursor: Cursor, start: i64, end: i64, room: i64) -> str:
    """Return the text at start:end in quotes, or a beginning that is longer than `room` even without the last quote."""
    text_bytes: i64 = room + 4
    if end - start > text_bytes:
        return encode_basestring(text_within(cursor.buffer[start : start + text_bytes + 1], text_bytes).decode())
    return encode_basestring(cursor.buffer[start:end].decode())


def _json_array(cursor: Cursor, start: i64, end: i64, room: i64) -> str:
    values: list[str] = []
    position: i64 = start
    while position < end and room > 0:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == 0x0A:
            value = _json_of(cursor, cursor.start, position, room)
            values.append(value)
            room -= len(value) + 1
    return "[" + ",".join(values) + "]"


def _json_object(cursor: Cursor, start: i64, end: i64, room: i64) -> str:
    values: dict[str, str] = {}
    position: i64 = start
    while position < end and room > 0:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == 0x0A:
            key = '""'
            value = "null"
            entry: i64 = cursor.start
            while entry < position:
                cursor.position = entry
                entry_tag: i64 = cursor.field(position)
                entry = cursor.position
                if entry_tag == KEY:
                    key = _json_text(cursor, cursor.start, entry, room)
                elif entry_tag == VALUE:
                    value = _json_of(cursor, cursor.start, entry, room)
            values.pop(key, None)  # the last one wins, in its own place
            values[key] = value
            room -= len(key) + len(value) + 2
    return "{" + ",".join([key + ":" + value for key, value in values.items()]) + "}"
