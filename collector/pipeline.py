"""The path of a request, whatever it came by: adapt, validate, limit, produce, count. `ingest` is all of it.

The law: it returns only when what was accepted is durable, and every item then has exactly one outcome, the one its sender
is told. Items are accepted or rejected. All of a request's are *rate limited* where the tenant is over its plan, and *failed*
where the broker fails, those that would have been rejected too: the sender is told to send all of them again, and hears of the
bad ones then.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from uuid_utils import UUID, uuid7

from adapters.errors import RequestRefused
from adapters.record import Adapted, Header, Rules
from collector.broker.contract import BrokerError
from collector.limit.contract import Limited, Limiter
from collector.metrics import Metrics, Tenant
from collector.produce import Produce
from collector.tenancy.callers import Caller
from collector.validate import LimitRules, Limits

# (body, header, rules, message_bytes_max). Raises RequestRefused.
Adapt = Callable[[bytes, Header, Rules, int], Adapted]


class Outcome(NamedTuple):
    """What became of a request that was taken. `adapted` has how many items were accepted and rejected, and why."""

    batch_id: UUID
    adapted: Adapted


class Defect(Exception):
    """Not the sender's fault and not the broker's: ours. The cause is chained; nothing was acknowledged."""

    def __init__(self, batch_id: UUID) -> None:
        super().__init__(f"a defect of the collector, batch {batch_id}")
        self.batch_id: Final = batch_id


class Pipeline:
    """`ingest` for every receiver. `now_unix_nano` is the clock: nanoseconds since the Unix epoch."""

    def __init__(
        self,
        produce: Produce,
        limits: Limits,
        limiter: Limiter,
        metrics: Metrics,
        *,
        message_bytes_max: int,
        now_unix_nano: Callable[[], int],
    ) -> None:
        self._produce: Final = produce
        self._limits: Final = limits
        self._limiter: Final = limiter
        self._metrics: Final = metrics
        self._message_bytes_max: Final = message_bytes_max
        self._now_unix_nano: Final = now_unix_nano

    def check(self, caller: Caller, size_bytes: int) -> None:
        """Before a body is read or decoded: whether one of at least that size may come. Takes nothing of the quota.

        Raises Limited, RequestRefused.
        """
        if caller.plan.is_limited:
            try:
                self._limiter.check(caller, size_bytes)
            except (Limited, RequestRefused) as error:
                _count(self._metrics.tenant(caller.tenant), error)
                raise

    async def ingest(self, adapt: Adapt, body: bytes, caller: Caller, source: int) -> Outcome:
        """Return when every accepted item of `body` is durable.

        Raises RequestRefused (permanent), Limited or BrokerError (retryable: nothing was kept) or Defect.
        """
        self.check(caller, len(body))
        tenant = self._metrics.tenant(caller.tenant)
        now = self._now_unix_nano()
        batch_id = uuid7(nanoseconds=now)
        try:
            header = Header(caller.tenant, source, now, batch_id.bytes)
            adapted = adapt(body, header, LimitRules(self._limits, now), self._message_bytes_max)
        except RequestRefused:
            # What can't be read costs its tenant what it cost us: else nothing would limit it.
            await self._take(caller, None, len(body))
            tenant.refused()
            raise
        except Exception as error:
            raise Defect(batch_id) from error
        await self._take(caller, adapted, len(body))
        try:
            await self._produce(adapted.parts)
        except BaseException as error:  # being cancelled too: nobody was told that it is durable
            self._metrics.failed(adapted)
            tenant.failed(adapted)
            await self._give_back(caller, adapted, len(body))
            if isinstance(error, BrokerError) or not isinstance(error, Exception):
                raise
            raise Defect(batch_id) from error
        self._metrics.ingested(adapted)
        tenant.ingested(adapted, len(body))
        return Outcome(batch_id, adapted)

    async def _take(self, caller: Caller, adapted: Adapted | None, size_bytes: int) -> None:
        """`adapted`: None where the body could not be decoded."""
        if not caller.plan.is_limited:
            return
        try:
            await self._limiter.take(caller, _items(adapted), size_bytes)
        except (Limited, RequestRefused) as error:
            tenant = self._metrics.tenant(caller.tenant)
            _count(tenant, error)
            if adapted is not None:
                self._metrics.rate_limited(adapted)
                tenant.rate_limited(adapted)
            raise

    async def _give_back(self, caller: Caller, adapted: Adapted, size_bytes: int) -> None:
        if caller.plan.is_limited:
            await self._limiter.give_back(caller, _items(adapted), size_bytes)


def _count(tenant: Tenant, error: Limited | RequestRefused) -> None:
    if isinstance(error, Limited):
        tenant.limited(error.dimension)
    else:
        tenant.refused()


def _items(adapted: Adapted | None) -> int:
    return adapted.accepted_count() + adapted.rejected_count() if adapted is not None else 0
