"""Read the short integers of a JSON list, such as the counts of a histogram's buckets, without a call for each.

Invariants:
1. A list is read as one whose integers are read one by one (tests/unit/adapters/otlp/test_json_scan.py,
   test_lists_of_integers).
2. A text of digits is read once, however long it is (test_json_integers.py, test_many_digits_are_left).
"""

from typing import Final

from librt.strings import BytesWriter, write_i64_le
from mypy_extensions import i64

from adapters.codec.json_characters import COMMA, QUOTE, ZERO
from adapters.codec.json_scanner import JsonScanner
from adapters.codec.wire import put_varint

_DIGITS_MAX: Final = 15


def put_short_integers(packed: BytesWriter, scanner: JsonScanner, position: i64, most: i64, is_varint: bool) -> i64:
    """Write the integers from `position` on, as varints or in eight bytes, as long as each has at most 15 digits, is not above
    `most`, and has a comma behind it. They may be in quotes. Return where the first other value begins: at the latest the
    list's last. Raises IndexError if the text ends."""
    text = scanner.text
    while True:
        start: i64 = position
        is_quoted = text[start] == QUOTE
        if is_quoted:
            start += 1
        number: i64 = text[start] - ZERO
        if number < 0 or number > 9:
            return position
        at: i64 = start + 1
        digit: i64 = text[at] - ZERO
        if number == 0 and digit >= 0 and digit <= 9:  # in JSON no zero is before other digits
            return position
        while digit >= 0 and digit <= 9 and at - start < _DIGITS_MAX:
            number = number * 10 + digit
            at += 1
            digit = text[at] - ZERO
        if is_quoted:
            if text[at] != QUOTE:
                return position
            at += 1
        if text[at] != COMMA or number > most:
            return position
        if is_varint:
            put_varint(packed, number)
        else:
            write_i64_le(packed, number)
        position = at + 1
        if position > scanner.rest_at:
            scanner.rest(position)
