"""Read plain JSON from its bytes, without an object for each value: strings, numbers, names, and where a value ends.

Nearly all JSON that senders write is plain. Anything else, legal or not, raises `NonPlain`, and the caller lets the reader
that makes Python objects decide. So one place decides what is accepted, repaired or refused.

Invariants:
1. A string, number or skipped value that is not JSON raises NonPlain (tests/unit/adapters/codec/test_json_scanner.py,
   test_values_are_read_as_orjson_reads_them).
2. The scanner rests at least once for each 256 KiB (test_json_scanner.py, test_it_rests).
"""

from struct import pack
from typing import Final

import orjson
from librt.strings import BytesWriter, read_f64_le, read_i64_le, write_i64_le
from mypy_extensions import i64, u8

from adapters.codec.digits import decimal_of
from adapters.codec.json_characters import (
    ASCII_END,
    BACKSLASH,
    CASE,
    CLOSING_BRACE,
    CLOSING_BRACKET,
    COMMA,
    MINUS,
    NINE,
    OPENING_BRACE,
    OPENING_BRACKET,
    POINT,
    QUOTE,
    SMALL_E,
    SPACE,
    ZERO,
)
from adapters.codec.json_reader import CONTAINERS_MAX
from adapters.codec.text import REST_BYTES, end_of_string
from adapters.codec.wire import put_varint
from adapters.rules import Rules

_WORD_BYTES: Final = 8

# The most bytes of a value, and of a string, that the parser gets: it makes objects of them, and does not rest meanwhile.
PARSED_BYTES_MAX: Final = 64 << 10
PARSED_STRING_BYTES_MAX: Final = 1 << 20
# The most bytes that are copied word by word; a longer string is copied at once.
_COPIED_AT_ONCE: Final = 96
# A number of this many digits always fits 64 bits.
_PLAIN_DIGITS_MAX: Final = 18
# Every number of eight digits is below this.
_WORD_DIGITS_END: Final = 100_000_000
# The first 18 digits of the largest int64, which has 19, and the last one.
_TOP_DIGITS: Final = 922_337_203_685_477_580
_TOP_LAST_DIGIT: Final = 7
# A double holds every integer up to the first, and every power of ten up to the second: one division is correctly rounded.
_EXACT_MAX: Final = 1 << 53
_POWER_MAX: Final = 22

# Read from bytes: a literal of 64 bits whose highest bit is set would be an object.
_QUOTES: Final = b'"' * 8
_BACKSLASHES: Final = b"\\" * 8
_SPACES: Final = b" " * 8
_ONES: Final = b"\1" * 8
_HIGH_BITS: Final = b"\x80" * 8


POWERS: Final = pack(f"<{_POWER_MAX + 1}d", *[float(10**exponent) for exponent in range(_POWER_MAX + 1)])


class NonPlain(Exception):
    """The text is not plain JSON: it has an invalid escape, a lone surrogate, a number of many digits, or a name twice."""


class JsonName:
    """A `JsonName` holds a member's name, with its quotes and its colon, as words to compare a text with."""

    def __init__(self, name: str) -> None:
        token = f'"{name}":'.encode()
        padding = -len(token) % _WORD_BYTES
        self.size: Final[i64] = len(token)
        self.words: Final[bytes] = token + bytes(padding)
        self.masks: Final[bytes] = b"\xff" * len(token) + bytes(padding)
        self.words_size: Final[i64] = len(self.words)


class JsonScanner:
    """A `JsonScanner` reads `text`, and rests as `rules` say."""

    def __init__(self, text: bytes, rules: Rules) -> None:
        self.text: Final = text
        self.rules: Final = rules
        self.size: i64 = len(text)
        self.rest_at: i64 = REST_BYTES
        # After `string_end`: whether the string is ASCII without escapes. `unescaped` reads any other string.
        self.is_plain: bool = True
        # The numbers that `integer_end` and `double_end` read last.
        self.integer: i64 = 0
        self.double: float = 0.0

    def skip_space(self, position: i64) -> i64:
        """Return where the white space ends that may begin at `position`."""
        text = self.text
        byte: i64 = text[position]
        if byte == SPACE:  # a single space is the most usual
            position += 1
            byte = text[position]
        if byte > SPACE:
            return position
        last: i64 = self.size - _WORD_BYTES
        spaces: i64 = read_i64_le(_SPACES, 0)
        while byte <= SPACE:
            if byte != SPACE and byte != 0x0A and byte != 0x0D and byte != 0x09:
                raise NonPlain
            position += 1
            while position <= last and read_i64_le(text, position) == spaces:
                position += _WORD_BYTES
                if position > self.rest_at:
                    self.rest(position)
            if position > self.rest_at:
                self.rest(position)
            byte = text[position]
        return position

    def is_name(self, name: JsonName, position: i64) -> bool:
        """Return whether the text has `name`, with its colon, at `position`."""
        text = self.text
        words = name.words
        masks = name.masks
        end: i64 = name.words_size
        if position + end > self.size:
            return False
        at: i64 = 0
        while at < end:
            if (read_i64_le(text, position + at) ^ read_i64_le(words, at)) & read_i64_le(masks, at):
                return False
            at += _WORD_BYTES
        return True

    def string_end(self, start: i64) -> i64:
        """Return where the quote is that closes the string whose content begins at `start`."""
        text = self.text
        last: i64 = self.size - _WORD_BYTES
        quotes: i64 = read_i64_le(_QUOTES, 0)
        backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
        spaces: i64 = read_i64_le(_SPACES, 0)
        ones: i64 = read_i64_le(_ONES, 0)
        high_bits: i64 = read_i64_le(_HIGH_BITS, 0)
        rest_at: i64 = start + REST_BYTES
        position: i64 = start
        while position <= last:
            # For an ASCII byte, a subtraction sets the high bit if the byte is below a space, or if the exclusive-or left
            # zero. A borrow reaches only the bytes behind such a byte.
            word: i64 = read_i64_le(text, position)
            quote: i64 = word ^ quotes
            backslash: i64 = word ^ backslashes
            found: i64 = ((word - spaces) | (quote - ones) | (backslash - ones) | word) & high_bits
            if found == 0:
                position += _WORD_BYTES
                if position > rest_at:
                    self.rules.rest()
                    rest_at = position + REST_BYTES
                continue
            # The bits below the lowest that is set count the bytes before it.
            position += ((((found & -found) - 1) & ones) * ones >> 56 & 0xF) - 1
            break
        if text[position] == QUOTE:
            self.is_plain = True
            return position
        return self._string_end_slow(start, position)

    def _string_end_slow(self, start: i64, position: i64) -> i64:
        """Return what `string_end` returns, for a string that is plain up to `position`."""
        text = self.text
        size: i64 = self.size
        is_plain = True
        while position < size:
            byte: i64 = text[position]
            if byte == QUOTE:
                self.is_plain = is_plain
                if not is_plain and position - start > PARSED_STRING_BYTES_MAX:
                    raise NonPlain
                return position
            if byte < SPACE:
                raise NonPlain
            if byte == BACKSLASH or byte >= ASCII_END:
                is_plain = False
                # The string may be long; `unescaped` decides whether it is valid.
                position = end_of_string(text, position, size, self.rules) - 1
                if position + 1 >= size:
                    raise NonPlain
                continue
            position += 1
        raise NonPlain

    def unescaped(self, start: i64, end: i64) -> bytes:
        """Return the string whose content is at start:end, in UTF-8."""
        try:
            text: object = orjson.loads(self.text[start - 1 : end + 1])
        except orjson.JSONDecodeError:
            raise NonPlain from None
        assert isinstance(text, str)
        return text.encode()

    def put_string(self, writer: BytesWriter, tag: i64, start: i64, end: i64) -> None:
        """Write the string whose content is at start:end as a field. It must be the last that `string_end` found."""
        if not self.is_plain:
            content = self.unescaped(start, end)
            put_varint(writer, tag)
            put_varint(writer, len(content))
            writer.write(content)
            return
        size: i64 = end - start
        if tag < 128 and size < 128:
            writer.append(u8(tag))
            writer.append(u8(size))
        else:
            put_varint(writer, tag)
            put_varint(writer, size)
        self.copy(writer, start, end)

    def copy(self, writer: BytesWriter, start: i64, end: i64) -> None:
        """Write start:end of the text."""
        text = self.text
        size: i64 = end - start
        if size > _COPIED_AT_ONCE or end + _WORD_BYTES > self.size:
            if size > REST_BYTES:
                self.rules.rest()
            writer.write(text[start:end])
            if size > REST_BYTES:
                self.rules.rest()
            return
        whole: i64 = len(writer) + size
        while start < end:
            write_i64_le(writer, read_i64_le(text, start))
            start += _WORD_BYTES
        writer.truncate(whole)

    def integer_end(self, position: i64) -> i64:
        """Read the integer at `position` into `integer`. Return its end, or 0 if there is none or it has too many digits."""
        is_negative = self.text[position] == MINUS
        end: i64 = self._first_digits_end(position + 1 if is_negative else position)
        if end == 0:
            return 0
        byte: i64 = self.text[end]
        if byte >= ZERO and byte <= NINE:
            number: i64 = self.integer
            if number > _TOP_DIGITS or (number == _TOP_DIGITS and byte > ZERO + _TOP_LAST_DIGIT):
                return 0
            self.integer = number * 10 + (byte - ZERO)
            end += 1
            byte = self.text[end]
            if byte >= ZERO and byte <= NINE:
                return 0
        if is_negative:
            self.integer = -self.integer
        return end

    def double_end(self, position: i64) -> i64:
        """Read the number at `position` into `double`. Return its end, or 0 if there is none that is simple to convert."""
        text = self.text
        is_negative = text[position] == MINUS
        start: i64 = position + 1 if is_negative else position
        position = self._first_digits_end(start)
        if position == 0:
            return 0
        exponent: i64 = 0
        byte: i64 = text[position]
        if byte == POINT:
            point: i64 = position + 1
            position = self._digits_end(point, _PLAIN_DIGITS_MAX - (position - start))
            exponent = point - position
            if exponent == 0:
                return 0
            byte = text[position]
        number: i64 = self.integer
        if byte | CASE == SMALL_E or (byte >= ZERO and byte <= NINE):
            return 0
        if number > _EXACT_MAX or exponent < -_POWER_MAX:
            return 0
        value = float(number)
        if exponent < 0:
            value /= read_f64_le(POWERS, -exponent << 3)
        self.double = -value if is_negative else value
        return position

    def _first_digits_end(self, position: i64) -> i64:
        """Read the digits at `position` into `integer`, as many as always fit 64 bits. Return their end, or 0 if there are none
        or the first is a superfluous zero."""
        self.integer = 0
        end: i64 = self._digits_end(position, _PLAIN_DIGITS_MAX)
        return 0 if end == position or (self.text[position] == ZERO and end > position + 1) else end

    def _digits_end(self, position: i64, digits_max: i64) -> i64:
        """Append up to `digits_max` digits from `position` on to `integer`. Return their end."""
        text = self.text
        stop: i64 = position + digits_max
        number: i64 = self.integer
        while position + _WORD_BYTES <= stop and position + _WORD_BYTES < self.size:
            more: i64 = decimal_of(read_i64_le(text, position))
            if more < 0:
                break
            number = number * _WORD_DIGITS_END + more
            position += _WORD_BYTES
        while position < stop:
            byte: i64 = text[position]
            if byte < ZERO or byte > NINE:
                break
            number = number * 10 + (byte - ZERO)
            position += 1
        self.integer = number
        return position

    def is_number_end(self, position: i64) -> bool:
        """Return whether the byte at `position` may follow a number."""
        byte: i64 = self.text[position]
        return byte == COMMA or byte == CLOSING_BRACE or byte == CLOSING_BRACKET or byte <= SPACE

    def finish(self, position: i64) -> None:
        """Raise NonPlain if anything but white space follows from `position` on."""
        while position < self.size:
            byte: i64 = self.text[position]
            if byte != SPACE and byte != 0x0A and byte != 0x0D and byte != 0x09:
                raise NonPlain
            position += 1
            if position > self.rest_at:
                self.rest(position)

    def scalar_end(self, position: i64) -> i64:
        """Return where a string, a number or a literal ends. Only a string is checked."""
        text = self.text
        if text[position] == QUOTE:
            return self.string_end(position + 1) + 1
        start: i64 = position
        byte: i64 = text[position]
        while byte > SPACE and byte != COMMA and byte != CLOSING_BRACE and byte != CLOSING_BRACKET:
            position += 1
            byte = text[position]
        if position == start or position - start > PARSED_BYTES_MAX:
            raise NonPlain
        return position

    def null_end(self, position: i64) -> i64:
        """Return where the null ends whose n is at `position`."""
        text = self.text
        if text[position + 1] != 0x75 or text[position + 2] != 0x6C or text[position + 3] != 0x6C:
            raise NonPlain
        return position + 4

    def true_end(self, position: i64) -> i64:
        """Return the end of a true that begins at `position`, or 0 if none does."""
        text = self.text
        if text[position] != 0x74 or text[position + 1] != 0x72 or text[position + 2] != 0x75 or text[position + 3] != 0x65:
            return 0
        return position + 4

    def value_end(self, position: i64, bytes_max: i64 = PARSED_BYTES_MAX) -> i64:
        """Return the end of the value at `position`, of any kind and about `bytes_max` bytes at most; check that it is JSON."""
        text = self.text
        start: i64 = position
        depth: i64 = 0
        containers: i64 = 0
        while True:
            byte: i64 = text[position]
            if byte == QUOTE:
                position = self.string_end(position + 1) + 1
            elif depth == 0 and byte != OPENING_BRACE and byte != OPENING_BRACKET:
                position = self.scalar_end(position)
            else:
                position += 1
                if byte == OPENING_BRACE or byte == OPENING_BRACKET:
                    containers += 1
                    depth += 1
                elif byte == CLOSING_BRACE or byte == CLOSING_BRACKET:
                    depth -= 1
            if depth <= 0:
                break
            if position - start > bytes_max or containers > CONTAINERS_MAX:
                raise NonPlain
        self.loaded(start, position)
        return position

    def loaded(self, start: i64, end: i64) -> object:
        """Return the value at start:end, as an object."""
        if end - start > PARSED_STRING_BYTES_MAX:
            raise NonPlain
        try:
            value: object = orjson.loads(self.text[start:end])
        except orjson.JSONDecodeError:
            raise NonPlain from None
        return value

    def rest(self, position: i64) -> None:
        """Rest; the text has been read up to `position`."""
        self.rest_at = position + REST_BYTES
        self.rules.rest()
