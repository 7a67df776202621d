"""Decide when a lasting failure is logged: at once, then every half minute. So an outage neither floods the log nor is silent.

Invariants:
1. The first failure is logged. test_the_first_failure_is_logged
2. While a failure lasts, it is logged every 30 s: so at least once a minute if attempts are at most 30 s apart.
   test_a_lasting_failure_is_logged_at_least_once_a_minute
3. After `over` the next failure is a first one. test_what_fails_anew_is_logged_at_once
"""

import time
from collections.abc import Callable
from typing import Final

REMIND_S: Final = 30.0


class Reminder:
    """Call `due` at every failure, and `over` at the next success. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock: Final = clock
        self._logged_s: float | None = None
        self._cause: object = None

    def due(self, cause: object = None) -> bool:
        """Return whether to log this failure. A failure with a new `cause` is logged at once."""
        now_s = self._clock()
        if self._logged_s is not None and cause == self._cause and now_s - self._logged_s < REMIND_S:
            return False
        self._logged_s = now_s
        self._cause = cause
        return True

    def over(self) -> bool:
        """Forget the failure. Return whether there was one."""
        was, self._logged_s, self._cause = self._logged_s is not None, None, None
        return was
