"""End a process of the collector after a signal, within a time.

All acknowledged requests are in the broker by then, so the next start continues from there.

Invariants:
1. The first signal asks to stop, the second ends the process at once (test_a_second_signal_ends_it_at_once).
2. Whatever hangs, the process ends when its time is used up (test_what_never_ends_does_not_hold_it_up).
3. SIGTERM leaves balancers `lame_duck_s` to send elsewhere; that time is not taken from the time to stop
   (test_the_time_to_stop_begins_after_the_lame_duck).
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Final

import structlog

# The shares of the time to stop: requests in flight end within the first, and the log is stored within the second.
RECEIVERS_SHARE: Final = 0.6
WRITER_SHARE: Final = 0.85

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` in a task inside the `with` block. At its end, cancel the task and wait for it."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class GracefulShutdown:
    """Handles the signals of one process, in its event loop."""

    def __init__(
        self,
        timeout_s: float,
        lame_duck_s: float,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        *,
        twice_ends: bool = True,
    ) -> None:
        """`lame_duck_s` is how long requests are accepted after SIGTERM, before `timeout_s` begins. `twice_ends` is whether a
        second signal ends the process."""
        self._timeout_s: Final = timeout_s
        self._lame_duck_s: Final = lame_duck_s
        self._leaves = False
        self._watchdog: threading.Timer | None = None
        self._twice_ends: Final = twice_ends
        self._asked: Final = asyncio.Event()
        self._deadline: float | None = None
        for number in signals:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        if self._asked.is_set() and not self._twice_ends:
            return
        if self._asked.is_set():
            log.warning("ended by a second signal", signal=number.name)
            end_process(128 + number)
        log.info("stopping", signal=number.name, timeout_s=self._timeout_s)
        self._leaves = number == signal.SIGTERM
        self.ask()

    def ask(self) -> None:
        """Stop as after a first signal other than SIGTERM: without a lame duck period."""
        self._asked.set()
        self._end_in(self.lame_duck_s + self._timeout_s)

    @property
    def is_asked(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._asked.is_set()

    @property
    def lame_duck_s(self) -> float:
        """Return how long requests are still accepted: 0 after SIGINT, since a person waits, or if a part failed."""
        return self._lame_duck_s if self._leaves else 0.0

    def end_lame_duck(self) -> None:
        """Start the time within which the process must stop."""
        self._end_in(self._timeout_s)

    async def wait_or_end(self, *parts: asyncio.Task[None]) -> asyncio.Task[None] | None:
        """Wait until the process is asked to stop, and return None; or until a part has ended, and return that part."""
        asked = asyncio.create_task(self._asked.wait())
        done, _ = await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        return next((part for part in parts if part in done), None) if not self._asked.is_set() else None

    def left_s(self, share: float) -> float:
        """Return the seconds until that share of the time to stop is used up. The time begins at the end of the lame duck
        period, or, without one, at the first signal or the first call."""
        if self._deadline is None:
            self._end_in(self._timeout_s)
        assert self._deadline is not None
        return max(0.0, self._deadline - self._timeout_s * (1 - share) - time.monotonic())

    def _end_in(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        if self._watchdog is not None:
            self._watchdog.cancel()
        # A thread, since the event loop itself may be late.
        self._watchdog = threading.Timer(seconds, self._too_late)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _too_late(self) -> None:
        log.error("could not stop in time, and ends now; the next start continues from the log", timeout_s=self._timeout_s)
        end_process(1)


def end_process(status: int) -> None:
    """End the process at once: no handler, no thread and no buffer can delay it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
