"""How long the oldest message that is not stored yet has been waiting.

Brokers report offsets, not times. So each look at a partition notes its end and the time. The first note whose end is past the
committed offset has the latest time at which the oldest waiting message can have arrived.

Invariants:
1. The seconds are never more than the message has waited since this process first looked, and less by no more than the time
   between two notes. (test_the_lag_is_the_age_of_the_oldest_message, test_notes_are_thinned_without_shortening_the_lag)
2. A partition has at most _NOTES_MAX notes, however long the store is away.
   (test_notes_are_thinned_without_shortening_the_lag)
3. A partition that this process no longer has, or whose log began again, is forgotten.
   (test_a_partition_that_moves_away_is_forgotten, test_a_log_that_begins_anew_begins_anew)
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Final

from collector.broker.contract import Partition, Position

_NOTES_MAX: Final = 1024


class LagClock:
    """Measures the lag of one process's partitions. Call `update` each time that positions are known."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is in seconds, and never jumps."""
        self._clock: Final = clock
        self._notes: dict[Partition, _Notes] = {}

    def update(self, positions: Mapping[Partition, Position]) -> dict[Partition, float]:
        """Return for each of these partitions how many seconds its oldest message has waited; 0 if none waits."""
        now = self._clock()
        self._notes = {partition: self._notes.get(partition) or _Notes() for partition in positions}
        return {partition: self._notes[partition].waited(at, now) for partition, at in positions.items()}


class _Notes:
    """The ends of one partition at some looks, the earliest first, as far as they are not stored yet."""

    def __init__(self) -> None:
        self._seen: Final[list[tuple[int, float]]] = []  # an offset, and when it was first seen to be the end
        self._spacing_s = 0.0  # between two notes, at least

    def __len__(self) -> int:
        return len(self._seen)

    def waited(self, at: Position, now: float) -> float:
        seen = self._seen
        if seen and seen[-1][0] > at.end:  # another log
            seen.clear()
        del seen[: bisect_right(seen, at.committed, key=_offset)]
        if not seen:
            self._spacing_s = 0.0
        if at.end > at.committed and (not seen or (seen[-1][0] < at.end and now - seen[-1][1] >= self._spacing_s)):
            seen.append((at.end, now))
            if len(seen) > _NOTES_MAX:
                del seen[1::2]
                self._spacing_s = 2 * (seen[-1][1] - seen[0][1]) / _NOTES_MAX
        return now - seen[0][1] if seen else 0.0


def _offset(note: tuple[int, float]) -> int:
    return note[0]
