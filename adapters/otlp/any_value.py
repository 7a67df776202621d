"""Convert an AnyValue to its text in the normal form: an integer in decimal, true or false, a double in shortest round-trip
form (NaN, Infinity, -Infinity), bytes in base64, and arrays and key-value lists as JSON.

Invariants:
1. The JSON of a large value is made with rests in between: 460,000 keys took 300 ms, and 4 MB of control characters, nested 60
   deep, 620 ms (tests/unit/adapters/otlp/test_any_value.py, test_the_json_of_a_large_value_rests).
"""

from base64 import b64encode
from json.encoder import encode_basestring
from typing import Final

from librt.strings import BytesWriter, read_f64_le
from mypy_extensions import i64

from adapters.codec.text import text_within
from adapters.codec.wire import Cursor, put_bytes
from adapters.rules import Rules

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
# How many characters of a text are written in JSON between two rests: they become up to six times as many.
_TEXT_SLICE: Final = 64 << 10
# Elements are counted as read together: one by one, each would count as a step of its own.
_UNREAD_BYTES: Final = 4 << 10


def string_value(text: bytes) -> bytes:
    """Return an AnyValue that holds a string."""
    writer = BytesWriter()
    put_bytes(writer, STRING, text)
    return writer.getvalue()


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
            return _json_of(cursor, start, end, _ALL, rules).encode()
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
            text = _json_of(cursor, start, end, bytes_max, rules).encode()
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


def _json_of(cursor: Cursor, start: i64, end: i64, room: i64, rules: Rules) -> str:
    """Return a checked AnyValue as compact JSON. An empty value is null, and NaN and infinities are strings.

    If the JSON is longer than `room`, return a text that has the same beginning, and is also longer.
    """
    cursor.position = start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        first: i64 = cursor.start
        after: i64 = cursor.position
        if tag == STRING:
            return _json_text(cursor, first, after, room, rules)
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
            return _json_array(cursor, first, after, room, rules)
        if tag == KVLIST:
            return _json_object(cursor, first, after, room, rules)
    return "null"


def _json_text(cursor: Cursor, start: i64, end: i64, room: i64, rules: Rules) -> str:
    """Return the text at start:end in quotes, or a beginning that is longer than `room` even without the last quote."""
    text_bytes: i64 = room + 4
    if end - start > text_bytes:
        return _quoted(text_within(cursor.buffer[start : start + text_bytes + 1], text_bytes).decode(), rules)
    return _quoted(cursor.buffer[start:end].decode(), rules)


def _quoted(text: str, rules: Rules) -> str:
    if len(text) <= _TEXT_SLICE:
        return encode_basestring(text)
    slices: list[str] = []
    for start in range(0, len(text), _TEXT_SLICE):
        quoted = encode_basestring(text[start : start + _TEXT_SLICE])
        slices.append(quoted[1:-1])
        rules.read(len(quoted))
    return '"' + "".join(slices) + '"'


def _json_array(cursor: Cursor, start: i64, end: i64, room: i64, rules: Rules) -> str:
    values: list[str] = []
    unread: i64 = 0
    position: i64 = start
    while position < end and room > 0:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == 0x0A:
            value = _json_of(cursor, cursor.start, position, room, rules)
            values.append(value)
            size: i64 = len(value) + 1
            room -= size
            unread += size
            if unread > _UNREAD_BYTES:
                rules.read(unread)
                unread = 0
    return "[" + ",".join(values) + "]"


def _json_object(cursor: Cursor, start: i64, end: i64, room: i64, rules: Rules) -> str:
    values: dict[str, str] = {}
    unread: i64 = 0
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
                    key = _json_text(cursor, cursor.start, entry, room, rules)
                elif entry_tag == VALUE:
                    value = _json_of(cursor, cursor.start, entry, room, rules)
            values.pop(key, None)  # the last one wins, in its own place
            values[key] = value
            size: i64 = len(key) + len(value) + 2
            room -= size
            unread += size
            if unread > _UNREAD_BYTES:
                rules.read(unread)
                unread = 0
    return "{" + ",".join([key + ":" + value for key, value in values.items()]) + "}"
