"""Give the symbols of remote write 2.0 ids that last across requests: each text has a number in this process.

A series' labels are identified by eight bytes for each of its references. So a series that was read before is found without
assembling its labels.

Invariants:
1. A number belongs to one text forever, and is not reused when its text has been forgotten. The worst effect of forgetting is
   that a series is read again (test_numbers_of_symbols_belong_to_one_text_for_ever).
2. Memory is bounded, in entries and in bytes (test_symbols_are_bounded).
"""

from itertools import count
from typing import Final

from mypy_extensions import i64

# Half of this is for each of two generations. A text that was used since the last change of generations is not forgotten.
SYMBOL_IDS_MAX: Final = 262_144
SYMBOL_IDS_BYTES_MAX: Final = 32 << 20

# The bytes that an entry takes without its text: the objects, and its share of the dictionary.
_ENTRY_BYTES: Final = 160


class SymbolIds:
    """Assigns numbers to texts, from 1."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self.entries_max: Final[int] = entries_max // 2
        self.bytes_max: Final[int] = bytes_max // 2
        self.young: dict[bytes, int] = {}
        self.old: dict[bytes, int] = {}
        self.young_bytes: i64 = 0
        # `count` is atomic: two threads may read requests at a time, and switch anywhere in code that is not compiled.
        self._numbers: Final = count(1)

    def get(self, text: bytes) -> i64:
        """Return the number of a text; 0 if it has none."""
        number = self.young.get(text, 0)
        if number == 0:
            number = self.old.get(text, 0)
            if number:
                self._put(text, number)
        return number

    def add(self, text: bytes) -> i64:
        """Assign a new number to a text that has none, and return it."""
        number = next(self._numbers)
        self._put(text, number)
        return number

    def _put(self, text: bytes, number: int) -> None:
        size: i64 = _ENTRY_BYTES + len(text)
        if len(self.young) >= self.entries_max or self.young_bytes + size > self.bytes_max:
            self.old = self.young
            self.young = {}
            self.young_bytes = 0
        if size <= self.bytes_max:
            self.young[text] = number
            self.young_bytes += size
