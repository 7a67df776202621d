"""How a process of the collector ends: signals, and how much time they leave.

All that was acknowledged is in the broker by then, so the next start goes on from there.

Invariants:
1. The first signal asks to stop, the second ends the process at once (test_a_second_signal_ends_it_at_once).
2. Whatever hangs, the process ends when its time is over (test_what_never_ends_does_not_hold_it_up).
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

# How the time to stop is shared out: requests in flight may take up to the first, storing what is in the log up to the second.
RECEIVERS_SHARE: Final = 0.6
WRITER_SHARE: Final = 0.85

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[asyncio.Task[None]]:
    """In a task meanwhile, which at the end is cancelled and waited for."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


class GracefulShutdown:
    """One for a process, in its event loop."""

    def __init__(
        self,
        timeout_s: float,
        lame_duck_s: float,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
        *,
        twice_ends: bool = True,
    ) -> None:
        """`lame_duck_s`: how long to go on after SIGTERM, before the `timeout_s`. `twice_ends`: whether a second signal ends
        the process."""
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
        """Stop as a first signal other than SIGTERM does: without the time to go on."""
        self._asked.set()
        self._end_in(self.lame_duck_s + self._timeout_s)

    @property
    def is_asked(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._asked.is_set()

    @property
    def lame_duck_s(self) -> float:
        """How long requests are still to be accepted: not after SIGINT, for which a person waits, or where a part failed."""
        return self._lame_duck_s if self._leaves else 0.0

    def end_lame_duck(self) -> None:
        """Start the time within which the process must stop."""
        self._end_in(self._timeout_s)

    async def wait_or_end(self, *parts: asyncio.Task[None]) -> asyncio.Task[None] | None:
        """Return when asked to stop: None; or when one of the parts has ended: that one."""
        asked = asyncio.create_task(self._asked.wait())
        done, _ = await asyncio.wait({asked, *parts}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        return next((part for part in parts if part in done), None) if not self._asked.is_set() else None

    def left_s(self, share: float) -> float:
        """Seconds until that share of the time to stop is used up. It runs from the end of the lame duck, or from the first
        signal or the first call on where there is none."""
        if self._deadline is None:
            self._end_in(self._timeout_s)
        assert self._deadline is not None
        return max(0.0, self._deadline - self._timeout_s * (1 - share) - time.monotonic())

    def _end_in(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        if self._watchdog is not None:
            self._watchdog.cancel()
        # A thread, since what is late may be the event loop itself.
        self._watchdog = threading.Timer(seconds, self._too_late)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _too_late(self) -> None:
        log.error("could not stop in time, so it ends as it is; the next start goes on from the log", timeout_s=self._timeout_s)
        end_process(1)


def end_process(status: int) -> None:
    """At once: no handler, no thread and no buffer can hold it up."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
