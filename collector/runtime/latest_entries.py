"""A dict of the latest entries, of bytes alone.

Python's garbage collector does not follow bytes. As tuples and lists, the last 10,000 answers cost each request 4 to 9 µs: such
objects have left every cache when they are dropped.

Invariants:
1. There are at most `entries_max` entries. The entry whose key was added first is dropped first. An entry that gets a new value
   keeps its place (tests/unit/collector/runtime/test_latest_entries.py, test_entries_against_a_model).
"""

from typing import Final


class LatestEntries:
    """A dict that drops its oldest entries. Used by one event loop, so it has no locks."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max: Final = entries_max
        self._values: Final[dict[bytes, bytes]] = {}
        self._order: Final[list[bytes]] = []  # the keys; once full, the oldest is at `_oldest`
        self._oldest = 0

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self._values:
            order = self._order
            if len(order) < self._entries_max:
                order.append(key)
            elif self._entries_max == 0:
                return
            else:
                oldest = self._oldest
                del self._values[order[oldest]]
                order[oldest] = key
                self._oldest = (oldest + 1) % self._entries_max
        self._values[key] = value
