"""Beside which starts of the local log the embedded store was: what shows that an older copy of it was put back.

The file is in the store's directory, so it goes with each copy of it. The log keeps its own last starts, and where its
partitions were at each (collector/broker/local_log/lineage.py).

Invariants:
1. A store that was beside the log at each start that committed something is never reported
   (test_a_start_that_stored_nothing_is_not_missed, test_a_log_that_was_away_is_known_again).
2. What was committed at starts that the store was not beside is counted (test_what_an_older_copy_lacks_is_counted).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from collector.broker.local_log import LogStart
from collector.broker.local_log.lineage import EPOCH_BYTES, EPOCHS_MAX
from collector.runtime.small_file import replace_text

_FILE: Final = "log.starts"
_ID: Final = re.compile(rf"\b[0-9a-f]{{{2 * EPOCH_BYTES}}}\b")


def note_start(directory: Path, starts: Sequence[LogStart]) -> int:
    """Note in the store's directory the last of the log's starts. Return how many messages the log had committed before it at
    starts that this store was not beside; 0 where nothing is known of one. Raises OSError."""
    file = directory / _FILE
    known = _ID.findall(file.read_text("ascii", "replace")) if file.exists() else []
    missed = _missed(known, starts)
    new = [start.id for start in starts[-1:] if start.id not in known]
    if new:
        replace_text(file, "".join(f"{each}\n" for each in [*known, *new][-EPOCHS_MAX:]))
    return missed


def _missed(known: Sequence[str], starts: Sequence[LogStart]) -> int:
    if not known or not starts or starts[-1].is_branch:  # another branch of the log is reported by the log
        return 0
    last = max((number for number, start in enumerate(starts) if start.id in known), default=-1)
    if last == len(starts) - 1:
        return 0
    before = starts[last + 1].heads if last >= 0 else {}
    now = starts[-1].heads
    return sum(max(0, at.committed - (before[topic].committed if topic in before else 0)) for topic, at in now.items())
