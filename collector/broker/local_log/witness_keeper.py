"""Keep the witness of the open log: write it after each transaction, and sync it about once a second.

If that fails, appends go on: the witness trails, and no message is lost by that.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from collector.broker.local_log.witness import Witness, Witnessed

WITNESS_SYNC_S: Final = 1.0


class WitnessKeeper:
    """Writes and syncs one witness. One thread at a time."""

    def __init__(self, file: Path, is_here: Callable[[], bool]) -> None:
        """Open the witness. `is_here` returns whether the log is still at its path. Raises OSError."""
        self._is_here: Final = is_here
        self._file: Final = file
        self._witness = Witness.open(file)
        self._logger: Final = structlog.get_logger(__name__)
        self._synced_at = time.monotonic()
        self._has_failed = False
        self._last: Witnessed | None = None

    @property
    def is_synced(self) -> bool:
        return self._witness.is_synced

    @property
    def is_whole(self) -> bool:
        """Return whether the file is at its path and was not cut. Called by any thread. Raises OSError."""
        return self._witness.is_at(self._file)

    def write(self, witnessed: Witnessed) -> None:
        """Write how far the log has come. If that is final, also sync it."""
        self._last = witnessed
        try:
            self._witness.write(witnessed)
            if witnessed.is_final:
                self._witness.sync()
        except OSError as error:
            self._fails(error)
        else:
            self._has_failed = False

    def sync_now_and_then(self) -> None:
        """Sync the witness, at most once a second. After a failure, try again after the next write."""
        if not self._witness.is_synced and time.monotonic() - self._synced_at >= WITNESS_SYNC_S:
            self._synced_at = time.monotonic()
            try:
                self._make_again()
                self._witness.sync()
            except OSError as error:
                self._fails(error)

    def _make_again(self) -> None:
        """Make another file if it was removed, replaced or cut. Raises OSError."""
        if self._last is None or self._witness.is_at(self._file) or not self._is_here():
            return
        made = Witness.open(self._file)
        self._logger.warning(
            "the file with the last known state of the local log was removed or cut, and is made again", file=str(self._file)
        )
        self._witness.close()
        self._witness = made
        self._witness.write(self._last)

    def sync(self) -> None:
        """Sync the witness now. Raises OSError."""
        self._witness.sync()

    def close(self) -> None:
        self._witness.close()

    def _fails(self, error: OSError) -> None:
        if not self._has_failed:
            file = str(self._file)
            self._logger.warning("cannot write how far the local log has come", file=file, error=str(error))
        self._has_failed = True
