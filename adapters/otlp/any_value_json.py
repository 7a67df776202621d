"""Write a checked AnyValue as compact JSON, escaped as Python's json does. An empty value is null, NaN and infinities are
strings, and of members with the same key the last one is kept, in its own place.

Nearly every object is small and has each key once, so its members are copied from the body to the writer. Only an object that
may have a repeated key is written with a dictionary of its keys.

Invariants:
1. The JSON of a large value is made with rests in between: 460,000 keys took 300 ms, and 4 MB of control characters, nested 60
   deep, 620 ms (tests/unit/adapters/otlp/test_any_value.py, test_the_json_of_a_large_value_rests).
2. How an object is written is decided before its members are, so each member is written once. The work grows with the value,
   not with its nesting (test_nested_objects_with_repeated_keys_are_written_once).
"""

from base64 import b64encode
from typing import Final

from librt.strings import BytesWriter, read_f64_le, read_i64_le
from mypy_extensions import i64, u8

from adapters.codec.json_characters import CLOSING_BRACE, CLOSING_BRACKET, COLON, COMMA, OPENING_BRACE, OPENING_BRACKET, QUOTE
from adapters.codec.json_text import ESCAPES, plain_end, put_plain
from adapters.codec.number_text import put_double, put_integer
from adapters.codec.wire import Cursor
from adapters.otlp.any_value_tags import ARRAY, BOOL, BYTES, DOUBLE, ENTRY, INT, KEY, KVLIST, STRING, VALUE
from adapters.otlp.field_tables import BIT_MASKS
from adapters.rules import Rules

_NULL: Final = b"null"
_WORD_BYTES: Final = 8
# The first n of eight bytes, as 8 bytes each, for n from 0 to 8.
_FIRST_BYTES: Final = b"".join([b"\xff" * n + bytes(8 - n) for n in range(9)])
# The longest text that is copied word by word.
_SHORT_TEXT_MAX: Final = 96
# The longest AnyValue of a text whose length has one byte, and one more.
_SHORT_VALUE_MAX: Final = 130
# How many characters of a text are written between two rests: they become up to six times as many.
_TEXT_SLICE: Final = 64 << 10
# Elements are counted as read together: one by one, each would count as a step of its own.
_UNREAD_BYTES: Final = 4 << 10


def non_finite_text(value: float) -> bytes:
    """Return NaN, Infinity or -Infinity, as OTLP/JSON writes them."""
    if value != value:
        return b"NaN"
    return b"Infinity" if value > 0.0 else b"-Infinity"


class KeyValueSpan:
    """A `KeyValueSpan` holds the places of the key and the value of a KeyValue."""

    def __init__(self) -> None:
        self.key_start: i64 = 0
        self.key_end: i64 = 0
        self.value_start: i64 = 0
        self.value_end: i64 = 0

    def locate(self, cursor: Cursor, start: i64, end: i64) -> None:
        """Find key and value of the checked KeyValue at start:end. What is missing is empty."""
        buffer = cursor.buffer
        last_word: i64 = len(buffer) - _WORD_BYTES
        if start <= last_word:
            # Nearly every member has a short key, then a short value: tags and lengths are read as two words.
            word: i64 = read_i64_le(buffer, start)
            length: i64 = word >> 8 & 255
            after: i64 = start + 2 + length
            if word & 255 == KEY and length < 128 and after < end and after <= last_word:
                word = read_i64_le(buffer, after)
                length = word >> 8 & 255
                if word & 255 == VALUE and length < 128 and after + 2 + length == end:
                    self.key_start = start + 2
                    self.key_end = after
                    self.value_start = after + 2
                    self.value_end = end
                    return
        self.key_start = self.key_end = self.value_start = self.value_end = start
        while start < end:
            cursor.position = start
            tag: i64 = cursor.field(end)
            start = cursor.position
            if tag == KEY:
                self.key_start = cursor.start
                self.key_end = start
            elif tag == VALUE:
                self.value_start = cursor.start
                self.value_end = start

    def key_hash(self, buffer: bytes) -> i64:
        """Return a hash of the key, from 0 to 4,095."""
        start: i64 = self.key_start
        size: i64 = self.key_end - start
        mixed: i64 = size
        if size >= _WORD_BYTES:
            head: i64 = read_i64_le(buffer, start)
            tail: i64 = read_i64_le(buffer, start + size - _WORD_BYTES)
            mixed ^= tail ^ (tail >> 32) ^ (head >> 8) ^ (head >> 40)
        else:
            head = 0
            if start + _WORD_BYTES <= len(buffer):
                head = read_i64_le(buffer, start) & read_i64_le(_FIRST_BYTES, size << 3)
            else:
                for place in range(start + size - 1, start - 1, -1):
                    head = head << 8 | int(buffer[place])
            mixed ^= head ^ head >> 32
        # Multiplicative hashing; the product stays below 2**63.
        return (mixed & 0xFFFFFFFF) * 0x5E3779B1 >> 27 & 0xFFF


class JsonWriter:
    """A `JsonWriter` writes values of `cursor.buffer` to `writer`, and rests as `rules` say. If the JSON becomes longer than
    `bytes_max`, it writes a text that has the same beginning, and is also longer."""

    def __init__(self, cursor: Cursor, rules: Rules, bytes_max: i64) -> None:
        self.cursor: Final = cursor
        self.buffer: Final = cursor.buffer
        self.rules: Final = rules
        self.writer: Final = BytesWriter()
        self.bytes_max: i64 = bytes_max
        # The KeyValue that was read last.
        self._member: Final = KeyValueSpan()
        # Where the field ends that `_entry` read last.
        self._entry_end: i64 = 0

    def put(self, start: i64, end: i64) -> None:
        """Write the AnyValue at start:end."""
        cursor = self.cursor
        writer = self.writer
        if end - start >= 2 and start + _WORD_BYTES <= len(self.buffer):
            word: i64 = read_i64_le(self.buffer, start)
            # A short text, the most usual value.
            if word & 255 == STRING and word >> 8 & 255 == end - start - 2 and end - start < _SHORT_VALUE_MAX:
                self._put_text(start + 2, end)
                return
        cursor.position = start
        while cursor.position < end:
            tag: i64 = cursor.field(end)
            first: i64 = cursor.start
            after: i64 = cursor.position
            if tag == STRING:
                self._put_text(first, after)
            elif tag == INT:
                put_integer(writer, cursor.value)
            elif tag == BOOL:
                writer.write(b"true" if cursor.value else b"false")
            elif tag == DOUBLE:
                value = read_f64_le(self.buffer, first)
                if value - value == 0.0:
                    put_double(writer, value)
                else:
                    writer.write(b'"' + non_finite_text(value) + b'"')
            elif tag == BYTES:
                writer.append(QUOTE)
                writer.write(b64encode(self.buffer[first : min(after, first + self._room())]))
                writer.append(QUOTE)
            elif tag == ARRAY:
                self._put_entries(first, after, OPENING_BRACKET, CLOSING_BRACKET)
            elif tag == KVLIST:
                if self._may_repeat_key(first, after):
                    self._put_repeating_object(first, after)
                else:
                    self._put_entries(first, after, OPENING_BRACE, CLOSING_BRACE)
            else:
                continue
            return
        writer.write(_NULL)

    def _room(self) -> i64:
        """Return how many bytes the writer may still take, and one more."""
        return max(self.bytes_max - len(self.writer), 0) + 1

    def _put_text(self, start: i64, end: i64) -> None:
        """Write the text at start:end in quotes, escaped; of a text beyond `bytes_max`, a beginning."""
        buffer = self.buffer
        writer = self.writer
        if end - start <= _SHORT_TEXT_MAX and end + _WORD_BYTES <= len(buffer) and put_plain(writer, buffer, start, end):
            return
        # The last quote may be missing in what is kept, and no character has more than four bytes.
        end = min(end, start + self._room() + 4)
        writer.append(QUOTE)
        position: i64 = start
        rest_at: i64 = len(writer) + _TEXT_SLICE
        while True:
            kept: i64 = position
            position = plain_end(buffer, position, end)
            if position > kept:
                writer.write(buffer[kept:position])
            if position == end:
                break
            writer.write(ESCAPES[buffer[position]])
            position += 1
            if len(writer) > rest_at:
                self.rules.read(_TEXT_SLICE)
                rest_at = len(writer) + _TEXT_SLICE
        writer.append(QUOTE)

    def _entry(self, position: i64, end: i64) -> i64:
        """Read the field at `position` of an ArrayValue or a KeyValueList. Return where its content begins, or 0 if it is an
        unknown field. `_entry_end` is where it ends."""
        if position + _WORD_BYTES <= len(self.buffer):
            word: i64 = read_i64_le(self.buffer, position)
            size: i64 = word >> 8 & 255
            if word & 255 == ENTRY and size < 128:
                self._entry_end = position + 2 + size
                return position + 2
        cursor = self.cursor
        cursor.position = position
        tag: i64 = cursor.field(end)
        self._entry_end = cursor.position
        return cursor.start if tag == ENTRY else 0

    def _read_since(self, read_to: i64) -> i64:
        """Count what was written since `read_to` as read, if it is much. Return the place up to which it is counted."""
        written: i64 = len(self.writer)
        if written - read_to <= _UNREAD_BYTES:
            return read_to
        self.rules.read(written - read_to)
        return written

    def _may_repeat_key(self, start: i64, end: i64) -> bool:
        """Return whether two members of the KeyValueList at start:end may have the same key: False is certain."""
        member = self._member
        # Two bits for each key.
        low_bits: i64 = 0
        high_bits: i64 = 0
        read_to: i64 = start
        position: i64 = start
        while position < end:
            first: i64 = self._entry(position, end)
            position = self._entry_end
            if first:
                member.locate(self.cursor, first, position)
                hashed: i64 = member.key_hash(self.buffer)
                low: i64 = read_i64_le(BIT_MASKS, (hashed & 63) << 3)
                high: i64 = read_i64_le(BIT_MASKS, hashed >> 6 << 3)
                if low_bits & low and high_bits & high:
                    return True
                low_bits |= low
                high_bits |= high
            if position - read_to > _UNREAD_BYTES:
                self.rules.read(position - read_to)
                read_to = position
        return False

    def _put_entries(self, start: i64, end: i64, opening: u8, closing: u8) -> None:
        """Write the ArrayValue at start:end, or the KeyValueList if `opening` is a brace. No key may be repeated."""
        writer = self.writer
        has_keys = opening == OPENING_BRACE
        writer.append(opening)
        read_to: i64 = len(writer)
        is_first = True
        position: i64 = start
        while position < end and len(writer) <= self.bytes_max:
            first: i64 = self._entry(position, end)
            position = self._entry_end
            if first:
                if not is_first:
                    writer.append(COMMA)
                is_first = False
                if has_keys:
                    self._member.locate(self.cursor, first, position)
                    self._put_member()
                else:
                    self.put(first, position)
                read_to = self._read_since(read_to)
        writer.append(closing)

    def _put_member(self) -> None:
        """Write the KeyValue that was located last."""
        member = self._member
        self._put_text(member.key_start, member.key_end)
        self.writer.append(COLON)
        self.put(member.value_start, member.value_end)

    def _put_repeating_object(self, start: i64, end: i64) -> None:
        """Write the KeyValueList at start:end, in which a key may be repeated."""
        writer = self.writer
        member = self._member
        bytes_max: i64 = self.bytes_max
        writer.append(OPENING_BRACE)
        read_to: i64 = len(writer)
        # Where each member begins; of one whose key is repeated later, inverted.
        starts: list[int] = []
        by_key: dict[bytes, int] = {}
        is_repeated = False
        position: i64 = start
        while position < end and len(writer) <= self.bytes_max:
            first: i64 = self._entry(position, end)
            position = self._entry_end
            if first:
                member.locate(self.cursor, first, position)
                key = self.buffer[member.key_start : member.key_end]
                if starts:
                    writer.append(COMMA)
                starts.append(len(writer))
                earlier = by_key.get(key)
                if earlier is not None:
                    self.bytes_max += _start(starts, earlier + 1) - starts[earlier]
                    starts[earlier] = ~starts[earlier]
                    is_repeated = True
                by_key[key] = len(starts) - 1
                self._put_member()
                read_to = self._read_since(read_to)
        if is_repeated:
            self._drop_repeated(starts)
        self.bytes_max = bytes_max
        writer.append(CLOSING_BRACE)

    def _drop_repeated(self, starts: list[int]) -> None:
        """Remove the members whose key is repeated later from an object that ends with its last member."""
        writer = self.writer
        rules = self.rules
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


def _start(starts: list[int], index: int) -> int:
    start = starts[index]
    return start if start >= 0 else ~start
