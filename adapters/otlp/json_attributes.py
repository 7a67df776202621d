"""Read the attributes and texts of plain OTLP/JSON at once: they are the greatest part of a request.

An attribute is written without white space by nearly every sender, with its key before its value. So its names are compared as
words of eight bytes. Whatever looks different is left to the reader of all messages, adapters/otlp/json_scan.py.
"""

from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_f64_le, write_i32_le
from mypy_extensions import i32, i64, u8

from adapters.codec.json_characters import CLOSING_BRACE, QUOTE
from adapters.codec.json_scanner import JsonScanner
from adapters.codec.wire import put_signed_varint, varint_size
from adapters.otlp.any_value_tags import BOOL, DOUBLE, INT

# The beginnings of attributes and bodies that are written without white space, as words.
_KEY: Final = b'{"key":"'
_VALUE: Final = b',"value"'
_STRING_1: Final = b':{"strin'
_STRING_2: Final = b'gValue":'
_INT_1: Final = b':{"intVa'
_INT_2: Final = b'lue":\0\0\0'
_INT_2_MASK: Final = b"\xff\xff\xff\xff\xff\0\0\0"
_DOUBLE_1: Final = b':{"doubl'
_DOUBLE_2: Final = b'eValue":'
_BOOL_1: Final = b':{"boolV'
_TRUE: Final = b'alue":true}}\0\0\0\0'
_FALSE: Final = b'alue":false}}\0\0\0'
_BODY_1: Final = b'{"string'
_BODY_2: Final = b'Value":"'
# The longest attribute or value that is written at once, and the bytes that are compared behind its key.
_SHORT_MAX: Final = 127
_COMPARED_BYTES: Final = 64
_VARINT_BYTES_MAX: Final = 10
# The size of an AnyValue with a double, and of one with a boolean.
_DOUBLE_BYTES: Final = 9
_BOOL_BYTES: Final = 2


class AttributeScanner(JsonScanner):
    """An `AttributeScanner` reads short attributes and texts."""

    def simple_integer_end(self, position: i64) -> i64:
        """Read the integer at `position`, with or without quotes, into `integer`. Return its end, or 0 if it is not simple."""
        text = self.text
        if text[position] == QUOTE:
            end: i64 = self.integer_end(position + 1)
            return end + 1 if end and text[end] == QUOTE else 0
        end = self.integer_end(position)
        return end if end and self.is_number_end(end) else 0

    def put_text_value(self, writer: BytesWriter, tag: i64, position: i64) -> i64:
        """Write the AnyValue at `position` if it is a short text. Return where it ends, or 0 if it is anything else."""
        text = self.text
        if position + _COMPARED_BYTES > self.size or tag > _SHORT_MAX:
            return 0
        if read_i64_le(text, position) != read_i64_le(_BODY_1, 0):
            return 0
        if read_i64_le(text, position + 8) != read_i64_le(_BODY_2, 0):
            return 0
        start: i64 = position + 16
        end: i64 = self.string_end(start)
        size: i64 = end - start
        if not self.is_plain or size + 2 > _SHORT_MAX or text[end + 1] != CLOSING_BRACE:
            return 0
        write_i32_le(writer, i32(tag | (size + 2) << 8 | 0x0A << 16 | size << 24))
        self.copy(writer, start, end)
        return end + 2

    def put_attribute(self, writer: BytesWriter, tag: i64, position: i64) -> i64:
        """Write the KeyValue at `position` if it is short, and its value is a text, a number or a boolean. Return where it
        ends, or 0 if it is anything else."""
        text = self.text
        if position + _COMPARED_BYTES > self.size or tag > _SHORT_MAX:
            return 0
        if read_i64_le(text, position) != read_i64_le(_KEY, 0):
            return 0
        key: i64 = position + 8
        key_end: i64 = self.string_end(key)
        if not self.is_plain or key_end + _COMPARED_BYTES > self.size:
            return 0
        if read_i64_le(text, key_end + 1) != read_i64_le(_VALUE, 0):
            return 0
        key_size: i64 = key_end - key
        word: i64 = read_i64_le(text, key_end + 9)
        if word == read_i64_le(_STRING_1, 0):
            if read_i64_le(text, key_end + 17) != read_i64_le(_STRING_2, 0) or text[key_end + 25] != QUOTE:
                return 0
            start: i64 = key_end + 26
            end: i64 = self.string_end(start)
            size: i64 = end - start
            if not self.is_plain or key_size + size + 6 > _SHORT_MAX:
                return 0
            if text[end + 1] != CLOSING_BRACE or text[end + 2] != CLOSING_BRACE:
                return 0
            write_i32_le(writer, i32(tag | (key_size + size + 6) << 8 | 0x0A << 16 | key_size << 24))
            self.copy(writer, key, key_end)
            write_i32_le(writer, i32(0x12 | (size + 2) << 8 | 0x0A << 16 | size << 24))
            self.copy(writer, start, end)
            return end + 3
        if word == read_i64_le(_INT_1, 0):
            return self._integer_attribute(writer, tag, key, key_end)
        if word == read_i64_le(_DOUBLE_1, 0):
            return self._double_attribute(writer, tag, key, key_end)
        if word == read_i64_le(_BOOL_1, 0):
            return self._bool_attribute(writer, tag, key, key_end)
        return 0

    def _integer_attribute(self, writer: BytesWriter, tag: i64, key: i64, key_end: i64) -> i64:
        """Continue `put_attribute` when the key is known and the value is an integer."""
        text = self.text
        if (read_i64_le(text, key_end + 17) ^ read_i64_le(_INT_2, 0)) & read_i64_le(_INT_2_MASK, 0):
            return 0
        end: i64 = self.simple_integer_end(key_end + 22)
        if end == 0 or text[end] != CLOSING_BRACE or text[end + 1] != CLOSING_BRACE:
            return 0
        number: i64 = self.integer
        size: i64 = _VARINT_BYTES_MAX
        if number >= 0:
            size = varint_size(number)
        if not self._put_key(writer, tag, key, key_end, size + 1):
            return 0
        writer.append(INT)
        put_signed_varint(writer, number)
        return end + 2

    def _double_attribute(self, writer: BytesWriter, tag: i64, key: i64, key_end: i64) -> i64:
        """Continue `put_attribute` when the key is known and the value is a double."""
        text = self.text
        if read_i64_le(text, key_end + 17) != read_i64_le(_DOUBLE_2, 0):
            return 0
        end: i64 = self.double_end(key_end + 25)
        if end == 0 or text[end] != CLOSING_BRACE or text[end + 1] != CLOSING_BRACE:
            return 0
        if not self._put_key(writer, tag, key, key_end, _DOUBLE_BYTES):
            return 0
        writer.append(DOUBLE)
        write_f64_le(writer, self.double)
        return end + 2

    def _bool_attribute(self, writer: BytesWriter, tag: i64, key: i64, key_end: i64) -> i64:
        """Continue `put_attribute` when the key is known and the value is a boolean."""
        text = self.text
        word: i64 = read_i64_le(text, key_end + 17)
        rest: i64 = read_i64_le(text, key_end + 25)
        end: i64 = key_end + 29
        value: i64 = 1
        if word == read_i64_le(_FALSE, 0):
            rest ^= read_i64_le(_FALSE, 8)
            # The last five bytes count.
            rest &= 0xFFFFFFFFFF
            value = 0
            end += 1
        elif word == read_i64_le(_TRUE, 0):
            rest ^= read_i64_le(_TRUE, 8)
            rest &= 0xFFFFFFFF
        else:
            return 0
        if rest or not self._put_key(writer, tag, key, key_end, _BOOL_BYTES):
            return 0
        writer.append(BOOL)
        writer.append(u8(value))
        return end

    def _put_key(self, writer: BytesWriter, tag: i64, key: i64, key_end: i64, value_bytes: i64) -> bool:
        """Write a KeyValue up to its AnyValue, which has `value_bytes`. Return False if it is too long."""
        key_size: i64 = key_end - key
        size: i64 = key_size + value_bytes + 4
        if size > _SHORT_MAX:
            return False
        write_i32_le(writer, i32(tag | size << 8 | 0x0A << 16 | key_size << 24))
        self.copy(writer, key, key_end)
        writer.append(0x12)
        writer.append(u8(value_bytes))
        return True
