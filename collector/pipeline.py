"""The path of a request, whatever it came by: adapt, validate, produce, count. `ingest` is all of it.

The law: it returns only when what was accepted is durable, and every item then has exactly one outcome, the one its sender
is told. Items are accepted or rejected; where the broker fails all are *failed*, those that would have been rejected too: the
sender is told to send all of them again, and hears of the bad ones then.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from uuid_utils import UUID, uuid7

from adapters.errors import RequestRefused
from adapters.record import Adapted, Header, Rules
from collector.broker.contract import BrokerError
from collector.metrics import Metrics
from collector.produce import Produce
from collector.validate import LimitRules, Limits

# (body, header, rules, message_bytes_max). Raises RequestRefused.
Adapt = Callable[[bytes, Header, Rules, int], Adapted]


class Tenant(NamedTuple):
    """Whose the records are."""

    id: str


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
        self, produce: Produce, limits: Limits, metrics: Metrics, *, message_bytes_max: int, now_unix_nano: Callable[[], int]
    ) -> None:
        self._produce: Final = produce
        self._limits: Final = limits
        self._metrics: Final = metrics
        self._message_bytes_max: Final = message_bytes_max
        self._now_unix_nano: Final = now_unix_nano

    async def ingest(self, adapt: Adapt, body: bytes, tenant: Tenant, source: int) -> Outcome:
        """Return when every accepted item of `body` is durable.

        Raises RequestRefused (permanent), BrokerError (retryable: nothing was kept) or Defect.
        """
        now = self._now_unix_nano()
        batch_id = uuid7(nanoseconds=now)
        try:
            header = Header(tenant.id, source, now, batch_id.bytes)
            adapted = adapt(body, header, LimitRules(self._limits, now), self._message_bytes_max)
        except RequestRefused:
            raise
        except Exception as error:
            raise Defect(batch_id) from error
        try:
            await self._produce(adapted.parts)
        except BaseException as error:  # being cancelled too: nobody was told that it is durable
            self._metrics.failed(adapted)
            if isinstance(error, BrokerError) or not isinstance(error, Exception):
                raise
            raise Defect(batch_id) from error
        self._metrics.ingested(adapted)
        return Outcome(batch_id, adapted)
