"""Checks a message against its table, and rewrites it into the normal form where it has to be.

The law: `scan` passes only what protobuf's parser would read to the same message, and says whether a copy of the bytes is
already normal; `normal` is called only on what `scan` has passed. What is odd raises `NotPlain`.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le
from mypy_extensions import i64

from adapters.otlp.attributes import CLEAN, REWRITE, Attribute, string_value, text_of
from adapters.otlp.messages import (
    ATTRIBUTE,
    BIT_MASKS,
    BODY,
    BOOL,
    DATA,
    INT32,
    ITEM,
    MESSAGE,
    NAME,
    ODD,
    OTHER_TIME,
    PACKED_FIXED64,
    PACKED_VARINT,
    RAW,
    SCALAR,
    SKIP,
    SPAN_ID,
    TEMPORALITY,
    TEXT,
    TIME,
    TRACE_ID,
    UINT32,
    Message,
)
from adapters.record import Rules
from adapters.wire import Cursor, NotPlain, is_utf8, put_bytes

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8


class Scanner:
    """Scans messages of one request's body. The notes (`time`, …) are those of the item or envelope scanned last."""

    def __init__(self, cursor: Cursor, rules: Rules) -> None:
        self.cursor: Final = cursor
        self.buffer: Final = cursor.buffer
        self.rules: Final = rules
        self.attribute: Final = Attribute(cursor, rules)
        # Set where some list of attributes has a key twice; then `rewrite` looks for it.
        self.duplicate_keys: bool = False
        self.time: i64 = 0
        self.other_time: i64 = 0
        self.valid_trace_id: bool = False
        self.valid_span_id: bool = False
        # Set where an id is there, and is none: of the wrong length, or all zero.
        self.invalid_id: bool = False
        self.data_tag: i64 = 0
        self.data_at: i64 = 0
        self.data_start: i64 = 0
        self.data_end: i64 = 0
        self.items: i64 = 0
        self.temporality: i64 = 0

    def begin(self) -> None:
        """Forget the notes, before an item or envelope is scanned."""
        self.duplicate_keys = False
        self.time = 0
        self.other_time = 0
        self.valid_trace_id = False
        self.valid_span_id = False
        self.invalid_id = False
        self.data_tag = 0
        self.items = 0
        self.temporality = 0

    def scan(self, message: Message, start: i64, end: i64) -> i64:
        """CLEAN, REWRITE, or the first reason why it can't be taken. Raises NotPlain."""
        cursor = self.cursor
        actions = message.actions
        masks = message.masks
        seen: i64 = 0
        keys: i64 = 0  # one bit a hashed key
        attributes: i64 = 0
        state: i64 = CLEAN
        cursor.position = start
        while cursor.position < end:
            at: i64 = cursor.position
            tag: i64 = cursor.field(end)
            if tag > 255:
                continue
            action: i64 = actions[tag]
            mask: i64 = read_i64_le(masks, tag << 3)
            if mask:
                if seen & mask:
                    raise NotPlain(at)
                seen |= mask
            if action == SCALAR or action == RAW or action == SKIP:
                continue
            first: i64 = cursor.start
            after: i64 = cursor.position
            if action == ATTRIBUTE:
                found: i64 = self.attribute.check(first, after)
                if found > state and state <= REWRITE:
                    state = found
                attributes += 1
                key_bit: i64 = read_i64_le(BIT_MASKS, self._key_hash() << 3)
                if keys & key_bit and self._is_repeated(message, start, at):
                    self.duplicate_keys = True
                    if state == CLEAN:
                        state = REWRITE
                keys |= key_bit
                cursor.position = after
            elif action == TEXT:
                if not is_utf8(self.buffer, first, after):
                    raise NotPlain(first)
            elif action == INT32:
                if cursor.value < -0x80000000 or cursor.value > 0x7FFFFFFF:
                    raise NotPlain(first)
            elif action == UINT32:
                if cursor.value < 0 or cursor.value > 0xFFFFFFFF:
                    raise NotPlain(first)
            elif action == BOOL:
                if cursor.value < 0 or cursor.value > 1:
                    raise NotPlain(first)
            elif action == PACKED_FIXED64:
                if (after - first) & 7:
                    raise NotPlain(first)
            elif action == PACKED_VARINT:
                cursor.position = first
                while cursor.position < after:
                    cursor.varint(after)
            elif action == MESSAGE:
                found = self.scan(message.children[tag], first, after)
                if found > state and state <= REWRITE:
                    state = found
                cursor.position = after
            elif action == NAME:
                if not is_utf8(self.buffer, first, after):
                    raise NotPlain(first)
                found = self.rules.check_name(after - first)
                if found > state and state <= REWRITE:
                    state = found
            elif action == BODY:
                found = self._check_body(first, after)
                if found > state and state <= REWRITE:
                    state = found
                cursor.position = after
            elif action == ODD:
                raise NotPlain(at)
            else:
                self._note(action, tag, at)
        if attributes:
            found = self.rules.check_attribute_count(attributes)
            if found > state and state <= REWRITE:
                state = found
        return state

    def _note(self, action: i64, tag: i64, at: i64) -> None:
        """Take down what is asked about an item or its envelope."""
        cursor = self.cursor
        first: i64 = cursor.start
        if action == TIME:
            self.time = read_i64_le(self.buffer, first)
        elif action == OTHER_TIME:
            self.other_time = read_i64_le(self.buffer, first)
        elif action == TRACE_ID:
            self.valid_trace_id = _is_id(self.buffer, first, cursor.position, TRACE_ID_BYTES)
            self.invalid_id = self.invalid_id or (not self.valid_trace_id and cursor.position > first)
        elif action == SPAN_ID:
            self.valid_span_id = _is_id(self.buffer, first, cursor.position, SPAN_ID_BYTES)
            self.invalid_id = self.invalid_id or (not self.valid_span_id and cursor.position > first)
        elif action == ITEM:
            self.items += 1
        elif action == TEMPORALITY:
            if cursor.value < -0x80000000 or cursor.value > 0x7FFFFFFF:
                raise NotPlain(first)
            self.temporality = cursor.value
        elif action == DATA:
            self.data_tag = tag
            self.data_at = at
            self.data_start = first
            self.data_end = cursor.position

    def _key_hash(self) -> i64:
        """0 to 63, of the key of the attribute checked last."""
        buffer = self.buffer
        start: i64 = self.attribute.key_start
        end: i64 = self.attribute.key_end
        length: i64 = end - start
        if length >= 8:
            tail: i64 = read_i64_le(buffer, end - 8)
            mixed: i64 = (tail ^ (tail >> 32) ^ (length << 8) ^ buffer[start]) & 0xFFFFFFFF
            return ((mixed * 0x5E3779B1) >> 32) & 63  # multiplicative hashing; the product stays below 2**63
        if length == 0:
            return 0
        return (length * 7 + buffer[start] * 31 + buffer[end - 1] * 17) & 63

    def _is_repeated(self, message: Message, start: i64, at: i64) -> bool:
        """Whether the key of the attribute checked last stands in the same list, before `at`."""
        attribute = self.attribute
        key_start: i64 = attribute.key_start
        key_end: i64 = attribute.key_end
        key = self.buffer[key_start:key_end]
        cursor = self.cursor
        position: i64 = start
        found = False
        while position < at and not found:
            cursor.position = position
            tag: i64 = cursor.field(at)
            position = cursor.position
            if tag < 256 and message.actions[tag] == ATTRIBUTE:
                attribute.locate(cursor.start, position)
                if attribute.key_end - attribute.key_start == key_end - key_start:
                    found = self.buffer[attribute.key_start : attribute.key_end] == key
        return found

    def _check_body(self, start: i64, end: i64) -> i64:
        """A log's body: any value; clean where it is a string."""
        reason: i64 = self.attribute.check_value(start, end, 0)
        if reason:
            return reason
        cursor = self.cursor
        cursor.position = start
        if start < end and self.buffer[start] == 0x0A:
            cursor.field(end)
            if cursor.position == end:
                return CLEAN
        return REWRITE

    def normal(self, message: Message, start: i64, end: i64) -> bytes:
        """The normal form of the whole fields at start:end, which `scan` has passed."""
        writer = BytesWriter()
        self.rewrite(writer, message, start, end)
        return writer.getvalue()

    def rewrite(self, writer: BytesWriter, message: Message, start: i64, end: i64) -> None:
        """Write the normal form of the whole fields at start:end."""
        cursor = self.cursor
        buffer = self.buffer
        last = self._last_positions(message, start, end) if self.duplicate_keys else None
        keep: i64 = start  # from here on not written yet
        position: i64 = start
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            action: i64 = message.actions[tag] if tag < 256 else SKIP
            first: i64 = cursor.start
            if action == ATTRIBUTE:
                if last is not None and last[self.attribute.key_of(first, position)] != at:
                    writer.write(buffer[keep:at])
                    keep = position
                elif self.attribute.locate(first, position) != CLEAN:
                    writer.write(buffer[keep:at])
                    put_bytes(writer, tag, self.attribute.normal(first, position))
                    keep = position
            elif action == MESSAGE:
                child = message.children[tag]
                if child.has_attributes:
                    writer.write(buffer[keep:at])
                    put_bytes(writer, tag, self.normal(child, first, position))
                    keep = position
            elif action == BODY:
                writer.write(buffer[keep:at])
                put_bytes(writer, tag, string_value(text_of(cursor, first, position)))
                keep = position
            elif action == TRACE_ID or action == SPAN_ID:
                # Only a log record comes here with an id that is none: kept, without the association.
                if not _is_id(buffer, first, position, TRACE_ID_BYTES if action == TRACE_ID else SPAN_ID_BYTES):
                    writer.write(buffer[keep:at])
                    keep = position
        writer.write(buffer[keep:end])

    def has_attribute(self, message: Message, start: i64, end: i64) -> bool:
        """Whether any field at start:end is an attribute."""
        return len(self._last_positions(message, start, end)) > 0

    def _last_positions(self, message: Message, start: i64, end: i64) -> dict[bytes, int]:
        """Where each attribute's key stands last."""
        last: dict[bytes, int] = {}
        position: i64 = start
        cursor = self.cursor
        while position < end:
            at: i64 = position
            cursor.position = at
            tag: i64 = cursor.field(end)
            position = cursor.position
            if tag < 256 and message.actions[tag] == ATTRIBUTE:
                last[self.attribute.key_of(cursor.start, position)] = at
        return last


def _is_id(buffer: bytes, start: i64, end: i64, length: i64) -> bool:
    """Whether it has the length of an id, and is not all zero."""
    if end - start != length:
        return False
    position: i64 = start
    while position < end:
        if read_i64_le(buffer, position) != 0:
            return True
        position += 8
    return False
