"""Decide when each tenant's queries run on ClickHouse's port.

A query needs a place, of which there are `concurrent_max`, and one of its tenant's turns. The engine checks a query's time
between two blocks of rows. One call of a function on long texts can take hours, and only the end of the process ends it. Such a
query is overdue: it keeps its tenant's turn, and gives its place to other queries.

Invariants:
1. At most `concurrent_max` queries have a place. At most half as many of one tenant run, overdue or not.
   (test_a_tenants_queries_leave_room_for_anothers, test_an_overdue_query_keeps_its_tenants_turn_only)
2. At most `overdue_max` overdue queries have given their place to others. (test_so_many_overdue_queries_and_no_more)
3. A query whose client has gone keeps its turn and its place until it ends. (test_a_client_that_goes_gives_nothing_back)
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

# Seconds beyond its time after which a query is overdue. The engine ends almost all queries by itself before that.
_GRACE_S: Final = 5.0

T = TypeVar("T")


class QueryOverdue(Exception):
    """The query has run longer than allowed, and the engine can't end it."""


class _RunningQuery:
    """A query that is running."""

    def __init__(self, tenant: str | None, query_id: str) -> None:
        self.tenant: Final = tenant
        self.query_id: Final = query_id[:100]  # its client chose it
        self.began: Final = time.monotonic()
        self.is_overdue = False
        self.has_place = True


class QueryTurns:
    """The places and turns of queries. One event loop uses it. Call `close` at the end."""

    def __init__(self, concurrent_max: int, overdue_max: int, time_max_s: float, *, grace_s: float = _GRACE_S) -> None:
        """`time_max_s` is how long a query may run, and how long it may wait for its turn and its place.

        A tenant has half of `concurrent_max` turns, but at least one."""
        self._overdue_max: Final = overdue_max
        self._time_max_s: Final = time_max_s
        self._grace_s: Final = grace_s
        self._threads: Final = ThreadPoolExecutor(concurrent_max + overdue_max, "clickhouse-http")
        self._share: Final = max(1, concurrent_max // 2)
        self._places: Final = asyncio.Semaphore(concurrent_max)
        self._shares: Final[dict[str, asyncio.Semaphore]] = {}  # by tenant: no more than tenants have keys
        self._overdue: Final[Counter[str | None]] = Counter()  # overdue queries, by tenant
        self._without_place = 0

    def close(self) -> None:
        """Take no more queries. Running ones end with the store."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, tenant: str | None, query_id: str, work: Callable[[], T]) -> T:
        """Call `work` in a thread as soon as the query has a turn and a place, and return its result.

        `tenant` is None for a key that reads everything. Raises StoreUnavailable if that takes too long, QueryOverdue, and the
        errors of `work`.
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
                future.exception()  # mark the error as seen, since the client may have gone

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
        """Wait for a turn and a place, and return the query that has them. Raises StoreUnavailable."""
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
            raise StoreUnavailable(
                f"other queries are running, and none ended in {self._time_max_s:g} s (store.query_time_max_s)"
            ) from None
        return _RunningQuery(tenant, query_id)

    def _share_of(self, tenant: str | None) -> asyncio.Semaphore | None:
        """Return the turns of a tenant; None for a key that reads everything, which may have all places."""
        if tenant is None:
            return None
        return self._shares.setdefault(tenant, asyncio.Semaphore(self._share))

    def _note_overdue(self, turn: _RunningQuery, is_overdue: asyncio.Event) -> None:
        """Note that a query is overdue, and give its place to others if less than `overdue_max` have done so."""
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
        """Note that a query has ended, and release its turn and its place."""
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
