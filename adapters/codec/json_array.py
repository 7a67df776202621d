"""Find the elements of a JSON array in its text, for the few that have to be kept as they were sent.

A parser has already accepted the text as one JSON array, so strings and brackets alone show where an element ends. The text is
read once, from the front, only as far as needed, and with a rest for each 256 KiB.
"""

from typing import Final

from mypy_extensions import i64

from adapters.codec.json_characters import (
    BACKSLASH,
    CLOSING_BRACE,
    CLOSING_BRACKET,
    COMMA,
    OPENING_BRACE,
    OPENING_BRACKET,
    QUOTE,
    SPACE,
)
from adapters.codec.text import REST_BYTES
from adapters.rules import NO_RULES, Rules


class Elements:
    """An `Elements` finds elements by index: after `find`, the element is `start:end` of the text, without space around it."""

    def __init__(self, text: bytes, rules: Rules = NO_RULES) -> None:
        """Prepare to read `text`. Rest as `rules` say."""
        self.text: Final = text
        self.rules: Final = rules
        self.rest_at: i64 = REST_BYTES
        self.start: i64 = 0
        self.end: i64 = 0
        # The bounds of the elements found so far: start, end, start, end, …
        self.bounds: Final[list[int]] = []
        # The bracket or comma before the next element.
        self.position: i64 = text.index(b"[")

    def find(self, index: i64) -> None:
        """Set `start` and `end` to the element at `index`, which the array must have."""
        bounds = self.bounds
        while len(bounds) <= 2 * index:
            self._read()
        self.start = bounds[2 * index]
        self.end = bounds[2 * index + 1]

    def _read(self) -> None:
        """Read the next element."""
        text = self.text
        start: i64 = self.position + 1
        while text[start] <= SPACE:
            start += 1
            if start > self.rest_at:
                self._rest(start)
        depth: i64 = 0
        p: i64 = start
        while True:
            byte: i64 = text[p]
            if byte == QUOTE:
                p += 1
                byte = text[p]
                while byte != QUOTE:
                    p += 2 if byte == BACKSLASH else 1
                    byte = text[p]
                    if p > self.rest_at:
                        self._rest(p)
            elif byte == OPENING_BRACE or byte == OPENING_BRACKET:
                depth += 1
            elif byte == CLOSING_BRACE or byte == CLOSING_BRACKET:
                if depth == 0:
                    break
                depth -= 1
            elif byte == COMMA and depth == 0:
                break
            p += 1
            if p > self.rest_at:
                self._rest(p)
        self.position = p
        while text[p - 1] <= SPACE:
            p -= 1
        self.bounds.append(start)
        self.bounds.append(p)

    def _rest(self, position: i64) -> None:
        """Rest; the text has been read up to `position`."""
        self.rest_at = position + REST_BYTES
        self.rules.rest()
