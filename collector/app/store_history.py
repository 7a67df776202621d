"""The starts of the local log at which the embedded store was present, which shows that an older copy of it was put back.

The file is in the store's directory, so each copy of the store has it. The log keeps its own last starts, and its partitions'
positions at each (collector/broker/local_log/lineage.py).

Invariants:
1. A store that was present at each start of the log that committed something is never reported
   (test_a_start_that_stored_nothing_is_not_missed, test_a_log_that_was_away_is_known_again).
2. Messages that were committed after starts without this store are found (test_what_an_older_copy_lacks_is_found), and are
   durable in a report before the start is noted (test_what_an_older_copy_lacks_is_reported_before_it_is_known).
3. If the store that has them is put back, they are no longer missing (test_a_newer_store_that_is_put_back_has_it).
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from collector.broker.local_log import LogStart
from collector.broker.local_log.lineage import EPOCH_BYTES, EPOCHS_MAX, PartitionStart
from collector.runtime.small_file import replace_text

_FILE: Final = "log.starts"
_ID: Final = re.compile(rf"\b[0-9a-f]{{{2 * EPOCH_BYTES}}}\b")


# Offsets of a topic: the first, and the end, which is not included.
Offsets = tuple[int, int]


class StoreHistory:
    """Knows the starts of one log at which one store was present."""

    def __init__(self, directory: Path, starts: Sequence[LogStart]) -> None:
        """`starts` are those of the log; this start is last. Raises OSError."""
        self._file: Final = directory / _FILE
        self._starts: Final = starts
        self._known: Final = _ID.findall(self._file.read_text("ascii", "replace")) if self._file.exists() else []

    def lacks(self) -> Mapping[str, Offsets]:
        """Return the offsets that the log committed, by topic, between its last run with this store and the present start.
        Return nothing if no start with this store is known."""
        starts, known = self._starts, self._known
        if not known or not starts or starts[-1].is_branch:  # the log itself reports another branch
            return {}
        last = max((number for number, start in enumerate(starts) if start.id in known), default=-1)
        if last == len(starts) - 1:
            return {}
        before = starts[last + 1].heads if last >= 0 else {}
        ranges = {topic: (_committed(before, topic), at.committed) for topic, at in starts[-1].heads.items()}
        return {topic: (start, end) for topic, (start, end) in ranges.items() if start < end}

    def has(self, topic: str, start: int, end: int) -> list[Offsets]:
        """Return the parts of these offsets that were committed after starts with this store."""
        beside = [
            (max(start, _committed(one.heads, topic)), min(end, _committed(after.heads, topic)))
            for one, after in pairwise(self._starts)
            if one.id in self._known and not after.is_branch
        ]
        return [(first, last) for first, last in beside if first < last]

    def note(self) -> None:
        """Note that this store is present at the last start. Raises OSError."""
        new = [start.id for start in self._starts[-1:] if start.id not in self._known]
        if new:
            replace_text(self._file, "".join(f"{each}\n" for each in [*self._known, *new][-EPOCHS_MAX:]))


def _committed(heads: Mapping[str, PartitionStart], topic: str) -> int:
    return heads[topic].committed if topic in heads else 0
