"""Append a request's parts to the broker, and bound how many bytes of requests are in memory at once.

Invariants:
1. All parts of a request go in one append, with its dead letters, so the request is kept as a whole or not at all
   (test_all_parts_go_in_one_append, test_what_comes_before_is_in_the_same_append).
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
    """They are this tenant's own, so what the request cost counts for its plan."""


class InFlight(HeldBytes):
    """The budget of bytes of requests that are being received, or wait to be durable. One event loop's: no locks.

    A request holds its bytes as they arrive, what they decompress to, and what its rows have beyond that, until it is answered:
    of its tenant's share, so that one tenant alone can't use up what is there for all.
    """

    def __init__(self, bytes_max: int, tenant_bytes_max: int) -> None:
        super().__init__(bytes_max)
        self.tenant_bytes_max: Final = tenant_bytes_max
        self.rooms: Final = Rooms(self)
        self._shares: Final[dict[str, InFlightShare]] = {}

    def share(self, tenant: str) -> "InFlightShare":
        """That tenant's."""
        share = self._shares.get(tenant)
        if share is None:
            # As many as there are tenants with keys: no sender can invent one.
            share = self._shares[tenant] = InFlightShare(self, tenant)
        return share


class InFlightShare(HeldBytes):
    """What one tenant holds of the budget."""

    def __init__(self, whole: InFlight, tenant: str) -> None:
        super().__init__(whole.tenant_bytes_max)
        self.room: Final = Room(self, whole.rooms)
        self._whole: Final = whole
        self._tenant: Final = tenant

    def check(self, size_bytes: int) -> None:
        """Raise Overloaded if that many more would not fit now."""
        whole = self._whole
        if self.bytes_held + size_bytes > self.bytes_max:
            raise ShareExceeded(
                f"{self.bytes_held} bytes of tenant {self._tenant} are in flight, {size_bytes} more would exceed its share,"
                f" {self.bytes_max}"
            )
        if whole.bytes_held + size_bytes > whole.bytes_max:
            raise Overloaded(f"{whole.bytes_held} bytes are in flight, {size_bytes} more would exceed {whole.bytes_max}")

    def reserve(self, size_bytes: int) -> None:
        """Hold that many more, until as many are released. Raises Overloaded, and then holds none of them."""
        self.check(size_bytes)
        self.bytes_held += size_bytes
        self._whole.bytes_held += size_bytes

    def reserve_all_that_fits(self, held_bytes: int, size_bytes: int) -> int:
        """Hold that many more for a request that holds `held_bytes`, and return how many; but no more than make up the tenant's
        share, so that the largest request can pass alone. Raises Overloaded, and then holds none of them."""
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
        """Count one append that failed. `kind`: full, unavailable, cancelled or defect."""


class Produce:
    """Parts become messages of their signal's topic, and are durable when it returns."""

    def __init__(self, producer: Producer, observer: AppendObserver | None = None) -> None:
        self._producer: Final = producer
        self._observer: Final = observer

    async def __call__(self, parts: Sequence[Part], before: Sequence[Message] = ()) -> None:
        """The last part is kept only with all the others, and with the messages that come before them.

        Raises BrokerError (BrokerFull, BrokerDown): nothing was kept.
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
