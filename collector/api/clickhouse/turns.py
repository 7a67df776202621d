"""Whose statement runs when, on ClickHouse's port.

The engine looks at a statement's time between two blocks of rows. One call of a function on long texts can take hours, and
nothing can end it but the end of the process. Such a statement is overdue: it keeps its tenant's turn, and gives its place to
the others.

Invariants:
1. At most `concurrent_max` statements run at once that are not overdue, and of a tenant at most half as many, overdue or not.
   (test_a_tenants_queries_leave_room_for_anothers, test_an_overdue_query_keeps_its_tenants_turn_only)
2. At most `overdue_max` overdue statements have given their place away. (test_so_many_overdue_queries_and_no_more)
3. A statement whose client has gone keeps its turn and its place until it ends. (test_a_client_that_goes_gives_nothing_back)
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import structlog

from collector.store.contract import StoreUnavailable

log = structlog.get_logger(__name__)

# Seconds past its time that a statement has until it is overdue: the engine ends almost all of them by itself.
_GRACE_S: Final = 5.0

T = TypeVar("T")


class QueryOverdue(Exception):
    """The statement ran past its time, and the engine can't end it."""


class _RunningQuery:
    """A statement that runs."""

    def __init__(self, tenant: str | None, query_id: str) -> None:
        self.tenant: Final = tenant
        self.query_id: Final = query_id[:100]  # a client chooses it
        self.began: Final = time.monotonic()
        self.is_overdue = False
        self.has_place = True


class QueryTurns:
    """Used by one event loop. `close` it at the end."""

    def __init__(self, concurrent_max: int, overdue_max: int, time_max_s: float, *, grace_s: float = _GRACE_S) -> None:
        """`time_max_s`: how long a statement may run, and how long one waits for its turn."""
        self._overdue_max: Final = overdue_max
        self._time_max_s: Final = time_max_s
        self._grace_s: Final = grace_s
        self._threads: Final = ThreadPoolExecutor(concurrent_max + overdue_max, "clickhouse-http")
        self._share: Final = max(1, concurrent_max // 2)
        self._places: Final = asyncio.Semaphore(concurrent_max)
        self._shares: Final[dict[str, asyncio.Semaphore]] = {}  # as many as tenants have keys
        self._overdue: Final[Counter[str | None]] = Counter()  # by tenant
        self._without_place = 0

    def close(self) -> None:
        """Take no more. Those that run end with the store."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, tenant: str | None, query_id: str, work: Callable[[], T]) -> T:
        """Return what `work` does in a thread, once it is the tenant's turn; None: somebody's who reads everything.

        Raises StoreUnavailable where no turn comes in time, QueryOverdue, and what `work` raises.
        """
        turn = await self._begun(tenant, query_id)
        loop = asyncio.get_running_loop()
        is_overdue = asyncio.Event()
        timer = loop.call_later(self._time_max_s + self._grace_s, self._note_overdue, turn, is_overdue)
        working = loop.run_in_executor(self._threads, work)

        def ended(future: asyncio.Future[T]) -> None:
            timer.cancel()
            self._end(turn)
            if not future.cancelled():
                future.exception()  # its client may have gone

        working.add_done_callback(ended)
        waiting = asyncio.ensure_future(is_overdue.wait())
        try:
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if working.done():
            return working.result()
        raise QueryOverdue(
            f"the query runs past {self._time_max_s:g} s (store.query_time_max_s) within one step, which the engine can't end."
            " Ask for less: shorter texts, fewer rows, no functions that compare each part of a text with each of another"
        )

    async def _begun(self, tenant: str | None, query_id: str) -> _RunningQuery:
        """Wait for the turn. Raises StoreUnavailable."""
        share = self._share_of(tenant)
        if share is not None and self._overdue[tenant] >= self._share:
            raise StoreUnavailable(
                f"{self._overdue[tenant]} queries of this tenant run past {self._time_max_s:g} s (store.query_time_max_s), and"
                " the engine can't end them: no other is answered until they end by themselves"
            )
        try:
            async with asyncio.timeout(self._time_max_s):
                if share is not None:
                    await share.acquire()
                try:
                    await self._places.acquire()
                except BaseException:
                    if share is not None:
                        share.release()
                    raise
        except TimeoutError:
            raise StoreUnavailable(f"other queries are running, and none ended in {self._time_max_s:g} s") from None
        return _RunningQuery(tenant, query_id)

    def _share_of(self, tenant: str | None) -> asyncio.Semaphore | None:
        """None: who reads everything may have all places."""
        if tenant is None:
            return None
        return self._shares.setdefault(tenant, asyncio.Semaphore(self._share))

    def _note_overdue(self, turn: _RunningQuery, is_overdue: asyncio.Event) -> None:
        turn.is_overdue = True
        self._overdue[turn.tenant] += 1
        if self._without_place < self._overdue_max:
            self._without_place += 1
            turn.has_place = False
            self._places.release()
        log.warning(
            "a query runs past store.query_time_max_s, and the engine can't end it: it takes CPU until it ends by itself or"
            " the collector is started again",
            tenant=turn.tenant,
            query_id=turn.query_id,
            running_s=round(time.monotonic() - turn.began, 1),
            keeps_others_waiting=turn.has_place,
        )
        is_overdue.set()

    def _end(self, turn: _RunningQuery) -> None:
        if turn.is_overdue:
            self._overdue[turn.tenant] -= 1
            if not self._overdue[turn.tenant]:
                del self._overdue[turn.tenant]
            log.info(
                "a query that ran past store.query_time_max_s has ended",
                tenant=turn.tenant,
                query_id=turn.query_id,
                ran_s=round(time.monotonic() - turn.began, 1),
            )
        if turn.has_place:
            self._places.release()
        else:
            self._without_place -= 1
        if turn.tenant is not None:
            self._shares[turn.tenant].release()
