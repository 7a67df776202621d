"""Convert an AnyValue to its text in the normal form: an integer in decimal, true or false, a double in shortest round-trip
form (NaN, Infinity, -Infinity), bytes in base64, and arrays and key-value lists as JSON.

Invariants:
1. The JSON of a large value is made with rests in between: 460,000 keys took 300 ms, and 4 MB of control characters, nested 60
   deep, 620 ms (tests/unit/adapters/otlp/test_any_value.py, test_the_json_of_a_large_value_rests).
"""

from base64 import b64encode
from json.encoder import encode_basestring
from typing import Final

from librt.strings import BytesWriter, read_f64_le, read_i64_le
from mypy_extensions import i64

from adapters.codec.json_scanner import (
    CLOSING_BRACE,
    CLOSING_BRACKET,
    COLON,
    COMMA,
    OPENING_BRACE,
    OPENING_BRACKET,
    QUOTE,
    SPACE,
)
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
_ENTRY: Final = 0x0A  # a field of an ArrayValue or a KeyValueList
_NULL: Final = b"null"
_BACKSLASH: Final = 0x5C
_ESCAPES: Final = [encode_basestring(chr(byte))[1:-1].encode() for byte in range(128)]
_WORD_BYTES: Final = 8
# Read from bytes: mypyc shifts a literal as a C int, of 32 bits.
_LOW_BITS: Final = b"\x7f" * 8
_QUOTES: Final = b'"' * 8
_BACKSLASHES: Final = b"\\" * 8
_NO_CONTROLS: Final = b"\xe0" * 8  # a control character has none of these bits
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
    if value - value == 0.0:
        return repr(value)
    if value != value:
        return "NaN"
    return "Infinity" if value > 0.0 else "-Infinity"


def _json_of(cursor: Cursor, start: i64, end: i64, room: i64, rules: Rules) -> bytes:
    """Return a checked AnyValue as compact JSON. An empty value is null, and NaN and infinities are strings.

    If the JSON is longer than `room`, return a text that has the same beginning, and is also longer.
    """
    writer = BytesWriter()
    _put_json(writer, cursor, start, end, room, rules)
    return writer.getvalue()


def _put_json(writer: BytesWriter, cursor: Cursor, start: i64, end: i64, size_max: i64, rules: Rules) -> None:
    """Write a checked AnyValue as `_json_of` does. What is behind `size_max` bytes of `writer` need not be written."""
    cursor.position = start
    while cursor.position < end:
        tag: i64 = cursor.field(end)
        first: i64 = cursor.start
        after: i64 = cursor.position
        if tag == STRING:
            _put_text(writer, cursor.buffer, first, after, size_max, rules)
        elif tag == INT:
            writer.write(str(int(cursor.value)).encode())
        elif tag == BOOL:
            writer.write(b"true" if cursor.value else b"false")
        elif tag == DOUBLE:
            value = read_f64_le(cursor.buffer, first)
            text = double_text(value).encode()
            writer.write(text if value - value == 0.0 else b'"' + text + b'"')
        elif tag == BYTES:
            writer.append(QUOTE)
            writer.write(b64encode(cursor.buffer[first : min(after, first + _room(writer, size_max))]))
            writer.append(QUOTE)
        elif tag == ARRAY:
            _put_array(writer, cursor, first, after, size_max, rules)
        elif tag == KVLIST:
            _put_object(writer, cursor, first, after, size_max, rules)
        else:
            continue
        return
    writer.write(_NULL)


def _room(writer: BytesWriter, size_max: i64) -> i64:
    """Return how many bytes `writer` may still take, and one more."""
    return max(size_max - len(writer), 0) + 1


def _put_text(writer: BytesWriter, buffer: bytes, start: i64, end: i64, size_max: i64, rules: Rules) -> None:
    """Write the text at start:end in quotes, escaped as Python's json does; of a text beyond `size_max`, a beginning."""
    # The last quote may be missing in what is kept, and no character has more than four bytes.
    end = min(end, start + _room(writer, size_max) + 4)
    writer.append(QUOTE)
    position: i64 = start
    rest_at: i64 = len(writer) + _TEXT_SLICE
    while True:
        kept: i64 = position
        position = _plain_end(buffer, position, end)
        if position > kept:
            writer.write(buffer[kept:position])
        if position == end:
            break
        writer.write(_ESCAPES[buffer[position]])
        position += 1
        if len(writer) > rest_at:
            rules.read(_TEXT_SLICE)
            rest_at = len(writer) + _TEXT_SLICE
    writer.append(QUOTE)


def _plain_end(buffer: bytes, position: i64, end: i64) -> i64:
    """Return the position of the first byte that JSON escapes; `end` if there is none."""
    low_bits: i64 = read_i64_le(_LOW_BITS, 0)
    quotes: i64 = read_i64_le(_QUOTES, 0)
    backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
    no_controls: i64 = read_i64_le(_NO_CONTROLS, 0)
    while position + _WORD_BYTES <= end:
        # Only a zero byte ends up without its high bit, as in adapters/codec/text.py.
        word: i64 = read_i64_le(buffer, position)
        quote: i64 = word ^ quotes
        backslash: i64 = word ^ backslashes
        control: i64 = word & no_controls
        other: i64 = ((quote & low_bits) + low_bits | quote) & ((backslash & low_bits) + low_bits | backslash)
        other &= (control & low_bits) + low_bits | control
        if other | low_bits != -1:
            break
        position += _WORD_BYTES
    while position < end:
        byte: i64 = buffer[position]
        if byte < SPACE or byte == QUOTE or byte == _BACKSLASH:
            break
        position += 1
    return position


def _put_array(writer: BytesWriter, cursor: Cursor, start: i64, end: i64, size_max: i64, rules: Rules) -> None:
    writer.append(OPENING_BRACKET)
    read_to: i64 = len(writer)
    is_first = True
    position: i64 = start
    while position < end and len(writer) <= size_max:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == _ENTRY:
            if not is_first:
                writer.append(COMMA)
            is_first = False
            _put_json(writer, cursor, cursor.start, position, size_max, rules)
            if len(writer) - read_to > _UNREAD_BYTES:
                rules.read(len(writer) - read_to)
                read_to = len(writer)
    writer.append(CLOSING_BRACKET)


def _put_object(writer: BytesWriter, cursor: Cursor, start: i64, end: i64, size_max: i64, rules: Rules) -> None:
    writer.append(OPENING_BRACE)
    read_to: i64 = len(writer)
    # Where each member begins; of one whose key comes again, inverted.
    starts: list[int] = []
    by_key: dict[bytes, int] = {}
    is_repeated = False
    position: i64 = start
    while position < end and len(writer) <= size_max:
        cursor.position = position
        tag: i64 = cursor.field(end)
        position = cursor.position
        if tag == _ENTRY:
            entry: i64 = cursor.start
            key_start: i64 = entry
            key_end: i64 = entry
            value_start: i64 = entry
            value_end: i64 = entry
            while entry < position:
                cursor.position = entry
                tag = cursor.field(position)
                entry = cursor.position
                if tag == KEY:
                    key_start = cursor.start
                    key_end = entry
                elif tag == VALUE:
                    value_start = cursor.start
                    value_end = entry
            key = cursor.buffer[key_start:key_end]
            if starts:
                writer.append(COMMA)
            starts.append(len(writer))
            earlier = by_key.get(key)
            if earlier is not None:
                size_max += _start(starts, earlier + 1) - starts[earlier]
                starts[earlier] = ~starts[earlier]
                is_repeated = True
            by_key[key] = len(starts) - 1
            _put_text(writer, cursor.buffer, key_start, key_end, size_max, rules)
            writer.append(COLON)
            _put_json(writer, cursor, value_start, value_end, size_max, rules)
            if len(writer) - read_to > _UNREAD_BYTES:
                rules.read(len(writer) - read_to)
                read_to = len(writer)
    if is_repeated:
        _drop_repeated(writer, starts, rules)
    writer.append(CLOSING_BRACE)


def _start(starts: list[int], index: int) -> int:
    start = starts[index]
    return start if start >= 0 else ~start


def _drop_repeated(writer: BytesWriter, starts: list[int], rules: Rules) -> None:
    """Remove the members whose key comes again from an object that ends with its last member. So of members with the same key
    the last one is kept, in its own place."""
    first: int = _start(starts, 0)
    rules.rest()
    members = writer.getvalue()[first:]
    rules.rest()
    writer.truncate(first)
    starts.append(first + len(members) + 1)
    read_to: i64 = 0
    for index in range(len(starts) - 1):
        start = starts[index]
        if start >= 0:
            if len(writer) > first:
                writer.append(COMMA)
            writer.write(members[start - first : _start(starts, index + 1) - 1 - first])
        end: i64 = _start(starts, index + 1) - first
        if end - read_to > _UNREAD_BYTES:
            rules.read(end - read_to)
            read_to = end
