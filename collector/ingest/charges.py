"""Charge requests to their tenants' plans: by items, and by bytes. The bytes are those of the body, of its rows, or of the
work of reading it, whichever are the most (collector/ingest/reading.py).

A request that is refused for good is counted, too. Otherwise no plan would limit such requests.

Invariants:
1. A body counts as it was sent, or decompressed, whichever is larger: an empty result costs its decompression all the same
   (tests/unit/collector/receivers/test_decompress.py, test_a_body_that_becomes_nothing_costs_what_was_sent).
2. Decompressed bytes count, whatever becomes of the request (test_decompress.py,
   test_what_was_decompressed_counts_where_the_plan_has_no_room).
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from adapters.errors import RequestRefused
from adapters.record import Adapted
from collector.ingest.produce import ShareExceeded
from collector.rate_limit.contract import Limited, Limiter
from collector.telemetry.metrics import Metrics
from collector.tenancy.identity import Caller


class Charges:
    """Counts requests for the plans of their callers. A caller without a limit costs nothing here."""

    def __init__(self, limiter: Limiter, metrics: Metrics) -> None:
        self._limiter: Final = limiter
        self._metrics: Final = metrics

    def check(self, caller: Caller, size_bytes: int) -> None:
        """Check, before a body is read or decoded, that the plan allows one of at least that size. Takes nothing of the quota.

        Raises Limited, RequestRefused.
        """
        if caller.plan.is_limited:
            try:
                self._limiter.check(caller, size_bytes)
            except (Limited, RequestRefused) as error:
                self._count(caller, error)
                raise

    async def charge_if_refused(
        self, caller: Caller, work: Awaitable[bytes], cost: Callable[[], int], received_bytes: int = 0
    ) -> bytes:
        """Await the `work` on a body before it is ingested. Raises the errors of `work`.

        If the body is refused, or does not fit its tenant's share of the bytes in flight, count it for the plan, with the bytes
        that `cost` returns. If the plan has no room for it, do so only if any work was done: if `cost` exceeds
        `received_bytes`."""
        refusal: RequestRefused | None = None  # raised after its handler: compiled code must not await in one
        try:
            return await work
        except RequestRefused as refused:
            refusal = refused
        except ShareExceeded:
            self.count_beyond_share(caller, cost())
            raise
        except Limited as over:
            if cost() > received_bytes:
                over.retry_after_s = max(over.retry_after_s, self._limiter.refused(caller, cost()))
            raise
        await self.charge(caller, cost())
        self._metrics.tenant(caller.tenant).refused()
        raise refusal

    def count_beyond_share(self, caller: Caller, size_bytes: int) -> None:
        """Count a request that does not fit its tenant's share of the bytes in flight."""
        self._limiter.refused(caller, size_bytes)

    async def charge(self, caller: Caller, size_bytes: int) -> None:
        """Count a request that is refused for good. Raises nothing."""
        if not caller.plan.is_limited:
            return
        for counted_bytes in (size_bytes, 0):
            # If not even a request can be counted, the next request is refused before it is read.
            with contextlib.suppress(Limited, RequestRefused):
                await self._limiter.take(caller, 0, counted_bytes)
                if counted_bytes == size_bytes:
                    return
        self._limiter.refused(caller, size_bytes)

    async def take(self, caller: Caller, adapted: Adapted | None, size_bytes: int) -> None:
        """Take the request from the plan's quota. `adapted` is None if only its bytes count.

        Raises Limited, RequestRefused.
        """
        if not caller.plan.is_limited:
            return
        try:
            await self._limiter.take(caller, _items(adapted), size_bytes)
        except (Limited, RequestRefused) as error:
            self._count(caller, error)
            if adapted is not None:
                self._metrics.rate_limited(adapted)
                self._metrics.tenant(caller.tenant).rate_limited(adapted)
            raise

    async def take_whole(self, caller: Caller, adapted: Adapted | None, cost_bytes: int, body_bytes: int) -> None:
        """Call `take` for a request that was read. If the plan refuses it, count the cost of reading its body.

        Raises Limited, RequestRefused.
        """
        refusal: RequestRefused | None = None  # as in `charge_if_refused`
        try:
            await self.take(caller, adapted, cost_bytes)
        except RequestRefused as refused:
            refusal = refused
        except Limited as over:
            over.retry_after_s = max(over.retry_after_s, self._limiter.refused(caller, body_bytes))
            raise
        if refusal is not None:
            await self.charge(caller, body_bytes)
            raise refusal

    async def give_back(self, caller: Caller, adapted: Adapted, size_bytes: int) -> None:
        """Return the quota of a request that was not kept."""
        if caller.plan.is_limited:
            await self._limiter.give_back(caller, _items(adapted), size_bytes)

    def _count(self, caller: Caller, error: Limited | RequestRefused) -> None:
        tenant = self._metrics.tenant(caller.tenant)
        if isinstance(error, Limited):
            tenant.limited(error.dimension)
        else:
            tenant.refused()


def _items(adapted: Adapted | None) -> int:
    return adapted.accepted_count() + adapted.rejected_count() if adapted is not None else 0
