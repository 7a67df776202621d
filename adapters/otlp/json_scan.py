"""Convert plain OTLP/JSON to OTLP/protobuf in one pass over its bytes, without an object for each value.

A field is found by comparing the text with the name that came at the same place last time. A message is written into the
writer of its depth, and copied behind its length. JSON that is not plain raises `NonPlain`, and `scanned` returns None:
adapters/otlp/json_large.py decides then.
"""

from typing import Final

from google.protobuf.descriptor import Descriptor
from librt.strings import BytesWriter, write_f64_le, write_i32_le, write_i64_le
from mypy_extensions import i32, i64, u8

from adapters.codec.digits import put_hex
from adapters.codec.json_characters import (
    CLOSING_BRACE,
    CLOSING_BRACKET,
    COLON,
    COMMA,
    OPENING_BRACE,
    OPENING_BRACKET,
    QUOTE,
    SMALL_N,
    SPACE,
)
from adapters.codec.json_integers import put_short_integers
from adapters.codec.json_scanner import PARSED_BYTES_MAX, NonPlain
from adapters.codec.text import REST_BYTES
from adapters.codec.wire import put_bytes, put_signed_varint, put_varint
from adapters.otlp.json_attributes import AttributeScanner
from adapters.otlp.json_fields import BOOL, DOUBLE, FIXED32, FIXED64, HEX, MESSAGE, TEXT, VARINT, Field, Fields, Name, fields_of
from adapters.otlp.json_notes import Inexact, Notes
from adapters.otlp.json_objects import drop_zero, put_field, put_scalar
from adapters.rules import Rules

# The deepest nesting of messages. The reader over objects reads deeper ones.
_SCANNED_DEPTH_MAX: Final = 64
_ID_DIGITS_MAX: Final = 64
_INT32_END: Final = 1 << 31


def scanned(body: bytes, descriptor: Descriptor, rules: Rules, notes: Notes) -> bytes | None:
    """Return the serialized message that the JSON describes; None if the JSON is not plain."""
    scan = _Scan(body, rules, notes)
    try:
        return scan.request(fields_of(descriptor, rules.json_forms))
    except (NonPlain, Inexact, IndexError):  # IndexError: the text ends too soon
        return None


class _Scan(AttributeScanner):
    def __init__(self, text: bytes, rules: Rules, notes: Notes) -> None:
        super().__init__(text, rules)
        self.notes: Final = notes
        # The position behind the bytes that a method without a result has read.
        self.position: i64 = 0
        # The writer of each depth.
        self.levels: Final[list[BytesWriter]] = []
        self.packed: Final = BytesWriter()

    def request(self, fields: Fields) -> bytes:
        """Return the serialized request that the whole text describes."""
        writer = BytesWriter()
        position: i64 = self.skip_space(0)
        if self.text[position] != OPENING_BRACE:
            raise NonPlain
        self.position = position + 1
        self._message(writer, fields, 0)
        self.finish(self.position)
        self.rules.rest()
        wire = writer.getvalue()
        self.rules.rest()
        return wire

    def _message(self, writer: BytesWriter, fields: Fields, depth: i64) -> None:
        """Write the message whose object has been opened before `position`, and move behind it."""
        text = self.text
        position: i64 = self.position
        byte: i64 = text[position]
        if byte <= SPACE:
            position = self.skip_space(position)
            byte = text[position]
        if byte == CLOSING_BRACE:
            self.position = position + 1
            return
        # The unknown fields from here on are of this message, or of a message in it.
        unknown: i64 = len(self.notes.unknown)
        seen: i64 = 0
        previous = fields.head
        while True:
            name = previous.follower
            is_known = True
            if self.is_name(name, position):
                position += name.size
            else:
                found = self._name(fields, position, unknown)
                position = self.position
                if found is None:
                    is_known = False
                else:
                    name = found
                    previous.follower = name
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            if not is_known:
                position = self.value_end(position)
                if position > self.rest_at:
                    self.rest(position)
            else:
                previous = name
                field = name.field
                if seen & field.bit:
                    raise NonPlain
                seen |= field.bit
                if byte == SMALL_N:
                    position = self.null_end(position)
                elif field.repeated:
                    position = self._array(writer, field, position, depth)
                else:
                    position = self._value(writer, field, position, depth)
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            position += 1
            if byte != COMMA:
                if byte != CLOSING_BRACE:
                    raise NonPlain
                self.position = position
                return
            if text[position] <= SPACE:
                position = self.skip_space(position)

    def _name(self, fields: Fields, position: i64, unknown: i64) -> Name | None:
        """Return the name of the member at `position`; None if it is unknown. Move behind the colon."""
        text = self.text
        if text[position] != QUOTE:
            raise NonPlain
        end: i64 = self.string_end(position + 1)
        if end - position > PARSED_BYTES_MAX:
            raise NonPlain
        content = text[position + 1 : end]
        if not self.is_plain:
            content = self.unescaped(position + 1, end)
        position = end + 1
        if text[position] <= SPACE:
            position = self.skip_space(position)
        if text[position] != COLON:
            raise NonPlain
        self.position = position + 1
        name = fields.names.get(content)
        if name is None and not fields.is_item:
            self._note(fields, content.decode(), unknown)
        return name

    def _note(self, fields: Fields, name: str, unknown: i64) -> None:
        """Note an unknown field, at most once for a message."""
        notes = self.notes
        before = len(notes.unknown)
        notes.skip(fields, name)
        if len(notes.unknown) > before and notes.unknown[before] in notes.unknown[unknown:before]:
            raise NonPlain

    def _level(self, depth: i64) -> BytesWriter:
        """Return the writer of a depth, emptied."""
        if depth > _SCANNED_DEPTH_MAX:
            raise NonPlain
        levels = self.levels
        while len(levels) <= depth:
            levels.append(BytesWriter())
        level = levels[depth]
        level.truncate(0)
        return level

    def _close(self, writer: BytesWriter, tag: i64, level: BytesWriter) -> None:
        """Write a message, as a field, from the writer of its depth."""
        if len(level) > REST_BYTES:
            self.rules.rest()
            content = level.getvalue()
            self.rules.rest()
            put_bytes(writer, tag, content)
            self.rules.rest()
        else:
            put_bytes(writer, tag, level.getvalue())

    def _array(self, writer: BytesWriter, field: Field, position: i64, depth: i64) -> i64:
        """Write the array at `position`, of a repeated field. Return where it ends."""
        text = self.text
        if text[position] != OPENING_BRACKET:
            raise NonPlain
        position += 1
        byte: i64 = text[position]
        if byte <= SPACE:
            position = self.skip_space(position)
            byte = text[position]
        if byte == CLOSING_BRACKET:
            return position + 1
        packed = self.packed
        is_packed = field.packed
        has_integers = is_packed and (field.wire_kind == VARINT or field.wire_kind == FIXED64)
        if is_packed:
            packed.truncate(0)
        while True:
            if has_integers:
                position = put_short_integers(packed, self, position, field.most, field.wire_kind == VARINT)
                position = self.skip_space(position)
                byte = text[position]
            if byte == SMALL_N:
                position = self.null_end(position)
                self.notes.nulls += 1
            elif is_packed:
                position = self._scalar(packed, field, position)
            else:
                position = self._value(writer, field, position, depth)
            if position > self.rest_at:
                self.rest(position)
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
            position += 1
            if byte != COMMA:
                if byte != CLOSING_BRACKET:
                    raise NonPlain
                break
            byte = text[position]
            if byte <= SPACE:
                position = self.skip_space(position)
                byte = text[position]
        if is_packed and len(packed):
            self._close(writer, field.wire_tag, packed)
        return position

    def _value(self, writer: BytesWriter, field: Field, position: i64, depth: i64) -> i64:
        """Write a value of a field that is not packed, with its tag. Return where it ends."""
        text = self.text
        kind: i64 = field.wire_kind
        end: i64 = 0
        if kind == MESSAGE:
            if field.is_attribute:
                end = self.put_attribute(writer, field.wire_tag, position)
            elif field.is_any_value:
                end = self.put_text_value(writer, field.wire_tag, position)
            if end:
                return end
            if text[position] != OPENING_BRACE:
                raise NonPlain
            if field.is_item:
                self.notes.count_item()
            level = self._level(depth)
            self.position = position + 1
            self._message(level, field.fields(), depth + 1)
            self._close(writer, field.wire_tag, level)
            return self.position
        if kind == TEXT:
            if text[position] != QUOTE:
                raise NonPlain
            end = self.string_end(position + 1)
            self.put_string(writer, field.wire_tag, position + 1, end)
            return end + 1
        if kind == HEX:
            end = self._id(writer, field.wire_tag, position)
            if end:
                return end
        elif kind == VARINT or kind == FIXED64 or kind == FIXED32 or kind == DOUBLE or kind == BOOL:
            if not field.is_attribute_integer:
                start: i64 = len(writer)
                put_varint(writer, field.wire_tag)
                end = self._scalar(writer, field, position)
                if field.is_temporality:
                    drop_zero(writer, start)
                return end
            end = self.simple_integer_end(position)
            if end:
                put_varint(writer, field.wire_tag)
                put_signed_varint(writer, self.integer)
                return end
        byte: i64 = text[position]
        if byte == OPENING_BRACE or byte == OPENING_BRACKET:  # bytes, as numbers
            end = self.value_end(position)
        else:
            end = self.scalar_end(position)
        if not put_field(writer, field, self.loaded(position, end), self.notes):
            raise NonPlain
        return end

    def _scalar(self, writer: BytesWriter, field: Field, position: i64) -> i64:
        """Write a number or a boolean, without a tag. Return where it ends."""
        kind: i64 = field.wire_kind
        end: i64 = 0
        if kind == DOUBLE:
            end = self.double_end(position)
            if end and self.is_number_end(end):
                write_f64_le(writer, self.double)
                return end
        elif kind == FIXED64 or kind == VARINT or kind == FIXED32:
            end = self.simple_integer_end(position)
            number: i64 = self.integer
            if end and number >= field.least and number <= field.most:
                if kind == FIXED64:
                    write_i64_le(writer, number)
                elif kind == VARINT:
                    put_signed_varint(writer, number)
                elif number < _INT32_END:
                    write_i32_le(writer, i32(number))
                else:
                    write_i32_le(writer, i32(number - 2 * _INT32_END))
                return end
        elif kind == BOOL:
            end = self.true_end(position)
            if end:
                writer.append(1)
                return end
        end = self.scalar_end(position)
        if not put_scalar(writer, field, self.loaded(position, end), self.notes):
            raise NonPlain
        return end

    def _id(self, writer: BytesWriter, tag: i64, position: i64) -> i64:
        """Write the hex id at `position`. Return where it ends, or 0 if the value is not a hex id."""
        text = self.text
        if text[position] != QUOTE:
            return 0
        digits: i64 = self.string_end(position + 1) - position - 1
        if digits & 1 or digits > _ID_DIGITS_MAX:
            return 0
        written: i64 = len(writer)
        put_varint(writer, tag)
        writer.append(u8(digits >> 1))
        position += 1
        end: i64 = position + digits
        if not put_hex(writer, text, position, end):
            writer.truncate(written)
            return 0
        return end + 1
