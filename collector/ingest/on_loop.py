"""When a body that is read on the event loop has taken too long there.

It is apart from large_bodies.py because it is compiled: every request calls it.
"""

import time
from collections.abc import Callable
from typing import Final

# CPU on the event loop, from the second rest of a body on. 130,000 rejected items fit a small body, and take 300 ms.
_ON_LOOP_S: Final = 0.025
# What `_since_s` is before the first rest of a body, and between that and the second.
_NOT_RESTED: Final = -2.0
_RESTED_ONCE: Final = -1.0


class TooLong(Exception):
    """A body takes too long on the event loop: read it in the thread."""


class OnLoop:
    """What a body on the event loop calls from time to time. Call `begin` before each body.

    The clock is a system call. A body that rests at most once, as a request of one resource does, does not pay for it.
    """

    def __init__(self, cpu_s: Callable[[], float] = time.thread_time) -> None:
        self._cpu_s: Final = cpu_s
        self._since_s: float = _NOT_RESTED

    def begin(self) -> None:
        """Forget the body before."""
        self._since_s = _NOT_RESTED

    def pause(self) -> None:
        """Raises TooLong."""
        if self._since_s == _NOT_RESTED:
            self._since_s = _RESTED_ONCE
            return
        now_s = self._cpu_s()
        if self._since_s == _RESTED_ONCE:
            self._since_s = now_s
        elif now_s - self._since_s > _ON_LOOP_S:
            raise TooLong
