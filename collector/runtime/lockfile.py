"""Lock a data directory for one process.

The kernel holds the lock, not the file. So a process that dies (kill -9, power cut) leaves nothing behind to be cleaned up.

Invariants:
1. A second process is refused and learns which process holds the lock, and for which command that soon ends
   (test_the_second_gets_the_name_of_the_first, test_a_command_is_named).
2. A process that was killed holds no lock (test_a_killed_process_holds_nothing).
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from collector.runtime.errors import CannotRun

_FILE: Final = "lock"
_TEXT_BYTES: Final = 64


class Locked(CannotRun):
    """Another process has the data directory. `pid` is its id, or None if it can't be read. `command` is the name of a command
    that ends by itself, such as `audit`; empty for a collector, which runs until it is stopped."""

    def __init__(self, data_dir: Path, pid: int | None, command: str = "") -> None:
        process = f"process {pid}" if pid else "another process"
        named = f" (the command {command})" if command else ""
        super().__init__(f"the data directory {data_dir} is in use by {process}{named}")
        self.pid: Final = pid
        self.command: Final = command


class DataDirLock:
    """The lock of a data directory, held from construction until `release`. Raises Locked, OSError."""

    def __init__(self, data_dir: Path, command: str = "") -> None:
        """`command` is the same as that of `Locked`."""
        self._file = os.open(data_dir / _FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, _, holder = os.pread(self._file, _TEXT_BYTES, 0).decode(errors="replace").strip().partition(" ")
            os.close(self._file)
            raise Locked(data_dir, int(pid) if pid.isdecimal() else None, holder) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()} {command}".strip().encode() + b"\n", 0)

    def release(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
