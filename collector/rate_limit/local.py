"""Limits counted in the memory of this process: all of a plan if there is one process, a share of it if there are several.

No call waits, and no other process is involved.

Invariants:
1. Memory is bounded by the tenants that send now (test_memory_is_that_of_who_sends_now).
"""

from collections.abc import Callable
from typing import Final

from collector.rate_limit.buckets import Buckets, SteadyClock
from collector.tenancy.identity import Caller


class LocalLimiter:
    """A limiter (collector.rate_limit.contract) in memory. `now_nano` is a clock in nanoseconds, best a monotonic one. If it
    goes back, no time passes. With `share` = N, this process may admit one N-th of each plan."""

    def __init__(self, now_nano: Callable[[], int], share: int = 1) -> None:
        self._now: Final = SteadyClock(now_nano)
        self._buckets: Final = Buckets(share)
        self._refused: Final = Buckets()

    def __len__(self) -> int:
        """Return the number of buckets in memory."""
        return len(self._buckets)

    def check(self, caller: Caller, size_bytes: int) -> None:
        now = self._now()
        self._buckets.check(caller, size_bytes, now)
        self._refused.check(caller, size_bytes, now)

    async def take(self, caller: Caller, items: int, size_bytes: int) -> None:
        if caller.plan.is_limited:
            self._buckets.take(caller, items, size_bytes, self._now())

    def refused(self, caller: Caller, size_bytes: int) -> float:
        return self._refused.charge(caller, size_bytes, self._now()) if caller.plan.is_limited else 0.0

    async def give_back(self, caller: Caller, items: int, size_bytes: int) -> None:
        self._buckets.give_back(caller, items, size_bytes, self._now())
