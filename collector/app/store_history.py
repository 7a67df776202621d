"""Beside which starts of the local log the embedded store was: what shows that an older copy of it was put back.

The file is in the store's directory, so it goes with each copy of it. The log keeps its own last starts, and where its
partitions were at each (collector/broker/local_log/lineage.py).

Invariants:
1. A store that was beside the log at each start that committed something is never reported
   (test_a_start_that_stored_nothing_is_not_missed, test_a_log_that_was_away_is_known_again).
2. What was committed at starts that the store was not beside is found (test_what_an_older_copy_lacks_is_found), and what is
   found is durable in a report before the start is noted (test_what_an_older_copy_lacks_is_reported_before_it_is_known).
3. Where the store that has it is put back, it is missing no more (test_a_newer_store_that_is_put_back_has_it).
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from collector.broker.local_log import LogStart
from collector.broker.local_log.lineage import EPOCH_BYTES, EPOCHS_MAX, At
from collector.runtime.small_file import replace_text

_FILE: Final = "log.starts"
_ID: Final = re.compile(rf"\b[0-9a-f]{{{2 * EPOCH_BYTES}}}\b")


# Offsets of a topic: from, and up to but not including.
Offsets = tuple[int, int]


class StoreHistory:
    """Of one store, beside one log."""

    def __init__(self, directory: Path, starts: Sequence[LogStart]) -> None:
        """`starts`: those of the log, this one last. Raises OSError."""
        self._file: Final = directory / _FILE
        self._starts: Final = starts
        self._known: Final = _ID.findall(self._file.read_text("ascii", "replace")) if self._file.exists() else []

    def lacks(self) -> Mapping[str, Offsets]:
        """Return what the log had committed of each topic since the last start that this store was beside; nothing where no
        such start is known."""
        starts, known = self._starts, self._known
        if not known or not starts or starts[-1].is_branch:  # another branch of the log is reported by the log
            return {}
        last = max((number for number, start in enumerate(starts) if start.id in known), default=-1)
        if last == len(starts) - 1:
            return {}
        before = starts[last + 1].heads if last >= 0 else {}
        ranges = {topic: (_committed(before, topic), at.committed) for topic, at in starts[-1].heads.items()}
        return {topic: (start, end) for topic, (start, end) in ranges.items() if start < end}

    def has(self, topic: str, start: int, end: int) -> list[Offsets]:
        """Return what of these offsets was committed while this store was beside the log."""
        beside = [
            (max(start, _committed(one.heads, topic)), min(end, _committed(after.heads, topic)))
            for one, after in pairwise(self._starts)
            if one.id in self._known and not after.is_branch
        ]
        return [(first, last) for first, last in beside if first < last]

    def note(self) -> None:
        """Note that this store is beside the log at the last of its starts. Raises OSError."""
        new = [start.id for start in self._starts[-1:] if start.id not in self._known]
        if new:
            replace_text(self._file, "".join(f"{each}\n" for each in [*self._known, *new][-EPOCHS_MAX:]))


def _committed(heads: Mapping[str, At], topic: str) -> int:
    return heads[topic].committed if topic in heads else 0
