"""Share the event loop among the bodies read on it, so that many bodies at once delay neither the loop nor other tenants.

A small body takes up to 25 ms of the loop, and a connection brings hundreds at once: 120 of 300 bytes (gzip) took 4.4 s, and
no other request had a turn. So once bodies have used _TURN_S since the loop's last turn, further bodies wait for the next turn.

Invariants:
1. Between two turns of the loop no body is begun once others have used _TURN_S
   (tests/unit/collector/ingest/test_loop_turns.py, test_a_turn_of_the_loop_is_bounded).
2. Tenants that wait get equal times, whatever each body costs: a tenant with few bodies is served first
   (test_a_tenant_waits_behind_its_own, test_tenants_have_equal_times).
3. Each waiting body is served or cancelled, in whatever order both happen (test_who_is_cancelled_holds_up_nobody).
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from mypy_extensions import i64

# A smaller body costs less than the work around it, so its time is not counted.
UNTIMED_BYTES_MAX: Final = 1024
# The time that bodies may use between two turns of the loop.
_TURN_S: Final = 0.01
# The time of an honest body for each byte. Enough bodies to fill a turn are woken; if it is used up, they wait again.
_BYTE_S: Final = 10e-9


class _Queue:
    """The waiting bodies of one tenant."""

    def __init__(self, number: int, had_s: float) -> None:
        self.number: Final = number
        self.had_s: float = had_s  # the loop's time that it had, counted from the others' time when it came
        self.waiting: Final[deque[tuple[Any, int]]] = deque()  # futures, and the sizes of bodies


class LoopTurns:
    """Gives turns to bodies on one event loop. If `is_busy`, await `wait`. Then read the body, and pass its time to `used`."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.clock: Final = clock
        self.is_busy: bool = False
        """Whether a body that comes now has to wait."""
        self._used_s: float = 0.0  # since the last turn; before `is_busy` since an earlier one
        self._queues: Final[dict[str, _Queue]] = {}
        self._numbers: i64 = 0
        self._had_s: float = 0.0  # the time of the tenant that was served first in the last turn

    def used(self, tenant: str, seconds: float) -> None:
        """Count the time that a body took."""
        self._used_s += seconds
        if self.is_busy:
            queue = self._queues.get(tenant)
            if queue is not None:
                queue.had_s += seconds
        elif self._used_s >= _TURN_S:
            self.is_busy = True
            asyncio.get_running_loop().call_soon(self._turn)

    async def wait(self, tenant: str, size_bytes: int) -> None:
        """Wait until a body of that tenant may be read. Call it only if `is_busy`."""
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
        """Begin a turn of the loop: wake as many bodies as may fill it."""
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
            # The woken bodies run before this is called again; those for which no time is left wait once more.
            asyncio.get_running_loop().call_soon(self._turn)
        else:
            self.is_busy = False
            self._queues.clear()
            self._had_s = 0.0

    def _order(self) -> list[tuple[float, int, _Queue]]:
        """Return a heap of the waiting tenants, by the time that they had. Forget idle tenants that had no more than others."""
        for tenant, queue in list(self._queues.items()):
            if not queue.waiting and queue.had_s <= self._had_s:
                del self._queues[tenant]
        order = [(queue.had_s, queue.number, queue) for queue in self._queues.values() if queue.waiting]
        heapq.heapify(order)
        return order

    def _wake(self, queue: _Queue) -> int:
        """Wake the body that has waited longest. Return its size, or -1 if none waits any more."""
        waiting = queue.waiting
        while waiting:
            future, size_bytes = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return size_bytes
        return -1
