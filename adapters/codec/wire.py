"""Read and write protobuf's wire format, as far as adapters need it: fields, skipping, checks of bounds.

A cursor accepts only plainly well-formed fields. Anything unusual, legal or not, raises `NonCanonical`. The caller then lets
protobuf's own parser decide, so we always agree with it on malformed bodies. Source: protobuf.dev, "Encoding".
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le
from mypy_extensions import i64

from adapters.rules import NO_RULES, Rules

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

# Protobuf's parser refuses a tag or a length padded beyond this.
_VARINT32_BYTES_MAX: Final = 5


class NonCanonical(Exception):
    """At `position`, the bytes are not as a plain encoder writes them: truncated, overlong, a group, or a wrong wire type."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position: int = position


class Cursor:
    """A `Cursor` reads fields of `buffer`. After `field`, the payload is `start:position`, and `value` is a varint's value. The
    length of a length-delimited field is at `length_at:start`."""

    def __init__(self, buffer: bytes, rules: Rules = NO_RULES) -> None:
        self.buffer: Final = buffer
        self.rules: Final = rules
        self.position: i64 = 0
        self.start: i64 = 0
        self.length_at: i64 = 0
        self.value: i64 = 0

    def varint(self, end: i64) -> i64:
        """Read an unsigned 64-bit varint, and return it as the signed integer of the same bits."""
        buffer = self.buffer
        p: i64 = self.position
        if p >= end:
            raise NonCanonical(p)
        byte: i64 = buffer[p]
        p += 1
        if byte < 128:
            self.position = p
            return byte
        result: i64 = byte & 127
        shift: i64 = 7
        while shift < 63:
            if p >= end:
                raise NonCanonical(p)
            byte = buffer[p]
            p += 1
            result |= (byte & 127) << shift
            if byte < 128:
                self.position = p
                return result
            shift += 7
        # The tenth byte holds the sign bit alone. Without it the number is padded, which protobuf allows, but ClickHouse does
        # not. The bit is subtracted in two steps, since uncompiled integers have no 64th bit to shift into.
        if p >= end or buffer[p] != 1:
            raise NonCanonical(p)
        result -= 0x7FFFFFFFFFFFFFFF
        result -= 1
        self.position = p + 1
        return result

    def skip_fields(self, tag: i64, end: i64) -> i64:
        """Move past fields of bytes with this tag, which has one byte, as long as their lengths take at most two bytes. Return
        the number of fields."""
        buffer = self.buffer
        p: i64 = self.position
        skipped: i64 = 0
        while p + 2 < end and buffer[p] == tag:
            length: i64 = buffer[p + 1]
            start: i64 = p + 2
            if length > 127:
                more: i64 = buffer[start]
                if more > 127:
                    break
                length = length & 127 | more << 7
                start += 1
            if length > end - start:
                break
            p = start + length
            skipped += 1
        self.position = p
        return skipped

    def field(self, end: i64) -> i64:
        """Return the next field's tag (number << 3 | wire type), and move past its payload."""
        first: i64 = self.position
        if first + 2 < end:
            # Nearly every field of bytes has one byte of tag, and one or two of length: such fields are read here.
            buffer = self.buffer
            short_tag: i64 = buffer[first]
            if short_tag & 7 == BYTES and 7 < short_tag < 128:
                start: i64 = first + 2
                size: i64 = buffer[first + 1]
                more: i64 = 0
                if size > 127:
                    more = buffer[start]
                    start += 1
                    size = size & 127 | more << 7
                if more < 128 and size <= end - start:
                    self.length_at = first + 1
                    self.start = start
                    self.position = start + size
                    return short_tag
        tag: i64 = self.varint(end)
        if tag < 8 or tag > 0xFFFFFFFF or self.position - first > _VARINT32_BYTES_MAX:
            raise NonCanonical(first)
        kind: i64 = tag & 7
        if kind == BYTES:
            first = self.position
            self.length_at = first
            length: i64 = self.varint(end)
            if length < 0 or length > end - self.position or self.position - first > _VARINT32_BYTES_MAX:
                raise NonCanonical(first)
            self.start = self.position
            self.position += length
        elif kind == VARINT:
            self.start = self.position
            self.value = self.varint(end)
        elif kind == FIXED64:
            if end - self.position < 8:
                raise NonCanonical(self.position)
            self.start = self.position
            self.position += 8
        elif kind == FIXED32:
            if end - self.position < 4:
                raise NonCanonical(self.position)
            self.start = self.position
            self.position += 4
        else:
            raise NonCanonical(self.position)
        return tag


def divides(message: bytes) -> bool:
    """Return whether a message is a sequence of whole fields: then no bytes that follow it are read as a part of it."""
    cursor = Cursor(message)
    end: i64 = len(message)
    try:
        while cursor.position < end:
            cursor.field(end)
    except NonCanonical:
        return False
    return True


# The high bits of the first n of eight bytes, as 8 bytes each, for n from 0 to 8. A literal of 64 bits would be an object,
# converted at every use.
HIGH_BITS: Final = b"".join([(0x8080808080808080 & (1 << 8 * n) - 1).to_bytes(8, "little") for n in range(9)])


# A decoder puts this in the place of invalid bytes; a text may also contain it.
_REPLACEMENT: Final = "\ufffd"
# How much of a text is read between two rests.
_TEXT_SLICE_BYTES: Final = 256 << 10
# A character has at most three bytes behind its first.
_CONTINUATIONS_MAX: Final = 3


def is_ascii(buffer: bytes, start: i64, end: i64) -> bool:
    """Return whether start:end, at least eight bytes, is ASCII. Such bytes are text, even if some are lengths below 128."""
    half: i64 = 0x80808080
    high_bits: i64 = half << 32 | half
    last: i64 = end - 8
    p: i64 = start
    while p < last:
        if read_i64_le(buffer, p) & high_bits:
            return False
        p += 8
    return not read_i64_le(buffer, last) & high_bits


def is_utf8(buffer: bytes, start: i64, end: i64, rules: Rules = NO_RULES) -> bool:
    """Return whether start:end is text as protobuf requires it of strings."""
    if end - start > _TEXT_SLICE_BYTES:
        return _is_long_utf8(buffer, start, end, rules)
    if end - start >= 8:
        return is_ascii(buffer, start, end) or _is_utf8_slow(buffer[start:end])
    p: i64 = start
    if p + 8 <= len(buffer):
        if read_i64_le(buffer, p) & read_i64_le(HIGH_BITS, (end - p) << 3):
            return _is_utf8_slow(buffer[start:end])
        return True
    while p < end:
        if buffer[p] > 127:
            return _is_utf8_slow(buffer[start:end])
        p += 1
    return True


def _is_long_utf8(buffer: bytes, start: i64, end: i64, rules: Rules) -> bool:
    """Return what `is_utf8` returns, slice by slice: a text of 60 MB takes 0.1 s, and 240 MB if it is decoded at once."""
    position: i64 = start
    while position < end:
        stop: i64 = end
        if end - position > _TEXT_SLICE_BYTES:
            stop = position + _TEXT_SLICE_BYTES
            # A slice ends before a character. If none begins near, the text is invalid, and so is a slice of it.
            first: i64 = stop - _CONTINUATIONS_MAX
            while stop > first and buffer[stop] & 0xC0 == 0x80:
                stop -= 1
        if not is_utf8(buffer, position, stop):
            return False
        position = stop
        rules.rest()
    return True


def _is_utf8_slow(text: bytes) -> bool:
    # "replace" raises no exception, which would take 1 us for each of a million texts.
    decoded = text.decode("utf-8", "replace")
    return _REPLACEMENT not in decoded or decoded.encode() == text


def varint_size(n: i64) -> i64:
    """Return how many bytes `put_varint` writes for a number that is not negative."""
    size: i64 = 1
    while n > 127:
        n >>= 7
        size += 1
    return size


def length_of(size_bytes: i64) -> bytes:
    """Return a length as a varint."""
    if size_bytes < _LENGTHS_KEPT:
        return _lengths[size_bytes]
    writer = BytesWriter()
    put_varint(writer, size_bytes)
    return writer.getvalue()


def with_length(buffer: bytes, start: i64, end: i64, rules: Rules) -> bytes:
    """Return start:end with its length before it. It may be most of a body, so each of the two copies counts as read."""
    size: i64 = end - start
    content = buffer[start:end]
    rules.read(size)
    content = length_of(size) + content
    rules.read(size)
    return content


def field_size(payload_bytes: i64) -> i64:
    """Return the size of a length-delimited field whose tag is one byte."""
    return 1 + varint_size(payload_bytes) + payload_bytes


def put_varint(writer: BytesWriter, n: i64) -> None:
    """Write a number that is not negative."""
    while n > 127:
        writer.append(int((n & 127) | 128))
        n >>= 7
    writer.append(int(n))


def put_signed_varint(writer: BytesWriter, n: i64) -> None:
    """Write any int64 or uint64, passed as the signed integer of the same bits. A negative number takes ten bytes."""
    if n >= 0:
        put_varint(writer, n)
        return
    shifted: i64 = 0
    for _ in range(9):
        writer.append(int((n & 127) | 128))
        n >>= 7
    shifted = n & 1
    writer.append(int(shifted))


def put_bytes(writer: BytesWriter, tag: i64, payload: bytes) -> None:
    """Write a length-delimited field."""
    put_varint(writer, tag)
    put_varint(writer, len(payload))
    writer.write(payload)


# Most messages are shorter.
_LENGTHS_KEPT: Final = 2048
_lengths: Final[list[bytes]] = [bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(_LENGTHS_KEPT)]
