"""Bodies that are read on the event loop share it: many at once hold up neither the loop nor another tenant's.

A small body takes up to 25 ms of the loop, and a connection brings hundreds at once: 120 of 300 bytes (gzip) took 4.4 s, and
nobody else had a turn. So once bodies have used a few milliseconds since the loop's last turn, further ones wait for the next.

Invariants:
1. Between two turns of the loop no body is begun once others have used _TURN_S
   (tests/unit/collector/ingest/test_loop_turns.py, test_a_turn_of_the_loop_is_bounded).
2. Tenants that wait have equal times, whatever each body costs: who waits with few is served first
   (test_a_tenant_waits_behind_its_own, test_tenants_have_equal_times).
3. Who waits is served or cancelled: no order of these leaves one behind (test_who_is_cancelled_holds_up_nobody).
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from mypy_extensions import i64

# A smaller body costs less than what is done around it, and is not looked at.
UNCOUNTED_BYTES_MAX: Final = 1024
# Of bodies between two turns of the loop.
_TURN_S: Final = 0.01
# What an honest body takes: as many are woken as fill a turn, and those that find it used up wait again.
_BYTE_S: Final = 10e-9


class _Queue:
    """One tenant's bodies that wait."""

    def __init__(self, number: int, had_s: float) -> None:
        self.number: Final = number
        self.had_s: float = had_s  # of the loop, counted from what others had when it came
        self.waiting: Final[deque[tuple[Any, int]]] = deque()  # futures, and the sizes of bodies


class LoopTurns:
    """One event loop's. Use: where `is_busy`, await `wait`; then read, and say with `used` how long that took."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.clock: Final = clock
        self.is_busy: bool = False
        """Whether who comes now has to wait."""
        self._used_s: float = 0.0  # since the last turn; before `is_busy` since an earlier one
        self._queues: Final[dict[str, _Queue]] = {}
        self._numbers: i64 = 0
        self._had_s: float = 0.0  # what the tenant had that was served first in the last turn

    def used(self, tenant: str, seconds: float) -> None:
        """Count what a body took."""
        self._used_s += seconds
        if self.is_busy:
            queue = self._queues.get(tenant)
            if queue is not None:
                queue.had_s += seconds
        elif self._used_s >= _TURN_S:
            self.is_busy = True
            asyncio.get_running_loop().call_soon(self._turn)

    async def wait(self, tenant: str, size_bytes: int) -> None:
        """Return when a body of that tenant may be read. Call it where `is_busy`."""
        is_first = True
        while is_first or self._used_s >= _TURN_S:
            queue = self._queues.get(tenant)
            if queue is None:
                self._numbers += 1
                queue = self._queues[tenant] = _Queue(int(self._numbers), self._had_s)
            future: Any = asyncio.get_running_loop().create_future()
            if is_first:
                if not queue.waiting:
                    queue.had_s = max(queue.had_s, self._had_s)
                queue.waiting.append((future, size_bytes))
            else:
                queue.waiting.appendleft((future, size_bytes))
            is_first = False
            await future

    def _turn(self) -> None:
        """The loop begins a turn: wake as many as may fill it."""
        self._used_s = 0.0
        left_s = _TURN_S
        has_woken = False
        order = self._order()
        if order:
            self._had_s = max(self._had_s, order[0][0])
        while left_s > 0 and order:
            had_s, number, queue = heapq.heappop(order)
            size_bytes = self._wake(queue)
            if size_bytes >= 0:
                has_woken = True
                left_s -= size_bytes * _BYTE_S
                if queue.waiting:
                    heapq.heappush(order, (had_s + size_bytes * _BYTE_S, number, queue))
        if has_woken:
            # They run before this is called again, and those that they leave no time wait once more.
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self.is_busy = False
            self._queues.clear()
            self._had_s = 0.0

    def _order(self) -> list[tuple[float, int, _Queue]]:
        """Return a heap of those that wait, who has had least first. Who waits no more and has had no more is forgotten."""
        for tenant, queue in list(self._queues.items()):
            if not queue.waiting and queue.had_s <= self._had_s:
                del self._queues[tenant]
        order = [(queue.had_s, queue.number, queue) for queue in self._queues.values() if queue.waiting]
        heapq.heapify(order)
        return order

    def _wake(self, queue: _Queue) -> int:
        """Wake who has waited longest. Return the size of its body; -1: nobody waits any more."""
        waiting = queue.waiting
        while waiting:
            future, size_bytes = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return size_bytes
        return -1
