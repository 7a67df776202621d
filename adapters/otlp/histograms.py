"""Check that the buckets of a histogram's point fit each other, by the scan's notes about the point.

The rules are those of metrics.proto: one more count than bounds, or neither; bounds that ascend; counts that add up to the
point's count. A point that is flagged as having no value is not checked.

Counts that do not add up come from exporters that read them one by one while other threads count, and from observations of
NaN, which are in no bucket. Each number is usable by itself, so such a point is stored as it was sent, and the mismatch is
reported to its sender as a repair.

The last bucket has no bound. If infinity is written as its bound, that is left out, and so is a count of 0 behind it. Any other
count there is of observations: such a point is not changed.

Invariants:
1. The result is that of the reference (test_any_request_is_adapted_as_the_twin_does,
   test_histograms_that_do_not_fit_are_rejected_one_by_one).
2. A point whose bounds end with infinity keeps its observations (test_bounds_that_end_with_infinity).
3. A point is not rejected or changed if its counts do not add up (test_counts_that_do_not_add_up_are_kept_as_they_came).
"""

from struct import pack
from typing import Final

from librt.strings import read_f64_le, read_i64_le
from mypy_extensions import i64

from adapters.codec.text import REST_BYTES
from adapters.codec.wire import Cursor
from adapters.rules import Rules

_NO_RECORDED_VALUE: Final = 1  # DataPointFlags
_LOW: Final = 0xFFFFFFFF
_INFINITY: Final = pack("<d", float("inf"))


class ScannedBuckets:
    """A `ScannedBuckets` holds the notes about the point scanned last, and checks them. It rests as `rules` say."""

    def __init__(self, buffer: bytes, rules: Rules) -> None:
        self._buffer: Final = buffer
        self._rules: Final = rules
        self.count: i64 = 0
        self.flags: i64 = 0
        # The places of an explicit histogram's packed counts and bounds.
        self.counts_length_at: i64 = 0
        self.counts_start: i64 = 0
        self.counts_end: i64 = 0
        self.bounds_start: i64 = 0
        self.bounds_end: i64 = 0
        # Whether an exponential histogram has buckets in addition to that of zero.
        self.has_counts: bool = False
        # The sum of the counts so far, of unsigned 64 bits each: lower and upper halves are added apart, so no sum overflows.
        self._low: i64 = 0
        self._high: i64 = 0

    def clear(self) -> None:
        self.count = 0
        self.flags = 0
        self.counts_start = 0
        self.counts_end = 0
        self.bounds_start = 0
        self.bounds_end = 0
        self.has_counts = False
        self._low = 0
        self._high = 0

    def infinite(self) -> i64:
        """Leave out a last bound that is infinity, if there are as many bounds as counts, or a count of 0 behind it, which is
        left out too. Return how many counts were left out, or -1 if nothing was."""
        end: i64 = self.bounds_end
        if end == self.bounds_start or read_i64_le(self._buffer, end - 8) != read_i64_le(_INFINITY, 0):
            return -1
        more: i64 = self.counts_end - self.counts_start - end + self.bounds_start
        if more == 8 and read_i64_le(self._buffer, self.counts_end - 8) == 0:
            self.counts_end -= 8
        elif more != 0:
            return -1
        self.bounds_end = end - 8
        return more >> 3

    def add(self, count: i64) -> None:
        """Add a count of the point to the sum."""
        self._low += count & _LOW
        self._high += count >> 32 & _LOW

    def add_packed(self, cursor: Cursor, start: i64, end: i64) -> None:
        """Add the counts of an exponential histogram's buckets, packed varints at start:end. Raises NonCanonical."""
        self.has_counts = self.has_counts or start < end
        cursor.position = start
        while cursor.position < end:
            stop: i64 = min(end, cursor.position + REST_BYTES)
            self._rules.read(stop - cursor.position)
            while cursor.position < stop:
                self.add(cursor.varint(end))

    def fault(self) -> str:
        """Return the fault of the bounds and the number of counts, in words; empty if they fit."""
        if self.flags & _NO_RECORDED_VALUE or (self.counts_end == self.counts_start and self.bounds_end == self.bounds_start):
            return ""
        counts: i64 = (self.counts_end - self.counts_start) >> 3
        bounds: i64 = (self.bounds_end - self.bounds_start) >> 3
        if counts != bounds + 1:
            return f"{int(counts)} bucket counts do not fit {int(bounds)} explicit bounds: there must be one more"
        if not self._has_ascending_bounds():
            return "the explicit bounds do not ascend"
        return ""

    def adds_up(self) -> bool:
        """Return whether the buckets' counts add up to the point's count. Call it once, after `fault`."""
        if self.flags & _NO_RECORDED_VALUE:
            return True
        if self.counts_end > self.counts_start:
            buffer = self._buffer
            low: i64 = 0
            upper: i64 = 0
            position: i64 = self.counts_start
            end: i64 = self.counts_end
            while position < end:
                stop: i64 = min(end, position + REST_BYTES)
                self._rules.read(stop - position)
                while position < stop:
                    one: i64 = read_i64_le(buffer, position)
                    low += one & _LOW
                    upper += one >> 32 & _LOW
                    position += 8
            self._low += low
            self._high += upper
        elif not self.has_counts:
            return True
        high: i64 = self._high + (self._low >> 32)
        return high == self.count >> 32 & _LOW and self._low & _LOW == self.count & _LOW

    def _has_ascending_bounds(self) -> bool:
        buffer = self._buffer
        position: i64 = self.bounds_start
        end: i64 = self.bounds_end
        if position == end:
            return True
        before: float = read_f64_le(buffer, position)
        if before != before:
            return False
        position += 8
        while position < end:
            stop: i64 = min(end, position + REST_BYTES)
            self._rules.read(stop - position)
            while position < stop:
                bound: float = read_f64_le(buffer, position)
                if not bound > before:
                    return False
                before = bound
                position += 8
        return True
