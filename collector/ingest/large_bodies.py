"""Adapt and decompress large bodies in threads, so that no request stops the event loop.

A few threads adapt them, each a body of another tenant, in turns of a few milliseconds. Compiled code holds the interpreter's
lock until it gives it back, so threads alone would change nothing. Adapters call `Rules.rest` after each stretch of a body, and
here that gives the lock back for a moment, and the turn to the next thread (ADR 0025). Libraries that decompress give the lock
back while they work, so a few threads do that.

A small body is adapted on the event loop. If that takes long, the body is left, and read again in a thread.

Invariants:
1. Of one tenant at most one body is read or waits for a thread, the others wait behind it
   (tests/unit/collector/ingest/test_large_bodies.py, test_a_tenant_waits_behind_its_own).
2. A caller that is cancelled does not wait, and its body is left at the next rest (test_large_bodies.py,
   test_a_cancelled_body_is_left).
3. Bodies of different tenants are read in turns: a long body does not delay a short one, and between two rests only one body
   runs (test_large_bodies.py, test_a_long_body_does_not_hold_up_a_short_one).
4. Of one tenant at most one body is decompressed at a time, so it uses at most one of the threads for that, whatever it sends
   (test_large_bodies.py, test_a_tenant_decompresses_one_body_at_a_time).
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from collector.runtime.turns import Turns

# The way to the thread and back costs a smaller body more than it saves. Honest ones take up to 10 ms.
DIRECT_BYTES_MAX: Final = 256 << 10
# The thread's CPU time from one rest to the next: a switch of threads costs up to 50 us.
_STRETCH_S: Final = 0.005
# Long enough for a thread that waits for the lock to get it.
_REST_S: Final = 50e-6
# How many tenants' bodies are read in turns. Their memory is bounded by broker.in_flight_bytes_max, which counts them all.
_READ_MAX: Final = 8
# A thread decompresses more than the threads that adapt read.
_DECOMPRESSING_MAX: Final = 4

Pause = Callable[[], None]
Result = TypeVar("Result")


def resting() -> Pause:
    """Return a function that a thread calls from time to time while it reads: it lets others have the interpreter's lock."""
    rest_at_s = 0.0

    def pause() -> None:
        nonlocal rest_at_s
        if time.thread_time() >= rest_at_s:
            time.sleep(_REST_S)
            rest_at_s = time.thread_time() + _STRETCH_S

    return pause


class _Abandoned(Exception):
    """No caller waits for the body any more."""


class Decompressing:
    """The threads that decompress. A caller holds the turn of its tenant from the first step of a body to the last.

    So the steps that wait for a thread are of different tenants, and are taken in the order in which they came."""

    def __init__(self) -> None:
        self._threads: Final = ThreadPoolExecutor(min(_DECOMPRESSING_MAX, os.cpu_count() or 1), "decompressing")
        self._turns: Final = Turns()

    def turn(self, tenant: str) -> asyncio.Lock:
        """Return the lock to hold while a body of that tenant is decompressed."""
        return self._turns.of(tenant)

    async def run(self, step: Callable[[], Result]) -> Result:
        """Call `step` in one of the threads, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, step)

    def close(self) -> None:
        """Start no more steps."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class LargeBodies:
    """The threads that adapt, and the bodies that wait for one. One event loop uses it: its only locks are asyncio's, and the
    readers' own."""

    def __init__(self) -> None:
        self.decompressing: Final = Decompressing()
        self._threads: Final = ThreadPoolExecutor(_READ_MAX, "large-bodies")
        self._free: Final = asyncio.Semaphore(_READ_MAX)
        self._turns: Final = Turns()
        # The thread that reads holds it. So at most one thread competes with the event loop for the interpreter's lock.
        self._reads: Final = threading.Lock()

    async def run(self, tenant: str, begin: Callable[[], Callable[[Pause], Result]]) -> Result:
        """Call `begin` when a thread is free for this tenant. Call the function that it returns in the thread, and return its
        result.

        The function in the thread calls its argument every few milliseconds.
        """
        async with self._turns.of(tenant), self._free:
            is_abandoned = False
            rest_at_s = 0.0

            def pause() -> None:
                nonlocal rest_at_s
                if is_abandoned:
                    raise _Abandoned
                if time.thread_time() >= rest_at_s:
                    self._reads.release()
                    try:
                        time.sleep(_REST_S)
                    finally:
                        self._reads.acquire()
                    rest_at_s = time.thread_time() + _STRETCH_S

            def read_in_turns(read: Callable[[Pause], Result]) -> Result:
                nonlocal rest_at_s
                with self._reads:
                    rest_at_s = time.thread_time() + _STRETCH_S
                    return read(pause)

            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, read_in_turns, begin())
            finally:
                is_abandoned = True

    def close(self) -> None:
        """Start no more bodies. A body that is being read is left at its next rest, once its caller is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.decompressing.close()
