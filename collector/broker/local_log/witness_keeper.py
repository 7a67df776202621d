"""The witness of the log that is open: written after each transaction, synced about once a second.

Where that fails, appends go on: the witness trails, and nothing is lost by that.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from collector.broker.local_log.plan import PartitionHead
from collector.broker.local_log.witness import Witness

WITNESS_SYNC_S: Final = 1.0


class WitnessKeeper:
    """Writes and syncs one witness. One thread at a time."""

    def __init__(self, file: Path) -> None:
        """Raises OSError."""
        self._file: Final = file
        self._witness: Final = Witness.open(file)
        self._logger: Final = structlog.get_logger(__name__)
        self._synced_at = time.monotonic()
        self._has_failed = False

    @property
    def is_synced(self) -> bool:
        return self._witness.is_synced

    def write(self, heads: Mapping[str, PartitionHead]) -> None:
        """Write how far the log has come."""
        try:
            self._witness.write(heads)
        except OSError as error:
            self._fails(error)
        else:
            self._has_failed = False

    def sync_now_and_then(self) -> None:
        """Not more often than once a second. Where it fails, it is tried again with what is written next."""
        if not self._witness.is_synced and time.monotonic() - self._synced_at >= WITNESS_SYNC_S:
            self._synced_at = time.monotonic()
            try:
                self._witness.sync()
            except OSError as error:
                self._fails(error)

    def sync(self) -> None:
        """Raises OSError."""
        self._witness.sync()

    def close(self) -> None:
        self._witness.close()

    def _fails(self, error: OSError) -> None:
        if not self._has_failed:
            file = str(self._file)
            self._logger.warning("cannot write how far the local log has come", file=file, error=str(error))
        self._has_failed = True
