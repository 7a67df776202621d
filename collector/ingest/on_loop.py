"""Decide when a body that is read on the event loop has taken too long there.

This is separate from large_bodies.py because it is compiled: every request calls it.

Invariants:
1. A body has 25 ms of the loop at most, and 5 ms if a body of its tenant has taken more than honest ones do within the last
   second (test_a_body_that_takes_long_leaves_the_loop, test_bodies_of_a_tenant_behind_a_dear_one_have_less). Otherwise each of
   a hundred bodies takes 25 ms before it is left, and the tenant's honest requests wait for all of them.
2. If one of a tenant's bodies was left within the last second, others that are at least as large are not begun on the loop
   (test_what_is_as_large_as_a_body_that_was_left_is_not_begun). Otherwise each of a hundred takes 5 ms in vain.
"""

import time
from collections.abc import Callable
from typing import Final

from mypy_extensions import i64

# CPU on the event loop, from the second rest of a body on. 130,000 rejected items fit a small body, and take 300 ms.
_ON_LOOP_S: Final = 0.025
# For bodies of a tenant that sent an expensive body. Most bodies are read by then.
_AFTER_DEAR_S: Final = 0.005
# Honest bodies of 256 KiB take up to 10 ms.
_HONEST_S: Final = 0.0125
_REMEMBERED_S: Final = 1.0
# The values of `_since_s` before the first rest of a body, and between the first and the second.
_NOT_RESTED: Final = -2.0
_RESTED_ONCE: Final = -1.0
_NO_BYTES: Final = 1 << 60


class TooLong(Exception):
    """A body takes too long on the event loop: read it in a thread."""


class OnLoop:
    """Times a body on the event loop, which calls `pause` from time to time. Call `begin` before each body, and `end` after it.

    The clock is a system call. A body that rests at most once, as a request of one resource does, does not pay for it.
    """

    def __init__(self, cpu_s: Callable[[], float] = time.thread_time, now_s: Callable[[], float] = time.monotonic) -> None:
        self._cpu_s: Final = cpu_s
        self._now_s: Final = now_s
        self._since_s: float = _NOT_RESTED
        self._allowed_s: float = _ON_LOOP_S
        self._tenant: str = ""
        self._size_bytes: i64 = 0
        self._is_left: bool = False
        self._dear_until_s: Final[dict[str, float]] = {}  # by tenant
        self._left_bytes: Final[dict[str, int]] = {}  # by tenant, the size of its smallest body that was left

    def may_begin(self, tenant: str, size_bytes: i64) -> bool:
        """Return whether a body of that size may be read on the loop."""
        if not self._left_bytes:
            return True
        left_bytes = self._left_bytes.get(tenant)
        return left_bytes is None or size_bytes < left_bytes or self._dear_until_s[tenant] <= self._now_s()

    def begin(self, tenant: str, size_bytes: i64) -> None:
        """Begin a body, and forget the one before it."""
        self._tenant = tenant
        self._size_bytes = size_bytes
        self._is_left = False
        self._since_s = _NOT_RESTED

    def end(self) -> None:
        """Note the cost of the body, whatever became of it."""
        if self._since_s >= 0.0 and self._cpu_s() - self._since_s > _HONEST_S:
            self._forget()
            self._dear_until_s[self._tenant] = self._now_s() + _REMEMBERED_S
        if self._is_left:
            self._forget()
            self._dear_until_s.setdefault(self._tenant, self._now_s() + _REMEMBERED_S)
            self._left_bytes[self._tenant] = min(int(self._size_bytes), self._left_bytes.get(self._tenant, _NO_BYTES))

    def pause(self) -> None:
        """Check the time that the body has taken. Raises TooLong."""
        if self._since_s == _NOT_RESTED and not self._is_behind_dear():
            self._since_s = _RESTED_ONCE
            return
        now_s = self._cpu_s()
        if self._since_s < 0.0:
            self._allowed_s = _ON_LOOP_S if self._since_s == _RESTED_ONCE else _AFTER_DEAR_S
            self._since_s = now_s
        elif now_s - self._since_s > self._allowed_s:
            self._is_left = True
            raise TooLong

    def _forget(self) -> None:
        """Forget tenants whose last second is over."""
        now_s = self._now_s()
        for tenant, until_s in list(self._dear_until_s.items()):
            if until_s <= now_s:
                del self._dear_until_s[tenant]
                self._left_bytes.pop(tenant, None)

    def _is_behind_dear(self) -> bool:
        """Return whether a body of this tenant was expensive within the last second."""
        until_s = self._dear_until_s.get(self._tenant) if self._dear_until_s else None
        return until_s is not None and until_s > self._now_s()
