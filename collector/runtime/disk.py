"""The free space of a directory's file system, and whether it is so low that the rest is kept for the store.

The store needs space to take the waiting messages out of the log. If the log takes the last byte, nothing can be stored, so
nothing drains and nothing is freed.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import structlog

_WARNING_INTERVAL_S: Final = 60.0


class Space(NamedTuple):
    """The space of a file system, in bytes. `free` is the part that this process may use."""

    free: int
    total: int


def measure(directory: Path) -> Space:
    """Return the space of the directory's file system. Raises OSError."""
    found = os.statvfs(directory)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


class Disk:
    """Watches the space of a directory, and of directories in it that may be mounts. Any thread may call `check`."""

    def __init__(
        self,
        directory: Path,
        reserve_percent: float,
        reserve_bytes_min: int,
        reserve_bytes_max: int,
        *,
        mounts: Sequence[Path] = (),
        warning: str | None = "the disk is low: no more telemetry is taken until there is room",
        measured: Callable[[Path], Space] = measure,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The reserve is `reserve_percent` of the file system, but at most `reserve_bytes_max`, and at least
        `reserve_bytes_min` or half of a smaller file system. `mounts` are directories that may be on other file systems. Each
        has a reserve, and the numbers are those of the one that has least beyond it. `warning` is logged while the disk is low;
        None logs nothing."""
        self.free_bytes: int | None = None
        """The bytes that were free at the last look; None if they could not be measured."""
        self.reserve_bytes = 0
        self.size_bytes = 0
        self.is_low = False
        self._directory: Final = directory
        self._mounts: Final = mounts
        self._scarcest = directory
        self._percent: Final = reserve_percent
        self._bytes_min: Final = reserve_bytes_min
        self._bytes_max: Final = reserve_bytes_max
        self._warning: Final = warning
        self._measured: Final = measured
        self._clock: Final = clock
        self._warned_at: float | None = None
        self._logger: Final = structlog.get_logger(__name__)

    def is_low_now(self) -> bool:
        """Look, and return whether it is low."""
        self.check()
        return self.is_low

    @property
    def shortage(self) -> str | None:
        """Return why no more telemetry is taken; None if there is room."""
        if not self.is_low:
            return None
        return (
            f"the disk of {self._scarcest} has {self.free_bytes} bytes free, and {self.reserve_bytes} are reserved for"
            " the store: free space, or lower local_log.reserve_percent or local_log.reserve_bytes_max"
        )

    def check(self) -> None:
        """Measure the space. If that fails, `is_low` stays as it was.

        The disk is low once the reserve is touched, until a twentieth more is free. So the state does not change with each
        request."""
        try:
            spaces = {self._directory: self._measured(self._directory)}
        except OSError:
            self.free_bytes = None
            return
        for mount in self._mounts:
            with suppress(OSError):  # it is not made yet, or was removed
                spaces[mount] = self._measured(mount)
        self._scarcest = min(spaces, key=lambda directory: spaces[directory].free - self._reserve(spaces[directory].total))
        free, total = spaces[self._scarcest]
        reserve = self._reserve(total)
        self.free_bytes, self.reserve_bytes, self.size_bytes = free, reserve, total
        self.is_low = free < reserve + (reserve // 20 if self.is_low else 0)
        if self._warning is None:
            return
        if self.is_low and (self._warned_at is None or self._clock() - self._warned_at >= _WARNING_INTERVAL_S):
            self._warned_at = self._clock()
            self._logger.warning(
                self._warning,
                directory=str(self._scarcest),
                free_bytes=free,
                reserve_bytes=reserve,
            )

    def _reserve(self, total: int) -> int:
        share = min(total * self._percent / 100, self._bytes_max)
        return int(max(share, min(self._bytes_min, total // 2)))
