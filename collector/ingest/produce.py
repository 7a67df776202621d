"""Append a request's parts to the broker, and limit how many bytes of requests are in memory at once.

Invariants:
1. All parts of a request go in one append, with its dead letters, and the part with the receipt is the last message. So a
   receipt that was kept means that the whole request was kept (test_all_parts_go_in_one_append,
   test_what_comes_before_is_in_the_same_append).
2. The bytes in memory never exceed the budget, and every reserved byte is released (test_the_budget_is_never_exceeded).
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Final, Protocol

from adapters.record import LOGS, METRICS, TRACES, Part
from collector.broker.contract import LOGS_TOPIC, METRICS_TOPIC, TRACES_TOPIC, BrokerError, BrokerFull, Message, Producer
from collector.ingest.room import HeldBytes, Room, Rooms

TOPICS: Final = {METRICS: METRICS_TOPIC, LOGS: LOGS_TOPIC, TRACES: TRACES_TOPIC}
SIGNALS: Final = {topic: signal for signal, topic in TOPICS.items()}


class Overloaded(Exception):
    """Too many bytes are in flight; nothing was kept, and the same request may be sent again later."""


class ShareExceeded(Overloaded):
    """Too many bytes of this tenant are in flight, so the plan is charged the cost of the request."""


class InFlight(HeldBytes):
    """The budget for the bytes of requests that are being received, or wait to be durable. Only one event loop uses it, so it
    has no locks.

    Until it is answered, a request holds the bytes that arrived, those that they were decompressed to, and those that its rows
    have beyond that. They count for its tenant's share, so that no tenant can use up the whole budget.
    """

    def __init__(self, bytes_max: int, tenant_bytes_max: int) -> None:
        super().__init__(bytes_max)
        self.tenant_bytes_max: Final = tenant_bytes_max
        self.rooms: Final = Rooms(self)
        self._shares: Final[dict[str, InFlightShare]] = {}

    def share(self, tenant: str) -> "InFlightShare":
        """Return the tenant's share."""
        share = self._shares.get(tenant)
        if share is None:
            # There are at most as many shares as tenants with keys, since no sender can invent a tenant.
            share = self._shares[tenant] = InFlightShare(self, tenant)
        return share


class InFlightShare(HeldBytes):
    """The part of the budget that one tenant holds."""

    def __init__(self, whole: InFlight, tenant: str) -> None:
        super().__init__(whole.tenant_bytes_max)
        self.room: Final = Room(self, whole.rooms)
        self._whole: Final = whole
        self._tenant: Final = tenant

    def check(self, size_bytes: int) -> None:
        """Raise Overloaded if `size_bytes` more do not fit now."""
        whole = self._whole
        if self.bytes_held + size_bytes > self.bytes_max:
            raise ShareExceeded(
                f"{self.bytes_held} bytes of tenant {self._tenant} are in flight, {size_bytes} more would exceed its share,"
                f" {self.bytes_max} (tenants.in_flight_share_max)"
            )
        if whole.bytes_held + size_bytes > whole.bytes_max:
            raise Overloaded(
                f"{whole.bytes_held} bytes are in flight, {size_bytes} more would exceed {whole.bytes_max}"
                " (broker.in_flight_bytes_max)"
            )

    def reserve(self, size_bytes: int) -> None:
        """Hold `size_bytes` more, until they are released. If it raises Overloaded, it has held none of them."""
        self.check(size_bytes)
        self.bytes_held += size_bytes
        self._whole.bytes_held += size_bytes

    def reserve_all_that_fits(self, held_bytes: int, size_bytes: int) -> int:
        """Hold `size_bytes` more for a request that holds `held_bytes`, but together no more than the tenant's share, so that
        the largest request can pass alone. Return how many more are held. If it raises Overloaded, it has held none of them."""
        size_bytes = max(0, min(size_bytes, self.bytes_max - held_bytes))
        self.reserve(size_bytes)
        return size_bytes

    def release(self, size_bytes: int) -> None:
        self.bytes_held -= size_bytes
        self._whole.bytes_held -= size_bytes
        if self._whole.rooms.is_waited_for:
            self._whole.rooms.wake_soon()


class AppendObserver(Protocol):
    """Receives the outcome of appends; collector.telemetry.metrics.Metrics is one."""

    def appended(self, seconds: float) -> None:
        """Count one append that is durable."""

    def append_failed(self, kind: str, seconds: float) -> None:
        """Count one append that failed. `kind` is full, unavailable, cancelled or defect."""


class Produce:
    """Appends parts as messages to the topics of their signals. When a call returns, they are durable."""

    def __init__(self, producer: Producer, observer: AppendObserver | None = None) -> None:
        self._producer: Final = producer
        self._observer: Final = observer

    async def __call__(self, parts: Sequence[Part], before: Sequence[Message] = ()) -> None:
        """Append all parts and the messages `before` them. The last part is kept only together with all the others.

        Raises BrokerFull: nothing was kept. Raises BrokerDown: Kafka may have kept some messages, or all.
        """
        if not parts and not before:
            return
        messages = [*before, *[Message(TOPICS[part.signal], part.payload, False, part.fingerprint) for part in parts]]
        began = perf_counter()
        try:
            await self._producer.append(messages)
        except BaseException as error:
            if self._observer is not None:
                self._observer.append_failed(_kind(error), perf_counter() - began)
            raise
        if self._observer is not None:
            self._observer.appended(perf_counter() - began)


def _kind(error: BaseException) -> str:
    if isinstance(error, BrokerFull):
        return "full"
    if isinstance(error, BrokerError):
        return "unavailable"
    return "defect" if isinstance(error, Exception) else "cancelled"
