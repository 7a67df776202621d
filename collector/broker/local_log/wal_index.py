"""Read SQLite's index of the write-ahead log: how many frames the log has, and how many of them are in the database.

The format is that of sqlite.org/walformat.html, 2.2. SQLite changes the index after frames are written, and before they are
removed.

Invariants:
1. The index is closed only after the connections: POSIX drops all locks of a process on a file when the process closes any
   of its descriptors of that file (test_closing_leaves_what_is_in_its_place_alone).
"""

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from collector.broker.local_log.schema import PAGE_BYTES

WAL_HEADER_BYTES: Final = 32
FRAME_BYTES: Final = 24 + PAGE_BYTES
_VERSION: Final = 3007000
# Version, unused, change counter, is-initialized, byte order, page size, frames, pages, two checksums, salts, two checksums.
_HEADER: Final = struct.Struct("=IIIBBHII8s8s8s")
_INDEX: Final = struct.Struct(f"={_HEADER.size}s{_HEADER.size}sI")


class WalState(NamedTuple):
    """A state of the write-ahead log. Once all frames are in the database, SQLite may begin again at the start of the file,
    with other `salts`."""

    salts: bytes
    frames: int
    pages: int
    """The pages of the database after the last transaction; 0: unknown."""
    backfilled: int
    """The frames that are in the database."""

    @property
    def wal_bytes(self) -> int:
        """Return the smallest size that the log's file can have."""
        return WAL_HEADER_BYTES + self.frames * FRAME_BYTES if self.frames else 0


class WalIndex:
    """Reads the open index."""

    def __init__(self, file: Path) -> None:
        """Open the file. Raises OSError."""
        self._descriptor: Final = os.open(file, os.O_RDONLY)

    def read(self) -> WalState | None:
        """Return the state; None if it is being changed just now, or its format is not known."""
        raw = os.pread(self._descriptor, _INDEX.size, 0)
        if len(raw) < _INDEX.size:
            return None
        header, copy, backfilled = _INDEX.unpack(raw)
        version, _, _, is_initialized, _, page_bytes, frames, pages, _, salts, _ = _HEADER.unpack(header)
        if header != copy or version != _VERSION or not is_initialized or page_bytes != PAGE_BYTES:
            return None
        return WalState(salts, frames, pages, backfilled)

    def close(self) -> None:
        os.close(self._descriptor)
