"""Whether the database and its write-ahead log are still where and what they were when they were used last.

A file that is removed or renamed stays usable through its descriptor, so nothing fails; but what is written to it is gone
with the process. A file that is cut is written on, behind a hole: SQLite does not look at the frames that it wrote before.

Invariants:
1. What is removed, renamed or replaced is noticed, and also that it is back (test_a_log_that_is_removed_takes_nothing,
   test_a_log_that_is_put_back_goes_on).
2. A file that was cut is noticed by the next transaction, whether it has grown again or not
   (test_a_log_that_is_cut_takes_nothing, test_a_log_that_is_cut_during_a_transaction_takes_nothing). It stays unusable.
"""

import os
import threading
from pathlib import Path
from typing import Final, NamedTuple

from collector.broker.local_log.schema import PAGE_BYTES
from collector.broker.local_log.wal_index import FRAME_BYTES, WAL_HEADER_BYTES, WalIndex, WalState

_PUT_BACK: Final = "put it back, or restart the collector; what it holds is stored meanwhile, and nothing new is taken"
_RESTART: Final = "restart the collector, which reports what is lost; nothing new is taken"
_SALTS_AT: Final = 16
_MARK_BYTES: Final = 64


class _Mark(NamedTuple):
    """The last bytes of a write-ahead log that are not zeros: what is cut off and grown again has zeros there."""

    salts: bytes
    frames: int
    at: int
    content: bytes


class OpenFiles:
    """The two files, which are in use: SQLite has opened both."""

    def __init__(self, file: Path, wal: Path) -> None:
        """Raises OSError."""
        self._file: Final = str(file)
        self._wal: Final = str(wal)
        self._wal_descriptor: Final = os.open(wal, os.O_RDONLY)
        try:
            self._index: Final = WalIndex(file.with_name(f"{file.name}-shm"))
            self._opened: Final = [(self._file, file.stat()), (self._wal, os.fstat(self._wal_descriptor))]
        except BaseException:
            os.close(self._wal_descriptor)
            raise
        # How long the database is at least: what is in the write-ahead log only need not be in it yet.
        self._file_bytes = self._opened[0][1].st_size
        self._mark: _Mark | None = None
        self._using: Final = threading.Lock()
        self._is_closed = False
        self.cut: str | None = None
        """Why the files can't be used any more; None: they were not cut, as far as is known."""

    def fault(self) -> str | None:
        """Return what is wrong with them; None: nothing. Called by any thread, at any time."""
        with self._using:
            return self.cut if self.cut is not None or self._is_closed else self._fault()

    def _fault(self) -> str | None:
        state = self._index.read()
        sizes = self._sizes()
        if isinstance(sizes, str):
            return sizes
        # The thread that writes may be at it: the sizes are of this state only if it still is the state.
        if state is not None and state == self._index.read():
            self._compare(state, sizes)
        return self.cut

    def fault_of_written(self) -> str | None:
        """As `fault`, also in what was written before. Called after each transaction by the thread that writes."""
        with self._using:
            return self.cut if self.cut is not None or self._is_closed else self._fault_of_written()

    def _fault_of_written(self) -> str | None:
        sizes = self._sizes()
        if isinstance(sizes, str):
            return sizes
        state = self._index.read()
        if state is not None:
            needed = self._needed(state)[0]
            self._file_bytes = state.pages * PAGE_BYTES if state.pages and state.backfilled == state.frames else needed
            self._compare(state, sizes)
            if self.cut is None and not self._is_marked(state):
                self.cut = f"{self._wal} was cut while it was in use, and has grown again: {_RESTART}"
        return self.cut

    @property
    def frames_ahead(self) -> int:
        """Return how many frames the write-ahead log has, if not all of them are in the database."""
        state = self._index.read()
        if state is None:
            return os.fstat(self._wal_descriptor).st_size // FRAME_BYTES
        return state.frames if state.backfilled < state.frames else 0

    def _sizes(self) -> list[int] | str:
        """Return the sizes at the paths; or why the files are not there."""
        sizes: list[int] = []
        for path, opened in self._opened:
            try:
                found = os.stat(path)  # noqa: PTH116  # a Path takes three times as long
            except OSError as error:
                what = "was removed" if isinstance(error, FileNotFoundError) else f"can't be looked at ({error.strerror})"
                return f"{path} {what} while it was in use: {_PUT_BACK}"
            if found.st_ino != opened.st_ino or found.st_dev != opened.st_dev:
                return f"{path} was replaced while it was in use: {_PUT_BACK}"
            sizes.append(found.st_size)
        return sizes

    def _compare(self, state: WalState, sizes: list[int]) -> None:
        for path, size, needed in zip((self._file, self._wal), sizes, self._needed(state), strict=True):
            if size < needed:
                self.cut = f"{path} was cut while it was in use, to {size} of at least {needed} bytes: {_RESTART}"

    def _needed(self, state: WalState) -> tuple[int, int]:
        """Return how long the two files are at least."""
        return min(self._file_bytes, state.pages * PAGE_BYTES) if state.pages else 0, state.wal_bytes

    def _is_marked(self, state: WalState) -> bool:
        """Return whether what was written before is still there; and remember the end of what is there now."""
        mark = self._mark
        if state.frames == 0:
            self._mark = None
        elif mark is None or mark.salts != state.salts:
            if os.pread(self._wal_descriptor, len(state.salts), _SALTS_AT) != state.salts:
                return False
            self._mark = self._end(state)
        else:
            if os.pread(self._wal_descriptor, len(mark.content), mark.at) != mark.content:
                return False
            if mark.frames != state.frames:
                self._mark = self._end(state)
        return state.frames == 0 or self._mark is not None

    def _end(self, state: WalState) -> _Mark | None:
        """Return the end of what is there now; None: it was cut off just now."""
        at = state.wal_bytes - _MARK_BYTES
        content = os.pread(self._wal_descriptor, _MARK_BYTES, at)
        if not any(content):  # the header of the frame is not zeros
            at = WAL_HEADER_BYTES + (state.frames - 1) * FRAME_BYTES
            content = os.pread(self._wal_descriptor, FRAME_BYTES, at).rstrip(b"\0")
            at += max(0, len(content) - _MARK_BYTES)
            content = content[-_MARK_BYTES:]
        if not content:
            return None
        return _Mark(state.salts, state.frames, at, content)

    def close(self) -> None:
        """Call after the connections are closed, and only then."""
        with self._using:
            self._is_closed = True
            os.close(self._wal_descriptor)
            self._index.close()
