"""Detects that the machine's clock was set. Data from before and after have different dates, and retention goes by the date."""

import time
from collections.abc import Callable
from typing import Final

import structlog

# NTP's corrections in steps are smaller.
_JUMP_MIN_S: Final = 60.0


class ClockWatch:
    """Compares the clock that has the date with the clock that never jumps."""

    def __init__(self, now_unix_s: Callable[[], float] = time.time, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._now_unix_s: Final = now_unix_s
        self._monotonic_s: Final = monotonic_s
        self._offset_s = self._read()
        self._logger: Final = structlog.get_logger(__name__)

    def check(self) -> None:
        """Log one line if the clock was set by more than a minute since the last look."""
        offset_s = self._read()
        if abs(offset_s - self._offset_s) >= _JUMP_MIN_S:
            self._logger.warning(
                "the machine's clock was set: times of receipt and retention go by it; see docs/operate/operating.md",
                seconds=round(offset_s - self._offset_s),
            )
        self._offset_s = offset_s

    def _read(self) -> float:
        return self._now_unix_s() - self._monotonic_s()
