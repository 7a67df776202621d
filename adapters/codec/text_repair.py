"""Repair text that is not UTF-8 in a protobuf body: U+FFFD takes the place of each invalid sequence, as Unicode recommends.

A body comes here only after its adapter has met such a text, so a clean body costs nothing.

Invariants:
1. Nothing but texts changes, and the lengths of the messages around them (tests/unit/adapters/codec/test_text_repair.py,
   test_only_the_texts_change).
2. Every text that protobuf's own parser would refuse is repaired, however unusually the body is written
   (test_text_repair.py, test_oddly_written_bodies_are_repaired).
3. A body that cannot be read is copied unchanged from the unreadable field on: the adapter reports that it is malformed
   (test_text_repair.py, test_malformed_bodies_stay_malformed).
4. A repaired body is at most an eighth larger than it was, or 64 MiB: an invalid byte becomes three
   (test_text_repair.py, test_a_body_that_grows_too_much_is_refused).
5. A repair rests at least once for each 256 KiB (test_text_repair.py, test_repairing_rests), and for 16,000 fields. More
   fields than `request_elements_max` are refused (test_text_repair.py, test_fields_that_are_no_texts_have_a_price).
"""

from codecs import getincrementaldecoder
from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from librt.strings import BytesWriter, read_i32_le, write_i32_le
from mypy_extensions import i32, i64, u8

from adapters.codec.wire import BYTES, FIXED32, FIXED64, VARINT, is_utf8, put_varint, varint_size
from adapters.errors import PAYLOAD_TOO_LARGE, RequestRefused, too_many_elements
from adapters.repairs import INVALID_TEXT
from adapters.rules import Rules

# What a field of bytes may contain.
_OTHER: Final = 0
_TEXT: Final = 1
_MESSAGE: Final = 2

_NUMBERS: Final = 32  # every known field number is below
# Values nest 64 deep, and each level is up to three messages; deeper ones are refused unread.
_REPAIRED_DEPTH_MAX: Final = 256
_START_GROUP: Final = 3
_END_GROUP: Final = 4
_VARINT_BYTES_MAX: Final = 10
# The bytes of text that are decoded at once.
SLICE_BYTES: Final = 256 << 10
# The time to repair a short text, as the bytes of a body that could be read meanwhile.
REPAIR_BYTES: Final = 128
# The size of each number in `_Texts.changes`.
_NUMBER_BYTES: Final = 4

# A repaired body may have this many bytes, or be larger than it was by this part of its size: an eighth.
_REPAIRED_BYTES_MAX: Final = 64 << 20
_GROWTH_SHIFT: Final = 3


class _Shape:
    """A `_Shape` records which fields of a message type are texts, and which are messages, by field number."""

    def __init__(self) -> None:
        self.kinds: bytes = bytes(_NUMBERS)
        self.children: Final[dict[int, _Shape]] = {}


_shapes: Final[dict[str, _Shape]] = {}


def _shape_of(descriptor: Descriptor) -> _Shape:
    shape = _shapes.get(descriptor.full_name)
    if shape is not None:
        return shape
    shape = _shapes[descriptor.full_name] = _Shape()
    kinds = bytearray(_NUMBERS)
    for field in descriptor.fields:
        if field.message_type is not None:
            kinds[field.number] = _MESSAGE
            shape.children[field.number] = _shape_of(field.message_type)
        elif field.type == FieldDescriptor.TYPE_STRING:
            kinds[field.number] = _TEXT
    shape.kinds = bytes(kinds)
    return shape


def repaired_text(raw: bytes, rules: Rules, repaired_bytes_max: i64 = _REPAIRED_BYTES_MAX) -> bytes:
    """Return the text with U+FFFD in the place of each invalid sequence. Raises RequestRefused if a long text becomes more
    than `repaired_bytes_max` bytes."""
    if len(raw) <= SLICE_BYTES:
        return raw.decode("utf-8", "replace").encode()
    writer = BytesWriter()
    _repair(writer, raw, 0, len(raw), rules, repaired_bytes_max)
    text = writer.getvalue()
    rules.rest()  # each copy of 60 MB takes 20 ms
    return text


def _repair(writer: BytesWriter | None, buffer: bytes, start: i64, end: i64, rules: Rules, repaired_bytes_max: i64) -> i64:
    """Write the repaired text of start:end to `writer`, if it is not None. Return its size. Raises RequestRefused if that is
    more than `repaired_bytes_max`."""
    decoder = getincrementaldecoder("utf-8")("replace")
    total: i64 = 0
    while start < end:
        stop: i64 = min(end, start + SLICE_BYTES)
        piece: bytes = decoder.decode(buffer[start:stop], stop == end).encode()
        total += len(piece)
        if total > repaired_bytes_max:
            raise grows_too_much(len(buffer), repaired_bytes_max)
        if writer is not None:
            writer.write(piece)
        start = stop
        rules.rest()
    return total


def repaired_bytes_max_of(size_bytes: i64) -> i64:
    """Return how many bytes a body of `size_bytes` may have when it is repaired."""
    return max(_REPAIRED_BYTES_MAX, size_bytes + (size_bytes >> _GROWTH_SHIFT))


def grows_too_much(size_bytes: int, repaired_bytes_max: int) -> RequestRefused:
    """Return the refusal of a body that exceeds `repaired_bytes_max` when its texts are repaired."""
    return RequestRefused(
        PAYLOAD_TOO_LARGE,
        f"texts of {size_bytes} bytes are not UTF-8 and become more than {repaired_bytes_max} bytes, since U+FFFD takes three"
        " for each byte that is invalid: send UTF-8, or smaller batches",
    )


def repaired_wire(body: bytes, message_class: type[Message], rules: Rules) -> bytes:
    """Return a serialized message with its texts repaired, and count the repairs in `rules`. Return `body` itself if all texts
    are UTF-8. Raises RequestRefused."""
    texts = _Texts(body, rules)
    texts.find(_shape_of(cast("Descriptor", message_class.DESCRIPTOR)), 0, len(body), 0)
    if texts.count == 0:
        return body
    rules.repair(INVALID_TEXT, texts.count)
    texts.write()
    rules.rest()
    repaired = texts.writer.getvalue()
    rules.rest()
    return repaired


class _Texts:
    """A `_Texts` repairs the texts of one body: it first finds the changes, then copies the body with them."""

    def __init__(self, buffer: bytes, rules: Rules) -> None:
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.count: i64 = 0
        self.elements: i64 = 0
        self.repaired_bytes_max: i64 = repaired_bytes_max_of(len(buffer))
        self.repaired_bytes: i64 = len(buffer)  # the body's size with the changes found so far
        # Two numbers for each length that changes, in the order of the body: its position and its new value. A message's
        # new length is written as -1 - length, since its content is not replaced as a whole.
        self.changes: Final = BytesWriter()
        self.writer: Final = BytesWriter()
        # After `_field`: the field's tag, where its length and its payload begin, and where it ends.
        self.tag: i64 = 0
        self.length_at: i64 = 0
        self.first: i64 = 0
        self.after: i64 = 0

    def find(self, shape: _Shape, start: i64, end: i64, depth: i64) -> i64:
        """Find the changes in the message at start:end, and return by how many bytes it grows. Raises RequestRefused."""
        buffer = self.buffer
        changes = self.changes
        grown: i64 = 0
        position: i64 = start
        while position < end and self._field(position, end):
            position = self.after
            first: i64 = self.first
            length_at: i64 = self.length_at
            self._count()
            kind: i64 = self._kind(shape)
            if kind == _TEXT and not is_utf8(buffer, first, position, self.rules):
                self.count += 1
                self.rules.read(position - first + REPAIR_BYTES)
                length: i64 = self._repaired(first, position)
                self.repaired_bytes += length - (position - first)
                if self.repaired_bytes > self.repaired_bytes_max:
                    raise grows_too_much(len(buffer), self.repaired_bytes_max)
                grown += varint_size(length) + length - (position - length_at)
                write_i32_le(changes, i32(length_at))
                write_i32_le(changes, i32(length))
            elif kind == _MESSAGE and position > first and depth < _REPAIRED_DEPTH_MAX:
                before: i64 = len(changes)
                write_i32_le(changes, i32(length_at))
                write_i32_le(changes, 0)
                count: i64 = self.count
                length = position - first + self.find(shape.children[int(self.tag >> 3)], first, position, depth + 1)
                if self.count == count:
                    changes.truncate(before)
                else:
                    self._set(before + _NUMBER_BYTES, -1 - length)
                    grown += varint_size(length) + length - (position - length_at)
        return grown

    def write(self) -> None:
        """Write the body with the changes that `find` found."""
        buffer = self.buffer
        writer = self.writer
        changes = self.changes.getvalue()
        keep: i64 = 0  # from here on not written yet
        at: i64 = 0
        while at < len(changes):
            length_at: i64 = i64(read_i32_le(changes, at))
            length: i64 = i64(read_i32_le(changes, at + _NUMBER_BYTES))
            at += 2 * _NUMBER_BYTES
            self._copy(keep, length_at)
            first: i64 = self._varint(length_at, len(buffer))
            if length < 0:
                put_varint(writer, -1 - length)
                keep = first
                continue
            put_varint(writer, length)
            keep = first + self._value(length_at, first)
            self.rules.read(keep - first + REPAIR_BYTES)
            if keep - first <= SLICE_BYTES:
                writer.write(repaired_text(buffer[first:keep], self.rules))
            else:
                _repair(writer, buffer, first, keep, self.rules, self.repaired_bytes_max)
        self._copy(keep, len(buffer))

    def _copy(self, start: i64, end: i64) -> None:
        """Write start:end unchanged."""
        while start < end:
            stop: i64 = min(end, start + SLICE_BYTES)
            self.writer.write(self.buffer[start:stop])
            self.rules.read(stop - start)
            start = stop

    def _count(self) -> None:
        """Count the last field as adapters/price.py does, which stops at an unusual field. Raises RequestRefused."""
        rules = self.rules
        kind: i64 = self.tag & 7
        if kind != FIXED64 and kind != FIXED32:
            self.elements += 1
            if self.elements > rules.request_elements_max:
                raise too_many_elements(len(self.buffer), rules.request_elements_max)
        rules.read(0)

    def _repaired(self, start: i64, end: i64) -> i64:
        """Return the size of the repaired text of start:end. Raises RequestRefused."""
        if end - start <= SLICE_BYTES:
            return len(repaired_text(self.buffer[start:end], self.rules))
        return _repair(None, self.buffer, start, end, self.rules, self.repaired_bytes_max)

    def _set(self, at: i64, value: i64) -> None:
        changes = self.changes
        changes[at] = u8(value & 0xFF)
        changes[at + 1] = u8(value >> 8 & 0xFF)
        changes[at + 2] = u8(value >> 16 & 0xFF)
        changes[at + 3] = u8(value >> 24 & 0xFF)

    def _kind(self, shape: _Shape) -> i64:
        """Return the kind of the last field's payload."""
        number: i64 = self.tag >> 3
        if self.tag & 7 != BYTES or number >= _NUMBERS:
            return _OTHER
        return shape.kinds[number]

    def _field(self, position: i64, end: i64) -> bool:
        """Read the field at `position`. Return False if it cannot be read. Groups are read as the fields in them."""
        at: i64 = self._varint(position, end)
        if at < 0:
            return False
        self.tag = self._value(position, at)
        kind: i64 = self.tag & 7
        self.length_at = at
        self.first = at
        if kind == BYTES:
            self.first = self._varint(at, end)
            if self.first < 0:
                return False
            length: i64 = self._value(at, self.first)
            if length < 0 or length > end - self.first:
                return False
            self.after = self.first + length
            return True
        if kind == VARINT:
            self.after = self._varint(at, end)
            return self.after >= 0
        if kind == FIXED64:
            self.after = at + 8
        elif kind == FIXED32:
            self.after = at + 4
        elif kind == _START_GROUP or kind == _END_GROUP:
            self.after = at
        else:
            return False
        return self.after <= end

    def _varint(self, position: i64, end: i64) -> i64:
        """Return where the varint at `position` ends, or -1."""
        buffer = self.buffer
        stop: i64 = min(end, position + _VARINT_BYTES_MAX)
        while position < stop:
            if buffer[position] < 128:
                return position + 1
            position += 1
        return -1

    def _value(self, start: i64, end: i64) -> i64:
        """Return the value of the varint at start:end; -1 if it has more than 63 bits."""
        buffer = self.buffer
        value: i64 = 0
        shift: i64 = 0
        while start < end:
            bits: i64 = buffer[start] & 127
            if shift > 56 and bits:
                return -1
            if shift <= 56:
                value |= bits << shift
            shift += 7
            start += 1
        return value
