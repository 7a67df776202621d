"""Whether the buckets of a histogram's point fit each other, by what the scan noted of the point.

The rules are those of metrics.proto: one count more than there are bounds, or neither; bounds that ascend; counts that add up
to the point's count. A point that is flagged as having no value is not asked.

Invariants:
1. The verdict is that of the reference (test_any_request_is_adapted_as_the_twin_does,
   test_histograms_that_do_not_fit_are_rejected_one_by_one).
"""

from typing import Final

from librt.strings import read_f64_le, read_i64_le
from mypy_extensions import i64

_NO_RECORDED_VALUE: Final = 1  # DataPointFlags
_LOW: Final = 0xFFFFFFFF


class ScannedBuckets:
    """What was noted of the point scanned last."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer: Final = buffer
        self.count: i64 = 0
        self.flags: i64 = 0
        # Of an explicit histogram: where its packed counts and bounds are.
        self.counts_start: i64 = 0
        self.counts_end: i64 = 0
        self.bounds_start: i64 = 0
        self.bounds_end: i64 = 0
        # Whether an exponential one has buckets beside that of zero.
        self.has_counts: bool = False
        # The counts so far, of 64 bits without a sign: lower and upper halves added up apart, so no sum overflows.
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

    def add(self, count: i64) -> None:
        """Another count of the point."""
        self._low += count & _LOW
        self._high += count >> 32 & _LOW

    def fault(self) -> str:
        """What is wrong, in words; empty where the buckets fit."""
        if self.flags & _NO_RECORDED_VALUE:
            return ""
        if self.counts_end > self.counts_start or self.bounds_end > self.bounds_start:
            counts: i64 = (self.counts_end - self.counts_start) >> 3
            bounds: i64 = (self.bounds_end - self.bounds_start) >> 3
            if counts != bounds + 1:
                return f"{int(counts)} bucket counts do not fit {int(bounds)} explicit bounds: there must be one more"
            if not self._has_ascending_bounds():
                return "the explicit bounds do not ascend"
            buffer = self._buffer
            low: i64 = 0
            upper: i64 = 0
            position: i64 = self.counts_start
            end: i64 = self.counts_end
            while position < end:
                one: i64 = read_i64_le(buffer, position)
                low += one & _LOW
                upper += one >> 32 & _LOW
                position += 8
            self._low += low
            self._high += upper
        elif not self.has_counts:
            return ""
        high: i64 = self._high + (self._low >> 32)
        if high == self.count >> 32 & _LOW and self._low & _LOW == self.count & _LOW:
            return ""
        total = (int(high) << 32) + int(self._low & _LOW)
        count = (int(self.count >> 32 & _LOW) << 32) + int(self.count & _LOW)
        return f"buckets of {total} observations, a count of {count}"

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
            bound: float = read_f64_le(buffer, position)
            if not bound > before:
                return False
            before = bound
            position += 8
        return True
