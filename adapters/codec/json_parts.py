"""How many objects, arrays and commas JSON has outside of its strings: what is too dense to read is refused before.

Invariants:
1. Wherever a text is cut into pieces, they have as many parts as the whole (tests/unit/adapters/codec/test_json_parts.py,
   test_pieces_have_the_parts_of_the_whole).
"""

from typing import Final

from mypy_extensions import i64

from adapters.codec.pieces import PiecesCount
from adapters.codec.text import REST_BYTES, end_of_string
from adapters.errors import RequestRefused, too_many_json_parts
from adapters.rules import NO_RULES, Rules

_QUOTE: Final = 0x22
_COMMA: Final = 0x2C
_COLON: Final = 0x3A
_OPENING_BRACKET: Final = 0x5B
_BACKSLASH: Final = 0x5C
_OPENING_BRACE: Final = 0x7B
# A string that ends within so many bytes is passed over here: a call costs more.
_SHORT_BYTES: Final = 8


def check_json_parts(body: bytes, parts_max: i64, rules: Rules = NO_RULES) -> None:
    """Refuse JSON that has more objects, arrays and commas than that, outside of its strings: an empty object takes two bytes,
    and once parsed 64. Raises RequestRefused."""
    if len(body) <= parts_max or body is rules.counted_body:
        return
    if count_json_parts(body, parts_max, rules) > parts_max:
        raise too_many_json_parts(len(body), parts_max)


def holds_more_objects(text: bytes, objects_max: i64, rules: Rules = NO_RULES) -> bool:
    """Return whether JSON has more objects, arrays and members than that, outside of its strings. Rests by `rules`."""
    if len(text) <= objects_max or text.count(b"{") + text.count(b"[") + text.count(b":") <= objects_max:
        return False
    return count_json_parts(text, objects_max, rules, separator=_COLON) > objects_max


def count_json_parts(text: bytes, parts_max: i64, rules: Rules = NO_RULES, *, separator: i64 = _COMMA) -> i64:
    """Count objects, arrays and separators (commas, or colons) outside of strings, until there are more than that; then some
    more may be counted. Rests by `rules`."""
    return _PartsScan(rules, separator).parts_of(text, parts_max)


class JsonPartsCount(PiecesCount):
    """Counts as `check_json_parts` does, in the pieces of a text."""

    def __init__(self, parts_max: i64) -> None:
        super().__init__(parts_max)
        self._parts_max: Final[i64] = parts_max
        self._parts: i64 = 0
        self._scan: Final = _PartsScan(NO_RULES, _COMMA)

    def _exceeds(self, piece: bytes) -> bool:
        self._parts += self._scan.parts_of(piece, self._parts_max - self._parts)
        return self._parts > self._parts_max

    def _refusal(self) -> RequestRefused:
        return too_many_json_parts(int(self.size_bytes), int(self._parts_max), is_whole=False)


class _PartsScan:
    """Where a text was left: in a string, or not."""

    def __init__(self, rules: Rules, separator: i64) -> None:
        self._rules: Final = rules
        self._separator: Final[i64] = separator
        self._is_in_string: bool = False
        self._is_escaped: bool = False  # the next byte, in a string

    def parts_of(self, piece: bytes, parts_max: i64) -> i64:
        """Count the parts of the next piece, until there are more than that; then some more may be counted."""
        separator: i64 = self._separator
        end: i64 = len(piece)
        parts: i64 = 0
        position: i64 = 0
        if self._is_in_string:
            position = self._behind_string(piece, 1 if self._is_escaped else 0)
        while position < end and parts <= parts_max:
            stop: i64 = min(end, position + REST_BYTES)
            while position < stop:
                byte: i64 = piece[position]
                position += 1
                if byte == _QUOTE:
                    short_end: i64 = min(stop, position + _SHORT_BYTES)
                    byte = 0
                    while position < short_end:
                        byte = piece[position]
                        if byte == _QUOTE or byte == _BACKSLASH:
                            break
                        position += 1
                    if byte == _QUOTE:
                        position += 1
                    else:
                        position = self._behind_string(piece, position)
                elif byte == separator or byte == _OPENING_BRACE or byte == _OPENING_BRACKET:
                    parts += 1
            self._rules.rest()
        return parts

    def _behind_string(self, piece: bytes, start: i64) -> i64:
        """Return where the string ends whose content goes on at `start`, and note whether it does."""
        end: i64 = len(piece)
        self._is_in_string = False
        self._is_escaped = False
        behind: i64 = end_of_string(piece, start, end, self._rules) if start < end else end
        if behind < end:
            return behind
        # Its last byte ends the string, unless it is another, or behind an odd number of backslashes.
        last: i64 = end - 1
        is_quote: bool = last >= start and piece[last] == _QUOTE
        if is_quote:
            last -= 1
        backslashes: i64 = 0
        while last >= start and piece[last] == _BACKSLASH:
            backslashes += 1
            last -= 1
        if not is_quote:
            self._is_in_string = True
            self._is_escaped = backslashes & 1 == 1 or start > end
        elif backslashes & 1 == 1:
            self._is_in_string = True
        return end
