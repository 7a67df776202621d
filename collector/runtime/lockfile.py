"""Lock a data directory for one process.

The kernel holds the lock, not the file. So a process that dies (kill -9, power cut) leaves nothing behind to be cleaned up.

Invariants:
1. A second process is refused and learns which process holds the lock (test_the_second_is_told_who_is_first).
2. A process that was killed holds no lock (test_a_killed_process_holds_nothing).
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from collector.runtime.errors import CannotRun

_FILE: Final = "lock"


class Locked(CannotRun):
    """Another process has the data directory. `pid` is its id, or None where it can't be read."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        super().__init__(f"the data directory {data_dir} is in use by {f'process {pid}' if pid else 'another process'}")
        self.pid: Final = pid


class DataDirLock:
    """Held from construction until `release`. Raises Locked, OSError."""

    def __init__(self, data_dir: Path) -> None:
        self._file = os.open(data_dir / _FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self._file, 32, 0).strip()
            os.close(self._file)
            raise Locked(data_dir, int(text) if text.isdigit() else None) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
