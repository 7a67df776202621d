"""Check that the database and its write-ahead log are still at their paths, and were not cut, since they were used last.

A file that is removed or renamed stays usable through its descriptor, so nothing fails; but everything written to it is gone
with the process. SQLite writes on to a file that was cut, behind a hole, since it does not look at the frames that it wrote
before.

Invariants:
1. A file that is removed, renamed or replaced is noticed, and also its return (test_a_log_that_is_removed_takes_nothing,
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
    """The last bytes of a write-ahead log that are not zeros. A file that was cut and has grown again has zeros there."""

    salts: bytes
    frames: int
    at: int
    content: bytes


class OpenFiles:
    """Checks the two files while they are in use."""

    def __init__(self, file: Path, wal: Path) -> None:
        """Open the write-ahead log and its index; SQLite has opened both files already. Raises OSError."""
        self._file: Final = str(file)
        self._wal: Final = str(wal)
        self._wal_descriptor: Final = os.open(wal, os.O_RDONLY)
        try:
            self._index: Final = WalIndex(file.with_name(f"{file.name}-shm"))
            self._opened: Final = [(self._file, file.stat()), (self._wal, os.fstat(self._wal_descriptor))]
        except BaseException:
            os.close(self._wal_descriptor)
            raise
        # The least length of the database, which need not have the pages that are only in the write-ahead log.
        self._file_bytes = self._opened[0][1].st_size
        self._mark: _Mark | None = None
        self._using: Final = threading.Lock()
        self._is_closed = False
        self.cut: str | None = None
        """Why the files can't be used any more; None if they were not cut, as far as is known."""

    def fault(self) -> str | None:
        """Return what is wrong with the files; None if nothing is. Called by any thread, at any time."""
        with self._using:
            return self.cut if self.cut is not None or self._is_closed else self._fault()

    def _fault(self) -> str | None:
        state = self._index.read()
        sizes = self._sizes()
        if isinstance(sizes, str):
            return sizes
        # The thread that writes may be writing now. The sizes belong to this state only if it is unchanged.
        if state is not None and state == self._index.read():
            self._compare(state, sizes)
        return self.cut

    def fault_of_written(self) -> str | None:
        """Return the same as `fault`, but check the written frames too. Called after each transaction, by the thread that
        writes."""
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

    @property
    def growth_bytes(self) -> int:
        """Return how much longer a checkpoint makes the database; 0 if that is not known."""
        state = self._index.read()
        sizes = self._sizes()
        return 0 if state is None or isinstance(sizes, str) else max(0, state.pages * PAGE_BYTES - sizes[0])

    def _sizes(self) -> list[int] | str:
        """Return the sizes of the files at the paths, or why they are not the opened files."""
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
        """Return the least lengths of the two files."""
        return min(self._file_bytes, state.pages * PAGE_BYTES) if state.pages else 0, state.wal_bytes

    def _is_marked(self, state: WalState) -> bool:
        """Return whether the frames that were written before are still there. Remember the present end of the file."""
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
        """Return the present end of the write-ahead log; None if it was just cut off."""
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
        """Close the descriptors. Call this only after the connections are closed."""
        with self._using:
            self._is_closed = True
            os.close(self._wal_descriptor)
            self._index.close()
