"""Keeps the time zone of the embedded engine as it was when the store was made: UTC for a new store.

The engine puts rows into partitions by the day of their times in its own zone, and looks for them by that day. By default it
uses the zone of the machine, or of TZ, which may change, for example on a laptop or in a container. Then the rows of some hours
are in another partition than the engine searches: queries miss them, and an audit reports them as lost.

Invariants:
1. Stored rows are found and add up, whatever zone the machine has (test_rows_are_found_in_every_time_zone).
2. A store of an earlier version has no note of its zone. It keeps the zone that the machine has when it is first opened
   (test_a_store_of_an_earlier_version_keeps_its_zone, test_a_note_that_was_never_written_is_none).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from collector.runtime.small_file import replace_text

FILE: Final = "time_zone"
_NEW: Final = "UTC"
# The engine creates this directory first.
_ENGINE: Final = "metadata"


def choose(store: Path) -> bool:
    """Make the engine use the store's zone. Call this before the engine is loaded. Return whether the zone is known. Raises
    OSError."""
    file = store / FILE
    zone = file.read_text().strip() if file.exists() else ""
    if not zone and not (store / _ENGINE).exists():
        zone = _NEW
        replace_text(file, f"{zone}\n")
    if zone:
        os.environ["TZ"] = zone
    return bool(zone)


def note(store: Path, ask: Callable[[], str]) -> None:
    """Write the zone of the engine into the store, after it was opened with an unknown zone. `ask` returns the zone. Raises
    OSError."""
    replace_text(store / FILE, f"{ask()}\n")
