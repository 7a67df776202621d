"""Rewrite the JSON numbers that a parser can't hold: long ones are put in quotes, and -0, which loses its sign, becomes -0.0.

A parser makes doubles of integers beyond 64 bits, which loses digits. It refuses numbers beyond a double, which JSON allows
(RFC 8259, 6), and NaN and infinities, which JSON does not.
"""

from typing import Final

from librt.strings import BytesWriter
from mypy_extensions import i64

from adapters.codec.json_characters import CASE, MINUS, NINE, PLUS, POINT, QUOTE, SMALL_E, ZERO
from adapters.codec.text import REST_BYTES, byte_table, contains, find_outside_strings, write_slices
from adapters.rules import Rules

# An integer of fewer digits always fits 64 bits.
_DIGITS_MIN: Final = 19
# A double ends at 1.8e308: a number beyond it has at least this many bytes, or an exponent of three digits.
_LONG_BYTES: Final = 300
_EXPONENT_DIGITS: Final = 3
_NUMBER_STARTS: Final = byte_table(b"-0123456789")
_NUMBER_BYTES: Final = byte_table(b"-+.0123456789Ee")
_MINUSES: Final = byte_table(b"-")
_MINUS_ZERO: Final = b"-0"
_CONSTANT_STARTS: Final = byte_table(b"NI")
# The largest double has this many digits. Converting an integer takes time quadratic in its digits.
INTEGER_DIGITS_MAX: Final = 309


def is_whole(token: str) -> bool:
    """Return whether a text is an integer as JSON writes it."""
    digits = token.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and (digits[0] != "0" or digits == "0")


def is_number(text: bytes, start: i64, end: i64, rules: Rules) -> bool:
    """Return whether start:end is a JSON number (RFC 8259, 6), of any length. Rest as `rules` say."""
    position: i64 = start
    if position < end and text[position] == MINUS:
        position += 1
    first: i64 = position
    position = _digits_end(text, first, end, rules)
    if position == first or (text[first] == ZERO and position > first + 1):
        return False
    if position < end and text[position] == POINT:
        first = position + 1
        position = _digits_end(text, first, end, rules)
        if position == first:
            return False
    if position < end and text[position] | CASE == SMALL_E:
        first = position + 1
        if first < end and (text[first] == PLUS or text[first] == MINUS):
            first += 1
        position = _digits_end(text, first, end, rules)
        if position == first:
            return False
    return position == end


def _digits_end(text: bytes, start: i64, end: i64, rules: Rules) -> i64:
    """Return where the digits end that begin at `start`."""
    rest_at: i64 = start + REST_BYTES
    position: i64 = start
    while position < end and text[position] >= ZERO and text[position] <= NINE:
        position += 1
        if position > rest_at:
            rest_at = position + REST_BYTES
            rules.rest()
    return position


def quote_long_numbers(body: bytes, rules: Rules, mark: bytes = b"") -> bytes:
    """Return a JSON text with its long integers, and numbers that may be beyond a double, as strings that begin with `mark`.
    What is not a number is left to the parser, which refuses it."""
    writer = BytesWriter()
    size: i64 = len(body)
    keep: i64 = 0
    position: i64 = find_outside_strings(body, 0, _NUMBER_STARTS, rules)
    while position < size:
        start: i64 = position
        is_integer = True
        exponent_at: i64 = size
        position += 1
        rest_at: i64 = position + REST_BYTES
        while position < size:
            if position > rest_at:
                rest_at = position + REST_BYTES
                rules.rest()
            byte: i64 = body[position]
            if byte < ZERO or byte > NINE:
                if byte != POINT and byte != PLUS and byte != MINUS and byte | CASE != SMALL_E:
                    break
                is_integer = False
                if byte | CASE == SMALL_E:
                    exponent_at = position
            position += 1
        is_long = position - start >= (_DIGITS_MIN if is_integer else _LONG_BYTES) or position - exponent_at > _EXPONENT_DIGITS
        if is_long and is_number(body, start, position, rules):
            _put_quoted(writer, body, keep, start, position, mark, rules)
            keep = position
        position = find_outside_strings(body, position, _NUMBER_STARTS, rules)
    return _completed(writer, body, keep, rules)


def with_minus_zeros(body: bytes, rules: Rules) -> bytes:
    """Return a JSON text with each -0 written as -0.0: a parser makes the integer 0 of -0."""
    if not contains(body, _MINUS_ZERO, 0, rules):
        return body
    writer = BytesWriter()
    size: i64 = len(body)
    keep: i64 = 0
    position: i64 = find_outside_strings(body, 0, _MINUSES, rules)
    while position < size:
        end: i64 = position + len(_MINUS_ZERO)
        begins = position == 0 or not _NUMBER_BYTES[body[position - 1]]
        if begins and body[position:end] == _MINUS_ZERO and (end == size or not _NUMBER_BYTES[body[end]]):
            write_slices(writer, body, keep, end, rules)
            writer.write(b".0")
            keep = end
        position = find_outside_strings(body, position + 1, _MINUSES, rules)
    return _completed(writer, body, keep, rules)


def quote_constants(body: bytes, rules: Rules, mark: bytes) -> bytes:
    """Return a text that is JSON except for NaN, Infinity and -Infinity, with these as strings that begin with `mark`."""
    writer = BytesWriter()
    size: i64 = len(body)
    keep: i64 = 0
    position: i64 = find_outside_strings(body, 0, _CONSTANT_STARTS, rules)
    while position < size:
        start: i64 = position
        position += 1
        if body[start : start + 3] == b"NaN":
            position = start + 3
        elif body[start : start + 8] == b"Infinity":
            position = start + 8
            if start > keep and body[start - 1] == MINUS:
                start -= 1
        if position - start > 1:
            _put_quoted(writer, body, keep, start, position, mark, rules)
            keep = position
        position = find_outside_strings(body, position, _CONSTANT_STARTS, rules)
    return _completed(writer, body, keep, rules)


def _completed(writer: BytesWriter, body: bytes, keep: i64, rules: Rules) -> bytes:
    """Return what was written, and behind it the rest of the body from `keep`; the body itself if nothing was written."""
    if keep == 0:
        return body
    write_slices(writer, body, keep, len(body), rules)
    return writer.getvalue()


def _put_quoted(writer: BytesWriter, body: bytes, keep: i64, start: i64, end: i64, mark: bytes, rules: Rules) -> None:
    """Write keep:start of the body, and then start:end in quotes, behind `mark`."""
    write_slices(writer, body, keep, start, rules)
    writer.append(QUOTE)
    writer.write(mark)
    writer.write(body[start:end])
    writer.append(QUOTE)
