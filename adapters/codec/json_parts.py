"""Count the objects, arrays and commas of JSON outside of its strings, so that too dense JSON is refused before it is read.

Invariants:
1. Wherever a text is cut into pieces, the pieces together have as many parts as the whole
   (tests/unit/adapters/codec/test_json_parts.py, test_pieces_have_the_parts_of_the_whole).
"""

from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

from adapters.codec.json_characters import BACKSLASH, COLON, COMMA, OPENING_BRACE, OPENING_BRACKET, QUOTE
from adapters.codec.pieces import PiecesCount
from adapters.codec.text import REST_BYTES, end_of_string
from adapters.errors import RequestRefused, too_many_json_parts
from adapters.rules import NO_RULES, Rules

_WORD_BYTES: Final = 8
# Read from bytes: mypyc shifts a literal as a C int, of 32 bits.
_LOW_BITS: Final = b"\x7f" * 8
_ONES: Final = b"\x01" * 8
_QUOTES: Final = b'"' * 8
_BACKSLASHES: Final = b"\\" * 8
_BRACES: Final = b"{" * 8
# "[" is "{" without this bit.
_BRACE_BITS: Final = b"\x20" * 8


def check_json_parts(body: bytes, parts_max: i64, rules: Rules = NO_RULES) -> None:
    """Refuse JSON that has more than `parts_max` objects, arrays and commas outside of its strings, since an empty object takes
    two bytes, but 64 when parsed. Raises RequestRefused."""
    if len(body) <= parts_max or body is rules.counted_body:
        return
    if count_json_parts(body, parts_max, rules) > parts_max:
        raise too_many_json_parts(len(body), parts_max)


def holds_more_objects(text: bytes, objects_max: i64, rules: Rules = NO_RULES) -> bool:
    """Return whether JSON has more than `objects_max` objects, arrays and members. Rest as `rules` say."""
    if len(text) <= objects_max or text.count(b"{") + text.count(b"[") + text.count(b":") <= objects_max:
        return False
    return count_json_parts(text, objects_max, rules, separator=COLON) > objects_max


def count_json_parts(text: bytes, parts_max: i64, rules: Rules = NO_RULES, *, separator: i64 = COMMA) -> i64:
    """Count objects, arrays and separators (commas, or colons) outside of strings, until there are more than `parts_max`; then
    some more may be counted. Rest as `rules` say."""
    return _PartsScan(rules, separator).parts_of(text, parts_max)


class JsonPartsCount(PiecesCount):
    """A `JsonPartsCount` counts like `check_json_parts`, in the pieces of a text."""

    def __init__(self, parts_max: i64) -> None:
        # A list of empty objects has two parts in three bytes, and a list of digits one in two.
        super().__init__(parts_max, 2 * parts_max)
        self._parts_max: Final[i64] = parts_max
        self._parts: i64 = 0
        self._scan: Final = _PartsScan(NO_RULES, COMMA)

    def _exceeds(self, piece: bytes) -> bool:
        self._parts += self._scan.parts_of(piece, self._parts_max - self._parts)
        return self._parts > self._parts_max

    def _refusal(self) -> RequestRefused:
        return too_many_json_parts(int(self.size_bytes), int(self._parts_max), is_whole=False)


class _PartsScan:
    """A `_PartsScan` counts parts piece by piece, and remembers whether the last piece ended in a string."""

    def __init__(self, rules: Rules, separator: i64) -> None:
        self._rules: Final = rules
        self._separator: Final[i64] = separator
        self._separators: Final = bytes([separator]) * _WORD_BYTES
        self._parts: i64 = 0  # of the piece
        self._is_in_string: bool = False
        self._is_escaped: bool = False  # whether the next byte is escaped, in a string

    def parts_of(self, piece: bytes, parts_max: i64) -> i64:
        """Count the parts of the next piece, until there are more than `parts_max`; then some more may be counted."""
        low_bits: i64 = read_i64_le(_LOW_BITS, 0)
        ones: i64 = read_i64_le(_ONES, 0)
        quotes: i64 = read_i64_le(_QUOTES, 0)
        backslashes: i64 = read_i64_le(_BACKSLASHES, 0)
        separators: i64 = read_i64_le(self._separators, 0)
        brace_bits: i64 = read_i64_le(_BRACE_BITS, 0)
        braces: i64 = read_i64_le(_BRACES, 0)
        end: i64 = len(piece)
        self._parts = 0
        position: i64 = 0
        if self._is_in_string:
            position = self._behind_string(piece, 1 if self._is_escaped else 0)
        while position < end and self._parts <= parts_max:
            words_end: i64 = min(end, position + REST_BYTES) - _WORD_BYTES
            in_string: i64 = 0  # or -1, whose bits are all set
            while position <= words_end:
                # Eight bytes at a time. In each mask the highest bit of a byte is that byte's.
                word: i64 = read_i64_le(piece, position)
                quote: i64 = word ^ quotes
                quote = ~((quote & low_bits) + low_bits | quote | low_bits)
                backslash: i64 = word ^ backslashes
                if ((backslash & low_bits) + low_bits | backslash | low_bits) != -1:
                    if in_string != 0:
                        position = self._behind_string(piece, position)
                    else:
                        position = self._bytes(piece, position, position + _WORD_BYTES)
                    in_string = 0
                elif in_string != 0 and quote == 0:
                    position = self._behind_string(piece, position)
                    in_string = 0
                else:
                    # A byte is within a string if it has an odd number of quotes before it.
                    quote ^= quote << 8
                    quote ^= quote << 16
                    inside: i64 = quote ^ quote << 32 ^ in_string
                    comma: i64 = word ^ separators
                    opening: i64 = (word | brace_bits) ^ braces
                    other: i64 = ((comma & low_bits) + low_bits | comma) & ((opening & low_bits) + low_bits | opening)
                    self._parts += (~(other | inside) >> 7 & ones) * ones >> 56 & 0xFF
                    in_string = -(inside >> 63 & 1)
                    position += _WORD_BYTES
            if in_string != 0:
                position = self._behind_string(piece, position)
            elif position < end < position + _WORD_BYTES:
                position = self._bytes(piece, position, end)
            self._rules.rest()
        return self._parts

    def _bytes(self, piece: bytes, start: i64, stop: i64) -> i64:
        """Count the parts at start:stop, which begins outside of a string. Return where reading continues: strings are read
        to their ends."""
        separator: i64 = self._separator
        position: i64 = start
        while position < stop:
            byte: i64 = piece[position]
            position += 1
            if byte == QUOTE:
                position = self._behind_string(piece, position)
            elif byte == separator or byte == OPENING_BRACE or byte == OPENING_BRACKET:
                self._parts += 1
        return position

    def _behind_string(self, piece: bytes, start: i64) -> i64:
        """Return where the string ends whose content continues at `start`, and note whether it ends in this piece."""
        end: i64 = len(piece)
        self._is_in_string = False
        self._is_escaped = False
        behind: i64 = end_of_string(piece, start, end, self._rules) if start < end else end
        if behind < end:
            return behind
        # The last byte ends the string if it is a quote that an even number of backslashes precedes.
        last: i64 = end - 1
        is_quote: bool = last >= start and piece[last] == QUOTE
        if is_quote:
            last -= 1
        backslashes: i64 = 0
        while last >= start and piece[last] == BACKSLASH:
            backslashes += 1
            last -= 1
        if not is_quote:
            self._is_in_string = True
            self._is_escaped = backslashes & 1 == 1 or start > end
        elif backslashes & 1 == 1:
            self._is_in_string = True
        return end
