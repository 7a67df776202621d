"""The fingerprints of the messages that a writer has stored lately, in a compact and bounded memory.

A fingerprint takes 24 bytes of an open table that is at most seven tenths full. So a million take 50 MB, where Python's own set
would take 110.

Invariants:
1. A fingerprint that was added is found until it is forgotten, and no other is found
   (tests/unit/collector/writer/test_fingerprint_memory.py, test_memory_against_a_dict).
2. A forgotten fingerprint was received no later than `forgotten_until` (the same). A later copy may be forgotten before an
   earlier copy, so no fingerprint that was received before `forgotten_until` is reported.
3. There are at most `keys_max` fingerprints (the same).
4. A sender cannot choose fingerprints that collide in the table: places depend on a secret of the process, since Python's hash
   of bytes does.
"""

from array import array
from typing import Final

from librt.strings import read_i64_le
from mypy_extensions import i64

# The number of tables. The oldest table is forgotten as a whole.
GENERATIONS: Final = 4
_SECOND_NS: Final = 10**9
_SECONDS_BITS: Final = 34
_SECONDS_MASK: Final = (1 << _SECONDS_BITS) - 1
_SLOTS_MIN: Final = 1024


class _Table:
    """A hash table of fingerprints. A slot has three numbers: two halves of the fingerprint, then tenant and second. A slot
    whose third number is 0 is free."""

    def __init__(self) -> None:
        self.count = 0
        self.oldest_s = _SECONDS_MASK
        self.newest_s = 0
        self._slots = _SLOTS_MIN
        self._numbers = _numbers(_SLOTS_MIN)

    def find(self, place: int, low: i64, high: i64, tenant: int) -> int:
        """Return the second in which a fingerprint was received; -1 if it is not in this table."""
        numbers = self._numbers
        slot = place % self._slots
        while True:
            at = 3 * slot
            word: i64 = numbers[at + 2]
            if word == 0:
                return -1
            if numbers[at] == low and numbers[at + 1] == high and word >> _SECONDS_BITS == tenant:
                return int(word & _SECONDS_MASK)
            slot = (slot + 1) % self._slots

    def put(self, place: int, low: i64, high: i64, tenant: int, second: int) -> None:
        if 10 * self.count >= 7 * self._slots:
            self._grow()
        self.oldest_s = min(self.oldest_s, second)
        self.newest_s = max(self.newest_s, second)
        if self._put(self._numbers, self._slots, place, low, high, tenant << _SECONDS_BITS | second):
            self.count += 1

    def _put(self, numbers: "array[int]", slots: int, place: int, low: i64, high: i64, word: i64) -> bool:
        """Write a fingerprint to its slot. Return whether it is new."""
        slot = place % slots
        while True:
            at = 3 * slot
            there: i64 = numbers[at + 2]
            if there == 0:
                numbers[at], numbers[at + 1], numbers[at + 2] = low, high, word
                return True
            if numbers[at] == low and numbers[at + 1] == high and there >> _SECONDS_BITS == word >> _SECONDS_BITS:
                numbers[at + 2] = word
                return False
            slot = (slot + 1) % slots

    def _grow(self) -> None:
        slots = 2 * self._slots
        grown = _numbers(slots)
        numbers = self._numbers
        for slot in range(self._slots):
            at = 3 * slot
            if numbers[at + 2] != 0:
                low, high = numbers[at], numbers[at + 1]
                self._put(grown, slots, _place(low, high), low, high, numbers[at + 2])
        self._slots = slots
        self._numbers = grown


class FingerprintMemory:
    """Remembers the fingerprints of all tenants. Equal fingerprints of two tenants are different keys."""

    def __init__(self, keys_max: int, window_ns: int) -> None:
        """Remember at most `keys_max` fingerprints. Those older than twice `window_ns` are forgotten in any case."""
        self.forgotten_until_unix_nano = 0
        self._per_table: Final = max(1, keys_max // GENERATIONS)
        self._window_s: Final = window_ns // _SECOND_NS
        self._tables: list[_Table] = [_Table()]  # the last one is added to
        self._tenants: Final[dict[bytes, int]] = {}

    def __len__(self) -> int:
        return sum(table.count for table in self._tables)

    def last(self, tenant: bytes, value: bytes) -> int:
        """Return when a fingerprint was last received, in nanoseconds since the Unix epoch, to the second; -1 if unknown."""
        number = self._tenants.get(tenant, 0)
        if number == 0:
            return -1
        low: i64 = read_i64_le(value, 0)
        high: i64 = read_i64_le(value, 8)
        place = hash(value)
        for table in reversed(self._tables):
            second = table.find(place, low, high, number)
            if second >= 0:
                found_ns = second * _SECOND_NS
                return found_ns if found_ns >= self.forgotten_until_unix_nano else -1
        return -1

    def add(self, tenant: bytes, value: bytes, received_unix_nano: int) -> None:
        """Add the fingerprint of a message that is stored, or was left out."""
        number = self._tenants.setdefault(tenant, len(self._tenants) + 1)
        second = min(max(0, received_unix_nano // _SECOND_NS), _SECONDS_MASK)
        table = self._tables[-1]
        if table.count >= self._per_table or (table.count and second - table.oldest_s > self._window_s):
            self._begin_table(second)
            table = self._tables[-1]
        low: i64 = read_i64_le(value, 0)
        high: i64 = read_i64_le(value, 8)
        table.put(hash(value), low, high, number, second)

    def _begin_table(self, second: int) -> None:
        kept = [table for table in self._tables if second - table.newest_s <= 2 * self._window_s][1 - GENERATIONS :]
        for table in self._tables:
            if table not in kept:
                self.forgotten_until_unix_nano = max(self.forgotten_until_unix_nano, (table.newest_s + 1) * _SECOND_NS)
        self._tables = [*kept, _Table()]


def _numbers(slots: int) -> "array[int]":
    """Return free slots. The array is made of its own kind: bytes to make it of would take its memory twice."""
    return array("q", (0,)) * (3 * slots)


def _place(low: int, high: int) -> int:
    """Return the hash of a fingerprint that has these halves."""
    return hash(low.to_bytes(8, "little", signed=True) + high.to_bytes(8, "little", signed=True))
