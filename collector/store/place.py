"""Checks that the directories of the embedded store are still the directories that the engine opened.

The engine finds its files by their paths, and creates directories that are missing. So if the store's directory is removed,
renamed or replaced, an insert succeeds into new directories. These are not used when the former directory is back. Merges have
the same effect at any time. So after the directory was replaced, the store is not used before the next start.

Invariants:
1. No row counts as stored after one of the directories was replaced (test_a_store_that_is_moved_away_takes_nothing).
2. This also holds after the former directory is back (test_a_store_that_was_away_is_used_after_a_restart).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog

from collector.store.contract import StoreUnavailable


class StorePlace:
    """Checks the directories of one store. Thread-safe."""

    def __init__(self, directory: Path | None) -> None:
        """`directory` is that of the embedded store; None for a server. Raises OSError."""
        self._of_store: Final = {} if directory is None else {str(directory): _identity(str(directory))}
        self._directories = self._of_store
        self._gone: str | None = None
        self._logger: Final = structlog.get_logger(__name__)

    def note_tables(self, directories: Iterable[str]) -> None:
        """Note the directories of the tables. Directories that are created later are not checked. Raises OSError."""
        self._directories = {**self._of_store, **{it: _identity(it) for it in directories if os.path.isdir(it)}}  # noqa: PTH112

    def check(self) -> None:
        """Check the directories. Raises StoreUnavailable, and always again after one was removed or replaced."""
        if self._gone is None:
            self._gone = self._fault()
            if self._gone is not None:
                self._logger.error(
                    "the store can't be used: put its directory back as it was, and restart the collector; what is accepted"
                    " meanwhile is kept in the log",
                    reason=self._gone,
                )
        if self._gone is not None:
            raise StoreUnavailable(f"{self._gone}: put it back, and restart the collector")

    def _fault(self) -> str | None:
        for directory, identity in self._directories.items():
            try:
                found = _identity(directory)
            except OSError as error:
                what = "was removed" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
                return f"{directory} {what} while it was in use"
            if found != identity:
                return f"{directory} was replaced while it was in use"
        return None


def _identity(directory: str) -> tuple[int, int]:
    status = os.stat(directory)  # noqa: PTH116  # a Path takes three times as long
    return status.st_dev, status.st_ino


NOWHERE: Final = StorePlace(None)
