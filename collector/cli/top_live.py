"""The loop of the command top: read, draw, wait.

Invariants:
1. A page that cannot be read gives one clear line: at the start with exit status 1, later on the screen, which stays
   (test_what_cannot_be_read_is_one_line, test_it_goes_on_while_the_collector_is_away).
2. Keys and a changed size take effect at once, also while the collector does not answer
   (test_a_collector_that_hangs_does_not_hold_the_keys).
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from collector.app.page_client import PageClient
from collector.app.page_fetcher import KeyRefused, PageUnavailable
from collector.app.top import DeadLetterStats, PolledPages, RateHistory
from collector.cli.common import fail, print_text, printable
from collector.cli.full_screen import FullScreen
from collector.cli.top_screen import OnScreen, Problem, full_screen, plain_text

# The page dlq-stats queries the store, so it is read less often than the others.
_STATS_INTERVAL_S: Final = 10.0

T = TypeVar("T")


def run(endpoint: str, key: str | None, interval_s: float, *, is_once: bool) -> None:
    """Show the collector at `endpoint` until the user ends it; if `is_once`, or without a terminal, once as plain text.

    If a page can't be read at the start, exit with status 1."""
    client = PageClient(endpoint, key)
    is_full_screen = not is_once and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    try:
        live = _Live(endpoint, client.poll(), client.dead_letter_stats() if key is not None else None)
        if is_full_screen:
            _show(client, live, interval_s, has_key=key is not None)
            return
        time.sleep(interval_s)
        live.take_pages(client.poll())
    except PageUnavailable as error:
        fail(printable(str(error)))
    except KeyboardInterrupt:
        if is_full_screen:  # before the screen was shown
            return
        raise
    print_text(plain_text(live.shown), ends_line=False)


def _show(client: PageClient, live: "_Live", interval_s: float, *, has_key: bool) -> None:
    """Draw the screen, and redraw it after each change, until the user ends it."""
    has_colours = not os.environ.get("NO_COLOR")
    with FullScreen.opened() as screen:
        looks = _Poller(client.poll, interval_s, screen.wake)
        stats = _Poller(client.dead_letter_stats, max(interval_s, _STATS_INTERVAL_S), screen.wake) if has_key else None
        while True:
            columns, lines = screen.size()
            screen.draw(full_screen(live.shown, columns, lines, has_colours=has_colours))
            if not screen.wait():
                return
            for found in stats.results() if stats is not None else ():
                live.take_stats(found)
            for look in looks.results():
                live.take_pages(look)


class _Live:
    """The contents of the screen, from the results of the pollers."""

    def __init__(self, endpoint: str, first: PolledPages, stats: DeadLetterStats | None) -> None:
        self._endpoint: Final = endpoint
        self._history: Final = RateHistory()
        self._stats = stats
        self._view = self._history.add(first, stats)
        self._problem: Problem | None = None
        self._key_problem: Problem | None = None

    @property
    def shown(self) -> OnScreen:
        """Return the contents of the screen."""
        return OnScreen(self._endpoint, self._view, self._problem, self._key_problem)

    def take_pages(self, result: PolledPages | PageUnavailable) -> None:
        """Show a result of /healthz and /metrics. If it is an error, the values before it stay, with the error."""
        if isinstance(result, PageUnavailable):
            self._problem = _since(self._problem, result)
        else:
            self._problem = None
            self._view = self._history.add(result, self._stats)

    def take_stats(self, result: DeadLetterStats | PageUnavailable | None) -> None:
        """Show the statistics of dead letters from the next look on; none after an error. Only a refused key is reported."""
        self._stats = None if isinstance(result, PageUnavailable) else result
        self._key_problem = _since(self._key_problem, result) if isinstance(result, KeyRefused) else None


def _since(before: Problem | None, error: PageUnavailable) -> Problem:
    """Return the problem that an error shows, which began with the problem `before`, or now."""
    return Problem(error.reason, time.time() if before is None else before.since_unix_s)


class _Poller(Generic[T]):
    """Calls a function once in each interval, in a thread, so that keys take effect while the collector does not answer."""

    def __init__(self, ask: Callable[[], T], interval_s: float, wake: Callable[[], None]) -> None:
        """`wake` is called after each result, in the thread."""
        self._ask: Final = ask
        self._interval_s: Final = interval_s
        self._wake: Final = wake
        self._results: Final[queue.SimpleQueue[T | Exception]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def results(self) -> list[T | PageUnavailable]:
        """Return the results since the last call. Raises any error of `ask` that is not PageUnavailable."""
        found: list[T | PageUnavailable] = []
        while not self._results.empty():
            result = self._results.get_nowait()
            if isinstance(result, Exception) and not isinstance(result, PageUnavailable):
                raise result
            found.append(result)
        return found

    def _run(self) -> None:
        due_s = time.monotonic() + self._interval_s
        while True:
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s, time.monotonic()) + self._interval_s
            try:
                self._results.put(self._ask())
            except Exception as error:  # noqa: BLE001  # the main thread raises it
                self._results.put(error)
            self._wake()
